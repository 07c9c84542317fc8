"""The normalised order of items that come in raw order, page by page: each is passed on when its place is certain.

Whatever may come later is less similar than the last item so far, so it can score no more than that with the lowest
bias of the collection would (the bound of `dbnorm_vdb.reranking`). An item that scores at least as much can be passed
on; the others wait. What waits are items that more similar ones with a high bias have to be compared with: about as
many as the window of a certified search, and never passed on twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from dbnorm_vdb.methods import Method
from dbnorm_vdb.reranking import rerank
from dbnorm_vdb.statistics import CollectionStatistics, Floats, ItemStatistics
from dbnorm_vdb.telemetry import spanned


class Scored(NamedTuple):
    """An item whose place is certain, and its normalised similarity."""

    hit: Any
    score: float


class NormalizedStream:
    """Takes items in raw order, gives them in normalised order.

    Args:
        method: how they are scored. The gates of `dis` and `dual_dis` are decided by the first item of all.

    Attributes:
        beyond: the most that an item not taken yet can score.
    """

    def __init__(self, method: Method) -> None:
        self._method = method
        # row 0 is the first item of all, kept after it is passed on: it decides the gates and whether anything is
        # similar in the positive
        self._hits: list[Any] = []
        self._similarities: Floats = np.empty(0)
        self._items = ItemStatistics.unknown(0)
        self._first_passed = False
        self.beyond = float("inf")

    @property
    def waiting(self) -> int:
        """How many items have been taken but not passed on."""
        return len(self._hits) - self._first_passed

    @spanned("dbnorm.rerank")
    def take(
        self,
        hits: Sequence[Any],
        similarities: Floats,
        items: ItemStatistics,
        statistics: CollectionStatistics,
        *,
        complete: bool,
    ) -> list[Scored]:
        """Take the next n items; what can be passed on now, best first.

        Args:
            hits: what is passed on of them.
            similarities: (n,) raw, in the engine's order, none greater than those before.
            items: their statistics.
            statistics: of the collection: of one generation throughout, with bounds that hold for all items.
            complete: nothing comes after them.
        """
        self._hits += hits
        self._similarities = np.concatenate([self._similarities, similarities])
        self._items = ItemStatistics.joined([self._items, items])
        best = rerank(self._similarities, self._items, statistics, method=self._method, complete=complete)
        self.beyond = best.beyond
        if not len(best.order):
            return []
        certain, scores = best.order[: best.final].tolist(), best.scores.tolist()
        passed = [
            Scored(self._hits[row], scores[rank]) for rank, row in enumerate(certain) if row or not self._first_passed
        ]
        self._first_passed = self._first_passed or 0 in certain
        kept = np.union1d([0], best.order[best.final :])  # in the engine's order
        self._hits = [self._hits[row] for row in kept.tolist()]
        self._similarities, self._items = self._similarities[kept], self._items[kept]
        return passed
