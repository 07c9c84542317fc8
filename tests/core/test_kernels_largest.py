"""The mean of the largest similarities of each item to the bank: in blocks as on the full matrix."""

import tracemalloc

import numpy as np
import pytest
from oracle import mean_of_largest
from threadpoolctl import threadpool_limits

from dbnorm_vdb.kernels import make_kernel
from dbnorm_vdb.kernels.blocks import CPU_BLOCKS, Blocks
from dbnorm_vdb.kernels.numpy_kernel import k_largest


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


def reference(items, bank, k, offsets=0.0):
    """(n,) on the full matrix, in float64; `offsets` (m,) are a part of the similarities."""
    similarities = bank.astype(np.float64) @ items.astype(np.float64).T + np.asarray(offsets)[..., None]
    return mean_of_largest(similarities, k).astype(np.float64)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("k", [1, 3, 10, 63, 64, 65, 1000])
@pytest.mark.parametrize("m", [1, 63, 64, 65, 300])
def test_blocks_leave_no_seam(backend, m, k):
    bank, items = unit_vectors(1, m), unit_vectors(2, 29)
    *_, means = make_kernel(bank, [20.0], largest_k=k, backend=backend).scan(items)
    np.testing.assert_allclose(means, reference(items, bank, k), atol=1e-6)


@pytest.mark.parametrize("order", [1, -1], ids=["rising", "falling"])
def test_the_largest_may_be_in_any_block_of_the_bank(backend, order):
    items = np.array([[1.0, 0.0], [-1.0, 0.0]], dtype=np.float32)
    bank = np.stack([np.linspace(-1, 1, 5001)[::order], np.zeros(5001)], axis=1).astype(np.float32)
    *_, means = make_kernel(bank, [20.0], largest_k=3, backend=backend).scan(items)
    np.testing.assert_allclose(means, [1 - 1 / 2500, 1 - 1 / 2500], atol=1e-6)


@pytest.mark.parametrize("beta", [0.5, 20.0, 200.0])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_they_are_on_the_scale_of_similarities_whatever_the_beta(backend, beta, dtype):
    bank, items = unit_vectors(3, 2100, dtype=dtype), unit_vectors(4, 600, dtype=dtype)
    *_, means = make_kernel(bank, [beta], largest_k=10, backend=backend).scan(items)
    assert means.dtype == np.float64
    np.testing.assert_allclose(means, reference(items, bank, 10), atol=1e-6 if dtype == np.float32 else 1e-14)


@pytest.mark.parametrize("betas", [[5.0], [5.0, 20.0], [20.0, 5.0], [5.0, 5.0]], ids=lambda betas: f"{betas}")
def test_the_weights_of_the_first_beta_are_a_part_of_the_similarities(backend, betas):
    bank, items = unit_vectors(5, 2100), unit_vectors(6, 50)
    weights = np.random.default_rng(7).normal(scale=3, size=(len(betas), 2100))
    *_, means = make_kernel(bank, betas, log_weights=weights, largest_k=10, backend=backend).scan(items)
    np.testing.assert_allclose(means, reference(items, bank, 10, weights[0] / betas[0]), atol=2e-6)


@pytest.mark.parametrize("largest_k", [1, 10])
@pytest.mark.parametrize("beta", [20.0, 200.0], ids=["plain sums", "shifted sums"])
def test_all_else_is_what_it_is_without(backend, beta, largest_k):
    bank, items = unit_vectors(8, 2100), unit_vectors(9, 700)
    weights = np.stack([np.zeros(2100), np.random.default_rng(10).normal(size=2100)])
    betas = [beta, beta]
    without = make_kernel(bank, betas, log_weights=weights, nearest_k=2, backend=backend)
    having = make_kernel(bank, betas, log_weights=weights, nearest_k=2, largest_k=largest_k, backend=backend)
    expected = without.scan(items)
    found = having.scan(items)
    assert (expected.shape, found.shape) == ((2, 700), (3, 700))
    np.testing.assert_array_equal(found[:2], expected)
    np.testing.assert_array_equal(having.nearest.position, without.nearest.position)


def test_no_items_have_no_means(backend):
    assert make_kernel(np.eye(3), [1.0, 2.0], largest_k=2, backend=backend).scan(np.empty((0, 3))).shape == (3, 0)


@pytest.mark.parametrize("k", [10, 4000])
def test_the_whole_matrix_is_never_formed(k):
    bank, items = unit_vectors(11, 8192, dimension=2), unit_vectors(12, 4096, dimension=2)
    kernel = make_kernel(bank, [20.0], largest_k=k, backend="numpy")
    tracemalloc.start()
    try:
        with threadpool_limits(1):  # what one thread takes
            kernel.scan(items)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 7 * CPU_BLOCKS.elements * 4 < len(items) * len(bank) * 4 / 4


def test_a_block_takes_fewer_items_the_more_of_each_is_kept():
    assert [CPU_BLOCKS.items_keeping(k) for k in (0, 1, 10, 2048)] == [512] * 4
    assert [CPU_BLOCKS.items_keeping(k) for k in (4096, 2**20, 2**30)] == [256, 1, 1]


@pytest.mark.parametrize("values", [3, 10**6], ids=["many are equal", "hardly any are"])
@pytest.mark.parametrize(("m", "k"), [(1, 1), (40, 2), (63, 4), (64, 4), (65, 4), (1000, 7), (1000, 999), (2048, 10)])
def test_the_k_largest_are_those_of_a_sort(m, k, values):
    rows = np.random.default_rng(m + k).integers(0, values, size=(20, m)).astype(np.float32)
    before = rows.copy()
    np.testing.assert_array_equal(np.sort(k_largest(rows, k), axis=1), np.sort(rows, axis=1)[:, m - k :])
    np.testing.assert_array_equal(rows, before)
    assert k_largest(rows[:0], k).shape == (0, k)
