"""Which queries lie outside the collection's domain: a conformal test of how near their nearest item is."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dbnorm_vdb.audits.findings import percent, share_finding
from dbnorm_vdb.audits.lists import EXAMPLES, Asked, Subject
from dbnorm_vdb.audits.report import Domain
from dbnorm_vdb.audits.verdicts import OUTSIDE, Finding, Thresholds
from dbnorm_vdb.banks import Bank, Vectors
from dbnorm_vdb.statistics import Floats, ItemId, Metric

LEVEL = 0.01
FEWEST_REFERENCE = 20
"""With fewer, more than a twentieth of queries like the reference would lie outside."""


def bank_scores(subject: Subject, bank: Bank) -> Floats:
    """(m,) the score of the nearest item of each of the bank's vectors, on the engine's scale."""
    found = subject.search("reference queries", bank.vectors, limit=1)
    return np.array([hits[0].score for hits in found if hits], dtype=np.float64)


def item_scores(subject: Subject, ids: Sequence[ItemId], vectors: Vectors) -> Floats:
    """(m,) the score of the nearest other item of each of these items, on the engine's scale."""
    found = subject.search("reference items", vectors, limit=2)
    others = [[hit for hit in hits if hit.id != item] for item, hits in zip(ids, found, strict=True)]
    return np.array([hits[0].score for hits in others if hits], dtype=np.float64)


def domain_of(asked: Asked, scores: Floats, kind: str, reference: Floats, metric: Metric) -> Domain:
    """Which queries lie outside the domain of a reference.

    With `m` of the reference, the p-value of a query is `(1 + how many of them are no nearer) / (m + 1)`, which is at
    most 0.01 for 1 % of the queries that are like them (Vovk et al., 2005); it lies outside if it is.

    Args:
        asked: the n queries.
        scores: (n,) of their nearest items, on the engine's scale; NaN where nothing was found.
        kind: of the reference.
        reference: (m,) scores of its nearest items, at least one.
        metric: larger scores are nearer, but for Euclidean.
    """
    sign = -1.0 if metric is Metric.EUCLIDEAN else 1.0
    nearness = np.sort(sign * reference)
    below = max(1, int(LEVEL * (len(nearness) + 1)))
    boundary = nearness[below - 1]
    own = np.nan_to_num(sign * scores, nan=-np.inf)
    outside = np.flatnonzero(own < boundary)
    farthest = outside[np.argsort(own[outside], kind="stable")][:EXAMPLES]
    return Domain(
        reference=kind,
        reference_count=len(nearness),
        boundary=float(sign * boundary),
        expected_share=below / (len(nearness) + 1),
        outside_count=len(outside),
        farthest=[asked.told(position) for position in farthest.tolist()],
    )


def outside_finding(domain: Domain, asked: Asked, thresholds: Thresholds) -> Finding:
    """How many queries lie outside.

    Compared with the items it is not judged: queries of another modality are all far from them, and rightly so.
    """
    share = domain.outside_count / len(asked)
    bank = domain.reference == "query bank"
    who = f"{percent(share)} of the queries are" if share else "No query is"
    others = "the bank's queries" if bank else "the items from their nearest"
    meaning = f"{who} farther from every item than {percent(1 - domain.expected_share)} of {others}"
    if not bank:
        meaning += (
            ". Across modalities that is as it should be, so it is not judged: a fit brings a bank to compare with"
        )
    elif share:
        meaning += ": the collection may hold no answer to them"
    row = domain.farthest[0][0] if domain.farthest else 0
    return share_finding(
        OUTSIDE,
        share,
        None,
        thresholds,
        meaning=f"{meaning}.",
        next_command=f"dbnorm-vdb search TARGET --query QUERIES --row {row}",
        judge=bank,
    )
