"""What OpenTelemetry records of searches: on each embedded engine, sync and async."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from adapters.world import World
from faces import inner_of
from harness import Engine, MilvusEngine, fixture_name
from opentelemetry import trace
from pymilvus import AnnSearchRequest, RRFRanker
from qdrant_client import AsyncQdrantClient, models
from recorded import Recorded, own, parent

from dbnorm_milvus import MilvusAdapter
from dbnorm_milvus import wrap as wrap_milvus
from dbnorm_qdrant import AsyncQdrantAdapter, QdrantAdapter
from dbnorm_qdrant import wrap as wrap_qdrant
from dbnorm_vdb import NotFittedError

N = 400
WORLD = World.make(n=N)
QUERY = WORLD.queries[0]


@pytest.fixture(scope="module", params=["qdrant-local", "milvus-lite", "qdrant-local-async", "milvus-lite-async"])
def engine(request: pytest.FixtureRequest) -> Engine:
    found: Engine = request.getfixturevalue(fixture_name(request.param))
    return found


@contextmanager
def fitted_on(engine: Engine, **options: Any) -> Iterator[str]:
    """A collection with statistics."""
    collection = engine.create(WORLD.items, **options)
    adapter = engine.adapter(collection)
    WORLD.fit(adapter)
    yield collection
    adapter.drop()
    engine.drop_collection(collection)


@pytest.fixture(scope="module")
def fitted(engine: Engine) -> Iterator[str]:
    with fitted_on(engine) as collection:
        yield collection


def place(engine: Engine, collection: str) -> dict[str, Any]:
    return {"db.system.name": engine.name.split("-")[0], "db.collection.name": collection}


def operation(engine: Engine) -> str:
    return "search" if isinstance(engine, MilvusEngine) else "query_points"


def test_a_search_is_a_span_with_its_lookups_and_its_re_ranking_below(
    engine: Engine, fitted: str, recorded: Recorded
) -> None:
    adapter = engine.adapter(fitted)
    engine.search(adapter, None, QUERY, limit=5, candidates=5, method="is")
    search = recorded.search()
    assert search.attributes == {
        **place(engine, fitted),
        "db.operation.name": operation(engine),
        "dbnorm.method": "is",
        "dbnorm.wanted": 5,
        "dbnorm.window.size": 5,
        "dbnorm.rounds": 1,
        "dbnorm.outcome": "uncertified",
    }
    assert search.parent is None
    below = [span.name for span in recorded.spans() if parent(span) == own(search)]
    assert below == ["dbnorm.lookup", "dbnorm.lookup", "dbnorm.rerank"], "statistics of the collection, then of items"
    assert len(recorded.spans()) == 4
    recorded.forget_spans()
    engine.search(adapter, None, QUERY, limit=5)
    assert [span.name for span in recorded.spans()] == ["dbnorm.lookup", "dbnorm.rerank", "dbnorm.search"], "cached"


def test_an_exact_search_tells_its_rounds_and_its_certificate(engine: Engine, fitted: str, recorded: Recorded) -> None:
    adapter = engine.adapter(fitted)
    before = recorded.outcomes(fitted)
    told = engine.explain(adapter, QUERY[None], limit=5, candidates=5, exact=True).queries[0]
    assert told.certified
    assert told.rounds > 1
    attributes = dict(recorded.search().attributes or {})
    assert attributes["dbnorm.rounds"] == told.rounds == len(recorded.spans("dbnorm.rerank"))
    assert attributes["dbnorm.window.size"] == told.candidates
    assert attributes["dbnorm.outcome"] == "certified"
    assert recorded.outcomes(fitted) - before == {"certified": 1}


def test_every_query_of_a_batch_counts(engine: Engine, recorded: Recorded) -> None:
    collection = engine.create(WORLD.items)
    adapter = engine.adapter(collection)
    WORLD.fit(adapter)
    told = batch(engine, adapter, exact=True, candidates=20, max_candidates=30, method="dual_is").queries
    certified = sum(one.certified for one in told)
    assert 0 < certified < len(told)
    assert recorded.outcomes(collection) == {"certified": certified, "uncertified": len(told) - certified}
    (windows,) = recorded.points("dbnorm.window.size", collection)
    assert dict(windows.attributes) == {**place(engine, collection), "dbnorm.method": "dual_is"}
    assert (windows.count, windows.sum) == (len(told), sum(one.candidates for one in told))
    attributes = dict(recorded.search().attributes or {})
    assert attributes["db.operation.batch.size"] == len(told)
    assert attributes["dbnorm.outcome"] == "uncertified", "of some"
    assert attributes["dbnorm.window.size"] == 30
    adapter.drop()
    engine.drop_collection(collection)


def batch(engine: Engine, adapter: Any, **options: Any) -> Any:
    """An explained search with all queries; on Qdrant for different numbers of points."""
    if isinstance(engine, MilvusEngine):
        return adapter.search_explained(WORLD.queries.tolist(), limit=5, **options)
    requests = [models.QueryRequest(query=query, limit=5 + row % 2) for row, query in enumerate(WORLD.queries.tolist())]
    return adapter.query_batch_points_explained(requests, **options)


def test_raw_results_count_as_fallbacks_or_as_asked_for(engine: Engine, recorded: Recorded) -> None:
    collection = engine.create(WORLD.items[:20])
    adapter = engine.adapter(collection)
    for _ in range(3):
        engine.search(adapter, None, QUERY, limit=5)
    assert recorded.outcomes(collection) == {"fallback": 3}
    assert {(span.attributes or {})["dbnorm.outcome"] for span in recorded.spans("dbnorm.search")} == {"fallback"}
    engine.search(adapter, None, QUERY, limit=5, method="raw")
    batch(engine, adapter)
    assert recorded.outcomes(collection) == {"fallback": 3 + len(WORLD.queries), "raw": 1}
    assert not recorded.points("dbnorm.window.size", collection)
    engine.drop_collection(collection)


def test_a_search_that_falls_back_when_its_candidates_are_there_counts_as_a_fallback(
    engine: Engine, fitted: str, recorded: Recorded
) -> None:
    def lost(*args: Any, **kwargs: Any) -> Any:
        raise OSError("gone")

    adapter = engine.adapter(fitted, cache="lazy")
    inner_of(adapter)._store.items = lost
    before = recorded.outcomes(fitted)
    engine.search(adapter, None, QUERY, limit=5, candidates=5)
    assert recorded.outcomes(fitted) - before == {"fallback": 1}
    attributes = recorded.search().attributes or {}
    assert (attributes["dbnorm.method"], attributes["dbnorm.outcome"]) == ("raw", "fallback")
    assert [(span.attributes or {}).get("error.type") for span in recorded.spans("dbnorm.lookup")][-1:] == ["OSError"]


def test_errors_are_told_by_their_class_and_not_counted(engine: Engine, recorded: Recorded) -> None:
    collection = engine.create(WORLD.items[:60])
    with pytest.raises(NotFittedError):
        engine.search(engine.adapter(collection), None, QUERY, limit=5, method="is")
    assert error_of(recorded) == "dbnorm_vdb.errors.NotFittedError"
    adapter = engine.adapter(collection)
    WORLD.fit(adapter)
    engine.search(adapter, None, QUERY, limit=5)
    engine.drop_collection(collection)
    before = recorded.outcomes(collection)
    recorded.forget_spans()
    with pytest.raises(Exception, match=collection) as raised:
        engine.search(adapter, None, QUERY, limit=5)
    kind = raised.type
    assert error_of(recorded) == ("" if kind.__module__ == "builtins" else f"{kind.__module__}.") + kind.__qualname__
    assert recorded.outcomes(collection) == before


def error_of(recorded: Recorded) -> Any:
    span = recorded.search()
    assert span.status.status_code is trace.StatusCode.ERROR
    assert (span.status.description, span.events) == (None, ())
    return (span.attributes or {})["error.type"]


def test_the_documentation_names_all_that_is_recorded(engine: Engine, fitted: str, recorded: Recorded) -> None:
    adapter = engine.adapter(fitted)
    batch(engine, adapter)
    engine.search(adapter, None, QUERY, limit=5, method="raw")
    with pytest.raises(Exception, match="limit"):
        engine.search(adapter, None, QUERY, limit=0)
    points = [p for name in ("dbnorm.queries", "dbnorm.window.size") for p in recorded.points(name, fitted)]
    names = {name for one in (*recorded.spans(), *points) for name in one.attributes or {}}
    documented = re.findall(r"`((?:db|dbnorm|error)\.[a-z_.]+)`", Path("docs/telemetry.md").read_text(encoding="utf-8"))
    assert names | {span.name for span in recorded.spans()} <= {*documented}
    assert {*documented} == names | {"dbnorm.search", "dbnorm.lookup", "dbnorm.rerank"} | {
        "dbnorm.queries",
        "dbnorm.window.size",
    }


# --- around and below, with the spans of others -------------------------------------------------------------------


def instrumented(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client whose searches have spans of its own."""
    tracer, search = trace.get_tracer("client"), client.query_points

    def own_span(*args: Any, **kwargs: Any) -> Any:
        with tracer.start_as_current_span("query"):
            return search(*args, **kwargs)

    async def own_async_span(*args: Any, **kwargs: Any) -> Any:
        with tracer.start_as_current_span("query"):
            return await search(*args, **kwargs)

    monkeypatch.setattr(client, "query_points", own_async_span if asyncio.iscoroutinefunction(search) else own_span)


