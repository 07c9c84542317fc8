"""Log partitions and nearest items, computed in blocks, equal what a full matrix in float64 gives."""

import sys
import tracemalloc

import numpy as np
import pytest

from dbnorm_vdb import log_partition
from dbnorm_vdb.errors import (
    DimensionMismatchError,
    EmptyBankError,
    InvalidParameterError,
    InvalidVectorsError,
    MissingDependencyError,
    NonFiniteVectorError,
)
from dbnorm_vdb.kernels import make_kernel


@pytest.fixture(params=["numpy", "torch"])
def backend(request):
    if request.param == "torch":
        pytest.importorskip("torch", reason="torch is not installed")
    return request.param


def reference(items, bank, beta, log_weights=0.0):
    """`log sum_b exp(beta <b, g> + w_b)` on the full matrix, in float64."""
    exponents = beta * (np.asarray(items, dtype=np.float64) @ np.asarray(bank, dtype=np.float64).T) + log_weights
    return np.logaddexp.reduce(exponents, axis=1)


def unit_vectors(seed, n, dimension=16, dtype=np.float32):
    vectors = np.random.default_rng(seed).normal(size=(n, dimension))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(dtype)


@pytest.mark.parametrize("beta", [0.01, 1.0, 20.0, 50.0, 200.0])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_log_partition_equals_logsumexp_for_every_beta(backend, beta, dtype):
    items, bank = unit_vectors(1, 300, dtype=dtype), unit_vectors(2, 400, dtype=dtype)
    result = log_partition(items, bank, beta, backend=backend)
    assert (result.shape, result.dtype) == ((300,), np.float64)
    np.testing.assert_allclose(result, reference(items, bank, beta), rtol=1e-5)


@pytest.mark.parametrize("beta", [20.0, 100.0, 200.0])
def test_similarities_that_are_all_near_a_fifth_do_not_underflow(backend, beta):
    # as between modalities: far below the largest similarity possible, so that a fixed shift would leave log 0
    items, noise = (unit_vectors(seed, n) for seed, n in ((3, 200), (4, 3000)))
    items[:, 0] = noise[:, 0] = 0
    items = np.hstack([items / 20, np.ones((200, 1), dtype=np.float32)])
    bank = np.hstack([noise, np.full((3000, 1), 0.2, dtype=np.float32)])
    similarities = items @ bank.T
    assert similarities.min() > 0.14
    assert similarities.max() < 0.26
    result = log_partition(items, bank, beta, backend=backend)
    np.testing.assert_allclose(result, reference(items, bank, beta), rtol=1e-5)


@pytest.mark.parametrize("beta", [5.0, 200.0], ids=["plain sums", "shifted sums"])
@pytest.mark.parametrize("n", [1, 511, 512, 513, 1025])
@pytest.mark.parametrize("m", [1, 2047, 2048, 2049])
def test_blocks_leave_no_seam(backend, beta, n, m):
    items, bank = unit_vectors(5, n, dimension=4), unit_vectors(6, m, dimension=4)
    result = log_partition(items, bank, beta, backend=backend)
    np.testing.assert_allclose(result, reference(items, bank, beta), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("order", [1, -1], ids=["rising", "falling"])
@pytest.mark.parametrize("scale", [1.0, 30.0], ids=["unit", "norm 30"])
def test_the_largest_similarity_may_be_in_any_block_of_the_bank(backend, order, scale):
    items = scale * np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 0.0]], dtype=np.float32)
    bank = scale * np.stack([np.linspace(-1, 1, 5000)[::order], np.zeros(5000)], axis=1).astype(np.float32)
    result = log_partition(items, bank, 200.0, backend=backend)
    np.testing.assert_allclose(result, reference(items, bank, 200.0), rtol=1e-5)
    np.testing.assert_allclose(result[2], np.log(5000), rtol=1e-12)


def test_an_item_far_from_the_bank_is_not_lost_beside_a_near_one(backend):
    bank = np.array([[10.0, 0.0]], dtype=np.float32)
    items = np.array([[10.0, 0.0], [-10.0, 0.0]], dtype=np.float32)
    assert log_partition(items, bank, 100.0, backend=backend).tolist() == [10_000.0, -10_000.0]


def test_several_betas_give_what_each_gives_alone(backend):
    items, bank = unit_vectors(7, 600), unit_vectors(8, 2100)
    betas = [0.5, 20.0, 200.0]
    together = log_partition(items, bank, betas, backend=backend)
    assert together.shape == (3, 600)
    for row, beta in zip(together, betas, strict=True):
        np.testing.assert_allclose(row, log_partition(items, bank, beta, backend=backend), rtol=1e-6)
        np.testing.assert_allclose(row, reference(items, bank, beta), rtol=1e-5)


