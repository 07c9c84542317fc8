"""What a search is to be: which statistics and method it uses, what window it asks for; raw, where there are none.

What touches the database is written as steps (`dbnorm_vdb.steps`), which sync and async searches share.
"""

from __future__ import annotations

import threading
from typing import Any, TypeVar

from dbnorm_vdb.biases import BankBiases
from dbnorm_vdb.caching import CacheInfo, ItemCache, check_cache
from dbnorm_vdb.current import CurrentStatistics
from dbnorm_vdb.deadline import NO_DEADLINE, Deadline
from dbnorm_vdb.errors import (
    InvalidInputError,
    InvalidParameterError,
    NotFittedError,
    StatisticsMismatchError,
)
from dbnorm_vdb.fallbacks import ABSENT, Fallbacks, in_words, reason_of
from dbnorm_vdb.ledger import Ledger
from dbnorm_vdb.methods import Method, check_supported
from dbnorm_vdb.parameters import check_count, check_ttl
from dbnorm_vdb.searching import DEFAULT_MAX_CANDIDATES, SearchPlan
from dbnorm_vdb.statistics import CollectionStatistics
from dbnorm_vdb.steps import Steps, Work, run, within
from dbnorm_vdb.store import Store, VectorInfo

DEFAULT_STATISTICS_TTL = 5.0

T = TypeVar("T")


def check_options(statistics_ttl: float, cache: str, cache_bytes: int) -> None:
    """Raise InvalidParameterError for options of adapters that cannot be used."""
    check_ttl(statistics_ttl)
    check_cache(cache, cache_bytes)


