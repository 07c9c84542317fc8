"""QdrantAdapter: `QdrantClient.query_points` of one collection, normalised."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import numpy.typing as npt
from qdrant_client import QdrantClient, grpc, models

from dbnorm_qdrant.payload import (
    as_structs,
    generation_key,
    item_payloads,
    item_statistics,
    rest_selector,
    vector_of,
    with_our_key,
    without_our_key,
)
from dbnorm_qdrant.store import QdrantStore
from dbnorm_vdb.banks import check_vectors, dense_vectors
from dbnorm_vdb.collection import NormalizedCollection
from dbnorm_vdb.errors import (
    InvalidTargetError,
    NonFiniteVectorError,
    StatisticsMismatchError,
    UnsupportedQueryError,
    ZeroVectorError,
)
from dbnorm_vdb.methods import Method
from dbnorm_vdb.reranking import rerank
from dbnorm_vdb.serving import DEFAULT_STATISTICS_TTL, SearchPlan
from dbnorm_vdb.statistics import Metric
from dbnorm_vdb.store import KEY, Hit
from dbnorm_vdb.targets import Target

_BATCH = 100
_BY_ID = (int, str, UUID, grpc.PointId)
_INFERRED = (models.Document, models.Image, models.InferenceObject)


class QdrantAdapter(NormalizedCollection):
    """A Qdrant collection whose searches are normalised. Nothing is written before `fit`.

    Args:
        client: the user's own `QdrantClient`; its life is the user's business.
        collection_name: the collection.
        vector_name: the named vector to normalise; may be left out when there is one.
        on_missing: see `NormalizedCollection`.
        statistics_ttl: see `NormalizedCollection`.

    Example:
        >>> images = QdrantAdapter(client, "images")  # doctest: +SKIP
        >>> images.fit(query_bank=captions, gallery_bank=5000)  # doctest: +SKIP
        >>> images.query_points(query=vector, limit=10).points  # doctest: +SKIP
    """

    def __init__(
        self,
        client: QdrantClient,
        collection_name: str,
        vector_name: str | None = None,
        *,
        on_missing: str = "raw",
        statistics_ttl: float = DEFAULT_STATISTICS_TTL,
    ) -> None:
        self.client = client
        super().__init__(
            QdrantStore(client, collection_name, vector_name), on_missing=on_missing, statistics_ttl=statistics_ttl
        )

    @classmethod
    def from_target(cls, target: Target) -> QdrantAdapter:
        """The adapter of a command-line target; the API key comes from the environment, `QDRANT_API_KEY`.

        Raises:
            InvalidTargetError: there is no local storage at the path.
        """
        vector = target.options.get("vector")
        if target.server:
            client = QdrantClient(
                url=target.server,
                prefix=target.path.strip("/") or None,
                api_key=os.environ.get("QDRANT_API_KEY"),
                timeout=60,
            )
        elif (Path(target.path) / "meta.json").is_file():
            client = QdrantClient(path=target.path)
        else:
            raise InvalidTargetError(f"there is no local Qdrant storage at {target.path!r}")
        return cls(client, target.collection, vector)

    @classmethod
    def embedded(
        cls, directory: str, vectors: npt.ArrayLike, payloads: Sequence[Mapping[str, Any]], *, name: str = "items"
    ) -> QdrantAdapter:
        """A new in-memory collection of (n, d) cosine vectors, ids 0 to n - 1: for demonstrations.

        `directory` is not used: Qdrant's local mode is quick in memory only.
        """
        rows = check_vectors(vectors, what="vectors").tolist()
        client = QdrantClient(":memory:")
        client.create_collection(
            name, vectors_config=models.VectorParams(size=len(rows[0]), distance=models.Distance.COSINE)
        )
        points = zip(rows, payloads, strict=True)
        client.upsert(
            name,
            [models.PointStruct(id=row, vector=vector, payload=dict(p)) for row, (vector, p) in enumerate(points)],
        )
        return cls(client, name)

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
        with_vectors: bool | list[str] = False,
        score_threshold: float | None = None,
        *,
        candidates: int | None = None,
        method: str | Method | None = None,
        **kwargs: Any,
    ) -> models.QueryResponse:
        """`QdrantClient.query_points` of this collection, with the same arguments and result, normalised.

        `offset`, `limit` and `score_threshold` act on the normalised result; scores are on the engine's scale (for
        Euclid, a distance; below zero where an item ranks better than an identical average one would). Points
        without statistics count as average points.

        Args:
            query: a vector, a point id or a `NearestQuery`; other kinds have no normalised form.
            candidates: how many points to fetch and re-rank; default `max(10 * (offset + limit), 100)`.
            method: instead of the fitted default: `raw`, `is`, `dis`, `dual_is`, `dual_dis`, `nnn`, `sinkhorn`, as far
                as fitted.
            **kwargs: what else the client takes (`consistency`, `timeout`, ...), handed on.

        Raises:
            InvalidParameterError, NonFiniteVectorError, ZeroVectorError: bad `limit`, `candidates` or query vector.
            UnsupportedQueryError: prefetch, fusion, recommendation, ...: use the client, or `method="raw"`.
            NotFittedError, UnsupportedMethodError: `method` asks for what the statistics cannot serve.
        """
        plan = self._plan(limit=limit, offset=offset or 0, candidates=candidates, method=method)
        selector = rest_selector(with_payload)
        arguments: dict[str, Any] = {
            "query": query,
            "using": self.vector_name or None if using is None else using,
            "prefetch": prefetch,
            "query_filter": query_filter,
            "search_params": search_params,
            "with_vectors": with_vectors,
            **kwargs,
        }
        if plan.statistics is None:
            response = self.client.query_points(
                self.collection_name,
                limit=limit,
                offset=offset,
                with_payload=with_payload,
                score_threshold=score_threshold,
                **arguments,
            )
            return response.model_copy(update={"points": [_clean(point, selector) for point in response.points]})
        self._check_query(query, using, prefetch, plan)
        response = self.client.query_points(
            self.collection_name, limit=plan.window, with_payload=with_our_key(selector), **arguments
        )
        points = self._rerank(response.points, plan, (offset or 0) + limit, selector)
        if score_threshold is not None:
            points = [point for point in points if self._passes(point.score, score_threshold)]
        return response.model_copy(update={"points": points[offset or 0 :]})

    def upsert(
        self,
        points: models.Batch | Sequence[models.PointStruct | grpc.PointStruct],
        wait: bool = True,
        **kwargs: Any,
    ) -> models.UpdateResult:
        """`QdrantClient.upsert` to this collection; the points get their statistics from the stored banks with it.

        One request writes both. Points without the vector, and those that the server embeds, get none before the
        next `refresh`; until then the others are in no activation set.
        """
        return self.client.upsert(self.collection_name, self._with_statistics(points), wait=wait, **kwargs)

    def _with_statistics(self, points: Any) -> Any:
        """The points with our key in their payload, as far as statistics can be computed for them."""
        batch = points if isinstance(points, models.Batch) else None
        if batch is None:
            points = points if isinstance(points, Sequence) else list(points)
            if not all(isinstance(point, (models.PointStruct, grpc.PointStruct)) for point in points):
                return points  # the client says what is wrong with them
        structs = as_structs(points)
        info = self._store.describe()
        there, matrix = dense_vectors([vector_of(point, info.name) for point in structs], info.dimension)
        computed = self._new_items(matrix) if there else None
        if computed is None:
            return points
        statistics, items = computed
        for row, ours in zip(there, item_payloads(items), strict=True):
            payload = {**(structs[row].payload or {}), KEY: {generation_key(statistics.generation): ours}}
            if ours:
                structs[row] = structs[row].model_copy(update={"payload": payload})
        if batch is not None:
            return batch.model_copy(update={"payloads": [point.payload or {} for point in structs]})
        return structs

    def nearest(
        self,
        queries: npt.ArrayLike,
        *,
        limit: int = 10,
        candidates: int | None = None,
        method: str | Method | None = None,
        with_payload: bool = True,
    ) -> list[list[Hit]]:
        vectors = check_vectors(queries, what="queries", dimension=self._store.describe().dimension)
        plan = self._plan(limit=limit, offset=0, candidates=candidates, method=method)
        found: list[list[Hit]] = []
        for start in range(0, len(vectors), _BATCH):
            requests = [
                models.QueryRequest(
                    query=vector,
                    using=self.vector_name or None,
                    limit=plan.window,
                    with_payload=with_our_key(with_payload),
                )
                for vector in vectors[start : start + _BATCH].tolist()
            ]
            for response in self.client.query_batch_points(self.collection_name, requests):
                points = (
                    self._rerank(response.points, plan, limit, with_payload)
                    if plan.statistics
                    else [_clean(point, with_payload) for point in response.points[:limit]]
                )
                found.append([Hit(point.id, point.score, point.payload or {}) for point in points])
        return found

    def _rerank(
        self, points: Sequence[models.ScoredPoint], plan: SearchPlan, limit: int, selector: Any
    ) -> list[models.ScoredPoint]:
        assert plan.statistics is not None
        payloads = [point.payload for point in points]
        statistics = plan.statistics
        items, outdated = item_statistics(payloads, statistics.generation)
        if outdated and (newer := self._newer_statistics(statistics)) is not None:
            statistics = newer
            items, _ = item_statistics(payloads, statistics.generation)
        metric = self._store.describe().metric
        similarities = [_to_similarity(point.score, metric) for point in points]
        best = rerank(similarities, items, statistics, limit=limit, method=plan.method)
        return [
            _clean(points[row], selector, _to_engine(score, metric))
            for row, score in zip(best.order.tolist(), best.scores.tolist(), strict=True)
        ]

    def _passes(self, score: float, threshold: float) -> bool:
        return score <= threshold if self._store.describe().metric is Metric.EUCLIDEAN else score >= threshold

    def _check_query(self, query: Any, using: str | None, prefetch: Any, plan: SearchPlan) -> None:
        """Refuse what normalisation has no meaning for; the rest of the checking is the client's."""
        if using is not None and using != self.vector_name:
            raise StatisticsMismatchError(
                f"this adapter normalises vector {self.vector_name!r}, the query uses {using!r};"
                f" make an adapter with vector_name={using!r}, or search with method='raw'"
            )
        if prefetch:
            raise UnsupportedQueryError("a query with prefetch is not normalised; use the client, or method='raw'")
        if isinstance(query, models.NearestQuery) and query.mmr is None:
            query = query.nearest
        if isinstance(query, (*_BY_ID, *_INFERRED)):
            return
        vector = np.asarray(query) if isinstance(query, (list, tuple, np.ndarray)) else None
        if vector is None or vector.ndim != 1 or vector.dtype.kind not in "fiu":
            raise UnsupportedQueryError(
                f"a {type(query).__name__} query is not normalised, only one dense vector, a point id or a"
                " NearestQuery of these is; use the client, or method='raw'"
            )
        if not np.isfinite(vector).all():
            raise NonFiniteVectorError("the query vector holds NaN or infinite values; re-embed the query")
        if self._store.describe().metric is Metric.COSINE and not vector.any():
            raise ZeroVectorError("the query vector is all zeros and has no direction; re-embed the query")


def _clean(point: models.ScoredPoint, selector: Any, score: float | None = None) -> models.ScoredPoint:
    update: dict[str, Any] = {"payload": without_our_key(point.payload, selector)}
    if score is not None:
        update["score"] = score
    return point.model_copy(update=update)


def _to_similarity(score: float, metric: Metric) -> float:
    return -score * score if metric is Metric.EUCLIDEAN else score


def _to_engine(similarity: float, metric: Metric) -> float:
    """Qdrant's score; a Euclidean similarity above zero becomes a negative distance, so that the order stays."""
    if metric is not Metric.EUCLIDEAN:
        return similarity
    return math.copysign(math.sqrt(abs(similarity)), -similarity)
