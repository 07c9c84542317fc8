"""A collection that lives on: items that are upserted, changed and deleted, and what refresh makes of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from adapters.world import METHODS, World
from harness import Engine
from oracle import assert_same_order

from dbnorm_vdb import FitInProgressError, NotFittedError, StatisticsError

ALL_METHODS = (*METHODS, "sinkhorn")
TOLERANCE = {"relative": 1e-3, "absolute": 2e-6}


@pytest.fixture(scope="module")
def world() -> World:
    return World.make("dot", n=60)


@pytest.fixture
def collection(engine: Engine, world: World) -> Iterator[str]:
    """Half of the world's items."""
    name = engine.create(world.items[:30], metric="dot")
    yield name
    engine.adapter(name).drop()
    engine.drop_collection(name)


@pytest.fixture
def quick_collection(quick_engine: Engine, world: World) -> Iterator[str]:
    name = quick_engine.create(world.items[:30], metric="dot")
    yield name
    quick_engine.adapter(name).drop()
    quick_engine.drop_collection(name)


def payloads(first: int, last: int) -> list[dict[str, Any]]:
    return [{"number": row, "title": f"item {row}"} for row in range(first, last)]


def assert_served_like_the_oracle(engine: Engine, adapter: Any, world: World, method: str) -> None:
    for query, order in zip(world.queries[:6], world.order_oracle(method), strict=False):
        found = engine.search(adapter, None, query, limit=60, candidates=60, method=method)
        assert_same_order([hit.id for hit in found], order, **TOLERANCE)


def test_half_and_half_is_the_whole(engine: Engine, world: World, collection: str) -> None:
    """Fit on everything = fit on half, upsert the rest, refresh."""
    adapter = engine.adapter(collection)
    world.fit(adapter, method="dual_dis")
    engine.upsert(adapter, list(range(30, 60)), world.items[30:], payloads(30, 60))
    status = engine.adapter(collection).status()
    assert (status.item_count, status.fitted_count) == (60, 60)
    for method in ("is", "dual_is"):
        assert_served_like_the_oracle(engine, engine.adapter(collection), world, method)
    summary = adapter.refresh(page_size=17)
    assert (summary.item_count, summary.removed_count, summary.written_count) == (60, 0, 0)
    fresh = engine.adapter(collection)
    for method in METHODS:
        assert_served_like_the_oracle(engine, fresh, world, method)
    whole = world.fit(adapter, method="dual_dis").statistics
    times = {"generation", "fitted_at", "revision", "refreshed_at", "fitted_item_count"}
    ours, theirs = (statistics.model_dump(exclude=times) for statistics in (summary.statistics, whole))
    for bank in ("query", "gallery"):
        values = [{**s[bank]["bias"].pop("quantiles"), **s[bank].pop("bias")} for s in (ours, theirs)]
        assert values[0] == pytest.approx(values[1], abs=1e-6)
    assert ours.pop("lowest_dual_adjustment") == pytest.approx(theirs.pop("lowest_dual_adjustment"), abs=1e-6)
    assert ours == theirs


def test_items_that_came_changed_and_went(engine: Engine, world: World, collection: str) -> None:
    """By the client's own calls, of which the adapter knows nothing: refresh finds out."""
    adapter, reader = engine.adapter(collection), engine.adapter(collection, statistics_ttl=0)
    world.fit(adapter, method="sinkhorn")
    engine.search(reader, None, world.queries[0], limit=5)
    engine.insert(collection, list(range(30, 60)), world.items[30:], payloads(30, 60))
    engine.delete(collection, [3, 4])
    engine.insert(collection, [3, 4], world.items[[4, 3]], payloads(3, 5))  # they change places
    engine.insert(collection, [99], world.items[:1], payloads(99, 100))
    status = engine.adapter(collection).status()
    assert any(advice.startswith("refresh: ") for advice in status.advice)
    assert any("had 30 items when it was fitted, and has 61" in advice for advice in status.advice)
    summary = adapter.refresh(page_size=17)
    assert (summary.item_count, summary.written_count, summary.removed_count) == (61, 33, 0)
    engine.delete(collection, [99])
    engine.delete(collection, [3, 4])
    engine.insert(collection, [3, 4], world.items[[3, 4]], payloads(3, 5))
    summary = adapter.refresh()
    gone = 0 if engine.name.startswith("qdrant") else 1
    assert (summary.item_count, summary.written_count, summary.removed_count) == (60, 2, gone)
    assert summary.statistics.revision == 2
    for method in METHODS:
        assert_served_like_the_oracle(engine, reader, world, method)
    again = adapter.refresh()
    assert (again.written_count, again.removed_count) == (0, 0)


def test_new_items_may_reach_beyond_the_bounds(engine: Engine, world: World, collection: str) -> None:
    """Bounds hold at once, in every process, and are exact again after a refresh."""
    adapter = engine.adapter(collection)
    fitted = world.fit(adapter, method="sinkhorn").statistics
    engine.upsert(adapter, [100], world.query_bank[:1] * 3, payloads(100, 101))  # nearer to queries than any item
    engine.upsert(adapter, [101], -10 * world.query_bank.mean(axis=0, keepdims=True), payloads(101, 102))
    active = engine.adapter(collection).status().active
    assert active is not None
    before, now = fitted.columns, active.columns
    assert now["query"].bias.min < before["query"].bias.min - 0.1
    for name in ("query", "sinkhorn"):
        assert now[name].bias.max > before[name].bias.max + 0.1
    assert active.lowest_dual_adjustment < fitted.lowest_dual_adjustment
    refreshed = adapter.refresh().statistics
    assert refreshed.query is not None
    assert active.query is not None
    assert active.query.bias.min < refreshed.query.bias.min < refreshed.query.bias.max < active.query.bias.max
    assert engine.adapter(collection).status().active.query.bias.max >= refreshed.query.bias.max
    adapter.drop()
    assert not [key for key, value in adapter._store.read_documents().items() if value not in (None, "")]


