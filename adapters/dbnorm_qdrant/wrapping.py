"""`wrap`: a Qdrant client whose searches are normalised on collections that have statistics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

from qdrant_client import AsyncQdrantClient, QdrantClient, models

from dbnorm_qdrant.adapter import QdrantAdapter
from dbnorm_qdrant.asynchronous import BridgedAdapter
from dbnorm_qdrant.formula import check_execution
from dbnorm_qdrant.payload import without_our_key
from dbnorm_qdrant.prefetches import concerns
from dbnorm_qdrant.requests import rest_request
from dbnorm_qdrant.store import QdrantStore
from dbnorm_vdb.caching import DEFAULT_CACHE_BYTES
from dbnorm_vdb.deadline import Deadline
from dbnorm_vdb.errors import InvalidParameterError, UnsupportedQueryError
from dbnorm_vdb.eventloop import Bridge
from dbnorm_vdb.ledger import Ledger
from dbnorm_vdb.planning import DEFAULT_STATISTICS_TTL, check_options
from dbnorm_vdb.stepped import steps_of
from dbnorm_vdb.steps import Steps, call
from dbnorm_vdb.wrapping import Replacement, WrappedClient, without_options, wrapped

Client = TypeVar("Client", QdrantClient, AsyncQdrantClient)
Behind: TypeAlias = WrappedClient[Any, QdrantAdapter]


def wrap(
    client: Client,
    *,
    statistics_ttl: float = DEFAULT_STATISTICS_TTL,
    execution: str = "client",
    cache: str = "none",
    cache_bytes: int = DEFAULT_CACHE_BYTES,
) -> Client:
    """A client that can stand wherever the given one can, and normalises what searches a fitted vector.

    It is an instance of a subclass of the client's class and shares all its state: closing one closes both. On
    collections that an adapter has fitted, `query_points`, `query_batch_points` and `query_points_groups` are those of
    `QdrantAdapter` (with its arguments `candidates`, `method`, `exact`, ... too), and `upsert` gives new points their
    statistics. Everything else passes through: other collections, other vectors, other calls; points that come from
    there (from `scroll`, `retrieve` and searches of other vectors) come without our payload key. A search of the fitted
    vector that has no normalised form (discovery, context, ...) is refused; `method="raw"` lets it pass.

    Args:
        client: the user's own `QdrantClient` or `AsyncQdrantClient`.
        statistics_ttl: see `QdrantAdapter`; also after how long a collection is seen to be fitted.
        execution: see `QdrantAdapter`.
        cache, cache_bytes: see `QdrantAdapter`; for each collection.

    Example:
        >>> client = wrap(QdrantClient("http://localhost:6333"))  # doctest: +SKIP
    """
    if not isinstance(client, (QdrantClient, AsyncQdrantClient)):
        raise InvalidParameterError(f"wrap() takes a QdrantClient or AsyncQdrantClient, got {type(client).__name__}")
    check_options(statistics_ttl, cache, cache_bytes)
    check_execution(execution)
    blocking: Any = client if isinstance(client, QdrantClient) else Bridge(client)
    kind = QdrantAdapter if isinstance(client, QdrantClient) else BridgedAdapter

    def make(collection: str) -> QdrantAdapter | None:
        active = Ledger(QdrantStore(blocking, collection, None)).active()
        if active is None:
            return None
        options: dict[str, Any] = {"statistics_ttl": statistics_ttl, "cache": cache, "cache_bytes": cache_bytes}
        return kind(blocking, collection, active.vector, execution=execution, **options)

    return wrapped(client, _REPLACEMENTS, WrappedClient(client, make, statistics_ttl), renaming=_RENAMING)


def _adapter(behind: Behind, collection: str, arguments: dict[str, Any]) -> Steps[QdrantAdapter | None]:
    """The adapter of a search of a collection that has statistics; the search gets what is left of its time."""
    deadline = Deadline.after(arguments.get("timeout"))
    adapter = yield from behind.adapter(collection, deadline)
    if deadline.is_set:
        arguments["timeout"] = deadline
    return adapter


def _query_points(behind: Behind, collection_name: str, *args: Any, **kwargs: Any) -> Steps[Any]:
    arguments = behind.bound("query_points", collection_name, args, kwargs)
    adapter = yield from _adapter(behind, collection_name, arguments)
    if adapter is None or not _concerns(adapter, arguments):
        options = _clients(arguments, collection_name, adapter)
        response = yield from call("query_points", collection_name, **options)
        return response if adapter is None else _cleaned(response)
    return (yield from steps_of(adapter.query_points)(**arguments))


def _query_batch_points(
    behind: Behind, collection_name: str, requests: Sequence[models.QueryRequest], *args: Any, **kwargs: Any
) -> Steps[Any]:
    arguments = behind.bound("query_batch_points", collection_name, (requests, *args), kwargs)
    del arguments["requests"]
    adapter = yield from _adapter(behind, collection_name, arguments)
    ours = [adapter is not None and _concerns(adapter, vars(rest_request(request))) for request in requests]
    rows, others = ([row for row, our in enumerate(ours) if our is which] for which in (True, False))
    answers: dict[int, models.QueryResponse] = {}
    if others or not requests:
        options = _clients(arguments, collection_name, adapter)
        asked = [requests[row] for row in others]
        theirs = yield from call("query_batch_points", collection_name, asked, **options)
        answers |= zip(others, theirs if adapter is None else map(_cleaned, theirs), strict=True)
    if adapter is not None and rows:
        asked = [requests[row] for row in rows]
        found = yield from steps_of(adapter.query_batch_points)(asked, **arguments)
        answers |= zip(rows, found, strict=True)
    return [answers[row] for row in range(len(requests))]


def _query_points_groups(behind: Behind, collection_name: str, *args: Any, **kwargs: Any) -> Steps[Any]:
    arguments = behind.bound("query_points_groups", collection_name, args, kwargs)
    adapter = yield from _adapter(behind, collection_name, arguments)
    if adapter is None or not _concerns(adapter, arguments):
        options = _clients(arguments, collection_name, adapter)
        found = yield from call("query_points_groups", collection_name, **options)
        if adapter is None:
            return found
        groups = [group.model_copy(update={"hits": _without_ours(group.hits)}) for group in found.groups]
        return found.model_copy(update={"groups": groups})
    return (yield from steps_of(adapter.query_points_groups)(**arguments))


def _scroll(behind: Behind, collection_name: str, *args: Any, **kwargs: Any) -> Steps[Any]:
    adapter, (records, offset) = yield from _read("scroll", behind, collection_name, args, kwargs)
    return (records if adapter is None else _without_ours(records)), offset


def _retrieve(behind: Behind, collection_name: str, *args: Any, **kwargs: Any) -> Steps[Any]:
    adapter, records = yield from _read("retrieve", behind, collection_name, args, kwargs)
    return records if adapter is None else _without_ours(records)


def _read(
    name: str, behind: Behind, collection: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Steps[tuple[QdrantAdapter | None, Any]]:
    """The adapter of a collection that has statistics, and what the client's call returns."""
    arguments = behind.bound(name, collection, args, kwargs)
    adapter = yield from _adapter(behind, collection, arguments)
    return adapter, (yield from call(name, collection, **_in_time(arguments)))


