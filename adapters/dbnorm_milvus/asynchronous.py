"""AsyncMilvusAdapter: `MilvusAdapter` for an `AsyncMilvusClient`."""

from __future__ import annotations

from pymilvus import AsyncMilvusClient, MilvusClient

from dbnorm_milvus.adapter import MilvusAdapter
from dbnorm_vdb.asynchronous import AsyncCollection, Awaited, awaited, threaded
from dbnorm_vdb.caching import DEFAULT_CACHE_BYTES
from dbnorm_vdb.errors import InvalidParameterError
from dbnorm_vdb.eventloop import Bridge
from dbnorm_vdb.planning import DEFAULT_STATISTICS_TTL
from dbnorm_vdb.wrapping import unwrapped


class AsyncMilvusAdapter(AsyncCollection):
    """A Milvus collection whose searches are normalised, for an `AsyncMilvusClient`: `MilvusAdapter`, awaited.

    Args:
        client, collection_name, vector_field, on_missing, statistics_ttl, cache, cache_bytes: see `MilvusAdapter`.

    Example:
        >>> images = AsyncMilvusAdapter(client, "images")  # doctest: +SKIP
        >>> await images.fit(query_bank=captions, gallery_bank=5000)  # doctest: +SKIP
        >>> await images.search(data=[vector], limit=10, output_fields=["title"])  # doctest: +SKIP
    """

    def __init__(
        self,
        client: AsyncMilvusClient,
        collection_name: str,
        vector_field: str | None = None,
        *,
        on_missing: str = "raw",
        statistics_ttl: float = DEFAULT_STATISTICS_TTL,
        cache: str = "all",
        cache_bytes: int = DEFAULT_CACHE_BYTES,
    ) -> None:
        self.client = client = unwrapped(client)
        if isinstance(client, MilvusClient):
            raise InvalidParameterError(
                "AsyncMilvusAdapter takes an AsyncMilvusClient; for a MilvusClient use MilvusAdapter"
            )
        self._inner = BridgedAdapter(
            Bridge(client),
            collection_name,
            vector_field,
            on_missing=on_missing,
            statistics_ttl=statistics_ttl,
            cache=cache,
            cache_bytes=cache_bytes,
        )

    # mypy takes "self" for an argument that may be passed by name
    search = awaited(MilvusAdapter.search)
    search_explained = awaited(MilvusAdapter.search_explained)
    hybrid_search = awaited(MilvusAdapter.hybrid_search)
    nearest = awaited(MilvusAdapter.nearest)
    rerank = awaited(MilvusAdapter.rerank)
    upsert = threaded(MilvusAdapter.upsert)  # type: ignore[arg-type]
    insert = threaded(MilvusAdapter.insert)  # type: ignore[arg-type]


class BridgedAdapter(Awaited, MilvusAdapter):
    """What does the work of an async adapter."""
