"""Maximal marginal relevance (Carbonell & Goldstein, SIGIR 1998), with normalised similarities for relevance. Pure."""

from __future__ import annotations

import numpy as np

from dbnorm_vdb.banks import Vectors
from dbnorm_vdb.parameters import check_count
from dbnorm_vdb.statistics import Floats, Metric


def diversified(relevance: Floats, vectors: Vectors, metric: Metric, *, diversity: float, limit: int) -> list[int]:
    """Choose items one after the other, each for being relevant and unlike those chosen before.

    The next one is that with the largest `(1 - diversity) r(g) - diversity max_{h chosen} s(g, h)`; ties go to the
    first in the order given.

    Args:
        relevance: (n,) normalised similarities `r` to the query.
        vectors: (n, d) of the items.
        metric: how the collection compares vectors.
        diversity: 0 (relevance alone) to 1.
        limit: how many to choose at most.

    Returns:
        Positions in the order of choice.
    """
    check_count(limit, what="limit")
    if not len(relevance):
        return []
    similarities = _similarities(np.asarray(vectors, dtype=np.float64), metric)
    chosen = [int(np.argmax(relevance))]
    nearest = similarities[chosen[0]]
    while len(chosen) < min(limit, len(relevance)):
        scores = (1.0 - diversity) * relevance - diversity * nearest
        scores[chosen] = -np.inf
        chosen.append(int(np.argmax(scores)))
        nearest = np.maximum(nearest, similarities[chosen[-1]])
    return chosen


def _similarities(vectors: Floats, metric: Metric) -> Floats:
    """(n, n) similarities of items to each other; Euclidean as negative squared distances."""
    if metric is Metric.COSINE:
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        vectors = np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0)
    products: Floats = vectors @ vectors.T
    if metric is not Metric.EUCLIDEAN:
        return products
    squares = products.diagonal()
    return 2.0 * products - squares[:, None] - squares[None, :]
