"""Fit and refresh: how a generation of statistics comes about, and becomes the one that searches use."""

from __future__ import annotations

import os
import time
from functools import partial
from operator import sub
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from dbnorm_vdb.banks import Bank, Vectors, usable_vectors
from dbnorm_vdb.biases import BankBiases
from dbnorm_vdb.bounds import bounds_beyond
from dbnorm_vdb.checkpoint import Checkpoint
from dbnorm_vdb.current import check_same_vector
from dbnorm_vdb.errors import EmptyBankError, EmptyCollectionError, InvalidParameterError, NotFittedError
from dbnorm_vdb.fallbacks import logger
from dbnorm_vdb.fitting import FitSettings
from dbnorm_vdb.inspections import Inspections
from dbnorm_vdb.ledger import unfinished
from dbnorm_vdb.methods import Method
from dbnorm_vdb.parameters import check_count
from dbnorm_vdb.pipeline import side_by_side
from dbnorm_vdb.statistics import CollectionStatistics, FitClaim, ItemStatistics
from dbnorm_vdb.store import Page, VectorInfo
from dbnorm_vdb.summaries import FitSummary, RefreshSummary, in_words
from dbnorm_vdb.validation import DEFAULT_MEASURE, Validation, ValidationInput, concerns
from dbnorm_vdb.writing import Execution, GalleryWriter, Progress, sample_vectors, stored_banks, work_key

BankInput: TypeAlias = Bank | npt.ArrayLike | str | os.PathLike[str]

_PEEK = 100