@pytest.mark.parametrize("betas", [(20.0,), np.array([20.0, 5.0])], ids=["a tuple", "an array"])
def test_a_sequence_of_betas_gives_a_row_for_each(betas):
    assert log_partition(np.eye(3), np.eye(3), betas).shape == (len(betas), 3)


def test_the_whole_matrix_is_never_formed():
    items, bank = unit_vectors(9, 4096, dimension=2), unit_vectors(10, 8192, dimension=2)
    tracemalloc.start()
    try:
        log_partition(items, bank, 20.0, backend="numpy")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    matrix_bytes = len(items) * len(bank) * 4
    assert peak < matrix_bytes / 8


@pytest.mark.parametrize("beta", [2.0, 200.0], ids=["plain sums", "shifted sums"])
def test_log_weights_are_added_to_the_exponents(backend, beta):
    items, bank = unit_vectors(11, 50), unit_vectors(12, 2100)
    weights = np.random.default_rng(13).normal(scale=3, size=2100)
    result = log_partition(items, bank, beta, log_weights=weights, backend=backend)
    np.testing.assert_allclose(result, reference(items, bank, beta, weights), rtol=1e-5)


def test_a_weight_of_three_counts_a_bank_vector_three_times(backend):
    items, bank = unit_vectors(14, 20), unit_vectors(15, 2)
    weighted = log_partition(items, bank, 10.0, log_weights=[np.log(3), 0.0], backend=backend)
    thrice = log_partition(items, bank[[0, 0, 0, 1]], 10.0, backend=backend)
    np.testing.assert_allclose(weighted, thrice, rtol=1e-5)


def test_large_log_weights_do_not_overflow(backend):
    items, bank = unit_vectors(16, 20), unit_vectors(17, 30)
    for offset in (-5000.0, 5000.0):
        weights = np.full(30, offset)
        result = log_partition(items, bank, 20.0, log_weights=weights, backend=backend)
        np.testing.assert_allclose(result, reference(items, bank, 20.0, weights), rtol=1e-5)


@pytest.mark.parametrize("betas", [[20.0], [3.0, 20.0]], ids=["one beta", "two betas"])
def test_the_nearest_similarities_are_on_the_scale_of_similarities(backend, betas):
    rng = np.random.default_rng(22)
    items, bank = (rng.integers(-3, 4, size=(n, 4)).astype(np.float32) for n in (1500, 50))  # many are equal
    kernel = make_kernel(bank, betas, nearest_k=3, backend=backend)
    for page in np.array_split(items, 4):
        kernel.scan(page)
    similarities = bank @ items.T
    expected = np.argsort(-similarities, axis=1, kind="stable")[:, :3]
    np.testing.assert_array_equal(kernel.nearest.position, expected)
    np.testing.assert_array_equal(kernel.nearest.similarity, np.take_along_axis(similarities, expected, axis=1))


def test_a_pass_is_resumed_from_the_nearest_items_so_far(backend):
    items, bank = unit_vectors(24, 200), unit_vectors(25, 30)
    whole, first, second = (make_kernel(bank, [20.0], nearest_k=2, backend=backend) for _ in range(3))
    whole.scan(items)
    first.scan(items[:90])
    second.resume(first.scanned, first.nearest.similarity, first.nearest.position)
    second.scan(items[90:])
    assert second.scanned == 200
    np.testing.assert_array_equal(second.nearest.position, whole.nearest.position)
    with pytest.raises(ValueError, match=r"shape \(30, 3\) for a bank of 30"):
        second.resume(0, np.zeros((30, 3)), np.zeros((30, 2)))


def test_float64_on_both_sides_is_computed_in_float64(backend):
    items, bank = unit_vectors(18, 100, dtype=np.float64), unit_vectors(19, 200, dtype=np.float64)
    expected = reference(items, bank, 200.0)
    double = log_partition(items, bank, 200.0, backend=backend)
    np.testing.assert_allclose(double, expected, rtol=1e-13)
    single = log_partition(items.astype(np.float32), bank, 200.0, backend=backend)
    assert np.abs(single - expected).max() > 1e-9


@pytest.mark.parametrize("dtype", [np.float16, np.int8, np.uint64])
def test_other_number_types_are_computed_in_float32(backend, dtype):
    items, bank = np.array([[1, 0], [2, 3]], dtype=dtype), np.array([[1, 2], [0, 1]], dtype=dtype)
    np.testing.assert_allclose(log_partition(items, bank, 1.5, backend=backend), reference(items, bank, 1.5), rtol=1e-5)


