"""`wrap`: a `MilvusClient` whose searches are normalised on collections that have statistics."""

from __future__ import annotations

from typing import Any

from pymilvus import MilvusClient

from dbnorm_milvus.adapter import DEFAULT_CACHE_BYTES, MilvusAdapter
from dbnorm_milvus.store import MilvusStore
from dbnorm_vdb.errors import InvalidParameterError, UnsupportedQueryError
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
    collections that an adapter has fitted, `search` is that of `MilvusAdapter` (with its arguments `candidates`,
    `method`, `exact`, ... too), and `insert` and `upsert` give new rows their statistics. Everything else passes
    through: other collections, other fields, other calls. A search of the fitted field that has no normalised form
    (`hybrid_search`, `search_iterator`, grouping, rankers) is refused; `method="raw"` lets it pass.

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
        behind = self._dbnorm
        arguments = behind.bound("search", collection_name, args, kwargs)
        adapter = behind.adapter(collection_name)
        field = arguments.get("anns_field")
        if adapter is None or arguments.get("method") == "raw" or field not in (None, "", adapter.vector_name):
            return behind.client.search(collection_name, **without_options(arguments, collection_name))
        return adapter.search(**{**arguments, "anns_field": field or None})

    def hybrid_search(self, collection_name: str, reqs: Any, *args: Any, **kwargs: Any) -> Any:
        fields = {getattr(request, "anns_field", None) for request in reqs or ()}
        return self._refuse("hybrid_search", collection_name, (reqs, *args), kwargs, fields)

    def search_iterator(self, collection_name: str, *args: Any, **kwargs: Any) -> Any:
        field = self._dbnorm.bound("search_iterator", collection_name, args, kwargs).get("anns_field")
        return self._refuse("search_iterator", collection_name, args, kwargs, {field})

    def _refuse(self, name: str, collection: str, args: tuple[Any, ...], kwargs: dict[str, Any], fields: Any) -> Any:
        """Pass a call on, unless it searches the field that is normalised."""
        behind = self._dbnorm
        adapter = behind.adapter(collection)
        if adapter is not None and kwargs.get("method") != "raw" and fields & {None, "", adapter.vector_name}:
            raise UnsupportedQueryError(
                f"{name} of field {adapter.vector_name!r} of collection {collection!r} is not normalised; pass"
                " method='raw', or use search"
            )
        return getattr(behind.client, name)(collection, *args, **without_options(kwargs, collection))

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
