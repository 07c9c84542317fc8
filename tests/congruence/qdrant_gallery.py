"""A small Qdrant collection with all that calls may ask of one, twice: fitted, and left alone."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Any

import numpy as np
from adapters.world import World
from harness import QDRANT_METRICS
from qdrant_client import QdrantClient, models

N = 90
OWNERS = 11
TEXT, WORDS = "text", "words"


@dataclass(frozen=True)
class Gallery:
    """Points with a dense vector to normalise, another dense one, a sparse one, and payload.

    Attributes:
        world: the vectors to normalise, banks and queries.
        client: that has the collections.
        fitted: name of a collection with statistics.
        plain: name of its like without.
        vector: name of the vector; "" for the unnamed one.
        ids: of the points, in their order: integers and UUIDs.
        text_queries: (q, 5) of the other dense vector; there is none beside an unnamed one.
        word_queries: of the sparse vector.
    """

    world: World
    client: QdrantClient
    fitted: str
    plain: str
    vector: str
    ids: list[Any]
    text_queries: np.ndarray
    word_queries: list[models.SparseVector]

    @classmethod
    def make(cls, client: QdrantClient, adapter_of: Any, metric: str, vector: str, **fit: Any) -> Gallery:
        """Collections whose names say what they are; `adapter_of(collection, vector)` makes what fits."""
        world = World.make(metric, n=N)
        rng = np.random.default_rng(5)
        ids = [str(uuid.uuid5(uuid.NAMESPACE_OID, str(row))) if row % 4 == 3 else row for row in range(N)]
        names = [f"{metric}_{vector or 'unnamed'}_{kind}" for kind in ("fitted", "plain")]
        texts = rng.normal(size=(N, 5)).astype(np.float32)
        words = [_sparse(rng) for _ in range(N)]
        points = []
        for row in range(N):
            vectors: dict[str, Any] = {vector: world.items[row].tolist(), WORDS: words[row]}
            if vector:
                vectors[TEXT] = texts[row].tolist()
            payload = {
                "number": row,
                "owner": f"o{row % OWNERS}",
                "nested": {"title": f"item {row}", "tags": ["a", "b"]},
            }
            points.append(models.PointStruct(id=ids[row], vector=vectors, payload=payload))
        size = world.items.shape[1]
        params = {vector: models.VectorParams(size=size, distance=QDRANT_METRICS[metric])}
        if vector:
            params[TEXT] = models.VectorParams(size=5, distance=models.Distance.DOT)
        for name in names:
            client.create_collection(
                name,
                vectors_config=params if vector else params[""],
                sparse_vectors_config={WORDS: models.SparseVectorParams()},
            )
            client.upsert(name, points)
        adapter = adapter_of(names[0], vector or None)
        world.fit(adapter, **fit)
        queries = rng.normal(size=(8, 5)).astype(np.float32)
        return cls(world, client, *names, vector, ids, queries, [_sparse(rng) for _ in range(8)])

    @property
    def using(self) -> str | None:
        """How a leg names the vector."""
        return self.vector or None

    def vectors_of(self, query: Any) -> np.ndarray:
        """(8,) the vector of a query: itself, or that of a point."""
        if isinstance(query, (int, str)):
            return self.world.items[self.ids.index(query)]
        return np.asarray(query)


def _sparse(rng: np.random.Generator) -> models.SparseVector:
    indices = sorted(rng.choice(20, size=6, replace=False).tolist())
    return models.SparseVector(indices=indices, values=rng.uniform(0.1, 1.0, size=6).round(3).tolist())
