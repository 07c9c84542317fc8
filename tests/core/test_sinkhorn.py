"""Bank weights learned in streaming passes equal those of the iteration on the full matrix."""

import numpy as np
import pytest
from oracle import LARGEST_BETA, sinkhorn_factors, wide

from dbnorm_vdb import log_partition
from dbnorm_vdb.errors import DimensionMismatchError, EmptyBankError, InvalidParameterError, InvalidVectorsError
from dbnorm_vdb.kernels import learn_weights, make_kernel
from dbnorm_vdb.kernels.blocks import CPU_BLOCKS, Blocks


@pytest.fixture(params=["numpy", "torch"])
def backend(request):
    if request.param == "torch":
        pytest.importorskip("torch", reason="torch is not installed")
    return request.param


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks of a few items, so that little data crosses their borders."""
    monkeypatch.setattr("dbnorm_vdb.kernels.base.CPU_BLOCKS", Blocks(items=8, bank=64))


def unit_vectors(seed, n, dimension=16, dtype=np.float32):
    vectors = np.random.default_rng(seed).normal(size=(n, dimension))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(dtype)


def bias(items, bank, beta, learned, offsets=0.0):
    """(n,) on the similarity scale."""
    weighted = log_partition(items, bank, beta, log_weights=offsets + learned.log_weights)
    return (weighted - np.log(len(bank))) / beta


def naive_bias(items, bank, beta, iterations, offsets=0.0):
    """The iteration on the full matrix, as it is printed; `offsets` are a part of the similarities."""
    similarities = wide(bank) @ wide(items).T + wide(offsets)[..., None] / beta
    return (-np.log(sinkhorn_factors(similarities, beta, iterations)) / beta).astype(np.float64)


def centred(values):
    """The constant that Sinkhorn leaves open changes no order."""
    return values - values.mean()


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("beta", [1.0, 20.0, LARGEST_BETA])
@pytest.mark.parametrize("iterations", [1, 2, 10])
def test_biases_equal_those_of_the_full_matrix(backend, beta, iterations):
    bank, items = unit_vectors(1, 70), unit_vectors(2, 151)
    learned = learn_weights(bank, items, beta, iterations=iterations, backend=backend)
    expected = naive_bias(items, bank, beta, iterations)
    np.testing.assert_allclose(centred(bias(items, bank, beta, learned)), centred(expected), atol=1e-5)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("n", [1, 28, 29, 30, 58])
def test_blocks_leave_no_seam(backend, n):
    bank, items = unit_vectors(3, 70, dimension=4), unit_vectors(4, n, dimension=4)
    assert make_kernel(bank, [1.0], backend=backend).blocks.items_for(70) == 29
    learned = learn_weights(bank, items, 50.0, iterations=4, backend=backend)
    expected = naive_bias(items, bank, 50.0, 4)
    np.testing.assert_allclose(centred(bias(items, bank, 50.0, learned)), centred(expected), atol=1e-5)


@pytest.mark.parametrize("beta", [5.0, 50.0])
def test_offsets_express_euclidean_similarity(backend, beta):
    rng = np.random.default_rng(5)
    queries, points = rng.normal(size=(60, 3)), rng.normal(size=(200, 3))
    bank = np.hstack([2 * queries, np.ones((60, 1))])
    items = np.hstack([points, -np.square(points).sum(axis=1, keepdims=True)])
    offsets = -beta * np.square(queries).sum(axis=1)
    learned = learn_weights(bank, items, beta, offsets=offsets, iterations=5, backend=backend)

    similarities = -np.square(wide(queries)[:, None] - wide(points)[None]).sum(axis=2)
    exponents = beta * similarities
    v = -np.logaddexp.reduce(exponents, axis=0)
    for _ in range(4):
        u = -np.logaddexp.reduce(exponents + v, axis=1)
        v = -np.logaddexp.reduce(exponents + u[:, None], axis=0)
    found = bias(items, bank, beta, learned, offsets)
    np.testing.assert_allclose(centred(found), centred((-v / beta).astype(np.float64)), atol=1e-9)


def test_a_bank_vector_far_from_every_item_keeps_its_weight(backend):
    # its shares of the items are below what float32 can hold, and its weight is the largest of all
    bank = np.array([[1.0, 0.0], [0.9, 0.1], [-1.0, 0.0]], dtype=np.float32)
    items = np.array([[1.0, 0.1], [1.0, -0.1], [0.8, 0.3]], dtype=np.float32)
    learned = learn_weights(bank, items, 200.0, iterations=2, backend=backend)
    exponents = 200 * (bank.astype(np.float64) @ items.astype(np.float64).T)
    v = -np.logaddexp.reduce(exponents, axis=0)
    expected = -np.logaddexp.reduce(exponents + v, axis=1)
    expected += np.log(3) - np.logaddexp.reduce(expected)
    assert expected[2] - expected[0] > 300
    np.testing.assert_allclose(learned.log_weights / 200, expected / 200, atol=1e-5)


def test_one_iteration_is_the_inverted_softmax(backend):
    learned = learn_weights(unit_vectors(6, 10), unit_vectors(7, 20), 20.0, iterations=1, backend=backend)
    assert learned.log_weights.tolist() == [0.0] * 10
    assert learned.changes == ()


def test_the_weights_are_one_on_average_and_move_less_in_each_step(backend):
    reports = []
    learned = learn_weights(
        unit_vectors(8, 40),
        unit_vectors(9, 300),
        20.0,
        iterations=12,
        backend=backend,
        report=lambda step, change: reports.append((step, change)),
    )
    assert learned.log_weights.dtype == np.float64
    np.testing.assert_allclose(np.exp(learned.log_weights).mean(), 1.0)
    assert reports == list(enumerate(learned.changes, start=1))
    assert len(learned.changes) == 11
    assert list(learned.changes) == sorted(learned.changes, reverse=True)
    assert learned.changes[-1] < learned.changes[0] / 50


def test_many_iterations_give_every_bank_vector_the_same_say(backend):
    bank, items = unit_vectors(10, 30, dtype=np.float64), unit_vectors(11, 200, dtype=np.float64)
    learned = learn_weights(bank, items, 10.0, iterations=200, backend=backend)
    exponents = 10 * (bank @ items.T) + learned.log_weights[:, None]
    shares = np.exp(exponents - np.logaddexp.reduce(exponents, axis=0))
    np.testing.assert_allclose(shares.sum(axis=1), 200 / 30, rtol=1e-9)


@pytest.mark.parametrize("bank_size", [1, 1000, 100_000, 10_000_000])
def test_a_block_of_the_whole_bank_is_bounded_whatever_the_size_of_the_bank(bank_size):
    items = CPU_BLOCKS.items_for(bank_size)
    assert items >= 1
    assert items * bank_size <= max(4 * 2**20, bank_size)


def test_a_pass_takes_as_many_items_as_the_block_size_says(monkeypatch):
    sizes = []
    monkeypatch.setattr(Blocks, "items_for", lambda blocks, bank_size: sizes.append(bank_size) or 7)
    learn_weights(unit_vectors(12, 5), unit_vectors(13, 20), 20.0, iterations=3, backend="numpy")
    assert sizes == [5] * 3 * 2  # 20 items by 7, twice


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        pytest.param({"iterations": 0}, InvalidParameterError, "iterations must be at least 1, got 0", id="none"),
        pytest.param({"iterations": 2.5}, InvalidParameterError, "iterations must be an integer", id="half of one"),
        pytest.param({"beta": 0}, InvalidParameterError, "beta .*got 0", id="beta 0"),
        pytest.param({"backend": "cupy"}, InvalidParameterError, "'cupy'", id="an unknown backend"),
        pytest.param({"bank": np.ones((3, 4))}, DimensionMismatchError, "2 dimensions.* 4;", id="dimensions"),
        pytest.param({"bank": np.empty((0, 2))}, EmptyBankError, "no vectors", id="an empty bank"),
        pytest.param({"items": np.empty((0, 2))}, InvalidVectorsError, "items: no vectors", id="no items"),
        pytest.param({"offsets": [0.0]}, InvalidVectorsError, r"offsets must be 3 .*\(1,\)", id="one offset"),
        pytest.param({"offsets": [0.0, 0.0, np.inf]}, InvalidVectorsError, "1 values that are NaN", id="infinite"),
    ],
)
def test_input_that_cannot_be_used_is_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        learn_weights(**{"bank": np.ones((3, 2)), "items": np.ones((5, 2)), "beta": 1.0, **arguments})
