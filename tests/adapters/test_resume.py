"""An interrupted fit goes on where it stopped, with the result of one that was not interrupted."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from adapters.world import World
from harness import Engine

from dbnorm_vdb import FitSummary, writing
from dbnorm_vdb.collection import NormalizedCollection

WORLD = World.make("dot", n=60)


class InterruptionError(Exception):
    """Stands for whatever ends a fit before its time."""


@pytest.fixture(autouse=True)
def _a_checkpoint_after_every_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "CHECKPOINT_EVERY", 0.0)


@pytest.fixture(scope="module")
def collection(engine: Engine) -> Iterator[str]:
    name = engine.create(WORLD.items, metric="dot")
    yield name
    engine.adapter(name).drop()
    engine.drop_collection(name)


@pytest.fixture(scope="module", params=["integers", "text"])
def quick_collection(quick_engine: Engine, request: pytest.FixtureRequest) -> Iterator[str]:
    ids = None if request.param == "integers" else sorted(quick_engine.string_ids(60))
    name = quick_engine.create(WORLD.items, metric="dot", ids=ids)
    yield name
    quick_engine.adapter(name).drop()
    quick_engine.drop_collection(name)


def fit(adapter: NormalizedCollection, *, stop_at: int | None = None, **settings: Any) -> FitSummary:
    def progress(stage: str, done: int, total: int) -> None:
        if stage == "items" and stop_at is not None and done >= stop_at:
            raise InterruptionError

    summary: FitSummary = WORLD.fit(adapter, page_size=10, progress=progress, **settings)
    return summary


def interrupt(adapter: NormalizedCollection, stop_at: int, **settings: Any) -> None:
    with pytest.raises(InterruptionError):
        fit(adapter, stop_at=stop_at, **settings)


def read_from_now_on(adapter: NormalizedCollection) -> list[Any]:
    """The ids that the adapter's fit reads vectors of, as it reads them."""
    read: list[Any] = []
    pages = adapter._store.pages

    def spy(size: int, **kwargs: Any) -> Any:
        for page in pages(size, **kwargs):
            if size == 10:
                read.extend(page.ids)
            yield page

    adapter._store.pages = spy
    return read


def comparable(summary: FitSummary) -> dict[str, Any]:
    return summary.statistics.model_dump(exclude={"generation", "fitted_at"})


def test_it_goes_on_where_it_stopped(engine: Engine, collection: str) -> None:
    assert_it_goes_on(engine, collection, "sinkhorn")


@pytest.mark.parametrize("method", ["dual_dis", "sinkhorn"])
def test_it_goes_on_whatever_the_method_and_the_ids(quick_engine: Engine, quick_collection: str, method: str) -> None:
    assert_it_goes_on(quick_engine, quick_collection, method)


@pytest.mark.parametrize("quick_collection", ["integers"], indirect=True)
def test_a_fit_of_nnn_goes_on(quick_engine: Engine, quick_collection: str) -> None:
    assert_it_goes_on(quick_engine, quick_collection, "nnn")


def assert_it_goes_on(engine: Engine, collection: str, method: str) -> None:
    adapter = engine.adapter(collection)
    whole = fit(adapter, method=method)
    served = [engine.search(adapter, None, query, limit=60, candidates=60) for query in WORLD.queries]
    adapter.drop()
    interrupt(adapter, 20, method=method)
    interrupt(engine.adapter(collection), 40, method=method)
    again = engine.adapter(collection)
    read = read_from_now_on(again)
    resumed = fit(again, method=method)
    assert (resumed.resumed_count, resumed.item_count, resumed.missing_count) == (40, 60, 0)
    first, rest = read[:10], read[10:]  # whether there is something to fit, and then what was left
    assert len(set(rest)) == len(rest) == 20
    assert not set(first) & set(rest)
    assert comparable(resumed) == comparable(whole)
    fresh = engine.adapter(collection)
    for query, before in zip(WORLD.queries, served, strict=True):
        after = engine.search(fresh, None, query, limit=60, candidates=60)
        assert [hit.id for hit in after] == [hit.id for hit in before]
        np.testing.assert_allclose([h.score for h in after], [h.score for h in before], atol=1e-6)
    assert fresh.status().writing is None
    assert fresh._store.read_checkpoint(resumed.statistics.generation) is None


def test_another_fit_starts_afresh(quick_engine: Engine, quick_collection: str) -> None:
    adapter = quick_engine.adapter(quick_collection)
    for settings in ({"query_beta": 33.0}, {"activation_k": 2}, {"method": "is"}):
        interrupt(adapter, 30)
        summary = fit(quick_engine.adapter(quick_collection), **settings)
        assert (summary.resumed_count, summary.item_count) == (0, 60), settings
    interrupt(adapter, 30)
    assert fit(quick_engine.adapter(quick_collection), resume=False).resumed_count == 0


def test_an_interrupted_fit_is_remembered_across_a_refresh(quick_engine: Engine, quick_collection: str) -> None:
    adapter = quick_engine.adapter(quick_collection)
    fit(adapter, query_beta=7.0)
    for settings, resumed in (({}, 30), ({"query_beta": 33.0}, 0)):
        interrupt(adapter, 30)
        served = adapter.refresh().statistics.generation
        assert adapter.status().active.generation == served
        summary = fit(quick_engine.adapter(quick_collection), **settings)
        assert (summary.resumed_count, summary.item_count) == (resumed, 60)


def test_what_was_written_after_the_last_checkpoint_is_written_again(
    quick_engine: Engine, quick_collection: str
) -> None:
    adapter = quick_engine.adapter(quick_collection)
    write, store = adapter._store.write_checkpoint, adapter._store
    store.write_checkpoint = lambda generation, number, data: write(generation, number, data) if number < 3 else None
    interrupt(adapter, 50)
    summary = fit(quick_engine.adapter(quick_collection))
    assert (summary.resumed_count, summary.item_count) == (20, 60)
    status = quick_engine.adapter(quick_collection).status()
    assert (status.fitted_count, status.item_count, status.coverage) == (60, 60, 1.0)


def test_a_checkpoint_that_was_not_written_whole_is_passed_over(quick_engine: Engine, quick_collection: str) -> None:
    adapter = quick_engine.adapter(quick_collection)
    write, store = adapter._store.write_checkpoint, adapter._store
    store.write_checkpoint = lambda generation, number, data: write(
        generation, number, data if number < 4 else data[: len(data) // 2]
    )
    interrupt(adapter, 40)
    assert fit(quick_engine.adapter(quick_collection)).resumed_count == 0, "the last one is damaged: all begins anew"
    assert quick_engine.adapter(quick_collection).status().coverage == 1.0


def test_items_that_come_behind_an_interrupted_fit_are_counted_as_missing(
    quick_engine: Engine, quick_collection: str
) -> None:
    adapter = quick_engine.adapter(quick_collection)
    interrupt(adapter, 30)
    first = sorted(hit.id for hit in quick_engine.search(adapter, None, WORLD.queries[0], limit=60, method="raw"))[0]
    quick_engine.delete(quick_collection, [first])
    quick_engine.insert(quick_collection, [first], WORLD.items[:1], [{"number": 0, "title": "item 0"}])
    summary = fit(quick_engine.adapter(quick_collection))
    assert (summary.resumed_count, summary.item_count) == (30, 60)
    replaced_the_payload = quick_engine.name.startswith("qdrant")
    assert summary.missing_count == int(replaced_the_payload)
    quick_engine.adapter(quick_collection).refresh()
    assert quick_engine.adapter(quick_collection).status().advice == []
