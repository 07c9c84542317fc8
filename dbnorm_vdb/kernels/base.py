"""What every backend's kernel shares: arguments, blocks, and the decision whether exponents need a shift."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

Reals: TypeAlias = npt.NDArray[np.floating[Any]]
Floats: TypeAlias = npt.NDArray[np.float64]

ITEM_BLOCK = 512
BANK_BLOCK = 2048

# exp(x) of |x| <= 70, summed over 1e8 terms, neither overflows nor reaches the subnormal numbers of float32.
SAFE_EXPONENT = 70.0


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

    def merge(self, bank_rows: npt.NDArray[np.int64], block: Reals, first_position: int) -> None:
        """Take in the similarities `block` (items, len(bank_rows)) of items at `first_position` and after.

        Only what beats the worst of those kept so far is looked at, which soon is little.
        """
        k = self.position.shape[1]
        if k == 1:
            best = block.argmax(axis=0)
            self.similarity[bank_rows, 0] = block[best, np.arange(block.shape[1])]
            self.position[bank_rows, 0] = first_position + best
            return
        least = self.similarity[bank_rows, -1]
        entering = block > least
        if np.isneginf(least).any() and len(block) > k:  # at first everything would enter
            entering &= block >= np.partition(block, len(block) - k, axis=0)[len(block) - k]
        columns, items = np.nonzero(entering.T)  # by bank vector, then in scan order
        counts = np.bincount(columns, minlength=len(bank_rows))
        slots = k + np.arange(len(columns)) - np.repeat(np.cumsum(counts) - counts, counts)
        similarity = np.full((len(bank_rows), k + int(counts.max())), -np.inf, dtype=block.dtype)
        position = np.full(similarity.shape, -1, dtype=np.int64)
        similarity[:, :k], position[:, :k] = self.similarity[bank_rows], self.position[bank_rows]
        similarity[columns, slots] = block[items, columns]
        position[columns, slots] = first_position + items
        keep = np.argsort(-similarity, axis=1, kind="stable")[:, :k]
        self.similarity[bank_rows] = np.take_along_axis(similarity, keep, axis=1)
        self.position[bank_rows] = np.take_along_axis(position, keep, axis=1)


class BankKernel(ABC):
    """One streaming pass of items against one bank: log partitions, and the nearest items of each bank vector.

    No similarity matrix larger than a block ever exists. Several betas share the matrix product.

    Args:
        bank: (m, d) inner-product vectors, float32 or float64, which is also what is computed in.
        betas: the inverse temperatures.
        log_weights: (m,) added to the exponents of each bank vector, or (k, m) a row for each beta; None for none.
        nearest_k: keep this many nearest items of each bank vector; 0 for none.
    """

    def __init__(
        self, bank: Reals, betas: Sequence[float], *, log_weights: Reals | None = None, nearest_k: int = 0
    ) -> None:
        self.betas = tuple(float(beta) for beta in betas)
        self.scanned = 0
        self.nearest = NearestItems.empty(len(bank), nearest_k, bank.dtype) if nearest_k else None
        self._bank_size = len(bank)
        self._log_weights = None if log_weights is None else np.broadcast_to(log_weights, (len(betas), len(bank)))
        self._largest_norm = float(np.sqrt(np.einsum("ij,ij->i", bank, bank, dtype=np.float64).max()))
        self._largest_weight = 0.0 if log_weights is None else float(np.abs(log_weights).max())

    def scan(self, items: Reals) -> Floats:
        """Log partitions (k, n) of the next `items` (n, d), one row for each beta."""
        result = np.empty((len(self.betas), len(items)))
        for start in range(0, len(items), ITEM_BLOCK):
            block = items[start : start + ITEM_BLOCK]
            result[:, start : start + len(block)] = self._scan_block(block)
            self.scanned += len(block)
        return result

    def resume(self, scanned: int, similarity: Reals, position: npt.NDArray[np.int64]) -> None:
        """Go on as if `scanned` items had been scanned, with these nearest ones: (m, nearest_k) each.

        Raises:
            ValueError: they are not of this bank.
        """
        if self.nearest is None or similarity.shape != self.nearest.similarity.shape != position.shape:
            raise ValueError(f"nearest items of shape {similarity.shape} for a bank of {self._bank_size}")
        self.scanned = scanned
        self.nearest.similarity[:], self.nearest.position[:] = similarity, position

    def _needs_shift(self, items: Reals) -> bool:
        """Whether an exponent may leave the range in which plain sums of exponentials are safe."""
        norm = float(np.sqrt(np.einsum("ij,ij->i", items, items, dtype=np.float64).max()))
        return not max(self.betas) * norm * self._largest_norm + self._largest_weight <= SAFE_EXPONENT

    def _bank_blocks(self) -> Iterator[slice]:
        for start in range(0, self._bank_size, BANK_BLOCK):
            yield slice(start, min(start + BANK_BLOCK, self._bank_size))

    @abstractmethod
    def _scan_block(self, items: Reals) -> Floats:
        """Log partitions (k, n) of at most `ITEM_BLOCK` items."""
