"""Batches of queries on Qdrant: each request as by itself, in one round trip."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from adapters.world import METRICS, World
from harness import Engine
from qdrant_client import models

import dbnorm_vdb as db
from dbnorm_qdrant import QdrantAdapter

N = 120


@pytest.fixture(scope="module", params=METRICS)
def fitted(qdrant_local: Engine, request: pytest.FixtureRequest) -> Iterator[tuple[World, QdrantAdapter]]:
    world = World.make(request.param, n=N)
    name = qdrant_local.create(world.items, metric=request.param)
    adapter: Any = qdrant_local.adapter(name)
    world.fit(adapter)
    yield world, adapter
    qdrant_local.drop_collection(name)


def generated(world: World, count: int, seed: int) -> list[models.QueryRequest]:
    """Requests with all that may differ between them."""
    rng = np.random.default_rng(seed)
    below = models.Filter(must=[models.FieldCondition(key="number", range=models.Range(lt=60))])
    selectors = [None, True, False, ["number"], models.PayloadSelectorExclude(exclude=["nested"])]
    thresholds = {"cosine": 0.1, "dot": 0.05, "euclidean": 1.2}
    requests = []
    for row in range(count):
        query: Any = world.queries[row % len(world.queries)].tolist()
        query = [query, models.NearestQuery(nearest=query), int(rng.integers(N))][int(rng.integers(3))]
        requests.append(
            models.QueryRequest(
                query=query,
                limit=int(rng.choice([3, 10])),
                offset=[None, 2][int(rng.integers(2))],
                filter=[None, below][int(rng.integers(2))],
                score_threshold=[None, thresholds[world.metric]][int(rng.integers(2))],
                with_payload=selectors[int(rng.integers(len(selectors)))],
                with_vector=bool(rng.integers(2)),
            )
        )
    return requests


def alone(adapter: Any, request: models.QueryRequest, **options: Any) -> models.QueryResponse:
    arguments = {
        "query": request.query,
        "query_filter": request.filter,
        "limit": request.limit,
        "offset": request.offset,
        "with_payload": False if request.with_payload is None else request.with_payload,
        "with_vectors": request.with_vector,
        "score_threshold": request.score_threshold,
    }
    return adapter.query_points(**arguments, **options)


@pytest.mark.parametrize("method", ["is", "dis", "dual_is", "dual_dis"])
@pytest.mark.parametrize("candidates", [None, 20])
def test_each_request_is_answered_as_by_itself(
    fitted: tuple[World, QdrantAdapter], method: str, candidates: int | None
) -> None:
    world, adapter = fitted
    requests, options = generated(world, 60, seed=len(method)), {"method": method, "candidates": candidates}
    together = adapter.query_batch_points(requests, **options)
    assert together == [alone(adapter, request, **options) for request in requests]


def test_raw_answers_are_those_of_the_client(fitted: tuple[World, QdrantAdapter]) -> None:
    world, adapter = fitted
    requests = generated(world, 200, seed=0)
    own = adapter.client.query_batch_points(adapter.collection_name, requests)
    for response in own:
        response.points = [_without_our_key(point) for point in response.points]
    assert adapter.query_batch_points(requests, method="raw") == own


def _without_our_key(point: models.ScoredPoint) -> models.ScoredPoint:
    if not point.payload:
        return point
    return point.model_copy(update={"payload": {k: v for k, v in point.payload.items() if k != "dbnorm"}})


def test_exact_batches_go_on_with_what_is_not_certified(
    fitted: tuple[World, QdrantAdapter], monkeypatch: pytest.MonkeyPatch
) -> None:
    world, adapter = fitted
    requests = [models.QueryRequest(query=query.tolist(), limit=10) for query in world.queries]
    asked: list[int] = []
    batch = adapter.client.query_batch_points

    def recorded(name: str, sent: Any, **kwargs: Any) -> Any:
        asked.append(len(sent))
        return batch(name, sent, **kwargs)

    monkeypatch.setattr(adapter.client, "query_batch_points", recorded)
    told = adapter.query_batch_points_explained(requests, candidates=25, exact=True)
    assert asked[0] == len(requests)
    assert len(asked) > 1
    assert asked == sorted(asked, reverse=True)
    assert told.certified
    assert told.result == adapter.query_batch_points(requests, candidates=N + 1)
    assert [len(one.hits) for one in told.queries] == [10] * len(requests)
    for explained, response in zip(told.queries, told.result, strict=True):
        assert [(hit.id, hit.score) for hit in explained.hits] == [(p.id, p.score) for p in response.points]


def test_an_empty_batch_has_no_answers(fitted: tuple[World, QdrantAdapter]) -> None:
    assert fitted[1].query_batch_points([]) == []


def test_what_has_no_normalised_form_is_refused_in_a_batch_too(fitted: tuple[World, QdrantAdapter]) -> None:
    world, adapter = fitted
    good = models.QueryRequest(query=world.queries[0].tolist(), limit=3)
    discover = models.DiscoverQuery(discover=models.DiscoverInput(target=1, context=[]))
    for bad, error in (
        ({"query": discover}, db.UnsupportedQueryError),
        ({"prefetch": models.Prefetch(query=discover)}, db.UnsupportedQueryError),
        ({"query": [float("nan")] * 8}, db.NonFiniteVectorError),
        ({"limit": 0}, db.InvalidParameterError),
        ({"using": "other"}, db.StatisticsMismatchError),
    ):
        with pytest.raises(error):
            adapter.query_batch_points([good, good.model_copy(update=bad)])
