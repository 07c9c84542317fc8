"""The raw candidates of many queries, and the best of them under any scores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from dbnorm_vdb.banks import Vectors
from dbnorm_vdb.evaluation.gains import Grades
from dbnorm_vdb.evaluation.judgements import item_key
from dbnorm_vdb.evaluation.labelled import LabelledQueries
from dbnorm_vdb.statistics import Floats, ItemId
from dbnorm_vdb.store import Hit, Store

Positions: TypeAlias = npt.NDArray[np.intp]
Nearest: TypeAlias = Callable[..., Sequence[Sequence[Hit]]]
"""`NormalizedCollection.nearest`."""

EMPTY = -1
_BATCH = 100


@dataclass(frozen=True)
class RawCandidates:
    """What the engine returns for each of q queries, before any re-ranking.

    Attributes:
        ids: of the n items that are in any window, each once.
        items: (q, w) positions among them, in the engine's order; -1 fills a window that is shorter.
        similarities: (q, w) raw similarities; -inf there.
    """

    ids: list[ItemId]
    items: Positions
    similarities: Floats

    @classmethod
    def read(
        cls,
        nearest: Nearest,
        store: Store,
        queries: Vectors,
        size: int,
        report: Callable[[int, int], None] = lambda done, total: None,
    ) -> RawCandidates:
        """Fetch the `size` raw candidates of each of the (q, d) queries; `report` is told how many are done."""
        positions: dict[ItemId, int] = {}
        items = np.full((len(queries), size), EMPTY, dtype=np.intp)
        scores = np.zeros((len(queries), size))
        for start in range(0, len(queries), _BATCH):
            batch = queries[start : start + _BATCH]
            for row, hits in enumerate(nearest(batch, limit=size, method="raw", with_payload=False), start):
                items[row, : len(hits)] = [positions.setdefault(hit.id, len(positions)) for hit in hits]
                scores[row, : len(hits)] = [hit.score for hit in hits]
            report(start + len(batch), len(queries))
        similarities = np.where(items == EMPTY, -np.inf, store.similarities(scores))
        return cls(list(positions), items, similarities)

    def grades(self, labelled: LabelledQueries) -> Grades:
        """(q, w) grades of the candidates; 0 for those not relevant."""
        place = {item_key(item): position for position, item in enumerate(self.ids)}
        grades = np.zeros(self.items.shape, dtype=np.int64)
        for row, relevant in enumerate(labelled.relevant):
            for key, grade in relevant.items():
                if key in place:
                    grades[row, self.items[row] == place[key]] = grade
        return grades


def best_columns(scores: Floats, count: int) -> Positions:
    """(q, count) columns of the best of (q, w) scores, best first; of equal ones the earlier column.

    Columns in the engine's order are in descending raw similarity, so ties go as in a search. Where there are fewer
    than `count` columns, all of them.
    """
    rows, width = scores.shape
    count = min(count, width)
    if not count:
        return np.empty((rows, 0), dtype=np.intp)
    least = np.partition(scores, width - count, axis=1)[:, width - count]
    row, column = np.nonzero(scores >= least[:, None])
    order = np.lexsort((column, -scores[row, column], row))
    starts = np.searchsorted(row, np.arange(rows))
    taken = order[starts[:, None] + np.arange(count)]
    best: Positions = column[taken]
    return best
