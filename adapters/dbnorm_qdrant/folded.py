"""FoldedQdrantAdapter: `QdrantClient.query_points` of a folded copy, as if it were the collection that was copied."""

from __future__ import annotations

import math
from typing import Any

from qdrant_client import QdrantClient, models

from dbnorm_qdrant.queries import dense_query, engine_score
from dbnorm_vdb.errors import StatisticsMismatchError, UnsupportedQueryError
from dbnorm_vdb.folded import FoldedCollection, folded_queries
from dbnorm_vdb.folding import FOLDED_KEY, FoldedStatistics
from dbnorm_vdb.parameters import check_count
from dbnorm_vdb.statistics import Metric


class FoldedQdrantAdapter(FoldedCollection):
    """A copy that `QdrantAdapter.fold` made. Its searches return what exact searches of the source returned. See
    `FoldedCollection` for its arguments.

    Example:
        >>> images.fold("images-folded")  # doctest: +SKIP
        >>> FoldedQdrantAdapter(client, "images-folded").query_points(query=vector, limit=10)  # doctest: +SKIP
    """

    client: QdrantClient

    def _read_document(self) -> object | None:
        document: object = (self.client.get_collection(self.collection_name).config.metadata or {}).get(FOLDED_KEY)
        return document

    def query_points(
        self,
        query: Any = None,
        using: str | None = None,
        prefetch: models.Prefetch | list[models.Prefetch] | None = None,
        query_filter: Any = None,
        search_params: Any = None,
        limit: int = 10,
        offset: int | None = None,
        with_payload: Any = True,
        with_vectors: Any = False,
        score_threshold: float | None = None,
        **kwargs: Any,
    ) -> models.QueryResponse:
        """`QdrantClient.query_points`, normalised: scores are those of `QdrantAdapter.query_points(exact=True)`.

        Args:
            query: a vector of the source's dimension, or a `NearestQuery` of one.
            **kwargs: what else the client takes (`consistency`, `timeout`, ...), handed on.

        Returns:
            The client's response. Vectors come without the dimension that was added (cosine: at unit length).

        Raises:
            DimensionMismatchError, NonFiniteVectorError, ZeroVectorError: the query vector cannot be used.
            UnsupportedQueryError: prefetch, point ids, recommendation, ...
            NotFittedError: the collection is not a complete folded copy.
        """
        check_count(limit, what="limit")
        folded = self.statistics
        if using is not None and using != folded.vector:
            raise StatisticsMismatchError(
                f"vector {folded.vector!r} of this copy is folded, the query uses {using!r}; use the client for that"
            )
        if prefetch:
            raise UnsupportedQueryError("a query with prefetch is not folded; use the client, with folded vectors")
        vector = dense_query(
            query, folded.metric, kinds="one dense vector or a NearestQuery of one is", instead=", with folded vectors"
        )
        euclidean = folded.metric is Metric.EUCLIDEAN
        response = self.client.query_points(
            self.collection_name,
            query=folded_queries(vector[None], folded)[0].tolist(),
            using=folded.vector or None,
            query_filter=query_filter,
            search_params=search_params,
            limit=limit,
            offset=offset,
            with_payload=with_payload,
            with_vectors=with_vectors,
            score_threshold=None if euclidean else score_threshold,
            **kwargs,
        )
        points = response.points
        if euclidean:
            points = [_with_score(point, folded) for point in points]
            points = [p for p in points if score_threshold is None or p.score < score_threshold]
        if with_vectors:
            points = [_unfolded(point, folded) for point in points]
        return response.model_copy(update={"points": points})


def _with_score(point: models.ScoredPoint, folded: FoldedStatistics) -> models.ScoredPoint:
    """Euclidean: the distance of the folded vectors as the normalised one."""
    similarity = -(math.pow(point.score, 2) + folded.lowest)
    return point.model_copy(update={"score": engine_score(similarity, folded.metric)})


def _unfolded(point: models.ScoredPoint, folded: FoldedStatistics) -> models.ScoredPoint:
    """The point with its vector as it was."""
    vector: Any = point.vector
    if isinstance(vector, dict):
        vector = {n: v[: folded.dimension] if n == folded.vector else v for n, v in vector.items()}
    elif vector is not None:
        vector = vector[: folded.dimension]
    return point.model_copy(update={"vector": vector})
