"""`wrap`: a Milvus client whose searches are normalised on collections that have statistics."""

from __future__ import annotations

from functools import partial
from typing import Any, TypeAlias, TypeVar

from pymilvus import AsyncMilvusClient, MilvusClient

from dbnorm_milvus.adapter import DEFAULT_CACHE_BYTES, MilvusAdapter
from dbnorm_milvus.asynchronous import BridgedAdapter
from dbnorm_milvus.store import MilvusStore
from dbnorm_vdb.errors import InvalidParameterError, UnsupportedQueryError
from dbnorm_vdb.eventloop import Bridge
from dbnorm_vdb.ledger import Ledger
from dbnorm_vdb.serving import DEFAULT_STATISTICS_TTL
from dbnorm_vdb.steps import Steps, Work, call
from dbnorm_vdb.wrapping import Replacement, WrappedClient, without_options, wrapped

Client = TypeVar("Client", MilvusClient, AsyncMilvusClient)
Behind: TypeAlias = WrappedClient[Any, MilvusAdapter]


def wrap(
    client: Client,
    *,
    statistics_ttl: float = DEFAULT_STATISTICS_TTL,
    cache_bytes: int = DEFAULT_CACHE_BYTES,
) -> Client:
    """A client that can stand wherever the given one can, and normalises what searches a fitted field.

    It is an instance of a subclass of the client's class and shares all its state: closing one closes both. On
    collections that an adapter has fitted, `search` is that of `MilvusAdapter` (with its arguments `candidates`,
    `method`, `exact`, ... too), and `insert` and `upsert` give new rows their statistics. Everything else passes
    through: other collections, other fields, other calls. A search of the fitted field that has no normalised form
    (`hybrid_search`, `search_iterator`, grouping, rankers) is refused; `method="raw"` lets it pass.

    Args:
        client: the user's own `MilvusClient` or `AsyncMilvusClient`.
        statistics_ttl: see `MilvusAdapter`; also after how long a collection is seen to be fitted.
        cache_bytes: see `MilvusAdapter`; for each collection.

    Example:
        >>> client = wrap(MilvusClient("http://localhost:19530"))  # doctest: +SKIP
    """
    if not isinstance(client, (MilvusClient, AsyncMilvusClient)):
        raise InvalidParameterError(f"wrap() takes a MilvusClient or AsyncMilvusClient, got {type(client).__name__}")
    blocking: Any = client if isinstance(client, MilvusClient) else Bridge(client)
    kind = MilvusAdapter if isinstance(client, MilvusClient) else BridgedAdapter

    def make(collection: str) -> MilvusAdapter | None:
        active = Ledger(MilvusStore(blocking, collection, None)).active()
        if active is None:
            return None
        return kind(blocking, collection, active.vector, statistics_ttl=statistics_ttl, cache_bytes=cache_bytes)

    there = {name: steps for name, steps in _REPLACEMENTS.items() if hasattr(client, name)}
    return wrapped(client, there, WrappedClient(client, make, statistics_ttl))


def _search(behind: Behind, collection_name: str, *args: Any, **kwargs: Any) -> Steps[Any]:
    arguments = behind.bound("search", collection_name, args, kwargs)
    adapter = yield from behind.adapter(collection_name)
    field = arguments.get("anns_field")
    if adapter is None or arguments.get("method") == "raw" or field not in (None, "", adapter.vector_name):
        return (yield from call("search", collection_name, **without_options(arguments, collection_name)))
    return (yield from adapter.search_steps(False, **{**arguments, "anns_field": field or None})).result


def _hybrid_search(behind: Behind, collection_name: str, reqs: Any, *args: Any, **kwargs: Any) -> Steps[Any]:
    fields = {getattr(request, "anns_field", None) for request in reqs or ()}
    return (yield from _unless_normalized(behind, "hybrid_search", collection_name, (reqs, *args), kwargs, fields))


def _search_iterator(behind: Behind, collection_name: str, *args: Any, **kwargs: Any) -> Steps[Any]:
    field = behind.bound("search_iterator", collection_name, args, kwargs).get("anns_field")
    return (yield from _unless_normalized(behind, "search_iterator", collection_name, args, kwargs, {field}))


def _unless_normalized(
    behind: Behind, name: str, collection: str, args: tuple[Any, ...], kwargs: dict[str, Any], fields: Any
) -> Steps[Any]:
    """Pass a call on, unless it searches the field that is normalised."""
    adapter = yield from behind.adapter(collection)
    if adapter is not None and kwargs.get("method") != "raw" and fields & {None, "", adapter.vector_name}:
        raise UnsupportedQueryError(
            f"{name} of field {adapter.vector_name!r} of collection {collection!r} is not normalised; pass"
            " method='raw', or use search"
        )
    return (yield from call(name, collection, *args, **without_options(kwargs, collection)))


def _write(name: str, behind: Behind, collection: str, *args: Any, **kwargs: Any) -> Steps[Any]:
    adapter = yield from behind.adapter(collection)
    if adapter is None:
        return (yield from call(name, collection, *args, **kwargs))
    arguments = behind.bound(name, collection, args, kwargs)
    return (yield Work(partial(getattr(adapter, name), **arguments), writes=True))


_REPLACEMENTS: dict[str, Replacement] = {
    "search": _search,
    "hybrid_search": _hybrid_search,
    "search_iterator": _search_iterator,
    "insert": partial(_write, "insert"),
    "upsert": partial(_write, "upsert"),
}
