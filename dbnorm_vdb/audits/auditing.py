"""An audit: search, count, compare. It reads, and writes nothing."""

from __future__ import annotations

from collections.abc import Sequence

from dbnorm_vdb.audits.domain import FEWEST_REFERENCE, bank_scores, domain_of, item_scores, outside_finding
from dbnorm_vdb.audits.findings import hubness_findings, percent
from dbnorm_vdb.audits.hubs import find_hubs, planted_finding
from dbnorm_vdb.audits.lists import Asked, Census, Lists, Subject
from dbnorm_vdb.audits.report import Antihubs, Audit, Domain, HubItem, Item
from dbnorm_vdb.audits.verdicts import FEWEST_QUERIES, Finding, Thresholds
from dbnorm_vdb.banks import Bank, Vectors
from dbnorm_vdb.errors import EmptyCollectionError
from dbnorm_vdb.statistics import ItemId

FIT = "dbnorm-vdb fit TARGET --query-bank QUERIES --gallery-bank 5000"
TUNE = "dbnorm-vdb tune TARGET --query-bank QUERIES --gallery-bank 5000"


def run_audit(
    subject: Subject,
    asked: Asked,
    *,
    method: str | None,
    reference_bank: Bank | None,
    k: int,
    hub_count: int,
    seed: int,
    thresholds: Thresholds,
    notes: Sequence[str],
) -> Audit:
    """Audit a collection.

    Args:
        subject: the collection.
        asked: the queries.
        method: of normalised results; None for none.
        reference_bank: queries that the collection is fitted on, to compare these with; None where it is not fitted.
        k: results of each query.
        hub_count: how many of the items found most often to look at.
        seed: of what is drawn by lot.
        thresholds: of the verdicts.
        notes: what is to be said besides.

    Raises:
        EmptyCollectionError: the queries find nothing.
    """
    info = subject.store.describe()
    raw = Lists(subject.search("raw searches", asked.vectors, limit=k))
    if not raw.counts:
        raise EmptyCollectionError(
            f"none of the queries finds anything in collection {subject.store.collection!r}; have its items a vector"
            f" {info.name!r}?"
        )
    normalized = None
    if method is not None:
        normalized = Lists(subject.search(f"{method} searches", asked.vectors, limit=k, method=method))
    census = Census.take(subject.store, {*raw.counts, *(normalized.counts if normalized else ())}, seed)
    sample = subject.fetch(census.sample)
    hubs = find_hubs(
        subject, asked, raw, normalized, count=hub_count, item_count=census.item_count, reference=sample[1]
    )
    domain, outside, unknown = _domain(subject, asked, raw, reference_bank, sample, thresholds)
    hubness = hubness_findings(
        raw.hubness(census.item_count),
        None if normalized is None else normalized.hubness(census.item_count),
        query_count=len(asked),
        item_count=census.item_count,
        k=k,
        thresholds=thresholds,
        next_command=FIT if reference_bank is None else TUNE,
    )
    return Audit(
        engine=subject.store.engine,
        collection=subject.store.collection,
        vector=info.name,
        metric=info.metric,
        item_count=census.item_count,
        k=k,
        queries=asked.source,
        query_count=len(asked),
        method=method,
        notes=[*notes, *unknown, *_limits(asked, k, census, hubs)],
        findings=[*hubness, *outside, planted_finding(hubs, raw, normalized, asked, thresholds)],
        hubs=hubs,
        antihubs=_antihubs(subject, raw, normalized, census),
        domain=domain,
    )


def _domain(
    subject: Subject,
    asked: Asked,
    raw: Lists,
    bank: Bank | None,
    sample: tuple[list[ItemId], Vectors],
    thresholds: Thresholds,
) -> tuple[Domain | None, list[Finding], list[str]]:
    """Which queries lie outside, and what is found of it; or why that cannot be told."""
    if asked.from_bank:
        return None, [], []
    kind = "query bank" if bank else "items"
    scores = bank_scores(subject, bank) if bank else item_scores(subject, *sample)
    if len(scores) < FEWEST_REFERENCE:
        why = (
            f"Which queries lie outside the collection's domain cannot be told: the {kind} to compare them with has"
            f" {len(scores)} vectors, and {FEWEST_REFERENCE} are the least."
        )
        return None, [], [why]
    domain = domain_of(asked, raw.scores, kind, scores, subject.store.describe().metric)
    return domain, [outside_finding(domain, asked, thresholds)], []


def _antihubs(subject: Subject, raw: Lists, normalized: Lists | None, census: Census) -> Antihubs:
    payloads = subject.store.payloads(census.unfound)
    return Antihubs(
        count=census.item_count - len(raw.counts),
        normalized_count=None if normalized is None else census.item_count - len(normalized.counts),
        examples=[Item(id=item, payload=dict(payloads.get(item, {}))) for item in census.unfound],
    )


def _limits(asked: Asked, k: int, census: Census, hubs: Sequence[HubItem]) -> list[str]:
    """What limits the figures, in sentences."""
    told = []
    slots = len(asked) * k
    if len(asked) < FEWEST_QUERIES:
        told.append(f"Hubness is not judged: {len(asked)} queries are too few, {FEWEST_QUERIES} are the least.")
    if slots < census.item_count:
        told.append(
            f"{len(asked)} queries with {k} results each find {percent(slots / census.item_count)} of the items at"
            " most. The verdicts allow for that; with more queries they see more."
        )
    doubles = sum(bool(hub.near_duplicates) for hub in hubs)
    if doubles:
        told.append(
            f"{doubles} of the {len(hubs)} items found most often {'has' if doubles == 1 else 'have'} near-duplicates,"
            " which are found together: remove what is stored twice, and audit again."
        )
    return told
