"""Searches: which statistics are active, how a search is run, and what to do when there are none.

What touches the database is written as steps (`dbnorm_vdb.steps`), which sync and async searches share.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Sequence
from functools import partial
from typing import Any, TypeVar

from dbnorm_vdb.biases import BankBiases
from dbnorm_vdb.errors import InvalidParameterError, NotFittedError, StatisticsFormatError, StatisticsMismatchError
from dbnorm_vdb.ledger import Ledger
from dbnorm_vdb.methods import Method, check_supported
from dbnorm_vdb.observing import looked_up
from dbnorm_vdb.parameters import check_count
from dbnorm_vdb.reranking import Reranked, rerank
from dbnorm_vdb.searching import DEFAULT_MAX_CANDIDATES, Candidates, Fetch, Lookup, Outcome, SearchPlan, next_window
from dbnorm_vdb.statistics import CollectionStatistics, ItemStatistics
from dbnorm_vdb.steps import Steps, Work, run
from dbnorm_vdb.store import Store, VectorInfo
from dbnorm_vdb.telemetry import spanned

logger = logging.getLogger("dbnorm_vdb")

DEFAULT_STATISTICS_TTL = 5.0
_WARN_EVERY = 60.0
_CONFIRM_EVERY = 1.0
_MANY_CANDIDATES = 20_000
"""Re-ranking more than these takes milliseconds."""

T = TypeVar("T")


class Serving:
    """The part of a collection with DBNorm that its searches use.

    Args:
        store: the engine's side.
        on_missing: what a search without `method=` does where there are no statistics, or unreadable ones: "raw"
            serves raw results and logs a warning once a minute, "error" raises NotFittedError or
            StatisticsFormatError.
        statistics_ttl: seconds after which a search reads the collection-level statistics anew, so that a fit by
            another process takes effect.

    Attributes:
        client: the user's own, set by the engine's adapter.
        fallback_count: searches that were served raw for want of statistics.
    """

    client: Any

    def __init__(
        self, store: Store, *, on_missing: str = "raw", statistics_ttl: float = DEFAULT_STATISTICS_TTL
    ) -> None:
        if on_missing not in ("raw", "error"):
            raise InvalidParameterError(f"on_missing must be 'raw' or 'error', got {on_missing!r}")
        if not statistics_ttl >= 0:
            raise InvalidParameterError(f"statistics_ttl must be at least 0 seconds, got {statistics_ttl!r}")
        self._store = store
        self._ledger = Ledger(store)
        self._on_missing = on_missing
        self._ttl = statistics_ttl
        self._lock = threading.Lock()
        self._banks_lock = threading.Lock()
        self._bank_biases: tuple[int, list[BankBiases]] | None = None
        self._cached: tuple[float, CollectionStatistics | None] | None = None
        self._confirmed: dict[int, float] = {}
        self._checked = (0.0, 0)  # when the vector was last compared with the statistics, and of which generation
        self._warned_at: dict[str, float] = {}
        self.fallback_count = 0

    @property
    def collection_name(self) -> str:
        """The name of the wrapped collection."""
        return self._store.collection

    @property
    def vector_name(self) -> str:
        """The vector name or field that is normalised; "" for Qdrant's unnamed vector."""
        return self._store.describe().name

    def is_fitted(self) -> bool:
        """Whether there are statistics of this vector for searches to use.

        Raises:
            StatisticsError: there are some, but not of this vector, or unreadable ones.
        """
        return self._run(self.statistics_in_use()) is not None

    def close(self) -> None:
        """Close the client, if the adapter was made from a command-line target; the user's own is theirs to close."""
        self._store.close()

    # --- one search --------------------------------------------------------------------------------------------

    def _run(self, steps: Steps[T]) -> T:
        """Take the steps of a search with the user's client."""
        return run(steps, self.client)

    def _plan(
        self,
        *,
        limit: int,
        offset: int = 0,
        candidates: int | None = None,
        method: str | Method | None = None,
        exact: bool = False,
        max_candidates: int | None = None,
        explained: bool = False,
    ) -> Steps[SearchPlan]:
        """Check a search's own arguments and decide its method and window. The vector is described after it."""
        check_count(limit, what="limit")
        check_count(offset, what="offset", least=0)
        wanted = offset + limit
        max_window = self._max_window(wanted, candidates, exact, max_candidates)
        chosen = None if method is None else Method.parse(method)
        fail_open = chosen is None and self._on_missing == "raw"
        yield from self._described()
        statistics = None if chosen is Method.RAW else (yield from self._served(fail_open=fail_open))
        used = Method.RAW if statistics is None else check_supported(chosen or statistics.method, statistics)
        if statistics is None or used is Method.RAW:
            fallback = statistics is None and chosen is not Method.RAW
            return SearchPlan(Method.RAW, wanted, wanted, explained=explained, fallback=fallback)
        return SearchPlan(
            used,
            wanted,
            candidates or self._default_window(statistics, wanted, exact=exact, most=max_window),
            statistics,
            max_window,
            explained,
            by_default=chosen is None,
        )

    def _described(self) -> Steps[VectorInfo]:
        """The vector; from then on the store knows it."""
        if not self._store.described:
            yield Work(self._store.describe, key=(self._store, "describe"))
        return self._store.describe()

    def _served(self, *, fail_open: bool) -> Steps[CollectionStatistics | None]:
        """The statistics for a search; None where it is to be served raw, since they are absent or unreadable."""
        try:
            statistics = yield from self.statistics_in_use()
            trouble = "there are no statistics; call fit(), or method='raw' to say so"
        except StatisticsFormatError as error:
            if not fail_open:
                raise
            statistics, trouble = None, str(error)
        if statistics is None:
            if not fail_open:
                raise NotFittedError(
                    f"collection {self._store.collection!r} has no statistics; call fit(), or search with method='raw'"
                )
            self.fallback_count += 1
            self._warn("no statistics", f"serving raw results: {trouble}")
        return statistics

    def _max_window(self, wanted: int, candidates: int | None, exact: bool, max_candidates: int | None) -> int | None:
        """How far `exact` may widen the window; None if that was not asked for."""
        for name, count in (("candidates", candidates), ("max_candidates", max_candidates)):
            if count is not None and check_count(count, what=name) < wanted:
                raise InvalidParameterError(
                    f"{name}={count} is less than offset + limit = {wanted}: ask for at least as many"
                )
        if not exact:
            if max_candidates is not None:
                raise InvalidParameterError(f"max_candidates={max_candidates} bounds exact=True; pass that too")
            return None
        most = max_candidates or max(wanted, candidates or 0, min(DEFAULT_MAX_CANDIDATES, self._store.max_window))
        if candidates is not None and candidates > most:
            raise InvalidParameterError(f"candidates={candidates} is more than max_candidates={most}")
        if max_candidates is not None and max_candidates > self._store.max_window:
            raise InvalidParameterError(
                f"max_candidates={max_candidates}: {self._store.engine} returns at most {self._store.max_window} hits"
            )
        return most

    def _default_window(self, statistics: CollectionStatistics, wanted: int, *, exact: bool, most: int | None) -> int:
        """The window of a search that names none: the calibrated one, or one that is certified for most queries."""
        calibration = statistics.calibration
        window = max(10 * wanted, 100) if calibration is None else calibration.window(wanted, certified=exact)
        return max(wanted, min(window, self._store.max_window if most is None else most))

    def _search(self, plan: SearchPlan, count: int, fetch: Fetch, lookup: Lookup) -> Steps[list[Outcome]]:
        """Fetch the candidates of `count` queries and re-rank them; for an exact search, until all are certified."""
        outcomes: dict[int, Outcome] = {}
        pending, window, rounds = list(range(count)), plan.window, 0
        while pending:
            rounds += 1
            found = yield from fetch(pending, window)
            statistics, items = yield from self._consistent(plan, found, lookup)
            arithmetic = partial(_reranked, plan, found, statistics, items, window)
            ranked = (yield Work(arithmetic)) if len(items) > _MANY_CANDIDATES else arithmetic()
            method = plan.method_for(statistics)
            for row, candidates, best in zip(pending, found, ranked, strict=True):
                outcomes[row] = Outcome(candidates, best, method, rounds)
            pending = [row for row in pending if not outcomes[row].best.certified]
            if plan.max_window is None or not pending:
                break
            if window >= plan.max_window:
                self._warn(
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
            statistics = (yield from self.statistics_in_use(fresh=True)) or statistics
        items, outdated = yield from looked_up(lookup(found, statistics))
        if outdated:
            newer = yield from self._newer_statistics(statistics)
            if newer is not None:
                items, _ = yield from looked_up(lookup(found, newer))
                return newer, items
        return statistics, items

    # --- the statistics in use ---------------------------------------------------------------------------------

    def statistics_in_use(self, *, fresh: bool = False) -> Steps[CollectionStatistics | None]:
        """The statistics that searches use, None if there are none: read anew after the time to live, or if `fresh`."""
        with self._lock:
            cached = self._cached
        if not fresh and cached is not None and time.monotonic() - cached[0] < self._ttl:
            return cached[1]
        key = None if fresh else (self, "statistics")  # what is under way may have been read too early
        statistics: CollectionStatistics | None = yield Work(self._read_statistics, key=key)
        return statistics

    @spanned("dbnorm.lookup")
    def _read_statistics(self) -> CollectionStatistics | None:
        statistics = self._ledger.active()
        if statistics is not None:
            checked_at, generation = self._checked
            now = time.monotonic()
            if generation != statistics.generation or now - checked_at >= self._ttl:
                info = self._store.describe(fresh=True)
                check_same_vector(statistics, info, self._store.collection, fitting=False)
                self._checked = (now, statistics.generation)
        return self._remember(statistics)

    def _newer_statistics(self, known: CollectionStatistics) -> Steps[CollectionStatistics | None]:
        """The active statistics, when items show values of another generation than `known`; None if there are none.

        Such values may be what a killed fit left, so a generation that was confirmed is not asked for again for a
        second.
        """
        with self._lock:
            confirmed_at = self._confirmed.get(known.generation, -_CONFIRM_EVERY)
        if time.monotonic() - confirmed_at < _CONFIRM_EVERY:
            return None
        current = yield from self.statistics_in_use(fresh=True)
        if current is not None and current.generation != known.generation:
            return current
        with self._lock:
            self._confirmed = {known.generation: time.monotonic()}
        return None

    def _remember(self, statistics: CollectionStatistics | None) -> CollectionStatistics | None:
        with self._lock:
            self._cached = (time.monotonic(), statistics)
        return statistics

    def _warn(self, kind: str, message: str) -> None:
        """Log a warning, at most once a minute for each kind."""
        now = time.monotonic()
        if now - self._warned_at.get(kind, -_WARN_EVERY) >= _WARN_EVERY:
            self._warned_at[kind] = now
            logger.warning("collection %r: %s", self._store.collection, message)


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


def check_same_vector(
    statistics: CollectionStatistics | None, info: VectorInfo, collection: str, *, fitting: bool
) -> None:
    """Raise StatisticsMismatchError if the statistics belong to another vector, dimension or metric."""
    if statistics is None:
        return
    stored = (statistics.vector, statistics.dimension, statistics.metric)
    if stored != (info.name, info.dimension, info.metric):
        advice = "drop() them first" if fitting else "use an adapter for that vector, or drop() and fit() this one"
        raise StatisticsMismatchError(
            f"collection {collection!r} has statistics of vector {stored[0]!r} ({stored[1]}-d {stored[2].value}), not"
            f" of {info.name!r} ({info.dimension}-d {info.metric.value}); {advice}"
        )
