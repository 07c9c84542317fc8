"""What sets single items apart from the rest: found far too often, near every query, or nearly the same as others.

Outlying means a robust z-score beyond a threshold: the distance from the median in units of 1.4826 times the median
absolute deviation, which is the standard deviation where values are normal (Iglewicz & Hoaglin, 1993).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dbnorm_vdb.banks import Vectors
from dbnorm_vdb.biases import unit_length
from dbnorm_vdb.hubness import Counts
from dbnorm_vdb.statistics import Booleans, Floats, Metric

OUTLYING = 3.5
"""The usual threshold of a robust z-score: from here on an item is found outlyingly often."""

NEAR_EVERY_QUERY = 5.0
"""From here on the mean similarity to the queries looks planted. Hubs that nobody planted reach 4 at most: measured on
both data sets, on Gaussian vectors under each metric, and on two separate cones, as between modalities. The vector in
the middle of the queries reaches 5 to 22."""

NEAR_DUPLICATE = 0.02
"""Of the mean squared distance between two items, what near-duplicates are apart at most. For vectors of unit length
around the origin that is a cosine of 0.98."""


def robust_z(values: Floats, reference: Floats, *, least: float = 0.0) -> Floats:
    """Robust z-scores of values among those of a reference.

    Args:
        values: (n,).
        reference: (m,), of which median and deviation are taken.
        least: what the deviation is taken to be at least.

    Returns:
        (n,); where the deviation is 0, 0 for the median and infinite for everything else.
    """
    median = np.median(reference)
    scale = max(1.4826 * float(np.median(np.abs(reference - median))), least)
    away = values - median
    return away / scale if scale else np.where(away == 0, 0.0, np.copysign(np.inf, away))


def occurrence_z(occurrences: Counts) -> Floats:
    """Robust z-scores of (N,) k-occurrences, those of items that are never found included.

    They are taken on Anscombe's scale, `2 sqrt(x + 3/8)`, on which the counts that chance alone gives have a standard
    deviation of 1 whatever their mean. The deviation is taken to be at least that: so the score survives a median
    absolute deviation of 0, as where most items are never found, and does not call two hits by chance outlying.
    """
    scaled = 2 * np.sqrt(np.asarray(occurrences, dtype=np.float64) + 0.375)
    return robust_z(scaled, scaled, least=1.0)


def mean_similarity(vectors: Vectors, queries: Vectors, metric: Metric) -> Floats:
    """How near n items are to m queries on average: what a vector planted near every query has to maximise.

    Returns:
        (n,) mean cosines, or for Euclidean mean negative squared distances. Also for the dot product cosines, since
        under it long vectors are hubs, be they planted or not. For Euclidean vectors of widely different lengths the
        middle of the queries does not stand out as clearly.
    """
    if metric is Metric.EUCLIDEAN:
        items, asked = vectors.astype(np.float64), queries.astype(np.float64)
        squares = np.square(asked).sum(axis=1).mean()
        return np.asarray(2 * items @ asked.mean(axis=0) - np.square(items).sum(axis=1) - squares)
    return np.asarray(unit_length(vectors).astype(np.float64) @ unit_length(queries).mean(axis=0, dtype=np.float64))


def compared_as(vectors: Vectors, metric: Metric) -> Floats:
    """Vectors as distances between them have a meaning: under cosine at unit length."""
    return (unit_length(vectors) if metric is Metric.COSINE else vectors).astype(np.float64)


def mean_squared_distance(items: Floats) -> float:
    """Between two of n items, on average: twice their total variance."""
    return float(2 * np.square(items - items.mean(axis=0)).sum(axis=1).mean())


def near_duplicates(item: Floats, others: Floats, apart: float) -> Booleans:
    """(n,) which of the (n, d) others are near-duplicates of an item.

    The threshold is relative to the collection, so that it holds for embeddings on any scale and in a narrow cone.

    Args:
        item: (d,).
        others: (n, d).
        apart: the mean squared distance between two items of the collection.
    """
    near: npt.NDArray[np.bool_] = np.square(others - item).sum(axis=1) <= NEAR_DUPLICATE * apart
    return near
