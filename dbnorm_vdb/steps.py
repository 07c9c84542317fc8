"""Searches as steps: written once, run by a sync client at once and by an async one on its event loop.

What a search needs from outside it yields, and is sent the answer: a `Call` of the user's client, `Work` of ours that
may block (reading statistics, much arithmetic), several such searches that do not depend on each other, or steps that
are to be taken within a context manager, or that have to end in time. `run` does what is asked for in the calling
thread; `dbnorm_vdb.eventloop` awaits it.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Hashable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeAlias, TypeVar

from dbnorm_vdb.deadline import Deadline, in_time
from dbnorm_vdb.errors import DBNormError

T = TypeVar("T")


@dataclass(frozen=True)
class Call:
    """A call of the user's client."""

    method: str
    arguments: Sequence[Any] = ()
    options: Mapping[str, Any] = field(default_factory=dict)

    def of(self, client: Any) -> Any:
        """Make it; what an async client returns has to be awaited."""
        return getattr(client, self.method)(*self.arguments, **self.options)


@dataclass(frozen=True)
class Work:
    """Something of ours that may take long enough to hold up an event loop.

    Attributes:
        function: to be called.
        key: searches that ask at once for work of the same key share it; None if it may not be shared.
        writes: whether it may write to the database.
    """

    function: Callable[[], Any]
    key: Hashable = None
    writes: bool = False


@dataclass(frozen=True)
class Each:
    """Steps that do not depend on each other; their results are sent back in the same order."""

    steps: Sequence[Steps[Any]]


@dataclass(frozen=True)
class InTime:
    """Steps that are given up when they are late; whatever they are at then goes on, and nobody waits for it."""

    steps: Steps[Any]
    deadline: Deadline


@dataclass(frozen=True)
class Within:
    """Steps to be taken within a context manager: one that steps entered themselves would stay entered while they wait.

    Attributes:
        manager: makes it.
        steps: whose result is sent back.
    """

    manager: Callable[[], AbstractContextManager[Any]]
    steps: Steps[Any]


Request: TypeAlias = Call | Work | Each | InTime | Within
Steps: TypeAlias = Generator[Request, Any, T]


def call(method: str, *arguments: Any, **options: Any) -> Steps[Any]:
    """One call of the client, as steps."""
    return (yield Call(method, arguments, options))


def done(result: T) -> Steps[T]:
    """No steps: the result is there."""
    return result
    yield  # makes this a generator


def within(deadline: Deadline, steps: Steps[T]) -> Steps[T]:
    """Steps that have to end by the deadline, if there is one.

    Raises:
        StatisticsTimeoutError: they do not, whether we see that first or the client.
    """
    if not deadline.is_set:
        return (yield from steps)
    try:
        result: T = yield InTime(steps, deadline)
    except Exception as error:
        if isinstance(error, DBNormError) or not deadline.is_over:
            raise
        raise deadline.late() from error
    return result


def work(function: Callable[[], T], *, key: Hashable = None) -> Steps[T]:
    """One piece of work that reads, as steps."""
    result: T = yield Work(function, key)
    return result


def run(steps: Steps[T], client: Any) -> T:
    """Take the steps one after the other in this thread."""
    try:
        request = next(steps)
        while True:
            try:
                answer = _answer(request, client)
            except BaseException as error:  # noqa: PERF203 - any answer may be an error, for the steps to deal with
                request = steps.throw(error)
            else:
                request = steps.send(answer)
    except StopIteration as stop:
        result: T = stop.value
        return result


def _answer(request: Request, client: Any) -> Any:
    if isinstance(request, Call):
        return request.of(client)
    if isinstance(request, Work):
        return request.function()
    if isinstance(request, InTime):
        return in_time(partial(run, request.steps, client), request.deadline)
    if isinstance(request, Within):
        with request.manager():
            return run(request.steps, client)
    return [run(steps, client) for steps in request.steps]
