"""Groups of hits by a value of theirs, as of a normalised result: the best groups, in the order of their best hits."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import NamedTuple


class Groups(NamedTuple):
    """The best groups of a ranking.

    Attributes:
        ranks: of each group, the ranks of its best hits, from 0.
        needed: how many of the first ranks decide this, whatever comes later; None if later hits may change it: there
            are too few groups, or one of the first is not full.
    """

    ranks: list[list[int]]
    needed: int | None


def best_groups(values: Sequence[Hashable], count: int, size: int, *, strict: bool = False) -> Groups:
    """The `count` best groups of ranked hits, each with its `size` best.

    Args:
        values: what the hits are grouped by, best hit first.
        count: how many groups.
        size: how many hits of each.
        strict: leave out groups with fewer.
    """
    members: dict[Hashable, list[int]] = {}
    for rank, value in enumerate(values):
        group = members.setdefault(value, [])
        if len(group) < size:
            group.append(rank)
    groups = list(members.values())
    first = groups[:count]
    if len(first) == count and all(len(group) == size for group in first):
        return Groups(first, max(group[-1] for group in first) + 1)
    return Groups([group for group in groups if not strict or len(group) == size][:count], None)
