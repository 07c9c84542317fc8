"""The bank weights of `sinkhorn` (METHODS; the bank form of DBSN, Pan et al., ACM MM 2025), in the log domain.

Inverted softmax lets every bank vector vote for an item however many better items that vector has. Sinkhorn weighs the
votes, until each bank vector gives as much as any other: `v_j = -log sum_b exp(e_bj + u_b)` for the items, then
`u_b = -log sum_j exp(e_bj + v_j)` for the bank, and again. Both half steps of a pass come from one matrix product.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from dbnorm_vdb.kernels.base import Floats, Reals
from dbnorm_vdb.parameters import check_beta, check_count

_BLOCK_ELEMENTS = 1 << 22


@dataclass(frozen=True)
class SinkhornWeights:
    """What was learned.

    Attributes:
        log_weights: (m,) logarithms of the bank vectors' weights, whose sum is m.
        changes: how far they moved in each step at most, on the similarity scale.
    """

    log_weights: Floats
    changes: tuple[float, ...]


def learn_weights(
    bank: Reals,
    items: Reals,
    beta: float,
    *,
    offsets: Reals | None = None,
    iterations: int = 10,
    backend: str = "auto",
    report: Callable[[int, float], None] | None = None,
) -> SinkhornWeights:
    """Learn the weights of a bank on a sample of items.

    Args:
        bank: (m, d) inner-product vectors.
        items: (n, d) the same.
        beta: inverse temperature.
        offsets: (m,) added to the exponents of each bank vector: `e_bj = beta * <b, j> + offsets_b`.
        iterations: item steps, with a bank step between each two: `iterations - 1` passes over the items. 1 leaves
            all weights alike, which is the inverted softmax.
        report: called after each pass with its number and the change.
    """
    check_beta(beta)
    check_count(iterations, what="iterations")
    plain = np.zeros(len(bank)) if offsets is None else np.asarray(offsets, dtype=np.float64)
    log_weights = np.zeros(len(bank))
    changes: list[float] = []
    for step in range(1, iterations):
        moved = _pass(bank, items, beta, plain + log_weights) - plain
        moved += np.log(len(moved)) - _log_sum_exp(moved)
        changes.append(float(np.abs(moved - log_weights).max()) / beta)
        log_weights = moved
        if report is not None:
            report(step, changes[-1])
    return SinkhornWeights(log_weights, tuple(changes))


def block_size(bank_size: int) -> int:
    """How many items are taken at a time, so that a block of similarities stays bounded."""
    return max(1, _BLOCK_ELEMENTS // bank_size)


def _pass(bank: Reals, items: Reals, beta: float, weights: Floats) -> Floats:
    """`-log sum_j exp(beta * s_bj + v_j)` of each bank vector, with the items' `v` for these weights."""
    size = block_size(len(bank))
    buffer = np.empty((min(size, len(items)), len(bank)), dtype=bank.dtype)
    narrow = weights.astype(bank.dtype)
    shifts = np.full(len(bank), -np.inf)
    sums = np.zeros(len(bank))
    for start in range(0, len(items), size):
        block = items[start : start + size]
        exponents = np.matmul(block, bank.T, out=buffer[: len(block)])
        exponents *= exponents.dtype.type(beta)
        exponents += narrow
        row_shift = exponents.max(axis=1)
        exponents -= row_shift[:, None]
        # sum_b exp(e + u) of each item; then log of each bank vector's share of each item
        exponents -= np.log(np.exp(exponents).sum(axis=1, dtype=np.float64)).astype(exponents.dtype)[:, None]
        shift = np.maximum(shifts, exponents.max(axis=0))
        sums *= np.exp(shifts - shift)
        shifts = shift
        exponents -= shift.astype(exponents.dtype)
        np.exp(exponents, out=exponents)
        sums += exponents.sum(axis=0, dtype=np.float64)
    moved: Floats = weights - (shifts + np.log(sums))  # the shares still hold the weights themselves
    return moved


def _log_sum_exp(values: Floats) -> float:
    shift = float(values.max())
    return shift + float(np.log(np.exp(values - shift).sum()))
