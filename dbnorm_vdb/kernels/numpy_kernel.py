"""The numpy kernel: always there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import ceil, isqrt
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from dbnorm_vdb.kernels.arrays import Reals
from dbnorm_vdb.kernels.base import BankKernel, Step, T
from dbnorm_vdb.kernels.threads import PROCESSORS

# In groups smaller than this, looking for the best groups first costs more than it saves.
_SMALLEST_GROUP = 4

# Blocks of fewer items make poor products.
_SMALLEST_BLOCK = 64


class NumpyKernel(BankKernel):
    """The arithmetic in numpy."""

    xp: ClassVar[Any] = np

    def _stream(self, items: Reals, size: Callable[[], int], step: Step[T]) -> Iterator[T]:
        if len(items) < 2 * _SMALLEST_BLOCK:
            yield from super()._stream(items, size, step)
            return
        with PROCESSORS.taken_over() as (count, threads):
            if threads is None:
                yield from super()._stream(items, size, step)
                return
            self._place()
            side_by_side = min(count, len(items) // _SMALLEST_BLOCK)
            rounds = ceil(len(items) / (side_by_side * size()))
            block = ceil(len(items) / (side_by_side * rounds))  # all alike, so that no thread waits for another
            yield from threads.map(lambda start: step(items[start : start + block], start), range(0, len(items), block))

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

    def _largest(self, values: Reals, k: int) -> Reals:
        return k_largest(values, k)


def k_largest(values: Reals, k: int) -> Reals:
    """The `k` largest of each row of (n, m) values, in any order: (n, k).

    They are in those k of its groups that have the largest maxima. With groups of `sqrt(m / k)` that leaves few values
    to partition, in a quarter of the time that partitioning all of them takes.
    """
    m = values.shape[1]
    size = isqrt(m // k)
    if size >= _SMALLEST_GROUP:
        whole = m // size * size
        groups = values[:, :whole].reshape(len(values), size, m // size)
        best = np.argpartition(groups.max(axis=1), -k, axis=1)[:, None, -k:]
        inside = np.take_along_axis(groups, best, axis=2).reshape(len(values), k * size)
        values = np.concatenate([inside, values[:, whole:]], axis=1)
    return np.partition(values, -k, axis=1)[:, -k:]
