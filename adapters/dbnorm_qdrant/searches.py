"""The searches of `QdrantAdapter`: the client's own calls, normalised."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

import numpy as np
from qdrant_client import QdrantClient, grpc, models

from dbnorm_qdrant.formula import formula_query, runs_on_server
from dbnorm_qdrant.payload import item_statistics, rest_selector, with_our_key, without_our_key
from dbnorm_qdrant.queries import dense_query, engine_score
from dbnorm_vdb.collection import NormalizedCollection
from dbnorm_vdb.errors import StatisticsMismatchError, UnsupportedQueryError
from dbnorm_vdb.methods import Method
from dbnorm_vdb.searching import (
    Candidates,
    Explained,
    Explanation,
    Outcome,
    SearchPlan,
    explanation_of,
    raw_explanation,
    result_of,
)
from dbnorm_vdb.statistics import CollectionStatistics, ItemStatistics, Metric
from dbnorm_vdb.steps import Each, Steps, call, done

_DEFAULT_LIMIT = 10
_BY_ID = (int, str, UUID, grpc.PointId)
_INFERRED = (models.Document, models.Image, models.InferenceObject)


class QdrantSearches(NormalizedCollection):
    """What `QdrantAdapter` offers in place of the client's searches, but for groups.

    Attributes:
        client: the user's own.
    """

    client: QdrantClient
    _execution: str

    def query_points(
        self,
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
    ) -> models.QueryResponse:
        """`QdrantClient.query_points` of this collection, with the same arguments and result, normalised.

        `offset`, `limit` and `score_threshold` act on the normalised result; scores are on the engine's scale (for
        Euclid, a distance; below zero where an item ranks better than an identical average one would). Points
        without statistics count as average points.

        Args:
            query: a vector, a point id or a `NearestQuery`; other kinds have no normalised form.
            candidates: how many points to fetch and re-rank; by default what `fit` found to suffice, or else
                `max(10 * (offset + limit), 100)`.
            method: instead of the fitted default: `raw`, `is`, `dis`, `dual_is`, `dual_dis`, `nnn`, `sinkhorn`, as far
                as fitted.
            exact: widen the window until the result is certified to be that of the whole collection, or as far as
                `max_candidates`; a warning is logged where that does not suffice.
            max_candidates: how far `exact` may go; default 10 000.
            execution: instead of the adapter's: "client", "server" or "auto".
            **kwargs: what else the client takes (`consistency`, `timeout`, ...), handed on.

        Raises:
            InvalidParameterError, NonFiniteVectorError, ZeroVectorError: bad `limit`, `candidates` or query vector.
            UnsupportedQueryError: prefetch, fusion, recommendation, ...: use the client, or `method="raw"`.
            NotFittedError, UnsupportedMethodError: `method` asks for what the statistics cannot serve, or
                `execution="server"` for what the server cannot compute.
        """
        steps = self.query_points_steps(
            False,
            query,
            using,
            prefetch,
            query_filter,
            search_params,
            limit,
            offset,
            with_payload,
            with_vectors,
            score_threshold,
            candidates=candidates,
            method=method,
            exact=exact,
            max_candidates=max_candidates,
            execution=execution,
            **kwargs,
        )
        return self._run(result_of(steps))

    def query_points_explained(self, *args: Any, **kwargs: Any) -> Explained[models.QueryResponse]:
        """`query_points`, and how its result came about: scores and ranks before and after, and the certificate."""
        return self._run(self.query_points_steps(True, *args, **kwargs))

    def query_points_steps(
        self,
        explained: bool,
        query: Any = None,
        using: str | None = None,
        prefetch: Any = None,
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
        """The steps of `query_points` and `query_points_explained`."""
        plan = yield from self._plan(
            limit=limit,
            offset=offset or 0,
            candidates=candidates,
            method=method,
            exact=exact,
            max_candidates=max_candidates,
            explained=explained,
        )
        on_server = runs_on_server(self._execution if execution is None else execution, plan)
        selector = rest_selector(with_payload)
        arguments: dict[str, Any] = {
            "query": query,
            "using": self._using(using, prefetch),
            "query_filter": query_filter,
            "search_params": search_params,
            "with_vectors": with_vectors,
            **kwargs,
        }
        if plan.statistics is None:
            response = yield from call(
                "query_points",
                self.collection_name,
                prefetch=prefetch,
                limit=limit,
                offset=offset,
                with_payload=with_payload,
                score_threshold=score_threshold,
                **arguments,
            )
            return _raw_answer(response, selector, offset, plan)
        self._check_query(query, using, prefetch, plan)
        metric = self._store.describe().metric
        if on_server:
            of_the_result = {"with_payload": with_our_key(selector), "limit": limit, "offset": offset}
            ranked = yield from self._query_on_server(plan, {**arguments, **of_the_result})
            if ranked is None:
                return (
                    yield from self.query_points_steps(
                        explained,
                        query,
                        using,
                        prefetch,
                        query_filter,
                        search_params,
                        limit,
                        offset,
                        with_payload,
                        with_vectors,
                        score_threshold,
                        candidates=candidates,
                        method=method,
                        execution=execution,
                        **kwargs,
                    )
                )
            points = [clean(point, selector, engine_score(point.score, metric)) for point in ranked.points]
            return _explained(ranked, [points[row] for row in self._passing(points, score_threshold)])
        responses: list[models.QueryResponse] = []

        def fetch(rows: Sequence[int], window: int) -> Steps[list[Candidates]]:
            wide = {"limit": window, "with_payload": with_our_key(selector)}
            responses[:] = [(yield from call("query_points", self.collection_name, **wide, **arguments))]
            return [self._candidates(responses[0].points)]

        (outcome,) = yield from self._search(plan, 1, fetch, lookup)
        return self._answer(responses[0], outcome, selector, offset, score_threshold, plan)

    def query_batch_points(
        self,
        requests: Sequence[models.QueryRequest],
        *,
        candidates: int | None = None,
        method: str | Method | None = None,
        exact: bool = False,
        max_candidates: int | None = None,
        **kwargs: Any,
    ) -> list[models.QueryResponse]:
        """`QdrantClient.query_batch_points` of this collection, each request as by `query_points`, in one round trip.

        With `exact`, only the requests that are not certified yet go on; requests with different limits or offsets go
        in a round trip for each. They are re-ranked here, whatever the adapter's `execution`.

        Args:
            requests: each as `query_points` would take it.
            candidates, method, exact, max_candidates: of all requests, as in `query_points`.
            **kwargs: what else the client takes (`consistency`, `timeout`), handed on.
        """
        steps = self.query_batch_points_steps(
            False,
            requests,
            candidates=candidates,
            method=method,
            exact=exact,
            max_candidates=max_candidates,
            **kwargs,
        )
        return self._run(result_of(steps))

    def query_batch_points_explained(
        self,
        requests: Sequence[models.QueryRequest],
        *,
        candidates: int | None = None,
        method: str | Method | None = None,
        exact: bool = False,
        max_candidates: int | None = None,
        **kwargs: Any,
    ) -> Explained[list[models.QueryResponse]]:
        """`query_batch_points`, and how its results came about, request by request."""
        return self._run(
            self.query_batch_points_steps(
                True,
                requests,
                candidates=candidates,
                method=method,
                exact=exact,
                max_candidates=max_candidates,
                **kwargs,
            )
        )

    def query_batch_points_steps(
        self,
        explained: bool,
        requests: Sequence[models.QueryRequest],
        *,
        candidates: int | None = None,
        method: str | Method | None = None,
        exact: bool = False,
        max_candidates: int | None = None,
        **kwargs: Any,
    ) -> Steps[Explained[list[models.QueryResponse]]]:
        """The steps of `query_batch_points` and `query_batch_points_explained`."""
        alike: dict[tuple[Any, Any], list[int]] = {}
        for row, request in enumerate(requests):
            alike.setdefault((request.limit, request.offset), []).append(row)
        plans = []
        for limit, offset in alike:
            plan = yield from self._plan(
                limit=_DEFAULT_LIMIT if limit is None else limit,
                offset=offset or 0,
                candidates=candidates,
                method=method,
                exact=exact,
                max_candidates=max_candidates,
                explained=explained,
            )
            plans.append(plan)
        groups = list(alike.values())
        answered = yield Each(
            [
                self._answers([requests[row] for row in rows], plan, kwargs)
                for rows, plan in zip(groups, plans, strict=True)
            ]
        )
        answers: dict[int, Explained[models.QueryResponse]] = {}
        for rows, found in zip(groups, answered, strict=True):
            answers |= zip(rows, found, strict=True)
        results = [answers[row].result for row in range(len(requests))]
        return Explained(results, tuple(told for row in range(len(requests)) for told in answers[row].queries))

    def _answers(
        self, requests: Sequence[models.QueryRequest], plan: SearchPlan, kwargs: Mapping[str, Any]
    ) -> Steps[list[Explained[models.QueryResponse]]]:
        """The answers to requests of the same limit and offset."""
        named = [r.model_copy(update={"using": self._using(r.using, r.prefetch)}) for r in requests]
        if plan.statistics is None:
            responses = yield from call("query_batch_points", self.collection_name, named, **kwargs)
            return [
                _raw_answer(response, request.with_payload, request.offset, plan)
                for response, request in zip(responses, requests, strict=True)
            ]
        for request in requests:
            self._check_query(request.query, request.using, request.prefetch, plan)
        latest: dict[int, models.QueryResponse] = {}

        def fetch(rows: Sequence[int], window: int) -> Steps[list[Candidates]]:
            wide = {"limit": window, "offset": None, "score_threshold": None}
            asked = [
                named[row].model_copy(update={**wide, "with_payload": with_our_key(requests[row].with_payload)})
                for row in rows
            ]
            found = yield from call("query_batch_points", self.collection_name, asked, **kwargs)
            latest.update(zip(rows, found, strict=True))
            return [self._candidates(response.points) for response in found]

        outcomes = yield from self._search(plan, len(requests), fetch, lookup)
        return [
            self._answer(latest[row], outcome, request.with_payload, request.offset, request.score_threshold, plan)
            for row, (outcome, request) in enumerate(zip(outcomes, requests, strict=True))
        ]

    def _answer(
        self,
        response: models.QueryResponse,
        outcome: Outcome,
        selector: Any,
        offset: int | None,
        threshold: float | None,
        plan: SearchPlan,
    ) -> Explained[models.QueryResponse]:
        """The client's response with what is kept of the re-ranked candidates."""
        metric = self._store.describe().metric
        points = self._points(outcome, selector)
        kept = [rank for rank in self._passing(points, threshold) if rank >= (offset or 0)]
        told = [explanation_of(outcome, kept, lambda score: engine_score(score, metric))] if plan.explained else []
        return _explained(response, [points[rank] for rank in kept], *told)

    def _query_on_server(self, plan: SearchPlan, arguments: Mapping[str, Any]) -> Steps[models.QueryResponse | None]:
        """Let the server re-rank; None if a fit has replaced the statistics meanwhile: then plan again."""
        assert plan.statistics is not None
        metric = self._store.describe().metric
        asked = formula_query(plan.statistics, plan.method, metric, plan.window, arguments)
        response: models.QueryResponse = yield from call("query_points", self.collection_name, **asked)
        outdated = item_statistics([point.payload for point in response.points], plan.statistics.generation)[1]
        newer = (yield from self._newer_statistics(plan.statistics)) if outdated else None
        return response if newer is None else None

    def _candidates(self, points: Sequence[models.ScoredPoint]) -> Candidates:
        scores = np.array([point.score for point in points], dtype=np.float64)
        return Candidates(points, [point.id for point in points], self._store.similarities(scores))

    def _raw_rank(self, point: models.ScoredPoint) -> float:
        """Ascending where points are in the engine's order."""
        return point.score if self._store.describe().metric is Metric.EUCLIDEAN else -point.score

    def _points(self, outcome: Outcome, selector: Any) -> list[models.ScoredPoint]:
        """The best points with their normalised scores, best first."""
        metric = self._store.describe().metric
        return [
            clean(outcome.candidates.hits[row], selector, engine_score(score, metric))
            for row, score in zip(outcome.best.order.tolist(), outcome.best.scores.tolist(), strict=True)
        ]

    def _passing(self, points: Sequence[models.ScoredPoint], threshold: float | None) -> list[int]:
        """Positions of the points that pass the score threshold."""
        if threshold is None:
            return list(range(len(points)))
        sign = -1.0 if self._store.describe().metric is Metric.EUCLIDEAN else 1.0
        return [row for row, point in enumerate(points) if sign * point.score >= sign * threshold]

    def _using(self, using: str | None, prefetch: Any) -> str | None:
        """The vector that a query names, or else ours; one of the results of others has none."""
        return self.vector_name or None if using is None and not prefetch else using

    def _check_query(self, query: Any, using: str | None, prefetch: Any, plan: SearchPlan) -> None:
        """Refuse what normalisation has no meaning for; the rest of the checking is the client's."""
        if using is not None and using != self.vector_name:
            raise StatisticsMismatchError(
                f"this adapter normalises vector {self.vector_name!r}, the query uses {using!r};"
                f" make an adapter with vector_name={using!r}, or search with method='raw'"
            )
        if prefetch:
            raise UnsupportedQueryError("a query with prefetch is not normalised; use the client, or method='raw'")
        if isinstance(query, models.NearestQuery) and query.mmr is None:
            query = query.nearest
        if isinstance(query, (*_BY_ID, *_INFERRED)):
            return
        dense_query(
            query,
            self._store.describe().metric,
            kinds="one dense vector, a point id or a NearestQuery of these is",
            instead=", or method='raw'",
        )


def _explained(
    response: models.QueryResponse, points: list[models.ScoredPoint], *queries: Explanation
) -> Explained[models.QueryResponse]:
    return Explained(response.model_copy(update={"points": points}), queries)


def _raw_answer(
    response: models.QueryResponse, selector: Any, offset: int | None, plan: SearchPlan
) -> Explained[models.QueryResponse]:
    """The client's response without our key."""
    points = [clean(point, selector) for point in response.points]
    hits = [(point.id, point.score) for point in points]
    return _explained(response, points, *([raw_explanation(hits, offset or 0)] if plan.explained else []))


def lookup(found: Sequence[Candidates], statistics: CollectionStatistics) -> Steps[tuple[ItemStatistics, bool]]:
    """The statistics that points bring along, and whether they look like those of another generation."""
    payloads = [point.payload for candidates in found for point in candidates.hits]
    return done(item_statistics(payloads, statistics.generation))


def clean(point: models.ScoredPoint, selector: Any, score: float | None = None) -> models.ScoredPoint:
    """A copy with the payload that the caller asked for, and perhaps another score."""
    update: dict[str, Any] = {"payload": without_our_key(point.payload, selector)}
    if score is not None:
        update["score"] = score
    return point.model_copy(update=update)
