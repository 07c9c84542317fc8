"""The method `nnn` on the engines: it is fitted, searched, kept up to date, and leaves room for the others."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from adapters.world import FIT, METHODS, METRICS, World
from harness import Engine
from oracle import assert_same_order

from dbnorm_vdb import UnsupportedMethodError

NNN: dict[str, Any] = {"nnn_alpha": 0.8, "nnn_k": 3}
TOLERANCE = {"relative": 1e-3, "absolute": 2e-6}
SIZE = 60


@pytest.fixture(params=METRICS)
def world(request: pytest.FixtureRequest) -> World:
    return World.make(request.param, n=SIZE)


@pytest.fixture
def collection(quick_engine: Engine, world: World) -> Iterator[str]:
    """Half of the world's items."""
    name = quick_engine.create(world.items[: SIZE // 2], metric=world.metric)
    yield name
    quick_engine.adapter(name).drop()
    quick_engine.drop_collection(name)


def add_the_rest(engine: Engine, to: Any, world: World) -> None:
    """The other half, through an adapter, or by the client itself."""
    ids = list(range(SIZE // 2, SIZE))
    payloads = [{"number": item, "title": f"item {item}"} for item in ids]
    add = engine.insert if isinstance(to, str) else engine.upsert
    add(to, ids, world.items[SIZE // 2 :], payloads)


def assert_served_like_the_oracle(engine: Engine, adapter: Any, world: World, method: str) -> None:
    settings = NNN if method == "nnn" else {}
    orders, scores = world.order_oracle(method, **settings), world.score_oracle(method, **settings)
    for query, order, expected in zip(world.queries[:6], orders, scores, strict=False):
        hits = engine.search(adapter, None, query, limit=SIZE, candidates=SIZE, method=method)
        ids = [hit.id for hit in hits]
        assert_same_order(ids, order, **TOLERANCE)
        if method == "nnn":
            promised = [engine.engine_score(score, world.metric) for score in expected[ids]]
            np.testing.assert_allclose([hit.score for hit in hits], promised, rtol=1e-4, atol=3e-4)


def test_a_fit_serves_nnn_and_every_method_of_its_banks(quick_engine: Engine, world: World, collection: str) -> None:
    add_the_rest(quick_engine, collection, world)
    adapter = quick_engine.adapter(collection)
    world.fit(adapter, method="nnn", **NNN)
    query = world.queries[0]
    assert quick_engine.search(adapter, None, query, limit=9) == quick_engine.search(
        adapter, None, query, limit=9, method="nnn"
    )
    fresh = quick_engine.adapter(collection)
    for method in (*METHODS, "nnn"):
        assert_served_like_the_oracle(quick_engine, fresh, world, method)
    with pytest.raises(UnsupportedMethodError, match="raw, is, dis, dual_is, dual_dis, nnn; fit with"):
        quick_engine.search(fresh, None, query, limit=9, method="sinkhorn")


@pytest.mark.parametrize("world", ["dot", "euclidean"], indirect=True)
def test_upsert_and_refresh_make_half_the_whole(quick_engine: Engine, world: World, collection: str) -> None:
    adapter = quick_engine.adapter(collection)
    fitted = world.fit(adapter, method="nnn", **NNN).statistics
    add_the_rest(quick_engine, adapter, world)
    widened = quick_engine.adapter(collection).status().active
    assert widened is not None
    refreshed = adapter.refresh(page_size=17)
    assert (refreshed.item_count, refreshed.written_count) == (SIZE, 0)
    assert_served_like_the_oracle(quick_engine, quick_engine.adapter(collection), world, "nnn")
    whole = world.fit(adapter, method="nnn", **NNN).statistics
    was, wide, ours, theirs = (one.nnn for one in (fitted, widened, refreshed.statistics, whole))
    assert was is not None
    assert wide is not None
    assert ours is not None
    assert theirs is not None
    assert (ours.alpha, ours.k) == (theirs.alpha, theirs.k) == (0.8, 3)
    for name in ("mean", "min", "max"):
        assert getattr(ours.bias, name) == pytest.approx(getattr(theirs.bias, name), abs=1e-6)
    assert wide.bias.min <= theirs.bias.min + 1e-6
    assert wide.bias.max >= theirs.bias.max - 1e-6
    assert was.bias.mean != pytest.approx(theirs.bias.mean, abs=1e-6)


@pytest.mark.parametrize("world", ["euclidean"], indirect=True)
def test_refresh_writes_what_the_client_has_put_there(quick_engine: Engine, world: World, collection: str) -> None:
    adapter = quick_engine.adapter(collection)
    adapter.fit(world.query_bank, method="nnn", query_beta=FIT["query_beta"], **NNN)
    add_the_rest(quick_engine, collection, world)
    assert adapter.refresh().written_count == SIZE // 2
    for method in ("is", "nnn"):
        assert_served_like_the_oracle(quick_engine, quick_engine.adapter(collection), world, method)
    assert adapter.refresh().written_count == 0


def test_without_numbers_it_is_csls_with_ten_neighbours(qdrant_local: Engine) -> None:
    world = World.make(n=20)
    collection = qdrant_local.create(world.items)
    adapter = qdrant_local.adapter(collection)
    learned = world.fit(adapter, method="nnn").statistics.nnn
    assert learned is not None
    assert (learned.alpha, learned.k) == (0.5, 10)
    found = qdrant_local.search(adapter, None, world.queries[0], limit=20, candidates=20)
    assert_same_order([hit.id for hit in found], world.order_oracle("nnn")[0], **TOLERANCE)
    adapter.drop()
    qdrant_local.drop_collection(collection)