class Planning:
    """The part of a collection with DBNorm that plans its searches.

    Args:
        store: the engine's side.
        on_missing: what a search without `method=` does where its statistics are absent, unreadable, not to be had, or
            late: "raw" serves raw results, counts them, and logs a warning once a minute; "error" raises.
        statistics_ttl: seconds after which a search reads the collection-level statistics anew, so that a fit by
            another process takes effect.
        cache: which statistics of items are held in memory: "all", those that searches have asked for ("lazy"), or
            "none".
        cache_bytes: how much memory they may take; where all would take more, "all" is "lazy".

    Attributes:
        client: the user's own, set by the engine's adapter.
    """

    client: Any

    def __init__(self, store: Store, *, on_missing: str, statistics_ttl: float, cache: str, cache_bytes: int) -> None:
        if on_missing not in ("raw", "error"):
            raise InvalidParameterError(f"on_missing must be 'raw' or 'error', got {on_missing!r}")
        check_options(statistics_ttl, cache, cache_bytes)
        self._store = store
        self._ledger = Ledger(store)
        self._on_missing = on_missing
        self._fallbacks = Fallbacks(store.collection)
        self._items = ItemCache(store, cache, cache_bytes)
        self._current = CurrentStatistics(store, self._ledger, statistics_ttl, self._fallbacks, self._items.seen)
        self._banks_lock = threading.Lock()
        self._bank_biases: tuple[int, list[BankBiases]] | None = None

    @property
    def collection_name(self) -> str:
        """The name of the wrapped collection."""
        return self._store.collection

    @property
    def vector_name(self) -> str:
        """The vector name or field that is normalised; "" for Qdrant's unnamed vector."""
        return self._store.describe().name

    @property
    def fallback_count(self) -> int:
        """Searches that were served raw for want of statistics."""
        return sum(self._fallbacks.counts.values())

    @property
    def fallback_reasons(self) -> dict[str, int]:
        """How many of them, by reason: "absent", "unreadable", "failed", "late" or "uncovered"."""
        return self._fallbacks.counts

    def expire_statistics(self) -> None:
        """Read the collection-level statistics anew before they are used again; what is held of items stays."""
        self._current.expire()

    def cache_info(self) -> CacheInfo:
        """Which statistics of items are held in memory, and how often that has spared asking for them."""
        return self._items.info()

    def is_fitted(self) -> bool:
        """Whether there are statistics of this vector for searches to use.

        Raises:
            StatisticsError: there are some, but not of this vector, or unreadable ones.
        """
        return self._run(self._current.get()) is not None

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
        fresh: bool = False,
        deadline: Deadline = NO_DEADLINE,
    ) -> Steps[SearchPlan]:
        """Check a search's own arguments and decide its method and window; `fresh`, by statistics that are read anew.

        The vector is described after it, unless the search is to be raw.
        """
        check_count(limit, what="limit")
        check_count(offset, what="offset", least=0)
        wanted = offset + limit
        max_window = self._max_window(wanted, candidates, exact, max_candidates)
        chosen = None if method is None else Method.parse(method)
        raw = SearchPlan(Method.RAW, wanted, wanted, explained=explained, deadline=deadline)
        if not (yield from self._described_in_time(chosen, deadline)):
            return raw._replace(fallback=chosen is None)
        if chosen is Method.RAW:
            return raw
        fail_open = self._fails_open(chosen)
        statistics = yield from self._served(fail_open=fail_open, fresh=fresh, deadline=deadline.halfway())
        used = Method.RAW if statistics is None else check_supported(chosen or statistics.method, statistics)
        if statistics is None or used is Method.RAW:
            return raw._replace(fallback=statistics is None)
        return SearchPlan(
            used,
            wanted,
            candidates or self._default_window(statistics, wanted, exact=exact, most=max_window),
            statistics,
            max_window,
            explained,
            by_default=chosen is None,
            deadline=deadline,
            fail_open=fail_open,
        )

    def _fails_open(self, method: str | Method | None) -> bool:
        """Whether a search that asks for this method may be served raw instead."""
        return method is None and self._on_missing == "raw"

    def _described(self) -> Steps[VectorInfo]:
        """The vector; from then on the store knows it."""
        if not self._store.described:
            yield Work(self._store.describe, key=(self._store, "describe"))
        return self._store.describe()

    def _described_in_time(self, method: str | Method | None, deadline: Deadline) -> Steps[bool]:
        """Describe the vector, which takes requests before the first search.

        False if that fails or is late: for a search that is raw, or is to be raw then.
        """
        if self._store.described:
            return True
        try:
            yield from within(deadline.halfway(), self._described())
        except InvalidInputError:
            raise
        except Exception as error:
            if self._fails_open(method):
                self._fall_back(error)
            elif method != Method.RAW:
                raise
            return False
        return True

    def _served(self, *, fail_open: bool, fresh: bool, deadline: Deadline) -> Steps[CollectionStatistics | None]:
        """The statistics for a search; None where it is to be served raw, since they cannot be used."""
        try:
            statistics = yield from self._current.get(fresh=fresh, insist=not fail_open, deadline=deadline)
        except (StatisticsMismatchError, InvalidInputError):
            raise
        except Exception as error:
            if not fail_open:
                raise
            self._fall_back(error)
            return None
        if statistics is None:
            if not fail_open:
                raise NotFittedError(
                    f"collection {self._store.collection!r} has no statistics; call fit(), or search with method='raw'"
                )
            self._fallbacks.add(ABSENT, "there are no statistics; call fit(), or method='raw' to say so")
        return statistics

    def _fall_back_or_raise(self, error: Exception, plan: SearchPlan) -> None:
        """The same, unless this search is not to be served raw."""
        if not plan.fail_open or isinstance(error, (StatisticsMismatchError, InvalidInputError)):
            raise error
        self._fall_back(error)

    def _fall_back(self, error: Exception) -> None:
        """Count a search that is served raw since its statistics could not be had, and say why."""
        self._fallbacks.add(reason_of(error), f"its statistics cannot be used: {in_words(error)}")

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

    # --- the statistics in use ---------------------------------------------------------------------------------

    def statistics_in_use(
        self, *, fresh: bool = False, insist: bool = True, deadline: Deadline = NO_DEADLINE
    ) -> Steps[CollectionStatistics | None]:
        """The statistics that searches use, None if there are none; see `CurrentStatistics.get`."""
        return self._current.get(fresh=fresh, insist=insist, deadline=deadline)

    def _remember(self, statistics: CollectionStatistics | None) -> None:
        """Use these from now on."""
        self._current.put(statistics)
