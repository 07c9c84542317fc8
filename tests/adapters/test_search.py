"""Searches against the oracle, on every engine: with the whole gallery as candidates they are exact."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from adapters.world import METHODS as PAPER_METHODS
from adapters.world import METRICS, World
from harness import FACES, Engine, fixture_name
from oracle import assert_same_order

from dbnorm_vdb import NotFittedError, UnsupportedMethodError

METHODS = (*PAPER_METHODS, "sinkhorn")

# engines compute similarities in float32; the oracle's scores are exponentials of up to 17 times those
TOLERANCE = {"relative": 1e-3, "absolute": 2e-6}


@pytest.fixture(scope="module", params=FACES)
def engine(request: pytest.FixtureRequest) -> Engine:
    """Sync and async adapters alike."""
    engine: Engine = request.getfixturevalue(fixture_name(request.param))
    return engine


@pytest.fixture(scope="module")
def worlds(engine: Engine) -> Iterator[dict[str, tuple[World, str, Any]]]:
    """For each metric a world, its collection, and a fitted adapter."""
    made: dict[str, tuple[World, str, Any]] = {}
    for metric in METRICS:
        world = World.make(metric)
        collection = engine.create(world.items, metric=metric)
        adapter = engine.adapter(collection)
        world.fit(adapter, method="sinkhorn")  # with both banks it serves every other method as well
        made[metric] = (world, collection, adapter)
    yield made
    for _, collection, adapter in made.values():
        adapter.drop()
        engine.drop_collection(collection)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("method", ["dual_is", "dual_dis"])
def test_an_exact_search_from_a_small_window_finds_what_the_whole_gallery_gives(
    engine: Engine, worlds: Any, method: str, metric: str
) -> None:
    world, _, adapter = worlds[metric]
    for query in world.queries[:2]:
        whole = engine.search(adapter, None, query, limit=5, candidates=121, method=method)
        exact = engine.explain(adapter, query[None], limit=5, candidates=6, method=method, exact=True)
        assert exact.certified
        assert [hit.id for hit in exact.queries[0].hits] == [hit.id for hit in whole]
        assert [hit.score for hit in exact.queries[0].hits] == pytest.approx([hit.score for hit in whole], abs=1e-5)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("method", METHODS)
def test_ids_and_scores_equal_the_oracle(engine: Engine, worlds: Any, method: str, metric: str) -> None:
    world, _, adapter = worlds[metric]
    everything = len(world.items)
    for query, order, scores in zip(world.queries, world.order_oracle(method), world.score_oracle(method), strict=True):
        found = engine.search(adapter, None, query, limit=everything, candidates=everything, method=method)
        ids = [hit.id for hit in found]
        assert_same_order(ids, order, **TOLERANCE)
        returned = np.array([hit.score for hit in found])
        expected = np.array([engine.engine_score(score, metric) for score in scores[ids]])
        promised = ~np.isnan(expected)
        assert promised.any() or (method, metric) == ("dual_dis", "euclidean")
        np.testing.assert_allclose(returned[promised], expected[promised], rtol=1e-4, atol=3e-4)
        descending = returned if metric != "euclidean" else -returned
        assert (np.diff(descending) <= 1e-6).all()


def test_the_world_opens_and_closes_both_gates() -> None:
    """Else the dynamic methods above would not be tested."""
    states = set()
    for metric in METRICS:
        world = World.make(metric)
        for top in world.raw().argmax(axis=1):
            states.add((int(top) in world.activated("query"), int(top) in world.activated("gallery")))
    assert len(states) == 4, states


def test_normalisation_changes_the_order(engine: Engine, worlds: Any) -> None:
    world, _, adapter = worlds["cosine"]
    raw = [hit.id for hit in engine.search(adapter, None, world.queries[0], limit=20, method="raw")]
    new = [hit.id for hit in engine.search(adapter, None, world.queries[0], limit=20)]
    assert raw != new


def test_raw_is_what_the_client_returns(engine: Engine, worlds: Any) -> None:
    world, collection, adapter = worlds["cosine"]
    for query in world.queries[:4]:
        own = engine.search(engine.client(), collection, query, limit=7)
        ours = engine.search(adapter, None, query, limit=7, method="raw")
        assert [(h.id, h.score) for h in own] == [(h.id, h.score) for h in ours]


def test_nearest_equals_search(engine: Engine, worlds: Any) -> None:
    world, _, adapter = worlds["cosine"]
    batch = adapter.nearest(world.queries, limit=5)
    assert len(batch) == len(world.queries)
    for query, hits in zip(world.queries, batch, strict=True):
        single = engine.search(adapter, None, query, limit=5)
        assert [hit.id for hit in hits] == [hit.id for hit in single]
        assert [hit.score for hit in hits] == pytest.approx([hit.score for hit in single], abs=1e-6)
        assert hits[0].payload["number"] == hits[0].id


def test_filters_hold(engine: Engine, worlds: Any) -> None:
    world, _, adapter = worlds["cosine"]
    oracle = world.order_oracle("dual_is")[:, :30]
    for query, order in zip(world.queries[:4], oracle, strict=False):
        found = engine.search(adapter, None, query, limit=30, below=30, method="dual_is")
        assert_same_order([hit.id for hit in found], order, **TOLERANCE)


def test_limit_and_candidates(engine: Engine, worlds: Any) -> None:
    world, _, adapter = worlds["cosine"]
    query = world.queries[0]
    raw = [hit.id for hit in engine.search(adapter, None, query, limit=10, method="raw")]
    narrow = engine.search(adapter, None, query, limit=10, candidates=10)
    assert sorted(hit.id for hit in narrow) == sorted(raw)
    wide = engine.search(adapter, None, query, limit=10, candidates=len(world.items))
    assert [hit.id for hit in wide] != [hit.id for hit in narrow]
    assert len(engine.search(adapter, None, query, limit=1)) == 1


def test_the_same_query_gives_the_same_result(engine: Engine, worlds: Any) -> None:
    world, _, adapter = worlds["euclidean"]
    first, second = (engine.search(adapter, None, world.queries[1], limit=20) for _ in range(2))
    assert first == second


def test_a_new_adapter_finds_the_statistics(engine: Engine, worlds: Any) -> None:
    world, collection, adapter = worlds["dot"]
    other = engine.adapter(collection)
    assert engine.search(other, None, world.queries[0], limit=9) == engine.search(
        adapter, None, world.queries[0], limit=9
    )


def test_methods_need_their_banks(engine: Engine) -> None:
    world = World.make(n=20)
    collection = engine.create(world.items)
    adapter = engine.adapter(collection)
    adapter.fit(world.query_bank, method="is")
    with pytest.raises(UnsupportedMethodError, match="'dual_is' cannot be served .* raw, is, dis"):
        engine.search(adapter, None, world.queries[0], limit=3, method="dual_is")
    assert len(engine.search(adapter, None, world.queries[0], limit=3)) == 3
    adapter.drop()
    engine.drop_collection(collection)


def test_without_statistics_results_are_raw_and_said_to_be(engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    world = World.make(n=20)
    collection = engine.create(world.items)
    adapter = engine.adapter(collection)
    own = engine.search(engine.client(), collection, world.queries[0], limit=5)
    for _ in range(3):
        assert engine.search(adapter, None, world.queries[0], limit=5) == own
    warnings = [record for record in caplog.records if record.name == "dbnorm_vdb"]
    assert len(warnings) == 1
    assert "serving raw results" in warnings[0].getMessage()
    assert adapter.fallback_count == 3
    with pytest.raises(NotFittedError, match="call fit"):
        engine.search(adapter, None, world.queries[0], limit=5, method="is")
    with pytest.raises(NotFittedError):
        engine.search(engine.adapter(collection, on_missing="error"), None, world.queries[0], limit=5)
    engine.drop_collection(collection)
