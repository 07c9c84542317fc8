"""Spans around steps, and what is left of them without OpenTelemetry."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Generator
from functools import partial
from typing import Any

import pytest
from opentelemetry import trace
from recorded import Recorded, own, parent

from dbnorm_vdb import telemetry
from dbnorm_vdb.eventloop import run_async
from dbnorm_vdb.steps import Call, Each, Steps, Within, Work, run
from dbnorm_vdb.telemetry import Answered, Result


class Client:
    """A client whose calls have spans, as instrumentation makes them."""

    tracer = trace.get_tracer("client")

    def ask(self, question: str) -> str:
        with self.tracer.start_as_current_span(f"ask {question}"):
            return question

    def fail(self) -> None:
        raise RuntimeError("the filter was: secret")


class AsyncClient(Client):
    def __init__(self) -> None:
        self.waiting = asyncio.Event()

    async def ask(self, question: str) -> str:  # type: ignore[override]
        with self.tracer.start_as_current_span(f"ask {question}"):
            await asyncio.sleep(0)
            return question

    async def fail(self) -> None:  # type: ignore[override]
        raise RuntimeError("the filter was: secret")

    async def wait(self) -> None:
        """For ever."""
        self.waiting.set()
        await asyncio.Event().wait()


def within(name: str, steps: Steps[Any]) -> Steps[Any]:
    return (yield Within(partial(telemetry.span, name), steps))


def asking(question: str) -> Steps[Any]:
    return (yield Call("ask", (question,)))


def taken(steps: Steps[Any], *, on_loop: bool) -> Any:
    async def awaited() -> Any:
        return await run_async(steps, AsyncClient())

    return asyncio.run(awaited()) if on_loop else run(steps, Client())


@pytest.mark.parametrize("on_loop", [False, True], ids=["sync", "async"])
def test_what_steps_ask_for_is_within_their_span(recorded: Recorded, on_loop: bool) -> None:
    @telemetry.spanned("work")
    def work() -> int:
        return 1

    def inner() -> Steps[Any]:
        answers = yield Each([asking("a"), asking("b")])
        return answers, (yield Work(work))

    def outer() -> Steps[Any]:
        found = yield from within("inner", inner())
        yield from asking("c")
        return found

    assert taken(within("outer", outer()), on_loop=on_loop) == (["a", "b"], 1)
    spans = {span.name: span for span in recorded.spans()}
    parents = {
        name: next((n for n, s in spans.items() if own(s) == parent(span)), None) for name, span in spans.items()
    }
    assert parents == {
        "ask a": "inner",
        "ask b": "inner",
        "work": "inner",
        "ask c": "outer",
        "inner": "outer",
        "outer": None,
    }


def test_a_span_is_not_that_of_whoever_drives_the_steps() -> None:
    """Steps that wait have no span open outside."""
    steps = within("search", asking("a"))
    next(steps)
    assert not trace.get_current_span().get_span_context().is_valid
    steps.close()


@pytest.mark.parametrize("on_loop", [False, True], ids=["sync", "async"])
def test_an_error_is_told_by_its_class_alone(recorded: Recorded, on_loop: bool) -> None:
    def failing() -> Generator[Any, Any, None]:
        yield Call("fail")

    with pytest.raises(RuntimeError, match="secret"):
        taken(within("search", failing()), on_loop=on_loop)
    (span,) = recorded.spans()
    assert span.status.status_code is trace.StatusCode.ERROR
    assert dict(span.attributes or {}) == {"error.type": "RuntimeError"}
    assert "secret" not in span.to_json()


def test_steps_go_on_after_an_error_outside_its_span(recorded: Recorded) -> None:
    def failing() -> Generator[Any, Any, None]:
        yield Call("fail")

    def recovering() -> Steps[Any]:
        try:
            yield from within("first", failing())
        except RuntimeError:
            return (yield from within("second", asking("a")))

    assert run(recovering(), Client()) == "a"
    first, asked, second = recorded.spans()
    assert (first.name, asked.name, second.name) == ("first", "ask a", "second")
    assert second.parent is None
    assert second.status.is_ok


def test_cancellation_ends_the_span(recorded: Recorded) -> None:
    async def cancelled() -> None:
        client = AsyncClient()

        def waiting() -> Generator[Any, Any, None]:
            yield Call("wait")

        task = asyncio.ensure_future(run_async(within("search", waiting()), client))
        await client.waiting.wait()
        assert not recorded.spans()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancelled())
    (span,) = recorded.spans()
    assert span.attributes == {"error.type": "asyncio.exceptions.CancelledError"}


def test_a_span_tells_the_whole_of_a_search_in_parts(recorded: Recorded) -> None:
    place = {"db.system.name": "engine", "db.collection.name": "parts"}
    with telemetry.search_span(place, "query_batch"):
        telemetry.count(place, Answered("is", 3, {Result.CERTIFIED: 2, Result.UNCERTIFIED: 0}, [40, 80], 2))
        telemetry.count(place, Answered("is", 7, {Result.CERTIFIED: 1, Result.UNCERTIFIED: 1}, [10, 10]))
    telemetry.count(place, Answered("raw", 7, {Result.FALLBACK: 1}))  # of no search
    assert recorded.search().attributes == {
        **place,
        "db.operation.name": "query_batch",
        "db.operation.batch.size": 4,
        "dbnorm.method": "is",
        "dbnorm.wanted": 7,
        "dbnorm.window.size": 80,
        "dbnorm.rounds": 2,
        "dbnorm.outcome": "uncertified",
    }
    assert recorded.outcomes("parts") == {"certified": 3, "uncertified": 1, "fallback": 1}
    (windows,) = recorded.points("dbnorm.window.size", "parts")
    assert (windows.count, windows.sum, windows.min, windows.max) == (4, 140, 10, 80)


SEARCHED = """
import sys
{before}
import numpy as np
from qdrant_client import QdrantClient, models
from dbnorm_qdrant import QdrantAdapter, wrap
from dbnorm_vdb import telemetry

rng = np.random.default_rng(0)
items = rng.normal(size=(50, 4))
client = QdrantClient(":memory:")
client.create_collection("images", vectors_config=models.VectorParams(size=4, distance=models.Distance.COSINE))
images = QdrantAdapter(client, "images")
client.upsert("images", [models.PointStruct(id=row, vector=vector) for row, vector in enumerate(items.tolist())])
{after}
query = items[0].tolist()
raw = images.query_points(query=query, limit=3)  # a fallback
images.fit(query_bank=rng.normal(size=(20, 4)), method="is")
found = [
    images.query_points(query=query, limit=3, exact=True),
    images.query_points(query=query, limit=3, execution="server"),
    images.query_batch_points([models.QueryRequest(query=query, limit=3)])[0],
    wrap(client).query_points("images", query=query, limit=3),
]
print(telemetry.PRESENT, [point.id for point in raw.points], [[point.id for point in one.points] for one in found])
"""

ABSENT = {
    "before": "sys.modules['opentelemetry'] = None",
    "after": "telemetry.span = telemetry.search_span = telemetry.count = None  # cannot be called",
}
UNUSED = {"before": "", "after": ""}


def test_searches_do_nothing_of_it_where_it_is_absent_and_the_same_where_it_is_not_set_up() -> None:
    absent, unused = (
        subprocess.check_output([sys.executable, "-c", SEARCHED.format(**parts)], text=True, timeout=120)
        for parts in (ABSENT, UNUSED)
    )
    assert absent.startswith("False [0, ")
    assert unused.startswith("True [0, ")
    assert absent.removeprefix("False") == unused.removeprefix("True")
