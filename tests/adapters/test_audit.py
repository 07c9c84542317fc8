"""Audits of real collections: what they find, and that they leave no trace."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from adapters.world import similarity
from harness import Engine

import dbnorm_vdb as db
from dbnorm_vdb.audits.report import Audit
from dbnorm_vdb.audits.verdicts import THRESHOLDS, Verdict

N, D, K = 240, 32, 10
PLANTED, DEFECTIVE_COPY = N, N + 1
FIT: dict[str, Any] = {"method": "is", "query_beta": 30.0}


class Case(NamedTuple):
    engine: Engine
    collection: str
    items: np.ndarray
    queries: np.ndarray
    bank: np.ndarray
    raw: Audit
    fitted: Audit

    def lists(self, normalized: bool = False) -> np.ndarray:
        similarities = similarity(self.queries, self.items, "cosine")
        if normalized:
            votes = similarity(self.bank, self.items, "cosine")
            similarities = similarities - np.log(np.exp(30.0 * votes).mean(axis=0)) / 30.0
        return np.argsort(-similarities, axis=1)[:, :K]


def cone(rng: np.random.Generator, n: int, centre: np.ndarray) -> np.ndarray:
    vectors = centre + rng.normal(size=(n, D)) / np.sqrt(D)
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def payload(row: int) -> dict[str, Any]:
    return {"number": row, "title": f"item {row}"}


@pytest.fixture(scope="module")
def case(quick_engine: Engine) -> Iterator[Case]:
    """Items in one cone, queries in another. One item is planted, and the ordinary hub found most often has a copy."""
    rng = np.random.default_rng(7)
    one, other = rng.normal(size=(2, D)) / np.sqrt(D)
    items, queries, bank = cone(rng, N, one), cone(rng, 110, other), cone(rng, 100, other)
    planted = queries.mean(axis=0, keepdims=True)
    counts = np.bincount(np.argsort(-similarity(queries, items, "cosine"), axis=1)[:, :K].ravel(), minlength=N)
    copy = items[counts.argmax()] + 0.002 * rng.normal(size=(1, D))
    items = np.concatenate([items, planted, copy]).astype(np.float32)
    collection = quick_engine.create(items, payloads=[payload(row) for row in range(len(items))])
    adapter = quick_engine.adapter(collection)
    texts = [f"query {row}" for row in range(len(queries))]
    raw = adapter.audit(queries, texts=texts, k=K)
    adapter.fit(bank, **FIT)
    yield Case(quick_engine, collection, items, queries, bank, raw, adapter.audit(queries, k=K))
    adapter.drop()
    quick_engine.drop_collection(collection)


def test_hubness_is_that_of_the_whole_similarity_matrix_raw_and_normalised(case: Case) -> None:
    for audit, normalized in ((case.raw, False), (case.fitted, True)):
        expected = db.measure_hubness(db.k_occurrence(case.lists(normalized), N + 2)).as_dict()
        for name, value in expected.items():
            assert audit.finding(name).served.value == pytest.approx(value, abs=0.01), name
    assert all(finding.normalized is None for finding in case.raw.findings)
    assert (case.raw.item_count, case.raw.query_count, case.raw.method, case.fitted.method) == (N + 2, 110, None, "is")
    assert [f.raw for f in case.raw.findings][:7] == [f.raw for f in case.fitted.findings][:7]


def test_the_verdict_is_on_what_is_served(case: Case) -> None:
    assert case.raw.verdict is Verdict.FAIL
    assert case.raw.finding("gini").next_command.startswith("dbnorm-vdb fit TARGET --query-bank QUERIES")
    antihubs = case.fitted.finding("antihub_occurrence")
    assert antihubs.raw.verdict is Verdict.FAIL
    assert antihubs.normalized.excess < antihubs.raw.excess / 2
    assert antihubs.verdict is antihubs.normalized.verdict is Verdict.WARN
    adapter = case.engine.adapter(case.collection)
    generous = adapter.audit(case.queries[:100], method="raw", thresholds=dict.fromkeys(THRESHOLDS, (100.0, 100.0)))
    assert (generous.verdict, generous.method) == (Verdict.OK, None)
    assert generous.notes[0] == "Normalised results are not measured: the method is 'raw'."


def test_the_hubs_are_those_found_most_often_and_say_by_whom(case: Case) -> None:
    raw, normalized = (np.bincount(case.lists(n).ravel(), minlength=N + 2) for n in (False, True))
    assert [hub.occurrences for hub in case.raw.hubs] == pytest.approx(np.sort(raw)[::-1][:10], abs=1)
    for hub in case.fitted.hubs:
        assert hub.payload == payload(hub.id)
        assert hub.occurrences == pytest.approx(raw[hub.id], abs=1)
        assert hub.normalized_occurrences == pytest.approx(normalized[hub.id], abs=1)
    hub = case.raw.hubs[1]
    assert [found.rank for found in hub.queries] == sorted(found.rank for found in hub.queries)
    for found in hub.queries:
        assert case.lists()[found.row].tolist().index(hub.id) == found.rank - 1
        assert found.text == f"query {found.row}"
    scores = [hub.z_score for hub in case.raw.hubs]
    assert scores == sorted(scores, reverse=True)


def test_a_planted_vector_is_told_from_ordinary_hubs(case: Case) -> None:
    for audit in (case.raw, case.fitted):
        assert [hub.id for hub in audit.hubs if hub.looks_planted] == [PLANTED]
    assert len([hub for hub in case.raw.hubs if hub.z_score >= 3.5]) > 1, "ordinary hubs, found outlyingly often"
    planted = case.raw.finding("planted")
    assert planted.raw.value == pytest.approx((case.lists() == PLANTED).any(axis=1).mean(), abs=0.01)
    assert planted.verdict is Verdict.FAIL
    assert planted.next_command.startswith(f"dbnorm-vdb explain TARGET --id {PLANTED} --query QUERIES --row ")
    assert case.fitted.finding("planted").normalized.value < planted.raw.value


def test_near_duplicates_among_hubs_are_told(case: Case) -> None:
    doubles = {hub.id: hub.near_duplicates for hub in case.raw.hubs if hub.near_duplicates}
    (original,) = doubles[DEFECTIVE_COPY]
    assert doubles == {DEFECTIVE_COPY: [original], original: [DEFECTIVE_COPY]}
    assert any("2 of the 10 items found most often have near-duplicates" in note for note in case.raw.notes)


def test_antihubs_are_those_nobody_finds(case: Case) -> None:
    unfound = [set(range(N + 2)) - set(case.lists(normalized).ravel().tolist()) for normalized in (False, True)]
    antihubs = case.fitted.antihubs
    assert antihubs.count == pytest.approx(len(unfound[0]), abs=2)
    assert antihubs.normalized_count == pytest.approx(len(unfound[1]), abs=2)
    assert case.raw.antihubs.normalized_count is None
    assert len(case.raw.antihubs.examples) == 5
    for example in case.raw.antihubs.examples:
        assert example.id in unfound[0]
        assert example.payload == payload(example.id)
    assert case.fitted.finding("antihub_occurrence").raw.value == antihubs.count / (N + 2)


def test_queries_out_of_the_domain_are_told(case: Case) -> None:
    assert case.raw.domain.reference == "items"
    assert case.raw.finding("outside_domain").raw.value > 0.2, "queries of another kind than the items"
    assert case.raw.finding("outside_domain").verdict is None
    adapter = case.engine.adapter(case.collection)
    rng = np.random.default_rng(1)
    strange = np.concatenate([case.queries[:20], -case.items[:15] + 0.1 * rng.normal(size=(15, D))]).astype(np.float32)
    audit = adapter.audit(strange)
    assert (audit.domain.reference, audit.domain.reference_count) == ("query bank", 100)
    assert audit.domain.outside_count == pytest.approx(15, abs=2)
    assert all(row >= 20 for row, _ in audit.domain.farthest)
    assert audit.finding("outside_domain").verdict is Verdict.FAIL
    assert case.fitted.finding("outside_domain").verdict is Verdict.OK


def test_for_want_of_queries_those_of_the_bank_are_taken_and_it_is_said(case: Case) -> None:
    adapter = case.engine.adapter(case.collection)
    for audit in (adapter.audit(sample=20), adapter.audit(case.bank, sample=20)):
        assert audit.query_count == 20
        assert audit.notes[0].startswith("The queries are those of the query bank that the statistics were fitted on")
        assert (audit.domain, [f.name for f in audit.findings if f.name == "outside_domain"]) == (None, [])


def test_a_sample_is_seeded_and_keeps_the_rows(case: Case, tmp_path: Path) -> None:
    adapter = case.engine.adapter(case.collection)
    np.save(tmp_path / "queries.npy", case.queries)
    audits = [adapter.audit(tmp_path / "queries.npy", sample=30, seed=seed, hubs=3) for seed in (1, 1, 2)]
    assert audits[0] == audits[1] != audits[2]
    assert (audits[0].query_count, audits[0].queries) == (30, "queries.npy")
    for found in audits[0].hubs[0].queries:
        assert audits[0].hubs[0].id in case.lists()[found.row]
    assert any("30 queries are too few" in note for note in audits[0].notes)


def test_an_audit_writes_nothing(case: Case) -> None:
    def held() -> tuple[Any, np.ndarray]:
        """All but the vectors, and these: a search on Qdrant's local mode scales them to length one once more."""
        snapshot = case.engine.snapshot(case.collection)
        points = snapshot.pop("points", None)
        if points is not None:
            return (snapshot, {key: data for key, (data, _) in points.items()}), np.array(
                [v for _, v in points.values()]
            )
        rows = snapshot.pop("rows")
        vectors = np.array([row.pop("vector") for row in rows.values()])
        return (snapshot, rows), vectors

    before, vectors = held()
    adapter = case.engine.adapter(case.collection)
    adapter.audit(case.queries[:20])
    adapter.explain(case.queries[0], 3)
    after, vectors_after = held()
    assert after == before
    assert vectors_after == pytest.approx(vectors, abs=1e-6)


