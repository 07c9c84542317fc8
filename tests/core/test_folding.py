"""The arithmetic of folded vectors."""

from datetime import datetime, timezone

import numpy as np
import pytest
from core.galleries import fitted
from hypothesis import given
from hypothesis import strategies as st

import dbnorm_vdb as db
from dbnorm_vdb.folding import FoldedStatistics, check_foldable, combined_adjustments, folded_statistics


def document(metric, lowest=-2.0):
    return FoldedStatistics(
        source="images",
        vector="",
        dimension=5,
        metric=metric,
        method="dual_is",
        generation=1,
        revision=0,
        lowest=lowest,
        folded_at=datetime(2024, 1, 1, tzinfo=timezone.utc),
    )


def similarities(folded_items, folded_queries, folded):
    """What an engine makes of folded vectors, on the similarity scale."""
    items, queries = folded_items.astype(np.float64), folded_queries.astype(np.float64)
    if folded.metric is db.Metric.EUCLIDEAN:
        return -((queries[:, None] - items[None]) ** 2).sum(axis=2) - folded.lowest
    return queries @ items.T


@given(st.sampled_from(list(db.Metric)), st.integers(0, 2**32 - 1), st.floats(0.1, 10))
def test_folded_similarities_are_the_normalised_ones(metric, seed, scale):
    rng = np.random.default_rng(seed)
    items, queries = (scale * rng.normal(size=(n, 5)).astype(np.float32) for n in (7, 3))
    adjustments = rng.uniform(-1, 1, size=7)
    folded = document(metric)
    rows, asked = folded.folded_items(items, adjustments), folded.folded_queries(queries)
    assert (rows.shape, rows.dtype, asked.shape, asked.dtype) == ((7, 6), np.float32, (3, 6), np.float32)
    exact_items, exact_queries = items.astype(np.float64), queries.astype(np.float64)
    if metric is db.Metric.COSINE:
        exact_items /= np.linalg.norm(exact_items, axis=1, keepdims=True)
        exact_queries /= np.linalg.norm(exact_queries, axis=1, keepdims=True)
    if metric is db.Metric.EUCLIDEAN:
        wanted = -((exact_queries[:, None] - exact_items[None]) ** 2).sum(axis=2) - adjustments
    else:
        wanted = exact_queries @ exact_items.T - adjustments
    np.testing.assert_allclose(similarities(rows, asked, folded), wanted, atol=3e-6 * (1 + np.abs(wanted).max()))


def test_a_zero_vector_has_no_direction_and_only_its_bias():
    row = document(db.Metric.COSINE).folded_items(np.zeros((1, 5), dtype=np.float32), np.array([0.25]))
    assert row.tolist() == [[0, 0, 0, 0, 0, -0.25]]


def test_adjustments_below_the_bound_are_refused():
    with pytest.raises(db.StatisticsError, match="lower bias than its statistics say"):
        document(db.Metric.EUCLIDEAN, lowest=-0.5).folded_items(np.ones((1, 5), dtype=np.float32), np.array([-0.6]))


def test_adjustments_are_those_that_rerank_subtracts():
    rng = np.random.default_rng(0)
    statistics, items = fitted(rng.uniform(-1, 1, size=(9, 20)), rng.uniform(-1, 1, size=(9, 20)))
    items.query_bias[3] = items.gallery_bias[3] = np.nan
    raw = np.sort(rng.uniform(-1, 1, size=20))[::-1]
    for method in (db.Method.IS, db.Method.DUAL_IS):
        adjustments, known = combined_adjustments(method, items, statistics)
        best = db.rerank(raw, items, statistics, method=method)
        np.testing.assert_allclose(best.scores, (raw - adjustments)[best.order], rtol=0, atol=1e-15)
        assert np.flatnonzero(~known).tolist() == [3]
        assert adjustments[3] == 0
        assert adjustments.min() > folded_statistics(statistics, method, "images").lowest


def test_only_additive_methods_can_be_folded():
    statistics, _ = fitted(np.eye(4), np.eye(4))
    assert check_foldable("dual_is", statistics) is db.Method.DUAL_IS
    for method in ("raw", "dis", "dual_dis", "sinkhorn", "rubbish"):
        with pytest.raises(db.UnsupportedMethodError):
            check_foldable(method, statistics)
