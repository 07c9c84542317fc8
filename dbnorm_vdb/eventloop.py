"""Steps on an event loop, and blocking work in threads whose calls of an async client go back to that loop."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import threading
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import Future, wait
from contextvars import ContextVar, copy_context
from dataclasses import dataclass
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from dbnorm_vdb.steps import Call, Each, InTime, Request, Steps, Within

T = TypeVar("T")

MAX_CONCURRENCY = 8
"""Of the independent searches of one call (a batch), at most so many are under way at once."""

MAX_THREADS = 32
"""Of the work of all searches on an event loop, as far as it only reads, at most so much is done at once."""

_LOOK_EVERY = 1.0
"""Seconds after which a thread that waits for an event loop looks whether that is closed."""


class Interrupted(BaseException):
    """Raised in a worker thread whose caller was cancelled, at a call of the client."""


# --- worker threads ------------------------------------------------------------------------------------------------


class _Worker:
    """Blocking work in a thread, whose calls of the async client are made on the event loop that it was started from.

    All but `call` belongs to the loop's thread, so there is nothing to lock.

    Args:
        loop: that event loop.
        writes: the work may write. A call under way is then let end when the work is interrupted: a write that was
            sent may be carried out all the same, and nothing must be written after the interruption.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, *, writes: bool) -> None:
        self._loop = loop
        self._writes = writes
        self._under_way: set[asyncio.Task[Any]] = set()
        self._interrupted = self._told = False

    def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """In a worker thread: call a function on the event loop, await what it returns, and wait for the result.

        Raises:
            Interrupted: the work is to end. Once only: the calls by which it cleans up go through.
        """
        answer: Future[Any] = Future()
        made = functools.partial(function, *args, **kwargs)
        self._loop.call_soon_threadsafe(self._start, made, answer, _uninterrupted.get())
        while not wait([answer], _LOOK_EVERY).done:
            if self._loop.is_closed():
                raise Interrupted
        return answer.result()

    def _start(self, function: Callable[[], Any], answer: Future[Any], uninterrupted: bool) -> None:
        if self._interrupted and not self._told and not uninterrupted:
            self._tell(answer)
            return
        task = self._loop.create_task(_awaited(function))
        self._under_way.add(task)
        task.add_done_callback(functools.partial(self._end, answer))

    def _end(self, answer: Future[Any], task: asyncio.Task[Any]) -> None:
        self._under_way.discard(task)
        if task.cancelled():  # by us, or because the loop is shut down
            self._tell(answer)
        elif (error := task.exception()) is not None:
            answer.set_exception(error)
        else:
            answer.set_result(task.result())

    def _tell(self, answer: Future[Any]) -> None:
        self._told = True
        answer.set_exception(Interrupted())

    def interrupt(self) -> None:
        """End the work at its next call, or if it only reads at the one that it waits for. Done twice, it is once."""
        if not self._interrupted:
            self._interrupted = True
            for task in () if self._writes else self._under_way:
                task.cancel()


_worker: ContextVar[_Worker] = ContextVar("dbnorm_worker")
_uninterrupted: ContextVar[bool] = ContextVar("dbnorm_uninterrupted", default=False)


async def _awaited(function: Callable[[], Any]) -> Any:
    result = function()
    return await result if inspect.isawaitable(result) else result


def _current_worker() -> _Worker | None:
    """The worker whose thread this is; None on an event loop, whose tasks may have inherited a worker's context."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return _worker.get(None)
    return None


def in_worker() -> bool:
    """Whether this is blocking work in a thread, not the event loop."""
    return _current_worker() is not None


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Let the calls in this block go through, although the work they belong to may have been interrupted."""
    token = _uninterrupted.set(True)
    try:
        yield
    finally:
        _uninterrupted.reset(token)