def test_a_search_is_between_the_programs_span_and_the_clients(
    qdrant_local: Engine, recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    with fitted_on(qdrant_local) as collection:
        instrumented(qdrant_local.client(), monkeypatch)
        with trace.get_tracer("program").start_as_current_span("request") as request:
            qdrant_local.search(qdrant_local.adapter(collection), None, QUERY, limit=5)
        assert parent(recorded.search()) == request.get_span_context().span_id
        (query,) = recorded.spans("query")
        assert parent(query) == own(recorded.search())


async def async_client() -> AsyncQdrantClient:
    client = AsyncQdrantClient(":memory:")
    await client.create_collection(
        "images", vectors_config=models.VectorParams(size=WORLD.items.shape[1], distance=models.Distance.COSINE)
    )
    await client.upsert(
        "images", [models.PointStruct(id=row, vector=vector) for row, vector in enumerate(WORLD.items.tolist())]
    )
    await AsyncQdrantAdapter(client, "images").fit(WORLD.query_bank, method="is")
    return client


def test_searches_at_once_have_each_their_own_spans_below(recorded: Recorded, monkeypatch: pytest.MonkeyPatch) -> None:
    async def together() -> None:
        client = await async_client()
        images = AsyncQdrantAdapter(client, "images")
        await images.query_points(QUERY.tolist())
        instrumented(client, monkeypatch)
        recorded.forget_spans()
        await asyncio.gather(*(images.query_points(query, limit=3) for query in WORLD.queries.tolist()))

    asyncio.run(together())
    searches = {own(span): span for span in recorded.spans("dbnorm.search")}
    assert len(searches) == len(WORLD.queries)
    for name in ("query", "dbnorm.lookup", "dbnorm.rerank"):
        assert sorted(parent(span) or 0 for span in recorded.spans(name)) == sorted(searches), name
    assert all(span.parent is None for span in searches.values())


def test_a_cancelled_search_ends_its_spans(recorded: Recorded, monkeypatch: pytest.MonkeyPatch) -> None:
    async def cancelled() -> None:
        client = await async_client()
        reached = asyncio.Event()

        async def standing(*args: Any, **kwargs: Any) -> None:
            reached.set()
            await asyncio.Event().wait()

        monkeypatch.setattr(client, "query_points", standing)
        task = asyncio.ensure_future(AsyncQdrantAdapter(client, "images").query_points(QUERY.tolist()))
        await reached.wait()
        assert not recorded.spans("dbnorm.search")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancelled())
    assert error_of(recorded) == "asyncio.exceptions.CancelledError"


