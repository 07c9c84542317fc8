"""What sets items apart: robust scores, nearness to all queries, near-duplicates."""

from __future__ import annotations

import numpy as np
import pytest

from dbnorm_vdb import Metric
from dbnorm_vdb.audits.lists import Lists
from dbnorm_vdb.audits.outliers import (
    NEAR_EVERY_QUERY,
    OUTLYING,
    compared_as,
    mean_similarity,
    mean_squared_distance,
    near_duplicates,
    occurrence_z,
    robust_z,
)
from dbnorm_vdb.store import Hit

RNG = np.random.default_rng(3)


def cone(size: int, centre: np.ndarray, *, d: int = 32) -> np.ndarray:
    vectors = centre + RNG.normal(size=(size, d)) / np.sqrt(d)
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def test_robust_z_by_hand() -> None:
    """Median 3, absolute deviations 2, 1, 0, 1, 97: their median is 1."""
    values = np.array([1.0, 2, 3, 4, 100])
    assert robust_z(values, values) == pytest.approx((values - 3) / 1.4826)
    assert robust_z(values, values, least=5) == pytest.approx((values - 3) / 5)


def test_without_deviation_all_but_the_median_is_infinitely_far() -> None:
    values = np.array([0.0, 0, 0, 2, -1])
    assert robust_z(values, values).tolist() == [0, 0, 0, np.inf, -np.inf]


def test_occurrences_by_chance_are_not_outlying_even_where_most_items_are_never_found() -> None:
    for mean in (0.01, 0.3, 2, 40):
        counts = RNG.poisson(mean, 20_000)
        assert occurrence_z(counts).max() < 5.5, mean
        assert (occurrence_z(counts) >= OUTLYING).mean() < 1e-3


def test_a_hub_among_items_that_are_never_found_is_outlying() -> None:
    counts = np.zeros(1000, dtype=np.int64)
    counts[:20] = 1
    counts[5] = 60
    scores = occurrence_z(counts)
    assert np.flatnonzero(scores >= OUTLYING).tolist() == [5]
    assert np.isfinite(scores).all()


def test_items_that_are_never_found_count_among_those_an_item_stands_out_from() -> None:
    lists = Lists([[Hit("hub", 1.0, {}), Hit("other", 0.9, {})]] * 20)
    assert lists.z_scores(2) == {"hub": 0, "other": 0}
    assert min(lists.z_scores(100).values()) >= OUTLYING


@pytest.mark.parametrize("metric", list(Metric))
def test_mean_similarity_is_the_mean_of_the_similarities(metric: Metric) -> None:
    items, queries = (RNG.normal(size=(size, 8)).astype(np.float32) for size in (5, 9))
    if metric is Metric.EUCLIDEAN:
        expected = -np.square(items[:, None] - queries[None]).sum(axis=2).mean(axis=1)
    else:
        unit = (
            items / np.linalg.norm(items, axis=1, keepdims=True),
            queries / np.linalg.norm(queries, axis=1, keepdims=True),
        )
        expected = (unit[0] @ unit[1].T).mean(axis=1)
    assert mean_similarity(items, queries, metric) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("metric", list(Metric))
def test_only_a_vector_planted_amid_the_queries_is_near_every_query(metric: Metric) -> None:
    one, other = RNG.normal(size=(2, 32)) / np.sqrt(32)
    items, queries = cone(3000, one), cone(400, other)
    if metric is Metric.DOT:
        items = items * RNG.lognormal(0, 0.3, size=(len(items), 1)).astype(np.float32)
    planted = queries.mean(axis=0, keepdims=True)
    reference = mean_similarity(items, queries, metric)
    assert robust_z(reference, reference).max() < NEAR_EVERY_QUERY
    assert robust_z(mean_similarity(planted, queries, metric), reference)[0] > NEAR_EVERY_QUERY


@pytest.mark.parametrize("offset", [0.0, 5.0])
@pytest.mark.parametrize("scale", [0.01, 1.0, 300.0])
def test_near_duplicates_are_told_from_neighbours_on_any_scale_and_in_a_narrow_cone(
    offset: float, scale: float
) -> None:
    items = (scale * (RNG.normal(size=(500, 16)) + offset)).astype(np.float32)
    copies = items[:3] + scale * np.array([[0], [0.05], [0.5]]) * RNG.normal(size=(3, 16))
    vectors = compared_as(np.concatenate([items, copies]).astype(np.float32), Metric.EUCLIDEAN)
    apart = mean_squared_distance(vectors)
    found = [np.flatnonzero(near_duplicates(vectors[row], vectors, apart)).tolist() for row in range(3)]
    assert found == [[0, 500], [1, 501], [2]]


def test_under_cosine_a_scaled_copy_is_a_duplicate() -> None:
    items = RNG.normal(size=(50, 8)).astype(np.float32)
    vectors = np.concatenate([items, 3 * items[:1]])
    for metric, expected in ((Metric.COSINE, [0, 50]), (Metric.DOT, [0])):
        compared = compared_as(vectors, metric)
        apart = mean_squared_distance(compared)
        assert np.flatnonzero(near_duplicates(compared[0], compared, apart)).tolist() == expected


def test_where_all_items_are_the_same_all_are_duplicates() -> None:
    same = np.ones((4, 3))
    assert near_duplicates(same[0], same, mean_squared_distance(same)).all()
