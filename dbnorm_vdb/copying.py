"""Copying a collection into a folded one: read whole items, fold their vectors, write, verify."""

from __future__ import annotations

import heapq
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

import numpy as np
import numpy.typing as npt

from dbnorm_vdb.banks import Vectors, sample_key, usable_vectors
from dbnorm_vdb.errors import ForeignDataError, InvalidParameterError, StatisticsError, StatisticsMismatchError
from dbnorm_vdb.folding import FoldedStatistics, combined_adjustments, folded_statistics
from dbnorm_vdb.ledger import Ledger
from dbnorm_vdb.methods import Method
from dbnorm_vdb.pipeline import Pace, WriteBehind, read_ahead
from dbnorm_vdb.statistics import Booleans, CollectionStatistics, ItemId, ItemStatistics
from dbnorm_vdb.store import KEY, Store
from dbnorm_vdb.summaries import FoldSummary
from dbnorm_vdb.writing import Execution

_VERIFIED = 1000
_IDS_BATCH = 1000


@dataclass(frozen=True)
class FoldPage:
    """Some of a collection's items, whole.

    Attributes:
        ids: of the n items.
        vectors: (n, d) float32 to be folded; rows of items that lack it are of no account.
        there: (n,) which have the vector.
        items: their statistics.
        records: the n items as the engine's client returns them.
    """

    ids: list[ItemId]
    vectors: Vectors
    there: Booleans
    items: ItemStatistics
    records: Sequence[Any]

    def __getitem__(self, rows: npt.NDArray[np.intp]) -> FoldPage:
        chosen = rows.tolist()
        records = [self.records[row] for row in chosen]
        return FoldPage(
            [self.ids[row] for row in chosen], self.vectors[rows], self.there[rows], self.items[rows], records
        )


class FoldTarget(ABC):
    """The seam for folding: what an engine's adapter implements to copy one collection into another.

    Attributes:
        name: of the copy.
    """

    name: str

    @abstractmethod
    def read_document(self) -> object | None:
        """What is stored with the copy under `FOLDED_KEY`; None if there is no such collection.

        Raises:
            ForeignDataError: the name is taken by a collection without such a document, or by an alias.
        """

    @abstractmethod
    def create(self, document: dict[str, Any]) -> None:
        """Make the copy, empty, with that document, and all else as it is with the source.

        Raises:
            UnsupportedCollectionError: the source has something that cannot be copied.
        """

    @abstractmethod
    def write_document(self, document: dict[str, Any]) -> None:
        """Replace the document in one write, once all that was written before is safe."""

    @abstractmethod
    def pages(self, size: int, statistics: CollectionStatistics) -> Iterator[FoldPage]:
        """All items of the source, whole, in pages of at most `size`."""

    @abstractmethod
    def fetch(self, ids: Sequence[ItemId], statistics: CollectionStatistics) -> FoldPage:
        """Those items of the source that exist, whole."""

    @abstractmethod
    def write(self, page: FoldPage, folded: Vectors, *, replace: bool, batch_size: int | None) -> None:
        """Store items, with (n, d + 1) vectors in place of theirs; with `replace`, some may be there already."""

    @abstractmethod
    def differing(self, page: FoldPage, folded: Vectors) -> list[int]:
        """Positions of items that are not in the copy, or not as `write` would leave them."""

    @abstractmethod
    def ids(self) -> Iterator[list[ItemId]]:
        """The ids of all items of the copy, in pages."""

    @abstractmethod
    def count(self) -> int:
        """The number of items in the copy."""

    @abstractmethod
    def delete(self, ids: Sequence[ItemId]) -> None:
        """Remove items from the copy."""


