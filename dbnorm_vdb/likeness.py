"""Is the query bank like the queries that are served? A two-sample test with a distance that does not grow with them.

The distance is the energy coefficient `(2 E|Q - B| - E|Q - Q'| - E|B - B'|) / (2 E|Q - B|)` of queries `Q` and bank
vectors `B` (Székely and Rizzo, 2013), estimated without bias: 0 in the mean for samples of one distribution, whatever
their sizes, and above it for any other. Its noise is that of random splits of the two samples together (a permutation
test). Samples are of bounded size: enough queries would show any difference, however small; one that 200 of them do
not show is taken for too small to matter.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dbnorm_vdb.banks import Vectors
from dbnorm_vdb.biases import unit_length
from dbnorm_vdb.statistics import Floats, Metric
from dbnorm_vdb.verdicts import LARGEST_P_VALUE, BankDistance

MOST_QUERIES = 200
MOST_BANK_VECTORS = 1000
LEAST = 10
"""Vectors on either side: fewer say nothing."""

_SPLITS = 999


def bank_distance(bank: Vectors, queries: Vectors, metric: Metric, *, seed: int = 0) -> BankDistance | None:
    """How far (q, d) queries are from an (m, d) query bank; None where either has fewer than 10 vectors.

    Args:
        bank: the query bank.
        queries: those to be served.
        metric: how the collection compares vectors; for cosine, their lengths do not count.
        seed: of the samples and the random splits.
    """
    if min(len(bank), len(queries)) < LEAST:
        return None
    rng = np.random.default_rng(seed)
    samples = [_sample(queries, MOST_QUERIES, rng), _sample(bank, MOST_BANK_VECTORS, rng)]
    vectors = np.concatenate(samples)
    size, total = len(samples[0]), len(vectors)
    distances = _distances(unit_length(vectors) if metric is Metric.COSINE else vectors)
    split = np.zeros((total, 1 + _SPLITS))
    split[:size, 0] = 1.0
    for column in range(1, 1 + _SPLITS):
        split[rng.permutation(total)[:size], column] = 1.0
    coefficients = _coefficients(distances, split, size)
    seen, chance = coefficients[0], coefficients[1:]
    return BankDistance(
        distance=float(seen),
        chance=float(np.quantile(chance, 1 - LARGEST_P_VALUE)),
        p_value=(1 + int((chance >= seen).sum())) / (1 + _SPLITS),
        query_count=size,
        bank_count=total - size,
    )


def _sample(vectors: Vectors, most: int, rng: np.random.Generator) -> Vectors:
    if len(vectors) <= most:
        return vectors
    return vectors[np.sort(rng.choice(len(vectors), size=most, replace=False))]


def _distances(vectors: npt.NDArray[np.float32]) -> Floats:
    wide = vectors.astype(np.float64)
    squares = np.square(wide).sum(axis=1)
    distances: Floats = np.sqrt(np.maximum(squares[:, None] + squares - 2 * wide @ wide.T, 0.0))
    np.fill_diagonal(distances, 0.0)
    return distances


def _coefficients(distances: Floats, split: Floats, size: int) -> Floats:
    """(s,) the energy coefficient of each of s splits, (n, s) with 1 for the `size` vectors of the first part."""
    other = len(distances) - size
    to_first = distances @ split
    first = (split * to_first).sum(axis=0)
    between = to_first.sum(axis=0) - first
    second = distances.sum() - first - 2 * between
    cross = 2 * between / (size * other)
    energy = cross - first / (size * (size - 1)) - second / (other * (other - 1))
    coefficients: Floats = np.divide(energy, cross, out=np.zeros_like(energy), where=cross > 0)
    return coefficients
