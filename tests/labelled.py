"""A world with hubs in which it is known what each query is after."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class LabelledWorld:
    """Queries lie around another point than the items, as between modalities; each is after one item.

    Items in the direction of the queries' centre are near all of them: hubs. The query bank shows which these are.
    `misleading_bank` lies around one item alone, and makes a hub of what is none.
    """

    items: np.ndarray
    queries: np.ndarray
    own: np.ndarray
    query_bank: np.ndarray
    gallery_bank: np.ndarray
    misleading_bank: np.ndarray

    @classmethod
    def make(cls, *, n: int = 150, q: int = 300, d: int = 12, gap: float = 2.0, seed: int = 0) -> LabelledWorld:
        rng = np.random.default_rng(seed)
        meanings, others = rng.normal(size=(n, d)), rng.normal(size=(300, d))
        centre = rng.normal(size=d)
        centre *= gap / np.linalg.norm(centre)

        def asked(after: np.ndarray) -> np.ndarray:
            return unit(after + centre + 0.8 * rng.normal(size=after.shape))

        own = rng.integers(0, n, size=q)
        return cls(
            items=unit(meanings),
            queries=asked(meanings[own]),
            own=own,
            query_bank=asked(others),
            gallery_bank=unit(rng.normal(size=(100, d))),
            misleading_bank=unit(rng.normal(size=d) + 0.3 * rng.normal(size=(20, d))),
        )


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)
