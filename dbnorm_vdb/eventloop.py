"""Steps on an event loop, and blocking work in threads whose calls of an async client go back to that loop."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import threading
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future
from contextvars import ContextVar
from typing import Any, TypeVar

from dbnorm_vdb.steps import Call, Request, Steps, Work

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


def in_worker() -> bool:
    """Whether this is blocking work in a thread, not the event loop."""
    return _worker.get(None) is not None


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
