"""`rerank` gives a query's candidates the scores and the order that `normalize` gives them in the whole gallery."""

import numpy as np
import pytest
from core.galleries import bank_statistics, collection_statistics, engine_order, fitted, galleries, items_with, take
from hypothesis import given, settings
from oracle import assert_same_order, oracle_scores

from dbnorm_vdb import (
    InvalidParameterError,
    InvalidVectorsError,
    ItemStatistics,
    UnsupportedMethodError,
    normalize,
    rerank,
)

FITTED = ("raw", "is", "dis", "dual_is", "dual_dis")


ONE_BANK = collection_statistics(bank_statistics(np.array([-0.2, 0.2]), 20.0), method="is")


@pytest.mark.parametrize("method", FITTED)
@settings(deadline=None, max_examples=100)
@given(problem=galleries())
def test_the_whole_gallery_as_candidates_is_ranked_as_normalize_ranks_it(method, problem):
    similarities, arguments = problem
    statistics, items = fitted(**arguments)
    positions = engine_order(similarities[0])
    result = rerank(similarities[0, positions], take(items, positions), statistics, method=method)

    assert_same_order(positions[result.order], oracle_scores(method, similarities, **arguments)[0])
    scores = normalize(similarities, **arguments, method=method)[0]
    np.testing.assert_allclose(result.scores, scores[positions[result.order]], rtol=1e-9, atol=1e-9)
    assert (np.diff(result.scores) <= 0).all()


@pytest.mark.parametrize("method", FITTED)
def test_a_window_of_candidates_keeps_the_order_they_have_in_the_gallery(method):
    rng = np.random.default_rng(1)
    similarities = rng.uniform(-0.2, 1, size=60)
    statistics, items = fitted(rng.uniform(0, 1, size=(9, 60)), rng.uniform(0, 1, size=(8, 60)))
    positions = engine_order(similarities)
    whole = positions[rerank(similarities[positions], take(items, positions), statistics, method=method).order]
    for window in (1, 2, 17, 59):
        seen = positions[:window]
        result = rerank(similarities[seen], take(items, seen), statistics, method=method)
        assert seen[result.order].tolist() == [item for item in whole if item in set(seen)]


def test_the_method_of_the_statistics_is_the_default():
    rng = np.random.default_rng(2)
    statistics, items = fitted(rng.uniform(size=(5, 20)), rng.uniform(size=(5, 20)))
    similarities = np.sort(rng.uniform(size=20))[::-1]
    for method in FITTED:
        default = rerank(similarities, items, statistics.model_copy(update={"method": method}))
        named = rerank(similarities, items, statistics, method=method)
        np.testing.assert_array_equal(default.order, named.order)
        np.testing.assert_array_equal(default.scores, named.scores)


@pytest.mark.parametrize("method", ["dis", "dual_dis"])
def test_the_gate_is_that_of_the_first_candidate(method):
    statistics, _ = fitted(np.array([[0.1, 0.2, 0.6]]), np.array([[0.1, 0.2, 0.6]]))
    flags = np.array([False, True, True])
    items = ItemStatistics(np.array([0.6, 0.1, 0.1]), np.array([0.6, 0.1, 0.1]), flags, flags)
    similarities = np.array([0.9, 0.8, 0.7])
    assert rerank(similarities, items, statistics, method=method).scores.tolist() == [0.9, 0.8, 0.7]
    opened = ItemStatistics(items.query_bias, items.gallery_bias, ~flags, ~flags)
    assert rerank(similarities, opened, statistics, method=method).order.tolist() == [1, 2, 0]


def test_equal_scores_go_by_raw_similarity_and_then_by_the_engines_order():
    # a bias of exactly what the similarity is more: 0.75 - 0.25 = 0.5 - 0 = 0.25 + 0.25
    items = items_with([0.25, 0.25, 0.0, 0.0, -0.25])
    result = rerank([0.75, 0.75, 0.5, 0.5, 0.25], items, ONE_BANK)
    assert result.scores.tolist() == [0.5] * 5
    assert result.order.tolist() == [0, 1, 2, 3, 4]
    backwards = rerank([0.25, 0.5, 0.5, 0.75, 0.75], items_with([-0.25, 0.0, 0.0, 0.25, 0.25]), ONE_BANK)
    assert backwards.order.tolist() == [3, 4, 1, 2, 0]


def test_the_same_candidates_give_the_same_answer_every_time():
    rng = np.random.default_rng(3)
    similarities = np.sort(rng.integers(0, 4, size=50) / 4)[::-1]
    items = items_with(rng.integers(-2, 3, size=50) / 8)
    first = rerank(similarities, items, ONE_BANK)
    for _ in range(5):
        again = rerank(similarities.copy(), items, ONE_BANK)
        np.testing.assert_array_equal(again.order, first.order)
        np.testing.assert_array_equal(again.scores, first.scores)


