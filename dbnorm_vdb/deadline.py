"""The time that a caller gives a search, its `timeout`: what we do besides the search itself is to fit into it."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from contextvars import copy_context
from typing import Any, NamedTuple, TypeVar

from dbnorm_vdb.errors import StatisticsTimeoutError

T = TypeVar("T")

_UNNOTICED = 0.1
"""Seconds that do not count: an engine may take whole ones, and clients do not look at the clock when we do."""


class Deadline(NamedTuple):
    """When a search is to be answered.

    Attributes:
        at: on the monotonic clock; infinite if the caller set no time.
        timeout: what the caller said, for the client.
    """

    at: float = math.inf
    timeout: Any = None

    @classmethod
    def after(cls, timeout: Any) -> Deadline:
        """So many seconds from now, unless it is a deadline already.

        What is no number is for the client to refuse, and more than can be waited for is as good as no time.
        """
        if isinstance(timeout, Deadline):
            return timeout
        number = isinstance(timeout, (int, float)) and not isinstance(timeout, bool)
        counts = number and 0 < timeout < threading.TIMEOUT_MAX
        return cls(time.monotonic() + timeout if counts else math.inf, timeout)

    @property
    def is_set(self) -> bool:
        """Whether the caller set a time."""
        return self.at < math.inf

    def left(self) -> float:
        """Seconds; 0 if it has passed."""
        return max(self.at - time.monotonic(), 0.0)

    @property
    def is_over(self) -> bool:
        """Whether hardly anything is left: clients that were given the rest of the time give up by now."""
        return self.left() <= _UNNOTICED

    def halfway(self) -> Deadline:
        """At half of what is left: the other half is for the search itself."""
        return self._replace(at=self.at - self.left() / 2) if self.is_set else self

    def client_timeout(self, *, whole_seconds: bool = False) -> Any:
        """What is left, as the client's own argument `timeout`."""
        if not self.is_set:
            return self.timeout
        if whole_seconds:
            return max(math.ceil(self.left() - _UNNOTICED), 1)
        return max(self.left(), 0.001)

    def late(self) -> StatisticsTimeoutError:
        """The error that says so."""
        return StatisticsTimeoutError(
            f"what a normalised search needs besides the search itself did not come within its timeout of"
            f" {self.timeout} s; raise the timeout, or search with method='raw'"
        )


NO_DEADLINE = Deadline()


_places = threading.Semaphore(128)
"""For so many threads: those that are late may stay for long, where a database does not answer."""


def in_time(function: Callable[[], T], deadline: Deadline) -> T:
    """What a function returns or raises. It is called in a thread, which is left to itself when it is late.

    Raises:
        StatisticsTimeoutError: it is.
    """
    outcome: Future[T] = Future()

    def work() -> None:
        try:
            outcome.set_result(function())
        except BaseException as error:  # for whoever waits
            outcome.set_exception(error)
        finally:
            _places.release()

    if deadline.left() > 0 and _places.acquire(timeout=deadline.left()):
        threading.Thread(target=copy_context().run, args=(work,), name="dbnorm-in-time", daemon=True).start()
        if wait([outcome], deadline.left()).done:
            return outcome.result()
    raise deadline.late()
