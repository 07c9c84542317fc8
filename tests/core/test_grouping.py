"""Groups of ranked hits: the best ones, in the order of their best hits, and how much of the ranking decides them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbnorm_vdb.grouping import best_groups


@pytest.mark.parametrize(
    ("values", "strict", "ranks", "needed"),
    [
        ("aabab", False, [[0, 1], [2, 4]], 5),
        ("ababb", False, [[0, 2], [1, 3]], 4),
        ("abac", False, [[0, 2], [1]], None),
        ("abac", True, [[0, 2]], None),
        ("abacc", True, [[0, 2], [3, 4]], None),  # a later b would come before c
        ("aaa", False, [[0, 1]], None),
        ("", False, [], None),
    ],
)
def test_two_groups_of_two(values, strict, ranks, needed):
    assert best_groups(values, 2, 2, strict=strict) == (ranks, needed)


@given(
    values=st.lists(st.sampled_from([None, 1, "x"]), max_size=12),
    count=st.integers(1, 4),
    size=st.integers(1, 3),
    strict=st.booleans(),
    later=st.lists(st.sampled_from([None, 1, "x", "y"]), max_size=6),
)
def test_what_is_needed_decides_whatever_comes_later(values, count, size, strict, later):
    found = best_groups(values, count, size, strict=strict)
    by_hand = {}
    for rank, value in enumerate(values):
        by_hand.setdefault(value, []).append(rank)
    groups = [group[:size] for group in by_hand.values() if not strict or len(group) >= size]
    assert found.ranks == groups[:count]
    if found.needed is not None:
        assert best_groups(values[: found.needed] + later, count, size, strict=strict) == found