def test_no_items_give_no_partitions(backend):
    assert log_partition(np.empty((0, 3)), np.eye(3), 1.0, backend=backend).shape == (0,)
    assert log_partition(np.empty((0, 3)), np.eye(3), [1.0, 2.0], backend=backend).shape == (2, 0)


def test_the_callers_arrays_are_left_alone(backend):
    items, bank = unit_vectors(20, 30), unit_vectors(21, 30)
    before = items.copy(), bank.copy()
    bank.flags.writeable = False
    log_partition(items, bank, 20.0, backend=backend)
    np.testing.assert_array_equal(items, before[0])
    np.testing.assert_array_equal(bank, before[1])
    assert items.flags.writeable


OK = np.ones((3, 2))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        pytest.param((OK[0], OK, 1.0), InvalidVectorsError, r"items: .*shape \(2,\)", id="one item as a row"),
        pytest.param((OK, OK[0], 1.0), InvalidVectorsError, r"bank: .*shape \(2,\)", id="a bank as a row"),
        pytest.param(([[1, 2], [3]], OK, 1.0), InvalidVectorsError, "items: ", id="ragged items"),
        pytest.param((OK, [[1, 2], [3]], 1.0), InvalidVectorsError, "bank: ", id="ragged bank"),
        pytest.param(([["a", "b"]], OK, 1.0), InvalidVectorsError, "items: .*real numbers", id="text"),
        pytest.param((OK * 1j, OK, 1.0), InvalidVectorsError, "items: .*complex128", id="complex"),
        pytest.param((OK, np.ones((3, 4)), 1.0), DimensionMismatchError, "2 dimensions.* 4;", id="dimensions"),
        pytest.param((OK, np.empty((0, 2)), 1.0), EmptyBankError, "no vectors", id="empty bank"),
        pytest.param((OK * np.nan, OK, 1.0), NonFiniteVectorError, "items: 3 of 3", id="NaN item"),
        pytest.param((OK, OK * np.inf, 1.0), NonFiniteVectorError, "bank: 3 of 3", id="infinite bank"),
        pytest.param((OK * 1e300, OK, 1.0), NonFiniteVectorError, "items: 3 of 3", id="beyond float32"),
        pytest.param((OK, OK, 0.0), InvalidParameterError, "got 0.0", id="beta 0"),
        pytest.param((OK, OK, -2), InvalidParameterError, "got -2", id="negative beta"),
        pytest.param((OK, OK, np.nan), InvalidParameterError, "got nan", id="NaN beta"),
        pytest.param((OK, OK, None), InvalidParameterError, "got None", id="no beta"),
        pytest.param((OK, OK, "25"), InvalidParameterError, "'25'", id="beta as text"),
        pytest.param((OK, OK, [1.0, np.inf]), InvalidParameterError, "got inf", id="one infinite beta"),
        pytest.param((OK, OK, []), InvalidParameterError, "empty sequence", id="no betas"),
    ],
)
def test_input_that_cannot_be_used_is_refused(arguments, error, message):
    with pytest.raises(error, match=message) as raised:
        log_partition(*arguments)
    assert raised.type is error


def test_a_beta_as_an_array_of_no_dimensions_is_one_beta():
    np.testing.assert_array_equal(log_partition(OK, OK, np.array(2.0)), log_partition(OK, OK, 2.0))


@pytest.mark.parametrize(
    "weights", [[0.0, 0.0], [0.0, 0.0, np.nan], [0.0, 0.0, -np.inf], [[0.0, 0.0, 0.0]], ["a", "b", "c"]]
)
def test_log_weights_are_one_finite_number_for_each_bank_vector(weights):
    with pytest.raises(
        InvalidVectorsError, match="log_weights(?: must be 3 finite|: expected an array of real) numbers"
    ):
        log_partition(OK, OK, 1.0, log_weights=weights)


def test_an_unknown_backend_is_refused():
    with pytest.raises(InvalidParameterError, match="auto, numpy, torch, got 'cupy'"):
        log_partition(OK, OK, 1.0, backend="cupy")


def test_without_torch_the_torch_backend_names_its_extra_and_auto_takes_numpy(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "dbnorm_vdb.kernels.torch_kernel", raising=False)
    with pytest.raises(MissingDependencyError, match=r'torch backend needs .*pip install "dbnorm-vdb\[torch\]"'):
        log_partition(OK, OK, 1.0, backend="torch")
    kernel = make_kernel(OK, [1.0], expected_items=10**15)
    assert type(kernel).__name__ == "NumpyKernel"
