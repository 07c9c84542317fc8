"""Hubness measures: hand-worked cases, and what must hold for every distribution."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbnorm_vdb import InvalidParameterError
from dbnorm_vdb.hubness import (
    MEASURES,
    Hubness,
    chance_hubness,
    hubness_range,
    is_hub,
    k_occurrence,
    measure_hubness,
)

INEQUALITIES = ("robin_hood", "gini", "atkinson")

distributions = st.lists(st.integers(0, 50), min_size=1, max_size=30).filter(any)


def close(measured: Hubness, expected: dict[str, float]) -> None:
    assert measured.as_dict() == pytest.approx(expected, abs=1e-12)


# --- by hand ---------------------------------------------------------------------------------------------------------


def test_three_queries_of_four_items() -> None:
    occurrences = k_occurrence([[0, 1], [2, 0], [0, 1]], 4)
    assert occurrences.tolist() == [3, 2, 1, 0]
    close(
        measure_hubness(occurrences),
        {
            "k_skewness": 0,  # symmetric about the mean of 1.5
            "robin_hood": (1.5 + 0.5 + 0.5 + 1.5) / (2 * 6),
            "gini": 2 * (1 + 2 + 3 + 1 + 2 + 1) / (2 * 4 * 6),
            "atkinson": 1 - ((math.sqrt(3) + math.sqrt(2) + 1 + 0) / 4) ** 2 / 1.5,
            "antihub_occurrence": 1 / 4,
            "hub_occurrence": 3 / 6,  # exactly twice the mean is a hub
            "groupie_ratio": 3 / 6,
        },
    )


def test_five_queries_of_five_items() -> None:
    close(
        measure_hubness(k_occurrence([[1], [1], [4], [1], [1]], 5)),
        {
            "k_skewness": (27 - 3) / 5 / ((9 + 3) / 5) ** 1.5,
            "robin_hood": (3 + 0 + 1 + 1 + 1) / (2 * 5),
            "gini": 2 * (3 + 3 * 1 + 3 * 4) / (2 * 5 * 5),
            "atkinson": 1 - ((2 + 1) / 5) ** 2 / 1,
            "antihub_occurrence": 3 / 5,
            "hub_occurrence": 4 / 5,
            "groupie_ratio": 4 / 5,
        },
    )


def test_many_more_queries_than_items() -> None:
    """Eight queries, two items, k = 1: the mean is 4, so 6 is no hub, though it is more than twice the queries / 8."""
    close(
        measure_hubness(k_occurrence([[0]] * 6 + [[1]] * 2, 2)),
        {
            "k_skewness": 0,
            "robin_hood": 4 / 16,
            "gini": 2 * 4 / (2 * 2 * 8),
            "atkinson": 1 - ((math.sqrt(6) + math.sqrt(2)) / 2) ** 2 / 4,
            "antihub_occurrence": 0,
            "hub_occurrence": 0,
            "groupie_ratio": 6 / 8,
        },
    )


def test_many_more_items_than_queries() -> None:
    """One query, k = 1, ten items: nine are never found."""
    close(
        measure_hubness(k_occurrence([[3]], 10)),
        {
            "k_skewness": (0.9**3 - 9 * 0.1**3) / 10 / ((0.9**2 + 9 * 0.1**2) / 10) ** 1.5,
            "robin_hood": 0.9,
            "gini": 0.9,
            "atkinson": 1 - (1 / 10) ** 2 / (1 / 10),
            "antihub_occurrence": 0.9,
            "hub_occurrence": 1,
            "groupie_ratio": 1,
        },
    )


def test_no_hubness_at_all() -> None:
    close(
        measure_hubness(k_occurrence([[0, 1], [2, 3], [4, 5]], 6)),
        dict.fromkeys(MEASURES, 0.0) | {"groupie_ratio": 1 / 6},
    )


# --- in general ------------------------------------------------------------------------------------------------------


@given(distributions)
def test_each_measure_is_what_its_definition_says(counts: list[int]) -> None:
    n, slots = len(counts), sum(counts)
    mean = slots / n
    variance = sum((x - mean) ** 2 for x in counts) / n
    third = sum((x - mean) ** 3 for x in counts) / n
    measured = measure_hubness(counts)
    assert measured.as_dict() == pytest.approx(
        {
            "k_skewness": third / variance**1.5 if min(counts) < max(counts) else 0.0,
            "robin_hood": sum(abs(x - mean) for x in counts) / (2 * slots),
            "gini": sum(abs(x - y) for x in counts for y in counts) / (2 * n * slots),
            "atkinson": 1 - (sum(math.sqrt(x) for x in counts) / n) ** 2 / mean,
            "antihub_occurrence": counts.count(0) / n,
            "hub_occurrence": sum(x for x in counts if x and x * n >= 2 * slots) / slots,
            "groupie_ratio": max(counts) / slots,
        },
        abs=1e-9,
    )
    for name, value in measured.as_dict().items():
        assert name == "k_skewness" or -1e-12 <= value <= 1
    assert measured.groupie_ratio >= 1 / n - 1e-12


@given(distributions, st.randoms(use_true_random=False), st.integers(2, 9))
def test_neither_the_items_order_nor_the_number_of_queries_matters(counts: list[int], random, times: int) -> None:
    shuffled = random.sample(counts, len(counts))
    close(measure_hubness(shuffled), measure_hubness(counts).as_dict())
    close(measure_hubness([times * x for x in counts]), measure_hubness(counts).as_dict())


@given(distributions, st.integers(0, 20))
def test_items_that_were_never_found_count_whether_they_are_listed_or_not(counts: list[int], unseen: int) -> None:
    close(measure_hubness(counts, item_count=len(counts) + unseen), measure_hubness(counts + [0] * unseen).as_dict())


@given(distributions.filter(lambda counts: max(counts) - min(counts) >= 2))
def test_a_slot_that_passes_from_the_most_found_item_to_the_least_found_lessens_inequality(counts: list[int]) -> None:
    fairer = list(counts)
    fairer[counts.index(max(counts))] -= 1
    fairer[counts.index(min(counts))] += 1
    before, after = measure_hubness(counts), measure_hubness(fairer)
    assert all(getattr(after, name) <= getattr(before, name) + 1e-12 for name in INEQUALITIES)
    assert after.gini < before.gini
    assert after.atkinson < before.atkinson


@given(st.integers(1, 12).flatmap(lambda n: st.tuples(st.just(n), st.lists(st.permutations(range(n)), max_size=8))))
def test_k_occurrence_counts_lists(drawn: tuple[int, list[list[int]]]) -> None:
    n, orders = drawn
    k = max(1, n // 2)
    lists = np.array([order[:k] for order in orders], dtype=np.int64).reshape(len(orders), k)
    lists[::2, -1] = -1  # some are shorter
    counts = k_occurrence(lists, n)
    assert counts.tolist() == [sum(item in row for row in lists.tolist()) for item in range(n)]


def test_hubs_are_the_items_found_at_least_twice_as_often_as_the_mean() -> None:
    assert is_hub(np.array([3, 2, 1, 0])).tolist() == [True, False, False, False]
    assert is_hub(np.array([0, 0])).tolist() == [False, False]


# --- chance and ranges -----------------------------------------------------------------------------------------------


def test_chance_by_hand() -> None:
    """Two queries, four items, k = 1: no, one or two lists with chances of 9, 6 and 1 in 16."""
    two, one = 1 / 16, 6 / 16
    close(
        chance_hubness(2, 4, 1),
        {
            "k_skewness": (1 - 2 / 4) / math.sqrt(2 * 1 / 4 * 3 / 4),
            "robin_hood": (9 * 0.5 + 6 * 0.5 + 1 * 1.5) / 16 / (2 * 0.5),
            "gini": 2 * (9 * 6 * 1 + 9 * 1 * 2 + 6 * 1 * 1) / 16**2 / (2 * 0.5),
            "atkinson": 1 - (one + two * math.sqrt(2)) ** 2 / 0.5,
            "antihub_occurrence": 9 / 16,
            "hub_occurrence": 1,  # whoever is found at all is found at least twice as often as the mean of 1 / 2
            "groupie_ratio": (1 + 1 - (15 / 16) ** 4) / 2,  # some item is in a list for sure
        },
    )


@pytest.mark.parametrize(("n", "total", "k"), [(300, 2000, 10), (1500, 1000, 10), (200, 400, 100), (50, 20_000, 5)])
def test_chance_is_what_lists_drawn_by_lot_show(n: int, total: int, k: int) -> None:
    rng = np.random.default_rng(0)
    draws = [
        measure_hubness(k_occurrence(np.array([rng.choice(total, k, replace=False) for _ in range(n)]), total))
        for _ in range(5)
    ]
    expected = chance_hubness(n, total, k).as_dict()
    for name in MEASURES:
        mean = np.mean([getattr(draw, name) for draw in draws])
        assert mean == pytest.approx(expected[name], rel=0.1, abs=0.15 if name == "k_skewness" else 0.01), name


def test_where_everything_is_found_chance_shows_nothing() -> None:
    close(chance_hubness(7, 4, 4), measure_hubness([7, 7, 7, 7]).as_dict())


@given(st.integers(2, 8).flatmap(lambda n: st.tuples(st.just(n), st.lists(st.permutations(range(n)), min_size=1))))
def test_measures_and_chance_are_in_the_range(drawn: tuple[int, list[list[int]]]) -> None:
    total, orders = drawn
    for k in {1, total // 2, total}:
        lists = [order[:k] for order in orders]
        least, most = hubness_range(len(lists), total, k)
        for found in (measure_hubness(k_occurrence(lists, total)), chance_hubness(len(lists), total, k)):
            for name in MEASURES:
                assert getattr(least, name) - 1e-9 <= getattr(found, name) <= getattr(most, name) + 1e-9, name


@pytest.mark.parametrize(("n", "total", "k"), [(5, 20, 3), (5, 8, 2), (3, 4, 3)])
def test_the_ends_of_the_range_are_reached(n: int, total: int, k: int) -> None:
    least, most = hubness_range(n, total, k)
    same = measure_hubness(k_occurrence([range(k)] * n, total))
    apart = measure_hubness(k_occurrence([[(i * k + j) % total for j in range(k)] for i in range(n)], total))
    for name in MEASURES[1:]:
        assert getattr(same, name) == pytest.approx(getattr(most, name))
        assert getattr(apart, name) == pytest.approx(getattr(least, name))
    assert measure_hubness([0] * (total - 1) + [n]).k_skewness == pytest.approx(most.k_skewness)
    assert measure_hubness([n] * (total - 1) + [0]).k_skewness == pytest.approx(least.k_skewness)


def test_bad_counts() -> None:
    with pytest.raises(InvalidParameterError, match="k=5 is more than the 4 items"):
        chance_hubness(3, 4, 5)
    with pytest.raises(InvalidParameterError, match="query_count must be at least 1, got 0"):
        hubness_range(0, 4, 2)


@pytest.mark.parametrize(
    ("neighbours", "item_count", "message"),
    [
        ([0, 1], 3, r"\(n, k\) array of integers, got int64 of shape \(2,\)"),
        ([[0.0, 1.0]], 3, "got float64"),
        ([[0, 3]], 3, "positions from 0 to 2, or -1, got 0 to 3"),
        ([[0, -2]], 3, "got -2 to 0"),
        ([[0, 1], [2, 2]], 3, "list 1 holds an item twice"),
        ([[0]], 0, "item_count must be at least 1"),
    ],
)
def test_bad_neighbours(neighbours: list, item_count: int, message: str) -> None:
    with pytest.raises(InvalidParameterError, match=message):
        k_occurrence(neighbours, item_count)


@pytest.mark.parametrize(
    ("occurrences", "item_count", "message"),
    [
        ([], None, "got float64"),
        ([0, 0], None, "one of them above, got int64 .* sum 0"),
        ([1, -1], None, "at least 0"),
        ([0.5], None, "whole numbers"),
        ([[1]], None, r"shape \(1, 1\)"),
        ([1, 2, 3], 2, "item_count=2 is less than the 3 items"),
    ],
)
def test_bad_occurrences(occurrences: list, item_count: int | None, message: str) -> None:
    with pytest.raises(InvalidParameterError, match=message):
        measure_hubness(occurrences, item_count=item_count)
