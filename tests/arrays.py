"""A collection that is two arrays: for what is about arithmetic and not about engines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from adapters.world import similarity

from dbnorm_vdb.statistics import Metric
from dbnorm_vdb.store import Hit, Page, VectorInfo


class ArrayCollection:
    """Items 0 to n - 1 as far as a `Store` and `nearest` are asked to tell; counts what it is asked."""

    engine = "arrays"
    collection = "arrays"
    max_window = 100_000

    def __init__(self, items: np.ndarray, metric: str = "cosine") -> None:
        self.items = items.astype(np.float32)
        self.metric = metric
        self.info = VectorInfo("", items.shape[1], Metric(metric))
        self.searched = 0
        self.fetched = 0

    def nearest(self, queries: Any, *, limit: int, method: str, with_payload: bool) -> list[list[Hit]]:
        assert (method, with_payload) == ("raw", False)
        self.searched += len(queries)
        scores = self._similarities(np.asarray(queries))
        orders = np.argsort(-scores, axis=1, kind="stable")[:, :limit]
        return [[Hit(int(i), float(row[i]), {}) for i in order] for row, order in zip(scores, orders, strict=True)]

    def _similarities(self, queries: np.ndarray) -> np.ndarray:
        if self.metric == "euclidean":
            squares = np.square(queries, dtype=np.float64).sum(axis=1)[:, None] + np.square(self.items).sum(axis=1)
            return 2 * queries.astype(np.float64) @ self.items.T.astype(np.float64) - squares
        return similarity(queries, self.items, self.metric)

    def count(self) -> int:
        return len(self.items)

    def ids(self) -> Iterator[list[int]]:
        yield list(range(len(self.items)))

    def ids_of(self, keys: Sequence[str]) -> list[int]:
        return [int(key) for key in keys if key.isdigit()]

    def fetch(self, ids: Sequence[int]) -> Page:
        self.fetched += len(ids)
        there = [item for item in ids if item < len(self.items)]
        return Page(there, self.items[there])

    def similarities(self, scores: np.ndarray) -> np.ndarray:
        return scores
