"""The guard: a fit is used only if it beats raw on labelled queries, and what it found can be seen afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from harness import Engine
from labelled import LabelledWorld

from dbnorm_vdb import FitSummary, InvalidJudgementsError, InvalidParameterError, NotFittedError
from dbnorm_vdb.collection import NormalizedCollection

WORLD = LabelledWorld.make(n=80, q=120)
VALIDATION = (WORLD.queries, WORLD.own.tolist())


class InterruptionError(Exception):
    """Stands for whatever ends a fit before its time."""


@pytest.fixture
def collection(quick_engine: Engine) -> Iterator[str]:
    name = quick_engine.create(WORLD.items, metric="dot")
    yield name
    quick_engine.adapter(name).drop()
    quick_engine.drop_collection(name)


@pytest.fixture
def fresh(qdrant_local: Engine) -> Iterator[str]:
    """A collection on one engine, for what the engine has no part in."""
    name = qdrant_local.create(WORLD.items, metric="dot")
    yield name
    qdrant_local.drop_collection(name)


@pytest.fixture(scope="module")
def untouched(qdrant_local: Engine) -> Iterator[str]:
    name = qdrant_local.create(WORLD.items, metric="dot")
    yield name
    qdrant_local.drop_collection(name)


def fit(adapter: NormalizedCollection, bank: np.ndarray = WORLD.query_bank, **settings: Any) -> FitSummary:
    return adapter.fit(bank, **{"method": "is", "query_beta": 4.0, "validation": VALIDATION, **settings})


def fit_harmful(adapter: NormalizedCollection, **settings: Any) -> FitSummary:
    return fit(adapter, WORLD.misleading_bank, query_beta=30.0, **settings)


def served(engine: Engine, collection: str) -> list[list[Any]]:
    hits = engine.adapter(collection).nearest(WORLD.queries[:10], limit=10)
    return [[(hit.id, pytest.approx(hit.score, abs=1e-6)) for hit in found] for found in hits]


def ndcg(adapter: NormalizedCollection, **search: Any) -> float:
    """At 10, of one relevant item each, as the textbook has it."""
    found = adapter.nearest(WORLD.queries, limit=10, **search)
    ranks = [[hit.id for hit in hits].index(own) for hits, own in zip(found, WORLD.own, strict=True) if _has(hits, own)]
    return float((1 / np.log2(np.array(ranks) + 2)).sum() / len(WORLD.queries))


def _has(hits: list[Any], own: int) -> bool:
    return own in [hit.id for hit in hits]


def test_a_fit_that_helps_is_activated_with_its_figures(quick_engine: Engine, collection: str) -> None:
    adapter = quick_engine.adapter(collection)
    summary = fit(adapter)
    verdict = summary.statistics.verdict
    assert verdict is not None
    assert (summary.activated, verdict.passed, verdict.query_count) == (True, True, 120)
    assert verdict.raw == pytest.approx(ndcg(adapter, method="raw"))
    assert verdict.normalized == pytest.approx(ndcg(adapter)), "what searches return from now on"
    assert 0 < verdict.lowest_gain < verdict.gain
    status = quick_engine.adapter(collection).status()
    assert status.active is not None
    assert (status.active.verdict, status.rejected) == (verdict, None)
    adapter.refresh()
    after = quick_engine.adapter(collection).status()
    assert after.active is not None
    assert after.active.verdict == verdict, "a refresh keeps it"


def test_a_harmful_fit_leaves_the_old_one_serving_and_nothing_else(
    quick_engine: Engine, collection: str, caplog: pytest.LogCaptureFixture
) -> None:
    adapter = quick_engine.adapter(collection)
    first = fit(adapter)
    before, snapshot = served(quick_engine, collection), quick_engine.snapshot(collection)
    refused = fit_harmful(quick_engine.adapter(collection))
    assert refused.statistics.verdict is not None
    assert (refused.activated, refused.statistics.verdict.passed) == (False, False)
    assert refused.statistics.verdict.normalized < refused.statistics.verdict.raw
    assert "not activated, searches go on as before: is was not shown to be better than raw: nDCG@10" in caplog.text
    assert served(quick_engine, collection) == before
    assert quick_engine.snapshot(collection)["collections"] == snapshot["collections"], "what it wrote is gone"

    status = quick_engine.adapter(collection).status()
    assert status.active == first.statistics
    assert status.rejected == refused.statistics
    assert (status.coverage, status.writing, status.advice) == (1.0, None, [])
    adapter.refresh()
    assert quick_engine.adapter(collection).status().rejected == refused.statistics, "a refresh decides nothing anew"
    fit(adapter, query_beta=5.0)
    assert quick_engine.adapter(collection).status().rejected is None


def test_a_harmful_first_fit_leaves_searches_raw(quick_engine: Engine, collection: str) -> None:
    adapter = quick_engine.adapter(collection)
    raw = [[hit.id for hit in hits] for hits in adapter.nearest(WORLD.queries[:10], method="raw")]
    assert not fit_harmful(adapter).activated
    fresh = quick_engine.adapter(collection)
    assert not fresh.is_fitted()
    assert [[hit.id for hit in hits] for hits in fresh.nearest(WORLD.queries[:10])] == raw
    assert fit(fresh).activated, "and does not stand in the way of a better one"


def test_force_activates_it_all_the_same(qdrant_local: Engine, fresh: str, caplog: pytest.LogCaptureFixture) -> None:
    adapter = qdrant_local.adapter(fresh)
    forced = fit_harmful(adapter, force=True)
    assert forced.statistics.verdict is not None
    assert (forced.activated, forced.statistics.verdict.passed) == (True, False)
    assert "activated all the same" in caplog.text
    status = qdrant_local.adapter(fresh).status()
    assert (status.active, status.rejected) == (forced.statistics, None)
    assert ndcg(adapter) < ndcg(adapter, method="raw")


def test_killed_while_it_is_judged_it_leaves_the_old_one_serving(quick_engine: Engine, collection: str) -> None:
    def progress(stage: str, done: int, total: int) -> None:
        if stage == "validation queries":
            raise InterruptionError

    fit(quick_engine.adapter(collection))
    before = served(quick_engine, collection)
    with pytest.raises(InterruptionError):
        fit(quick_engine.adapter(collection), query_beta=30.0, progress=progress)
    assert served(quick_engine, collection) == before
    assert fit(quick_engine.adapter(collection), query_beta=5.0).activated


def test_a_bank_unlike_the_queries_is_told_with_its_distance(
    qdrant_local: Engine, fresh: str, caplog: pytest.LogCaptureFixture
) -> None:
    adapter = qdrant_local.adapter(fresh)
    verdict = fit_harmful(adapter, force=True).statistics.verdict
    assert verdict is not None
    assert verdict.bank_distance is not None
    assert verdict.bank_distance.unlike
    assert f"the queries look unlike the query bank: distance {verdict.bank_distance.distance:.4f}" in caplog.text
    assert any("a bank of queries like those of the validation" in advice for advice in adapter.status().advice)
    (advice,) = [text for text in adapter.status(queries=WORLD.queries).advice if "like these" in text]
    assert "distance 0." in advice

    caplog.clear()
    verdict = fit(adapter).statistics.verdict
    assert verdict is not None
    assert verdict.bank_distance is not None
    assert abs(verdict.bank_distance.distance) < 0.01
    assert "unlike" not in caplog.text
    status = adapter.status(queries=WORLD.queries)
    assert status.bank_distance is not None
    assert not status.bank_distance.unlike
    assert status.advice == []


def test_labels_and_queries_that_show_less_than_they_seem_are_told(
    qdrant_local: Engine, fresh: str, caplog: pytest.LogCaptureFixture
) -> None:
    queries = np.concatenate([WORLD.queries, WORLD.query_bank[:7]])
    verdict = fit(qdrant_local.adapter(fresh), validation=(queries, [*WORLD.own, *[5000] * 7])).statistics.verdict
    assert verdict is not None
    assert (verdict.unknown_count, verdict.banked_count) == (1, 7)
    assert "7 of the 127 validation queries are in the query bank" in caplog.text
    assert "1 relevant items of the validation are not in the collection" in caplog.text


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"validation": None, "force": True}, InvalidParameterError, "force=True overrides a validation"),
        ({"validation": WORLD.queries}, InvalidParameterError, r"validation is \(queries, relevant\)"),
        ({"method": "raw"}, InvalidParameterError, "compares a method with raw"),
        ({"measure": "MRR"}, InvalidParameterError, "unknown measure 'MRR'"),
        ({"validation": (WORLD.queries, [1, 2])}, InvalidJudgementsError, "2 entries for 120 queries"),
        ({"validation": (WORLD.queries, [9999] * 120)}, InvalidParameterError, "can never show a gain"),
        ({"validation": (WORLD.queries, range(900, 1020))}, InvalidJudgementsError, "none of the 120 relevant items"),
    ],
)
def test_what_cannot_be_used_is_refused_before_anything_is_written(
    qdrant_local: Engine, untouched: str, settings: dict[str, Any], error: type[Exception], message: str
) -> None:
    before = qdrant_local.snapshot(untouched)
    with pytest.raises(error, match=message):
        fit(qdrant_local.adapter(untouched), **settings)
    assert qdrant_local.snapshot(untouched) == before


def test_status_compares_queries_with_a_bank_that_is_there(qdrant_local: Engine, fresh: str) -> None:
    adapter = qdrant_local.adapter(fresh)
    with pytest.raises(NotFittedError, match="no fitted query bank"):
        adapter.status(queries=WORLD.queries)
    fit(adapter)
    with pytest.raises(InvalidParameterError, match="3 queries and 300 bank vectors are too few"):
        adapter.status(queries=WORLD.queries[:3])
