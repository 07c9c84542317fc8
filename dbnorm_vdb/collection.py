"""A collection with DBNorm: everything that is built once, above the seam (`dbnorm_vdb.store`), for all engines."""

from __future__ import annotations

import heapq
import logging
import os
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel

from dbnorm_vdb.banks import Bank, sample_key, usable_vectors
from dbnorm_vdb.errors import (
    EmptyBankError,
    EmptyCollectionError,
    InvalidParameterError,
    NotFittedError,
    StatisticsMismatchError,
)
from dbnorm_vdb.fitting import FitSettings, GalleryFit
from dbnorm_vdb.ledger import Ledger
from dbnorm_vdb.methods import Method, check_supported
from dbnorm_vdb.parameters import check_count
from dbnorm_vdb.statistics import CollectionStatistics, FitClaim, Metric
from dbnorm_vdb.store import Hit, Store, VectorInfo
from dbnorm_vdb.targets import Target
from dbnorm_vdb.version import __version__

logger = logging.getLogger("dbnorm_vdb")

BankInput: TypeAlias = Bank | npt.ArrayLike | str | os.PathLike[str]
Progress: TypeAlias = Callable[[str, int, int], None]

DEFAULT_STATISTICS_TTL = 5.0
_WARN_EVERY = 60.0
_CONFIRM_EVERY = 1.0
_PEEK = 100


class FitSummary(BaseModel):
    """What a fit did. `statistics` are those that searches use from now on."""

    statistics: CollectionStatistics
    item_count: int
    skipped_count: int
    seconds: float


class Status(BaseModel):
    """What an adapter's collection holds, as of now.

    Attributes:
        item_count: items in the collection.
        fitted_count: items among them with statistics of the active generation.
        active: the statistics that searches use; None before the first fit.
        writing: the claim of a fit that is running, or was killed.
        changed_banks: of the banks given to `status`, those that differ from the fitted ones.
    """

    engine: str
    collection: str
    vector: str
    dimension: int
    metric: Metric
    item_count: int
    fitted_count: int
    active: CollectionStatistics | None
    writing: FitClaim | None
    changed_banks: list[str]

    @property
    def coverage(self) -> float:
        """The share of items with statistics; the others count as average items."""
        return self.fitted_count / self.item_count if self.item_count else 0.0


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


