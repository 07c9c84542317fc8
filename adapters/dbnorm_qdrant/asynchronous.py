"""AsyncQdrantAdapter: `QdrantAdapter` for an `AsyncQdrantClient`."""

from __future__ import annotations

from typing import cast

from qdrant_client import AsyncQdrantClient, QdrantClient

from dbnorm_qdrant.adapter import QdrantAdapter
from dbnorm_vdb.asynchronous import AsyncCollection, Awaited, awaited, threaded
from dbnorm_vdb.caching import DEFAULT_CACHE_BYTES
from dbnorm_vdb.errors import InvalidParameterError
from dbnorm_vdb.eventloop import Bridge
from dbnorm_vdb.planning import DEFAULT_STATISTICS_TTL
from dbnorm_vdb.wrapping import unwrapped


class AsyncQdrantAdapter(AsyncCollection):
    """A Qdrant collection whose searches are normalised, for an `AsyncQdrantClient`: `QdrantAdapter`, awaited.

    Args:
        client, collection_name, vector_name, on_missing, statistics_ttl, execution, cache, cache_bytes: see
            `QdrantAdapter`.

    Example:
        >>> images = AsyncQdrantAdapter(client, "images")  # doctest: +SKIP
        >>> await images.fit(query_bank=captions, gallery_bank=5000)  # doctest: +SKIP
        >>> (await images.query_points(query=vector, limit=10)).points  # doctest: +SKIP
    """

    def __init__(
        self,
        client: AsyncQdrantClient,
        collection_name: str,
        vector_name: str | None = None,
        *,
        on_missing: str = "raw",
        statistics_ttl: float = DEFAULT_STATISTICS_TTL,
        execution: str = "client",
        cache: str = "none",
        cache_bytes: int = DEFAULT_CACHE_BYTES,
    ) -> None:
        self.client = client = unwrapped(client)
        if isinstance(client, QdrantClient):
            raise InvalidParameterError(
                "AsyncQdrantAdapter takes an AsyncQdrantClient; for a QdrantClient use QdrantAdapter"
            )
        self._inner = BridgedAdapter(
            cast("QdrantClient", Bridge(client)),
            collection_name,
            vector_name,
            on_missing=on_missing,
            statistics_ttl=statistics_ttl,
            execution=execution,
            cache=cache,
            cache_bytes=cache_bytes,
        )

    # mypy takes "self" for an argument that may be passed by name
    query_points = awaited(QdrantAdapter.query_points)
    query_points_explained = awaited(QdrantAdapter.query_points_explained)
    query_batch_points = awaited(QdrantAdapter.query_batch_points)
    query_batch_points_explained = awaited(QdrantAdapter.query_batch_points_explained)
    query_points_groups = awaited(QdrantAdapter.query_points_groups)
    nearest = awaited(QdrantAdapter.nearest)
    rerank = awaited(QdrantAdapter.rerank)
    upsert = threaded(QdrantAdapter.upsert)  # type: ignore[arg-type]


class BridgedAdapter(Awaited, QdrantAdapter):
    """What does the work of an async adapter."""
