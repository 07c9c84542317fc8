"""Reading ahead and writing behind, while the thread that calls computes.

Only where the client may be used from several threads (a server), and worth most where it is another machine. An
embedded engine runs in our own process and gains nothing, so there each step simply happens in its turn.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from typing import Any, TypeVar

T = TypeVar("T")

_WAITING = 3


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
