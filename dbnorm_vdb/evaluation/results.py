"""What a comparison found, as data: all that a table or a report shows. Everything but the runs survives JSON.

Items and queries go by their keys, which are text (see `judgements.item_key`). Lists of per-query values are aligned:
`values[measure][i]` belongs to the query `queries.keys[queries.judged[i]]`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, SkipValidation, ValidationError

from dbnorm_vdb.errors import InvalidRunError
from dbnorm_vdb.evaluation import saving
from dbnorm_vdb.evaluation.judgements import Judgements
from dbnorm_vdb.evaluation.rankings import Run

Source: TypeAlias = Literal["collection", "callable", "run"]
Decision: TypeAlias = Literal["better", "worse", "mixed", "undecided", "unjudged"]
Reason: TypeAlias = Literal["improved", "harmed", "changed"]


class Result(BaseModel):
    """Base of the parts: no fields beyond those named, no NaN."""

    model_config = ConfigDict(extra="forbid", ser_json_inf_nan="strings", allow_inf_nan=False)


class MeasureInfo(Result):
    """A measure that was taken.

    Attributes:
        name: as ir-measures writes it (`nDCG@10`), or `MedianRank`, `MeanRank`.
        meaning: a sentence.
        statistic: how the queries' values become one figure: their mean or median.
        larger_is_better: false for ranks.
    """

    name: str
    meaning: str
    statistic: Literal["mean", "median"] = "mean"
    larger_is_better: bool = True


class Interval(Result):
    """A figure and its percentile bootstrap interval over the queries, at `settings.confidence`."""

    value: float
    low: float
    high: float


class Latency(Result):
    """Milliseconds of single searches for `settings.limit` results, arms taking turns query by query.

    Attributes:
        median, p95, mean: of the timed searches.
        ratio: the median over the queries of this arm's time divided by the baseline's for the same query; None where
            the baseline was not timed.
        samples: the times themselves, in the order of the queries that were timed, the same for all arms.
    """

    median: float
    p95: float
    mean: float
    ratio: float | None
    samples: list[float]


class Hub(Result):
    """An item that many queries find: `count` of them have it among their first `settings.limit`.

    Attributes:
        queries: keys of some of these.
    """

    item: str
    count: int
    queries: list[str]


class ArmHubness(Result):
    """Hubness of the first `settings.limit` results over all queries (`dbnorm_vdb.hubness`).

    Attributes:
        measures: by the names in `dbnorm_vdb.hubness.MEASURES`.
        item_count: the items that could have been found, `N`.
        occurrences: the distribution of the k-occurrence: pairs (in how many lists, how many items), ascending, items
            that are in none included; the second numbers sum to N.
        hubs: the items found most often, at most 20, most often first.
    """

    measures: dict[str, float]
    item_count: int
    occurrences: list[tuple[int, int]]
    hubs: list[Hub]


class WindowPoint(Result):
    """What windows of one size hold.

    Attributes:
        candidates: the window's size.
        held: the share of the exact first `settings.limit` results that it holds, over the queries looked at.
        certified: the share of these queries whose result is certified.
    """

    candidates: int
    held: float
    certified: float


class Windows(Result):
    """How windows of different sizes do, for an arm that re-ranks (`compare(..., window_queries=...)`).

    Attributes:
        query_count: the queries looked at, spread over all.
        default: the window of a search that names none.
        points: by ascending size.
    """

    query_count: int
    default: int
    points: list[WindowPoint]


class ArmResult(Result):
    """One arm: what it is, and all that is its own.

    Attributes:
        name: unique among the arms.
        source: a method of a collection, a callable, or a saved run.
        collection: the key of the collection among `Comparison.collections`; None for callables and runs.
        method: how it scores, for a collection; the fitted default, if the arm named none.
        candidates: the window of its searches, below which results are in the engine's order; None where it has none,
            or is `exact`.
        exact: whether windows were widened until certified.
        betas: the fitted inverse temperatures of the banks in use, by bank.
        estimates: the figure of each measure, by its name.
        values: per judged query, by measure; ranks (`MedianRank`, `MeanRank`) are those of the first relevant item,
            `settings.depth + 1` where none was found.
        recall: `recall[k - 1]` is the mean R@k, for k from 1 to `settings.depth`; empty without judgements.
        hubness: None where the number of items is not known.
        latency: None for runs, or where it was not asked for.
        windows: None unless asked for, and where the arm does not re-rank.
        short_count: queries with fewer than `settings.limit` results.
    """

    name: str
    source: Source
    collection: str | None = None
    method: str | None = None
    candidates: int | None = None
    exact: bool = False
    betas: dict[str, float] = Field(default_factory=dict)
    estimates: dict[str, Interval] = Field(default_factory=dict)
    values: dict[str, list[float]] = Field(default_factory=dict)
    recall: list[float] = Field(default_factory=list)
    hubness: ArmHubness | None = None
    latency: Latency | None = None
    windows: Windows | None = None
    short_count: int = 0


class Difference(Result):
    """An arm against the baseline, by one measure, over the judged queries.

    Attributes:
        difference: the arm's figure minus the baseline's, with its paired bootstrap interval. For ranks less is better.
        p_value: of the two-sided paired permutation test.
        p_adjusted: the same after Holm's correction over all arms and measures.
        significant: whether `p_adjusted` is below `1 - settings.confidence`.
        wins, ties, losses: queries on which the arm does better than, as well as, and worse than the baseline.
    """

    arm: str
    measure: str
    difference: Interval
    p_value: float
    p_adjusted: float
    significant: bool
    wins: int
    ties: int
    losses: int


class Agreement(Result):
    """How alike two arms' results are, over all queries.

    Attributes:
        overlap: the share of the first `settings.limit` results that both have, mean.
        rbo: extrapolated rank-biased overlap of the whole lists (Webber et al., 2010), mean, with `settings.rbo_p`.
        same_first: the share of queries with the same first result.
        identical: the share of queries with the same first `settings.limit` results in the same order.
    """

    first: str
    second: str
    overlap: float
    rbo: float
    same_first: float
    identical: float


class RankedItem(Result):
    """One result of an example: its key, score, and its grade if it was judged."""

    item: str
    score: float | None = None
    grade: int | None = None


class Example(Result):
    """A query whose results are shown side by side.

    Attributes:
        query: its key.
        row: its row among the queries.
        text: what it says, if that is known.
        arm: the arm for which it was chosen, against the baseline.
        reason: among the most improved or most harmed by the primary measure's per-query values (for ranks and ties
            by the rank of the first relevant item); without judgements, among the most changed.
        change: by how much the primary measure changed; without judgements, the rank-biased overlap.
        ranks: of the first relevant item, by arm; None where it was not found.
        relevant: grades of the judged items.
        results: the first `settings.limit` results of every arm.
    """

    query: str
    row: int
    text: str | None = None
    arm: str
    reason: Reason
    change: float
    ranks: dict[str, int | None] = Field(default_factory=dict)
    relevant: dict[str, int] = Field(default_factory=dict)
    results: dict[str, list[RankedItem]]


class CollectionInfo(Result):
    """A collection that some arms search.

    Attributes:
        engine, collection, vector: as in `status()`.
        item_count: items in it.
        payloads: of the items in examples and among hubs, as JSON types, by item; not of items that no arm found.
    """

    engine: str
    collection: str
    vector: str
    item_count: int
    payloads: dict[str, dict[str, Any]] = Field(default_factory=dict)


class QuerySet(Result):
    """The queries.

    Attributes:
        keys: of all queries, in their order.
        texts: what they say, in the same order; None where that is not known.
        judged: rows of the queries that have judgements.
        without_relevant: how many of those have no relevant item; every measure of them is 0.
        unmatched: judged queries that are not among the queries.
    """

    keys: list[str]
    texts: list[str] | None = None
    judged: list[int] = Field(default_factory=list)
    without_relevant: int = 0
    unmatched: int = 0


class Settings(Result):
    """How the comparison was made.

    Attributes:
        limit: results that a user sees: of latency, hubness, overlap and examples.
        depth: results that the measures see.
        primary: the measure that decides; None without judgements.
        resamples: of the bootstrap, and of the permutation test.
        confidence: of intervals; 1 minus it is the level of the tests.
        rbo_p: persistence of the rank-biased overlap.
        seed: of the resampling and the order of the arms in timing.
        latency_queries: queries timed for each arm.
    """

    limit: int
    depth: int
    primary: str | None
    resamples: int
    confidence: float
    rbo_p: float
    seed: int
    latency_queries: int

    @property
    def confidence_in_words(self) -> str:
        """In percent: "95%"."""
        return f"{100 * self.confidence:.6g}%"


class ArmVerdict(Result):
    """What is to be said of one arm against the baseline.

    Attributes:
        decision: "better" or "worse": the primary measure says so, significantly, and no other measure the contrary;
            "mixed": measures contradict each other significantly; "undecided": no significant difference;
            "unjudged": there are no judgements.
        sentences: by how much, how sure, at what cost, in words.
    """

    arm: str
    decision: Decision
    sentences: list[str]


class Verdict(Result):
    """The answer in words: is there an arm better than the baseline?"""

    headline: str
    arms: list[ArmVerdict]


class Comparison(Result):
    """What `compare` found.

    Attributes:
        verdict: the answer in words.
        baseline: the arm that the others are compared with.
        arms: in the order given.
        measures: in the order given; empty without judgements.
        differences: of every arm but the baseline, by every measure.
        agreements: of every pair of arms.
        examples: queries to look at, the most improved first, then the most harmed.
        collections: those that arms search, by a key of their own.
        notes: what a reader has to know: judgements that matched nothing, short lists, what is missing and why.
        runs: every arm's ranked results, to `settings.depth`; in memory only: `save` writes them, JSON has none.
        judgements: of the queries compared; in memory only, as the runs.
    """

    format_version: Literal[1] = 1
    created_at: AwareDatetime
    version: str
    settings: Settings
    verdict: Verdict
    baseline: str
    queries: QuerySet
    measures: list[MeasureInfo]
    arms: list[ArmResult]
    differences: list[Difference] = Field(default_factory=list)
    agreements: list[Agreement] = Field(default_factory=list)
    examples: list[Example] = Field(default_factory=list)
    collections: dict[str, CollectionInfo] = Field(default_factory=dict)
    notes: list[str] = Field(default_factory=list)
    runs: Annotated[dict[str, Run], SkipValidation] = Field(default_factory=dict, exclude=True, repr=False)
    judgements: Annotated[Judgements, SkipValidation] = Field(default_factory=dict, exclude=True, repr=False)

    def arm(self, name: str) -> ArmResult:
        """The arm of that name; KeyError if there is none."""
        return next((arm for arm in self.arms if arm.name == name), None) or _missing(name)

    def difference(self, arm: str, measure: str) -> Difference:
        """An arm against the baseline by a measure; KeyError if there is no such pair."""
        found = (entry for entry in self.differences if (entry.arm, entry.measure) == (arm, measure))
        return next(found, None) or _missing(f"{arm}, {measure}")

    def payload(self, arm: str, item: str) -> dict[str, Any]:
        """The payload of an item as the arm's collection has it; empty where that is not known."""
        collection = self.collections.get(self.arm(arm).collection or "")
        return collection.payloads.get(item, {}) if collection else {}

    def save(self, folder: str | os.PathLike[str]) -> list[Path]:
        """Write TREC runs and qrels, values by query and JSON, see `saving.save`."""
        return saving.save(self, folder)

    def report(
        self,
        path: str | os.PathLike[str],
        *,
        image_field: str | None = None,
        text_field: str | None = None,
        image_root: str | os.PathLike[str] | None = None,
        payloads: Mapping[Any, Mapping[str, Any]] | None = None,
    ) -> Path:
        """Write one HTML file to read, see `dbnorm_vdb.report.write_report`."""
        from dbnorm_vdb.report import write_report

        return write_report(
            self, path, image_field=image_field, text_field=text_field, image_root=image_root, payloads=payloads
        )

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Comparison:
        """Read what `save` wrote (a folder, or the `comparison.json` in it), without its runs.

        Raises:
            InvalidRunError: it is not there, or is something else.
        """
        file = Path(path)
        file = file / "comparison.json" if file.is_dir() else file
        try:
            return cls.model_validate_json(file.read_bytes())
        except (OSError, ValidationError) as error:
            raise InvalidRunError(f"{str(file)!r} is no comparison that can be read: {error}") from error


def _missing(name: str) -> Any:
    raise KeyError(name)