def test_a_changed_item_is_served_with_its_new_statistics(
    quick_engine: Engine, world: World, quick_collection: str
) -> None:
    adapter = quick_engine.adapter(quick_collection)
    world.fit(adapter, method="is")
    query = world.queries[0]
    quick_engine.search(adapter, None, query, limit=30, candidates=30)
    quick_engine.upsert(adapter, [7], world.items[40:41], payloads(7, 8))
    after = {hit.id: hit.score for hit in quick_engine.search(adapter, None, query, limit=30, candidates=30)}
    quick_engine.upsert(adapter, [8], world.items[40:41], payloads(8, 9))
    fresh = quick_engine.adapter(quick_collection)
    both = {hit.id: hit.score for hit in quick_engine.search(fresh, None, query, limit=30, candidates=30)}
    assert after[7] == pytest.approx(both[7], abs=1e-6)
    assert both[7] == pytest.approx(both[8], abs=1e-6)


def test_without_statistics_upsert_is_the_clients_and_refresh_is_refused(
    quick_engine: Engine, world: World, quick_collection: str
) -> None:
    before = quick_engine.snapshot(quick_collection)
    adapter = quick_engine.adapter(quick_collection)
    with pytest.raises(NotFittedError, match=r"no statistics to refresh; call fit\(\)"):
        adapter.refresh()
    assert quick_engine.snapshot(quick_collection) == before
    quick_engine.upsert(adapter, [500], world.items[:1], payloads(500, 501))
    assert quick_engine.adapter(quick_collection).status().item_count == 31
    assert quick_engine.snapshot(quick_collection)["collections"] == before["collections"]


def test_refresh_and_fit_exclude_each_other(quick_engine: Engine, world: World, quick_collection: str) -> None:
    adapter = quick_engine.adapter(quick_collection)
    world.fit(adapter)
    refused = []

    def meanwhile(stage: str, done: int, total: int) -> None:
        if stage == "items" and done == 30:
            for call in (world.fit, lambda a: a.refresh(), lambda a: a.drop()):
                with pytest.raises(FitInProgressError):
                    call(quick_engine.adapter(quick_collection))
                refused.append(call)

    adapter.refresh(progress=meanwhile)
    assert len(refused) == 3
    assert quick_engine.adapter(quick_collection).status().writing is None


def test_a_bank_that_somebody_changed_is_not_used(quick_engine: Engine, world: World, quick_collection: str) -> None:
    adapter = quick_engine.adapter(quick_collection)
    generation = world.fit(adapter).statistics.generation
    adapter._store.write_bank(generation, "query", np.concatenate([world.query_bank, world.query_bank[:2]]), None)
    before = quick_engine.snapshot(quick_collection)
    fresh = quick_engine.adapter(quick_collection)
    with pytest.raises(StatisticsError, match="stored query bank .* is not the one that was fitted"):
        fresh.refresh()
    with pytest.raises(StatisticsError, match="stored query bank"):
        quick_engine.upsert(fresh, [500], world.items[:1], payloads(500, 501))
    assert quick_engine.snapshot(quick_collection).get("points") == before.get("points")
    assert quick_engine.snapshot(quick_collection).get("rows") == before.get("rows")


@pytest.mark.parametrize("pace", [0, -5, float("nan"), "fast"])
def test_a_pace_that_makes_no_sense_writes_nothing(qdrant_local: Engine, world: World, pace: Any) -> None:
    name = qdrant_local.create(world.items[:30], metric="dot")
    before = qdrant_local.snapshot(name)
    with pytest.raises(ValueError, match=f"max_items_per_second .* got {pace!r}"):
        world.fit(qdrant_local.adapter(name), max_items_per_second=pace)
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        world.fit(qdrant_local.adapter(name), batch_size=0)
    assert qdrant_local.snapshot(name) == before
    qdrant_local.drop_collection(name)


def test_a_pace_is_kept(qdrant_local: Engine, world: World) -> None:
    name = qdrant_local.create(world.items[:30], metric="dot")
    summary = world.fit(qdrant_local.adapter(name), max_items_per_second=60, batch_size=7)
    assert summary.item_count == 30
    assert summary.seconds >= 0.5 * 0.9
    qdrant_local.drop_collection(name)


def test_a_sinkhorn_fit_shows_that_it_converges(quick_engine: Engine, world: World, quick_collection: str) -> None:
    steps: list[tuple[int, int]] = []

    def progress(stage: str, done: int, total: int) -> None:
        if stage == "sinkhorn steps":
            steps.append((done, total))

    summary = world.fit(
        quick_engine.adapter(quick_collection), method="sinkhorn", iterations=15, sample_size=20, progress=progress
    )
    learned = summary.statistics.sinkhorn
    assert learned is not None
    assert (learned.iterations, learned.sample_size, len(learned.changes)) == (15, 20, 14)
    assert learned.changes[-1] < 0.1 * learned.changes[0]
    assert steps == [(step, 14) for step in range(1, 15)]
    _, weights = quick_engine.adapter(quick_collection)._store.read_bank(summary.statistics.generation, "query")
    assert weights is not None
    assert np.exp(weights).sum() == pytest.approx(len(world.query_bank))
