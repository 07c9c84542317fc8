"""`query_points_groups`, normalised: more and larger groups are asked for than wanted, and the best of them kept."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from typing import Any

from qdrant_client import models

from dbnorm_qdrant.payload import rest_selector, with_our_key
from dbnorm_qdrant.searches import QdrantSearches, clean, lookup
from dbnorm_vdb.methods import Method
from dbnorm_vdb.parameters import check_count
from dbnorm_vdb.searching import Candidates
from dbnorm_vdb.steps import Steps, call


class QdrantGroups(QdrantSearches):
    """What `QdrantAdapter` offers in place of the client's search for groups."""

    def query_points_groups(
        self,
        group_by: str,
        query: Any = None,
        using: str | None = None,
        prefetch: Any = None,
        query_filter: Any = None,
        search_params: Any = None,
        limit: int = 10,
        group_size: int = 3,
        with_payload: Any = True,
        with_vectors: bool | list[str] = False,
        score_threshold: float | None = None,
        *,
        candidates: int | None = None,
        method: str | Method | None = None,
        **kwargs: Any,
    ) -> models.GroupsResult:
        """`QdrantClient.query_points_groups` of this collection, with the same arguments and result, normalised.

        `limit`, `group_size` and `score_threshold` act on the normalised result: groups are in the order of their best
        points. The query's raw first point, which decides the gates of `dis` and `dual_dis`, is that of all groups.

        Args:
            group_by: the payload key to group by.
            query: a vector, a point id or a `NearestQuery`.
            candidates: about how many points to fetch; `candidates / (limit * group_size)` times as many groups, each
                of as many times the size. By default as in `query_points`.
            method: instead of the fitted default.
            **kwargs: what else the client takes (`with_lookup`, `consistency`, ...), handed on.

        Raises:
            InvalidParameterError, NonFiniteVectorError, ZeroVectorError: bad numbers or query vector.
            UnsupportedQueryError: prefetch, fusion, recommendation, ...: use the client, or `method="raw"`.
            NotFittedError, UnsupportedMethodError: `method` asks for what the statistics cannot serve.
        """
        steps = self.query_points_groups_steps(
            group_by,
            query,
            using,
            prefetch,
            query_filter,
            search_params,
            limit,
            group_size,
            with_payload,
            with_vectors,
            score_threshold,
            candidates=candidates,
            method=method,
            **kwargs,
        )
        return self._run(steps)

    def query_points_groups_steps(
        self,
        group_by: str,
        query: Any = None,
        using: str | None = None,
        prefetch: Any = None,
        query_filter: Any = None,
        search_params: Any = None,
        limit: int = 10,
        group_size: int = 3,
        with_payload: Any = True,
        with_vectors: bool | list[str] = False,
        score_threshold: float | None = None,
        *,
        candidates: int | None = None,
        method: str | Method | None = None,
        **kwargs: Any,
    ) -> Steps[models.GroupsResult]:
        """The steps of `query_points_groups`."""
        wanted = check_count(limit, what="limit") * check_count(group_size, what="group_size")
        plan = yield from self._plan(limit=wanted, candidates=candidates, method=method)
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
            own = yield from call(
                "query_points_groups",
                self.collection_name,
                group_by,
                prefetch=prefetch,
                limit=limit,
                group_size=group_size,
                with_payload=with_payload,
                score_threshold=score_threshold,
                **arguments,
            )
            return models.GroupsResult(
                groups=[g.model_copy(update={"hits": [clean(hit, selector) for hit in g.hits]}) for g in own.groups]
            )
        self._check_query(query, using, prefetch, plan)
        times = math.ceil(plan.window / wanted)
        fetched: list[models.PointGroup] = []

        def fetch(rows: Sequence[int], window: int) -> Steps[list[Candidates]]:
            found = yield from call(
                "query_points_groups",
                self.collection_name,
                group_by,
                limit=limit * times,
                group_size=group_size * times,
                with_payload=with_our_key(selector),
                **arguments,
            )
            fetched[:] = found.groups
            points = {hit.id: hit for group in fetched for hit in group.hits}  # one may be in several groups
            return [self._candidates(sorted(points.values(), key=self._raw_rank))]

        (outcome,) = yield from self._search(plan._replace(wanted=sys.maxsize), 1, fetch, lookup)
        points = self._points(outcome, selector)
        place = {points[rank].id: rank for rank in self._passing(points, score_threshold)}
        groups: list[tuple[int, models.PointGroup]] = []
        for group in fetched:
            ranks = sorted(place[hit.id] for hit in group.hits if hit.id in place)[:group_size]
            if ranks:
                groups.append((ranks[0], group.model_copy(update={"hits": [points[rank] for rank in ranks]})))
        groups.sort(key=lambda pair: pair[0])
        return models.GroupsResult(groups=[group for _, group in groups[:limit]])
