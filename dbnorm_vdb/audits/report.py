"""What an audit tells its caller."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, computed_field

from dbnorm_vdb.audits.verdicts import Finding, Verdict
from dbnorm_vdb.statistics import ItemId, Metric


class _Told(BaseModel):
    model_config = ConfigDict(frozen=True)


class Item(_Told):
    """An item of the collection, with its payload or fields."""

    id: ItemId
    payload: dict[str, Any]


class FoundBy(_Told):
    """A query that has an item among its results.

    Attributes:
        row: of the queries given.
        rank: the item's rank among the results, from 1.
        text: of the query; None where no texts were given.
    """

    row: int
    rank: int
    text: str | None


class HubItem(Item):
    """An item that is found more often than nearly all others.

    Attributes:
        occurrences: how many queries have it among their results, of the engine's own.
        normalized_occurrences: the same of normalised results; None where there are none.
        z_score: robust z-score of its occurrences (raw or normalised, whichever are more) among those of all items;
            from 3.5 on they are outlying (`dbnorm_vdb.audits.outliers.occurrence_z`).
        nearness_z: robust z-score of its mean similarity to the queries among the items'.
        near_duplicates: items that are nearly the same. They are found together, and each counts as a hub: so remove
            what is stored twice before you think of hubs.
        looks_planted: both outlyingly often found, and nearer to the queries on average than an item comes to be by
            itself (`nearness_z` from `dbnorm_vdb.audits.outliers.NEAR_EVERY_QUERY` on): as a vector is that somebody
            put there to be found, or a defective one.
        queries: some of the queries that find it, those first where it ranks highest.
    """

    occurrences: int
    normalized_occurrences: int | None
    z_score: float
    nearness_z: float
    near_duplicates: list[ItemId]
    looks_planted: bool
    queries: list[FoundBy]


class Antihubs(_Told):
    """Items that none of the queries finds.

    Attributes:
        count: among the engine's own results.
        normalized_count: among normalised results; None where there are none.
        examples: a few of those that neither finds, drawn by lot.
    """

    count: int
    normalized_count: int | None
    examples: list[Item]


class Domain(_Told):
    """Which queries lie outside the collection's domain.

    A query lies outside if its nearest item is less similar to it than to all but a hundredth of the reference: the
    queries of the stored query bank, or, where nothing is fitted, a sample of the collection's own items, each with
    its nearest other item. (That is a conformal test: of queries like the reference, `expected_share` lie outside.)

    Attributes:
        reference: "query bank" or "items".
        reference_count: how many of them were looked at.
        boundary: the score of the nearest item, on the engine's scale, from which on a query lies inside.
        expected_share: how many would lie outside if they were like the reference.
        outside_count: how many do.
        farthest: some of these, the farthest first: row, text if given.
    """

    reference: str
    reference_count: int
    boundary: float
    expected_share: float
    outside_count: int
    farthest: list[tuple[int, str | None]]


class Audit(_Told):
    """What an audit found.

    Attributes:
        engine, collection, vector, metric: what was looked at.
        item_count: its items.
        k: how many results of each query were looked at.
        queries: where they came from.
        query_count: how many were asked.
        method: how results were normalised; None where they were not.
        notes: what limits the figures, in sentences: among others why there are none after normalisation.
        findings: all hubness measures, and the shares of queries that lie outside the domain and that find items that
            look planted.
        hubs: the items found most often, raw or normalised.
        antihubs: the items never found.
        domain: how it was told which queries lie outside; None where it could not be.
    """

    engine: str
    collection: str
    vector: str
    metric: Metric
    item_count: int
    k: int
    queries: str
    query_count: int
    method: str | None
    notes: list[str]
    findings: list[Finding]
    hubs: list[HubItem]
    antihubs: Antihubs
    domain: Domain | None

    @computed_field  # type: ignore[prop-decorator]
    @property
    def verdict(self) -> Verdict:
        """The worst on what is served: normalised results where the collection is fitted."""
        return Verdict.worst(finding.served.verdict for finding in self.findings)

    def finding(self, name: str) -> Finding:
        """The finding of that name, one of `dbnorm_vdb.audits.verdicts.THRESHOLDS`."""
        return next(finding for finding in self.findings if finding.name == name)
