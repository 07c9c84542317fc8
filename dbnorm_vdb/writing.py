"""One pass over a collection that writes a generation of statistics, or brings the active one up to date."""

from __future__ import annotations

import hashlib
import heapq
import json
import math
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import chain
from numbers import Real
from typing import TypeAlias

import numpy as np

from dbnorm_vdb.banks import Bank, Vectors, sample_key, usable_vectors
from dbnorm_vdb.bounds import bounds_beyond
from dbnorm_vdb.checkpoint import Checkpoint
from dbnorm_vdb.errors import InvalidParameterError, StatisticsError
from dbnorm_vdb.fitting import STATE_FORMAT, FitSettings, GalleryFit, learn_sinkhorn
from dbnorm_vdb.ledger import Ledger
from dbnorm_vdb.methods import Method
from dbnorm_vdb.parameters import check_count
from dbnorm_vdb.pipeline import Pace, WriteBehind, read_ahead, worked_ahead
from dbnorm_vdb.statistics import (
    BANKS,
    BIAS_TOLERANCE,
    Booleans,
    CollectionStatistics,
    FitClaim,
    Floats,
    ItemId,
    ItemStatistics,
)
from dbnorm_vdb.store import Page, Store, VectorInfo
from dbnorm_vdb.version import __version__

Progress: TypeAlias = Callable[[str, int, int], None]

CHECKPOINT_EVERY = 10.0
"""Seconds between checkpoints; more where writing one takes long."""

_CHECKPOINT_SHARE = 0.02


@dataclass(frozen=True)
class Execution:
    """How a pass treats the database.

    Attributes:
        batch_size: items in one write request; None for the engine's own.
        max_items_per_second: read and write no faster than this on average; None for no limit.
        report: called with a stage, how many are done, and how many there are.
    """

    report: Progress
    batch_size: int | None = None
    max_items_per_second: float | None = None

    @classmethod
    def of(
        cls, batch_size: int | None, max_items_per_second: float | None, progress: Progress | None = None
    ) -> Execution:
        """What a caller asked for, checked.

        Raises:
            InvalidParameterError: a batch size or a pace that is not above 0.
        """
        if batch_size is not None:
            check_count(batch_size, what="batch_size")
        pace = max_items_per_second
        if pace is not None and not (isinstance(pace, Real) and math.isfinite(pace) and pace > 0):
            raise InvalidParameterError(f"max_items_per_second must be a finite number > 0, got {pace!r}")
        return cls(progress or silent, batch_size, pace)

    def page_size(self, wanted: int) -> int:
        """Pages no larger than a second's worth, so that a slow pace is an even one."""
        return wanted if self.max_items_per_second is None else max(1, min(wanted, int(self.max_items_per_second)))


def silent(stage: str, done: int, total: int) -> None:
    """Report nothing."""