class Generations(Inspections):
    """The part of a collection with DBNorm that writes statistics."""

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
        iterations: int = 10,
        sample_size: int = 50_000,
        nnn_alpha: float = 0.5,
        nnn_k: int = 10,
        seed: int = 0,
        page_size: int | None = None,
        batch_size: int | None = None,
        max_items_per_second: float | None = None,
        backend: str = "auto",
        precision: str = "float32",
        resume: bool = True,
        validation: ValidationInput | None = None,
        measure: str = DEFAULT_MEASURE,
        force: bool = False,
        progress: Progress | None = None,
    ) -> FitSummary:
        """Compute and store the statistics of every item; searches use them once all are written.

        The user's vectors and payload are only read. Everything is checked before anything is written. While the fit
        runs, and if it is killed, searches go on with the previous statistics; the same fit, called again within a
        day, goes on where the killed one stopped.

        With `validation`, searches use the statistics only if they beat raw searches on these queries (a paired
        bootstrap, one-sided 95 %). Otherwise a warning is logged, the summary and `status` tell the figures, searches
        go on as before, and what was written is removed. Take other queries than the settings were tuned on, and than
        those in the bank.

        Args:
            query_bank: queries like those the collection serves: (n, d) array, path (`.npy`, `.npz`, `.parquet`) or
                `Bank`.
            gallery_bank: items like those it holds: the same, or how many items to sample from the collection.
            method: the default method of searches: `is`, `dis`, `dual_is`, `dual_dis`, `nnn` or `sinkhorn`.
            query_beta: inverse temperature of the query bank.
            gallery_beta: inverse temperature of the gallery bank.
            activation_k: how many nearest items each bank vector activates (`dis`, `dual_dis`).
            iterations: item steps of `sinkhorn`; 1 is `is`.
            sample_size: how many items `sinkhorn` learns its bank weights on, at most. They are held in memory.
            nnn_alpha: weight of the bias of `nnn`; 0.5 is CSLS.
            nnn_k: the bias of `nnn` is the mean of this many largest similarities to the query bank (all, if fewer).
            seed: of the samples drawn for `sinkhorn`, and when `gallery_bank` is a number.
            page_size: items read and computed at a time; None for about a million numbers, at most 4096 items.
            batch_size: items in one write request; None for what suits the engine.
            max_items_per_second: for a database that is busy: the pace, on average. None: as fast as it goes.
            backend: "numpy", "torch" or "auto".
            precision: of the matrix product: "float32", or on torch "tf32" or "bfloat16" (see `make_kernel`).
            resume: go on where an interrupted fit of the same work stopped; False starts afresh.
            validation: labelled queries, `(queries, relevant)`: (n, d) vectors, and for each the id of the relevant
                item, an iterable of ids, or a mapping of ids to grades; or qrels (a path, a mapping, a data frame) by
                row number.
            measure: what has to get better: `R`, `Success`, `RR` or `nDCG`, with a cutoff.
            force: activate whatever the validation says.
            progress: called with a stage, how many are done, and how many there are.

        Raises:
            InvalidInputError: and its kinds, when a bank, a parameter or the collection cannot be used.
            StatisticsMismatchError: the collection is fitted for another of its vectors.
            ForeignDataError: a name to be written under is taken.
            FitInProgressError: another fit of the collection is running, or took over.
        """
        started = time.monotonic()
        settings = FitSettings(
            Method.parse(method),
            query_beta,
            gallery_beta,
            activation_k,
            iterations,
            sample_size,
            nnn_alpha,
            nnn_k,
            page_size,
            backend,
            precision,
        )
        execution = Execution.of(batch_size, max_items_per_second, progress)
        if force and validation is None:
            raise InvalidParameterError("force=True overrides a validation; pass validation=..., or leave it out")
        settings.check_banks({"query": query_bank, "gallery": gallery_bank})
        info = self._store.describe(fresh=True)
        settings.check_backend(info.metric)
        state = self._ledger.read()
        check_same_vector(state.active, info, self._store.collection, fitting=True)
        count, first = self._peek(info, execution.page_size(settings.items_at_a_time(info.dimension)))
        banks = self._load_banks(query_bank, gallery_bank, info, seed)
        guard = None
        if validation is not None:
            guard = Validation(
                validation, measure=measure, method=settings.method, store=self._store, dimension=info.dimension
            )
        self._store.check_writable()
        work = work_key(info, banks, settings, seed)
        generation = unfinished(self._ledger.read(), work) if resume else None
        checkpoint = Checkpoint.load(self._store.read_checkpoint(generation)) if generation else None
        claim = self._ledger.claim(work=work, generation=generation if checkpoint else None)
        try:
            active = self._ledger.read().active
            if checkpoint is None and (state.writing or (not active and self._store.has_leftovers())):
                self._ledger.settle(claim)
                self._store.discard_generations(keep=active.generation if active else None)
            writer = GalleryWriter(self._store, self._ledger, info, claim, settings, execution)
            statistics = writer.write(banks, count, seed, checkpoint or first)
            if guard:
                statistics = self._judged(statistics, guard, banks.get("query"), claim, execution)
            activated = force or statistics.verdict is None or statistics.verdict.passed
            (self._ledger.activate if activated else self._ledger.reject)(claim, statistics)
        except BaseException:
            self._ledger.release(claim)
            raise
        missing = 0
        if activated:
            self._remember(statistics)
            fitted = partial(self._store.count_fitted, claim.generation, just_written=True)
            missing = max(0, sub(*side_by_side(self._store.count, fitted, threaded=self._store.concurrent)))
        useless = active if activated else statistics
        self._clean_up(claim, useless.generation if useless else None)
        self._warn_of(statistics, activated=activated)
        return FitSummary(
            statistics=statistics,
            activated=activated,
            item_count=statistics.item_count,
            skipped_count=statistics.skipped_count,
            missing_count=missing,
            resumed_count=checkpoint.done if checkpoint else 0,
            seconds=time.monotonic() - started,
        )

    def _judged(
        self,
        statistics: CollectionStatistics,
        guard: Validation,
        query_bank: Bank | None,
        claim: FitClaim,
        execution: Execution,
    ) -> CollectionStatistics:
        """The statistics with the verdict of the validation on them."""

        def report(done: int, total: int) -> None:
            self._ledger.renew(claim)
            execution.report("validation queries", done, total)

        window = self._default_window(statistics, guard.cutoff, exact=False, most=None)
        verdict = guard.verdict(statistics, query_bank, self.nearest, window, report)
        return statistics.model_copy(update={"verdict": verdict})

    def _warn_of(self, statistics: CollectionStatistics, *, activated: bool) -> None:
        """Log what the user of fitted statistics had better know."""
        found: list[str] = []
        verdict, calibration = statistics.verdict, statistics.calibration
        if verdict is not None and not verdict.passed:
            done = "activated all the same" if activated else "not activated, searches go on as before"
            found.append(f"the new statistics were {done}: {statistics.method} was {verdict.in_words()}")
        if verdict is not None:
            found += concerns(verdict)
        if activated and calibration is not None and not calibration.suffices:
            found.append(in_words(calibration))
        for words in found:
            logger.warning("collection %r: %s", self._store.collection, words)

    def refresh(
        self,
        *,
        page_size: int | None = None,
        batch_size: int | None = None,
        max_items_per_second: float | None = None,
        backend: str = "auto",
        progress: Progress | None = None,
    ) -> RefreshSummary:
        """Bring the statistics up to date with the collection, using the stored banks.

        Reads every vector, writes the statistics of items that lack them or have changed, removes those of items that
        are gone, and renews the activation sets and the totals. The result is that of a fit with the same banks (the
        bank weights of `sinkhorn` stay as they were learned). Searches go on meanwhile.

        Args:
            page_size: items read and computed at a time; None for about a million numbers, at most 4096 items.
            batch_size: items in one write request; None for what suits the engine.
            max_items_per_second: the pace, on average; None for as fast as it goes.
            backend: "numpy", "torch" or "auto".
            progress: called with a stage, how many are done, and how many there are.

        Raises:
            NotFittedError: there are no statistics yet.
            EmptyCollectionError: there are no items left; `drop()` the statistics.
            FitInProgressError: a fit of the collection is running, or took over.
            ForeignDataError: a name to be written under is taken.
            StatisticsError: the stored banks are gone, or are not those that were fitted.
        """
        started = time.monotonic()
        execution = Execution.of(batch_size, max_items_per_second, progress)
        info = self._store.describe(fresh=True)
        FitSettings(page_size=page_size, backend=backend).check_backend(info.metric)
        if self._ledger.active() is None:
            raise NotFittedError(f"collection {self._store.collection!r} has no statistics to refresh; call fit()")
        self._store.check_writable()
        count = self._count_items(info)
        claim, active, unfinished_claim = self._claim_active(info)
        try:
            settings = FitSettings.of(active, page_size=page_size, backend=backend)
            banks, log_weights = stored_banks(self._store, active)
            writer = GalleryWriter(self._store, self._ledger, info, claim, settings, execution)
            statistics, written, removed = writer.refresh(active, banks, log_weights, count)
            self._ledger.activate(claim, statistics)
        except BaseException:
            self._ledger.release(claim)
            raise
        self._remember(statistics)
        self._clean_up(claim, None, unfinished_claim)
        return RefreshSummary(
            statistics=statistics,
            item_count=statistics.item_count,
            written_count=written,
            removed_count=removed,
            skipped_count=statistics.skipped_count,
            seconds=time.monotonic() - started,
        )

    def _claim_active(self, info: VectorInfo) -> tuple[FitClaim, CollectionStatistics, FitClaim | None]:
        """A claim of the active generation, its statistics once nobody else can change them, and a dead fit's claim."""
        state = self._ledger.read()
        claim = self._ledger.claim(generation=state.active.generation if state.active else None)
        try:
            self._ledger.settle(claim)
            active = self._ledger.active()
            if active is None or active.generation != claim.generation:
                raise NotFittedError(f"collection {self._store.collection!r} was fitted anew just now; refresh again")
            check_same_vector(active, info, self._store.collection, fitting=False)
        except BaseException:
            self._ledger.release(claim)
            raise
        dead = state.writing if state.writing and state.writing.generation != claim.generation else None
        return claim, active, dead

    def _clean_up(self, claim: FitClaim, useless: int | None, unfinished: FitClaim | None = None) -> None:
        """Remove a generation that is of no use any more, and what the fit itself left; not an unfinished fit."""
        try:
            self._store.clear_checkpoint(claim.generation)
            if useless is not None:
                self._store.discard_generation(useless)
            self._ledger.finish(claim, unfinished)
        except BaseException as error:  # the fit is done; the next one cleans up
            self._ledger.release(claim)
            if not isinstance(error, Exception):
                raise
            logger.warning("collection %r: fitted, but cleaning up failed", self._store.collection, exc_info=True)

    def _count_items(self, info: VectorInfo) -> int:
        """How many items there are; EmptyCollectionError if none, or none that has the vector."""
        return self._peek(info, _PEEK)[0]

    def _peek(self, info: VectorInfo, size: int) -> tuple[int, Page | None]:
        """The same, and the first page of items, if there is a vector in it that can be used."""
        count = self._store.count()
        if not count:
            raise EmptyCollectionError(f"collection {self._store.collection!r} has no items; insert some, then fit")
        for number, page in enumerate(self._store.pages(size)):
            if usable_vectors(page.vectors).any():
                return count, page if number == 0 else None
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
        vectors = sample_vectors(self._store, count, seed)
        vectors = vectors[vectors.any(axis=1)]
        if not len(vectors):
            raise EmptyBankError(
                f"none of the items sampled from {self._store.collection!r} has a usable vector;"
                " pass gallery_bank as an array"
            )
        sampled = Bank.of(vectors, what="gallery bank")
        return Bank(sampled.vectors, f"{len(vectors)} items of {self._store.collection}, seed {seed}")

    # --- items that come later ---------------------------------------------------------------------------------

    def _fitted_before_writing(self) -> CollectionStatistics | None:
        """The statistics of now, for items about to be written; None if nothing is fitted. The vector is theirs."""
        active = self._ledger.active()
        if active is not None:
            self._current.check_vector(active)
        return active

    def _new_items(self, active: CollectionStatistics, vectors: Vectors) -> tuple[CollectionStatistics, ItemStatistics]:
        """Statistics of (n, d) items about to be written, from the stored banks, and those of the collection.

        Their bias ranges hold for these items when this returns.
        """
        with self._banks_lock:
            if self._bank_biases is None or self._bank_biases[0] != active.generation:
                self._bank_biases = (active.generation, self._load_biases(active))
            usable = usable_vectors(vectors)
            biases = {name: np.full(len(vectors), np.nan) for name in active.columns}
            for bank in self._bank_biases[1]:
                for name, values in bank.of(vectors[usable]).items():
                    biases[name][usable] = values
        items = ItemStatistics.of_biases(len(vectors), biases)
        bounds = bounds_beyond(active, items)
        if bounds is not None:
            self._ledger.widen(bounds)
            active = active.widened([bounds])
        self._remember(active)
        return active, items

    def _load_biases(self, active: CollectionStatistics) -> list[BankBiases]:
        banks, log_weights = stored_banks(self._store, active)
        settings = FitSettings.of(active)
        return [
            BankBiases(settings.fitted(name, bank, log_weights), active.metric, backend="numpy")
            for name, bank in banks.items()
        ]