def test_it_survives_json(case: Case) -> None:
    assert Audit.model_validate_json(case.fitted.model_dump_json()) == case.fitted


def test_statistics_that_cannot_be_used_are_a_note(quick_engine: Engine) -> None:
    rng = np.random.default_rng(0)
    collection = quick_engine.create(cone(rng, 50, np.zeros(D)))
    quick_engine.corrupt_state(collection, '{"format_version": 99}')
    adapter = quick_engine.adapter(collection)
    audit = adapter.audit(cone(rng, 30, np.zeros(D)))
    assert audit.method is None
    assert any("There are no normalised results: " in note and "format version 99" in note for note in audit.notes)
    with pytest.raises(db.StatisticsFormatError):
        adapter.audit(cone(rng, 30, np.zeros(D)), method="is")
    quick_engine.drop_collection(collection)


def test_items_that_came_after_the_fit_are_a_note(quick_engine: Engine) -> None:
    rng = np.random.default_rng(0)
    items, queries = cone(rng, 52, np.zeros(D)), cone(rng, 30, np.zeros(D))
    collection = quick_engine.create(items[:50])
    adapter = quick_engine.adapter(collection)
    adapter.fit(cone(rng, 40, np.zeros(D)), **FIT)
    assert not any("lack statistics" in note for note in adapter.audit(queries).notes)
    quick_engine.insert(collection, [50, 51], items[50:], [payload(50), payload(51)])
    assert "2 of 52 items lack statistics and count as average items: refresh." in adapter.audit(queries).notes
    adapter.drop()
    quick_engine.drop_collection(collection)


