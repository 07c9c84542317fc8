"""The searches of `QdrantAdapter` for points: the client's own calls, normalised."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qdrant_client import QdrantClient, models

from dbnorm_qdrant.answers import QdrantAnswers, Wishes
from dbnorm_qdrant.prefetches import Windows
from dbnorm_qdrant.requests import Search
from dbnorm_vdb.deadline import Deadline
from dbnorm_vdb.methods import Method
from dbnorm_vdb.observing import observed
from dbnorm_vdb.searching import Explained
from dbnorm_vdb.stepped import explainable, explained
from dbnorm_vdb.steps import Steps, call


class QdrantSearches(QdrantAnswers):
    """What `QdrantAdapter` offers in place of the client's searches, but for groups.

    Attributes:
        client: the user's own.
    """

    client: QdrantClient
    _execution: str

    @explainable
    @observed("query_points")
    def query_points(
        self,
        explained: bool,
        /,
        query: Any = None,
        using: str | None = None,
        prefetch: models.Prefetch | list[models.Prefetch] | None = None,
        query_filter: Any = None,
        search_params: Any = None,
        limit: int = 10,
        offset: int | None = None,
        with_payload: Any = True,
        with_vectors: bool | list[str] = False,
        score_threshold: float | None = None,
        *,
        candidates: int | None = None,
        method: str | Method | None = None,
        exact: bool = False,
        max_candidates: int | None = None,
        execution: str | None = None,
        **kwargs: Any,
    ) -> Steps[Explained[models.QueryResponse]]:
        """`QdrantClient.query_points` of this collection, with the same arguments and result, normalised.

        `offset`, `limit` and `score_threshold` act on the normalised result; scores are on the engine's scale (for
        Euclid, a distance; below zero where an item ranks better than an identical average one would). Points
        without statistics count as average points.

        Args:
            query: what searches the vector by similarity: a vector, a point id, a `NearestQuery` (with `mmr` too), or a
                `RecommendQuery` by average vector; over `prefetch`, also what fuses or re-scores its legs.
            prefetch: each leg that searches the vector by similarity is normalised, at any depth, by the server
                whatever `execution`; the others stay as they are.
            candidates: how many points to fetch and re-rank, and of each such leg; by default what `fit` found to
                suffice, or else `max(10 * (offset + limit), 100)`, for a leg ten times its own limit.
            method: instead of the fitted default: `raw`, `is`, `dis`, `dual_is`, `dual_dis`, `nnn`, `sinkhorn`, as far
                as fitted.
            exact: widen the window until the result is certified to be that of the whole collection, or as far as
                `max_candidates`; a warning is logged where that does not suffice.
            max_candidates: how far `exact` may go; default 10 000.
            execution: instead of the adapter's: "client", "server" or "auto".
            **kwargs: what else the client takes (`consistency`, `timeout`, ...), handed on.

        Raises:
            InvalidParameterError, NonFiniteVectorError, ZeroVectorError: bad `limit`, `candidates` or query vector.
            UnsupportedQueryError: nothing in the query searches the vector, or something does so by other scores than
                similarities (discovery, context, ...): use the client, or `method="raw"`.
            StatisticsMismatchError: the query searches another vector.
            NotFittedError, UnsupportedMethodError: `method` asks for what the statistics cannot serve, or
                `execution="server"` for what the server cannot compute.
        """
        search = Search(
            query=list(query) if isinstance(query, tuple) else query,
            using=using,
            prefetch=prefetch,
            query_filter=query_filter,
            search_params=search_params,
            limit=limit,
            offset=offset,
            with_payload=with_payload,
            with_vectors=with_vectors,
            score_threshold=score_threshold,
            others=kwargs,
        )
        deadline = Search.deadline_of(kwargs)
        wishes = self._wishes(candidates, method, exact, max_candidates, execution, explained, deadline)

        def send(searches: Sequence[Search]) -> Steps[list[models.QueryResponse]]:
            (one,) = searches
            return [(yield from call("query_points", self.collection_name, **one.until(deadline).arguments()))]

        (answer,) = yield from self._answered([search], wishes, send)
        return answer

    query_points_explained = explained(query_points)

    def _wishes(
        self,
        candidates: int | None,
        method: str | Method | None,
        exact: bool,
        max_candidates: int | None,
        execution: str | None,
        explained: bool,
        deadline: Deadline,
    ) -> Wishes:
        windows = Windows(candidates, exact, max_candidates)
        return Wishes(windows, method, self._execution if execution is None else execution, explained, deadline)

    @explainable
    @observed("query_batch_points")
    def query_batch_points(
        self,
        explained: bool,
        /,
        requests: Sequence[models.QueryRequest],
        *,
        candidates: int | None = None,
        method: str | Method | None = None,
        exact: bool = False,
        max_candidates: int | None = None,
        execution: str | None = None,
        **kwargs: Any,
    ) -> Steps[Explained[list[models.QueryResponse]]]:
        """`QdrantClient.query_batch_points` of this collection, each request as by `query_points`, in one round trip.

        Requests that want different numbers of points (offset + limit) go in a round trip for each number; with
        `exact`, only those that are not certified yet go on.

        Args:
            requests: each as `query_points` would take it.
            candidates, method, exact, max_candidates, execution: of all requests, as in `query_points`.
            **kwargs: what else the client takes (`consistency`, `timeout`), handed on.
        """
        deadline = Search.deadline_of(kwargs)
        wishes = self._wishes(candidates, method, exact, max_candidates, execution, explained, deadline)

        def send(searches: Sequence[Search]) -> Steps[list[models.QueryResponse]]:
            sent = [search.request() for search in searches]
            if deadline.is_set:
                kwargs["timeout"] = deadline.client_timeout(whole_seconds=True)
            responses: list[models.QueryResponse]
            responses = yield from call("query_batch_points", self.collection_name, sent, **kwargs)
            return responses

        searches = [Search.of_request(request, kwargs) for request in requests]
        answers = yield from self._answered(searches, wishes, send)
        return Explained([answer.result for answer in answers], tuple(told for a in answers for told in a.queries))

    query_batch_points_explained = explained(query_batch_points)
