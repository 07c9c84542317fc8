"""What a query is, as far as normalisation is concerned, and what its scores are called."""

from __future__ import annotations

import math
from typing import Any
from uuid import UUID

import numpy as np
import numpy.typing as npt
from qdrant_client import grpc, models

from dbnorm_vdb.errors import NonFiniteVectorError, UnsupportedQueryError, ZeroVectorError
from dbnorm_vdb.parameters import length_of
from dbnorm_vdb.statistics import Metric

_BY_ID = (int, str, UUID, grpc.PointId)
_INFERRED = (models.Document, models.Image, models.InferenceObject)
_WITHOUT_VECTOR: tuple[type, ...] = (
    type(None),
    models.FusionQuery,
    models.RrfQuery,
    models.FormulaQuery,
    models.OrderByQuery,
    models.SampleQuery,
    *([models.TextQuery] if hasattr(models, "TextQuery") else []),  # newer than the oldest client we support
)

_NORMALISED = {
    "RecommendQuery": "one with strategy=average_vector is",
    "DiscoverQuery": "a search for its target is",
    "RelevanceFeedbackQuery": "a search for its target is",
}
_INSTEAD = ", or method='raw'"


def searches_vector(query: Any, using: str | None, vector: str) -> bool:
    """Whether a query, its prefetches aside, scores points by that vector.

    Args:
        query: whatever a client or a prefetch takes.
        using: what the query names: a vector, or None for the unnamed one.
        vector: the vector's name; "" for the unnamed one.
    """
    return not isinstance(query, _WITHOUT_VECTOR) and (using or "") == vector


def mmr_of(query: Any) -> models.Mmr | None:
    """How a query is to be diversified by maximal marginal relevance, if it is."""
    return query.mmr if isinstance(query, models.NearestQuery) else None


def check_similarity(query: Any, metric: Metric) -> None:
    """Refuse a query, whether or not it is to be diversified, whose scores are not similarities to one vector.

    Raises:
        UnsupportedQueryError: it is of such a kind; the message names the way out.
        NonFiniteVectorError, ZeroVectorError: its vector cannot be used.
    """
    if isinstance(query, models.NearestQuery):
        query = query.nearest
    if isinstance(query, (*_BY_ID, *_INFERRED)):
        return
    if isinstance(query, models.RecommendQuery):
        asked = query.recommend
        if asked.strategy in (None, models.RecommendStrategy.AVERAGE_VECTOR):  # the engine computes one vector
            for example in [*(asked.positive or ()), *(asked.negative or ())]:
                if not isinstance(example, (*_BY_ID, *_INFERRED)):
                    dense_query(example, Metric.DOT, kinds="one of dense vectors and point ids is", instead=_INSTEAD)
            return
    length = length_of(query)
    if length is not None and 0 < length < math.inf:
        return
    kinds = _NORMALISED.get(type(query).__name__, "one dense vector, a point id or a NearestQuery of these is")
    dense_query(query, metric, kinds=kinds, instead=_INSTEAD)


def dense_query(query: Any, metric: Metric, *, kinds: str, instead: str) -> npt.NDArray[Any]:
    """The (d,) vector of a query.

    Args:
        query: a vector, or a `NearestQuery` of one.
        metric: how the collection compares vectors.
        kinds: what would be normalised, for messages.
        instead: another way out than the client, for messages.

    Raises:
        UnsupportedQueryError: it is something else.
        NonFiniteVectorError, ZeroVectorError: the vector cannot be used.
    """
    if isinstance(query, models.NearestQuery) and query.mmr is None:
        query = query.nearest
    vector = _as_array(query)
    if vector is None or vector.ndim != 1 or vector.dtype.kind not in "fiu":
        raise UnsupportedQueryError(
            f"a query of type {type(query).__name__} is not normalised, but {kinds}; use the client{instead}"
        )
    size = float(np.add.reduce(np.abs(vector), dtype=np.float64))
    if not math.isfinite(size):
        raise NonFiniteVectorError("the query vector holds NaN or infinite values; re-embed the query")
    if metric is Metric.COSINE and not size:
        raise ZeroVectorError("the query vector is all zeros and has no direction; re-embed the query")
    return vector


def _as_array(query: Any) -> npt.NDArray[Any] | None:
    if not isinstance(query, (list, tuple, np.ndarray)):
        return None
    try:
        return np.asarray(query)
    except ValueError:  # rows of several lengths
        return None


def engine_score(similarity: float, metric: Metric) -> float:
    """Qdrant's score; a Euclidean similarity above zero becomes a negative distance, so that the order stays."""
    if metric is not Metric.EUCLIDEAN:
        return similarity
    return math.copysign(math.sqrt(abs(similarity)), -similarity)
