"""A small world with hubs: vectors, banks and queries, and what the oracle says of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from oracle import activation_set, additive_scores, oracle_scores

METHODS = ("raw", "is", "dis", "dual_is", "dual_dis")
METRICS = ("cosine", "dot", "euclidean")
FIT: dict[str, Any] = {"query_beta": 12.0, "gallery_beta": 5.0}


def similarity(queries: np.ndarray, items: np.ndarray, metric: str) -> np.ndarray:
    """(q, n) float64 similarities, larger is nearer; Euclidean as negative squared distance."""
    queries, items = queries.astype(np.float64), items.astype(np.float64)
    if metric == "cosine":
        queries = queries / np.linalg.norm(queries, axis=1, keepdims=True)
        items = items / np.linalg.norm(items, axis=1, keepdims=True)
    if metric != "euclidean":
        return queries @ items.T
    return -((queries[:, None, :] - items[None, :, :]) ** 2).sum(axis=2)


@dataclass(frozen=True)
class World:
    items: np.ndarray
    queries: np.ndarray
    query_bank: np.ndarray
    gallery_bank: np.ndarray
    metric: str

    @classmethod
    def make(cls, metric: str = "cosine", *, n: int = 120, d: int = 8, seed: int = 2) -> World:
        """Items around one point, queries around another, as between modalities: some items are hubs.

        The banks are small, so that each has its gate closed for some queries.
        """
        rng = np.random.default_rng(seed)

        def cloud(size: int, centre: np.ndarray) -> np.ndarray:
            vectors = centre + rng.normal(size=(size, d))
            lengths = rng.uniform(0.7, 1.1, size=(size, 1))
            return (lengths * vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)

        one, other = 0.5 * rng.normal(size=(2, d))
        return cls(cloud(n, one), cloud(16, other), cloud(12, other), cloud(20, one), metric)

    def raw(self) -> np.ndarray:
        return similarity(self.queries, self.items, self.metric)

    def banks(self) -> dict[str, np.ndarray]:
        return {
            "query_bank": similarity(self.query_bank, self.items, self.metric),
            "gallery_bank": similarity(self.gallery_bank, self.items, self.metric),
        }

    def order_oracle(self, method: str, **settings: Any) -> np.ndarray:
        """(q, n) the papers' scores: only their order counts."""
        return oracle_scores(method, self.raw(), **self.banks(), **FIT, **settings)

    def score_oracle(self, method: str, **settings: Any) -> np.ndarray:
        """(q, n) the scores to be returned, on the similarity scale; NaN where only the order is promised."""
        return additive_scores(method, self.raw(), **self.banks(), **FIT, **settings)

    def activated(self, bank: str) -> set[int]:
        return activation_set(self.banks()[f"{bank}_bank"])

    def fit(self, adapter: Any, **settings: Any) -> Any:
        return adapter.fit(self.query_bank, self.gallery_bank, **{**FIT, **settings})
