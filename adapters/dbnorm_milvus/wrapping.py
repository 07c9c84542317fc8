"""`wrap`: a `MilvusClient` whose searches are normalised on collections that have statistics."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from pymilvus import MilvusClient

from dbnorm_milvus.adapter import DEFAULT_CACHE_BYTES, MilvusAdapter
from dbnorm_milvus.store import MilvusStore
from dbnorm_vdb.errors import InvalidParameterError
from dbnorm_vdb.ledger import Ledger
from dbnorm_vdb.serving import DEFAULT_STATISTICS_TTL
from dbnorm_vdb.wrapping import WrappedClient, without_options, wrapped


def wrap(
    client: MilvusClient,
    *,
    statistics_ttl: float = DEFAULT_STATISTICS_TTL,
    cache_bytes: int = DEFAULT_CACHE_BYTES,
) -> MilvusClient:
    """A client that can stand wherever the given one can, and normalises what searches a fitted field.

    It is an instance of a subclass of the client's class and shares all its state: closing one closes both. On
    collections that an adapter has fitted, `search`, `search_iterator` and `hybrid_search` are those of `MilvusAdapter`
    (with its arguments `candidates`, `method`, `exact`, ... too), and `insert` and `upsert` give new rows their
    statistics. Everything else passes through: other collections, other fields, other calls. A search of the fitted
    field that has no normalised form (rankers on the server, aggregation) is refused; `method="raw"` lets it pass.

    Args:
        client: the user's own.
        statistics_ttl: see `MilvusAdapter`; also after how long a collection is seen to be fitted.
        cache_bytes: see `MilvusAdapter`; for each collection.

    Example:
        >>> client = wrap(MilvusClient("http://localhost:19530"))  # doctest: +SKIP
    """
    if not isinstance(client, MilvusClient):
        raise InvalidParameterError(f"wrap() takes a MilvusClient, got {type(client).__name__}")
    if isinstance(client, _Calls):
        raise InvalidParameterError("this client is wrapped already")

    def make(collection: str) -> MilvusAdapter | None:
        active = Ledger(MilvusStore(client, collection, None)).active()
        if active is None:
            return None
        return MilvusAdapter(client, collection, active.vector, statistics_ttl=statistics_ttl, cache_bytes=cache_bytes)

    made: MilvusClient = wrapped(client, _Calls, WrappedClient(client, make, statistics_ttl))
    return made


class _Calls:
    """What takes the place of the client's own methods."""

    _dbnorm: WrappedClient[Any, MilvusAdapter]

    def search(self, collection_name: str, *args: Any, **kwargs: Any) -> Any:
        return self._normalized("search", collection_name, args, kwargs, lambda asked: [asked.get("anns_field")])

    def search_iterator(self, collection_name: str, *args: Any, **kwargs: Any) -> Any:
        return self._normalized(
            "search_iterator", collection_name, args, kwargs, lambda asked: [asked.get("anns_field")]
        )

    def hybrid_search(self, collection_name: str, *args: Any, **kwargs: Any) -> Any:
        return self._normalized(
            "hybrid_search",
            collection_name,
            args,
            kwargs,
            lambda asked: [getattr(request, "anns_field", None) for request in asked.get("reqs") or ()],
        )

    def _normalized(
        self,
        name: str,
        collection: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        fields: Callable[[dict[str, Any]], Sequence[str | None]],
    ) -> Any:
        """The adapter's search if the call is on its field, else the client's."""
        behind = self._dbnorm
        asked = behind.bound(name, collection, args, kwargs)
        adapter = behind.adapter(collection)
        if adapter is None or asked.get("method") == "raw" or not any(map(adapter.normalizes, fields(asked))):
            return getattr(behind.client, name)(collection, **without_options(asked, collection))
        return getattr(adapter, name)(**asked)

    def insert(self, collection_name: str, *args: Any, **kwargs: Any) -> Any:
        return self._write("insert", collection_name, args, kwargs)

    def upsert(self, collection_name: str, *args: Any, **kwargs: Any) -> Any:
        return self._write("upsert", collection_name, args, kwargs)

    def _write(self, name: str, collection: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        behind = self._dbnorm
        adapter = behind.adapter(collection)
        if adapter is None:
            return getattr(behind.client, name)(collection, *args, **kwargs)
        return getattr(adapter, name)(**behind.bound(name, collection, args, kwargs))

    def close(self) -> None:
        self._dbnorm.client.close()
