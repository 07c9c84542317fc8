"""Which statistics of items are held in memory, and which are asked for: of one generation, within so many bytes."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np

from dbnorm_vdb.deadline import Deadline
from dbnorm_vdb.errors import InvalidParameterError, StatisticsTimeoutError
from dbnorm_vdb.fallbacks import in_words, logger
from dbnorm_vdb.lookup import Keys, StatisticsLookup, StatisticsTable, bytes_per_item, keys_of
from dbnorm_vdb.parameters import check_count
from dbnorm_vdb.statistics import CollectionStatistics, ItemId, ItemStatistics
from dbnorm_vdb.steps import Steps, within, work
from dbnorm_vdb.store import Store

MODES = ("all", "lazy", "none")
DEFAULT_CACHE_BYTES = 512 * 1024 * 1024

_ROOM = 1.5
"""A table of this many places for each item has hardly an item that finds its places taken."""

_LATER_ITEMS = 0.25
"""Beside everything that was there when it was read, there is room for this share of later items."""

_FEWEST = 4096
_MOST_UNKNOWN = 100_000
_BYTES_PER_UNKNOWN = 120
_TRY_AGAIN_AFTER = 60.0
"""Seconds before everything is read once more, where that failed."""


@dataclass(frozen=True)
class CacheInfo:
    """What an adapter holds in memory.

    Attributes:
        mode: "all", "lazy" or "none"; "lazy" also where "all" would take more than `max_bytes`.
        items: whose statistics are held.
        nbytes: bytes that are taken.
        max_bytes: bytes that may be.
        hits: items that a search found here.
        misses: items that it had to ask the database for.
    """

    mode: str
    items: int
    nbytes: int
    max_bytes: int
    hits: int
    misses: int


class _Written(NamedTuple):
    """Statistics that were written while others were being read."""

    generation: int
    keys: Keys
    items: ItemStatistics


class _Held:
    """The statistics of one generation, as of one refresh, as far as they are in memory.

    Args:
        of: generation and revision.
        everything: that there was when they were read; None if only what is asked for is held.
        later: what is not in `everything`.
        most_unknown: of the items that the database has no statistics of, about so many are remembered.
    """

    def __init__(
        self, of: tuple[int, int], everything: StatisticsLookup | None, later: StatisticsTable, most_unknown: int
    ) -> None:
        self.of = of
        self.parts: list[StatisticsLookup | StatisticsTable] = [later] if everything is None else [everything, later]
        self._everything = everything
        self._later = later
        self._most_unknown = most_unknown
        self._unknown: set[int] = set()

    @property
    def mode(self) -> str:
        """How they are held."""
        return "lazy" if self._everything is None else "all"

    def find(self, keys: Keys) -> tuple[ItemStatistics, list[int]]:
        """Columns for n keys, and the positions of those that the database has to be asked for."""
        items, missing = self.parts[0].find(keys)
        if len(missing) and self._everything is not None:
            found, absent = self._later.find(keys[missing])
            items.fill(missing, found)
            missing = missing[absent]
        return items, [row for row in missing.tolist() if int(keys[row]) not in self._unknown]

    def put(self, keys: Keys, items: ItemStatistics) -> None:
        """Take in what the database says of these; nothing of some of them, perhaps."""
        known = items.known()
        unknown = keys[~known][: self._most_unknown].tolist()
        if len(self._unknown) + len(unknown) > self._most_unknown:
            self._unknown.clear()
        self._unknown.update(unknown)
        keys, items = keys[known], items[known]
        self._unknown.difference_update(keys.tolist())
        if self._everything is not None:
            later = self._everything.find(keys)[1]
            self._everything.replace(keys, items)
            keys, items = keys[later], items[later]
        self._later.put(keys, items)

    def put_as_written(self, written: Sequence[_Written]) -> None:
        """Take in again what was written since something older was read, as far as it is of this fit."""
        for generation, keys, items in written:
            if generation == self.of[0]:
                self.put(keys, items)

    def forget_unknown(self) -> None:
        """Ask the database again for what it had no statistics for."""
        self._unknown.clear()


def check_cache(mode: str, max_bytes: int) -> None:
    """Raise InvalidParameterError for what no cache can be made of."""
    if mode not in MODES:
        raise InvalidParameterError(f"cache must be 'all', 'lazy' or 'none', got {mode!r}")
    check_count(max_bytes, what="cache_bytes", least=0)


class ItemCache:
    """Statistics of items, from memory or from the database. Safe under threads and coroutines.

    Args:
        store: where those that are not held are read.
        mode: "all": read all of a generation at the first search; "lazy": hold what searches have asked for; "none":
            ask for them at every search.
        max_bytes: how much memory they may take. Where all would take more, "all" is "lazy".
    """

    def __init__(self, store: Store, mode: str, max_bytes: int) -> None:
        self._store = store
        self._mode = mode
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._loading = threading.Lock()
        self._held: _Held | None = None
        self._readers: list[list[_Written]] = []
        self._failed_at = -_TRY_AGAIN_AFTER
        self._hits = self._misses = 0

    @property
    def in_use(self) -> bool:
        """Whether anything is held at all."""
        return self._mode != "none" and self._max_bytes > 0

    def find(
        self, statistics: CollectionStatistics, ids: Sequence[ItemId], deadline: Deadline
    ) -> Steps[ItemStatistics]:
        """The statistics of these items; those not held are asked for in one look-up.

        Raises:
            StatisticsTimeoutError: they do not come in time.
        """
        held = yield from self._of(statistics, deadline)
        if held is None:
            return (yield from self._read(statistics, list(dict.fromkeys(ids)), ids, deadline))[1]
        keys = keys_of(ids)
        with self._lock:
            items, missing = held.find(keys)
            self._hits += len(ids) - len(missing)
            self._misses += len(missing)
        if missing:
            absent = [ids[row] for row in missing]
            asked = list(dict.fromkeys(absent))
            with self._noting_writes() as written:
                once, found = yield from self._read(statistics, asked, absent, deadline)
                items.fill(missing, found)
                with self._lock:
                    held.put(keys_of(asked), once)
                    held.put_as_written(written)
        return items

    def _read(
        self, statistics: CollectionStatistics, asked: Sequence[ItemId], wanted: Sequence[ItemId], deadline: Deadline
    ) -> Steps[tuple[ItemStatistics, ItemStatistics]]:
        """What the database says of the items that are asked for, each once; and the same for those wanted."""
        columns = list(statistics.columns)
        timeout = deadline.left() if deadline.is_set else None  # what is late is not to stay for long
        read = partial(self._store.items, statistics.generation, asked, columns, timeout=timeout)
        there, stored = yield from within(deadline, work(read))
        found = StatisticsLookup([(there, stored)], columns)
        return found.find(keys_of(asked))[0], found.find(keys_of(wanted))[0]

    # --- what is held ------------------------------------------------------------------------------------------

    def _of(self, statistics: CollectionStatistics, deadline: Deadline) -> Steps[_Held | None]:
        """What is held of these statistics; None if nothing is, or not yet."""
        of = _identity(statistics)
        held = self._held
        if held is not None and held.of == of:
            return held
        if not self.in_use or (held is not None and held.of > of):  # a search that began before the last fit
            return None
        if self._mode != "all" or not self._has_room(statistics, statistics.item_count):
            with self._lock:
                if self._held is None or self._held.of < of:
                    self._held = self._lazily(statistics)
                return self._held if self._held.of == of else None
        if self._loading.locked():  # somebody else is reading everything, and need not be waited for
            return None
        try:
            loading = work(partial(self._load, statistics), key=(self, "everything", of))
            return (yield from within(deadline.halfway(), loading))
        except StatisticsTimeoutError:  # it goes on
            return None

    def _load(self, statistics: CollectionStatistics) -> _Held | None:
        """All the statistics of the items, read unless somebody has just done so; None if that fails."""
        of = _identity(statistics)
        with self._loading:
            held = self._held
            if held is not None and held.of >= of:
                return held if held.of == of else None
            if time.monotonic() - self._failed_at < _TRY_AGAIN_AFTER:
                return None
            self._held = None  # not both at once
            try:
                return self._read_everything(statistics)
            except Exception as error:  # the clients' errors have no common base class
                self._failed_at = time.monotonic()
                logger.warning(
                    "collection %r: the statistics of all items cannot be read at once, each search looks up its own:"
                    " %s",
                    self._store.collection,
                    in_words(error),
                )
                return None

    def _read_everything(self, statistics: CollectionStatistics) -> _Held:
        columns = list(statistics.columns)
        with self._noting_writes() as written:
            everything = self._store.all_items(statistics.generation, columns)
            if self._has_room(statistics, len(everything)):
                later = self._table(statistics, _LATER_ITEMS * len(everything), self._max_bytes - everything.nbytes)
                held = _Held(_identity(statistics), everything, later, self._most_unknown)
            else:  # there are more by now than the last refresh counted
                held = self._lazily(statistics)
            with self._lock:
                held.put_as_written(written)
                self._held = held
        return held

    def _has_room(self, statistics: CollectionStatistics, items: int) -> bool:
        """Whether the statistics of so many items may be held."""
        return items * bytes_per_item(len(statistics.columns)) <= self._max_bytes

    def _lazily(self, statistics: CollectionStatistics) -> _Held:
        """Nothing yet, with room for what will be asked for."""
        table = self._table(statistics, _ROOM * statistics.item_count, self._max_bytes)
        return _Held(_identity(statistics), None, table, self._most_unknown)

    @property
    def _most_unknown(self) -> int:
        return min(_MOST_UNKNOWN, self._max_bytes // (8 * _BYTES_PER_UNKNOWN))

    @contextmanager
    def _noting_writes(self) -> Iterator[list[_Written]]:
        """What is written in this process while a block reads, which may have read what was there before."""
        written: list[_Written] = []
        with self._lock:
            self._readers.append(written)
        try:
            yield written
        finally:
            with self._lock:
                self._readers = [reader for reader in self._readers if reader is not written]

    def _table(self, statistics: CollectionStatistics, size: float, max_bytes: int) -> StatisticsTable:
        most = max_bytes // (bytes_per_item(len(statistics.columns)) + 2)
        return StatisticsTable(max(min(max(int(size), _FEWEST), most), 0), list(statistics.columns))

    def put(self, statistics: CollectionStatistics, ids: Sequence[ItemId], items: ItemStatistics) -> None:
        """Take in what has just been written; of an item that is there more than once, the last."""
        last = {item: row for row, item in enumerate(ids)}
        written = _Written(statistics.generation, keys_of([*last]), items[np.array([*last.values()], dtype=np.intp)])
        with self._lock:
            for reader in self._readers:
                reader.append(written)
            if self._held is not None:
                self._held.put_as_written([written])

    def seen(self, statistics: CollectionStatistics | None) -> None:
        """The collection-level statistics were read: ask again for items that had none, or let go of everything.

        Of what is held, that is, where there are no statistics any more, or older ones: of a collection that an alias
        was switched back to.
        """
        with self._lock:
            if statistics is None or (self._held is not None and self._held.of > _identity(statistics)):
                self._held = None
            elif self._held is not None:
                self._held.forget_unknown()

    def info(self) -> CacheInfo:
        """What is held now."""
        with self._lock:
            held = self._held
            parts = [] if held is None else held.parts
            mode = held.mode if held is not None else self._mode if self.in_use else "none"
            items, nbytes = sum(map(len, parts)), sum(part.nbytes for part in parts)
            return CacheInfo(mode, items, nbytes, self._max_bytes, self._hits, self._misses)


def _identity(statistics: CollectionStatistics) -> tuple[int, int]:
    """Of which fit, and of which refresh since, they are."""
    return statistics.generation, statistics.revision
