"""Team-draft interleaving: the properties that make it fair."""

import asyncio
from collections import Counter
from dataclasses import dataclass
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from dbnorm_vdb import InvalidParameterError
from dbnorm_vdb.experiments import Experiment
from dbnorm_vdb.experiments.interleaving import team_draft

EXPERIMENT = Experiment("hubs", ("raw", "dual_is"), salt="s")
LISTS = st.lists(st.integers(0, 12), max_size=12)


def draft(first, second, tosses, limit):
    items, ids, teams = team_draft(first, second, iter(tosses), limit=limit, id_of=lambda item: item)
    assert ids == [str(item) for item in items]
    return list(zip(items, teams, strict=True))


def test_a_draft_by_hand():
    """a is at the top of one list and third in the other; c and e are each the best that is left."""
    first, second = ["a", "b", "c", "d"], ["b", "e", "a", "f"]
    assert draft(first, second, [False, True, False], 6) == [
        ("a", 0), ("b", 1),  # the first team begins
        ("e", 1), ("c", 0),  # the second team begins
        ("d", 0), ("f", 1),
    ]  # fmt: skip
    assert draft(first, second, [True, True, False], 3) == [("b", 1), ("a", 0), ("e", 1)]


@given(LISTS, LISTS, st.lists(st.booleans(), min_size=24, max_size=24), st.integers(1, 30))
def test_every_pick_is_the_best_that_its_team_has_left(first, second, tosses, limit):
    shown = draft(first, second, tosses, limit)
    items = [item for item, _ in shown]
    assert len(set(items)) == len(items)
    assert len(items) == min(limit, len({*first, *second}))
    for place, (item, team) in enumerate(shown):
        left = [other for other in (first, second)[team] if other not in items[:place]]
        assert item == left[0]


@given(LISTS, LISTS, st.lists(st.booleans(), min_size=24, max_size=24))
def test_teams_differ_by_one_at_most_while_both_have_items_and_a_round_has_one_of_each(first, second, tosses):
    sizes = [0, 0]
    shown = set()
    for item, team in draft(first, second, tosses, 30):
        if not ({*first} - shown and {*second} - shown):
            break
        sizes[team] += 1
        shown.add(item)
        assert abs(sizes[0] - sizes[1]) <= (sum(sizes) % 2)


@given(LISTS, LISTS, st.lists(st.booleans(), min_size=24, max_size=24), st.integers(1, 12))
def test_fewer_are_the_beginning_of_more(first, second, tosses, limit):
    assert draft(first, second, tosses, limit) == draft(first, second, tosses, 30)[:limit]


@given(LISTS, LISTS, st.lists(st.booleans(), min_size=24, max_size=24))
def test_neither_side_is_favoured(first, second, tosses):
    """With the lists and the coins exchanged, the same items are shown and the teams are exchanged."""
    exchanged = draft(second, first, [not toss for toss in tosses], 30)
    assert [(item, 1 - team) for item, team in exchanged] == draft(first, second, tosses, 30)


def test_every_item_of_two_equal_lists_is_as_often_of_either_team():
    """So a click, whichever it is, speaks for both alike."""
    counts = Counter()
    for tosses in product([False, True], repeat=3):
        counts.update(draft(list("abcdef"), list("abcdef"), tosses, 6))
    assert set(counts.values()) == {4}
    assert len(counts) == 12


def test_a_list_that_has_run_out_leaves_the_rest_to_the_other():
    assert draft([1], [2, 3, 4], [False], 10) == [(1, 0), (2, 1), (3, 1), (4, 1)]
    assert draft([], [2, 3], [], 10) == [(2, 1), (3, 1)]
    assert draft([], [], [], 10) == []


def test_first_picks_are_fair_and_independent_of_each_other():
    lists = list(range(10)), list(range(10, 20))
    shown = [EXPERIMENT.interleave(user, *lists) for user in range(4000)]
    rounds = [[impression.teams[place] for place in (0, 2, 8)] for impression in shown]
    for place in range(3):
        assert stats.binomtest(sum(row[place] == "raw" for row in rounds), 4000).pvalue > 1e-4
    for one, other in ((0, 1), (0, 2), (1, 2)):
        equal = sum(row[one] == row[other] for row in rounds)
        assert stats.binomtest(equal, 4000).pvalue > 1e-4
    assert Counter(impression.first for impression in shown) == Counter(row[0] for row in rounds)


def test_each_impression_of_a_user_has_its_own_coins_and_the_same_impression_the_same():
    lists = list(range(40)), list(range(40, 80))
    one, other = (EXPERIMENT.interleave("anna", *lists) for _ in range(2))
    assert one.impression != other.impression
    assert one.teams != other.teams
    assert EXPERIMENT.interleave("anna", *lists, impression=one.impression) == one
    assert EXPERIMENT.interleave("anna", *lists, impression=one.impression, limit=7).teams == one.teams[:7]
    salted = Experiment("hubs", ("raw", "dual_is"), salt="other")
    assert salted.interleave("anna", *lists, impression=one.impression).teams != one.teams


def test_there_are_coins_for_the_longest_lists():
    shown = EXPERIMENT.interleave("anna", range(0, 4000, 2), range(1, 4000, 2), limit=4000)
    firsts = shown.teams[::2]
    assert len(shown) == 4000
    assert stats.binomtest(firsts.count("raw"), 2000).pvalue > 1e-4
    assert firsts[:512] != firsts[512:1024], "coins repeat"


@dataclass(frozen=True)
class Point:
    id: int
    score: float


def test_results_are_the_users_own_objects_and_as_many_as_the_longer_list():
    first = [Point(number, 1.0) for number in (1, 2, 3)]
    second = [Point(number, 9.0) for number in (3, 2)]
    shown = EXPERIMENT.interleave("anna", first, second, id_of=lambda point: point.id, impression="i")
    assert sorted(shown.ids) == ["1", "2", "3"]
    for point, team in zip(shown.items, shown.teams, strict=True):
        assert point in (first if team == "raw" else second)
    assert (shown.key, shown.impression) == ("anna", "i")


def test_an_empty_list_is_no_toss():
    assert EXPERIMENT.interleave("anna", [], [1, 2]).first is None
    assert EXPERIMENT.interleave("anna", [], []).items == ()


def test_it_serves_users_of_async_adapters_alike():
    """It is a function of two lists: whoever gets them awaits them."""

    async def search(method):
        await asyncio.sleep(0)
        return [1, 2, 3] if method == "raw" else [3, 2, 1]

    async def answer():
        results = await asyncio.gather(*(search(arm) for arm in EXPERIMENT.arms))
        return EXPERIMENT.interleave("anna", *results, impression="i")

    assert asyncio.run(answer()) == EXPERIMENT.interleave("anna", [1, 2, 3], [3, 2, 1], impression="i")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"limit": 0}, "limit"),
        ({"key": ""}, "key"),
        ({"first": [1.5]}, "item id"),
        ({"first": [""]}, "item id"),
        ({"impression": "x" * 65}, "impression"),
    ],
)
def test_what_cannot_be_interleaved_is_refused(arguments, message):
    with pytest.raises(InvalidParameterError, match=message):
        EXPERIMENT.interleave(**{"key": "anna", "first": [1], "second": [2], **arguments})
    with pytest.raises(InvalidParameterError, match="two arms"):
        Experiment("hubs", ("a", "b", "c")).interleave("anna", [1], [2])
