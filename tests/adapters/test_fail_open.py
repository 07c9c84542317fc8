"""Whatever happens to the statistics, a search answers in time: normalised if it can, else raw, told and counted."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from adapters.world import World
from faces import inner_of
from harness import FACES, Engine, MilvusEngine, QdrantEngine, fixture_name
from pymilvus import AnnSearchRequest, WeightedRanker
from qdrant_client import models

import dbnorm_milvus
import dbnorm_qdrant
import dbnorm_vdb as db
from dbnorm_vdb import NotFittedError, StatisticsFormatError, StatisticsTimeoutError
from dbnorm_vdb.statistics import ItemStatistics
from dbnorm_vdb.wrapping import WrappedClient

WORLD = World.make(n=60)
QUERY = WORLD.queries[0]
RRF = models.FusionQuery(fusion=models.Fusion.RRF)


class LostError(Exception):
    """An error as a client might raise it."""


@pytest.fixture(scope="module", params=FACES)
def engine(request: pytest.FixtureRequest) -> Engine:
    """Sync and async adapters alike."""
    engine: Engine = request.getfixturevalue(fixture_name(request.param))
    return engine


@pytest.fixture(scope="module")
def collection(engine: Engine) -> Iterator[str]:
    name = engine.create(WORLD.items)
    adapter = engine.adapter(name)
    WORLD.fit(adapter)
    yield name
    adapter.drop()
    engine.drop_collection(name)


@pytest.fixture
def never() -> Iterator[Callable[..., Any]]:
    """A function that does not answer before the test is over."""
    over = threading.Event()

    def answer(*args: Any, **kwargs: Any) -> Any:
        over.wait(60)
        raise LostError("too late for anybody")

    yield answer
    over.set()


def lost(*args: Any, **kwargs: Any) -> Any:
    raise LostError("the connection is gone")


def ids_of(engine: Engine, adapter: Any, **options: Any) -> list[Any]:
    return [hit.id for hit in engine.search(adapter, None, QUERY, limit=8, **options)]


def pairs(found: list[Any]) -> dict[Any, float]:
    """Ids, in their order, and scores."""
    return {hit.id: hit.score for hit in found}


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "dbnorm_vdb"]


@pytest.fixture
def raw(engine: Engine, collection: str) -> list[Any]:
    return [hit.id for hit in engine.search(engine.client(), collection, QUERY, limit=8)]


@pytest.fixture
def normalised(engine: Engine, collection: str, raw: list[Any]) -> list[Any]:
    ids = ids_of(engine, engine.adapter(collection))
    assert ids != raw
    return ids


# --- the collection-level statistics ------------------------------------------------------------------------------


def test_unreadable_statistics(
    engine: Engine, collection: str, raw: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    adapter, strict = engine.adapter(collection), engine.adapter(collection, on_missing="error")
    for each in (adapter, strict):
        inner_of(each)._store.read_documents = lambda: {"dbnorm": '{"format_version": 99}'}
    for _ in range(3):
        assert ids_of(engine, adapter) == raw
    assert len(told(caplog)) == 1
    assert "format version 99" in told(caplog)[0]
    assert (adapter.fallback_count, adapter.fallback_reasons) == (3, {"unreadable": 3})
    for each, options in ((strict, {}), (adapter, {"method": "is"})):
        with pytest.raises(StatisticsFormatError, match="format version 99"):
            ids_of(engine, each, **options)


def test_statistics_that_cannot_be_read(
    engine: Engine, collection: str, raw: list[Any], normalised: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    adapter, strict = engine.adapter(collection), engine.adapter(collection, on_missing="error")
    inner = inner_of(adapter)
    own = inner._store.read_documents
    inner._store.read_documents = inner_of(strict)._store.read_documents = lost
    for _ in range(2):
        assert ids_of(engine, adapter) == raw
    assert adapter.fallback_reasons == {"failed": 2}
    assert [("LostError: the connection is gone" in line) for line in told(caplog)] == [True]
    for each, options in ((strict, {}), (adapter, {"method": "is"})):
        with pytest.raises(LostError):
            ids_of(engine, each, **options)
    inner._store.read_documents = own
    assert ids_of(engine, adapter, method="dual_is") == normalised  # who insists does not wait
    assert ids_of(engine, adapter) == normalised


def test_statistics_once_read_serve_on_when_they_cannot_be_read_again(
    engine: Engine, collection: str, normalised: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    adapter = engine.adapter(collection, statistics_ttl=0)
    assert ids_of(engine, adapter) == normalised
    inner_of(adapter)._store.read_documents = lost
    for _ in range(3):
        assert ids_of(engine, adapter) == normalised
    assert adapter.fallback_count == 0
    assert len(told(caplog)) == 1
    assert "those read before serve on: LostError" in told(caplog)[0]


def test_statistics_once_read_do_not_outlive_a_drop(engine: Engine) -> None:
    collection = engine.create(WORLD.items)
    other, adapter = engine.adapter(collection), engine.adapter(collection, statistics_ttl=0)
    WORLD.fit(other)
    assert ids_of(engine, adapter)
    other.drop()
    own = [hit.id for hit in engine.search(engine.client(), collection, QUERY, limit=8)]
    assert ids_of(engine, adapter) == own
    assert adapter.fallback_reasons == {"absent": 1}
    engine.drop_collection(collection)


def test_statistics_that_are_late(
    engine: Engine, collection: str, raw: list[Any], never: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """The search does not wait for them longer than it has time, and the next one not at all."""
    adapter, strict = engine.adapter(collection), engine.adapter(collection, on_missing="error")
    inner_of(adapter)._store.read_documents = inner_of(strict)._store.read_documents = never
    for _ in range(3):
        assert ids_of(engine, adapter, timeout=3) == raw
    assert ids_of(engine, adapter) == raw
    assert adapter.fallback_reasons == {"late": 4}
    assert len(told(caplog)) == 1
    assert "within its timeout of 3 s" in told(caplog)[0]
    with pytest.raises(StatisticsTimeoutError, match="raise the timeout, or search with method='raw'"):
        ids_of(engine, strict, timeout=3)
    with pytest.raises(TimeoutError):
        ids_of(engine, adapter, timeout=3, method="is")


def test_statistics_that_were_late_are_used_when_they_have_come(
    engine: Engine, collection: str, raw: list[Any], normalised: list[Any]
) -> None:
    adapter = engine.adapter(collection)
    inner = inner_of(adapter)
    own, may_answer, answered = inner._store.read_documents, threading.Event(), threading.Event()

    def slow() -> Any:
        may_answer.wait(60)
        documents = own()
        answered.set()
        return documents

    inner._store.read_documents = slow
    assert ids_of(engine, adapter, timeout=1) == raw
    may_answer.set()
    assert answered.wait(60)
    inner._store.read_documents = lost  # they are not read once more
    while inner._current._known.statistics is None:
        pass
    assert ids_of(engine, adapter, timeout=1) == normalised


def test_a_collection_that_is_not_described_in_time(
    engine: Engine, collection: str, raw: list[Any], never: Any
) -> None:
    adapter = engine.adapter(collection)
    inner = inner_of(adapter)
    own, inner._store._describe = inner._store._describe, never
    assert ids_of(engine, adapter, timeout=1) == raw
    assert ids_of(engine, adapter, timeout=1, method="raw") == raw
    assert adapter.fallback_reasons == {"late": 1}
    with pytest.raises(StatisticsTimeoutError):
        ids_of(engine, adapter, timeout=1, method="is")
    inner._store._describe = own


def test_a_collection_that_cannot_be_described(engine: Engine, collection: str, raw: list[Any], never: Any) -> None:
    adapter = engine.adapter(collection)
    inner = inner_of(adapter)
    own, inner._store._describe = inner._store._describe, lost
    assert ids_of(engine, adapter) == ids_of(engine, adapter, method="raw") == raw
    assert adapter.fallback_reasons == {"failed": 1}  # who asks for raw results does not fall back
    with pytest.raises(LostError):
        ids_of(engine, adapter, method="is")
    inner._store._describe = own
    assert ids_of(engine, adapter) != raw
    adapter = engine.adapter(collection)
    inner_of(adapter)._store._describe = never
    assert ids_of(engine, adapter, timeout=1, method="raw") == raw


def test_what_the_client_says_of_a_collection_that_is_not_there(engine: Engine) -> None:
    with pytest.raises(Exception) as own:  # noqa: PT011 - whatever it is
        engine.search(engine.client(), "nowhere", QUERY, limit=8)
    with pytest.raises(type(own.value)):
        ids_of(engine, engine.adapter("nowhere"), timeout=5)


# --- the statistics of the items ----------------------------------------------------------------------------------


def test_statistics_of_items_that_cannot_be_read(
    engine: Engine, collection: str, raw: list[Any], normalised: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    adapter = engine.adapter(collection, cache="lazy")
    strict = engine.adapter(collection, cache="lazy", on_missing="error")
    inner = inner_of(adapter)
    items = inner._store.items
    inner._store.items = inner_of(strict)._store.items = lost
    for _ in range(2):
        own = engine.search(engine.client(), collection, QUERY, limit=8)
        assert pairs(engine.search(adapter, None, QUERY, limit=8)) == pairs(own)
    assert adapter.fallback_reasons == {"failed": 2}
    assert len(told(caplog)) == 1
    for each, options in ((strict, {}), (adapter, {"method": "dual_is"})):
        with pytest.raises(LostError):
            ids_of(engine, each, **options)
    inner._store.items = items
    assert ids_of(engine, adapter) == normalised


def test_statistics_of_items_that_are_late(engine: Engine, collection: str, raw: list[Any], never: Any) -> None:
    adapter = engine.adapter(collection, cache="none" if "milvus" in engine.name else "lazy")
    assert ids_of(engine, adapter, method="raw") == raw
    inner_of(adapter)._store.items = never
    assert ids_of(engine, adapter, timeout=1) == raw
    assert adapter.fallback_reasons == {"late": 1}
    with pytest.raises(StatisticsTimeoutError):
        ids_of(engine, adapter, timeout=1, method="dual_is")


def test_filters_offsets_and_thresholds_hold_for_a_search_that_falls_back(engine: Engine, collection: str) -> None:
    adapter = engine.adapter(collection, cache="lazy")
    inner_of(adapter)._store.items = lost
    own = engine.search(engine.client(), collection, QUERY, limit=5, below=20, offset=3)
    assert len(own) == 5
    assert pairs(engine.search(adapter, None, QUERY, limit=5, below=20, offset=3)) == pairs(own)
    assert adapter.fallback_count == 1


def test_a_search_that_falls_back_says_so_when_asked(engine: Engine, collection: str, raw: list[Any]) -> None:
    adapter = engine.adapter(collection, cache="lazy")
    inner_of(adapter)._store.items = lost
    explained = engine.explain(adapter, QUERY[None], limit=8)
    assert explained.queries[0].method == "raw"
    assert [hit.id for hit in explained.queries[0].hits] == raw


def test_candidates_none_of_which_has_statistics(engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    """Their result is raw, since all count as average items: that is told."""
    collection = engine.create(WORLD.items)
    adapter, strict = engine.adapter(collection), engine.adapter(collection, on_missing="error")
    WORLD.fit(adapter)
    new = [{"number": -1, "title": "new"} for _ in range(3)]
    engine.insert(collection, [100, 101, 102], WORLD.items[:3], new)
    own = engine.search(engine.client(), collection, QUERY, limit=8, below=0)
    found = engine.search(adapter, None, QUERY, limit=8, below=0)
    assert [hit.id for hit in found] == [hit.id for hit in own]
    assert adapter.fallback_reasons == {"uncovered": 1}
    assert "none of the 3 candidates has statistics of the active fit; call refresh()" in told(caplog)[-1]
    for each, options in ((strict, {}), (adapter, {"method": "dual_is"})):
        with pytest.raises(NotFittedError, match="none of the 3 candidates"):
            engine.search(each, None, QUERY, limit=8, below=0, **options)
    ids_of(engine, adapter)
    assert adapter.fallback_count == 1
    adapter.refresh()
    engine.search(adapter, None, QUERY, limit=8, below=0)
    assert adapter.fallback_count == 1
    adapter.drop()
    engine.drop_collection(collection)


def test_a_search_without_statistics_of_its_candidates_says_so_when_asked(engine: Engine) -> None:
    collection = engine.create(WORLD.items)
    adapter = engine.adapter(collection, cache="lazy")
    WORLD.fit(adapter)
    inner_of(adapter)._store.items = lambda *_, **__: ([], ItemStatistics.unknown(0))
    explained = engine.explain(adapter, QUERY[None], limit=8)
    assert explained.queries[0].method == "raw"
    assert adapter.fallback_reasons == {"uncovered": 1}
    adapter.drop()
    engine.drop_collection(collection)


def test_an_iterator_without_statistics_of_its_rows_says_so(milvus_lite: MilvusEngine) -> None:
    collection = milvus_lite.create(WORLD.items)
    adapter: Any = milvus_lite.adapter(collection, cache="lazy")
    WORLD.fit(adapter)
    adapter._store.items = lambda *_, **__: ([], ItemStatistics.unknown(0))
    raw = milvus_lite.search(milvus_lite.client(), collection, QUERY, limit=8)
    pages = adapter.search_iterator([QUERY.tolist()], batch_size=4, candidates=8)
    assert [hit.id for page in (pages.next(), pages.next()) for hit in page] == [hit.id for hit in raw]
    assert adapter.fallback_reasons == {"uncovered": 1}
    with pytest.raises(NotFittedError, match="none of the 8 candidates"):
        adapter.search_iterator([QUERY.tolist()], batch_size=4, candidates=8, method="dual_is").next()
    adapter.drop()
    milvus_lite.drop_collection(collection)


def test_an_iterator_is_raw_where_the_statistics_cannot_be_read_anew(milvus_lite: MilvusEngine) -> None:
    collection = milvus_lite.create(WORLD.items)
    adapter: Any = milvus_lite.adapter(collection)
    WORLD.fit(adapter)
    raw = milvus_lite.search(milvus_lite.client(), collection, QUERY, limit=8)
    own, adapter._store.read_documents = adapter._store.read_documents, lost
    pages = adapter.search_iterator([QUERY.tolist()], batch_size=8)
    assert [hit.id for hit in pages.next()] == [hit.id for hit in raw]
    assert adapter.fallback_reasons == {"failed": 1}
    with pytest.raises(LostError):
        adapter.search_iterator([QUERY.tolist()], batch_size=8, method="dual_is")
    adapter._store.read_documents = own
    adapter.drop()
    milvus_lite.drop_collection(collection)


@pytest.fixture(scope="module")
def new_item_first(qdrant_local: QdrantEngine) -> Iterator[str]:
    """A collection whose nearest item to the query has come after the fit."""
    collection = qdrant_local.create(WORLD.items)
    adapter = qdrant_local.adapter(collection)
    WORLD.fit(adapter)
    qdrant_local.insert(collection, [100], QUERY[None], [{}])
    yield collection
    adapter.drop()
    qdrant_local.drop_collection(collection)


def test_one_new_item_on_top_does_not_make_a_search_uncovered(qdrant_local: QdrantEngine, new_item_first: str) -> None:
    """Where it is the only one whose statistics are looked at here."""
    legs = {"prefetch": models.Prefetch(query=QUERY.tolist(), limit=5), "query": RRF}
    strict = qdrant_local.adapter(new_item_first, on_missing="error")
    for options in ({**legs, "method": "dual_dis"}, {**legs, "limit": 1}):
        assert strict.query_points(**options).points[0].id == 100
    strict = qdrant_local.adapter(new_item_first, on_missing="error", execution="server")
    assert [point.id for point in strict.query_points(QUERY.tolist(), limit=1).points] == [100]
    assert strict.query_points_groups("title", QUERY.tolist(), limit=1, method="is") is not None


def test_a_search_by_the_server_is_uncovered_where_no_item_has_statistics(qdrant_local: QdrantEngine) -> None:
    collection = qdrant_local.create(WORLD.items)
    adapter = qdrant_local.adapter(collection, execution="server")
    WORLD.fit(adapter)
    qdrant_local.client().clear_payload(collection, models.Filter())
    raw = qdrant_local.client().query_points(collection, QUERY.tolist(), limit=8).points
    assert [p.id for p in adapter.query_points(QUERY.tolist(), limit=8).points] == [p.id for p in raw]
    assert adapter.fallback_reasons == {"uncovered": 1}
    with pytest.raises(NotFittedError, match="none of the 8 candidates"):
        adapter.query_points(QUERY.tolist(), limit=8, method="is")
    adapter.drop()
    qdrant_local.drop_collection(collection)


# --- exact searches -----------------------------------------------------------------------------------------------


def test_an_exact_search_that_runs_out_of_time_returns_what_it_has(
    engine: Engine, collection: str, never: Any, caplog: pytest.LogCaptureFixture
) -> None:
    adapter = engine.adapter(collection, cache="lazy")
    unhurried = engine.explain(adapter, QUERY[None], limit=8, candidates=8, exact=True)
    assert unhurried.certified
    assert unhurried.queries[0].rounds > 1
    inner = inner_of(adapter)
    read, times = inner._store.items, []

    def once(*args: Any, **kwargs: Any) -> Any:
        times.append(args)
        return read(*args) if len(times) == 1 else never()

    adapter = engine.adapter(collection, cache="none" if "milvus" in engine.name else "lazy")
    inner_of(adapter)._store.items = once
    explained = engine.explain(adapter, QUERY[None], limit=8, candidates=8, exact=True, timeout=2)
    (query,) = explained.queries
    assert (query.certified, query.rounds, query.candidates) == (False, 1, 8)
    assert query.method == "dual_is"
    assert "exact=True: 1 of 1 results: " in told(caplog)[-1]


def test_an_exact_search_that_cannot_go_on_returns_what_it_has(
    engine: Engine, collection: str, caplog: pytest.LogCaptureFixture
) -> None:
    adapter = engine.adapter(collection, cache="none" if "milvus" in engine.name else "lazy")
    inner = inner_of(adapter)
    read, times = inner._store.items, []

    def once(*args: Any, **kwargs: Any) -> Any:
        times.append(args)
        return read(*args) if len(times) == 1 else lost()

    inner._store.items = once
    (query,) = engine.explain(adapter, QUERY[None], limit=8, candidates=8, exact=True).queries
    assert (query.certified, query.rounds, query.method) == (False, 1, "dual_is")
    assert "exact=True: 1 of 1 results: LostError: the connection is gone" in told(caplog)[-1]


class Impatient:
    """A client that answers one search, and gives up later ones a little before their time is over."""

    def __init__(self, client: Any, search: str) -> None:
        self._client, self._name = client, search
        self.timeouts: list[Any] = []

    def __getattr__(self, name: str) -> Any:
        return self._search if name == self._name else getattr(self._client, name)

    def _search(self, *args: Any, timeout: Any, **options: Any) -> Any:
        self.timeouts.append(timeout)
        if len(self.timeouts) == 1:
            return getattr(self._client, self._name)(*args, timeout=timeout, **options)
        time.sleep(timeout - 0.05)
        raise LostError("the client did not want to wait any longer")


def test_an_exact_search_whose_client_gives_up_first_returns_what_it_has(quick_engine: Engine) -> None:
    collection = quick_engine.create(WORLD.items)
    adapter = quick_engine.adapter(collection)
    WORLD.fit(adapter)
    adapter.client = Impatient(adapter.client, "search" if "milvus" in quick_engine.name else "query_points")
    (query,) = quick_engine.explain(adapter, QUERY[None], limit=8, candidates=8, exact=True, timeout=1).queries
    assert (query.certified, query.rounds, query.method) == (False, 1, "dual_is")
    assert len(adapter.client.timeouts) == 2
    quick_engine.drop_collection(collection)


def test_groups_that_are_not_found_in_time_are_fewer(milvus_lite: MilvusEngine) -> None:
    collection = milvus_lite.create(WORLD.items, dynamic=False)
    adapter: Any = milvus_lite.adapter(collection)
    WORLD.fit(adapter)
    adapter._default_window = lambda *args, **options: 5
    adapter.client = Impatient(adapter.client, "search")
    (hits,) = adapter.search([QUERY.tolist()], limit=8, group_by_field="number", timeout=1)
    assert (len(hits), len(adapter.client.timeouts)) == (5, 2)
    milvus_lite.drop_collection(collection)


def test_a_search_for_groups_gets_what_is_left_of_its_time(qdrant_local: QdrantEngine, never: Any) -> None:
    collection = qdrant_local.create(WORLD.items)
    adapter: Any = qdrant_local.adapter(collection)
    adapter._store._describe = never
    adapter.client = Impatient(adapter.client, "query_points_groups")
    assert adapter.query_points_groups("number", QUERY.tolist(), timeout=3).groups
    assert adapter.client.timeouts == [2]
    qdrant_local.drop_collection(collection)


def test_a_hybrid_search_that_is_late_is_raw(milvus_lite: MilvusEngine, never: Any) -> None:
    collection = milvus_lite.create(WORLD.items, vector_name="vector", other_vectors={"other": WORLD.items[::-1]})
    adapter: Any = milvus_lite.adapter(collection, "vector")
    WORLD.fit(adapter)
    legs = [AnnSearchRequest([QUERY.tolist()], field, {}, limit=9) for field in ("vector", "other")]
    own = milvus_lite.client().hybrid_search(collection, legs, WeightedRanker(0.5, 0.5), limit=5)
    adapter._metrics = never
    found = adapter.hybrid_search(legs, WeightedRanker(0.5, 0.5), limit=5, timeout=1)
    assert [list(hits.ids) for hits in found] == [list(hits.ids) for hits in own]
    assert adapter.fallback_reasons == {"late": 1}
    with pytest.raises(StatisticsTimeoutError):
        adapter.hybrid_search(legs, WeightedRanker(0.5, 0.5), limit=5, timeout=1, method="is")
    milvus_lite.drop_collection(collection)


# --- wrapped clients ----------------------------------------------------------------------------------------------


def test_a_wrapped_client_serves_raw_results_in_time(
    quick_engine: Engine, never: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    collection = quick_engine.create(WORLD.items)
    adapter = quick_engine.adapter(collection)
    WORLD.fit(adapter)
    client = quick_engine.client()
    own = quick_engine.search(client, collection, QUERY, limit=8)
    milvus = "milvus" in quick_engine.name
    module = dbnorm_milvus if milvus else dbnorm_qdrant
    with monkeypatch.context() as patched:
        patched.setattr(type(adapter._store), "read_documents", never)
        assert quick_engine.search(module.wrap(client), collection, QUERY, limit=8, timeout=1) == own
    wrapped = module.wrap(client, cache="lazy", statistics_ttl=0)
    normalised = quick_engine.search(wrapped, collection, QUERY, limit=8, timeout=5)
    assert pairs(normalised) == pytest.approx(pairs(quick_engine.search(adapter, None, QUERY, limit=8)), abs=1e-6)
    with monkeypatch.context() as patched:
        patched.setattr(type(adapter._store), "read_documents", never)
        assert quick_engine.search(wrapped, collection, QUERY, limit=8, timeout=1) == normalised
    adapter.drop()
    quick_engine.drop_collection(collection)


def test_a_wrapped_client_finds_the_statistics_that_came_too_late(
    quick_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    collection = quick_engine.create(WORLD.items)
    adapter = quick_engine.adapter(collection)
    WORLD.fit(adapter)
    client = quick_engine.client()
    module = dbnorm_milvus if "milvus" in quick_engine.name else dbnorm_qdrant
    own, calls, may_answer = type(adapter._store).read_documents, [], threading.Event()

    def slow(store: Any) -> Any:
        calls.append(store)
        if len(calls) > 1:  # the first time is to see whether the collection is fitted
            may_answer.wait(60)
        return own(store)

    monkeypatch.setattr(type(adapter._store), "read_documents", slow)
    wrapped: Any = module.wrap(client)
    raw = quick_engine.search(client, collection, QUERY, limit=8)
    for _ in range(2):
        assert quick_engine.search(wrapped, collection, QUERY, limit=8, timeout=1) == raw
    assert len(calls) == 2
    may_answer.set()
    while wrapped._dbnorm._adapters[collection]._current._known.statistics is None:
        pass
    assert quick_engine.search(wrapped, collection, QUERY, limit=8, timeout=1) != raw
    quick_engine.drop_collection(collection)


def test_a_wrapped_search_has_one_deadline(qdrant_local: QdrantEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    collection = qdrant_local.create(WORLD.items)
    WORLD.fit(qdrant_local.adapter(collection))
    deadlines: list[Any] = []
    adapter_of, planned = WrappedClient.adapter, dbnorm_qdrant.QdrantAdapter._plan

    def adapter(self: Any, name: str, deadline: Any) -> Any:
        deadlines.append(deadline)
        return adapter_of(self, name, deadline)

    def plan(self: Any, *, deadline: Any, **options: Any) -> Any:
        deadlines.append(deadline)
        return planned(self, deadline=deadline, **options)

    monkeypatch.setattr(WrappedClient, "adapter", adapter)
    monkeypatch.setattr(dbnorm_qdrant.QdrantAdapter, "_plan", plan)
    wrapped = dbnorm_qdrant.wrap(qdrant_local.client())
    query = models.QueryRequest(query=QUERY.tolist())
    wrapped.query_points(collection, QUERY.tolist(), timeout=30)
    wrapped.query_batch_points(collection, [query], timeout=30)
    wrapped.query_points_groups(collection, "number", QUERY.tolist(), timeout=30)
    assert [deadline.timeout for deadline in deadlines] == [30] * 6
    assert deadlines[::2] == deadlines[1::2]
    qdrant_local.drop_collection(collection)


# --- caches, on real engines --------------------------------------------------------------------------------------


@pytest.mark.parametrize("cache", ["all", "lazy", "none"])
@pytest.mark.parametrize("cache_bytes", [300, 10**6])
def test_results_do_not_depend_on_the_cache(
    engine: Engine, collection: str, normalised: list[Any], cache: str, cache_bytes: int
) -> None:
    adapter = engine.adapter(collection, cache=cache, cache_bytes=cache_bytes)
    plain = engine.adapter(collection)
    for query in WORLD.queries[:4]:
        for method in ("dual_is", "dual_dis"):
            expected = engine.search(plain, None, query, limit=30, method=method)
            found = engine.search(adapter, None, query, limit=30, method=method)
            assert [hit.id for hit in found] == [hit.id for hit in expected]
            np.testing.assert_allclose([h.score for h in found], [h.score for h in expected], atol=1e-6)
            assert [hit.payload for hit in found] == [hit.payload for hit in expected]
    info = adapter.cache_info()
    assert info.nbytes <= cache_bytes
    if cache != "none":
        assert info.mode == ("all" if cache == "all" and cache_bytes > 2000 else "lazy")
        assert info.hits > 0


@pytest.mark.parametrize("cache", ["all", "lazy"])
def test_a_cache_follows_upserts_refreshes_and_new_fits(quick_engine: Engine, cache: str) -> None:
    engine = quick_engine
    collection = engine.create(WORLD.items)
    adapter, plain = engine.adapter(collection, cache=cache), engine.adapter(collection, cache="none")
    everything = {"limit": 61, "candidates": 61}

    def assert_alike() -> None:
        found, expected = (
            {hit.id: hit.score for hit in engine.search(each, None, QUERY, **everything)} for each in (adapter, plain)
        )
        assert found == pytest.approx(expected, abs=1e-6)

    WORLD.fit(adapter)
    assert_alike()
    number = [{"number": 60, "title": "new"}]
    engine.upsert(adapter, [60], WORLD.items[5:6], number)
    assert_alike()
    engine.upsert(adapter, [60], WORLD.items[7:8], number)  # changed once more
    assert_alike()
    engine.insert(collection, [3], WORLD.items[9:10], [{"number": 3, "title": "changed by the client"}])
    adapter.refresh()
    plain = engine.adapter(collection, cache="none")
    assert_alike()
    WORLD.fit(adapter, query_beta=3.0)
    plain = engine.adapter(collection, cache="none")
    assert_alike()
    adapter.drop()
    assert adapter.cache_info().items == 0
    engine.drop_collection(collection)


@pytest.mark.parametrize("item", [uuid.UUID(int=1).hex, uuid.UUID(int=1)])
def test_a_cache_knows_the_ids_of_what_is_upserted(qdrant_local: QdrantEngine, item: Any) -> None:
    collection = qdrant_local.create(WORLD.items)
    adapter: Any = qdrant_local.adapter(collection, cache="lazy")
    WORLD.fit(adapter)
    scores = [p.score for p in adapter.query_points(WORLD.items[1].tolist(), limit=60).points if p.id == 1]
    adapter.upsert([models.PointStruct(id=item, vector=WORLD.items[9].tolist(), payload={"number": 1})])
    after = adapter.query_points(WORLD.items[1].tolist(), limit=60).points
    assert [p.score for p in after if p.id == 1] == scores
    qdrant_local.drop_collection(collection)


def test_one_request_looks_up_what_is_not_held(milvus_lite: MilvusEngine) -> None:
    collection = milvus_lite.create(WORLD.items)
    adapter: Any = milvus_lite.adapter(collection, cache="none")
    WORLD.fit(adapter)
    normalised = ids_of(milvus_lite, adapter)
    asked: list[str] = []

    class Spied:
        def __getattr__(self, name: str) -> Any:
            asked.append(name)
            return getattr(milvus_lite.client(), name)

    adapter._store.client = Spied()
    assert ids_of(milvus_lite, adapter) == normalised
    assert asked == ["query"]
    milvus_lite.client().release_collection(collection + "__dbnorm")
    assert ids_of(milvus_lite, adapter) == normalised
    adapter.drop()
    milvus_lite.drop_collection(collection)


def test_bad_cache_settings(quick_engine: Engine) -> None:
    with pytest.raises(db.InvalidParameterError, match="cache must be 'all', 'lazy' or 'none', got 'much'"):
        quick_engine.adapter("any", cache="much")
    with pytest.raises(db.InvalidParameterError, match="cache_bytes .* got -1"):
        quick_engine.adapter("any", cache_bytes=-1)
