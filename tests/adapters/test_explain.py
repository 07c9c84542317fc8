"""How an item comes to its rank: the same figures as an explained search tells, for any item."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from adapters.world import METRICS, World
from harness import Engine

import dbnorm_vdb as db
from dbnorm_vdb.explanations import ItemExplanation

N = 120
FITTED = ("raw", "is", "dis", "dual_is", "dual_dis", "sinkhorn")


@pytest.fixture(scope="module")
def worlds(quick_engine: Engine) -> Iterator[dict[str, tuple[World, Any]]]:
    made: dict[str, tuple[World, Any]] = {}
    for metric in METRICS:
        world = World.make(metric, n=N)
        adapter = quick_engine.adapter(quick_engine.create(world.items, metric=metric))
        world.fit(adapter, method="sinkhorn")
        made[metric] = (world, adapter)
    yield made
    for _, adapter in made.values():
        adapter.drop()
        quick_engine.drop_collection(adapter.collection_name)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("method", FITTED)
def test_ranks_and_scores_are_those_of_the_whole_collection(
    quick_engine: Engine, worlds: Any, method: str, metric: str
) -> None:
    world, adapter = worlds[metric]
    rng = np.random.default_rng(0)
    for row in (0, 3):
        (told,) = quick_engine.explain(
            adapter, world.queries[row : row + 1], limit=N, candidates=None if method == "raw" else N + 1, method=method
        ).queries
        for hit in (told.hits[0], told.hits[-1], told.hits[rng.integers(N)]):
            explained = adapter.explain(world.queries[row], hit.id, method=method)
            assert (explained.id, explained.method, explained.certain) == (hit.id, method, True)
            assert (explained.raw_rank, explained.rank) == (hit.raw_rank, hit.rank)
            assert explained.raw_score == pytest.approx(hit.raw_score, abs=1e-6)
            assert explained.score == pytest.approx(hit.score, abs=1e-6)
            assert explained.nearest_id == min(told.hits, key=lambda one: one.raw_rank).id
            assert explained.payload["number"] == hit.id


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("method", FITTED)
def test_the_terms_add_up(worlds: Any, method: str, metric: str) -> None:
    world, adapter = worlds[metric]
    for row, item in ((0, 5), (3, 80), (7, 110)):
        explained = adapter.explain(world.queries[row : row + 1], item, method=method)
        total = explained.similarity + sum(term.change for term in explained.terms) + (explained.logarithm or 0)
        assert explained.normalized_similarity == pytest.approx(total, abs=1e-9)
        assert explained.similarity == pytest.approx(world.raw()[row, item], abs=1e-5)
        for term in explained.terms:
            assert term.change == pytest.approx(term.weight * (term.mean - term.bias))
        assert sum(term.weight for term in explained.terms) == pytest.approx(1 if explained.terms else 0)


def test_gates_are_those_of_the_nearest_item(worlds: Any) -> None:
    world, adapter = worlds["cosine"]
    seen = set()
    for row, query in enumerate(world.queries):
        explained = adapter.explain(query, 0, method="dual_dis")
        nearest = int(world.raw()[row].argmax())
        gates = {bank: nearest in world.activated(bank) for bank in ("query", "gallery")}
        assert (explained.nearest_id, explained.gates) == (nearest, gates)
        assert [term.name for term in explained.terms] == [bank for bank, opened in gates.items() if opened]
        assert (explained.logarithm is None) == (sum(gates.values()) != 1)
        if explained.logarithm is not None and explained.similarity > 0:
            beta = {"query": 12.0, "gallery": 5.0}[explained.terms[0].name]
            assert explained.logarithm == pytest.approx(math.log(explained.similarity) / beta, abs=1e-6)
        for bank, opened in gates.items():
            place = "in" if opened else "not in"
            assert f"nearest item {nearest} is {place} its activation set" in str(explained)
            assert (f"{bank} gate", "open" if opened else "closed") in [line[:2] for line in explained.rows]
        seen.add(tuple(gates.values()))
    assert len(seen) > 2


def test_in_words(worlds: Any) -> None:
    world, adapter = worlds["cosine"]
    by_verb: dict[str, ItemExplanation] = {}
    for item in range(0, N, 7):
        explained = adapter.explain(world.queries[1], item, method="dual_is")
        by_verb[explained.headline.split()[2]] = explained
    for verb in ("rises", "falls"):
        told = by_verb[verb]
        assert told.headline == f"Item {told.id} {verb} from rank {told.raw_rank} to rank {told.rank} under dual_is."
        assert (told.rank < told.raw_rank) == (verb == "rises")
        text = str(told)
        assert f"{told.raw_score:.4f}" in text
        assert f"rank {told.rank} of the whole collection" in text
        for term in told.terms:
            more = "more" if term.bias > term.mean else "less"
            assert f"{more} of a hub: {term.weight:.2f} x (mean {term.mean:.4f} - bias {term.bias:.4f})" in text
    raw = adapter.explain(world.queries[1], 7, method="raw")
    assert raw.headline == f"Item 7 has rank {raw.raw_rank}. Results are raw."
    assert "normalised" not in str(raw)


def test_an_item_out_of_reach_is_said_to_be(quick_engine: Engine, worlds: Any) -> None:
    for metric in METRICS:
        world, adapter = worlds[metric]
        last = int(world.raw()[2].argmin())
        whole = adapter.explain(world.queries[2], last, method="dual_is")
        assert (whole.raw_rank, whole.candidates) == (N, N)
        far = adapter.explain(world.queries[2], last, method="dual_is", max_candidates=20)
        assert (far.raw_rank, far.rank, far.certain, far.candidates) == (None, None, False, 20)
        assert far.raw_score == pytest.approx(whole.raw_score, abs=1e-5)
        assert far.score == pytest.approx(whole.score, abs=1e-5)
        assert far.terms == whole.terms
        assert f"Item {last} is not among the 20 items nearest to the query." in str(far)


def test_whether_a_default_search_could_find_it_is_said(worlds: Any) -> None:
    world, adapter = worlds["cosine"]
    window = adapter.status().active.calibration.window(10)
    assert window < N
    order = np.argsort(-world.raw()[0])
    for rank, said in ((1, False), (N, True)):
        explained = adapter.explain(world.queries[0], int(order[rank - 1]))
        assert explained.default_candidates == window
        assert (f"looks at {window} candidates by default, and this item is not one of them" in str(explained)) == said


def test_an_item_without_statistics_counts_as_average(quick_engine: Engine) -> None:
    world = World.make(n=60)
    collection = quick_engine.create(world.items[:59])
    adapter = quick_engine.adapter(collection)
    world.fit(adapter)
    quick_engine.insert(collection, [59], world.items[59:], [{"number": 59, "title": ""}])
    explained = adapter.explain(world.queries[0], 59)
    assert [(term.bias, term.change) for term in explained.terms] == [(None, 0), (None, 0)]
    assert explained.score == pytest.approx(explained.raw_score)
    assert "It has no statistics and counts as an average item" in str(explained)
    adapter.drop()
    unfitted = adapter.explain(world.queries[0], 59)
    assert (unfitted.method, unfitted.rank, unfitted.certain) == ("raw", explained.raw_rank, True)
    with pytest.raises(db.NotFittedError):
        adapter.explain(world.queries[0], 59, method="is")
    quick_engine.drop_collection(collection)


def test_text_ids(quick_engine: Engine) -> None:
    world = World.make(n=30)
    ids = quick_engine.string_ids(30)
    collection = quick_engine.create(world.items, ids=ids)
    adapter = quick_engine.adapter(collection)
    world.fit(adapter)
    best = ids[int(world.raw()[0].argmax())]
    assert adapter.explain(world.queries[0], best).raw_rank == 1
    adapter.drop()
    quick_engine.drop_collection(collection)


BAD: dict[str, tuple[dict[str, Any], type[db.DBNormError], str]] = {
    "no such item": ({"id": 4711}, db.InvalidParameterError, "has no item 4711, or it lacks the vector"),
    "two queries": ({"query": np.ones((2, 8))}, db.InvalidVectorsError, "one vector is explained at a time, got 2"),
    "dimension": ({"query": np.ones(5)}, db.DimensionMismatchError, "query: vectors have 5 dimensions"),
    "zero": ({"query": np.zeros(8)}, db.ZeroVectorError, "query"),
    "method": ({"method": "nnn"}, db.UnsupportedMethodError, "cannot be served"),
    "window 0": ({"max_candidates": 0}, db.InvalidParameterError, "max_candidates must be at least 1, got 0"),
    "window": ({"max_candidates": 10**7}, db.InvalidParameterError, "returns at most"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(worlds: Any, name: str) -> None:
    arguments, error, message = BAD[name]
    world, adapter = worlds["cosine"]
    with pytest.raises(error, match=message):
        adapter.explain(**{"query": world.queries[0], "id": 3, **arguments})