@pytest.mark.parametrize("name", ["qdrant-local", "milvus-lite"])
def test_wrapped_clients_have_spans_where_they_normalise(
    name: str, request: pytest.FixtureRequest, recorded: Recorded
) -> None:
    engine: Engine = request.getfixturevalue(fixture_name(name))
    wrap: Callable[[Any], Any] = wrap_milvus if isinstance(engine, MilvusEngine) else wrap_qdrant
    collection, other = engine.create(WORLD.items), engine.create(WORLD.items[:20])
    WORLD.fit(engine.adapter(collection))
    client = wrap(engine.client())
    recorded.forget_spans()
    engine.search(client, collection, QUERY, limit=5)
    assert (recorded.search().attributes or {})["db.collection.name"] == collection
    assert sum(recorded.outcomes(collection).values()) == 1
    recorded.forget_spans()
    engine.search(client, other, QUERY, limit=5)
    assert not recorded.spans()
    engine.adapter(collection).drop()
    engine.drop_collection(collection)
    engine.drop_collection(other)


# --- the other searches -------------------------------------------------------------------------------------------


def test_the_other_searches_of_qdrant(qdrant_local: Engine, recorded: Recorded) -> None:
    query = QUERY.tolist()
    with fitted_on(qdrant_local) as collection:
        images: QdrantAdapter = qdrant_local.adapter(collection)  # type: ignore[assignment]
        fetched = images.query_points(query, limit=30, method="raw").points
        leg = models.Prefetch(query=query, limit=20)
        fusion = models.FusionQuery(fusion=models.Fusion.RRF)
        for name, search, windows in (
            ("query_points", lambda: images.query_points(query, candidates=50, execution="server"), [50]),
            ("query_points", lambda: images.query_points(fusion, prefetch=[leg]), []),
            ("query_points", lambda: images.query_points(fusion, prefetch=[leg], exact=True), []),
            ("query_points_groups", lambda: images.query_points_groups("number", query, candidates=60), [20]),
            (
                "query_points_groups",
                lambda: images.query_points_groups("number", query, candidates=60, execution="server"),
                [60],
            ),
            ("rerank", lambda: images.rerank(fetched), [30]),
        ):
            assert told(recorded, collection, search) == (name, "uncertified", 1, sum(windows)), (name, windows)


