"""A collection with DBNorm: everything that is built once, above the seam (`dbnorm_vdb.store`), for all engines."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy.typing as npt

from dbnorm_vdb.banks import Bank
from dbnorm_vdb.copying import Folder, FoldTarget
from dbnorm_vdb.current import check_same_vector
from dbnorm_vdb.errors import InvalidParameterError, NotFittedError
from dbnorm_vdb.fitting import FitSettings
from dbnorm_vdb.folding import check_foldable
from dbnorm_vdb.generations import BankInput, Generations
from dbnorm_vdb.likeness import LEAST, bank_distance
from dbnorm_vdb.methods import Method
from dbnorm_vdb.parameters import check_count
from dbnorm_vdb.statistics import CollectionStatistics
from dbnorm_vdb.store import VectorInfo
from dbnorm_vdb.summaries import FoldSummary, Status
from dbnorm_vdb.targets import Target
from dbnorm_vdb.tuning import BetaInput, TuneOptions, TuneResult, tune
from dbnorm_vdb.validation import DEFAULT_MEASURE
from dbnorm_vdb.verdicts import BankDistance
from dbnorm_vdb.writing import Execution, Progress


class NormalizedCollection(Generations, ABC):
    """A collection with DBNorm: fit, tune, status, drop. Base of the adapters, which add the engine's own search."""

    # --- a folded copy -----------------------------------------------------------------------------------------

    def fold(
        self,
        target: str,
        *,
        method: str | Method | None = None,
        page_size: int = 1000,
        batch_size: int | None = None,
        max_items_per_second: float | None = None,
        progress: Progress | None = None,
    ) -> FoldSummary:
        """Copy the collection into a new one whose vectors carry the normalisation as one more dimension.

        Searching the copy (`FoldedQdrantAdapter`, `FoldedMilvusAdapter`) needs no over-fetch and no statistics, and
        returns what an exact search returns here. It is a snapshot: what is written here later is not in it. Payload,
        fields, other vectors and indexes are copied; this collection is only read. Interrupted, the same call goes on
        where it stopped. The copy is verified before it can be searched.

        Args:
            target: the name of the new collection.
            method: instead of the fitted default: `is`, `dual_is`, `sinkhorn` or `nnn`, as far as fitted.
            page_size: items read and written at a time.
            batch_size: items in one write request; None for what suits the engine.
            max_items_per_second: the pace, on average; None for as fast as it goes.
            progress: called with a stage, how many are done, and how many there are.

        Raises:
            NotFittedError: there are no statistics yet.
            UnsupportedMethodError: the method has gates, or the statistics cannot serve it.
            UnsupportedCollectionError: the collection has something that cannot be copied.
            ForeignDataError: there is a collection of that name that is not an unfinished copy.
            StatisticsMismatchError: it is one of another collection, or of other statistics; or the collection was
                fitted anew meanwhile.
            StatisticsError: the copy does not hold what was written to it.
        """
        execution = Execution.of(batch_size, max_items_per_second, progress)
        check_count(page_size, what="page_size")
        if not isinstance(target, str) or not target:
            raise InvalidParameterError(f"target is the name of a collection that is to be made, got {target!r}")
        info = self._store.describe(fresh=True)
        statistics = self._ledger.active()
        if statistics is None:
            raise NotFittedError(f"collection {self._store.collection!r} has no statistics to fold; call fit()")
        check_same_vector(statistics, info, self._store.collection, fitting=False)
        chosen = check_foldable(method or statistics.method, statistics)
        self._count_items(info)
        return Folder(self._store, self._fold_target(target), execution, page_size).fold(statistics, chosen)

    @abstractmethod
    def _fold_target(self, name: str) -> FoldTarget:
        """What copies this collection into another."""

    # --- does it help? -----------------------------------------------------------------------------------------

    def tune(
        self,
        queries: BankInput | None = None,
        relevant: Any = None,
        *,
        query_bank: BankInput | None = None,
        gallery_bank: BankInput | int | None = None,
        methods: Iterable[str | Method] | None = None,
        betas: BetaInput | None = None,
        measure: str = DEFAULT_MEASURE,
        folds: int = 5,
        candidates: int | None = None,
        activation_k: int = 1,
        nnn_k: int = 10,
        iterations: int = 10,
        sample_size: int = 50_000,
        seed: int = 0,
        backend: str = "auto",
        progress: Progress | None = None,
    ) -> TuneResult:
        """Find the settings to fit with. Nothing is written, and nothing has to be fitted.

        The raw candidates of the queries are re-ranked with every setting. Taken is the simplest method (`raw`, `is`,
        `dis`, `nnn`, `sinkhorn`, `dual_is`, `dual_dis`) whose best setting is within one standard error of the best
        of all; what it is worth on new queries is told by cross-validation. `fit(query_bank, gallery_bank,
        **result.settings)` takes the settings as they are.

        Without labels the settings are those under which the results are shared most evenly among the items (the
        Robin Hood index of the 10-occurrence), of `queries`, or else of queries held out of the query bank. That is a
        heuristic: the result is marked as not validated.

        Args:
            queries: (n, d) vectors of queries: array, path or `Bank`.
            relevant: for each the id of the relevant item, an iterable of ids, or a mapping of ids to grades; or qrels
                (a path, a mapping, a data frame) by row number. None: there are no labels.
            query_bank: as for `fit`.
            gallery_bank: as for `fit`.
            methods: what to try besides `raw`; None for all that the banks allow but `sinkhorn`, which takes longest.
            betas: inverse temperatures to try for both banks, or by bank: `{"query": [...], "gallery": [...]}`. A
                gallery beta of 0 makes `is` of `dual_is`. None: a range that suits the spread of the similarities.
            measure: what to optimise: `R`, `Success`, `RR` or `nDCG`, with a cutoff.
            folds: of the cross-validation.
            candidates: how many items to fetch for each query; None for 500, or all if there are fewer.
            activation_k, nnn_k, iterations, sample_size, seed, backend: as for `fit`.
            progress: called with a stage, how many are done, and how many there are.

        Raises:
            InvalidInputError: and its kinds, when the queries, the labels, a bank or a parameter cannot be used.
        """
        options = TuneOptions(
            methods,
            betas,
            measure,
            folds,
            candidates,
            activation_k,
            nnn_k,
            iterations,
            sample_size,
            seed,
            backend,
            progress,
        )
        info = self._store.describe(fresh=True)
        FitSettings(backend=backend).check_backend(info.metric)
        self._count_items(info)
        banks = self._load_banks(query_bank, gallery_bank, info, seed)
        return tune(self._store, self.nearest, info, queries, relevant, banks, options)

    # --- status and drop ---------------------------------------------------------------------------------------

    def status(
        self,
        query_bank: BankInput | None = None,
        gallery_bank: BankInput | None = None,
        *,
        queries: BankInput | None = None,
    ) -> Status:
        """What is stored for this collection, and how many of its items it covers.

        Args:
            query_bank: the query bank in use today; `changed_banks` says whether it is still the fitted one.
            gallery_bank: the same for the gallery bank.
            queries: a sample of the queries that are served today, 10 or more, better 200; `bank_distance` says how
                far they are from the fitted query bank.

        Raises:
            StatisticsFormatError: what is stored is unreadable or of another format version.
            NotFittedError: `queries` are given, and there is no fitted query bank to compare them with.
            InvalidInputError: and its kinds, when a bank or the queries cannot be used.
        """
        info = self._store.describe(fresh=True)
        state = self._ledger.read()
        distance = None if queries is None else self._distance(state.active, queries, info)
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
            active=state.active and self._ledger.active(),
            banks_missing=state.active is not None and not self._store.has_banks(state.active.generation),
            rejected=state.rejected,
            writing=state.writing,
            changed_banks=changed,
            bank_distance=distance,
        )

    def _distance(self, active: CollectionStatistics | None, queries: BankInput, info: VectorInfo) -> BankDistance:
        """Of queries from the fitted query bank."""
        given = Bank.of(queries, what="status queries", dimension=info.dimension)
        if active is None or active.query is None:
            raise NotFittedError(
                f"collection {self._store.collection!r} has no fitted query bank to compare queries with; call fit()"
            )
        found = bank_distance(self._store.read_bank(active.generation, "query")[0], given.vectors, active.metric)
        if found is None:
            raise InvalidParameterError(
                f"{len(given)} queries and {active.query.size} bank vectors are too few to compare; each needs {LEAST}"
            )
        return found

    def drop(self) -> None:
        """Remove everything that this library stored for the collection, and nothing else. Safe to repeat.

        If the collection itself has been dropped, its companion collections are removed.

        Raises:
            FitInProgressError: a fit is running.
        """
        if not self._store.remove_remains() and self._ledger.begin_removal():
            self._store.remove_all()
            self._ledger.remove()
        self._remember(None)

    # --- for the command line and the demonstration ------------------------------------------------------------

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
