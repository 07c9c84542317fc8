"""The windows of a search: how it is to be run, what each round of requests brings, and how far the next one reaches.

A search with `exact=True` widens its window until the result is certified (`dbnorm_vdb.reranking`). What the last
round brought says down to which similarity items must be fetched; about how many those are is read off the tail of
the similarities, taken for that of a normal distribution.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Generic, NamedTuple, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from dbnorm_vdb.deadline import NO_DEADLINE, Deadline
from dbnorm_vdb.methods import Method
from dbnorm_vdb.reranking import Reranked
from dbnorm_vdb.statistics import CollectionStatistics, Floats, ItemId, ItemStatistics
from dbnorm_vdb.steps import Steps

DEFAULT_MAX_CANDIDATES = 10_000

_SAFETY = 1.2
_LEAST_GROWTH = 1.3

Result = TypeVar("Result")


class SearchPlan(NamedTuple):
    """How one search is to be run.

    Attributes:
        method: `raw` means: hand the call to the client as it is.
        wanted: offset + limit: how many of the best count.
        window: how many candidates to ask the engine for.
        statistics: of the collection; None for a raw search.
        max_window: how far the window may be widened for a certified result; None: not at all.
        explained: whether the caller will be told if the result is certified.
        by_default: the method is the fitted default, not one that the caller named.
        at_most: the highest normalised similarity that counts; None: any.
        needed: where the result is made of groups of hits: how many of the ranked candidates decide it, given these
            and their order; None if not even all of them do.
        deadline: when it is to be answered.
        fail_open: whether it may be served raw where the statistics of the candidates cannot be had.
        fallback: it is raw for want of statistics.
        probe: only the first hits are asked for, of whose statistics nothing follows for the others.
    """

    method: Method
    wanted: int
    window: int
    statistics: CollectionStatistics | None = None
    max_window: int | None = None
    explained: bool = False
    by_default: bool = True
    at_most: float | None = None
    needed: Needed | None = None
    deadline: Deadline = NO_DEADLINE
    fail_open: bool = False
    fallback: bool = False
    probe: bool = False

    def method_for(self, statistics: CollectionStatistics) -> Method:
        """The method under other statistics than those it was planned with."""
        return Method(statistics.method) if self.by_default else self.method


class Candidates(NamedTuple):
    """What one request brought for one query.

    Attributes:
        hits: as the engine returned them.
        ids: of the c hits.
        similarities: (c,) their raw similarities, in the engine's order.
    """

    hits: Any
    ids: Sequence[ItemId]
    similarities: Floats


Needed: TypeAlias = Callable[[Candidates, npt.NDArray[np.intp]], int | None]


class Outcome(NamedTuple):
    """A query's last candidates, re-ranked.

    Attributes:
        candidates: what the last round brought.
        best: the `wanted` best of them.
        method: how they were scored.
        rounds: requests made.
    """

    candidates: Candidates
    best: Reranked
    method: Method
    rounds: int


Fetch: TypeAlias = Callable[[Sequence[int], int], Steps[Sequence[Candidates]]]
"""Asks the engine, for the queries at these positions, for windows of that size."""

Lookup: TypeAlias = Callable[[Sequence[Candidates], CollectionStatistics, Deadline], Steps[tuple[ItemStatistics, bool]]]
"""The statistics of all these candidates, and whether they look like those of another generation."""


def next_window(similarities: Floats, reach: float, item_count: int) -> int:
    """How many candidates to fetch, so that all items of at least `reach` similarity are probably among them.

    Args:
        similarities: (c,) raw similarities of the candidates so far.
        reach: less than all of them.
        item_count: of the collection.

    Returns:
        More than c.
    """
    count = len(similarities)
    least = max(count + 1, math.ceil(_LEAST_GROWTH * count))
    middle = (count + 1) // 2
    ordered = -similarities
    ordered.sort()
    last, spread = -float(ordered[-1]), float(ordered[-1] - ordered[middle - 1])
    if not 0 < count < item_count or not spread > 0 or not math.isfinite(reach):
        return 2 * least
    normal = NormalDist()
    total = item_count + 1
    at_middle, at_last = normal.inv_cdf(1 - middle / total), normal.inv_cdf(1 - count / total)
    deviation = spread / (at_middle - at_last) if at_middle > at_last else math.inf
    beyond = 1 - normal.cdf(at_last - (last - reach) / deviation)
    return max(least, min(math.ceil(_SAFETY * total * beyond), item_count + 1))


# --- what an explained search tells ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class ExplainedHit:
    """One hit of an explained search, scores on the engine's scale, ranks from 1.

    Attributes:
        id: of the item.
        raw_score: as the engine returned it.
        score: normalised.
        raw_rank: its place among the candidates as the engine returned them.
        rank: its place in the normalised result, counted from the first also where `offset` skips some.
    """

    id: ItemId
    raw_score: float
    score: float
    raw_rank: int
    rank: int


@dataclass(frozen=True)
class Explanation:
    """How the result of one query came about.

    Attributes:
        method: how it was scored; `raw` also where there are no statistics.
        hits: the hits of the result.
        candidates: how many were re-ranked.
        rounds: how many requests for candidates that took.
        certified: whether the result is that of the whole collection (or what a filter leaves of it), under the order
            in which the engine returns items; an approximate index is taken at its word.
        margin: on the similarity scale, by how much the last hit that counts (number `offset + limit`) is above the
            most that any item beyond the candidates can score: at least 0 where certified; infinite where there is
            nothing beyond.
    """

    method: Method
    hits: tuple[ExplainedHit, ...]
    candidates: int
    rounds: int
    certified: bool
    margin: float


@dataclass(frozen=True)
class Explained(Generic[Result]):
    """A search's result together with how it came about.

    Attributes:
        result: what the search itself returns.
        queries: an explanation for each query.
    """

    result: Result
    queries: tuple[Explanation, ...]

    @property
    def certified(self) -> bool:
        """Whether the results of all queries are certified."""
        return all(query.certified for query in self.queries)


def result_of(steps: Steps[Explained[Result]]) -> Steps[Result]:
    """An explained search for a caller who wants the result alone."""
    return (yield from steps).result


def explanation_of(outcome: Outcome, ranks: Sequence[int], scale: Callable[[float], float]) -> Explanation:
    """The explanation of a query's result.

    Args:
        outcome: of the query.
        ranks: of the hits that the caller gets, from 0.
        scale: from similarities to the engine's scores.
    """
    best, candidates = outcome.best, outcome.candidates
    hits = tuple(
        ExplainedHit(
            candidates.ids[row], scale(float(candidates.similarities[row])), scale(float(score)), row + 1, rank + 1
        )
        for rank, row, score in ((rank, int(best.order[rank]), best.scores[rank]) for rank in ranks)
    )
    return Explanation(outcome.method, hits, len(candidates.similarities), outcome.rounds, best.certified, best.margin)


def raw_explanation(hits: Sequence[tuple[ItemId, float]], offset: int) -> Explanation:
    """The explanation of a raw result, given as ids and scores: the engine's own order, which needs no certificate."""
    explained = tuple(
        ExplainedHit(item, score, score, rank, rank) for rank, (item, score) in enumerate(hits, offset + 1)
    )
    return Explanation(Method.RAW, explained, offset + len(hits), 1, certified=True, margin=0.0)
