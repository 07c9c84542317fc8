"""`wrap`: a Milvus client whose searches are normalised on collections that have statistics."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias, TypeVar

from pymilvus import AsyncMilvusClient, MilvusClient

from dbnorm_milvus.adapter import MilvusAdapter
from dbnorm_milvus.asynchronous import BridgedAdapter
from dbnorm_milvus.store import MilvusStore
from dbnorm_vdb.caching import DEFAULT_CACHE_BYTES
from dbnorm_vdb.deadline import Deadline
from dbnorm_vdb.errors import InvalidParameterError
from dbnorm_vdb.eventloop import Bridge
from dbnorm_vdb.ledger import Ledger
from dbnorm_vdb.planning import DEFAULT_STATISTICS_TTL, check_options
from dbnorm_vdb.stepped import steps_of
from dbnorm_vdb.steps import Steps, call
from dbnorm_vdb.wrapping import Replacement, WrappedClient, without_options, wrapped

Client = TypeVar("Client", MilvusClient, AsyncMilvusClient)
Behind: TypeAlias = WrappedClient[Any, MilvusAdapter]
Fields: TypeAlias = Callable[[Mapping[str, Any]], Sequence[str | None]]
"""The vector fields that a call with these arguments searches."""

NormalizedSteps: TypeAlias = Callable[[MilvusAdapter, dict[str, Any]], Steps[Any]]


def wrap(
    client: Client,
    *,
    statistics_ttl: float = DEFAULT_STATISTICS_TTL,
    cache: str = "all",
    cache_bytes: int = DEFAULT_CACHE_BYTES,
) -> Client:
    """A client that can stand wherever the given one can, and normalises what searches a fitted field.

    It is an instance of a subclass of the client's class and shares all its state: closing one closes both. On
    collections that an adapter has fitted, `search`, `search_iterator` and `hybrid_search` are those of `MilvusAdapter`
    (with its arguments `candidates`, `method`, `exact`, ... too), and `insert` and `upsert` give new rows their
    statistics. Everything else passes through: other collections, other fields, other calls. A search of the fitted
    field that has no normalised form (rankers on the server, aggregation) is refused; `method="raw"` lets it pass.

    Args:
        client: the user's own `MilvusClient` or `AsyncMilvusClient`.
        statistics_ttl: see `MilvusAdapter`; also after how long a collection is seen to be fitted.
        cache, cache_bytes: see `MilvusAdapter`; for each collection.

    Example:
        >>> client = wrap(MilvusClient("http://localhost:19530"))  # doctest: +SKIP
    """
    if not isinstance(client, (MilvusClient, AsyncMilvusClient)):
        raise InvalidParameterError(f"wrap() takes a MilvusClient or AsyncMilvusClient, got {type(client).__name__}")
    check_options(statistics_ttl, cache, cache_bytes)
    blocking: Any = client if isinstance(client, MilvusClient) else Bridge(client)
    kind = MilvusAdapter if isinstance(client, MilvusClient) else BridgedAdapter

    def make(collection: str) -> MilvusAdapter | None:
        active = Ledger(MilvusStore(blocking, collection, None)).active()
        if active is None:
            return None
        options: dict[str, Any] = {"statistics_ttl": statistics_ttl, "cache": cache, "cache_bytes": cache_bytes}
        return kind(blocking, collection, active.vector, **options)

    there = {name: steps for name, steps in _REPLACEMENTS.items() if hasattr(client, name)}
    return wrapped(client, there, WrappedClient(client, make, statistics_ttl), renaming=_RENAMING)


def _search(
    name: str, fields: Fields, steps: NormalizedSteps, behind: Behind, collection: str, *args: Any, **kwargs: Any
) -> Steps[Any]:
    """The adapter's search if the call is on its field, else the client's."""
    asked = behind.bound(name, collection, args, kwargs)
    deadline = Deadline.after(asked.get("timeout"))
    adapter = yield from behind.adapter(collection, deadline)
    if deadline.is_set:
        asked["timeout"] = deadline.client_timeout()
    if adapter is None or asked.get("method") == "raw" or not any(map(adapter.normalizes, fields(asked))):
        return (yield from call(name, collection, **without_options(asked, collection)))
    return (yield from steps(adapter, asked))


def _own_field(asked: Mapping[str, Any]) -> Sequence[str | None]:
    return [asked.get("anns_field")]


def _fields_of_requests(asked: Mapping[str, Any]) -> Sequence[str | None]:
    return [getattr(request, "anns_field", None) for request in asked.get("reqs") or ()]


def _write(name: str, behind: Behind, collection: str, *args: Any, **kwargs: Any) -> Steps[Any]:
    adapter = yield from behind.adapter(collection)
    if adapter is None:
        return (yield from call(name, collection, *args, **kwargs))
    arguments = behind.bound(name, collection, args, kwargs)
    return (yield from behind.written(name, adapter, arguments))


_RENAMING = (
    "use_database",
    "using_database",
    "drop_collection",
    "rename_collection",
    "create_alias",
    "alter_alias",
    "drop_alias",
)

_REPLACEMENTS: dict[str, Replacement] = {
    "search": partial(_search, "search", _own_field, lambda adapter, asked: steps_of(adapter.search)(**asked)),
    "search_iterator": partial(
        _search, "search_iterator", _own_field, lambda adapter, asked: steps_of(adapter.search_iterator)(**asked)
    ),
    "hybrid_search": partial(
        _search, "hybrid_search", _fields_of_requests, lambda adapter, asked: steps_of(adapter.hybrid_search)(**asked)
    ),
    "insert": partial(_write, "insert"),
    "upsert": partial(_write, "upsert"),
}
