"""Reading ahead, computing, and writing behind: at the same time, as far as the client allows.

Where it may be used from several threads (a server), another thread reads and another writes. An embedded engine runs
in our own process, and in the thread that calls; what is computed is computed beside it all the same.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from functools import partial
from threading import Lock
from typing import Any, TypeVar

T = TypeVar("T")
R = TypeVar("R")

_AHEAD = 2
_WAITING = 3
_SHORT_TURN = 0.0001


def read_ahead(pages: Iterator[T], *, threaded: bool) -> Generator[T]:
    """The same pages, the next one being read while the caller works on one. `pages` is closed at the end."""
    if not threaded:
        yield from pages
        return
    with ThreadPoolExecutor(1, thread_name_prefix="dbnorm-read") as reader:
        here = copy_context()  # what the client finds in it, it finds in the other thread too
        end: Any = object()
        upcoming: Future[Any] = reader.submit(here.run, partial(next, pages, end))
        try:
            while (page := upcoming.result()) is not end:
                upcoming = reader.submit(here.run, partial(next, pages, end))
                yield page
        finally:
            upcoming.cancel() or upcoming.exception()
            close = getattr(pages, "close", None)
            if close is not None:
                reader.submit(here.run, close).result()


def worked_ahead(pages: Iterator[T], work: Callable[[T], R], *, threaded: bool) -> Generator[tuple[T, Callable[[], R]]]:
    """Each page, and what returns `work(page)` when it is called, once for each page and in their order.

    Where reading and writing have threads of their own, the work is done there and then. Otherwise the caller is busy
    with both, and some pages are worked on ahead meanwhile, in another thread.
    """
    if threaded:
        for page in pages:
            yield page, partial(work, page)
        return
    with ThreadPoolExecutor(1, thread_name_prefix="dbnorm-compute") as worker, _TURNS.short():
        pending: deque[tuple[T, Callable[[], R]]] = deque()
        try:
            for page in pages:
                pending.append((page, worker.submit(copy_context().run, work, page).result))
                if len(pending) > _AHEAD:
                    yield pending.popleft()
            while pending:
                yield pending.popleft()
        except BaseException:  # the caller has stopped, too
            worker.shutdown(wait=True, cancel_futures=True)
            raise


class WriteBehind:
    """Writes handed over one after the other: one is under way, a few wait.

    An error surfaces at the next call, and nothing that waits behind it is written.
    """

    def __init__(self, *, threaded: bool) -> None:
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="dbnorm-write") if threaded else None
        self._pending: deque[Future[Any]] = deque()
        self._failed = False

    def __enter__(self) -> WriteBehind:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._failed = self._failed or kind is not None
        try:
            if kind is None:
                self.wait()
        finally:
            if self._writer is not None:
                self._writer.shutdown(wait=True)

    def submit(self, write: Callable[..., Any], *arguments: Any, **options: Any) -> None:
        """Write this after those before; where too many wait, once the first of them is done."""
        if self._writer is None:
            write(*arguments, **options)
            return
        self._wait_for(_WAITING)
        self._pending.append(self._writer.submit(copy_context().run, self._write, write, *arguments, **options))

    def _write(self, write: Callable[..., Any], *arguments: Any, **options: Any) -> None:
        if self._failed:
            return
        try:
            write(*arguments, **options)
        except BaseException:
            self._failed = True
            raise

    def wait(self) -> None:
        """Return when all is written; raise what went wrong."""
        self._wait_for(0)

    def _wait_for(self, left: int) -> None:
        while self._pending and (len(self._pending) > left or self._pending[0].done()):
            self._pending.popleft().result()


class _Turns:
    """How long a thread keeps the interpreter while others wait for it.

    One that computes needs it for microseconds, between long steps without it. Beside a thread that runs Python (an
    embedded engine) it would wait for 5 ms each time.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._users = 0
        self._before = self._set = 0.0

    @contextmanager
    def short(self) -> Iterator[None]:
        """A tenth of a millisecond at most, for all; afterwards what it was, unless somebody else has changed it."""
        with self._lock:
            if not self._users:
                self._before = sys.getswitchinterval()
                if self._before > _SHORT_TURN:
                    sys.setswitchinterval(_SHORT_TURN)
                self._set = sys.getswitchinterval()
            self._users += 1
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                if not self._users and sys.getswitchinterval() == self._set != self._before:
                    sys.setswitchinterval(self._before)


_TURNS = _Turns()


def side_by_side(first: Callable[[], T], second: Callable[[], T], *, threaded: bool) -> tuple[T, T]:
    """What both return, the second one asked in another thread."""
    if not threaded:
        return first(), second()
    with ThreadPoolExecutor(1, thread_name_prefix="dbnorm-read") as other:
        pending = other.submit(copy_context().run, second)
        return first(), pending.result()


class Pace:
    """Keeps a loop from going faster than a database is meant to be read.

    Args:
        most: items a second, on average since the start; None for as fast as it goes.
    """

    def __init__(self, most: float | None) -> None:
        self._most = most
        self._started = time.monotonic()
        self._done = 0

    def wait(self, items: int) -> None:
        """Sleep until these items, after all those before, are within the pace."""
        self._done += items
        if self._most is not None:
            time.sleep(max(0.0, self._started + self._done / self._most - time.monotonic()))
