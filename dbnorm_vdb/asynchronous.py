"""Async adapters: the sync ones, awaited.

Searches are steps (`dbnorm_vdb.steps`): on an event loop their calls of the client are awaited where the sync adapter
makes them. Everything else, from reading statistics to a whole fit, runs in a worker thread, whose calls of the async
client are made on the event loop and waited for by that thread. So nothing is written twice, and nothing blocks the
loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import threading
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future
from contextvars import ContextVar
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

from dbnorm_vdb.collection import NormalizedCollection
from dbnorm_vdb.steps import Call, Request, Steps, Work, run

P = ParamSpec("P")
T = TypeVar("T")

MAX_CONCURRENCY = 8
"""Of the independent searches of one call (a batch), at most so many are under way at once."""


class Interrupted(BaseException):
    """Raised in a worker thread whose caller was cancelled, at its next call of the client."""


# --- worker threads ------------------------------------------------------------------------------------------------


class _Worker:
    """Work in a thread of its own, whose calls of the async client are made on the event loop it was started from."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._lock = threading.Lock()
        self._pending: Future[Any] | None = None
        self._interrupted = False

    def run(self, function: Callable[[], T]) -> T:
        """In the worker thread: do the work."""
        _worker.set(self)  # in the context of this work alone
        return function()

    def wait_for(self, call: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """In the worker thread: make a call on the event loop, and wait for its result.

        Raises:
            Interrupted: the work is to end. Once only: what the work does to clean up goes through.
        """
        with self._lock:
            self._check()
            pending: Future[T] = asyncio.run_coroutine_threadsafe(call(), self._loop)
            self._pending = pending
        try:
            return pending.result()
        except BaseException:
            with self._lock:
                self._check()
            raise
        finally:
            self._pending = None

    def _check(self) -> None:
        if self._interrupted:
            self._interrupted = False
            raise Interrupted

    def interrupt(self) -> None:
        """On the event loop: end the work at the call it is waiting for, or at its next one."""
        with self._lock:
            self._interrupted = True
            if self._pending is not None:
                self._pending.cancel()


_worker: ContextVar[_Worker] = ContextVar("dbnorm_worker")


async def in_thread(function: Callable[[], T]) -> T:
    """Do blocking work in a thread. Cancelled, it interrupts the work and returns when that has cleaned up."""
    worker = _Worker(asyncio.get_running_loop())
    task = asyncio.ensure_future(asyncio.to_thread(worker.run, function))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        worker.interrupt()
        while not task.done():
            with contextlib.suppress(asyncio.CancelledError, Exception, Interrupted):
                await asyncio.shield(task)
        raise


class Bridge:
    """An async client for blocking code that runs in a worker thread: a call returns when it is answered.

    On the event loop its coroutine functions stay what they are, to be awaited.

    Args:
        client: the user's own async client.
    """

    def __init__(self, client: Any) -> None:
        self._bridged = client

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._bridged, name)
        worker = _worker.get(None)
        if worker is None or not inspect.iscoroutinefunction(value):
            return value

        def answered(*args: Any, **kwargs: Any) -> Any:
            return worker.wait_for(functools.partial(value, *args, **kwargs))

        return answered


# --- searches on the event loop ------------------------------------------------------------------------------------


async def run_async(steps: Steps[T], client: Any) -> T:
    """Take the steps one after the other, awaiting the client."""
    try:
        request = next(steps)
        while True:
            try:
                answer = await _answer(request, client)
            except BaseException as error:  # noqa: PERF203 - any answer may be an error, for the steps to deal with
                request = steps.throw(error)
            else:
                request = steps.send(answer)
    except StopIteration as stop:
        result: T = stop.value
        return result


async def _answer(request: Request, client: Any) -> Any:
    if isinstance(request, Call):
        return await request.of(client)
    if isinstance(request, Work):
        return await in_thread(request.function)
    return await _each(request.steps, client)


async def _each(several: Sequence[Steps[Any]], client: Any) -> list[Any]:
    """The results of several searches, in order. The first error ends the others, and is raised when they have."""
    slots = asyncio.Semaphore(MAX_CONCURRENCY)

    async def one(steps: Steps[Any]) -> Any:
        async with slots:
            return await run_async(steps, client)

    tasks = [asyncio.ensure_future(one(steps)) for steps in several]
    try:
        return await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise


class Awaited:
    """Mixed into a sync adapter that works on a `Bridge`: on an event loop, its searches return coroutines."""

    client: Any

    def _run(self, steps: Steps[T]) -> T:
        if _worker.get(None) is not None:
            return run(steps, self.client)
        return cast("T", run_async(steps, self.client))


# --- async adapters --------------------------------------------------------------------------------------------------


def awaited(search: Callable[Concatenate[Any, P], T]) -> Callable[Concatenate[Any, P], Coroutine[Any, Any, T]]:
    """The async form of a sync adapter's search: the same arguments, result and documentation."""

    @functools.wraps(search)
    async def method(self: AsyncCollection, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await cast("Coroutine[Any, Any, T]", search(self._inner, *args, **kwargs))

    return method


def threaded(work: Callable[Concatenate[Any, P], T]) -> Callable[Concatenate[Any, P], Coroutine[Any, Any, T]]:
    """The async form of what a sync adapter does in many steps, such as a fit: in a worker thread.

    Functions that are passed to it, such as `progress`, are called in that thread.
    """

    @functools.wraps(work)
    async def method(self: AsyncCollection, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await in_thread(functools.partial(work, self._inner, *args, **kwargs))

    return method


class AsyncCollection:
    """Base of the async adapters: what is the same for all engines.

    Attributes:
        client: the user's own async client.
    """

    client: Any
    _inner: NormalizedCollection

    @property
    def collection_name(self) -> str:
        """The name of the wrapped collection."""
        return self._inner.collection_name

    @property
    def fallback_count(self) -> int:
        """Searches that were served raw for want of statistics."""
        return self._inner.fallback_count

    is_fitted = threaded(NormalizedCollection.is_fitted)
    fit = threaded(NormalizedCollection.fit)
    refresh = threaded(NormalizedCollection.refresh)
    status = threaded(NormalizedCollection.status)
    fold = threaded(NormalizedCollection.fold)
    drop = threaded(NormalizedCollection.drop)
