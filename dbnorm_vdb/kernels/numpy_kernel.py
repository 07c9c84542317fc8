"""The numpy kernel: always there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from dbnorm_vdb.kernels.base import BANK_BLOCK, ITEM_BLOCK, BankKernel, Floats, Reals

if TYPE_CHECKING:
    from collections.abc import Sequence


class NumpyKernel(BankKernel):
    """Blocked matrix products into two buffers that are reused throughout."""

    def __init__(
        self, bank: Reals, betas: Sequence[float], *, log_weights: Reals | None = None, nearest_k: int = 0
    ) -> None:
        super().__init__(bank, betas, log_weights=log_weights, nearest_k=nearest_k)
        self._columns = bank.T
        self._products = np.empty(ITEM_BLOCK * min(BANK_BLOCK, len(bank)), dtype=bank.dtype)
        self._exponents = np.empty_like(self._products)

    def _scan_block(self, items: Reals) -> Floats:
        n = len(items)
        shifted = self._needs_shift(items)
        sums = np.zeros((len(self.betas), n))
        shifts = np.full((len(self.betas), n), -np.inf) if shifted else np.zeros((len(self.betas), n))
        for columns in self._bank_blocks():
            shape = (n, columns.stop - columns.start)
            products = self._products[: shape[0] * shape[1]].reshape(shape)
            exponents = self._exponents[: shape[0] * shape[1]].reshape(shape)
            np.matmul(items, self._columns[:, columns], out=products)
            self._keep_nearest(products, columns)
            for row, beta in enumerate(self.betas):
                np.multiply(products, products.dtype.type(beta), out=exponents)
                if self._log_weights is not None:
                    exponents += self._log_weights[row, columns]
                if shifted:
                    shift = np.maximum(shifts[row], exponents.max(axis=1))
                    sums[row] *= np.exp(shifts[row] - shift)
                    shifts[row] = shift
                    exponents -= shift[:, None].astype(exponents.dtype)
                np.exp(exponents, out=exponents)
                sums[row] += exponents.sum(axis=1)
        result: Floats = shifts + np.log(sums)
        return result

    def _keep_nearest(self, products: Reals, columns: slice) -> None:
        if self.nearest is None:
            return
        better = products.max(axis=0) > self.nearest.similarity[columns, -1]
        if better.any():
            rows = np.flatnonzero(better)
            self.nearest.merge(rows + columns.start, products[:, rows], self.scanned)
