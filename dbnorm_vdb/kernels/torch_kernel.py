"""The torch kernel: on the CPU, or on CUDA where there is one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from dbnorm_vdb.kernels.base import BANK_BLOCK, ITEM_BLOCK, BankKernel, Floats, Reals

if TYPE_CHECKING:
    from collections.abc import Sequence


class TorchKernel(BankKernel):
    """The numpy kernel's arithmetic in torch, with the same blocks."""

    def __init__(
        self,
        bank: Reals,
        betas: Sequence[float],
        *,
        log_weights: Reals | None = None,
        nearest_k: int = 0,
        device: str | None = None,
    ) -> None:
        super().__init__(bank, betas, log_weights=log_weights, nearest_k=nearest_k)
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self._columns = self._tensor(bank).T
        self._weights = None if self._log_weights is None else self._tensor(self._log_weights)
        size = ITEM_BLOCK * min(BANK_BLOCK, len(bank))
        self._products = torch.empty(size, dtype=self._columns.dtype, device=self.device)
        self._exponents = torch.empty_like(self._products)
        self._threshold = None if self.nearest is None else self._tensor(self.nearest.similarity[:, -1])

    def resume(self, scanned: int, similarity: Reals, position: npt.NDArray[np.int64]) -> None:
        super().resume(scanned, similarity, position)
        self._threshold = self._tensor(similarity[:, -1])

    def _tensor(self, array: Reals) -> torch.Tensor:
        # a copy: torch has no read-only tensors, and banks are read-only arrays
        return torch.tensor(array, device=self.device)

    def _scan_block(self, items: Reals) -> Floats:
        with torch.inference_mode():
            return self._log_partitions(items)

    def _log_partitions(self, items: Reals) -> Floats:
        n = len(items)
        shifted = self._needs_shift(items)
        block = self._tensor(items)
        sums = torch.zeros((len(self.betas), n), dtype=torch.float64, device=self.device)
        shifts = torch.full_like(sums, -torch.inf if shifted else 0.0)
        for columns in self._bank_blocks():
            shape = (n, columns.stop - columns.start)
            products = self._products[: shape[0] * shape[1]].view(shape)
            exponents = self._exponents[: shape[0] * shape[1]].view(shape)
            torch.mm(block, self._columns[:, columns], out=products)
            self._keep_nearest(products, columns)
            for row, beta in enumerate(self.betas):
                torch.mul(products, beta, out=exponents)
                if self._weights is not None:
                    exponents += self._weights[row, columns]
                if shifted:
                    shift = torch.maximum(shifts[row], exponents.amax(dim=1))
                    sums[row] *= torch.exp(shifts[row] - shift)
                    shifts[row] = shift
                    exponents -= shift[:, None].to(exponents.dtype)
                exponents.exp_()
                sums[row] += exponents.sum(dim=1)
        result: np.ndarray[Any, np.dtype[np.float64]] = (shifts + torch.log(sums)).cpu().numpy()
        return result

    def _keep_nearest(self, products: torch.Tensor, columns: slice) -> None:
        if self.nearest is None or self._threshold is None:
            return
        better = torch.nonzero(products.amax(dim=0) > self._threshold[columns]).flatten()
        if len(better):
            rows = better.cpu().numpy() + columns.start
            self.nearest.merge(rows, products[:, better].cpu().numpy(), self.scanned)
            self._threshold[better + columns.start] = self._tensor(self.nearest.similarity[rows, -1])
