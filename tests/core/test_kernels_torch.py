"""What the torch backend has of its own: precisions of the product, and memory that runs out."""

import logging
import sys

import numpy as np
import pytest

from dbnorm_vdb import log_partition
from dbnorm_vdb.errors import InvalidParameterError, MissingDependencyError
from dbnorm_vdb.kernels import learn_weights, make_kernel
from dbnorm_vdb.kernels.blocks import CPU_BLOCKS, LARGEST_BLOCKS, SMALLEST_BLOCKS, Blocks, blocks_for


def unit_vectors(seed, n, dimension=32):
    vectors = np.random.default_rng(seed).normal(size=(n, dimension))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


# --- block sizes, which need no torch ----------------------------------------------------------------------------


def test_blocks_grow_with_free_memory_and_take_a_quarter_of_it_at_most():
    sizes = [blocks_for(gigabytes << 30, 4) for gigabytes in (1, 2, 8, 24, 80)]
    assert [blocks.elements for blocks in sizes] == sorted(blocks.elements for blocks in sizes)
    for gigabytes, blocks in zip((1, 2, 8, 24, 80), sizes, strict=True):
        largest_buffer = blocks.items_for(100_000) * 100_000 * 4
        assert 2 * largest_buffer <= (gigabytes << 30) / 4
    assert sizes[-1] == LARGEST_BLOCKS
    assert blocks_for(8 << 30, 8).elements == blocks_for(8 << 30, 4).elements // 2


def test_blocks_have_a_floor_however_little_memory_is_free():
    assert blocks_for(0, 4) == SMALLEST_BLOCKS
    assert SMALLEST_BLOCKS.halved() is None
    assert CPU_BLOCKS.halved() == Blocks(512, 1024)
    assert Blocks(512, 512).halved() == Blocks(256, 512)


@pytest.mark.parametrize("precision", ["tf32", "bfloat16"])
def test_numpy_and_float64_know_one_precision(precision):
    bank = np.eye(3, dtype=np.float32)
    with pytest.raises(InvalidParameterError, match=f"'{precision}' needs backend='torch'"):
        make_kernel(bank, [1.0], backend="numpy", precision=precision)
    with pytest.raises(InvalidParameterError, match="for float32 vectors; the bank is float64"):
        make_kernel(bank.astype(np.float64), [1.0], backend="torch", precision=precision)


def test_an_unknown_precision_is_refused():
    with pytest.raises(InvalidParameterError, match="precision must be one of float32, tf32, bfloat16, got 'fp8'"):
        make_kernel(np.eye(3, dtype=np.float32), [1.0], precision="fp8")


def test_auto_with_a_precision_of_torch_asks_for_torch(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "dbnorm_vdb.kernels.torch_kernel", raising=False)
    with pytest.raises(MissingDependencyError, match="torch"):
        make_kernel(np.eye(3, dtype=np.float32), [1.0], precision="bfloat16")


# --- precisions ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("precision", "least", "most"), [("float32", 0, 1e-6), ("tf32", 0, 1e-6), ("bfloat16", 1e-5, 2e-3)]
)
def test_the_loss_of_a_precision_is_small_on_the_bias_scale(precision, least, most):
    pytest.importorskip("torch")
    items, bank, beta = unit_vectors(1, 600), unit_vectors(2, 3000), 20.0
    kernel = make_kernel(bank, [beta], backend="torch", precision=precision)
    if kernel.device.type != "cpu":
        most = max(most, 2e-3)
    exact = log_partition(items.astype(np.float64), bank.astype(np.float64), beta, backend="numpy")
    loss = np.abs(kernel.scan(items)[0] - exact).max() / beta
    assert least <= loss <= most


@pytest.mark.parametrize("precision", ["float32", "tf32"])
@pytest.mark.parametrize("users", [True, False])
def test_the_users_own_setting_of_tf32_is_left_as_it_was(monkeypatch, precision, users):
    torch = pytest.importorskip("torch")
    from dbnorm_vdb.kernels.torch_kernel import TorchKernel

    seen, multiply = [], TorchKernel._multiply

    def look(self, *arguments):
        matmul = torch.backends.cuda.matmul
        seen.append(matmul.fp32_precision == "tf32" if hasattr(matmul, "fp32_precision") else matmul.allow_tf32)
        multiply(self, *arguments)

    monkeypatch.setattr(TorchKernel, "_multiply", look)
    matmul = torch.backends.cuda.matmul
    before, matmul.allow_tf32 = matmul.allow_tf32, users
    try:
        kernel = make_kernel(np.eye(3, dtype=np.float32), [1.0], backend="torch", precision=precision)
        kernel.scan(np.eye(3, dtype=np.float32))
        assert seen == [precision == "tf32"]
        assert matmul.allow_tf32 is users
    finally:
        matmul.allow_tf32 = before


