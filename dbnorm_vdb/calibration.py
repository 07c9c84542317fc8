"""How large a window has to be: measured on bank queries while the gallery streams by.

A held-out query is one of the query bank whose own vote is taken out of the biases, so that it meets the gallery like
a query that the bank does not hold. For each, the exact normalised top 10 and the largest raw similarities are kept;
at the end they tell the smallest window that holds that top 10, and the smallest in which it would be certified.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from dbnorm_vdb.biases import FittedBank, bank_side
from dbnorm_vdb.kernels.arrays import Reals
from dbnorm_vdb.methods import Form, lowest_adjustment
from dbnorm_vdb.statistics import (
    CERTIFIED_SHARE,
    EXACT_SHARE,
    Calibration,
    CollectionStatistics,
    Floats,
    Metric,
)

LIMIT = 10
QUERIES = 200
LARGEST_WINDOW = 1000

_BUFFER = 4096
# of a partition without one vote: less would be rounding
_LEAST_LEFT = {np.dtype(np.float32): 1e-3, np.dtype(np.float64): 1e-9}


class Calibrator:
    """Watches the gallery go by with held-out queries.

    Args:
        bank: the query bank as fitted, of two vectors or more.
        metric: how the collection compares vectors.
        weights: what each bias of the default method is multiplied by before it is subtracted. Gates are taken as
            open: where one is closed, a smaller window suffices.
    """

    def __init__(self, bank: FittedBank, metric: Metric, weights: Mapping[str, float]) -> None:
        rows = np.linspace(0, len(bank.bank) - 1, min(QUERIES, len(bank.bank))).astype(np.intp)
        self._weights = weights
        self._beta = bank.beta
        self._queries, self._offsets = bank_side(bank.bank.vectors[rows], metric, bank.beta)
        log_size = math.log(len(bank.bank))
        # the column that the bank's votes are in, and by how much one vote is lighter or heavier than the others
        self._votes: dict[str, Floats] = {"query": np.full(len(rows), -log_size)}
        if bank.log_weights is not None:
            self._votes["sinkhorn"] = bank.log_weights[rows] - log_size
        self._nnn = None if bank.nnn is None else (bank.nnn[0], min(bank.nnn[1], len(bank.bank)))
        self._nearest = self._empty()
        self._best, self._best_similarities = self._empty(), self._empty()
        self._waiting: list[tuple[npt.NDArray[Any], npt.NDArray[Any]]] = []

    def page(self, items: Reals, biases: Mapping[str, Floats]) -> None:
        """Take in the next (n, d) items, as `item_side` makes them, and their biases, (n,) each."""
        similarities = self._queries @ items.T
        if self._offsets is not None:
            similarities += (self._offsets / self._beta)[:, None]
        scores = np.array(similarities)
        for name, weight in self._weights.items():
            scores -= (weight * biases[name]).astype(scores.dtype)
        for name, log_votes in self._votes.items():
            if name in self._weights:
                scores -= self._weights[name] * self._own_vote(similarities, biases[name], log_votes)
        if "nnn" in self._weights and self._nnn is not None:
            scores -= self._own_neighbour(similarities, biases["nnn"], *self._nnn)
        self._waiting.append((similarities, scores))
        if sum(waiting.shape[1] for waiting, _ in self._waiting) >= _BUFFER:
            self._merge()

    def _own_vote(self, similarities: npt.NDArray[Any], bias: Floats, log_votes: Floats) -> npt.NDArray[Any]:
        """What taking a query's own vote out changes in the biases of items, (h, n): at most 0."""
        values: npt.NDArray[Any] = similarities - bias.astype(similarities.dtype)
        values *= self._beta
        values += log_votes[:, None].astype(values.dtype)  # the logarithms of the vote's shares
        np.exp(np.minimum(values, 0.0, out=values), out=values)  # expm1 takes many times as long, to no use here
        np.maximum(np.subtract(1.0, values, out=values), _LEAST_LEFT[values.dtype], out=values)
        np.log(values, out=values)
        values /= self._beta
        return values

    def _own_neighbour(self, similarities: npt.NDArray[Any], bias: Floats, alpha: float, k: int) -> npt.NDArray[Any]:
        """The same for `nnn`: a query nearer to an item than the mean of its k nearest is one of these, and goes."""
        changes = alpha * similarities - bias.astype(similarities.dtype)
        changes /= -max(k - 1, 1)
        return np.where(changes * alpha < 0, changes, 0)

    def _merge(self) -> None:
        if not self._waiting:
            return
        similarities = np.concatenate([waiting for waiting, _ in self._waiting], axis=1)
        scores = np.concatenate([waiting for _, waiting in self._waiting], axis=1)
        self._waiting.clear()
        self._nearest = _largest(np.concatenate([self._nearest, similarities], axis=1), LARGEST_WINDOW)
        scores = np.concatenate([self._best, scores], axis=1)
        similarities = np.concatenate([self._best_similarities, similarities], axis=1)
        keep = min(LIMIT, scores.shape[1])
        rows = np.argpartition(scores, scores.shape[1] - keep, axis=1)[:, scores.shape[1] - keep :]
        self._best = np.take_along_axis(scores, rows, axis=1)
        self._best_similarities = np.take_along_axis(similarities, rows, axis=1)

    def result(self, statistics: CollectionStatistics) -> Calibration:
        """What windows suffice, after the last page, for a collection with these statistics."""
        self._merge()
        mean = sum(weight * statistics.columns[name].bias.mean for name, weight in self._weights.items())
        lowest = lowest_adjustment(Form(tuple(self._weights)), statistics)
        reach = self._best.min(axis=1) + mean + lowest
        exact = _counts(self._nearest >= self._best_similarities.min(axis=1, keepdims=True))
        certified = _counts(self._nearest > reach[:, None]) + 1
        # where all that is kept counts, there may be more
        full = self._nearest.shape[1] == LARGEST_WINDOW
        candidates, exact_share = _window(exact, EXACT_SHARE, full)
        certified_candidates, certified_share = _window(certified, CERTIFIED_SHARE, full)
        return Calibration(
            limit=LIMIT,
            query_count=len(exact),
            candidates=candidates,
            exact_share=exact_share,
            certified_candidates=max(candidates, certified_candidates),
            certified_share=certified_share,
        )

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """All that it has gathered so far, as arrays."""
        self._merge()
        return {"nearest": self._nearest, "best": self._best, "best_similarities": self._best_similarities}

    def restore(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        """Go on from what `state` returned."""
        self._nearest, self._best = state["nearest"], state["best"]
        self._best_similarities = state["best_similarities"]

    def _empty(self) -> npt.NDArray[Any]:
        return np.empty((len(self._queries), 0), dtype=self._queries.dtype)


def _largest(values: npt.NDArray[Any], count: int) -> npt.NDArray[Any]:
    """The `count` largest of each row, in any order."""
    if values.shape[1] <= count:
        return values
    first = values.shape[1] - count
    return np.partition(values, first, axis=1)[:, first:]


def _counts(flags: npt.NDArray[np.bool_]) -> npt.NDArray[np.intp]:
    counts: npt.NDArray[np.intp] = flags.sum(axis=1)
    return counts


def _window(needed: npt.NDArray[np.intp], share: float, full: bool) -> tuple[int, float]:
    """The smallest window that suffices for a share of the queries, and for which share it does."""
    within = np.where(needed >= LARGEST_WINDOW, LARGEST_WINDOW + 1, needed) if full else needed
    wanted = int(np.sort(within)[math.ceil(share * len(within)) - 1])
    window = min(wanted, LARGEST_WINDOW)
    return window, float((within <= window).mean())
