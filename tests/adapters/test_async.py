"""What only async adapters can do wrong: block the event loop, run too much at once, leave something behind."""

from __future__ import annotations

import asyncio
import concurrent.futures
import socket
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from adapters.world import FIT, World
from grpc import _channel
from harness import MILVUS_METRICS
from pymilvus import AsyncMilvusClient, DataType, MilvusClient, MilvusException
from qdrant_client import AsyncQdrantClient, QdrantClient, models

import dbnorm_vdb as db
from dbnorm_milvus import AsyncMilvusAdapter, MilvusAdapter
from dbnorm_milvus import wrap as wrap_milvus
from dbnorm_qdrant import AsyncQdrantAdapter, QdrantAdapter
from dbnorm_qdrant import wrap as wrap_qdrant
from dbnorm_vdb.eventloop import MAX_CONCURRENCY

WORLD = World.make("dot", n=60)
BANKS: dict[str, Any] = {"query_bank": WORLD.query_bank, "gallery_bank": WORLD.gallery_bank, **FIT}
QUERY = WORLD.queries[0].tolist()


def points(rows: range) -> list[models.PointStruct]:
    return [models.PointStruct(id=row, vector=WORLD.items[row].tolist(), payload={"number": row}) for row in rows]


async def qdrant_client() -> AsyncQdrantClient:
    client = AsyncQdrantClient(":memory:")
    size = WORLD.items.shape[1]
    await client.create_collection(
        "images", vectors_config=models.VectorParams(size=size, distance=models.Distance.DOT)
    )
    await client.upsert("images", points(range(60)))
    return client


@pytest.fixture
def milvus_location(tmp_path: Any) -> Iterator[str]:
    """A Milvus Lite database with a collection."""
    location = str(tmp_path / "lite.db")
    client = MilvusClient(location)
    schema = client.create_schema(auto_id=False, enable_dynamic_field=True)
    schema.add_field("key", DataType.INT64, is_primary=True)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=WORLD.items.shape[1])
    index = client.prepare_index_params()
    index.add_index("vector", index_type="FLAT", metric_type=MILVUS_METRICS["dot"])
    client.create_collection("images", schema=schema, index_params=index, consistency_level="Strong")
    client.insert("images", [{"key": i, "vector": v, "number": i} for i, v in enumerate(WORLD.items.tolist())])
    yield location
    client.close()


# --- nothing blocks the loop --------------------------------------------------------------------------------------


class BlockedError(AssertionError):
    """Something waited on the event loop's thread."""