@pytest.mark.parametrize("method", ["is", "dis", "dual_is", "dual_dis"])
def test_an_item_without_statistics_counts_as_an_average_one(method):
    biases = np.array([-0.25, 0.25])
    statistics = collection_statistics(bank_statistics(biases, 20.0), bank_statistics(biases + 0.5, 10.0), method)
    unknown = items_with([0.25, np.nan, -0.25], [0.75, np.nan, 0.25], activated=True)
    average = items_with([0.25, 0.0, -0.25], [0.75, 0.5, 0.25], activated=True)
    similarities = [0.9, 0.7, 0.3]
    expected = rerank(similarities, average, statistics)
    result = rerank(similarities, unknown, statistics)
    assert result.order.tolist() == expected.order.tolist() == [1, 0, 2]
    np.testing.assert_allclose(result.scores, expected.scores, atol=1e-15)


@pytest.mark.parametrize("method", FITTED)
def test_candidates_without_any_statistics_keep_the_engines_order_and_scores(method):
    statistics, _ = fitted(np.ones((2, 4)), np.ones((2, 4)))
    similarities = [0.9, 0.5, 0.5, -0.25]
    result = rerank(similarities, ItemStatistics.unknown(4), statistics, method=method)
    assert result.order.tolist() == [0, 1, 2, 3]
    assert result.scores.tolist() == similarities


@pytest.mark.parametrize("method", FITTED)
def test_one_candidate_is_returned_whatever_its_bias(method):
    statistics, items = fitted(np.array([[0.9, 0.1]]), np.array([[0.9, 0.1]]))
    result = rerank([-0.4], take(items, [0]), statistics, method=method)
    assert result.order.tolist() == [0]
    assert np.isfinite(result.scores).all()


@pytest.mark.parametrize("method", FITTED)
def test_no_candidates_give_an_empty_result(method):
    statistics, _ = fitted(np.ones((2, 4)), np.ones((2, 4)))
    result = rerank([], ItemStatistics.unknown(0), statistics, method=method, limit=5)
    assert result.order.shape == result.scores.shape == (0,)


@pytest.mark.parametrize(("limit", "expected"), [(1, 1), (3, 3), (4, 4), (9, 4), (None, 4)])
def test_limit_cuts_the_list_after_it_was_reordered(limit, expected):
    items = items_with([0.5, 0.0, -0.5, 0.25])
    everything = rerank([0.9, 0.8, 0.7, 0.6], items, ONE_BANK)
    result = rerank([0.9, 0.8, 0.7, 0.6], items, ONE_BANK, limit=limit)
    assert everything.order.tolist() == [2, 1, 0, 3]
    assert result.order.tolist() == everything.order.tolist()[:expected]
    assert result.scores.tolist() == everything.scores.tolist()[:expected]


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_below_one_is_refused(limit):
    with pytest.raises(InvalidParameterError, match=f"limit must be at least 1, got {limit}"):
        rerank([0.5], items_with([0.0]), ONE_BANK, limit=limit)


@pytest.mark.parametrize(
    ("similarities", "message"),
    [
        pytest.param([0.5], r"shape \(1,\) for 2 candidates", id="too few"),
        pytest.param([0.5, 0.4, 0.3], r"shape \(3,\) for 2 candidates", id="too many"),
        pytest.param([[0.5, 0.4]], r"shape \(1, 2\) for 2 candidates", id="a matrix"),
        pytest.param([0.5, np.nan], "1 of 2 similarities are NaN", id="NaN"),
    ],
)
def test_similarities_that_do_not_fit_the_items_are_refused(similarities, message):
    with pytest.raises(InvalidVectorsError, match=message):
        rerank(similarities, items_with([0.0, 0.1]), ONE_BANK)


@pytest.mark.parametrize("method", ["dual_is", "dual_dis", "nnn", "sinkhorn", "best"])
def test_a_method_that_the_statistics_cannot_serve_is_refused(method):
    with pytest.raises(UnsupportedMethodError, match=f"'{method}'.* raw, is, dis"):
        rerank([0.5], items_with([0.0]), ONE_BANK, method=method)


def test_a_gallery_bank_alone_serves_raw_only():
    statistics = collection_statistics(gallery=bank_statistics(np.array([-0.2, 0.2]), 10.0), method="raw")
    assert rerank([0.5], ItemStatistics.unknown(1), statistics).scores.tolist() == [0.5]
    with pytest.raises(UnsupportedMethodError, match=r"'is' cannot be served .* support raw;"):
        rerank([0.5], ItemStatistics.unknown(1), statistics, method="is")


def test_the_candidates_are_left_as_they_were():
    similarities = np.array([0.9, 0.8])
    items = items_with([0.5, np.nan])
    rerank(similarities, items, ONE_BANK)
    rerank(similarities, items, ONE_BANK, method="raw").scores[:] = 7.0
    assert similarities.tolist() == [0.9, 0.8]
    np.testing.assert_array_equal(items.query_bias, [0.5, np.nan])
