"""The torch kernel: on the CPU, or on CUDA where there is one."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch

from dbnorm_vdb.kernels.arrays import Reals
from dbnorm_vdb.kernels.base import BankKernel
from dbnorm_vdb.kernels.blocks import CPU_BLOCKS, blocks_for

_logger = logging.getLogger("dbnorm_vdb")


class TorchKernel(BankKernel):
    """The arithmetic in torch. Where CUDA runs out of memory, blocks shrink, and in the end the CPU takes over.

    Args:
        bank, betas, log_weights, nearest_k, largest_k: see `BankKernel`.
        precision: of the matrix product: "float32", "tf32" (on CUDA) or "bfloat16". All else is as in float32.
        device: a torch device; by default CUDA where there is one.
    """

    xp: ClassVar[Any] = torch
    out_of_memory: ClassVar[tuple[type[Exception], ...]] = (torch.cuda.OutOfMemoryError,)

    def __init__(
        self,
        bank: Reals,
        betas: Sequence[float],
        *,
        log_weights: Reals | None = None,
        nearest_k: int = 0,
        largest_k: int = 0,
        precision: str = "float32",
        device: str | None = None,
    ) -> None:
        super().__init__(bank, betas, log_weights=log_weights, nearest_k=nearest_k, largest_k=largest_k)
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.precision = precision

    def _put(self, array: npt.NDArray[Any]) -> torch.Tensor:
        # a copy: torch has no read-only tensors, and banks are read-only arrays
        return torch.tensor(array, device=self.device)

    def _take(self, array: torch.Tensor) -> npt.NDArray[Any]:
        taken: npt.NDArray[Any] = array.cpu().numpy()
        return taken

    def _empty(self, size: int) -> torch.Tensor:
        return torch.empty(size, dtype=self._placed_terms[0].factors.dtype, device=self.device)

    def _gather(self, products: torch.Tensor, columns: npt.NDArray[np.int64]) -> Reals:
        return self._take(products.index_select(1, self._put(columns)).T.contiguous())

    def _largest(self, values: torch.Tensor, k: int) -> torch.Tensor:
        return values.topk(k, dim=1, sorted=False).values

    def _put_bank(self, bank: Reals) -> torch.Tensor:
        placed = self._put(bank)
        return placed.bfloat16() if self.precision == "bfloat16" else placed

    def _multiply(self, rows: torch.Tensor, columns: torch.Tensor, out: torch.Tensor) -> None:
        if self.precision == "bfloat16":
            out.copy_(torch.mm(rows.bfloat16(), columns))
        else:
            torch.mm(rows, columns, out=out)

    def _place(self) -> None:
        if self._columns is None:
            super()._place()
            if self.device.type == "cuda":
                free, _ = torch.cuda.mem_get_info(self.device)
                self.blocks = blocks_for(free, self._bank.itemsize)

    @contextmanager
    def _session(self) -> Iterator[None]:
        with torch.inference_mode(), _tf32(self.precision == "tf32"):
            yield

    def _retreat(self, error: Exception) -> None:
        smaller = self.blocks.halved() if self._columns is not None else None  # the bank itself did not fit
        self._spare = []
        if smaller is not None:
            self.blocks = smaller
            _logger.warning(
                "%s ran out of memory; going on with blocks of %d items and %d bank vectors (%s)",
                self.device,
                smaller.items,
                smaller.bank,
                error,
            )
        elif self.device.type != "cpu":
            _logger.warning("%s ran out of memory; going on on the CPU, which is slower (%s)", self.device, error)
            self.device, self.blocks, self._columns = torch.device("cpu"), CPU_BLOCKS, None
        else:
            raise error


@contextmanager
def _tf32(allowed: bool) -> Iterator[None]:
    """Let CUDA's matrix products use TF32, or not, and leave the user's own setting as it was."""
    matmul: Any = torch.backends.cuda.matmul
    # torch 2.9 renamed the setting, and refuses to read the old name after a write to the new one
    renamed = hasattr(matmul, "fp32_precision")
    name, setting = ("fp32_precision", "tf32" if allowed else "ieee") if renamed else ("allow_tf32", allowed)
    before = getattr(matmul, name)
    setattr(matmul, name, setting)
    try:
        yield
    finally:
        setattr(matmul, name, before)
