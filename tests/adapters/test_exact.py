"""Exact and explained searches: what they find, what they say of it, and what they ask of the engine."""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from adapters.world import METRICS, World
from harness import Engine, MilvusEngine

import dbnorm_vdb as db
from dbnorm_vdb.collection import NormalizedCollection

METHODS = ("is", "dis", "dual_is", "dual_dis", "sinkhorn")
N = 400


@pytest.fixture(scope="module")
def worlds(quick_engine: Engine) -> Iterator[dict[str, tuple[World, str, Any]]]:
    """For each metric a world, its collection, and a fitted adapter."""
    made: dict[str, tuple[World, str, Any]] = {}
    for metric in METRICS:
        world = World.make(metric, n=N)
        collection = quick_engine.create(world.items, metric=metric)
        adapter = quick_engine.adapter(collection)
        world.fit(adapter, method="sinkhorn")
        made[metric] = (world, collection, adapter)
    yield made
    for _, collection, adapter in made.values():
        adapter.drop()
        quick_engine.drop_collection(collection)


@pytest.fixture
def asked(quick_engine: Engine, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Of each search that reaches the engine: how many queries, how many hits."""
    calls: list[tuple[int, int]] = []
    client = quick_engine.client()
    if isinstance(quick_engine, MilvusEngine):
        search = client.search

        def recorded(*args: Any, **kwargs: Any) -> Any:
            calls.append((len(kwargs["data"]), kwargs["limit"]))
            return search(*args, **kwargs)

        monkeypatch.setattr(client, "search", recorded)
    else:
        query_points, batch = client.query_points, client.query_batch_points

        def one(*args: Any, **kwargs: Any) -> Any:
            calls.append((1, kwargs["limit"]))
            return query_points(*args, **kwargs)

        def several(name: str, requests: Any, **kwargs: Any) -> Any:
            calls.append((len(requests), requests[0].limit))
            return batch(name, requests, **kwargs)

        monkeypatch.setattr(client, "query_points", one)
        monkeypatch.setattr(client, "query_batch_points", several)
    return calls


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("method", METHODS)
def test_exact_searches_equal_those_of_the_whole_collection(
    quick_engine: Engine, worlds: Any, method: str, metric: str
) -> None:
    world, _, adapter = worlds[metric]
    found = adapter.nearest(world.queries, limit=10, candidates=12, method=method, exact=True)
    expected = adapter.nearest(world.queries, limit=10, candidates=N + 1, method=method)
    for hits, others in zip(found, expected, strict=True):
        # an engine's own scores may differ in the last digit with how many queries it is asked at once
        assert [hit.score for hit in hits] == pytest.approx([hit.score for hit in others], abs=1e-6)
        assert [(hit.id, hit.payload) for hit in hits] == [(hit.id, hit.payload) for hit in others]
    for below in (15, 200):
        options: dict[str, Any] = {"limit": 10, "below": below, "method": method}
        exact = quick_engine.search(adapter, None, world.queries[0], candidates=12, exact=True, **options)
        whole = quick_engine.search(adapter, None, world.queries[0], candidates=N + 1, **options)
        assert exact == whole


def test_only_what_is_not_certified_is_asked_again(worlds: Any, asked: list[tuple[int, int]]) -> None:
    world, _, adapter = worlds["cosine"]
    adapter.nearest(world.queries, limit=5, candidates=40, method="dual_is", exact=True)
    queries, windows = zip(*asked, strict=True)
    assert queries[0] == len(world.queries)
    assert len(asked) > 1
    assert all(later < earlier for earlier, later in itertools.pairwise(queries))
    assert all(later > earlier for earlier, later in itertools.pairwise(windows))
    assert windows[-1] <= N + 1


def test_few_requests_suffice(quick_engine: Engine, worlds: Any) -> None:
    world, _, adapter = worlds["cosine"]
    rounds = [
        quick_engine.explain(adapter, query[None], limit=5, candidates=20, exact=True).queries[0].rounds
        for query in world.queries
    ]
    assert np.mean(rounds) < 3
    by_default = [quick_engine.explain(adapter, q[None], limit=10, exact=True).queries[0] for q in world.queries]
    assert np.mean([query.rounds for query in by_default]) < 1.5


@pytest.mark.parametrize("metric", METRICS)
def test_an_explained_search_says_how_the_result_came_about(quick_engine: Engine, worlds: Any, metric: str) -> None:
    world, collection, adapter = worlds[metric]
    query = world.queries[3]
    plain = quick_engine.search(adapter, None, query, limit=4, candidates=50)
    explained = quick_engine.explain(adapter, query[None], limit=4, candidates=50)
    (told,) = explained.queries
    raw = quick_engine.search(quick_engine.client(), collection, query, limit=50)
    assert (told.method.value, told.candidates, told.rounds) == ("sinkhorn", 50, 1)
    assert [(hit.id, hit.score) for hit in told.hits] == [(hit.id, hit.score) for hit in plain]
    assert [hit.rank for hit in told.hits] == [1, 2, 3, 4]
    for hit in told.hits:
        assert raw[hit.raw_rank - 1].id == hit.id
        assert raw[hit.raw_rank - 1].score == pytest.approx(hit.raw_score, abs=1e-6)
    assert told.certified == (told.margin >= 0) == explained.certified
    everything = quick_engine.explain(adapter, query[None], limit=4, candidates=N + 1).queries[0]
    assert (everything.certified, everything.margin, everything.candidates) == (True, math.inf, N)
    by_hand = quick_engine.explain(adapter, query[None], limit=4, offset=2, candidates=50).queries[0]
    assert [hit.rank for hit in by_hand.hits] == [3, 4, 5, 6]
    assert by_hand.hits[:2] == told.hits[2:]


def test_certified_results_are_exact_and_the_others_are_said_to_be_open(quick_engine: Engine, worlds: Any) -> None:
    world, _, adapter = worlds["cosine"]
    certified = []
    for query in world.queries:
        whole = [hit.id for hit in quick_engine.search(adapter, None, query, limit=3, candidates=N, method="dual_dis")]
        for window in (10, 40, 160):
            explained = quick_engine.explain(adapter, query[None], limit=3, candidates=window, method="dual_dis")
            certified.append(explained.certified)
            if explained.certified:
                assert [hit.id for hit in explained.queries[0].hits] == whole
    assert 0 < sum(certified) < len(certified)


def test_raw_results_are_explained_too(quick_engine: Engine, worlds: Any) -> None:
    world, collection, adapter = worlds["dot"]
    own = quick_engine.search(quick_engine.client(), collection, world.queries[0], limit=5)
    (told,) = quick_engine.explain(adapter, world.queries[:1], limit=3, offset=2, method="raw").queries
    assert told.certified
    assert told.method.value == "raw"
    assert [(hit.id, hit.raw_score, hit.score, hit.raw_rank, hit.rank) for hit in told.hits] == [
        (hit.id, pytest.approx(hit.score), pytest.approx(hit.score), rank, rank) for rank, hit in enumerate(own[2:], 3)
    ]


def test_what_cannot_be_certified_is_said(quick_engine: Engine, worlds: Any, caplog: pytest.LogCaptureFixture) -> None:
    world, collection, _ = worlds["cosine"]
    adapter = quick_engine.adapter(collection)
    options: dict[str, Any] = {"limit": 5, "candidates": 6, "max_candidates": 8, "exact": True, "method": "dual_is"}
    with caplog.at_level(logging.WARNING, logger="dbnorm_vdb"):
        told = [quick_engine.explain(adapter, query[None], **options).queries[0] for query in world.queries]
    assert max(query.candidates for query in told) == 8
    open_ones = [query for query in told if not query.certified]
    assert open_ones
    assert all(query.margin < 0 for query in open_ones)
    assert [record.getMessage() for record in caplog.records if "could not be certified" in record.getMessage()] == [
        f"collection {collection!r}: exact=True: 1 of 1 results could not be certified with 8 candidates; raise"
        " max_candidates (an explained search says which results)"
    ]


def test_items_that_came_later_are_within_the_bounds(quick_engine: Engine) -> None:
    """An adapter that read the statistics long ago certifies nothing that an item written since would break."""
    rng = np.random.default_rng(5)

    def around(x: float, y: float, size: int) -> np.ndarray:
        rows = np.array([x, y, 0, 0, 0, 0]) + 0.05 * rng.normal(size=(size, 6))
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)

    items = np.concatenate([around(0.7, 0.7, 50), around(0.97, 0.1, 50)])
    later, query = around(-0.3, 0.95, 20), around(0.7, 0.7, 1)
    collection = quick_engine.create(items)
    writer = quick_engine.adapter(collection)
    writer.fit(around(1, 0, 10), method="is", query_beta=10)
    reader = quick_engine.adapter(collection, statistics_ttl=3600)
    options: dict[str, Any] = {"limit": 5, "candidates": 60}
    assert quick_engine.explain(reader, query, **options).certified
    rows = range(100, 120)
    quick_engine.upsert(writer, list(rows), later, [{"number": row, "title": ""} for row in rows])
    assert not quick_engine.explain(reader, query, **options).certified
    exact = quick_engine.explain(reader, query, exact=True, **options)
    assert exact.certified
    assert {hit.id for hit in exact.queries[0].hits} < set(rows)
    writer.drop()
    quick_engine.drop_collection(collection)


def test_items_without_statistics_count(quick_engine: Engine) -> None:
    world = World.make(n=N)
    collection = quick_engine.create(world.items[:300])
    adapter = quick_engine.adapter(collection)
    world.fit(adapter)
    rows = range(300, N)
    quick_engine.insert(collection, list(rows), world.items[300:], [{"number": row, "title": ""} for row in rows])
    found = adapter.nearest(world.queries, limit=5, candidates=5, exact=True)
    assert found == adapter.nearest(world.queries, limit=5, candidates=N + 1)
    adapter.drop()
    quick_engine.drop_collection(collection)


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "max_candidates alone": ({"max_candidates": 50}, "max_candidates=50 bounds exact=True"),
    "max_candidates below limit": ({"exact": True, "max_candidates": 4}, "max_candidates=4 is less than .* 5"),
    "max_candidates below candidates": ({"exact": True, "candidates": 9, "max_candidates": 8}, "9 .* max_candidates=8"),
    "max_candidates 0": ({"exact": True, "max_candidates": 0}, "max_candidates must be at least 1, got 0"),
    "max_candidates beyond the engine": ({"exact": True, "max_candidates": 10**7}, "returns at most"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_bounds(quick_engine: Engine, worlds: Any, case: str) -> None:
    arguments, message = BAD[case]
    world, _, adapter = worlds["cosine"]
    with pytest.raises(db.InvalidParameterError, match=message):
        quick_engine.search(adapter, None, world.queries[0], limit=5, **arguments)


# --- calibration -----------------------------------------------------------------------------------------------------


def test_the_calibrated_window_is_the_default(quick_engine: Engine, worlds: Any, asked: list[tuple[int, int]]) -> None:
    world, _, adapter = worlds["dot"]
    calibration = adapter.status().active.calibration
    assert calibration.suffices
    assert calibration.query_count == len(world.query_bank)
    assert 10 <= calibration.candidates <= calibration.certified_candidates <= N + 1
    for limit, window in ((3, calibration.candidates), (10, calibration.candidates), (20, 2 * calibration.candidates)):
        quick_engine.search(adapter, None, world.queries[0], limit=limit)
        assert asked.pop() == (1, window)
    quick_engine.search(adapter, None, world.queries[0], limit=5, exact=True)
    assert asked[0] == (1, calibration.certified_candidates)


def test_a_refresh_calibrates_again(quick_engine: Engine) -> None:
    world = World.make(n=N)
    collection = quick_engine.create(world.items[:50])
    adapter: NormalizedCollection = quick_engine.adapter(collection)
    before = world.fit(adapter).statistics.calibration
    rows = range(50, N)
    quick_engine.insert(collection, list(rows), world.items[50:], [{"number": row, "title": ""} for row in rows])
    after = adapter.refresh().statistics.calibration
    assert before is not None
    assert after == world.fit(adapter).statistics.calibration != before
    adapter.drop()
    quick_engine.drop_collection(collection)
