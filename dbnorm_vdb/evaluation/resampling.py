"""How sure a figure is: percentile bootstrap intervals, paired permutation tests, Holm's correction.

The queries are the sample: what is asked is how the figures would vary with other queries like these (Smucker, Allan
and Carterette, CIKM 2007, compare the tests; Efron and Tibshirani, 1993, for the bootstrap). The same resamples serve
all arms and measures, so that differences are paired.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

_BLOCK = 1 << 21
"""Numbers drawn at a time: what bounds the memory."""


class Sample(NamedTuple):
    """The per-query values of one measure for one arm, and how they become one figure.

    Attributes:
        values: (n,).
        median: whether the figure is their median instead of their mean.
    """

    values: Floats
    median: bool = False

    def figure(self) -> float:
        """The mean or median."""
        return float(np.median(self.values) if self.median else np.mean(self.values))


def bootstrap_figures(samples: Sequence[Sample], *, resamples: int, seed: int) -> Floats:
    """(resamples, len(samples)) the samples' figures over queries drawn with replacement, the same for all samples."""
    rng = np.random.default_rng([seed, 0])
    count = len(samples[0].values)
    means = np.array([sample.values for sample in samples]).T
    figures = np.empty((resamples, len(samples)))
    medians = [column for column, sample in enumerate(samples) if sample.median]
    for block in _blocks(resamples, count):
        size = block.stop - block.start
        drawn = rng.integers(0, count, size=(size, count), dtype=np.int32)
        offsets = (np.arange(size) * count)[:, None]
        weights = np.bincount((drawn + offsets).ravel(), minlength=size * count).reshape(size, count)
        figures[block] = weights @ means / count
        for column in medians:
            figures[block, column] = np.median(samples[column].values[drawn], axis=1)
    return figures


def interval(figures: Floats, confidence: float) -> tuple[float, float]:
    """The percentile interval of a bootstrap distribution."""
    low, high = np.quantile(figures, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def permutation_p_values(pairs: Sequence[tuple[Sample, Sample]], *, resamples: int, seed: int) -> list[float]:
    """Two-sided p-values of paired permutation tests: does it matter which of the two arms a query's value is from?

    Under the null hypothesis it does not, so that every exchange of the two values of some queries is as likely as
    what was seen. `p` is the share of exchanges with a difference of the figures at least as large, what was seen
    included. All `2^n` are looked at where `resamples` allow it, else that many at random.

    Args:
        pairs: for each test the (n,) values of two arms; n is the same for all.
        resamples: how many exchanges, at most.
        seed: of the draw.
    """
    count = len(pairs[0][0].values)
    exact = count <= 30 and 2**count <= resamples
    seen = _differences_after(pairs, np.zeros((1, count), dtype=bool))[0]
    thresholds = np.abs(seen) * (1 - 1e-9) - 1e-12  # less by what rounding makes of equal differences
    extreme, total = np.zeros(len(pairs)), 0
    for exchanges in _all_exchanges(count) if exact else _random_exchanges(count, resamples, seed):
        extreme += (np.abs(_differences_after(pairs, exchanges)) >= thresholds).sum(axis=0)
        total += len(exchanges)
    itself = 0 if exact else 1
    return [float(p) for p in (extreme + itself) / (total + itself)]


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values that keep the chance of any false positive among all tests (Holm, 1979)."""
    order = np.argsort(p_values, kind="stable")
    factors = len(p_values) - np.arange(len(p_values))
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(np.asarray(p_values, dtype=np.float64)[order] * factors))
    return [float(p) for p in adjusted]


def _differences_after(pairs: Sequence[tuple[Sample, Sample]], exchanges: npt.NDArray[np.bool_]) -> Floats:
    """(r, len(pairs)) the differences of the figures after each of (r, n) exchanges of values."""
    differences = np.array([first.values - second.values for first, second in pairs]).T
    found: Floats = (differences.sum(axis=0) - 2 * (exchanges.astype(np.float64) @ differences)) / len(differences)
    for column, (first, second) in enumerate(pairs):
        if first.median:
            one = np.median(np.where(exchanges, second.values, first.values), axis=1)
            found[:, column] = one - np.median(np.where(exchanges, first.values, second.values), axis=1)
    return found


def _all_exchanges(count: int) -> Iterator[npt.NDArray[np.bool_]]:
    yield (np.arange(2**count)[:, None] >> np.arange(count) & 1).astype(bool)


def _random_exchanges(count: int, resamples: int, seed: int) -> Iterator[npt.NDArray[np.bool_]]:
    rng = np.random.default_rng([seed, 1])
    for block in _blocks(resamples, count):
        yield rng.integers(0, 2, size=(block.stop - block.start, count), dtype=np.bool_)


def _blocks(rows: int, columns: int) -> Iterator[slice]:
    size = max(1, _BLOCK // max(columns, 1))
    for start in range(0, rows, size):
        yield slice(start, min(start + size, rows))
