"""Weights by row: several weighted log partitions from one matrix product, and as few exponentials as will do."""

import numpy as np
import pytest

from dbnorm_vdb import log_partition
from dbnorm_vdb.errors import InvalidVectorsError
from dbnorm_vdb.kernels.terms import make_terms


@pytest.fixture(params=["numpy", "torch"])
def backend(request):
    if request.param == "torch":
        pytest.importorskip("torch", reason="torch is not installed")
    return request.param


def unit_vectors(seed, n, dimension=16):
    vectors = np.random.default_rng(seed).normal(size=(n, dimension))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def reference(items, bank, beta, log_weights):
    exponents = beta * (items.astype(np.float64) @ bank.astype(np.float64).T) + log_weights
    return np.logaddexp.reduce(exponents, axis=1)


@pytest.mark.parametrize("spread", [0.0, 3.0, 30.0, 3000.0], ids="spread {:g}".format)
@pytest.mark.parametrize(
    "betas", [(2.0, 2.0), (20.0, 20.0), (200.0, 200.0), (20.0, 5.0), (5.0, 200.0, 5.0)], ids=lambda betas: f"{betas}"
)
def test_each_row_of_weights_belongs_to_a_beta(backend, betas, spread):
    items, bank = unit_vectors(1, 40), unit_vectors(2, 2100)
    weights = np.random.default_rng(3).uniform(-spread, spread, size=(len(betas), 2100))
    weights[0] = 0
    found = log_partition(items, bank, betas, log_weights=weights, backend=backend)
    for row, beta, own in zip(found, betas, weights, strict=True):
        np.testing.assert_allclose(row, reference(items, bank, beta, own), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("beta", [20.0, 200.0])
def test_a_weight_may_favour_the_most_dissimilar_bank_vector(backend, beta):
    # its exponential is lost beside that of the nearest one, unless the weight is taken into account before
    bank = np.array([[1.0, 0.0], [-1.0, 0.0]], dtype=np.float32)
    items = np.array([[1.0, 0.0], [0.5, 0.5]], dtype=np.float32)
    for favour in (10.0, 45.0, 55.0, 500.0, 5000.0):
        weights = np.array([[0.0, 0.0], [-favour, favour]])
        found = log_partition(items, bank, [beta, beta], log_weights=weights, backend=backend)
        np.testing.assert_allclose(found[0], reference(items, bank, beta, weights[0]), rtol=1e-5)
        np.testing.assert_allclose(found[1], reference(items, bank, beta, weights[1]), rtol=1e-5)


def test_one_row_of_weights_serves_all_betas(backend):
    items, bank, weights = unit_vectors(4, 20), unit_vectors(5, 30), np.linspace(-1, 1, 30)
    found = log_partition(items, bank, [5.0, 20.0], log_weights=weights, backend=backend)
    rows = log_partition(items, bank, [5.0, 20.0], log_weights=[weights, weights], backend=backend)
    np.testing.assert_array_equal(found, rows)


def test_rows_of_one_beta_share_their_exponentials():
    plain = np.zeros(3)
    moderate, offsets = np.array([0.0, 1.0, -20.0]), np.array([0.0, -100.0, -900.0])
    shared = [term.rows for term in make_terms([5.0, 5.0], [plain, moderate])]
    assert shared == [[0, 1]]
    shared = [term.rows for term in make_terms([5.0, 5.0], [offsets, offsets + moderate])]
    assert shared == [[0, 1]]
    apart = [term.rows for term in make_terms([5.0, 20.0, 5.0, 5.0], [plain, plain, offsets, moderate])]
    assert apart == [[0, 3], [1], [2]]


@pytest.mark.parametrize("shape", [(3, 4), (1, 4), (2, 3), (2, 4, 1)])
def test_weights_of_another_shape_are_refused(shape):
    with pytest.raises(InvalidVectorsError, match=r"log_weights must be 4 finite numbers.* 2 rows .*got shape"):
        log_partition(np.ones((5, 2)), np.ones((4, 2)), [1.0, 2.0], log_weights=np.zeros(shape))


def test_one_beta_takes_one_row_of_weights():
    with pytest.raises(InvalidVectorsError, match=r"got shape \(1, 4\)"):
        log_partition(np.ones((5, 2)), np.ones((4, 2)), 1.0, log_weights=np.zeros((1, 4)))
