"""The arithmetic of every backend, written once in the functions that numpy and torch have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from threading import Lock
from typing import Any, ClassVar, NamedTuple, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from dbnorm_vdb.kernels.arrays import Array, Floats, Reals
from dbnorm_vdb.kernels.blocks import CPU_BLOCKS
from dbnorm_vdb.kernels.nearest import NearestItems
from dbnorm_vdb.kernels.terms import Term, make_terms

__all__ = ["BankKernel", "Floats", "Reals"]

T = TypeVar("T")

Step: TypeAlias = Callable[[Reals, int], T]
"""What is done with a block of items, and its place among those that are streamed."""

# exp(x) of |x| <= 70, summed over 1e8 terms, neither overflows nor reaches the subnormal numbers of float32.
SAFE_EXPONENT = 70.0

# Terms that float32 lost (below 1e-38) cannot be seen in a sum of at least this.
_FAINT = 1e-25


class BankKernel(ABC):
    """One streaming pass of items against one bank: log partitions, and what is nearest on either side.

    No similarity matrix larger than a block ever exists. Several betas share the matrix product; rows of one beta that
    differ by their bank weights share the exponentials too.

    Args:
        bank: (m, d) inner-product vectors, float32 or float64, which is also what is computed in.
        betas: the k inverse temperatures.
        log_weights: (m,) added to the exponents of each bank vector, or (k, m) with a row for each beta; None for none.
        nearest_k: keep this many nearest items of each bank vector; 0 for none.
        largest_k: average this many largest similarities of each item to the bank (all, if it has fewer); 0 for none.
            The log weights of the first beta are a part of them: `<b, g> + log_weights_b / beta`.
    """

    xp: ClassVar[Any]  # numpy or torch
    out_of_memory: ClassVar[tuple[type[Exception], ...]] = ()  # what `_retreat` can do something about

    def __init__(
        self,
        bank: Reals,
        betas: Sequence[float],
        *,
        log_weights: Reals | None = None,
        nearest_k: int = 0,
        largest_k: int = 0,
    ) -> None:
        self.betas = tuple(float(beta) for beta in betas)
        self.largest_k = min(largest_k, len(bank))
        self.scanned = 0
        self.nearest = NearestItems.empty(len(bank), nearest_k, bank.dtype) if nearest_k else None
        self.blocks = CPU_BLOCKS
        self._beta = max(self.betas)
        self._bank = bank
        self._largest_norm = _largest_norm(bank)
        weights = np.zeros(len(bank)) if log_weights is None else np.asarray(log_weights, dtype=np.float64)
        rows = np.broadcast_to(weights, (len(self.betas), len(bank)))
        self._terms = make_terms(self.betas, rows)
        self._offsets = rows[0] * (self._beta / self.betas[0]) if self.largest_k and rows[0].any() else None
        self._log_scales = np.empty((len(self.betas), 1))
        for term in self._terms:
            self._log_scales[term.rows, 0] = term.log_scales
        self._columns: Array = None
        self._placed_terms: list[Term] = []
        self._placed_offsets: Array = None
        self._spare: list[_Workspace] = []
        self._merging = Lock()

    def scan(self, items: Reals) -> Floats:
        """Log partitions (k, n) of the next `items` (n, d), one row for each beta.

        With `largest_k` there is one more row: the mean of the largest similarities of each item.
        """
        if not len(items):
            return np.empty((len(self.betas) + (self.largest_k > 0), 0))
        first, shifted = self.scanned, self._needs_shift(items)
        blocks = list(
            self._stream(
                items,
                lambda: self.blocks.items_keeping(self.largest_k),
                lambda block, start: self._scan_block(block, first + start, shifted=shifted),
            )
        )
        self.scanned += len(items)
        result = np.empty((len(self.betas), len(items)))
        for term, parts in zip(self._terms, zip(*(block.sums for block in blocks), strict=True), strict=True):
            result[term.rows] = np.log(np.concatenate([part.values for part in parts], axis=1))
            if shifted:
                result[term.rows] += np.concatenate([part.shift for part in parts])
        result += self._log_scales
        if self.largest_k:
            means = np.concatenate([block.largest for block in blocks])
            result = np.concatenate([result, means[None] / self._scale])
        return result

    def resume(self, scanned: int, similarity: Reals, position: npt.NDArray[np.int64]) -> None:
        """Go on as if `scanned` items had been scanned, with these nearest ones: (m, nearest_k) each.

        Raises:
            ValueError: they are not of this bank.
        """
        if self.nearest is None or not similarity.shape == position.shape == self.nearest.similarity.shape:
            raise ValueError(f"nearest items of shape {similarity.shape} for a bank of {len(self._bank)}")
        self.scanned = scanned
        self.nearest.similarity[:], self.nearest.position[:] = similarity, position

    def log_votes(self, items: Reals, log_weights: Floats) -> Floats:
        """How much of the items each bank vector accounts for: `log sum_j softmax_b(beta <b, g_j> + log_weights_b)`.

        Both half steps of a Sinkhorn iteration from one matrix product: with `v_j = -log sum_b exp(e_bj + u_b)`, a
        share is `exp(e_bj + u_b + v_j)`, so that `-log sum_j exp(e_bj + v_j) = u_b - log_votes_b`.

        Args:
            items: (n, d), n > 0.
            log_weights: (m,) takes the place of the kernel's own.

        Returns:
            (m,) for the largest beta.
        """
        votes = np.full(len(self._bank), -np.inf)
        blocks = self._stream(
            items, lambda: self.blocks.items_for(len(self._bank)), lambda block, _: self._vote_block(block, log_weights)
        )
        for part in blocks:
            votes = np.logaddexp(votes, part)
        return votes

    # --- the arithmetic of one block ---------------------------------------------------------------------------

    def _scan_block(self, items: Reals, position: int, *, shifted: bool) -> _Scanned:
        """The sums of a block of items, the first of them at `position`, against all of the bank."""
        block = self._scaled(items)
        sums = [_Sums(self._put(np.zeros((len(term.rows), len(items))))) for term in self._terms]
        largest: Array = None
        with self._workspace() as work:
            for columns in self._bank_blocks():
                products = work.products(len(items), columns.stop - columns.start)
                self._multiply(block, self._columns[:, columns], products)
                self._keep_nearest(products, columns, position)
                if self.largest_k:
                    largest = self._keep_largest(largest, products, columns, work)
                self._add_exponentials(sums, products, columns, work, shifted=shifted)
        for those in sums:
            those.values = self._take(those.values)
            those.shift = self._take(those.shift) if shifted else None
        return _Scanned(sums, self._take(largest).mean(axis=1, dtype=np.float64) if self.largest_k else np.empty(0))

    def _add_exponentials(
        self, sums: Sequence[_Sums], products: Array, columns: slice, work: _Workspace, *, shifted: bool
    ) -> None:
        """Add the weighted exponentials of a block to the sums of each term; the last takes the place of `products`."""
        xp = self.xp
        for i, (term, those) in enumerate(zip(self._placed_terms, sums, strict=True)):
            exponents, out = products, products if i + 1 == len(sums) else work.spare(*products.shape)
            if term.beta != self._beta:
                exponents = xp.multiply(exponents, term.beta / self._beta, out=out)
            if term.addend is not None:
                exponents = xp.add(exponents, term.addend[columns], out=out)
            if shifted:
                exponents = xp.subtract(exponents, those.shift_for(exponents, xp)[:, None], out=out)
            xp.exp(exponents, out=out)
            those.values += xp.stack([xp.matmul(out, factors[columns]) for factors in term.factors])

    def _vote_block(self, items: Reals, log_weights: Floats) -> Floats:
        """Log votes (m,) of some items, all of the bank at once."""
        shape = (len(items), len(self._bank))
        with self._workspace() as work:
            return self._votes(items, log_weights, work.products(*shape), work.spare(*shape))

    def _votes(self, items: Reals, log_weights: Floats, exponents: Array, shares: Array) -> Floats:
        xp = self.xp
        self._multiply(self._scaled(items), self._columns, exponents)
        exponents += self._put(log_weights.astype(self._bank.dtype))
        exponents -= xp.amax(exponents, axis=1)[:, None]
        sums = xp.exp(exponents, out=shares).sum(axis=1)
        votes = self._take(xp.matmul(1 / sums, shares)).astype(np.float64)
        faint = np.flatnonzero(votes < _FAINT)
        votes[faint] = 1.0
        result: Floats = np.log(votes)
        if len(faint):  # these are summed again with a shift of their own
            logarithms = exponents[:, self._put(faint)] - xp.log(sums)[:, None]
            shift = xp.amax(logarithms, axis=0)
            result[faint] = self._take(shift + xp.log(xp.exp(logarithms - shift).sum(axis=0)))
        return result

    def _keep_nearest(self, products: Array, columns: slice, position: int) -> None:
        if self.nearest is None:
            return
        # dividing what is compared, and not what it is compared with, keeps equal similarities equal
        best = self._take(self.xp.amax(products, axis=0)) / self._scale
        rows = np.flatnonzero(best >= self.nearest.similarity[columns, -1])
        if len(rows):
            block = self._gather(products, rows) / self._scale
            with self._merging:
                self.nearest.merge(rows + columns.start, block, position)

    def _keep_largest(self, kept: Array, products: Array, columns: slice, work: _Workspace) -> Array:
        """The largest products (n, at most `largest_k`) of each item, among those kept so far and a block's."""
        if self._placed_offsets is not None:
            products = self.xp.add(products, self._placed_offsets[columns], out=work.spare(*products.shape))
        largest = self._largest(products, min(self.largest_k, products.shape[1]))
        if kept is not None:
            both = self.xp.concatenate([kept, largest], axis=1)
            largest = self._largest(both, min(self.largest_k, both.shape[1]))
        return largest

    # --- blocks and memory -------------------------------------------------------------------------------------

    def _stream(self, items: Reals, size: Callable[[], int], step: Step[T]) -> Iterator[T]:
        """`step` of each block of `size()` items. A block that runs out of memory is done again after a retreat."""
        start = 0
        while start < len(items):
            before = self.nearest.copy() if self.nearest is not None and self.out_of_memory else self.nearest
            try:
                with self._session():
                    self._place()
                    block = items[start : start + size()]
                    part = step(block, start)
            except self.out_of_memory as error:
                self.nearest = before
                self._retreat(error)
                continue
            start += len(block)
            yield part

    def _place(self) -> None:
        """Bring the bank to where it is multiplied, if it is not there."""
        if self._columns is None:
            dtype = self._bank.dtype
            self._placed_terms = [
                replace(
                    term,
                    addend=None if term.addend is None else self._put(term.addend.astype(dtype)),
                    factors=self._put(term.factors.astype(dtype)),
                )
                for term in self._terms
            ]
            self._placed_offsets = None if self._offsets is None else self._put(self._offsets.astype(dtype))
            self._columns = self._put_bank(self._bank).T

    @contextmanager
    def _workspace(self) -> Iterator[_Workspace]:
        """Memory for a block, reused throughout; each thread has its own."""
        try:
            work = self._spare.pop()
        except IndexError:  # not asked for first: another thread may take the last one in between
            work = _Workspace(self._empty)
        yield work
        self._spare.append(work)

    def _bank_blocks(self) -> Iterator[slice]:
        for start in range(0, len(self._bank), self.blocks.bank):
            yield slice(start, min(start + self.blocks.bank, len(self._bank)))

    @property
    def _scale(self) -> np.floating[Any]:
        """Products are similarities times this: folded into the items, the largest beta costs nothing."""
        scale: np.floating[Any] = self._bank.dtype.type(self._beta)
        return scale

    def _scaled(self, items: Reals) -> Array:
        return self._put(np.multiply(items, self._scale, dtype=self._bank.dtype))

    def _needs_shift(self, items: Reals) -> bool:
        """Whether an exponent may leave the range in which plain sums of exponentials are safe."""
        similarity = _largest_norm(items) * self._largest_norm
        return not all(term.largest_exponent(similarity) <= SAFE_EXPONENT for term in self._terms)

    # --- what differs between backends -------------------------------------------------------------------------

    @abstractmethod
    def _put(self, array: npt.NDArray[Any]) -> Array:
        """An array of the backend."""

    @abstractmethod
    def _take(self, array: Array) -> npt.NDArray[Any]:
        """The reverse."""

    @abstractmethod
    def _empty(self, size: int) -> Array:
        """(size,) of the bank's type, not filled."""

    @abstractmethod
    def _multiply(self, rows: Array, columns: Array, out: Array) -> None:
        """The matrix product."""

    @abstractmethod
    def _gather(self, products: Array, columns: npt.NDArray[np.int64]) -> Reals:
        """Some columns of (n, m) products, taken, as the rows of a contiguous (len(columns), n)."""

    @abstractmethod
    def _largest(self, values: Array, k: int) -> Array:
        """The `k` largest of each row of (n, m) values, in any order: (n, k)."""

    def _put_bank(self, bank: Reals) -> Array:
        return self._put(bank)

    def _session(self) -> AbstractContextManager[Any]:
        """What holds while a block is computed."""
        return nullcontext()

    def _retreat(self, error: Exception) -> None:
        """Go on with less memory, or raise `error`."""
        raise error