async def in_thread(function: Callable[[], T], *, writes: bool = False) -> T:
    """Do blocking work in a thread. Cancelled, it interrupts the work, and ends when that has cleaned up.

    The thread is one of its own: in a pool, work that waits for the event loop could take all the places that the
    loop itself needs to go on (it looks up host names in its default pool).

    Args:
        function: the work; what it finds in the context is what the caller has there.
        writes: it may write: a call under way is awaited, not cancelled.
    """
    loop = asyncio.get_running_loop()
    worker = _Worker(loop, writes=writes)
    outcome: Future[T] = Future()
    ended: asyncio.Future[None] = loop.create_future()

    def work() -> None:
        _worker.set(worker)
        try:
            outcome.set_result(function())
        except BaseException as error:  # for whoever awaits it
            outcome.set_exception(error)
        with contextlib.suppress(RuntimeError):  # the loop is closed, and nobody waits
            loop.call_soon_threadsafe(ended.set_result, None)

    threading.Thread(target=copy_context().run, args=(work,), name="dbnorm-work", daemon=True).start()
    await _end_of(ended, worker.interrupt)
    try:
        return outcome.result()
    except Interrupted:  # a call was cancelled by somebody else
        raise asyncio.CancelledError from None


async def _end_of(future: asyncio.Future[Any], on_cancel: Callable[[], object]) -> None:
    """Return when it is done, and not before when cancelled; the cancellation is raised then."""
    cancelled: asyncio.CancelledError | None = None
    while not future.done():
        try:
            await asyncio.wait([future])
        except asyncio.CancelledError as error:  # noqa: PERF203 - it may be cancelled more than once
            cancelled = error
            on_cancel()
    if cancelled is not None:
        raise cancelled


@dataclass
class _Shared:
    task: asyncio.Task[Any]
    waiting: int = 0


_shared: dict[tuple[asyncio.AbstractEventLoop, Hashable], _Shared] = {}


async def _in_shared_thread(function: Callable[[], Any], key: Hashable) -> Any:
    """The result of work that all who ask for the same at once share. It is interrupted when all are cancelled."""
    place = (asyncio.get_running_loop(), key)
    if place not in _shared:
        shared = _shared[place] = _Shared(asyncio.ensure_future(in_thread(function)))
        shared.task.add_done_callback(lambda task: _forget(place, shared))
    shared = _shared[place]
    shared.waiting += 1
    try:
        await asyncio.wait([shared.task])
    except asyncio.CancelledError:
        shared.waiting -= 1
        if not shared.waiting:
            _forget(place, shared)  # whoever asks now is not to get what is being cancelled
            shared.task.cancel()
            await _end_of(shared.task, lambda: None)
        raise
    return shared.task.result()


def _forget(place: tuple[asyncio.AbstractEventLoop, Hashable], shared: _Shared) -> None:
    if _shared.get(place) is shared:
        del _shared[place]


class Bridge:
    """An async client for blocking code that runs in a worker thread: a call returns when it is answered.

    The client is used on its event loop only. There, its coroutine functions stay what they are, to be awaited.

    Args:
        client: the user's own async client.
    """

    def __init__(self, client: Any) -> None:
        self._bridged = client

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._bridged, name)
        worker = _current_worker()
        if worker is None or not callable(value):
            return value
        return functools.partial(worker.call, value)


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
    if isinstance(request, Within):
        with request.manager():
            return await run_async(request.steps, client)
    if isinstance(request, Each):
        return await _each(request.steps, client)
    if isinstance(request, InTime):
        return await _in_time(request, client)
    if request.key is not None:
        return await _in_shared_thread(request.function, request.key)
    if request.writes:  # which may take long, and would keep searches waiting
        return await in_thread(request.function, writes=True)
    slots = _slots.setdefault(asyncio.get_running_loop(), asyncio.Semaphore(MAX_THREADS))
    async with slots:
        return await in_thread(request.function)


_slots: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = WeakKeyDictionary()


_late: set[asyncio.Task[Any]] = set()
"""Steps that were too late, and go on."""


async def _in_time(request: InTime, client: Any) -> Any:
    """The result of steps, unless they are late. Cancelled, it cancels them, and ends when they have."""
    if not request.deadline.left():
        raise request.deadline.late()
    task = asyncio.ensure_future(run_async(request.steps, client))
    try:
        await asyncio.wait([task], timeout=request.deadline.left())
    except asyncio.CancelledError:
        task.cancel()
        await _end_of(task, lambda: None)
        raise
    if task.done():
        return task.result()
    _late.add(task)
    task.add_done_callback(_ended_late)
    raise request.deadline.late()


def _ended_late(task: asyncio.Task[Any]) -> None:
    _late.discard(task)
    if not task.cancelled():
        task.exception()  # nobody asks for it any more


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
