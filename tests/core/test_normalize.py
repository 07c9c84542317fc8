"""`normalize` ranks like the papers' formulas, and returns the additive score on the similarity scale."""

import doctest

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from oracle import LARGEST_BETA, METHODS, additive_scores, assert_same_order, oracle_scores, ranking

import dbnorm_vdb.normalization
from dbnorm_vdb import Method, normalize

DUAL = ("dual_is", "dual_dis")
NEEDS_QUERY_BANK = tuple(method for method in METHODS if method != "raw")


def random_problem(seed, *, queries=12, items=40, query_bank=60, gallery_bank=50, dimension=8):
    """Cosine similarities of random vectors around a common centre, as embeddings are: some items are hubs."""
    rng = np.random.default_rng(seed)
    centre = rng.normal(size=dimension)
    vectors = [centre + rng.normal(size=(n, dimension)) for n in (queries, items, query_bank, gallery_bank)]
    q, g, q_bank, g_bank = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in vectors)
    return q @ g.T, {"query_bank": q_bank @ g.T, "gallery_bank": g_bank @ g.T}


@st.composite
def extreme_problems(draw):
    """Few queries, items and bank vectors; similarities of exactly 1, -1 and 0, repeated columns, any beta."""
    n = draw(st.integers(1, 6), label="items")
    values = st.sampled_from([-1.0, 0.0, 0.2, 1.0]) | st.floats(-1, 1, allow_subnormal=False)
    columns = draw(st.lists(st.integers(0, n - 1), min_size=n, max_size=n), label="which items are copies")
    similarities, query_bank, gallery_bank = (
        draw(arrays(np.float64, (draw(st.integers(1, 4)), n), elements=values, fill=values))[:, columns]
        for _ in range(3)
    )
    betas = st.sampled_from([0.01, 1.0, LARGEST_BETA]) | st.floats(0.01, LARGEST_BETA)
    return similarities, {
        "query_bank": query_bank,
        "gallery_bank": gallery_bank,
        "query_beta": draw(betas, label="query_beta"),
        "gallery_beta": draw(betas, label="gallery_beta"),
        "activation_k": draw(st.integers(1, 3), label="activation_k"),
        "iterations": draw(st.integers(1, 4), label="iterations"),
        "nnn_alpha": draw(st.floats(0, 2), label="nnn_alpha"),
        "nnn_k": draw(st.integers(1, 5), label="nnn_k"),
    }