@dataclass
class _Sums:
    """Weighted sums of the exponentials of a term, for a block of items, while blocks of the bank go by.

    Attributes:
        values: (r, n) float64, one row for each of the term's.
        shift: (n,) the largest exponent of each item so far, which all are diminished by; None for no shift.
    """

    values: Array
    shift: Array = None

    def shift_for(self, exponents: Array, xp: Any) -> Array:
        """(n,) what to subtract from these exponents (n, m), and from now on from all; the sums are scaled to it."""
        shift = xp.amax(exponents, axis=1)
        if self.shift is not None:
            shift = xp.maximum(self.shift, shift)
            self.values *= xp.exp(self.shift - shift)
        self.shift = shift
        return shift


class _Scanned(NamedTuple):
    """What a scan keeps of a block of items: sums for each term, and the mean of each item's largest products."""

    sums: list[_Sums]
    largest: Floats


class _Workspace:
    """Two arrays as large as was needed so far, the second only if it was."""

    def __init__(self, empty: Callable[[int], Array]) -> None:
        self._empty = empty
        self._buffers: list[Array] = [empty(0), empty(0)]

    def products(self, n: int, m: int) -> Array:
        """The first, as (n, m)."""
        return self._rows(0, n, m)

    def spare(self, n: int, m: int) -> Array:
        """The second, as (n, m)."""
        return self._rows(1, n, m)

    def _rows(self, which: int, n: int, m: int) -> Array:
        if len(self._buffers[which]) < n * m:
            self._buffers[which] = None  # let go of it first
            self._buffers[which] = self._empty(n * m)
        return self._buffers[which][: n * m].reshape(n, m)


def _largest_norm(vectors: Reals) -> float:
    return float(np.sqrt(np.einsum("ij,ij->i", vectors, vectors).max()))