# --- memory that runs out -----------------------------------------------------------------------------------------


@pytest.fixture
def small_device(monkeypatch):
    """A "cuda" device made of CPU memory, whose products fail beyond `room` elements: 0 for always."""
    torch = pytest.importorskip("torch")
    from dbnorm_vdb.kernels.torch_kernel import TorchKernel

    def make(room, *arguments, bank_fits=True, **options):
        class SmallDevice(TorchKernel):
            def on_device(self):
                return self.device.type == "cuda"

            def _put(self, array):
                return torch.tensor(array)

            def _empty(self, size):
                return torch.empty(size, dtype=torch.float32)

            def _put_bank(self, bank):
                if self.on_device() and not bank_fits:
                    raise torch.cuda.OutOfMemoryError("CUDA out of memory")
                return super()._put_bank(bank)

            def _multiply(self, rows, columns, out):
                super()._multiply(rows, columns, out)
                if self.on_device() and out.numel() > room:
                    out.fill_(torch.nan)
                    raise torch.cuda.OutOfMemoryError("CUDA out of memory")

            def _keep_nearest(self, products, columns, position):
                super()._keep_nearest(products, columns, position)
                if self.on_device() and products.numel() > room // 2:  # after some are kept
                    raise torch.cuda.OutOfMemoryError("CUDA out of memory")

        return SmallDevice(*arguments, device="cuda", **options)

    monkeypatch.setattr("torch.cuda.mem_get_info", lambda device: (1 << 30, 1 << 30))
    return make


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize(
    ("room", "device"), [(1 << 19, "cuda"), (1 << 15, "cuda"), (0, "cpu")], ids=["some", "least", "none"]
)
def test_out_of_memory_shrinks_the_blocks_and_then_moves_to_the_cpu(small_device, caplog, room, device, k):
    items, bank = unit_vectors(3, 3000), unit_vectors(4, 2500)
    kernel = small_device(room, bank, [20.0], nearest_k=k, largest_k=10)
    with caplog.at_level(logging.WARNING, logger="dbnorm_vdb"):
        found = kernel.scan(items)
    expected = make_kernel(bank, [20.0], nearest_k=k, largest_k=10, backend="numpy")
    np.testing.assert_allclose(found, expected.scan(items), rtol=1e-6)
    np.testing.assert_array_equal(kernel.nearest.position, expected.nearest.position)
    assert kernel.scanned == 3000
    assert kernel.device.type == device
    assert all("ran out of memory" in record.message for record in caplog.records)
    assert ("on the CPU" in caplog.records[-1].message) is (device == "cpu")


def test_a_bank_that_does_not_fit_is_multiplied_on_the_cpu_at_once(small_device, caplog):
    items, bank = unit_vectors(5, 100), unit_vectors(6, 300)
    kernel = small_device(1 << 40, bank, [20.0], bank_fits=False)
    np.testing.assert_allclose(kernel.scan(items)[0], log_partition(items, bank, 20.0), rtol=1e-6)
    assert [record.message.split(";")[1].split(",")[0] for record in caplog.records] == [" going on on the CPU"]
    assert kernel.blocks == CPU_BLOCKS


def test_the_votes_survive_memory_that_runs_out(small_device, monkeypatch):
    items, bank = unit_vectors(7, 500), unit_vectors(8, 400)
    expected = learn_weights(bank, items, 20.0, iterations=3, backend="numpy").log_weights
    kernel = small_device(1 << 16, bank, [20.0])
    monkeypatch.setattr("dbnorm_vdb.kernels.sinkhorn.make_kernel", lambda *_, **__: kernel)
    found = learn_weights(bank, items, 20.0, iterations=3).log_weights
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert kernel.device.type == "cuda"
    assert kernel.blocks.items_for(400) * 400 <= 1 << 16


def test_an_error_that_no_retreat_can_mend_is_raised(small_device, monkeypatch):
    torch = pytest.importorskip("torch")
    kernel = small_device(0, unit_vectors(9, 10), [20.0])
    monkeypatch.setattr(type(kernel), "on_device", lambda self: True)
    with pytest.raises(torch.cuda.OutOfMemoryError):
        kernel.scan(unit_vectors(10, 10))
