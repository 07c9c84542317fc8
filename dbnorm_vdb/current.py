"""The collection-level statistics that searches use: read now and then, and kept when they cannot be read again."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import NamedTuple

from dbnorm_vdb.deadline import NO_DEADLINE, Deadline
from dbnorm_vdb.errors import InvalidInputError, StatisticsError, StatisticsMismatchError, StatisticsTimeoutError
from dbnorm_vdb.fallbacks import Warnings, in_words
from dbnorm_vdb.ledger import Ledger
from dbnorm_vdb.statistics import CollectionStatistics
from dbnorm_vdb.steps import Steps, within, work
from dbnorm_vdb.store import Store, VectorInfo
from dbnorm_vdb.telemetry import spanned

_CONFIRM_EVERY = 1.0
_NEVER = -1e9
_NOT_CHECKED = (_NEVER, 0)


class _Known(NamedTuple):
    """What the last reading brought.

    Attributes:
        at: when.
        statistics: the latest; None if there are none.
        trouble: why they could not be read again.
    """

    at: float = _NEVER
    statistics: CollectionStatistics | None = None
    trouble: Exception | None = None


class CurrentStatistics:
    """The active statistics of a collection.

    Args:
        store: the engine's side.
        ledger: of the same.
        ttl: seconds after which they are read anew.
        warnings: told when they cannot be read anew.
        on_read: called with whatever is read.
    """

    def __init__(
        self,
        store: Store,
        ledger: Ledger,
        ttl: float,
        warnings: Warnings,
        on_read: Callable[[CollectionStatistics | None], None],
    ) -> None:
        self._store = store
        self._ledger = ledger
        self._ttl = ttl
        self._warnings = warnings
        self._on_read = on_read
        self._lock = threading.Lock()
        self._known = _Known()
        self._puts = 0
        self._confirmed: dict[int, float] = {}
        self._checked = _NOT_CHECKED  # when the vector was last described, and for which generation

    def get(
        self, *, fresh: bool = False, insist: bool = True, deadline: Deadline = NO_DEADLINE
    ) -> Steps[CollectionStatistics | None]:
        """The statistics that searches use, None if there are none: read anew after the time to live, or if `fresh`.

        If that fails, those read before are used on, unless `fresh`. If there are none the error is raised, and, unless
        the caller insists, again until the time to live has passed.

        Raises:
            StatisticsError: they are unreadable, of another vector, or late.
        """
        known = self._known
        if not fresh and time.monotonic() - known.at < self._ttl:
            if known.trouble is None or known.statistics is not None:
                return known.statistics
            if not insist:
                raise known.trouble.with_traceback(None)
        key = None if fresh else (self, "statistics")  # what is under way may have been read too early
        try:
            return (yield from within(deadline, work(self._read, key=key)))
        except (StatisticsMismatchError, InvalidInputError):
            raise
        except Exception as error:
            if fresh:
                raise
            return self._without(error)

    @spanned("dbnorm.lookup")
    def _read(self) -> CollectionStatistics | None:
        puts = self._puts
        statistics = self._ledger.active()
        self.check_vector(statistics)
        if puts == self._puts:  # else something newer has come in between
            self.put(statistics)
        return statistics

    def check_vector(self, statistics: CollectionStatistics | None) -> None:
        """Describe the vector anew, if that was last done for other statistics or some time ago, and compare.

        For statistics that were read just now: the collection may be an alias, and another one since, or made anew.

        Raises:
            StatisticsMismatchError: they are of another vector.
        """
        checked_at, checked_for = self._checked
        now, generation = time.monotonic(), 0 if statistics is None else statistics.generation
        if generation != checked_for or now - checked_at >= self._ttl:
            info = self._store.describe(fresh=True)
            check_same_vector(statistics, info, self._store.collection, fitting=False)
            self._checked = (now, generation)

    def expire(self) -> None:
        """Read and describe anew at the next opportunity: the collection may be another one from now on."""
        with self._lock:
            self._known = self._known._replace(at=_NEVER)
            self._checked = _NOT_CHECKED

    def _without(self, error: Exception) -> CollectionStatistics | None:
        """Those that were read before, though they cannot be read now."""
        readable = not isinstance(error, StatisticsError) or isinstance(error, StatisticsTimeoutError)
        with self._lock:
            before = self._known.statistics if readable else None
            self._known = _Known(time.monotonic(), before, error)
        if before is None:
            raise error
        self._warnings.warn(
            "stale", f"the statistics cannot be read anew, those read before serve on: {in_words(error)}"
        )
        return before

    def put(self, statistics: CollectionStatistics | None) -> None:
        """Use these from now on, unless they are those of before a refresh that is known already."""
        known = self._known.statistics
        if statistics is not None and known is not None and known.generation == statistics.generation:
            statistics = max(statistics, known, key=lambda one: one.revision)
        self._on_read(statistics)
        with self._lock:
            self._known = _Known(time.monotonic(), statistics)
            self._puts += 1

    def newer(self, known: CollectionStatistics, deadline: Deadline) -> Steps[CollectionStatistics | None]:
        """The active statistics, when items show values of another generation than `known`; None if there are none.

        Such values may be what a killed fit left, so a generation that was confirmed is not asked for again for a
        second.
        """
        with self._lock:
            confirmed_at = self._confirmed.get(known.generation, -_CONFIRM_EVERY)
        if time.monotonic() - confirmed_at < _CONFIRM_EVERY:
            return None
        current = yield from self.get(fresh=True, deadline=deadline)
        if current is not None and current.generation != known.generation:
            return current
        with self._lock:
            self._confirmed = {known.generation: time.monotonic()}
        return None


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