class GalleryWriter:
    """Reads the gallery, computes, and writes: for one claim.

    Args:
        store: the engine's side.
        ledger: where the claim is renewed.
        info: the vector.
        claim: what is written, and by whom.
        settings: what to compute.
        execution: how fast.
    """

    def __init__(
        self,
        store: Store,
        ledger: Ledger,
        info: VectorInfo,
        claim: FitClaim,
        settings: FitSettings,
        execution: Execution,
    ) -> None:
        self._store = store
        self._ledger = ledger
        self._info = info
        self._claim = claim
        self._generation = claim.generation
        self._settings = settings
        self._execution = execution
        self._report = execution.report

    # --- a new generation --------------------------------------------------------------------------------------

    def write(
        self, banks: Mapping[str, Bank], count: int, seed: int, started: Checkpoint | Page | None
    ) -> CollectionStatistics:
        """Write a generation; it is not active yet.

        Args:
            banks: by name.
            count: how many items there are, about.
            seed: of samples.
            started: how far another fit has come, or the first page of items, if it is read already.
        """
        checkpoint = started if isinstance(started, Checkpoint) else None
        columns = list(dict.fromkeys([*banks, *self._settings.method.columns]))
        log_weights, sinkhorn = None, None
        if checkpoint is None:
            if "sinkhorn" in columns:
                log_weights, sinkhorn = self._learn_weights(banks["query"], count, seed)
        elif "sinkhorn" in columns:
            log_weights, sinkhorn = self._store.read_bank(self._generation, "query")[1], checkpoint.sinkhorn
        gallery = self._gallery(banks, log_weights, count)
        if checkpoint is not None:
            gallery.restore(checkpoint.state)
        begin = partial(self._begin, banks, columns, log_weights)
        done = self._write_items(gallery, columns, count, started, sinkhorn, begin)
        statistics = gallery.statistics(
            generation=self._generation,
            vector=self._info.name,
            dimension=self._info.dimension,
            version=__version__,
            sinkhorn=sinkhorn,
        ).model_copy(update={"absent_count": max(0, count - done)})
        self._store.write_activation(self._generation, *gallery.activated(), columns=columns)
        self._ledger.renew(self._claim)
        return statistics

    def _begin(self, banks: Mapping[str, Bank], columns: Sequence[str], log_weights: Floats | None) -> None:
        self._store.begin(self._generation, self._info.dimension, columns)
        for name, bank in banks.items():
            self._store.write_bank(self._generation, name, bank.vectors, log_weights if name == "query" else None)
            self._ledger.renew(self._claim)
            self._report(f"{name} bank", len(bank), len(bank))

    def _write_items(
        self,
        gallery: GalleryFit,
        columns: Sequence[str],
        count: int,
        started: Checkpoint | Page | None,
        sinkhorn: tuple[int, list[float]] | None,
        begin: Callable[[], None],
    ) -> int:
        """Read, compute and write all items, `begin` before the first is written; how many there were."""
        checkpoint, first = (started, None) if isinstance(started, Checkpoint) else (None, started)
        done = checkpoint.done if checkpoint else 0
        checkpoints = _Checkpoints(gallery, checkpoint, sinkhorn)
        settled = False

        def compute(page: Page) -> tuple[Booleans, dict[str, Floats], tuple[int, bytes] | None]:
            return *gallery.page(page.ids, page.vectors), checkpoints.after(page)

        self._report("items", min(done, count), count)
        with (
            WriteBehind(threaded=self._store.concurrent) as writer,
            closing(self._pages(after=checkpoint.after if checkpoint else None, first=first)) as pages,
            closing(worked_ahead(pages, compute, threaded=self._store.concurrent)) as computed,
        ):
            for page, result in computed:
                if not settled:  # beside an embedded engine, while the first page is computed
                    self._ledger.settle(self._claim)
                    settled = True
                    if checkpoint is None:
                        writer.submit(begin)
                usable, biases, saved = result()
                ids = _kept(page.ids, usable)
                if ids:
                    writer.submit(
                        self._store.write_items,
                        self._generation,
                        ids,
                        ItemStatistics.of_biases(len(ids), biases),
                        columns=columns,
                        replace=checkpoint is not None,
                        batch_size=self._execution.batch_size,
                    )
                done += len(page.ids)
                if saved is not None:
                    writer.wait()
                    checkpoints.write(self._store, self._generation, *saved)
                self._report("items", min(done, count), count)
            writer.wait()
        return done

    def _learn_weights(self, bank: Bank, count: int, seed: int) -> tuple[Floats, tuple[int, list[float]]]:
        """The weights of the query bank, their sample's size and the changes from step to step."""
        items = self._sample(count, seed)
        steps = self._settings.iterations - 1

        def report(step: int, change: float) -> None:
            self._ledger.renew(self._claim)
            self._report("sinkhorn steps", step, steps)

        learned = learn_sinkhorn(bank, items, self._info.metric, self._settings, report)
        return learned.log_weights, (len(items), list(learned.changes))

    def _sample(self, count: int, seed: int) -> Vectors:
        """Vectors to learn on: all, or a seeded sample of them."""
        if count > self._settings.sample_size:
            return sample_vectors(self._store, self._settings.sample_size, seed)
        vectors = [page.vectors[usable_vectors(page.vectors)] for page in self._pages()]
        return np.concatenate(vectors)

    # --- the active generation ---------------------------------------------------------------------------------

    def refresh(
        self, active: CollectionStatistics, banks: Mapping[str, Bank], log_weights: Floats | None, count: int
    ) -> tuple[CollectionStatistics, int, int]:
        """Bring the statistics up to date; the new totals, how many items were written, and how many removed."""
        columns = [*active.columns]
        gallery = self._gallery(banks, log_weights, count)
        flagged: dict[ItemId, tuple[str, ...]] = {}
        done = written = 0

        def compute(page: Page) -> tuple[Booleans, dict[str, Floats]]:
            return gallery.page(page.ids, page.vectors)

        self._report("items", 0, count)
        with (
            WriteBehind(threaded=self._store.concurrent) as writer,
            closing(self._pages()) as pages,
            closing(worked_ahead(pages, compute, threaded=self._store.concurrent)) as computed,
        ):
            for page, result in computed:
                usable, biases = result()
                ids = _kept(page.ids, usable)
                new = ItemStatistics.of_biases(len(ids), biases)
                changed = self._compare(ids, new, columns, flagged)
                if len(changed):
                    bounds = bounds_beyond(active, new[changed])
                    if bounds is not None:
                        self._ledger.widen(bounds)
                        active = active.widened([bounds])
                    writer.submit(
                        self._store.write_items,
                        self._generation,
                        [ids[row] for row in changed],
                        new[changed],
                        columns=columns,
                        replace=True,
                        batch_size=self._execution.batch_size,
                    )
                written += len(changed)
                done += len(page.ids)
                self._report("items", min(done, count), count)
            writer.wait()
        self._store.write_activation(self._generation, *_changes(flagged, *gallery.activated()), columns=columns)
        removed = self._store.discard_orphans(self._generation)
        fresh = gallery.statistics(
            generation=self._generation, vector=active.vector, dimension=active.dimension, version=__version__
        ).model_copy(update={"absent_count": max(0, count - done)})
        return _refreshed(active, fresh), written, removed

    def _compare(
        self,
        ids: Sequence[ItemId],
        new: ItemStatistics,
        columns: Sequence[str],
        flagged: dict[ItemId, tuple[str, ...]],
    ) -> np.ndarray[tuple[int], np.dtype[np.intp]]:
        """Rows that are not stored, or stored otherwise. Activation flags are taken over, and noted in `flagged`."""
        found, stored = self._store.items(self._generation, ids, columns)
        row_of = {item: row for row, item in enumerate(ids)}
        old = ItemStatistics.unknown(len(ids))
        old.fill([row_of[item] for item in found], stored)
        for bank in BANKS:
            new.activated(bank)[:] = old.activated(bank)
        flagged.update((item, sets) for item, sets in zip(ids, old.activation_sets(), strict=True) if sets)
        same = [
            np.isclose(old.bias(name), new.bias(name), rtol=BIAS_TOLERANCE, atol=BIAS_TOLERANCE) for name in columns
        ]
        return np.flatnonzero(~np.logical_and.reduce(same))

    # --- both --------------------------------------------------------------------------------------------------

    def _gallery(self, banks: Mapping[str, Bank], log_weights: Floats | None, count: int) -> GalleryFit:
        return GalleryFit(
            metric=self._info.metric,
            banks=banks,
            settings=self._settings,
            log_weights=log_weights,
            expected_items=count,
        )

    def _pages(self, *, after: ItemId | None = None, first: Page | None = None) -> Generator[Page]:
        """Pages at the pace asked for, after those that were read before; the claim is renewed between them."""
        after = first.ids[-1] if first is not None else after
        size = self._execution.page_size(self._settings.items_at_a_time(self._info.dimension))
        pace = Pace(self._execution.max_items_per_second)
        with closing(read_ahead(self._store.pages(size, after=after), threaded=self._store.concurrent)) as pages:
            for page in chain([] if first is None else [first], pages):
                yield page
                self._ledger.renew(self._claim)
                pace.wait(len(page.ids))


