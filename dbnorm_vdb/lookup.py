"""Statistics of one generation held in memory: all of them, sorted, or as many as there is room for, in a table."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from dbnorm_vdb.statistics import BANKS, ItemId, ItemStatistics

Keys = npt.NDArray[np.int64]
Rows = npt.NDArray[np.intp]

_BYTES_PER_KEY = 8
_WAYS = 8
_SPREAD = np.uint64(0x9E3779B97F4A7C15)
"""2**64 divided by the golden ratio: multiplied by it, ids that follow each other are far from each other."""


class StatisticsLookup:
    """The statistics of n items, by id, as sorted columns: 18 bytes an item (22 with `sinkhorn` or `nnn`).

    Ids are kept as 64-bit keys. Two text ids of the same hash would share one's statistics; among ten million that
    happens with a chance of three in a million.

    Args:
        pages: ids, each of them once, and statistics, some at a time; no more of a page is kept than that takes.
        columns: the biases among them that the generation has.
    """

    def __init__(self, pages: Iterable[tuple[Sequence[ItemId], ItemStatistics]], columns: Sequence[str]) -> None:
        several = [np.empty(0, dtype=np.int64)]
        parts = [_Columns(0, columns)]
        for ids, items in pages:
            several.append(keys_of(ids))
            parts.append(_Columns(len(ids), columns))
            parts[-1].put(slice(None), items)
        keys = np.concatenate(several)
        order = np.argsort(keys, kind="stable")
        # one row more than items, for the ids that are not held
        self._keys = np.append(keys[order], 0)
        parts.append(_Columns(1, columns))
        parts[-1].put(slice(None), ItemStatistics.unknown(1))
        self._columns = _Columns.joined(parts, np.append(order, len(keys)))

    def __len__(self) -> int:
        return len(self._keys) - 1

    @property
    def nbytes(self) -> int:
        """How much memory it takes."""
        return int(self._keys.nbytes) + self._columns.nbytes

    def find(self, keys: Keys) -> tuple[ItemStatistics, Rows]:
        """Columns for n keys, and the positions of those not held here (whose columns say "unknown")."""
        rows = self._places(keys)
        return self._columns.at(rows), np.flatnonzero(rows == len(self))

    def replace(self, keys: Keys, items: ItemStatistics) -> None:
        """Take in new statistics of those items that are held."""
        rows = self._places(keys)
        held = np.flatnonzero(rows < len(self))
        self._columns.put(rows[held], items[held])

    def _places(self, keys: Keys) -> Rows:
        """The rows of keys; that behind the last for those not held."""
        rows: Rows = self._keys[:-1].searchsorted(keys)
        rows[self._keys[rows] != keys] = len(self)
        return rows


class StatisticsTable:
    """The statistics of as many items as there is room for: a set-associative cache.

    A key has eight places, at an address that is computed from it. When all eight are taken, the one that was filled
    first is given up.

    Args:
        size: about how many items to make room for.
        columns: the biases that the generation has.
    """

    def __init__(self, size: int, columns: Sequence[str]) -> None:
        self._sets = size // _WAYS
        shape = self._sets * _WAYS
        self._keys = np.zeros((self._sets, _WAYS), dtype=np.int64)
        self._taken = np.zeros((self._sets, _WAYS), dtype=np.bool_)
        self._next = np.zeros(self._sets, dtype=np.uint8)
        self._columns = _Columns(shape, columns)

    def __len__(self) -> int:
        return int(np.count_nonzero(self._taken))

    @property
    def nbytes(self) -> int:
        """How much memory it takes."""
        return int(self._keys.nbytes + self._taken.nbytes + self._next.nbytes) + self._columns.nbytes

    def find(self, keys: Keys) -> tuple[ItemStatistics, Rows]:
        """Columns for n keys, and the positions of those not held here (whose columns say "unknown")."""
        if not self._sets:
            return ItemStatistics.unknown(len(keys)), np.arange(len(keys))
        addresses = self._addresses(keys)
        ways, there = self._ways(keys, addresses)
        items = self._columns.at(addresses * _WAYS + ways)
        missing = np.flatnonzero(~there)
        if len(missing):
            items.fill(missing, ItemStatistics.unknown(len(missing)))
        return items, missing

    def put(self, keys: Keys, items: ItemStatistics) -> None:
        """Hold these, each of them once, from now on, perhaps in place of others."""
        if not self._sets:
            return
        addresses = self._addresses(keys)
        ways, there = self._ways(keys, addresses)
        new = np.flatnonzero(~there)
        new = new[np.argsort(addresses[new], kind="stable")]
        into = addresses[new]
        starts = np.flatnonzero(np.diff(into, prepend=-1))
        turn = np.arange(len(new)) - np.repeat(starts, np.diff(starts, append=len(new)))
        ways[new] = (self._next[into] + turn) % _WAYS
        self._next[into] = (self._next[into] + turn + 1) % _WAYS
        kept = np.concatenate([np.flatnonzero(there), new[turn < _WAYS]])
        addresses, ways = addresses[kept], ways[kept]
        self._keys[addresses, ways], self._taken[addresses, ways] = keys[kept], True
        self._columns.put(addresses * _WAYS + ways, items[kept])

    def _ways(self, keys: Keys, addresses: Rows) -> tuple[Rows, npt.NDArray[np.bool_]]:
        """Which of its eight places each key is in, and whether it is in any."""
        match = (self._keys[addresses] == keys[:, None]) & self._taken[addresses]
        return match.argmax(axis=1), match.any(axis=1)

    def _addresses(self, keys: Keys) -> Rows:
        spread = keys.view(np.uint64) * _SPREAD
        addresses: Rows = ((spread >> np.uint64(32)) % np.uint64(self._sets)).astype(np.intp)
        return addresses


class _Columns:
    """Statistics in as few bytes as they need: of rows that may be written one by one.

    Args:
        size: how many rows.
        columns: the biases that the rows have.
    """

    def __init__(self, size: int, columns: Sequence[str]) -> None:
        # zeros, since memory that is never written to is then never taken
        self._biases = {name: np.zeros(size, dtype=np.float32) for name in columns}
        self._activated = {bank: np.zeros(size, dtype=np.bool_) for bank in BANKS}

    @classmethod
    def joined(cls, parts: list[_Columns], order: Rows) -> _Columns:
        """The rows of all parts, one after the other, in another order. The parts are used up."""
        whole = cls(0, [])
        for own, named in ((whole._biases, "_biases"), (whole._activated, "_activated")):
            for name in list(getattr(parts[0], named)):
                own[name] = np.concatenate([getattr(part, named).pop(name) for part in parts])[order]
        return whole

    @property
    def nbytes(self) -> int:
        return sum(int(column.nbytes) for column in (*self._biases.values(), *self._activated.values()))

    def at(self, rows: Rows) -> ItemStatistics:
        items = ItemStatistics.unknown(len(rows))
        for name, bias in self._biases.items():
            items.bias(name)[:] = bias[rows]
        for bank, activated in self._activated.items():
            items.activated(bank)[:] = activated[rows]
        return items

    def put(self, rows: Rows | slice, items: ItemStatistics) -> None:
        for name, bias in self._biases.items():
            bias[rows] = items.bias(name)
        for bank, activated in self._activated.items():
            activated[rows] = items.activated(bank)


def bytes_per_item(columns: int) -> int:
    """What an item of so many biases takes in a lookup; in a table it is one more, and an eighth of one."""
    return _BYTES_PER_KEY + 4 * columns + len(BANKS)


def keys_of(ids: Sequence[ItemId]) -> Keys:
    """Integers as they are; text as 64-bit hashes, so that long ids take no more memory than short ones."""
    keys = np.asarray(ids)
    if keys.dtype.kind not in "iu":
        keys = np.array([_key(item) for item in ids], dtype=np.uint64)
    return keys.astype(np.int64, copy=False) if keys.dtype.kind == "i" else keys.astype(np.uint64).view(np.int64)


def _key(item: ItemId) -> int:
    if isinstance(item, (int, np.integer)):
        return int(item) % 2**64
    return int.from_bytes(hashlib.blake2b(str(item).encode(), digest_size=8).digest(), "little")
