"""Async adapters behind blocking faces, so that the contract of the sync ones is tested on them."""

from __future__ import annotations

import asyncio
import functools
import inspect
import threading
from collections.abc import Callable, Coroutine
from typing import Any

from harness import MilvusEngine, QdrantEngine
from pymilvus import AsyncMilvusClient, MilvusClient
from qdrant_client import AsyncQdrantClient, QdrantClient

from dbnorm_milvus import AsyncMilvusAdapter
from dbnorm_qdrant import AsyncQdrantAdapter

TIMEOUT = 120


class Loop:
    """An event loop in a thread."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """The result of a coroutine on the loop."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(TIMEOUT)

    def call(self, function: Callable[[], Any]) -> Any:
        """The result of a function that is called on the loop."""

        async def called() -> Any:
            return function()

        return self.run(called())

    def close(self) -> None:
        self.run(self._loop.shutdown_asyncgens())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(TIMEOUT)
        self._loop.close()


class Blocking:
    """An async adapter, whose coroutine functions are run on a loop and waited for."""

    def __init__(self, adapter: Any, sync: Any, loop: Loop) -> None:
        self._adapter, self._sync, self._loop = adapter, sync, loop

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # what tests look at inside
            return getattr(self._sync, name)
        value = getattr(self._adapter, name)
        if not inspect.iscoroutinefunction(value):
            return value

        @functools.wraps(value)
        def blocking(*args: Any, **kwargs: Any) -> Any:
            return self._loop.run(value(*args, **kwargs))

        return blocking


def inner_of(adapter: Any) -> Any:
    """The adapter that does the work of one that may be async."""
    return vars(adapter)["_adapter"]._inner if isinstance(adapter, Blocking) else adapter


class AsyncQdrantEngine(QdrantEngine):
    """Adapters of an async client; all else by a sync one that has the same collections in memory."""

    def __init__(self, name: str, client: QdrantClient, loop: Loop) -> None:
        super().__init__(name, client)
        self._loop = loop
        self.own = AsyncQdrantClient(":memory:")
        for shared in ("collections", "aliases"):
            setattr(self.own._client, shared, getattr(client._client, shared))

    def adapter(self, collection: str, vector_name: str | None = None, **options: Any) -> Any:
        sync = super().adapter(collection, vector_name, **options)
        return Blocking(AsyncQdrantAdapter(self.own, collection, vector_name, **options), sync, self._loop)

    def close(self) -> None:
        self._client.close()
        self._loop.close()


class AsyncMilvusEngine(MilvusEngine):
    """Adapters of an async client; all else by a sync one of the same database."""

    def __init__(self, name: str, client: MilvusClient, location: str, loop: Loop) -> None:
        super().__init__(name, client, location)
        self._loop = loop
        self.own = loop.call(lambda: AsyncMilvusClient(location))

    def adapter(self, collection: str, vector_name: str | None = None, **options: Any) -> Any:
        sync = super().adapter(collection, vector_name, **options)
        return Blocking(AsyncMilvusAdapter(self.own, collection, vector_name, **options), sync, self._loop)

    def close(self) -> None:
        self._loop.run(self.own.close())
        self._client.close()
        self._loop.close()
