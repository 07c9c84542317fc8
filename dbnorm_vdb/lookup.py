"""Statistics of one generation held in memory, for engines that do not return them with the hits."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from dbnorm_vdb.statistics import BANKS, COLUMNS, CollectionStatistics, ItemId, ItemStatistics

_BYTES_PER_KEY = 8


class StatisticsLookup:
    """Per-item statistics of one generation, by id.

    Ids are kept as one sorted array of 64-bit keys, values as columns: 18 bytes an item (22 with `sinkhorn` or `nnn`).
    Two text ids of the same hash would share one's statistics; among ten million that happens with a chance of three in
    a million.

    Args:
        generation: the generation they belong to.
        ids: of the n items, all int or all str, each once.
        items: their statistics.
        revision: the refresh they were read after.
    """

    def __init__(self, generation: int, ids: Sequence[ItemId], items: ItemStatistics, *, revision: int = 0) -> None:
        self.generation = generation
        self.revision = revision
        keys = _keys(ids)
        order = np.argsort(keys, kind="stable")
        layout: list[tuple[str, type]] = [
            (f"{name}_bias", np.float32) for name in COLUMNS if not np.isnan(items.bias(name)).all()
        ]
        layout += [(f"{bank}_activated", np.bool_) for bank in BANKS]
        self._columns = [column for column, _ in layout]
        # one row more than items, for the ids that are not held
        self._keys = np.append(keys[order], 0)
        self._rows = np.empty(len(self._keys), dtype=layout)
        for column in self._columns:
            self._rows[column][:-1] = getattr(items, column)[order]
            self._rows[column][-1] = getattr(ItemStatistics.unknown(1), column)[0]
        self._unknown: set[ItemId] = set()

    def __len__(self) -> int:
        return len(self._keys) - 1

    def belongs_to(self, statistics: CollectionStatistics) -> bool:
        """Whether these are the items' values of that generation, as of its last refresh."""
        return (self.generation, self.revision) == (statistics.generation, statistics.revision)

    @classmethod
    def fits(cls, item_count: int, max_bytes: int, *, columns: int = 2) -> bool:
        """Whether that many items, with that many biases, may be held in that many bytes."""
        return item_count * (_BYTES_PER_KEY + 4 * columns + len(BANKS)) <= max_bytes

    def find(self, ids: Sequence[ItemId]) -> tuple[ItemStatistics, list[int]]:
        """Columns for `ids`, and the positions of those not held here (their columns say "unknown")."""
        rows = self._places(ids)
        found = self._rows[rows]
        items = ItemStatistics.unknown(len(ids))
        for column in self._columns:
            getattr(items, column)[:] = found[column]
        absent = len(self)
        return items, [at for at, row in enumerate(rows.tolist()) if row == absent and ids[at] not in self._unknown]

    def replace(self, ids: Sequence[ItemId], items: ItemStatistics) -> None:
        """Take in new statistics of items that are held; others are looked up when they are next asked for."""
        self._unknown.difference_update(ids)
        rows = self._places(ids)
        held = rows < len(self)
        for column in self._columns:
            self._rows[column][rows[held]] = getattr(items, column)[held]

    def _places(self, ids: Sequence[ItemId]) -> npt.NDArray[np.intp]:
        """The rows of `ids`; that behind the last for those not held."""
        keys = _keys(ids)
        rows = self._keys[:-1].searchsorted(keys)
        rows[self._keys[rows] != keys] = len(self)
        return rows

    def remember_unknown(self, ids: Iterable[ItemId]) -> None:
        """Ids that the database has no statistics for either: not worth asking again."""
        self._unknown.update(ids)

    def forget_unknown(self) -> None:
        """Ask the database again for ids it had no statistics for."""
        self._unknown.clear()


def _keys(ids: Sequence[ItemId]) -> npt.NDArray[np.int64]:
    """Integers as they are; text as 64-bit hashes, so that long ids take no more memory than short ones."""
    if len(ids) and not isinstance(ids[0], (int, np.integer)):
        digests = b"".join(hashlib.blake2b(str(item).encode(), digest_size=8).digest() for item in ids)
        return np.frombuffer(digests, dtype="<i8").astype(np.int64)
    return np.asarray(ids, dtype=np.int64)
