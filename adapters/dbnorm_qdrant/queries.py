"""What a query is, as far as normalisation is concerned, and what its scores are called."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from qdrant_client import models

from dbnorm_vdb.errors import NonFiniteVectorError, UnsupportedQueryError, ZeroVectorError
from dbnorm_vdb.statistics import Metric


def dense_query(query: Any, metric: Metric, *, kinds: str, instead: str) -> npt.NDArray[Any]:
    """The (d,) vector of a query.

    Args:
        query: a vector, or a `NearestQuery` of one.
        metric: how the collection compares vectors.
        kinds: what would be accepted, for messages.
        instead: another way out than the client, for messages.

    Raises:
        UnsupportedQueryError: it is something else.
        NonFiniteVectorError, ZeroVectorError: the vector cannot be used.
    """
    if isinstance(query, models.NearestQuery) and query.mmr is None:
        query = query.nearest
    vector = np.asarray(query) if isinstance(query, (list, tuple, np.ndarray)) else None
    if vector is None or vector.ndim != 1 or vector.dtype.kind not in "fiu":
        raise UnsupportedQueryError(
            f"a {type(query).__name__} query is not normalised, only {kinds}; use the client{instead}"
        )
    size = float(np.add.reduce(np.abs(vector), dtype=np.float64))
    if not math.isfinite(size):
        raise NonFiniteVectorError("the query vector holds NaN or infinite values; re-embed the query")
    if metric is Metric.COSINE and not size:
        raise ZeroVectorError("the query vector is all zeros and has no direction; re-embed the query")
    return vector


def engine_score(similarity: float, metric: Metric) -> float:
    """Qdrant's score; a Euclidean similarity above zero becomes a negative distance, so that the order stays."""
    if metric is not Metric.EUCLIDEAN:
        return similarity
    return math.copysign(math.sqrt(abs(similarity)), -similarity)