class Folder:
    """One run of a fold: makes or resumes the copy, fills it, verifies it, and marks it complete.

    The source is only read. A fold that was interrupted leaves a copy that is marked incomplete; the next run looks at
    each of its items, writes those that are missing or have changed, and removes those that the source no longer has.

    Args:
        store: of the source.
        target: the copy.
        execution: how fast.
        page_size: items read and written at a time.
    """

    def __init__(self, store: Store, target: FoldTarget, execution: Execution, page_size: int) -> None:
        self._store = store
        self._target = target
        self._execution = execution
        self._page_size = execution.page_size(page_size)
        self._ledger = Ledger(store)

    def fold(self, statistics: CollectionStatistics, method: Method) -> FoldSummary:
        """Make the copy complete. See `NormalizedCollection.fold`."""
        started = time.monotonic()
        wanted, resuming = self._begin(folded_statistics(statistics, method, self._store.collection))
        copied, kept, skipped, unfitted = self._copy(wanted, statistics, resuming=resuming)
        if resuming:
            self._remove_deleted(statistics)
        verified = self._verify(wanted, statistics, copied + kept)
        current = self._ledger.active()
        if current is None or (current.generation, current.revision) != (wanted.generation, wanted.revision):
            raise StatisticsMismatchError(
                f"collection {self._store.collection!r} was fitted anew meanwhile; delete the unfinished copy"
                f" {self._target.name!r} and fold again"
            )
        count = self._target.count()
        done = wanted.model_copy(
            update={"complete": True, "item_count": count, "folded_at": datetime.now(timezone.utc)}
        )
        self._target.write_document(done.model_dump(mode="json"))
        return FoldSummary(
            target=self._target.name,
            method=method.value,
            item_count=count,
            copied_count=copied,
            resumed_count=kept,
            skipped_count=skipped,
            unfitted_count=unfitted,
            verified_count=verified,
            seconds=time.monotonic() - started,
        )

    def _begin(self, wanted: FoldedStatistics) -> tuple[FoldedStatistics, bool]:
        """Create the copy, or see that what is there is an unfinished one of the same; its document, and whether."""
        name = self._target.name
        if f"__{KEY}" in name:
            raise InvalidParameterError(f"target={name!r}: names with '__{KEY}' are kept for statistics; pick another")
        stored = self._target.read_document()
        if stored is None:
            self._target.create(wanted.model_dump(mode="json"))
            return wanted, False
        found = FoldedStatistics.load(stored, collection=name)
        if found.complete:
            raise ForeignDataError(
                f"collection {name!r} is a complete copy of {found.source!r}, made {found.folded_at:%Y-%m-%d %H:%M}; a"
                " copy is not brought up to date: fold to another name and switch, or delete it first"
            )
        same = {"source", "vector", "dimension", "metric", "method", "generation", "revision"}
        if found.model_dump(include=same) != wanted.model_dump(include=same):
            raise StatisticsMismatchError(
                f"collection {name!r} is an unfinished copy of {found.source!r} ({found.method.value}, generation"
                f" {found.generation}, revision {found.revision}), not of {wanted.source!r} ({wanted.method.value},"
                f" generation {wanted.generation}, revision {wanted.revision}); delete it, or fold to another name"
            )
        return found, True

    def _copy(
        self, wanted: FoldedStatistics, statistics: CollectionStatistics, *, resuming: bool
    ) -> tuple[int, int, int, int]:
        """Write all items; how many were written, were there, cannot be used, and have no statistics."""
        count = self._store.count()
        copied = kept = skipped = unfitted = done = 0
        threaded = self._store.concurrent
        pace = Pace(self._execution.max_items_per_second)
        self._execution.report("items", 0, count)
        pages = self._target.pages(self._page_size, statistics)
        with WriteBehind(threaded=threaded) as writer, closing(read_ahead(pages, threaded=threaded)) as ahead:
            for found in ahead:
                page = found[np.flatnonzero(usable_vectors(found.vectors) | ~found.there)]
                folded, known = self._folded(page, wanted, statistics)
                rows = np.arange(len(page.ids))
                if resuming:
                    rows = np.array(self._target.differing(page, folded), dtype=np.intp)
                if len(rows):
                    how = {"replace": resuming, "batch_size": self._execution.batch_size}
                    writer.submit(self._target.write, page[rows], folded[rows], **how)
                copied += len(rows)
                kept += len(page.ids) - len(rows)
                skipped += len(found.ids) - len(page.ids)
                unfitted += int((page.there & ~known).sum())
                done += len(found.ids)
                self._execution.report("items", min(done, count), count)
                pace.wait(len(found.ids))
            writer.wait()
        return copied, kept, skipped, unfitted

    def _folded(
        self, page: FoldPage, wanted: FoldedStatistics, statistics: CollectionStatistics
    ) -> tuple[Vectors, Booleans]:
        """(n, d + 1) folded vectors, and (n,) which items have the statistics for it."""
        adjustments, known = combined_adjustments(wanted.method, page.items, statistics)
        return wanted.folded_items(np.where(page.there[:, None], page.vectors, 0), adjustments), known

    def _remove_deleted(self, statistics: CollectionStatistics) -> None:
        """Remove from an unfinished copy what the source no longer has."""
        for ids in self._target.ids():
            for start in range(0, len(ids), _IDS_BATCH):
                batch = ids[start : start + _IDS_BATCH]
                left = set(self._target.fetch(batch, statistics).ids)
                if gone := [item for item in batch if item not in left]:
                    self._target.delete(gone)

    def _verify(self, wanted: FoldedStatistics, statistics: CollectionStatistics, count: int) -> int:
        """Compare the number of items, and a sample of them whole; how many were compared.

        Items of the sample that have changed since they were read are written again.
        """
        if (found := self._target.count()) != count:
            raise StatisticsError(
                f"the copy {self._target.name!r} holds {found} items, {count} were written: somebody else writes to it;"
                " delete it and fold again"
            )
        keyed = ((sample_key(item, 0), item) for ids in self._target.ids() for item in ids)
        sample = [item for _, item in heapq.nsmallest(_VERIFIED, keyed, key=lambda pair: pair[0])]
        for attempt in (1, 2):
            page = self._target.fetch(sample, statistics)
            folded = self._folded(page, wanted, statistics)[0]
            rows = np.array(self._target.differing(page, folded), dtype=np.intp)
            if not len(rows):
                break
            if attempt == 2:
                raise StatisticsError(
                    f"the copy {self._target.name!r} does not hold what was written: {len(rows)} of {len(page.ids)}"
                    f" items differ (first: {page.ids[int(rows[0])]!r}); delete it and fold again"
                )
            self._target.write(page[rows], folded[rows], replace=True, batch_size=None)
        self._execution.report("verified", len(page.ids), len(page.ids))
        return len(page.ids)
