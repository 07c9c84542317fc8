"""Verdicts: fair to collections without hubs, whatever their size, and clear on those with."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dbnorm_vdb import Hubness, InvalidParameterError, k_occurrence, measure_hubness, normalize
from dbnorm_vdb.audits.findings import hubness_findings, percent, share_finding
from dbnorm_vdb.audits.verdicts import (
    PLANTED,
    THRESHOLDS,
    Finding,
    Reading,
    Thresholds,
    Verdict,
    checked_thresholds,
)
from dbnorm_vdb.demo import load_pictures
from dbnorm_vdb.hubness import MEASURES

K = 10


def hubness_of(similarities: np.ndarray) -> Hubness:
    nearest = np.argpartition(-similarities, K, axis=1)[:, :K]
    return measure_hubness(k_occurrence(nearest, similarities.shape[1]))


def findings(
    raw: Hubness, n: int, items: int, normalized: Hubness | None = None, thresholds: Thresholds = THRESHOLDS
) -> dict[str, Finding]:
    found = hubness_findings(
        raw, normalized, query_count=n, item_count=items, k=K, thresholds=thresholds, next_command="fit it"
    )
    return {finding.name: finding for finding in found}


def on_a_sphere(rng: np.random.Generator, n: int, d: int) -> np.ndarray:
    vectors = rng.normal(size=(n, d))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.mark.parametrize(("n", "items", "d"), [(100, 300, 3), (100, 8000, 64), (500, 500, 256), (2000, 200, 16)])
def test_vectors_spread_evenly_are_ok_however_many_there_are(n: int, items: int, d: int) -> None:
    rng = np.random.default_rng(0)
    found = findings(hubness_of(on_a_sphere(rng, n, d) @ on_a_sphere(rng, items, d).T), n, items)
    assert {name: finding.verdict for name, finding in found.items() if finding.verdict is not Verdict.OK} in (
        {},
        {"hub_occurrence": None},  # less than one result for two items
    )


@pytest.mark.parametrize("n", [300, 1872])
def test_pictures_fail_raw_and_are_ok_normalised(n: int) -> None:
    data = load_pictures()
    pictures = data.test.pictures
    rows = np.random.default_rng(1).choice(1872, n, replace=False)
    raw = data.test.texts[rows] @ pictures.T
    mended = normalize(
        raw,
        query_bank=data.train.texts @ pictures.T,
        gallery_bank=data.train.pictures @ pictures.T,
        query_beta=20,
        gallery_beta=5,
    )
    found = findings(hubness_of(raw), n, 1872, hubness_of(mended))
    before = {name: finding.raw.verdict for name, finding in found.items()}
    assert {name for name, verdict in before.items() if verdict is Verdict.FAIL} >= {
        "robin_hood",
        "gini",
        "hub_occurrence",
    }
    assert {finding.verdict for finding in found.values()} == {Verdict.OK}
    assert all(finding.next_command is None for finding in found.values())


def test_a_finding_has_figure_range_chance_and_sentence() -> None:
    found = findings(measure_hubness([300] * 10 + [0] * 90), 300, 100)
    antihubs = found["antihub_occurrence"]
    assert (antihubs.raw.value, antihubs.least, antihubs.most) == (0.9, 0, 0.9)
    assert antihubs.raw.excess == 1
    assert antihubs.chance == pytest.approx(0.9**300)
    assert (antihubs.warn, antihubs.fail) == THRESHOLDS["antihub_occurrence"]
    assert antihubs.meaning.startswith("90 % of the items are found by none of the queries")
    assert {finding.verdict for finding in found.values()} == {Verdict.FAIL}
    assert {finding.next_command for finding in found.values()} == {"fit it"}
    assert "is among the results of 100 % of the queries" in found["groupie_ratio"].meaning


def test_what_counts_is_what_is_served() -> None:
    bad, good = measure_hubness([300] * 10 + [0] * 90), measure_hubness([30] * 100)
    for raw, normalized, verdict in ((bad, good, Verdict.OK), (good, bad, Verdict.FAIL)):
        assert findings(raw, 300, 100, normalized)["gini"].verdict is verdict


def test_few_queries_are_shown_but_not_judged() -> None:
    found = findings(measure_hubness([99] * 10 + [0] * 90), 99, 100)
    assert {finding.verdict for finding in found.values()} == {None}
    assert found["gini"].raw.excess == pytest.approx(1, abs=0.01)


def test_where_every_item_found_is_a_hub_that_is_not_judged() -> None:
    found = findings(measure_hubness([1] * 1000, item_count=5000), 100, 5000)
    assert found["hub_occurrence"].raw == Reading(value=1, excess=None, verdict=None)
    assert "more queries would tell" in found["hub_occurrence"].meaning
    assert found["antihub_occurrence"].verdict is Verdict.OK


def test_thresholds_may_be_changed() -> None:
    thresholds = checked_thresholds({"gini": (0.5, 2.0)})
    assert thresholds.keys() == THRESHOLDS.keys()
    found = findings(measure_hubness([300] * 10 + [0] * 90), 300, 100, thresholds=thresholds)
    assert (found["gini"].verdict, found["robin_hood"].verdict) == (Verdict.WARN, Verdict.FAIL)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"ginny": (0, 1)}, "no threshold 'ginny'; there are k_skewness, robin_hood"),
        ({"gini": 0.5}, "threshold 'gini' is a pair, .* got 0.5"),
        ({"gini": (0.5,)}, r"got \(0.5,\)"),
        ({"gini": (0.5, float("nan"))}, "must be a finite number, got nan"),
        ({"gini": (0.5, "x")}, "must be a finite number, got 'x'"),
        ({"gini": (0.5, 0.4)}, "it fails from 0.4 on, before it warns, from 0.5"),
    ],
)
def test_bad_thresholds(changed: Any, message: str) -> None:
    with pytest.raises(InvalidParameterError, match=message):
        checked_thresholds(changed)


def test_shares_are_judged_as_they_are() -> None:
    for share, verdict, command in ((0.0, "ok", None), (0.05, "warn", "look"), (0.1, "fail", "look")):
        found = share_finding(PLANTED, 1.0, share, THRESHOLDS, meaning="it is.", next_command="look")
        assert (found.verdict, found.next_command, found.raw.verdict) == (verdict, command, "fail")


def test_every_measure_has_thresholds() -> None:
    assert THRESHOLDS.keys() >= set(MEASURES)


def test_the_worst_verdict() -> None:
    assert Verdict.worst([]) is Verdict.worst([None, None]) is Verdict.OK
    assert Verdict.worst([Verdict.OK, Verdict.FAIL, None, Verdict.WARN]) is Verdict.FAIL


@pytest.mark.parametrize(
    ("share", "words"),
    [(0, "0 %"), (0.0004, "0.04 %"), (0.0123, "1.2 %"), (0.0996, "10 %"), (0.5, "50 %"), (1, "100 %")],
)
def test_percent(share: float, words: str) -> None:
    assert percent(share) == words
