"""The numpy kernel: always there."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from dbnorm_vdb.kernels.arrays import Reals
from dbnorm_vdb.kernels.base import BankKernel


class NumpyKernel(BankKernel):
    """The arithmetic in numpy."""

    xp: ClassVar[Any] = np

    def _put(self, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return array

    def _take(self, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return array

    def _empty(self, size: int) -> Reals:
        return np.empty(size, dtype=self._bank.dtype)

    def _gather(self, products: Reals, columns: npt.NDArray[np.int64]) -> Reals:
        # several times as fast as products.T[columns]
        return np.ascontiguousarray(products.take(columns, axis=1).T)

    def _multiply(self, rows: Reals, columns: Reals, out: Reals) -> None:
        np.matmul(rows, columns, out=out)