def work_key(info: VectorInfo, banks: Mapping[str, Bank], settings: FitSettings, seed: int) -> str:
    """Identifies what a fit computes: two fits with the same key would write the same statistics."""
    what = {
        "vector": (info.name, info.dimension, info.metric.value),
        "banks": {name: (bank.fingerprint, settings.beta(name)) for name, bank in banks.items()},
        "method": settings.method.value,
        "activation_k": settings.activation_k,
        "precision": settings.precision,
        "state": STATE_FORMAT,
    }
    if settings.method is Method.SINKHORN:
        what["sinkhorn"] = (settings.iterations, settings.sample_size, seed)
    if settings.nnn is not None:
        what["nnn"] = settings.nnn
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()


def sample_vectors(store: Store, size: int, seed: int) -> Vectors:
    """The usable vectors among a seeded sample of the collection's items; the same items on every engine."""
    keyed = ((sample_key(item, seed), item) for page in store.ids() for item in page)
    chosen = [item for _, item in heapq.nsmallest(size, keyed)]
    page = store.fetch(chosen)
    rank = {item: position for position, item in enumerate(chosen)}
    vectors = page.vectors[sorted(range(len(page.ids)), key=lambda row: rank[page.ids[row]])]
    return vectors[usable_vectors(vectors)]


