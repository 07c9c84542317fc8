"""A client whose searches are answered by the real Qdrant engine, embedded: what the adapters send, taken literally.

`qdrant-edge` is a shard without what a server puts above it. That is done here: points named as queries become their
vectors and are left out of the result, defaults are filled in, and the forms of the client become those of the shard.
Everything but searches for points goes to the client that the collection was copied from.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qdrant_client import QdrantClient, models
from qdrant_client.http.models import QueryResponse  # `models` has another one of that name

edge = pytest.importorskip("qdrant_edge", reason="qdrant-edge-py exists for linux on x86_64 only")

DEFAULT_LIMIT = 10
DISTANCES = {
    models.Distance.COSINE: edge.Distance.Cosine,
    models.Distance.DOT: edge.Distance.Dot,
    models.Distance.EUCLID: edge.Distance.Euclid,
}


class RealEngine:
    """A collection as it is now, in the real engine.

    Args:
        client: that has the collection.
        collection: its name.
        folder: for the shard's files.
    """

    def __init__(self, client: QdrantClient, collection: str, folder: Path) -> None:
        self._own = client
        self._collection = collection
        params = client.get_collection(collection).config.params
        dense: Any = params.vectors if isinstance(params.vectors, dict) else {"": params.vectors}
        vectors = {n: edge.EdgeVectorParams(size=v.size, distance=DISTANCES[v.distance]) for n, v in dense.items()}
        sparse = {name: edge.EdgeSparseVectorParams() for name in params.sparse_vectors or {}}
        config = edge.EdgeConfig(vectors=vectors.get("") or vectors, sparse_vectors=sparse or None)
        self.shard = edge.EdgeShard.create(str(folder), config)
        records, _ = client.scroll(collection, limit=100_000, with_payload=True, with_vectors=True)
        points = [edge.Point(record.id, _vectors(record.vector), record.payload) for record in records]
        self.shard.update(edge.UpdateOperation.upsert_points(points))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._own, name)

    def close(self) -> None:
        self.shard.close()

    def query_batch_points(self, collection: str, requests: Sequence[Any], **kwargs: Any) -> list[Any]:
        return [
            self.query_points(
                collection,
                query=one.query,
                using=one.using,
                prefetch=one.prefetch,
                query_filter=one.filter,
                limit=DEFAULT_LIMIT if one.limit is None else one.limit,
                offset=one.offset,
                with_payload=one.with_payload,
                with_vectors=one.with_vector,
                score_threshold=one.score_threshold,
            )
            for one in requests
        ]

    def query_points(
        self,
        collection_name: str,
        query: Any = None,
        using: str | None = None,
        prefetch: Any = None,
        query_filter: Any = None,
        search_params: Any = None,
        limit: int = DEFAULT_LIMIT,
        offset: int | None = None,
        with_payload: Any = True,
        with_vectors: Any = False,
        score_threshold: float | None = None,
        **kwargs: Any,
    ) -> QueryResponse:
        assert collection_name == self._collection
        scoring, conditions = self._scoring(query, using, query_filter, limit)
        found = self.shard.query(
            edge.QueryRequest(
                limit=limit,
                offset=offset,
                query=scoring,
                prefetches=self._prefetches(prefetch),
                filter=conditions,
                score_threshold=score_threshold,
                with_payload=True if isinstance(with_payload, models.PayloadSelectorExclude) else with_payload or False,
                with_vector=with_vectors or False,
            )
        )
        return QueryResponse(points=[_point(hit, with_payload) for hit in found])

    def _prefetches(self, prefetch: Any) -> list[Any]:
        legs = prefetch if isinstance(prefetch, list) else [prefetch] if prefetch else []
        made = []
        for leg in legs:
            limit = DEFAULT_LIMIT if leg.limit is None else leg.limit
            scoring, conditions = self._scoring(leg.query, leg.using, leg.filter, limit)
            made.append(
                edge.Prefetch(
                    limit=limit,
                    query=scoring,
                    prefetches=self._prefetches(leg.prefetch),
                    filter=conditions,
                    score_threshold=leg.score_threshold,
                )
            )
        return made

    def _scoring(self, query: Any, using: str | None, conditions: Any, limit: int) -> tuple[Any, Any]:
        """The query as the shard takes it, and its filter."""
        filters = [] if conditions is None else [_filter(conditions)]
        mmr = query.mmr if isinstance(query, models.NearestQuery) else None
        query = query.nearest if isinstance(query, models.NearestQuery) else query
        named: list[Any] = []
        if isinstance(query, models.RecommendQuery):
            asked = query.recommend
            named = [one for one in [*asked.positive, *(asked.negative or [])] if isinstance(one, (int, str))]
            query = np.mean([self._vector(one, using) for one in asked.positive], axis=0)
            if asked.negative:
                query = 2 * query - np.mean([self._vector(one, using) for one in asked.negative], axis=0)
        elif isinstance(query, (int, str)):
            named, query = [query], self._vector(query, using)
        if named:
            filters.append(edge.Filter(must_not=[edge.HasIdCondition({*named})]))
        return _query(query, using, mmr, limit), edge.Filter(must=filters) if filters else None

    def _vector(self, example: Any, using: str | None) -> Any:
        if not isinstance(example, (int, str)):
            return example
        (record,) = self._own.retrieve(self._collection, [example], with_vectors=True)
        return record.vector[using] if using else record.vector


def _query(query: Any, using: str | None, mmr: models.Mmr | None, limit: int) -> Any:
    if mmr is not None:
        diversity = 0.5 if mmr.diversity is None else mmr.diversity
        pool = limit if mmr.candidates_limit is None else mmr.candidates_limit
        return edge.Mmr(query, 1.0 - diversity, pool, using)
    if isinstance(query, models.SparseVector):
        return edge.Query.Nearest(edge.SparseVector(query.indices, query.values), using)
    if isinstance(query, models.RrfQuery):
        return edge.Fusion.Rrf(k=2 if query.rrf.k is None else query.rrf.k, weights=query.rrf.weights)
    if isinstance(query, models.FusionQuery):
        return edge.Fusion.Rrf(k=2) if query.fusion == models.Fusion.RRF else edge.Fusion.Dbsf()
    if isinstance(query, models.FormulaQuery):
        return edge.Formula(_expression(query.formula), defaults=query.defaults)
    return None if query is None else edge.Query.Nearest([float(value) for value in query], using)


def _filter(conditions: models.Filter) -> Any:
    def several(ones: Any) -> list[Any] | None:
        return None if ones is None else [_condition(one) for one in (ones if isinstance(ones, list) else [ones])]

    return edge.Filter(
        must=several(conditions.must), should=several(conditions.should), must_not=several(conditions.must_not)
    )


def _condition(condition: Any) -> Any:
    if isinstance(condition, models.Filter):
        return _filter(condition)
    assert isinstance(condition, models.FieldCondition)
    bounds = condition.range
    assert isinstance(bounds, models.Range)
    return edge.FieldCondition(
        condition.key, range=edge.RangeFloat(gte=bounds.gte, gt=bounds.gt, lte=bounds.lte, lt=bounds.lt)
    )


def _expression(expression: Any) -> Any:
    """The client's expression as the shard's."""
    made = edge.Expression
    if isinstance(expression, str):
        return made.Variable(expression)
    if isinstance(expression, (int, float)):
        return made.Constant(float(expression))
    if isinstance(expression, models.DivExpression):
        parts = expression.div
        return made.Div(_expression(parts.left), _expression(parts.right), parts.by_zero_default)
    (value,) = (value for _, value in expression)
    kind = type(expression).__name__.removesuffix("Expression")
    parts = [_expression(one) for one in value] if isinstance(value, list) else _expression(value)
    return getattr(made, kind)(parts)


def _vectors(vector: Any) -> Any:
    if not isinstance(vector, dict):
        return vector
    return {
        name: edge.SparseVector(one.indices, one.values) if isinstance(one, models.SparseVector) else one
        for name, one in vector.items()
    }


def _point(hit: Any, selector: Any) -> models.ScoredPoint:
    payload = json.loads(str(hit.payload)) if isinstance(hit.payload, str) else hit.payload
    if isinstance(selector, models.PayloadSelectorExclude):
        payload = {key: value for key, value in payload.items() if key not in selector.exclude}
    item = hit.id if isinstance(hit.id, int) else str(hit.id)
    return models.ScoredPoint(id=item, version=0, score=hit.score, payload=payload, vector=hit.vector)
