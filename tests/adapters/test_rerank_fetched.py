"""Re-ranking what the user has fetched: the same as a search, in the client's own types."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest
from adapters.world import METRICS, World
from harness import Engine, Found, MilvusEngine

import dbnorm_vdb as db

N = 80


@pytest.fixture(scope="module", params=METRICS)
def fitted(quick_engine: Engine, request: pytest.FixtureRequest) -> Iterator[tuple[World, str, Any]]:
    world = World.make(request.param, n=N)
    collection = quick_engine.create(world.items, metric=request.param)
    adapter = quick_engine.adapter(collection)
    world.fit(adapter)
    yield world, collection, adapter
    adapter.drop()
    quick_engine.drop_collection(collection)


def fetched(engine: Engine, collection: str, query: Any, *, limit: int, with_payload: Any = True) -> Any:
    """By the client, in its own type."""
    if isinstance(engine, MilvusEngine):
        return engine.client().search(collection, [query.tolist()], limit=limit, output_fields=["number", "title"])
    return engine.client().query_points(collection, query.tolist(), limit=limit, with_payload=with_payload).points


def plain(engine: Engine, results: Any) -> list[Found]:
    if isinstance(engine, MilvusEngine):
        (hits,) = results
        return [Found(i, d, hit["entity"]) for i, d, hit in zip(hits.ids, hits.distances, hits, strict=True)]
    return [Found(point.id, point.score, point.payload or {}) for point in results]


def assert_same(found: list[Found], wanted: list[Found]) -> None:
    assert [hit.id for hit in found] == [hit.id for hit in wanted]
    assert [hit.score for hit in found] == pytest.approx([hit.score for hit in wanted], abs=1e-6)
    assert [dict(hit.payload) for hit in found] == [dict(hit.payload) for hit in wanted]


@pytest.mark.parametrize("method", [None, "is", "dis", "dual_dis"])
def test_it_equals_a_search_with_these_candidates(quick_engine: Engine, fitted: Any, method: str | None) -> None:
    world, collection, adapter = fitted
    for query in world.queries[:6]:
        results = fetched(quick_engine, collection, query, limit=30)
        kind = type(results)
        again = adapter.rerank(results, limit=5, method=method)
        assert type(again) is kind
        wanted = quick_engine.search(adapter, None, query, limit=5, candidates=30, method=method)
        assert_same(plain(quick_engine, again), wanted)


def test_all_are_returned_unless_limited(quick_engine: Engine, fitted: Any) -> None:
    world, collection, adapter = fitted
    again = adapter.rerank(fetched(quick_engine, collection, world.queries[0], limit=30))
    wanted = quick_engine.search(adapter, None, world.queries[0], limit=30, candidates=30)
    assert_same(plain(quick_engine, again), wanted)


def test_raw_keeps_the_order(quick_engine: Engine, fitted: Any) -> None:
    world, collection, adapter = fitted
    again = adapter.rerank(fetched(quick_engine, collection, world.queries[0], limit=30), limit=4, method="raw")
    wanted = quick_engine.search(adapter, None, world.queries[0], limit=4, method="raw")
    assert_same(plain(quick_engine, again), wanted)


def test_qdrant_points_in_any_order_and_without_payload(quick_engine: Engine, fitted: Any) -> None:
    if isinstance(quick_engine, MilvusEngine):
        pytest.skip("Qdrant's points")
    world, collection, adapter = fitted
    points = fetched(quick_engine, collection, world.queries[0], limit=30, with_payload=False)
    random.Random(0).shuffle(points)
    again = adapter.rerank(points, limit=5, method="dual_dis")
    wanted = quick_engine.search(adapter, None, world.queries[0], limit=5, candidates=30, method="dual_dis")
    assert [point.id for point in again] == [hit.id for hit in wanted]
    assert all(point.payload is None for point in again)
    assert all("dbnorm" not in (point.payload or {}) for point in points)


def test_nothing_and_bad_limits(quick_engine: Engine, fitted: Any) -> None:
    world, collection, adapter = fitted
    results = fetched(quick_engine, collection, world.queries[0], limit=3)
    for limit in (0, -1, 1.5):
        with pytest.raises(db.InvalidParameterError, match="limit"):
            adapter.rerank(results, limit=limit)
    with pytest.raises(db.UnsupportedMethodError):
        adapter.rerank(results, method="nnn")
    assert adapter.rerank([]) == []