def _upsert(behind: Behind, collection_name: str, *args: Any, **kwargs: Any) -> Steps[Any]:
    adapter = yield from behind.adapter(collection_name)
    if adapter is None:
        return (yield from call("upsert", collection_name, *args, **kwargs))
    arguments = behind.bound("upsert", collection_name, args, kwargs)
    return (yield from behind.written("upsert", adapter, arguments))


_REPLACEMENTS: dict[str, Replacement] = {
    "query_points": _query_points,
    "query_batch_points": _query_batch_points,
    "query_points_groups": _query_points_groups,
    "scroll": _scroll,
    "retrieve": _retrieve,
    "upsert": _upsert,
}

_RENAMING = ("delete_collection", "recreate_collection", "update_collection_aliases", "recover_snapshot", "migrate")
"""The last of these copies what is stored, and so must see all of it."""


def _cleaned(response: models.QueryResponse) -> models.QueryResponse:
    """A response of the client's own without our key."""
    return response.model_copy(update={"points": _without_ours(response.points)})


def _without_ours(points: Sequence[Any]) -> list[Any]:
    return [point.model_copy(update={"payload": without_our_key(point.payload, True)}) for point in points]


def _concerns(adapter: QdrantAdapter, request: Mapping[str, Any]) -> bool:
    """Whether a query, or some leg of it, searches the vector that is normalised."""
    return concerns(request.get("query"), request.get("using"), request.get("prefetch"), adapter.vector_name)


def _in_time(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a call, with what is left of its time."""
    timeout = arguments.get("timeout")
    left = {"timeout": timeout.client_timeout(whole_seconds=True)} if isinstance(timeout, Deadline) else {}
    return {**arguments, **left}


def _clients(arguments: Mapping[str, Any], collection: str, adapter: QdrantAdapter | None) -> dict[str, Any]:
    """The arguments of a search that the client is to answer itself.

    Raises:
        NotFittedError: they ask for a method that needs statistics, and there are none.
        UnsupportedQueryError: or there are some, but of a vector that is not searched.
    """
    arguments = _in_time(arguments)
    if adapter is None:
        return without_options(arguments, collection)
    if arguments.get("method") not in (None, "raw"):
        raise UnsupportedQueryError(
            f"method={arguments['method']!r}: this query does not search vector {adapter.vector_name!r}, which is what"
            " is normalised; leave the method out"
        )
    return without_options({**arguments, "method": None}, collection)