def test_the_other_searches_of_milvus(milvus_lite: Engine, recorded: Recorded) -> None:
    collection = milvus_lite.create(WORLD.items, dynamic=False)
    images: MilvusAdapter = milvus_lite.adapter(collection)  # type: ignore[assignment]
    WORLD.fit(images)
    data = [QUERY.tolist()]
    fetched = images.search(data, limit=30, method="raw")
    assert told(recorded, collection, lambda: images.rerank(fetched)) == ("rerank", "uncertified", 1, 30)
    grouped = told(recorded, collection, lambda: images.search(data, group_by_field="number", candidates=60))
    assert grouped == ("search", "uncertified", 1, 60)
    requests = [AnnSearchRequest(data, "vector", {}, 10)] * 2
    recorded.forget_spans()
    images.hybrid_search(requests, RRFRanker(), method="is")
    *legs, whole = recorded.spans("dbnorm.search")
    assert [(span.attributes or {})["db.operation.name"] for span in (*legs, whole)] == [
        "search",
        "search",
        "hybrid_search",
    ]
    assert {parent(leg) for leg in legs} == {own(whole)}
    recorded.forget_spans()
    pages = images.search_iterator(data, batch_size=20)
    assert len(pages.next().get_res()[0]) == 20
    pages.close()
    first, page = recorded.spans("dbnorm.search")
    assert (first.attributes or {})["db.operation.name"] == (page.attributes or {})["db.operation.name"]
    below = {span.name for span in recorded.spans() if parent(span) == own(page)}
    assert below == {"dbnorm.lookup", "dbnorm.rerank"}
    images.drop()
    milvus_lite.drop_collection(collection)


def told(recorded: Recorded, collection: str, search: Callable[[], Any]) -> tuple[Any, Any, int, float]:
    """Of one search: its name and outcome, how many queries were counted, and the windows of these in all."""

    def totals() -> np.ndarray:
        windows = sum(point.sum for point in recorded.points("dbnorm.window.size", collection))
        return np.array([sum(recorded.outcomes(collection).values()), windows])

    before = totals()
    recorded.forget_spans()
    search()
    queries, windows = totals() - before
    attributes = dict(recorded.search().attributes or {})
    return attributes["db.operation.name"], attributes["dbnorm.outcome"], queries, windows
