"""How a search is run: windows of candidates, their statistics, and the best of them, until that is the result.

What touches the database is written as steps (`dbnorm_vdb.steps`), which sync and async searches share.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from functools import partial
from typing import TypeVar

import numpy as np

from dbnorm_vdb.deadline import Deadline
from dbnorm_vdb.errors import (
    InvalidInputError,
    NotFittedError,
    StatisticsMismatchError,
    StatisticsTimeoutError,
)
from dbnorm_vdb.fallbacks import UNCOVERED, in_words
from dbnorm_vdb.methods import Method
from dbnorm_vdb.observing import looked_up
from dbnorm_vdb.planning import Planning
from dbnorm_vdb.reranking import Reranked, rerank
from dbnorm_vdb.searching import Candidates, Fetch, Lookup, Outcome, SearchPlan, next_window
from dbnorm_vdb.statistics import CollectionStatistics, ItemId, ItemStatistics
from dbnorm_vdb.steps import Steps, Work, within
from dbnorm_vdb.telemetry import spanned

_MANY_CANDIDATES = 20_000
"""Re-ranking more than these takes milliseconds."""

T = TypeVar("T")


class Serving(Planning):
    """The part of a collection with DBNorm that runs its searches."""

    def _search(self, plan: SearchPlan, count: int, fetch: Fetch, lookup: Lookup) -> Steps[list[Outcome]]:
        """Fetch the candidates of `count` queries and re-rank them; for an exact search, until all are certified."""
        outcomes: dict[int, Outcome] = {}
        pending, window, rounds = list(range(count)), plan.window, 0
        while pending:
            rounds += 1
            try:
                found, used, statistics, items = yield from self._round(plan, pending, window, fetch, lookup, rounds)
            except (StatisticsTimeoutError, _UnfinishedError) as error:
                if rounds == 1:
                    raise
                self._fallbacks.warn("uncertified", f"exact=True: {len(pending)} of {count} results: {error}")
                break
            arithmetic = partial(_reranked, used, found, statistics, items, window)
            ranked = (yield Work(arithmetic)) if len(items) > _MANY_CANDIDATES else arithmetic()
            method = used.method_for(statistics)
            for row, candidates, best in zip(pending, found, ranked, strict=True):
                outcomes[row] = Outcome(candidates, best, method, rounds)
            pending = [row for row in pending if not outcomes[row].best.certified]
            if plan.max_window is None or not pending:
                break
            if window >= plan.max_window:
                self._fallbacks.warn(
                    "uncertified",
                    f"exact=True: {len(pending)} of {count} results could not be certified with {window} candidates;"
                    " raise max_candidates (an explained search says which results)",
                )
                break
            wider = (
                next_window(outcomes[row].candidates.similarities, outcomes[row].best.reach, statistics.item_count)
                for row in pending
            )
            window = min(plan.max_window, max(wider))
        return [outcomes[row] for row in range(count)]

    def _round(
        self, plan: SearchPlan, rows: Sequence[int], window: int, fetch: Fetch, lookup: Lookup, number: int
    ) -> Steps[tuple[Sequence[Candidates], SearchPlan, CollectionStatistics, ItemStatistics]]:
        """Candidates of the queries at `rows`, how they are to be scored, and the statistics for it.

        Raises:
            StatisticsTimeoutError: they do not come in time, and the search is not to be served raw.
        """
        assert plan.statistics is not None
        raw = plan._replace(method=Method.RAW, by_default=False)
        first = number == 1  # the search that the caller asked for: its time is the client's business
        found = yield from (fetch(rows, window) if first else within(plan.deadline, fetch(rows, window)))
        try:
            statistics, items = yield from self._consistent(plan, found, lookup)
        except Exception as error:
            if not first and plan.fail_open and not isinstance(error, (StatisticsMismatchError, InvalidInputError)):
                raise _UnfinishedError(in_words(error)) from error
            self._fall_back_or_raise(error, plan)
            return found, raw, plan.statistics, ItemStatistics.unknown(sum(len(c.similarities) for c in found))
        if first and not plan.probe and all_unknown(items, statistics):
            self._fall_back_uncovered(len(items), plan)
            plan = raw
        return found, plan, statistics, items

    def _fall_back_uncovered(self, candidates: int, plan: SearchPlan) -> None:
        """Without statistics of any candidate, normalised results are raw ones: then say so.

        Raises:
            NotFittedError: this search is not to be served raw.
        """
        message = f"none of the {candidates} candidates has statistics of the active fit; call refresh()"
        if not plan.fail_open:
            raise NotFittedError(f"collection {self._store.collection!r}: {message}, or search with method='raw'")
        self._fallbacks.add(UNCOVERED, message)

    def _consistent(
        self, plan: SearchPlan, found: Sequence[Candidates], lookup: Lookup
    ) -> Steps[tuple[CollectionStatistics, ItemStatistics]]:
        """The statistics of all candidates, of one generation, and those of the collection.

        A certificate needs bounds that hold for every item the engine knew when it was asked: whoever writes an item
        stores its bounds before, so they are read after.
        """
        assert plan.statistics is not None
        statistics = plan.statistics
        if plan.explained or plan.max_window is not None:
            statistics = (yield from self._current.get(fresh=True, deadline=plan.deadline)) or statistics
        items, outdated = yield from looked_up(lookup(found, statistics, plan.deadline))
        if outdated:
            newer = yield from self._current.newer(statistics, plan.deadline)
            if newer is not None:
                items, _ = yield from looked_up(lookup(found, newer, plan.deadline))
                return newer, items
        return statistics, items

    def _statistics_of(
        self, found: Sequence[Candidates], statistics: CollectionStatistics, deadline: Deadline
    ) -> Steps[tuple[ItemStatistics, bool]]:
        """The statistics of candidates, from memory or looked up; that none has any is a sign of another generation."""
        ids: list[ItemId] = [item for candidates in found for item in candidates.ids]
        items = yield from self._items.find(statistics, ids, deadline)
        return items, all_unknown(items, statistics)


class _UnfinishedError(Exception):
    """The statistics of a wider window could not be had."""


def all_unknown(items: ItemStatistics, statistics: CollectionStatistics) -> bool:
    """Whether there are items, but no statistics of any."""
    biases = items.bias(next(iter(statistics.columns)))
    return len(biases) > 0 and math.isnan(biases[0]) and bool(np.isnan(biases).all())


@spanned("dbnorm.rerank")
def _reranked(
    plan: SearchPlan,
    found: Sequence[Candidates],
    statistics: CollectionStatistics,
    items: ItemStatistics,
    window: int,
) -> list[Reranked]:
    """The candidates of each query, re-ranked; `items` are those of all queries, one after the other."""
    method = plan.method_for(statistics)
    ranked, first = [], 0
    for candidates in found:
        last = first + len(candidates.similarities)
        best_of = partial(
            rerank,
            candidates.similarities,
            items[first:last],
            statistics,
            method=method,
            complete=last - first < window,
            at_most=plan.at_most,
        )
        limit: int | None = plan.wanted
        if plan.needed is not None:
            limit = plan.needed(candidates, best_of().order) or sys.maxsize
        ranked.append(best_of(limit=limit))
        first = last
    return ranked
