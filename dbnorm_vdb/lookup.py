"""Statistics of one generation held in memory, for engines that do not return them with the hits."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from dbnorm_vdb.statistics import ItemId, ItemStatistics

_BYTES_PER_ITEM = 18


class StatisticsLookup:
    """Per-item statistics of one generation, by id.

    Ids are kept as one sorted array of 64-bit keys, values as columns: 18 bytes an item. Two text ids of the same hash
    would share one's statistics; among ten million that happens with a chance of three in a million.

    Args:
        generation: the generation they belong to.
        ids: of the n items, all int or all str, each once.
        items: their statistics.
    """

    def __init__(self, generation: int, ids: Sequence[ItemId], items: ItemStatistics) -> None:
        self.generation = generation
        keys = _keys(ids)
        order = np.argsort(keys, kind="stable")
        self._keys = keys[order]
        self._biases = np.stack([items.query_bias, items.gallery_bias], axis=1).astype(np.float32)[order]
        self._activated = np.stack([items.query_activated, items.gallery_activated], axis=1)[order]
        self._unknown: set[ItemId] = set()

    def __len__(self) -> int:
        return len(self._keys)

    @classmethod
    def fits(cls, item_count: int, max_bytes: int) -> bool:
        """Whether that many items may be held in that many bytes."""
        return item_count * _BYTES_PER_ITEM <= max_bytes

    def find(self, ids: Sequence[ItemId]) -> tuple[ItemStatistics, list[int]]:
        """Columns for `ids`, and the positions of those not held here (their columns say "unknown")."""
        items = ItemStatistics.unknown(len(ids))
        if not ids:
            return items, []
        held = np.zeros(len(ids), dtype=np.bool_)
        if len(self._keys):
            wanted = _keys(ids)
            rows = np.searchsorted(self._keys, wanted).clip(max=len(self._keys) - 1)
            held = self._keys[rows] == wanted
            found = rows[held]
            items.query_bias[held] = self._biases[found, 0]
            items.gallery_bias[held] = self._biases[found, 1]
            items.query_activated[held] = self._activated[found, 0]
            items.gallery_activated[held] = self._activated[found, 1]
        return items, [row for row in np.flatnonzero(~held).tolist() if ids[row] not in self._unknown]

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
