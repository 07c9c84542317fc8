"""Candidates and their statistics -> the normalised top-k. Pure: no database, no state."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dbnorm_vdb.banks import as_array
from dbnorm_vdb.errors import InvalidVectorsError
from dbnorm_vdb.methods import Method, adjustments_of, check_supported, order_by, score
from dbnorm_vdb.parameters import check_count
from dbnorm_vdb.statistics import CollectionStatistics, Floats, ItemStatistics


@dataclass(frozen=True)
class Reranked:
    """The outcome of a re-ranking.

    Attributes:
        order: (k,) positions of the best candidates, best first.
        scores: (k,) their normalised similarities, descending.
    """

    order: npt.NDArray[np.intp]
    scores: Floats


def rerank(
    similarities: npt.ArrayLike,
    items: ItemStatistics,
    statistics: CollectionStatistics,
    *,
    limit: int | None = None,
    method: str | Method | None = None,
) -> Reranked:
    """Normalise the candidates of one query and return the best of them.

    Args:
        similarities: (c,) raw similarities in the engine's order, so the first is the query's raw top-1 (which
            decides the gates of `dis` and `dual_dis`). Larger is nearer; Euclidean as negative squared distance.
        items: the statistics of the c candidates. One without any counts as an average item.
        statistics: of the collection, same generation.
        limit: how many to return; None for all.
        method: overrides the fitted default.

    Returns:
        Positions and scores of the best `min(limit, c)`. Ties go by raw similarity, then by the order given.

    Raises:
        InvalidParameterError: `limit` below 1.
        InvalidVectorsError: the similarities are not as many as the items, or hold NaN.
        UnsupportedMethodError: the statistics cannot serve the method.
    """
    if limit is not None:
        check_count(limit, what="limit")
    values = as_array(similarities, what="similarities").astype(np.float64)
    if values.shape != (len(items),):
        raise InvalidVectorsError(f"similarities of shape {values.shape} for {len(items)} candidates")
    if np.isnan(values).any():
        raise InvalidVectorsError(f"{int(np.isnan(values).sum())} of {len(values)} similarities are NaN")
    chosen = check_supported(method if method is not None else statistics.method, statistics)
    if not len(values):
        return Reranked(np.empty(0, dtype=np.intp), values)
    gates = {name: items.activated(name)[:1] for name in statistics.banks}
    scores = score(chosen, values[None, :], adjustments_of(statistics, items), gates)[0]
    order = order_by(scores, values)[:limit]
    return Reranked(order, scores[order])
