"""What searches need: which statistics are active, how a search is to be run, and what to do when there are none."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass

from dbnorm_vdb.biases import BankBiases
from dbnorm_vdb.errors import InvalidParameterError, NotFittedError, StatisticsMismatchError
from dbnorm_vdb.ledger import Ledger
from dbnorm_vdb.methods import Method, check_supported
from dbnorm_vdb.parameters import check_count
from dbnorm_vdb.statistics import CollectionStatistics
from dbnorm_vdb.store import Store, VectorInfo

logger = logging.getLogger("dbnorm_vdb")

DEFAULT_STATISTICS_TTL = 5.0
_WARN_EVERY = 60.0
_CONFIRM_EVERY = 1.0


@dataclass(frozen=True)
class SearchPlan:
    """How one search is to be run.

    Attributes:
        method: `raw` means: hand the call to the client as it is.
        window: how many candidates to ask the engine for.
        statistics: of the collection; None for a raw search.
    """

    method: Method
    window: int
    statistics: CollectionStatistics | None


class Serving:
    """The part of a collection with DBNorm that its searches use.

    Args:
        store: the engine's side.
        on_missing: what a search without `method=` does on a collection that has no statistics: "raw" serves raw
            results and logs a warning once a minute, "error" raises NotFittedError.
        statistics_ttl: seconds after which a search reads the collection-level statistics anew, so that a fit by
            another process takes effect.
    """

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
        self._warned_at = -_WARN_EVERY

    @property
    def collection_name(self) -> str:
        """The name of the wrapped collection."""
        return self._store.collection

    @property
    def vector_name(self) -> str:
        """The vector name or field that is normalised; "" for Qdrant's unnamed vector."""
        return self._store.describe().name

    def close(self) -> None:
        """Close the client, if the adapter was made from a command-line target; the user's own is theirs to close."""
        self._store.close()

    def _plan(self, *, limit: int, offset: int, candidates: int | None, method: str | Method | None) -> SearchPlan:
        """Check a search's own arguments and decide its method and window."""
        check_count(limit, what="limit")
        check_count(offset, what="offset", least=0)
        if candidates is not None:
            check_count(candidates, what="candidates")
        wanted = offset + limit
        if candidates is not None and candidates < wanted:
            raise InvalidParameterError(
                f"candidates={candidates} is less than offset + limit = {wanted}: ask for at least as many"
            )
        chosen = None if method is None else Method.parse(method)
        if chosen is Method.RAW:
            return SearchPlan(Method.RAW, wanted, None)
        statistics = self._statistics()
        if statistics is None:
            if chosen is not None or self._on_missing == "error":
                raise NotFittedError(
                    f"collection {self._store.collection!r} has no statistics; call fit(), or search with method='raw'"
                )
            self._warn_missing()
            return SearchPlan(Method.RAW, wanted, None)
        chosen = check_supported(chosen or statistics.method, statistics)
        if chosen is Method.RAW:
            return SearchPlan(Method.RAW, wanted, None)
        default = statistics.candidates or max(10 * wanted, 100)
        window = candidates or max(wanted, min(default, self._store.max_window))
        return SearchPlan(chosen, window, statistics)

    def _statistics(self, *, newer_than: float | None = None) -> CollectionStatistics | None:
        """The active statistics, read again after the time to live, or if they were read before `newer_than`."""
        with self._lock:
            cached = self._cached
        fresh_since = time.monotonic() - self._ttl if newer_than is None else newer_than
        if cached is not None and cached[0] > fresh_since:
            return cached[1]
        statistics = self._ledger.active()
        if statistics is not None:
            check_same_vector(statistics, self._store.describe(fresh=True), self._store.collection, fitting=False)
        return self._remember(statistics)

    def _newer_statistics(self, known: CollectionStatistics) -> CollectionStatistics | None:
        """The active statistics, when items show values of another generation than `known`; None if there are none.

        Such values may be what a killed fit left, so a generation that was confirmed is not asked for again for a
        second.
        """
        with self._lock:
            confirmed_at = self._confirmed.get(known.generation, -_CONFIRM_EVERY)
        if time.monotonic() - confirmed_at < _CONFIRM_EVERY:
            return None
        current = self._statistics(newer_than=float("inf"))
        if current is not None and current.generation != known.generation:
            return current
        with self._lock:
            self._confirmed = {known.generation: time.monotonic()}
        return None

    def _remember(self, statistics: CollectionStatistics | None) -> CollectionStatistics | None:
        with self._lock:
            self._cached = (time.monotonic(), statistics)
        return statistics

    def _warn_missing(self) -> None:
        now = time.monotonic()
        if now - self._warned_at >= _WARN_EVERY:
            self._warned_at = now
            logger.warning(
                "collection %r has no statistics: serving raw results; call fit(), or method='raw' to say so",
                self._store.collection,
            )


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
