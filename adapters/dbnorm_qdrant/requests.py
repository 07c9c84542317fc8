"""One search as the caller asks for it, alone or in a batch, and the forms in which it is sent on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple
from uuid import UUID

import numpy as np
from qdrant_client import grpc, models
from qdrant_client.conversions.conversion import GrpcToRest

from dbnorm_qdrant.payload import rest_selector
from dbnorm_qdrant.queries import mmr_of
from dbnorm_vdb.deadline import Deadline

DEFAULT_LIMIT = 10
"""The engine's, where a request or a prefetch has none."""

_FROM_GRPC: dict[type, Any] = {
    grpc.Filter: GrpcToRest.convert_filter,
    grpc.SearchParams: GrpcToRest.convert_search_params,
    grpc.PointId: GrpcToRest.convert_point_id,
    grpc.LookupLocation: GrpcToRest.convert_lookup_location,
}
_OF_WHERE = ("consistency", "shard_key_selector", "timeout")


class Search(NamedTuple):
    """The arguments of `query_points`.

    Attributes:
        query, using, prefetch, query_filter, search_params: what is searched for.
        limit, offset, with_payload, with_vectors, score_threshold: what is wanted of the result.
        others: `lookup_from`, `consistency`, `timeout` and `shard_key_selector`, as far as given.
    """

    query: Any
    using: str | None
    prefetch: Any
    query_filter: Any
    search_params: Any
    limit: int
    offset: int | None
    with_payload: Any
    with_vectors: Any
    score_threshold: float | None
    others: Mapping[str, Any]

    @classmethod
    def of_request(cls, request: models.QueryRequest, others: Mapping[str, Any]) -> Search:
        """One request of a batch; `others` are the arguments of the batch."""
        request = rest_request(request)
        return cls(
            query=request.query,
            using=request.using,
            prefetch=request.prefetch,
            query_filter=request.filter,
            search_params=request.params,
            limit=DEFAULT_LIMIT if request.limit is None else request.limit,
            offset=request.offset,
            with_payload=request.with_payload,
            with_vectors=request.with_vector,
            score_threshold=request.score_threshold,
            others={**others, "lookup_from": request.lookup_from, "shard_key_selector": request.shard_key},
        )

    @property
    def mmr(self) -> models.Mmr | None:
        """How it is to be diversified, if it is."""
        return mmr_of(self.query)

    @property
    def wanted(self) -> int:
        """How many of the best count: those up to the last of the page, or those that MMR chooses from."""
        if self.mmr is not None:
            return self.limit if self.mmr.candidates_limit is None else self.mmr.candidates_limit
        return (self.offset or 0) + self.limit

    @property
    def selector(self) -> Any:
        """`with_payload` in its REST form."""
        return rest_selector(self.with_payload)

    @property
    def where(self) -> dict[str, Any]:
        """The arguments that say which replicas and shards to ask, and for how long."""
        return {name: self.others[name] for name in _OF_WHERE if name in self.others}

    @staticmethod
    def deadline_of(options: dict[str, Any]) -> Deadline:
        """When a search with these options is to be answered; their `timeout` is then as the client takes it."""
        deadline = Deadline.after(options.get("timeout"))
        if deadline.is_set:
            options["timeout"] = deadline.timeout
        return deadline

    def until(self, deadline: Deadline) -> Search:
        """The same in what is left of its time."""
        if not deadline.is_set:
            return self
        return self._replace(others={**self.others, "timeout": deadline.client_timeout(whole_seconds=True)})

    def arguments(self) -> dict[str, Any]:
        """The arguments of `query_points`."""
        arguments = self._asdict()
        del arguments["others"]
        return {**arguments, **self.others}

    def request(self) -> models.QueryRequest:
        """The same as a request of a batch."""
        return models.QueryRequest.model_construct(
            query=self.query,
            using=self.using,
            prefetch=self.prefetch,
            filter=self.query_filter,
            params=self.search_params,
            limit=self.limit,
            offset=self.offset,
            with_payload=self.with_payload,
            with_vector=self.with_vectors,
            score_threshold=self.score_threshold,
            lookup_from=self.others.get("lookup_from"),
            shard_key=self.others.get("shard_key_selector"),
        )

    def stage(self) -> models.Prefetch:
        """The search as a prefetch, which has neither payload nor offset."""
        return models.Prefetch(
            query=_in_rest_form(self.query),
            using=self.using,
            prefetch=self.prefetch,
            filter=_in_rest_form(self.query_filter),
            params=_in_rest_form(self.search_params),
            limit=self.wanted,
            score_threshold=self.score_threshold,
            lookup_from=_in_rest_form(self.others.get("lookup_from")),
        )


def rest_request(request: Any) -> models.QueryRequest:
    """A request of a batch in its REST form; a client of gRPC takes both."""
    if isinstance(request, grpc.QueryPoints):
        request = GrpcToRest.convert_query_points(request)
    rest: models.QueryRequest = request
    return rest


def _in_rest_form(value: Any) -> Any:
    """What `query_points` takes, as a prefetch takes it."""
    if isinstance(value, np.ndarray):
        return value.astype(np.float64).tolist()
    if isinstance(value, UUID):
        return str(value)
    convert = _FROM_GRPC.get(type(value))
    return value if convert is None else convert(value)
