"""Bounds of items written after the fit: ranges always hold, whoever writes, in whatever order they are read."""

from datetime import datetime, timezone

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from dbnorm_vdb import BankStatistics, BiasSummary, CollectionStatistics, ItemStatistics, Metric
from dbnorm_vdb.bounds import bounds_beyond, dual_adjustments
from dbnorm_vdb.methods import Method, adjustment_range, adjustments_of, score


def fitted():
    def bank(low, high):
        return BankStatistics(
            beta=20.0,
            size=10,
            fingerprint="f",
            bias=BiasSummary(mean=(low + high) / 2, min=low, max=high),
            activation_k=1,
            activation_size=0,
        )

    return CollectionStatistics(
        generation=8,
        method="dual_is",
        vector="",
        dimension=3,
        metric=Metric.COSINE,
        query=bank(0.2, 0.6),
        gallery=bank(0.1, 0.3).model_copy(update={"beta": 5.0}),
        item_count=5,
        lowest_dual_adjustment=-0.1,
        fitted_at=datetime(2024, 1, 1, tzinfo=timezone.utc),
    )


def items_of(query, gallery):
    return ItemStatistics.of_biases(len(query), {"query": np.array(query), "gallery": np.array(gallery)})


def test_items_within_the_bounds_need_no_new_ones():
    assert bounds_beyond(fitted(), items_of([0.3, 0.6, 0.38], [0.15, 0.3, 0.1])) is None
    assert bounds_beyond(fitted(), items_of([], [])) is None
    assert bounds_beyond(fitted(), items_of([np.nan], [np.nan])) is None


def test_bounds_reach_further_than_they_must():
    bounds = bounds_beyond(fitted(), items_of([0.7], [0.2]))
    assert bounds.ranges.keys() == {"query"}
    low, high = bounds.ranges["query"]
    assert low == 0.2
    assert high > 0.7 + 0.05
    assert bounds.lowest_dual is None


def test_bounds_of_another_generation_do_not_count():
    bounds = bounds_beyond(fitted(), items_of([0.9], [0.9]))
    other = fitted().model_copy(update={"generation": 9})
    assert other.widened([bounds]) == other
    assert fitted().widened([]) == fitted()


BIASES = st.lists(st.tuples(st.floats(-5, 5), st.floats(-5, 5)), min_size=1, max_size=6)


@settings(deadline=None, max_examples=200)
@given(first=BIASES, second=BIASES, similarity=st.floats(-1, 1))
def test_the_ranges_hold_for_items_of_two_writers_that_do_not_know_of_each_other(first, second, similarity):
    groups = [items_of(*map(list, zip(*rows, strict=True))) for rows in (first, second)]
    bounds = [found for group in groups if (found := bounds_beyond(fitted(), group)) is not None]
    for order in (bounds, bounds[::-1]):
        active = fitted().widened(order)
        for group in groups:
            for name, column in active.columns.items():
                assert (group.bias(name) >= column.bias.min).all()
                assert (group.bias(name) <= column.bias.max).all()
            assert (dual_adjustments(active, group) >= active.lowest_dual_adjustment - 1e-12).all()
            for method in (Method.IS, Method.DUAL_IS):
                least, most = adjustment_range(active, method)
                scores = score(method, np.full((1, len(group)), similarity), adjustments_of(active, group), {})
                assert (scores <= similarity - least + 1e-12).all()
                assert (scores >= similarity - most - 1e-12).all()