class NormalizedCollection(ABC):
    """A collection with DBNorm: fit, status, drop. Base of the adapters, which add the engine's own search.

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

    # --- fit ---------------------------------------------------------------------------------------------------

    def fit(
        self,
        query_bank: BankInput | None = None,
        gallery_bank: BankInput | int | None = None,
        *,
        method: str | Method = Method.DUAL_IS,
        query_beta: float = 20.0,
        gallery_beta: float = 10.0,
        activation_k: int = 1,
        seed: int = 0,
        page_size: int = 1000,
        backend: str = "auto",
        progress: Progress | None = None,
    ) -> FitSummary:
        """Compute and store the statistics of every item; searches use them once all are written.

        The user's vectors and payload are only read. Everything is checked before anything is written. While the fit
        runs, and if it is killed, searches go on with the previous statistics.

        Args:
            query_bank: queries like those the collection serves: (n, d) array, path (`.npy`, `.npz`, `.parquet`) or
                `Bank`.
            gallery_bank: items like those it holds: the same, or how many items to sample from the collection.
            method: the default method of searches: `is`, `dis`, `dual_is` or `dual_dis`.
            query_beta: inverse temperature of the query bank.
            gallery_beta: inverse temperature of the gallery bank.
            activation_k: how many nearest items each bank vector activates (`dis`, `dual_dis`).
            seed: of the sample drawn when `gallery_bank` is a number.
            page_size: items read, computed and written at a time.
            backend: "numpy", "torch" or "auto".
            progress: called with a stage, how many are done, and how many there are.

        Raises:
            InvalidInputError: and its kinds, when a bank, a parameter or the collection cannot be used.
            StatisticsMismatchError: the collection is fitted for another of its vectors.
            ForeignDataError: a name to be written under is taken.
            FitInProgressError: another fit of the collection is running, or took over.
        """
        started = time.monotonic()
        settings = FitSettings(Method.parse(method), query_beta, gallery_beta, activation_k, page_size, backend)
        settings.check_banks({"query": query_bank, "gallery": gallery_bank})
        info = self._store.describe(fresh=True)
        state = self._ledger.read()
        _check_same_vector(state.active, info, self._store.collection, fitting=True)
        count = self._store.count()
        if not count:
            raise EmptyCollectionError(f"collection {self._store.collection!r} has no items; insert some, then fit")
        banks = self._load_banks(query_bank, gallery_bank, info, seed)
        self._check_has_vectors(info)
        self._store.check_writable()
        claim = self._ledger.claim()
        try:
            statistics = self._write_generation(claim, info, banks, settings, count, progress or _silent)
            self._ledger.activate(claim, statistics)
        except BaseException:
            self._ledger.release(claim)
            raise
        self._remember(statistics)
        try:
            self._store.discard_generations(keep=claim.generation)
            self._ledger.finish(claim)
        except Exception:  # the fit is done and serving; the next one cleans up
            logger.warning("collection %r: fitted, but cleaning up failed", self._store.collection, exc_info=True)
            self._ledger.release(claim)
        return FitSummary(
            statistics=statistics,
            item_count=statistics.item_count,
            skipped_count=statistics.skipped_count,
            seconds=time.monotonic() - started,
        )

    def _write_generation(
        self,
        claim: FitClaim,
        info: VectorInfo,
        banks: Mapping[str, Bank],
        settings: FitSettings,
        count: int,
        report: Progress,
    ) -> CollectionStatistics:
        generation = claim.generation
        active = self._ledger.read().active
        self._store.discard_generations(keep=active.generation if active else None)
        self._store.begin(generation, info.dimension)
        for name, bank in banks.items():
            self._store.write_bank(generation, name, bank.vectors)
            self._ledger.renew(claim)
            report(f"{name} bank", len(bank), len(bank))
        gallery = GalleryFit(metric=info.metric, banks=banks, settings=settings, expected_items=count)
        done = 0
        report("items", 0, count)
        for page in self._store.pages(settings.page_size):
            usable, biases = gallery.page(page.ids, page.vectors)
            ids = [item for item, use in zip(page.ids, usable, strict=True) if use]
            if ids:
                self._store.write_items(generation, ids, biases)
            done += len(page.ids)
            report("items", min(done, count), count)
            self._ledger.renew(claim)
        statistics = gallery.statistics(
            generation=generation, vector=info.name, dimension=info.dimension, version=__version__
        )
        self._store.write_activation_sets(generation, gallery.activation_sets())
        self._ledger.renew(claim)
        return statistics

    def _check_has_vectors(self, info: VectorInfo) -> None:
        """Raise EmptyCollectionError if no item has the vector."""
        if not any(usable_vectors(page.vectors).any() for page in self._store.pages(_PEEK)):
            raise EmptyCollectionError(
                f"none of the items of collection {self._store.collection!r} has a usable vector {info.name!r};"
                " insert vectors, then fit"
            )

    def _load_banks(
        self, query_bank: BankInput | None, gallery_bank: BankInput | int | None, info: VectorInfo, seed: int
    ) -> dict[str, Bank]:
        banks: dict[str, Bank] = {}
        if query_bank is not None:
            banks["query"] = Bank.of(query_bank, what="query bank", dimension=info.dimension)
        if isinstance(gallery_bank, (int, np.integer)):
            banks["gallery"] = self.sample_items(gallery_bank, seed=seed)
        elif gallery_bank is not None:
            banks["gallery"] = Bank.of(gallery_bank, what="gallery bank", dimension=info.dimension)
        return banks

    def sample_items(self, size: int | np.integer[Any], *, seed: int = 0) -> Bank:
        """A bank of `size` of the collection's vectors; the same items for the same seed, on every engine.

        Items whose vector is missing, zero or not finite are left out.

        Raises:
            InvalidParameterError: `size` below 1.
            EmptyBankError: none of the sampled items has a usable vector.
        """
        count = check_count(size, what="gallery_bank as a number is a sample size, which")
        keyed = ((sample_key(item, seed), item) for page in self._store.ids() for item in page)
        chosen = [item for _, item in heapq.nsmallest(count, keyed)]
        page = self._store.fetch(chosen)
        rank = {item: position for position, item in enumerate(chosen)}
        order = sorted(range(len(page.ids)), key=lambda row: rank[page.ids[row]])
        vectors = page.vectors[order]
        vectors = vectors[usable_vectors(vectors) & vectors.any(axis=1)]
        if not len(vectors):
            raise EmptyBankError(
                f"none of {len(chosen)} items sampled from {self._store.collection!r} has a usable vector;"
                " pass gallery_bank as an array"
            )
        sampled = Bank.of(vectors, what="gallery bank")
        return Bank(sampled.vectors, f"{len(vectors)} items of {self._store.collection}, seed {seed}")

    # --- status and drop ---------------------------------------------------------------------------------------

    def status(self, query_bank: BankInput | None = None, gallery_bank: BankInput | None = None) -> Status:
        """What is stored for this collection, and how many of its items it covers.

        Args:
            query_bank: the query bank in use today; `changed_banks` says whether it is still the fitted one.
            gallery_bank: the same for the gallery bank.

        Raises:
            StatisticsFormatError: what is stored is unreadable or of another format version.
        """
        info = self._store.describe(fresh=True)
        state = self._ledger.read()
        given = {"query": query_bank, "gallery": gallery_bank}
        fitted = state.active.banks if state.active else {}
        changed = [
            name
            for name, bank in given.items()
            if bank is not None
            and (name not in fitted or Bank.of(bank, what=f"{name} bank").fingerprint != fitted[name].fingerprint)
        ]
        return Status(
            engine=self._store.engine,
            collection=self._store.collection,
            vector=info.name,
            dimension=info.dimension,
            metric=info.metric,
            item_count=self._store.count(),
            fitted_count=self._store.count_fitted(state.active.generation) if state.active else 0,
            active=state.active,
            writing=state.writing,
            changed_banks=changed,
        )

    def drop(self) -> None:
        """Remove everything that this library stored for the collection, and nothing else. Safe to repeat.

        Raises:
            FitInProgressError: a fit is running.
        """
        if self._ledger.begin_removal():
            self._store.remove_all()
            self._ledger.remove()
        self._remember(None)

    # --- for the adapters' searches ----------------------------------------------------------------------------

    @abstractmethod
    def nearest(
        self,
        queries: npt.ArrayLike,
        *,
        limit: int = 10,
        candidates: int | None = None,
        method: str | Method | None = None,
        with_payload: bool = True,
    ) -> list[list[Hit]]:
        """The nearest items of each of the (q, d) `queries`, in engine-neutral form, best first."""

    @classmethod
    @abstractmethod
    def from_target(cls, target: Target) -> NormalizedCollection:
        """The adapter of a command-line target."""

    @classmethod
    @abstractmethod
    def embedded(
        cls, directory: str, vectors: npt.ArrayLike, payloads: Sequence[Mapping[str, Any]], *, name: str = "items"
    ) -> NormalizedCollection:
        """A new collection on the engine's embedded form, which may keep files in `directory`."""

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
        statistics = self._ledger.read().active
        if statistics is not None:
            _check_same_vector(statistics, self._store.describe(fresh=True), self._store.collection, fitting=False)
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


def _silent(stage: str, done: int, total: int) -> None:
    """Report nothing."""


def _check_same_vector(
    statistics: CollectionStatistics | None, info: VectorInfo, collection: str, *, fitting: bool
) -> None:
    if statistics is None:
        return
    stored = (statistics.vector, statistics.dimension, statistics.metric)
    if stored != (info.name, info.dimension, info.metric):
        advice = "drop() them first" if fitting else "use an adapter for that vector, or drop() and fit() this one"
        raise StatisticsMismatchError(
            f"collection {collection!r} has statistics of vector {stored[0]!r} ({stored[1]}-d {stored[2].value}), not"
            f" of {info.name!r} ({info.dimension}-d {info.metric.value}); {advice}"
        )