@contextmanager
def nothing_may_block(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Whatever waits on this thread, which runs the event loop, raises BlockedError, and is in the list."""
    loops = threading.get_ident()
    blocked: list[str] = []

    def guarded(what: str, function: Callable[..., Any], waits: Callable[..., bool]) -> Callable[..., Any]:
        def checked(*args: Any, **kwargs: Any) -> Any:
            if threading.get_ident() == loops and waits(*args, **kwargs):
                blocked.append(what)
                raise BlockedError(what)
            return function(*args, **kwargs)

        return checked

    def always(*args: Any, **kwargs: Any) -> bool:
        return True

    def starting_a_thread() -> bool:
        return sys._getframe(3).f_code is threading.Thread.start.__code__

    def blocking_socket(one: socket.socket, *args: Any) -> bool:
        return one.gettimeout() != 0

    with monkeypatch.context() as patch:
        for owner, name, waits in (
            (time, "sleep", always),
            (threading.Thread, "join", lambda thread, *_: thread.is_alive()),
            (threading.Event, "wait", lambda event, *_: not (event.is_set() or starting_a_thread())),
            (concurrent.futures.Future, "result", lambda future, *_: not future.done()),
            (_channel._UnaryUnaryMultiCallable, "_blocking", always),
            *((socket.socket, name, blocking_socket) for name in ("connect", "recv", "recv_into", "send", "sendall")),
        ):
            patch.setattr(owner, name, guarded(f"{owner.__name__}.{name}", getattr(owner, name), waits))
        yield blocked


async def everything_on_qdrant() -> None:
    client = await qdrant_client()
    images = AsyncQdrantAdapter(client, "images")
    await images.fit(**BANKS)
    await images.query_points(query=QUERY, limit=5)
    await images.query_points(query=QUERY, limit=5, exact=True)
    await images.query_points_explained(query=QUERY, limit=5)
    await images.query_batch_points([models.QueryRequest(query=QUERY, limit=3)] * 3)
    await images.query_points_groups("number", query=QUERY, limit=3)
    fetched = await images.query_points(query=QUERY, limit=20, method="raw")
    await images.rerank(fetched.points, limit=5)
    await images.nearest(WORLD.queries, limit=5)
    await images.upsert(points(range(3)))
    await images.refresh()
    await images.audit(WORLD.queries, k=5)
    await images.explain(QUERY, 3)
    await images.status()
    wrapped = wrap_qdrant(client)
    await wrapped.query_points("images", query=QUERY, limit=5)
    await images.drop()
    await client.close()


async def everything_on_milvus(location: str) -> None:
    client = AsyncMilvusClient(location)
    images = AsyncMilvusAdapter(client, "images")
    await images.fit(**BANKS)
    await images.search(data=[QUERY], limit=5)
    await images.search(data=[QUERY], limit=5, exact=True)
    await images.search_explained(data=[QUERY], limit=5)
    fetched = await images.search(data=[QUERY], limit=20, method="raw")
    await images.rerank(fetched, limit=5)
    await images.nearest(WORLD.queries, limit=5)
    await images.upsert(data=[{"key": 1, "vector": WORLD.items[1].tolist(), "number": 1}])
    await images.refresh()
    await images.explain(QUERY, 3)
    await images.status()
    wrapped = wrap_milvus(client)
    await wrapped.search("images", data=[QUERY], limit=5)
    await images.drop()
    await client.close()


def test_nothing_blocks_the_loop_on_qdrant(monkeypatch: pytest.MonkeyPatch) -> None:
    async def guarded() -> None:
        with nothing_may_block(monkeypatch) as blocked:
            await everything_on_qdrant()
        assert blocked == []

    asyncio.run(guarded())


def test_nothing_blocks_the_loop_on_milvus(monkeypatch: pytest.MonkeyPatch, milvus_location: str) -> None:
    async def guarded() -> None:
        with nothing_may_block(monkeypatch) as blocked:
            await everything_on_milvus(milvus_location)
        assert blocked == []

    asyncio.run(guarded())


def test_what_blocks_is_noticed(monkeypatch: pytest.MonkeyPatch, milvus_location: str) -> None:
    """A sync adapter in a coroutine."""
    client = MilvusClient(milvus_location)

    async def blocking() -> None:
        with nothing_may_block(monkeypatch) as blocked, pytest.raises(MilvusException):
            MilvusAdapter(client, "images").status()
        assert blocked

    asyncio.run(blocking())
    client.close()


# --- the same as sync ---------------------------------------------------------------------------------------------


def test_qdrants_results_are_those_of_the_sync_adapter() -> None:
    sync_client = QdrantClient(":memory:")
    size = WORLD.items.shape[1]
    sync_client.create_collection("images", vectors_config=models.VectorParams(size=size, distance=models.Distance.DOT))
    sync_client.upsert("images", points(range(60)))
    sync = QdrantAdapter(sync_client, "images")
    sync.fit(**BANKS)
    low = models.Filter(must=[models.FieldCondition(key="number", range=models.Range(lt=30))])
    calls: list[tuple[str, dict[str, Any]]] = [
        ("query_points", {"query": QUERY, "limit": 7, "offset": 2, "query_filter": low}),
        ("query_points", {"query": 5, "limit": 7, "with_payload": ["number"], "with_vectors": True}),
        ("query_points", {"query": QUERY, "exact": True, "method": "dual_dis"}),
        ("query_points", {"query": QUERY, "execution": "server"}),
        ("query_points_explained", {"query": QUERY, "limit": 3}),
        ("query_points_groups", {"group_by": "number", "query": QUERY, "limit": 4}),
        ("query_batch_points", {"requests": [models.QueryRequest(query=QUERY, limit=n) for n in (1, 4)]}),
        ("nearest", {"queries": WORLD.queries, "limit": 3}),
        ("explain", {"query": QUERY, "id": 3}),
    ]

    async def compared() -> None:
        client = await qdrant_client()
        images = AsyncQdrantAdapter(client, "images")
        await images.fit(**BANKS)
        wrapped = wrap_qdrant(client)
        for name, arguments in calls:
            ours = await getattr(images, name)(**arguments)
            assert ours == getattr(sync, name)(**arguments), name
            if hasattr(client, name) and "execution" not in arguments:
                assert await getattr(wrapped, name)("images", **arguments) == ours, name
        batch = await images.query_batch_points([models.QueryRequest(query=q, limit=4) for q in WORLD.queries.tolist()])
        for query, answer in zip(WORLD.queries.tolist(), batch, strict=True):
            assert answer == await images.query_points(query=query, limit=4, with_payload=False)
        told, expected = await images.status(), sync.status()
        assert told.active is not None
        assert expected.active is not None
        assert told.active.model_dump(exclude={"generation", "fitted_at"}) == expected.active.model_dump(
            exclude={"generation", "fitted_at"}
        )

    asyncio.run(compared())


def test_the_clients_errors_are_the_clients() -> None:
    async def refused() -> None:
        client = await qdrant_client()
        images = AsyncQdrantAdapter(client, "images")
        with pytest.raises(db.EmptyBankError):
            await images.fit(query_bank=np.empty((0, 8)), method="is")
        await images.fit(**BANKS)
        with pytest.raises(db.InvalidParameterError):
            await images.query_points(query=QUERY, limit=0)
        missing = AsyncQdrantAdapter(client, "nothing")
        with pytest.raises(ValueError, match="nothing"):
            await missing.status()

    asyncio.run(refused())


def test_milvus_errors_are_milvus(milvus_location: str) -> None:
    async def refused() -> None:
        client = AsyncMilvusClient(milvus_location)
        with pytest.raises(MilvusException):
            await AsyncMilvusAdapter(client, "nothing").status()
        await client.close()

    asyncio.run(refused())


# --- how much at once, and what is left ---------------------------------------------------------------------------


class Watched:
    """A client that counts the calls of a method that are under way."""

    def __init__(self, client: Any, name: str) -> None:
        self._client, self._name = client, name
        self.under_way = self.most = self.calls = 0

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._client, name)
        if name != self._name:
            return value

        async def watched(*args: Any, **kwargs: Any) -> Any:
            self.calls += 1
            self.under_way += 1
            self.most = max(self.most, self.under_way)
            try:
                for _ in range(5):
                    await asyncio.sleep(0)
                return await value(*args, **kwargs)
            finally:
                self.under_way -= 1

        return watched


def test_a_batch_runs_some_searches_at_once_and_no_more() -> None:
    async def counted() -> None:
        client = Watched(await qdrant_client(), "query_batch_points")
        images = AsyncQdrantAdapter(client, "images")  # type: ignore[arg-type]
        await images.fit(**BANKS)
        client.most = client.calls = 0
        queries = np.tile(WORLD.queries, (100, 1))
        found = await images.nearest(queries, limit=3)
        assert len(found) == len(queries)
        assert client.calls > MAX_CONCURRENCY
        assert 1 < client.most <= MAX_CONCURRENCY

    asyncio.run(counted())


def test_searches_that_begin_together_read_the_statistics_once() -> None:
    async def counted() -> None:
        client = await qdrant_client()
        await AsyncQdrantAdapter(client, "images").fit(**BANKS)
        watched = Watched(client, "get_collection")
        images = AsyncQdrantAdapter(watched, "images")  # type: ignore[arg-type]
        await images.query_points(query=QUERY)
        alone = watched.calls
        watched.calls = 0
        images = AsyncQdrantAdapter(watched, "images")  # type: ignore[arg-type]
        await asyncio.gather(*(images.query_points(query=QUERY) for _ in range(20)))
        assert watched.calls <= alone + 1

    asyncio.run(counted())


def ours() -> list[threading.Thread]:
    """Threads of ours that do not end."""
    found = [thread for thread in threading.enumerate() if thread.name.startswith("dbnorm")]
    for thread in found:
        thread.join(10)
    return [thread for thread in found if thread.is_alive()]


class Stopping:
    """A client that stands still at one of its calls until it is told to go on."""

    def __init__(self, client: Any, at: int) -> None:
        self._client, self._left = client, at
        self.reached = asyncio.Event()
        self.go_on = asyncio.Event()

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._client, name)
        if not asyncio.iscoroutinefunction(value):
            return value

        async def stopping(*args: Any, **kwargs: Any) -> Any:
            self._left -= 1
            if self._left == 0:
                self.reached.set()
                await self.go_on.wait()
            return await value(*args, **kwargs)

        return stopping


async def cancelled_at(make: Callable[[Any], Coroutine[Any, Any, Any]], client: Any, at: int) -> bool:
    """Cancel what is made of the client at one of its calls; whether it had not ended before."""
    stopping = Stopping(client, at)
    task = asyncio.ensure_future(make(stopping))
    reached = asyncio.ensure_future(stopping.reached.wait())
    await asyncio.wait([task, reached], return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        reached.cancel()
        await task
        return False
    task.cancel()
    for _ in range(3):
        await asyncio.sleep(0)
    stopping.go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    return True


@pytest.mark.parametrize("at", [1, 3, 5, 8, 12, 16])
def test_a_cancelled_fit_leaves_nothing_behind(at: int) -> None:
    async def cancelled() -> None:
        client = await qdrant_client()
        images = AsyncQdrantAdapter(client, "images")
        await images.fit(**BANKS)
        before = (await images.query_points(query=QUERY, limit=5)).points
        again = {**BANKS, "query_beta": 3.0}
        stopped = await cancelled_at(lambda one: AsyncQdrantAdapter(one, "images").fit(**again), client, at)
        assert ours() == []
        if stopped:
            assert (await images.query_points(query=QUERY, limit=5)).points == before, "the old statistics serve"
        fresh = AsyncQdrantAdapter(client, "images")
        assert (await fresh.fit(**again)).item_count == 60, "nobody holds a claim"
        assert (await fresh.status()).advice == []

    asyncio.run(cancelled())


@pytest.mark.parametrize("at", [1, 2, 3])
def test_a_cancelled_search_is_cancelled(at: int) -> None:
    async def cancelled() -> None:
        client = await qdrant_client()
        await AsyncQdrantAdapter(client, "images").fit(**BANKS)
        await cancelled_at(lambda one: AsyncQdrantAdapter(one, "images").query_points(query=QUERY), client, at)
        assert ours() == []
        others = asyncio.all_tasks() - {asyncio.current_task()}
        assert not others

    asyncio.run(cancelled())


def test_an_upsert_that_is_cancelled_still_gives_its_items_their_statistics(milvus_location: str) -> None:
    rows = [{"key": 100 + i, "vector": WORLD.items[i].tolist(), "number": i} for i in range(5)]

    async def cancelled() -> None:
        client = AsyncMilvusClient(milvus_location)
        images = AsyncMilvusAdapter(client, "images")
        await images.fit(**BANKS)
        stopped = True
        at = 1
        while stopped:
            stopped = await cancelled_at(lambda one: AsyncMilvusAdapter(one, "images").upsert(data=rows), client, at)
            status = await images.status()
            assert status.item_count == status.fitted_count
            at += 1
        assert at > 3
        assert status.item_count == 65
        await client.close()

    asyncio.run(cancelled())


def test_an_adapter_outlives_its_event_loop() -> None:
    client = asyncio.run(qdrant_client())
    images = AsyncQdrantAdapter(client, "images")
    asyncio.run(images.fit(**BANKS))
    first = asyncio.run(images.query_points(query=QUERY))
    assert asyncio.run(images.query_points(query=QUERY)) == first


def test_a_loop_that_ends_ends_the_fit() -> None:
    """`asyncio.run` cancels what is still running, and waits for it."""

    async def left_alone() -> None:
        client = await qdrant_client()
        stopping = Stopping(client, 6)
        task = asyncio.ensure_future(AsyncQdrantAdapter(stopping, "images").fit(**BANKS))  # type: ignore[arg-type]
        await stopping.reached.wait()
        stopping.go_on.set()
        assert not task.done()

    asyncio.run(left_alone())
    assert ours() == []