BAD: dict[str, tuple[dict[str, Any], type[db.DBNormError], str]] = {
    "k too large": ({"k": N + 2}, db.InvalidParameterError, f"k={N + 2}: hubness needs more items than that"),
    "k 0": ({"k": 0}, db.InvalidParameterError, "k must be at least 1, got 0"),
    "sample 0": ({"sample": 0}, db.InvalidParameterError, "sample must be at least 1"),
    "hubs 0": ({"hubs": 0}, db.InvalidParameterError, "hubs must be at least 1"),
    "texts": ({"texts": ["one"]}, db.InvalidParameterError, "1 texts for 110 queries"),
    "threshold": ({"thresholds": {"x": (1, 2)}}, db.InvalidParameterError, "no threshold 'x'"),
    "method": ({"method": "nnn"}, db.UnsupportedMethodError, "cannot be served by the stored statistics"),
    "dimension": ({"queries": np.ones((3, 5))}, db.DimensionMismatchError, "queries: vectors have 5 dimensions"),
    "no file": ({"queries": "nowhere.npy"}, db.BankFileError, "does not exist"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(case: Case, name: str) -> None:
    arguments, error, message = BAD[name]
    with pytest.raises(error, match=message):
        case.engine.adapter(case.collection).audit(**{"queries": case.queries, **arguments})


def test_without_anything_fitted_queries_are_needed(quick_engine: Engine) -> None:
    empty = quick_engine.create(np.empty((0, D), dtype=np.float32))
    with pytest.raises(db.EmptyCollectionError, match="has no items to audit"):
        quick_engine.adapter(empty).audit(np.ones((2, D)))
    some = quick_engine.create(np.eye(D, dtype=np.float32))
    with pytest.raises(db.InvalidParameterError, match="nothing is fitted, so there is no stored query bank"):
        quick_engine.adapter(some).audit()
    with pytest.raises(db.NotFittedError):
        quick_engine.adapter(some).audit(np.ones((2, D)), method="is")
    for collection in (empty, some):
        quick_engine.drop_collection(collection)
