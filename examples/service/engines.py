"""The service's two databases, each as it would be used without this service: the client, and one line around it.

Both hold the test pictures of the demonstration, and are fitted when the service starts, unless they are already.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from dbnorm_vdb.demo import Pictures

COLLECTION = "pictures"
BETAS = {"query_beta": 20, "gallery_beta": 5}  # found on the development pairs, see `make demo`


@dataclass(frozen=True)
class Found:
    """One result."""

    id: int
    score: float
    title: str


class Engine(Protocol):
    """What the service asks of a database."""

    images: Any  # the adapter
    errors: tuple[type[Exception], ...]  # of the client, when its database is away or refuses

    async def load(self, data: Pictures) -> None: ...

    async def search(self, vector: Sequence[float], *, limit: int, method: str | None) -> list[Found]: ...

    async def close(self) -> None: ...


class QdrantEngine:
    """Qdrant through `AsyncQdrantAdapter`."""

    def __init__(self, url: str) -> None:
        from qdrant_client import AsyncQdrantClient
        from qdrant_client.http.exceptions import ApiException

        from dbnorm_qdrant import AsyncQdrantAdapter

        self.errors: tuple[type[Exception], ...] = (ApiException,)
        self.client = AsyncQdrantClient(url) if "://" in url else AsyncQdrantClient(path=url)
        self.images: Any = AsyncQdrantAdapter(self.client, COLLECTION)

    async def load(self, data: Pictures) -> None:
        from qdrant_client import models

        if await self.client.collection_exists(COLLECTION):
            return
        size = data.test.pictures.shape[1]
        await self.client.create_collection(
            COLLECTION, vectors_config=models.VectorParams(size=size, distance=models.Distance.COSINE)
        )
        pairs = zip(data.test.records, data.test.pictures.tolist(), strict=True)
        points = [models.PointStruct(id=r["id"], vector=v, payload={"title": r["text"]}) for r, v in pairs]
        await self.client.upsert(COLLECTION, points)

    async def search(self, vector: Sequence[float], *, limit: int, method: str | None) -> list[Found]:
        answer = await self.images.query_points(query=list(vector), limit=limit, method=method, with_payload=["title"])
        return [Found(int(point.id), point.score, (point.payload or {})["title"]) for point in answer.points]

    async def close(self) -> None:
        await self.client.close()


class MilvusEngine:
    """Milvus through `AsyncMilvusAdapter`."""

    def __init__(self, url: str) -> None:
        from pymilvus import AsyncMilvusClient, MilvusException

        from dbnorm_milvus import AsyncMilvusAdapter

        self.url = url
        self.errors: tuple[type[Exception], ...] = (MilvusException,)
        self.client = AsyncMilvusClient(url)
        self.images: Any = AsyncMilvusAdapter(self.client, COLLECTION)

    async def load(self, data: Pictures) -> None:
        from pymilvus import MilvusClient

        client = MilvusClient(self.url)  # for set-up; searches go through the async client
        try:
            if client.has_collection(COLLECTION):
                client.load_collection(COLLECTION)
                return
            size = data.test.pictures.shape[1]
            client.create_collection(COLLECTION, dimension=size, metric_type="COSINE", consistency_level="Strong")
            pairs = zip(data.test.records, data.test.pictures, strict=True)
            client.insert(COLLECTION, [{"id": r["id"], "vector": v, "title": r["text"]} for r, v in pairs])
        finally:
            client.close()

    async def search(self, vector: Sequence[float], *, limit: int, method: str | None) -> list[Found]:
        (hits,) = await self.images.search(data=[list(vector)], limit=limit, method=method, output_fields=["title"])
        return [Found(int(hit["id"]), hit["distance"], hit["entity"]["title"]) for hit in hits]

    async def close(self) -> None:
        await self.client.close()


ENGINES: dict[str, Callable[[str], Engine]] = {"qdrant": QdrantEngine, "milvus": MilvusEngine}


async def open_engine(name: str, url: str, data: Pictures) -> Engine:
    """Connect, load the pictures where they are not yet, and fit where there are no statistics yet."""
    engine = ENGINES[name](url)
    await engine.load(data)
    if not await engine.images.is_fitted():
        await engine.images.fit(query_bank=data.train.texts, gallery_bank=data.train.pictures, **BETAS)
    return engine
