"""`wrap`: a `QdrantClient` whose searches are normalised on collections that have statistics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from qdrant_client import QdrantClient, models

from dbnorm_qdrant.adapter import QdrantAdapter
from dbnorm_qdrant.prefetches import concerns
from dbnorm_qdrant.store import QdrantStore
from dbnorm_vdb.errors import InvalidParameterError, UnsupportedQueryError
from dbnorm_vdb.ledger import Ledger
from dbnorm_vdb.serving import DEFAULT_STATISTICS_TTL
from dbnorm_vdb.wrapping import WrappedClient, without_options, wrapped


def wrap(
    client: QdrantClient, *, statistics_ttl: float = DEFAULT_STATISTICS_TTL, execution: str = "client"
) -> QdrantClient:
    """A client that can stand wherever the given one can, and normalises what searches a fitted vector.

    It is an instance of a subclass of the client's class and shares all its state: closing one closes both. On
    collections that an adapter has fitted, `query_points`, `query_batch_points` and `query_points_groups` are those of
    `QdrantAdapter` (with its arguments `candidates`, `method`, `exact`, ... too), and `upsert` gives new points their
    statistics. Everything else passes through: other collections, other vectors, other calls. A search of the fitted
    vector that has no normalised form (discovery, context, ...) is refused; `method="raw"` lets it pass.

    Args:
        client: the user's own.
        statistics_ttl: see `QdrantAdapter`; also after how long a collection is seen to be fitted.
        execution: see `QdrantAdapter`.

    Example:
        >>> client = wrap(QdrantClient("http://localhost:6333"))  # doctest: +SKIP
    """
    if not isinstance(client, QdrantClient):
        raise InvalidParameterError(f"wrap() takes a QdrantClient, got {type(client).__name__}")
    if isinstance(client, _Calls):
        raise InvalidParameterError("this client is wrapped already")

    def make(collection: str) -> QdrantAdapter | None:
        active = Ledger(QdrantStore(client, collection, None)).active()
        if active is None:
            return None
        return QdrantAdapter(client, collection, active.vector, statistics_ttl=statistics_ttl, execution=execution)

    return wrapped(client, _Calls, WrappedClient(client, make, statistics_ttl))


class _Calls:
    """What takes the place of the client's own methods."""

    _dbnorm: WrappedClient[QdrantClient, QdrantAdapter]

    def query_points(self, collection_name: str, *args: Any, **kwargs: Any) -> models.QueryResponse:
        behind = self._dbnorm
        arguments = behind.bound("query_points", collection_name, args, kwargs)
        adapter = behind.adapter(collection_name)
        if adapter is None or not _concerns(adapter, arguments):
            return behind.client.query_points(collection_name, **_clients(arguments, collection_name, adapter))
        return adapter.query_points(**arguments)

    def query_batch_points(
        self, collection_name: str, requests: Sequence[models.QueryRequest], *args: Any, **kwargs: Any
    ) -> list[models.QueryResponse]:
        behind = self._dbnorm
        arguments = behind.bound("query_batch_points", collection_name, (requests, *args), kwargs)
        del arguments["requests"]
        adapter = behind.adapter(collection_name)
        ours = [adapter is not None and _concerns(adapter, vars(request)) for request in requests]
        answers: dict[int, models.QueryResponse] = {}
        rows, others = ([row for row, our in enumerate(ours) if our is which] for which in (True, False))
        if others or not requests:
            options = _clients(arguments, collection_name, adapter)
            theirs = behind.client.query_batch_points(collection_name, [requests[row] for row in others], **options)
            answers |= zip(others, theirs, strict=True)
        if adapter is not None and rows:
            answers |= zip(rows, adapter.query_batch_points([requests[r] for r in rows], **arguments), strict=True)
        return [answers[row] for row in range(len(requests))]

    def query_points_groups(self, collection_name: str, *args: Any, **kwargs: Any) -> models.GroupsResult:
        behind = self._dbnorm
        arguments = behind.bound("query_points_groups", collection_name, args, kwargs)
        adapter = behind.adapter(collection_name)
        if adapter is None or not _concerns(adapter, arguments):
            return behind.client.query_points_groups(collection_name, **_clients(arguments, collection_name, adapter))
        return adapter.query_points_groups(**arguments)

    def upsert(self, collection_name: str, *args: Any, **kwargs: Any) -> models.UpdateResult:
        behind = self._dbnorm
        adapter = behind.adapter(collection_name)
        if adapter is None:
            return behind.client.upsert(collection_name, *args, **kwargs)
        return adapter.upsert(**behind.bound("upsert", collection_name, args, kwargs))

    def __del__(self) -> None:
        """Nothing: the client that was wrapped closes itself."""


def _concerns(adapter: QdrantAdapter, request: Mapping[str, Any]) -> bool:
    """Whether a query, or some leg of it, searches the vector that is normalised."""
    return concerns(request.get("query"), request.get("using"), request.get("prefetch"), adapter.vector_name)


def _clients(arguments: Mapping[str, Any], collection: str, adapter: QdrantAdapter | None) -> dict[str, Any]:
    """The arguments of a search that the client is to answer itself.

    Raises:
        NotFittedError: they ask for a method that needs statistics, and there are none.
        UnsupportedQueryError: or there are some, but of a vector that is not searched.
    """
    if adapter is None:
        return without_options(arguments, collection)
    if arguments.get("method") not in (None, "raw"):
        raise UnsupportedQueryError(
            f"method={arguments['method']!r}: this query does not search vector {adapter.vector_name!r}, which is what"
            " is normalised; leave the method out"
        )
    return without_options({**arguments, "method": None}, collection)