def stored_banks(store: Store, statistics: CollectionStatistics) -> tuple[dict[str, Bank], Floats | None]:
    """The banks of fitted statistics, read back and compared with their fingerprints, and the query bank's weights.

    Raises:
        StatisticsError: a stored bank is not the one that was fitted, or they are gone.
    """
    if not store.has_banks(statistics.generation):
        raise StatisticsError(
            f"collection {store.collection!r}: the stored banks are gone (the collection was renamed, or copied without"
            " its companions, or somebody dropped them): fit again"
        )
    banks: dict[str, Bank] = {}
    log_weights = None
    for name, fitted in statistics.banks.items():
        vectors, weights = store.read_bank(statistics.generation, name)
        bank = Bank(vectors, fitted.source)
        if bank.fingerprint != fitted.fingerprint or (
            name == "query" and (weights is None) != (not statistics.sinkhorn)
        ):
            raise StatisticsError(
                f"collection {store.collection!r}: the stored {name} bank ({len(vectors)} vectors) is not the one that"
                f" was fitted ({fitted.size} vectors); somebody has changed it: fit again"
            )
        banks[name] = bank
        log_weights = weights if name == "query" else log_weights
    return banks, log_weights


def _kept(ids: Sequence[ItemId], usable: Booleans) -> list[ItemId]:
    return [item for item, use in zip(ids, usable, strict=True) if use]


def _changes(
    stored: Mapping[ItemId, tuple[str, ...]], ids: Sequence[ItemId], items: ItemStatistics
) -> tuple[list[ItemId], ItemStatistics]:
    """The items whose stored activation sets are not those that `items` are in now, or not only those."""
    wanted = dict(zip(ids, items.activation_sets(), strict=True))
    changed = [item for item in {**wanted, **stored} if wanted.get(item, ()) != stored.get(item, ())]
    flags = ItemStatistics.unknown(len(changed))
    for bank in BANKS:
        flags.activated(bank)[:] = [bank in wanted.get(item, ()) for item in changed]
    return changed, flags


def _refreshed(active: CollectionStatistics, fresh: CollectionStatistics) -> CollectionStatistics:
    """What was fitted, with the totals of today."""
    sinkhorn = active.sinkhorn
    if sinkhorn is not None and fresh.sinkhorn is not None:
        sinkhorn = sinkhorn.model_copy(update={"bias": fresh.sinkhorn.bias})
    return active.model_copy(
        update={
            "query": fresh.query,
            "gallery": fresh.gallery,
            "sinkhorn": sinkhorn,
            "nnn": fresh.nnn,
            "item_count": fresh.item_count,
            "skipped_count": fresh.skipped_count,
            "absent_count": fresh.absent_count,
            "lowest_dual_adjustment": fresh.lowest_dual_adjustment,
            "calibration": fresh.calibration,
            "revision": active.revision + 1,
            "refreshed_at": fresh.fitted_at,
        }
    )


class _Checkpoints:
    """The checkpoints of a fit: the next is due some seconds after the last, and later if that took long to write."""

    def __init__(self, gallery: GalleryFit, last: Checkpoint | None, sinkhorn: tuple[int, list[float]] | None) -> None:
        self._gallery = gallery
        self._sinkhorn = sinkhorn
        self._number, self._done = (last.number, last.done) if last else (0, 0)
        self._next = time.monotonic() + CHECKPOINT_EVERY

    def after(self, page: Page) -> tuple[int, bytes] | None:
        """Number and data of the checkpoint after this page, which was computed just now; None if none is due."""
        self._done += len(page.ids)
        if time.monotonic() < self._next:
            return None
        self._next = time.monotonic() + CHECKPOINT_EVERY
        self._number += 1
        saved = Checkpoint(self._number, page.ids[-1], self._done, self._gallery.state(), self._sinkhorn)
        return self._number, saved.dump()

    def write(self, store: Store, generation: int, number: int, data: bytes) -> None:
        """Write it."""
        started = time.monotonic()
        store.write_checkpoint(generation, number, data)
        ended = time.monotonic()
        self._next = ended + (max(CHECKPOINT_EVERY, (ended - started) / _CHECKPOINT_SHARE) if CHECKPOINT_EVERY else 0)
