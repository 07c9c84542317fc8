"""The nearest items of each bank vector, kept over a stream of blocks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dbnorm_vdb.kernels.arrays import Reals


@dataclass
class NearestItems:
    """The `k` items most similar to each bank vector, over all items scanned so far.

    Attributes:
        similarity: (m, k), descending; -inf where fewer than `k` items were scanned.
        position: (m, k) the items' positions in scan order; -1 where there is none. Ties keep the earlier position.
    """

    similarity: Reals
    position: npt.NDArray[np.int64]

    @classmethod
    def empty(cls, bank_size: int, k: int, dtype: npt.DTypeLike) -> NearestItems:
        return cls(np.full((bank_size, k), -np.inf, dtype=dtype), np.full((bank_size, k), -1, dtype=np.int64))

    def copy(self) -> NearestItems:
        return NearestItems(self.similarity.copy(), self.position.copy())

    def merge(self, bank_rows: npt.NDArray[np.int64], block: Reals, first_position: int) -> None:
        """Take in the similarities `block` (len(bank_rows), items) of items at `first_position` and after.

        Only what comes up to the worst of those kept so far is looked at, which soon is little. Blocks may come in any
        order.
        """
        k = self.position.shape[1]
        if k == 1:
            self._merge_best(bank_rows, block, first_position)
            return
        n = block.shape[1]
        least = self.similarity[bank_rows, -1:]
        entering = block >= least
        if np.isneginf(least).any() and n > k:  # at first everything would enter
            entering &= block >= np.partition(block, n - k, axis=1)[:, n - k, None]
        rows, items = np.nonzero(entering)  # by bank vector, then in scan order
        counts = np.bincount(rows, minlength=len(bank_rows))
        slots = k + np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
        similarity = np.full((len(bank_rows), k + int(counts.max())), -np.inf, dtype=block.dtype)
        position = np.full(similarity.shape, -1, dtype=np.int64)
        similarity[:, :k], position[:, :k] = self.similarity[bank_rows], self.position[bank_rows]
        similarity[rows, slots] = block[rows, items]
        position[rows, slots] = first_position + items
        if first_position > position[:, :k].max():  # they are in the order of their positions
            keep = np.argsort(-similarity, axis=1, kind="stable")[:, :k]
        else:
            keep = np.lexsort((position, -similarity), axis=1)[:, :k]
        self.similarity[bank_rows] = np.take_along_axis(similarity, keep, axis=1)
        self.position[bank_rows] = np.take_along_axis(position, keep, axis=1)

    def _merge_best(self, bank_rows: npt.NDArray[np.int64], block: Reals, first_position: int) -> None:
        """The same where one is kept."""
        best = block.argmax(axis=1)
        similarity, position = block[np.arange(len(block)), best], first_position + best
        kept, kept_position = self.similarity[bank_rows, 0], self.position[bank_rows, 0]
        nearer = (similarity > kept) | ((similarity == kept) & (position < kept_position))
        self.similarity[bank_rows[nearer], 0] = similarity[nearer]
        self.position[bank_rows[nearer], 0] = position[nearer]