def assert_agrees_with_oracle(method, similarities, arguments):
    """Every row in the order of the formulas, and the values of the additive form where those are promised."""
    scores = normalize(similarities, method=method, **arguments)
    assert scores.shape == similarities.shape
    assert np.isfinite(scores).all()
    # nnn and the mean bias are sums: near 0 their rounding is absolute
    absolute = 1e-12 if method == "nnn" else 0.0
    for row, (values, truth) in enumerate(zip(scores, oracle_scores(method, similarities, **arguments), strict=True)):
        assert_same_order(ranking(values, similarities[row]), truth, absolute=absolute)
    expected = additive_scores(method, similarities, **arguments)
    promised = np.isfinite(expected)
    np.testing.assert_allclose(scores[promised], expected[promised], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("betas", [(20.0, 10.0), (0.01, 0.5), (LARGEST_BETA, LARGEST_BETA)], ids=["mid", "low", "high"])
def test_random_embeddings_are_ranked_like_the_formulas(method, betas):
    similarities, banks = random_problem(seed=1)
    arguments = {**banks, "query_beta": betas[0], "gallery_beta": betas[1], "activation_k": 1}
    assert_agrees_with_oracle(method, similarities, arguments)


@pytest.mark.parametrize("method", ["dis", "dual_dis"])
@pytest.mark.parametrize("activation_k", [1, 3, 40, 1000])
def test_gates_follow_the_activation_sets_of_k(method, activation_k):
    similarities, banks = random_problem(seed=2, query_bank=3, gallery_bank=4)
    assert_agrees_with_oracle(method, similarities, {**banks, "activation_k": activation_k})


@pytest.mark.parametrize("method", METHODS)
@settings(deadline=None, max_examples=150)
@given(problem=extreme_problems())
def test_extreme_problems_are_ranked_like_the_formulas(method, problem):
    assert_agrees_with_oracle(method, *problem)


@pytest.mark.parametrize("method", METHODS)
def test_items_that_are_all_alike_keep_their_scores(method):
    similarities = np.full((3, 5), 0.25)
    scores = normalize(similarities, query_bank=np.full((4, 5), 0.5), gallery_bank=np.full((2, 5), -0.5), method=method)
    np.testing.assert_allclose(scores, similarities, atol=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_a_gallery_of_one_item_keeps_its_score(method):
    scores = normalize([[0.3], [-0.2]], query_bank=[[0.9]], gallery_bank=[[0.1]], method=method)
    expected = oracle_scores(method, [[0.3], [-0.2]], [[0.9]], [[0.1]])
    assert scores.shape == expected.shape
    np.testing.assert_allclose(scores, [[0.3], [-0.2]], atol=1e-12)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shape", [(0, 4), (2, 0), (0, 0)], ids=["no queries", "no items", "neither"])
def test_empty_similarities_give_an_empty_result(method, shape):
    banks = {"query_bank": np.ones((3, shape[1])), "gallery_bank": np.ones((2, shape[1]))}
    assert normalize(np.empty(shape), **banks, method=method).shape == shape


def test_a_hub_gives_way_to_the_item_that_only_its_query_is_near():
    similarities = np.array([[0.9, 0.8], [0.7, 0.1]])
    assert similarities.argmax(axis=1).tolist() == [0, 0]
    assert normalize(similarities, query_bank=similarities, method="is", query_beta=10).argmax(axis=1).tolist() == [
        1,
        0,
    ]


def test_the_example_of_the_docstring_is_true():
    finder = doctest.DocTestFinder(recurse=False)
    (example,) = finder.find(dbnorm_vdb.normalization.normalize, "normalize", globs={"normalize": normalize})
    assert example.examples
    assert doctest.DocTestRunner().run(example).failed == 0


@pytest.mark.parametrize("method", ["is", "dual_is", "nnn", "sinkhorn"])
def test_normalisation_moves_items_but_not_the_mean_of_a_query(method):
    similarities, banks = random_problem(seed=3)
    scores = normalize(similarities, **banks, method=method)
    assert np.abs(scores - similarities).max() > 0.01
    np.testing.assert_allclose(scores.mean(axis=1), similarities.mean(axis=1), atol=1e-12)


@pytest.mark.parametrize("method", ["is", "dis", "dual_is", "dual_dis"])
def test_a_bank_counts_by_its_distribution_and_not_by_its_size(method):
    similarities, banks = random_problem(seed=4)
    thrice = {name: np.tile(bank, (3, 1)) for name, bank in banks.items()}
    np.testing.assert_allclose(
        normalize(similarities, **thrice, method=method), normalize(similarities, **banks, method=method), atol=1e-12
    )


def test_one_iteration_of_sinkhorn_is_inverted_softmax():
    similarities, banks = random_problem(seed=5)
    once = normalize(similarities, **banks, method="sinkhorn", iterations=1)
    np.testing.assert_allclose(once, normalize(similarities, **banks, method="is"), atol=1e-12)
    assert np.abs(once - normalize(similarities, **banks, method="sinkhorn", iterations=2)).max() > 1e-3


def test_dual_is_with_equal_banks_and_betas_is_inverted_softmax():
    similarities, banks = random_problem(seed=6)
    bank = banks["query_bank"]
    dual = normalize(similarities, query_bank=bank, gallery_bank=bank, query_beta=15, gallery_beta=15, method="dual_is")
    np.testing.assert_allclose(dual, normalize(similarities, query_bank=bank, query_beta=15, method="is"), atol=1e-12)


def test_with_one_gate_open_items_without_similarity_come_last_by_similarity():
    # item 0 is in the query bank's activation set only, so exactly one gate opens
    query_bank = np.array([[0.9, 0.1, 0.1, 0.1, 0.1]])
    gallery_bank = np.array([[0.1, 0.1, 0.9, 0.1, 0.1]])
    similarities = np.array([[0.5, 1e-300, -0.2, 0.0, -0.1]])
    for beta in (0.01, 20.0, LARGEST_BETA):
        betas = {"query_beta": beta, "gallery_beta": beta}
        scores = normalize(similarities, query_bank=query_bank, gallery_bank=gallery_bank, method="dual_dis", **betas)
        assert ranking(scores[0], similarities[0]).tolist() == [0, 1, 3, 4, 2]


@pytest.mark.parametrize("method", METHODS)
def test_float32_stays_float32_and_is_the_float64_result_rounded(method):
    similarities, banks = random_problem(seed=7)
    single = similarities.astype(np.float32)
    scores = normalize(single, **banks, method=method)
    assert scores.dtype == np.float32
    exact = normalize(single.astype(np.float64), **banks, method=method)
    assert exact.dtype == np.float64
    np.testing.assert_array_equal(scores, exact.astype(np.float32))


@pytest.mark.parametrize("dtype", [np.float16, np.int64, object])
def test_other_types_give_float64(dtype):
    assert normalize(np.array([[1, 0]], dtype=dtype), method="raw").dtype == np.float64


@pytest.mark.parametrize("method", METHODS)
def test_the_result_is_a_new_array_and_the_inputs_are_left_alone(method):
    similarities, banks = random_problem(seed=8)
    before = {"similarities": similarities.copy(), **{name: bank.copy() for name, bank in banks.items()}}
    scores = normalize(similarities, **banks, method=method)
    assert not np.shares_memory(scores, similarities)
    for name, array in {"similarities": similarities, **banks}.items():
        np.testing.assert_array_equal(array, before[name])


@pytest.mark.parametrize("method", METHODS)
def test_a_method_may_be_named_or_given_and_answers_the_same_every_time(method):
    similarities, banks = random_problem(seed=9)
    first = normalize(similarities, **banks, method=method)
    np.testing.assert_array_equal(normalize(similarities, **banks, method=Method(method)), first)


def test_the_default_is_dual_is_with_betas_20_and_10():
    similarities, banks = random_problem(seed=10)
    expected = normalize(similarities, **banks, method="dual_is", query_beta=20, gallery_beta=10)
    np.testing.assert_array_equal(normalize(similarities, **banks), expected)
