"""The result lists of a sample of queries, and what one pass over the collection's ids adds to them."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import numpy.typing as npt

from dbnorm_vdb.audits.outliers import occurrence_z
from dbnorm_vdb.banks import Vectors, sample_key, usable_vectors
from dbnorm_vdb.hubness import Hubness, measure_hubness
from dbnorm_vdb.statistics import Floats, ItemId
from dbnorm_vdb.store import Hit, Store
from dbnorm_vdb.writing import Progress

EXAMPLES = 5
"""How many of something are shown."""

REFERENCE_ITEMS = 500
"""Items drawn by lot, which others are compared with."""

_BATCH = 100


@dataclass(frozen=True)
class Asked:
    """The queries of an audit.

    Attributes:
        vectors: (n, d).
        rows: (n,) of those given.
        source: where they came from.
        texts: of all those given; None without.
        from_bank: they are those that the statistics were fitted on.
    """

    vectors: Vectors
    rows: npt.NDArray[np.intp]
    source: str
    texts: Sequence[str] | None = None
    from_bank: bool = False

    def __len__(self) -> int:
        return len(self.vectors)

    def told(self, position: int) -> tuple[int, str | None]:
        """Row and text of the query at a position."""
        row = int(self.rows[position])
        return row, None if self.texts is None else self.texts[row]


@dataclass(frozen=True)
class Subject:
    """What is audited.

    Attributes:
        store: the engine's side.
        nearest: the collection's own searches.
        progress: called with a stage, how many are done, and how many there are.
    """

    store: Store
    nearest: Callable[..., list[list[Hit]]]
    progress: Progress

    def search(self, stage: str, vectors: Vectors, *, limit: int, method: str = "raw") -> list[list[Hit]]:
        """The nearest items of each of (q, d) vectors, without payload."""
        found: list[list[Hit]] = []
        for start in range(0, len(vectors), _BATCH):
            batch = vectors[start : start + _BATCH]
            found += self.nearest(batch, limit=limit, method=method, with_payload=False)
            self.progress(stage, len(found), len(vectors))
        return found

    def fetch(self, ids: Sequence[ItemId]) -> tuple[list[ItemId], Vectors]:
        """Those of the items that have a usable vector."""
        page = self.store.fetch(ids)
        usable = usable_vectors(page.vectors) & page.vectors.any(axis=1)
        return [item for item, use in zip(page.ids, usable.tolist(), strict=True) if use], page.vectors[usable]


class Lists:
    """The k-nearest lists of n queries.

    Attributes:
        ids: of each query, the items found, nearest first.
        scores: (n,) of the nearest item of each query, on the engine's scale; NaN where nothing was found.
        counts: k-occurrence of the items that were found.
    """

    def __init__(self, results: Sequence[Sequence[Hit]]) -> None:
        self.ids = [[hit.id for hit in hits] for hits in results]
        self.scores: Floats = np.array([hits[0].score if hits else np.nan for hits in results], dtype=np.float64)
        self.counts: Counter[ItemId] = Counter(chain.from_iterable(self.ids))

    def hubness(self, item_count: int) -> Hubness:
        """All hubness measures, of a collection of that many items."""
        return measure_hubness(list(self.counts.values()), item_count=item_count)

    def z_scores(self, item_count: int) -> dict[ItemId, float]:
        """Robust z-scores of the occurrences of every item that was found, among those of all items."""
        occurrences = np.zeros(item_count, dtype=np.int64)
        occurrences[: len(self.counts)] = list(self.counts.values())
        return dict(zip(self.counts, occurrence_z(occurrences).tolist(), strict=False))

    def share(self, items: Iterable[ItemId]) -> float:
        """The share of the queries that find one of these."""
        wanted = set(items)
        return float(np.mean([not wanted.isdisjoint(ids) for ids in self.ids]))


@dataclass(frozen=True)
class Census:
    """What one pass over all ids tells.

    Attributes:
        item_count: how many items there are.
        sample: some of them, drawn by lot.
        unfound: some that no list contains, drawn by lot.
    """

    item_count: int
    sample: list[ItemId]
    unfound: list[ItemId]

    @classmethod
    def take(cls, store: Store, found: set[ItemId], seed: int) -> Census:
        """Read all ids of a collection; `found` are those that some list contains."""
        count = 0
        sample: list[tuple[int, ItemId]] = []
        unfound: list[tuple[int, ItemId]] = []
        for page in store.ids():
            count += len(page)
            keyed = [(sample_key(item, seed), item) for item in page]
            sample = heapq.nsmallest(REFERENCE_ITEMS, chain(sample, keyed))
            unfound = heapq.nsmallest(EXAMPLES, chain(unfound, (pair for pair in keyed if pair[1] not in found)))
        return cls(max(count, len(found)), [item for _, item in sample], [item for _, item in unfound])
