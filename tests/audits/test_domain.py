"""Which queries lie outside the collection's domain."""

from __future__ import annotations

import numpy as np
import pytest

from dbnorm_vdb import Metric
from dbnorm_vdb.audits.domain import domain_of, outside_finding
from dbnorm_vdb.audits.lists import Asked
from dbnorm_vdb.audits.report import Domain
from dbnorm_vdb.audits.verdicts import THRESHOLDS


def asked(n: int, texts: list[str] | None = None) -> Asked:
    return Asked(np.zeros((n, 2), dtype=np.float32), np.arange(n) * 10, "q.npy", texts)


def test_by_hand() -> None:
    """Of 199 reference scores, the second smallest is the boundary: two p-values in 200 are at most 1 %."""
    reference = np.arange(199) / 100
    scores = np.array([0.5, 0.009, 0.01, -3.0, np.nan])
    domain = domain_of(asked(5, [str(row) for row in range(50)]), scores, "query bank", reference, Metric.COSINE)
    assert domain == Domain(
        reference="query bank",
        reference_count=199,
        boundary=0.01,
        expected_share=0.01,
        outside_count=3,
        farthest=[(40, "40"), (30, "30"), (10, "10")],
    )


def test_euclidean_distances_are_the_other_way_round() -> None:
    domain = domain_of(asked(3), np.array([1.0, 7.9, 8.1]), "query bank", np.linspace(0, 8, 99), Metric.EUCLIDEAN)
    assert (domain.boundary, domain.outside_count, domain.farthest) == (8.0, 1, [(20, None)])


def test_of_queries_like_the_reference_as_many_lie_outside_as_is_said() -> None:
    rng = np.random.default_rng(0)
    shares = []
    for size in (30, 150, 1000):
        counts = [
            domain_of(asked(50), rng.normal(size=50), "query bank", rng.normal(size=size), Metric.DOT)
            for _ in range(400)
        ]
        shares.append((sum(domain.outside_count for domain in counts) / 20_000, counts[0].expected_share))
    assert all(found == pytest.approx(expected, rel=0.25) for found, expected in shares)
    assert [expected for _, expected in shares] == pytest.approx([1 / 31, 1 / 151, 10 / 1001])


@pytest.mark.parametrize(("outside", "verdict"), [(0, "ok"), (4, "ok"), (5, "warn"), (20, "fail"), (90, "fail")])
def test_the_verdict_is_on_the_share(outside: int, verdict: str) -> None:
    scores = np.where(np.arange(100) < outside, -1.0, 1.0)
    domain = domain_of(asked(100), scores, "query bank", np.linspace(0, 2, 500), Metric.COSINE)
    finding = outside_finding(domain, asked(100), THRESHOLDS)
    assert (finding.raw.value, finding.verdict) == (outside / 100, verdict)
    if outside:
        assert finding.meaning.startswith(f"{outside}{'.0' if outside < 10 else ''} % of the queries are farther")
        assert (finding.next_command is None) == (verdict == "ok")
    else:
        assert finding.meaning == "No query is farther from every item than 99 % of the bank's queries."


def test_items_are_not_what_queries_are_judged_by() -> None:
    domain = domain_of(asked(100), np.full(100, -1.0), "items", np.linspace(0, 2, 500), Metric.COSINE)
    finding = outside_finding(domain, asked(100), THRESHOLDS)
    assert (finding.raw.value, finding.verdict, finding.next_command) == (1.0, None, None)
    assert "Across modalities that is as it should be" in finding.meaning
