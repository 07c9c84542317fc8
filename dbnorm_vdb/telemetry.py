"""Telemetry through the OpenTelemetry API, where that package is there (extra `otel`).

Nothing is configured here: spans and measurements go to the providers that the program has set, whenever it does so,
and nowhere without. Attributes name places, methods and counts; vectors, ids, filters and payloads stay out, and so do
the messages of errors, which may quote them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from enum import Enum
from typing import NamedTuple, ParamSpec, TypeVar

from dbnorm_vdb.version import __version__

try:
    from opentelemetry import metrics, trace
except ImportError:
    PRESENT = False
    """Whether there is anything to be told to. If not, nothing else here is called."""
else:
    PRESENT = True
    _tracer = trace.get_tracer("dbnorm_vdb", __version__)
    _meter = metrics.get_meter("dbnorm_vdb", __version__)
    _queries = _meter.create_counter("dbnorm.queries", "{query}", "Queries answered, by outcome.")
    _windows = _meter.create_histogram("dbnorm.window.size", "{candidate}", "Candidates that a query's result is from.")

P = ParamSpec("P")
T = TypeVar("T")


def listening() -> bool:
    """Whether the program has set a provider that may record something; if not, nothing else here need be called."""
    return PRESENT and not (
        isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)
        and type(metrics.get_meter_provider()).__name__ == "_ProxyMeterProvider"
    )


def within_search() -> bool:
    """Whether this is part of a search that tells what it does; soon told, where none does."""
    return _search.get() is not None


class Result(Enum):
    """How a query was answered; the worst first."""

    FALLBACK = "fallback"
    """Raw, for want of statistics."""
    RAW = "raw"
    """Raw, as asked for."""
    UNCERTIFIED = "uncertified"
    CERTIFIED = "certified"


class Answered(NamedTuple):
    """How some queries with a plan in common were answered.

    Attributes:
        method: how they were scored.
        wanted: how many of the best count.
        results: how many queries came to which result.
        windows: candidates of each query, where that is known.
        rounds: requests for candidates.
    """

    method: str
    wanted: int
    results: Mapping[Result, int]
    windows: Sequence[int] = ()
    rounds: int = 1


class _SearchSpan:
    """The span of a search, which may answer in several parts."""

    def __init__(self, span: trace.Span) -> None:
        self._span = span
        self._parts: list[Answered] = []

    def add(self, answered: Answered) -> None:
        if not self._span.is_recording():
            return
        parts = self._parts
        parts.append(answered)
        results = {result for part in parts for result, count in part.results.items() if count}
        queries = sum(count for part in parts for count in part.results.values())
        windows = [window for part in parts for window in part.windows]
        self._span.set_attributes(
            {
                "dbnorm.method": answered.method,
                "dbnorm.wanted": max(part.wanted for part in parts),
                "dbnorm.rounds": max(part.rounds for part in parts),
                **({"dbnorm.outcome": next(result.value for result in Result if result in results)} if results else {}),
                **({"dbnorm.window.size": max(windows)} if windows else {}),
                **({"db.operation.batch.size": queries} if queries > 1 else {}),
            }
        )


_search: ContextVar[_SearchSpan | None] = ContextVar("dbnorm_search", default=None)


@contextmanager
def span(name: str, attributes: Mapping[str, str] | None = None) -> Iterator[trace.Span]:
    """A span around a block; an error in it is told by its class."""
    current = _tracer.start_span(name, attributes=attributes)
    if not current.get_span_context().is_valid:  # nobody has set a provider
        yield current
        return
    with trace.use_span(current, end_on_exit=True, record_exception=False, set_status_on_exception=False):
        try:
            yield current
        except BaseException as error:
            kind = type(error)
            where = "" if kind.__module__ == "builtins" else f"{kind.__module__}."
            current.set_attribute("error.type", where + kind.__qualname__)
            current.set_status(trace.StatusCode.ERROR)
            raise


@contextmanager
def search_span(place: Mapping[str, str], operation: str) -> Iterator[None]:
    """The span of a search; what `answered` is told within is told of it."""
    with span("dbnorm.search", {**place, "db.operation.name": operation}) as current:
        token = _search.set(_SearchSpan(current))
        try:
            yield
        finally:
            _search.reset(token)


def spanned(name: str) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Decorates functions that are to have a span of their own."""

    def decorated(function: Callable[P, T]) -> Callable[P, T]:
        if not PRESENT:
            return function

        @functools.wraps(function)
        def within(*args: P.args, **kwargs: P.kwargs) -> T:
            if not listening():
                return function(*args, **kwargs)
            with span(name):
                return function(*args, **kwargs)

        return within

    return decorated


def count(where: Mapping[str, str], answered: Answered) -> None:
    """Count how queries were answered, and tell it of the span of the search they belong to."""
    attributes = {**where, "dbnorm.method": answered.method}
    for result, queries in answered.results.items():
        if queries:
            _queries.add(queries, {**attributes, "dbnorm.outcome": result.value})
    for window in answered.windows:
        _windows.record(window, attributes)
    search = _search.get()
    if search is not None:
        search.add(answered)
