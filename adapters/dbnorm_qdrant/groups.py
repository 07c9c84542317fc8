"""`query_points_groups`, normalised: more and larger groups are asked for than wanted, and the best of them kept."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from typing import Any

from qdrant_client import models

from dbnorm_qdrant.answers import Wishes, normalised_search
from dbnorm_qdrant.formula import check_execution, runs_on_server
from dbnorm_qdrant.payload import with_our_key
from dbnorm_qdrant.points import clean, lookup
from dbnorm_qdrant.queries import searches_vector
from dbnorm_qdrant.requests import Search
from dbnorm_qdrant.searches import QdrantSearches
from dbnorm_vdb.errors import InvalidParameterError, UnsupportedQueryError
from dbnorm_vdb.methods import Method
from dbnorm_vdb.observing import count_outcomes, count_queries, observed
from dbnorm_vdb.parameters import check_count
from dbnorm_vdb.searching import Candidates, SearchPlan
from dbnorm_vdb.stepped import stepped
from dbnorm_vdb.steps import Steps, call


class QdrantGroups(QdrantSearches):
    """What `QdrantAdapter` offers in place of the client's search for groups."""

    @stepped
    @observed("query_points_groups")
    def query_points_groups(
        self,
        /,
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
        execution: str | None = None,
        **kwargs: Any,
    ) -> Steps[models.GroupsResult]:
        """`QdrantClient.query_points_groups` of this collection, with the same arguments and result, normalised.

        `limit`, `group_size` and `score_threshold` act on the normalised result: groups are in the order of their best
        points. The query's raw first point, which decides the gates of `dis` and `dual_dis`, is that of all groups.

        Args:
            group_by: the payload key to group by.
            query, prefetch: as in `query_points`, but without `mmr`.
            candidates: about how many points to fetch; `candidates / (limit * group_size)` times as many groups, each
                of as many times the size. By default as in `query_points`.
            method: instead of the fitted default.
            execution: "client", "server" or "auto", instead of the adapter's. The server groups the best `candidates`.
            **kwargs: what else the client takes (`with_lookup`, `consistency`, ...), handed on.

        Raises:
            InvalidParameterError, NonFiniteVectorError, ZeroVectorError: bad numbers or query vector.
            UnsupportedQueryError, StatisticsMismatchError: as in `query_points`.
            NotFittedError, UnsupportedMethodError: `method` asks for what the statistics cannot serve.
        """
        search = Search(
            query=list(query) if isinstance(query, tuple) else query,
            using=using,
            prefetch=prefetch,
            query_filter=query_filter,
            search_params=search_params,
            limit=limit,
            offset=None,
            with_payload=with_payload,
            with_vectors=with_vectors,
            score_threshold=score_threshold,
            others=kwargs,
        )
        deadline = Search.deadline_of(kwargs)
        wishes = self._wishes(candidates, method, False, None, execution, False, deadline)
        for name in ("exact", "max_candidates"):
            if kwargs.get(name):
                raise InvalidParameterError(f"{name}={kwargs[name]!r}: groups are not certified; leave it out")
        check_count(group_size, what="group_size")
        check_count(limit, what="limit")
        check_execution(wishes.execution)
        if not (yield from self._described_in_time(method, deadline)):
            named = self._using_if_known(search)
            raw = SearchPlan(Method.RAW, search.limit, search.limit, deadline=deadline, fallback=method is None)
            return models.GroupsResult(groups=(yield from self._raw_groups(group_by, named, group_size, raw)))
        groups: list[models.PointGroup] | None = None
        while groups is None:
            named = search._replace(using=self._using(search.query, search.using))
            groups = yield from self._attempt_groups(group_by, named, group_size, wishes)
        return models.GroupsResult(groups=groups)

    def _attempt_groups(
        self, group_by: str, search: Search, group_size: int, wishes: Wishes
    ) -> Steps[list[models.PointGroup] | None]:
        """The groups under the statistics of now; None if these were replaced meanwhile, or the vector is another."""
        described = self._store.describe()
        ours = searches_vector(search.query, search.using, self.vector_name)
        wanted = search.limit * group_size if ours else 1
        plan = yield from self._plan(
            limit=wanted, method=wishes.method, candidates=wishes.windows.candidates, deadline=wishes.deadline
        )
        selector = search.selector
        if self._store.describe() != described:
            return None
        if plan.statistics is None:
            return (yield from self._raw_groups(group_by, search, group_size, plan))
        if search.mmr is not None:
            raise UnsupportedQueryError(
                "MMR by groups is not normalised, but without groups it is; use the client, or method='raw'"
            )
        (prepared,) = yield from self._prepared([search], plan, wishes)
        if ours and not runs_on_server(wishes.execution, plan):
            return (yield from self._regrouped(group_by, prepared, group_size, plan))
        if ours:
            prepared = normalised_search(prepared, plan)
        found = yield from self._fetch_groups(
            group_by, prepared._replace(with_payload=with_our_key(selector)), group_size, plan
        )
        if (yield from self._replaced([hit for group in found for hit in group.hits], plan)):
            return None
        count_queries(self._store, plan, 1, windows=[plan.window] if ours else [])
        restored = self._of_server if ours else clean
        return [group.model_copy(update={"hits": [restored(hit, selector) for hit in group.hits]}) for group in found]

    def _regrouped(
        self, group_by: str, search: Search, group_size: int, plan: SearchPlan
    ) -> Steps[list[models.PointGroup]]:
        """The best of more and larger groups than wanted."""
        times = math.ceil(plan.window / (search.limit * group_size))
        fetched: list[models.PointGroup] = []

        def fetch(rows: Sequence[int], window: int) -> Steps[list[Candidates]]:
            wide = search._replace(
                limit=search.limit * times, with_payload=with_our_key(search.selector), score_threshold=None
            )
            fetched[:] = yield from self._fetch_groups(group_by, wide, group_size * times, plan)
            points = {hit.id: hit for group in fetched for hit in group.hits}  # one may be in several groups
            return [self._candidates(sorted(points.values(), key=self._raw_rank))]

        (outcome,) = yield from self._search(plan._replace(wanted=sys.maxsize), 1, fetch, lookup)
        count_outcomes(self._store, plan, [outcome], certifiable=False)
        points = self._points(outcome, search.selector)
        place = {points[rank].id: rank for rank in self._passing(points, search.score_threshold)}
        groups: list[tuple[int, models.PointGroup]] = []
        for group in fetched:
            ranks = sorted(place[hit.id] for hit in group.hits if hit.id in place)[:group_size]
            if ranks:
                groups.append((ranks[0], group.model_copy(update={"hits": [points[rank] for rank in ranks]})))
        groups.sort(key=lambda pair: pair[0])
        return [group for _, group in groups[: search.limit]]

    def _raw_groups(
        self, group_by: str, search: Search, group_size: int, plan: SearchPlan
    ) -> Steps[list[models.PointGroup]]:
        """The client's groups without our key."""
        found = yield from self._fetch_groups(group_by, search, group_size, plan)
        count_queries(self._store, plan, 1)
        selector = search.selector
        return [group.model_copy(update={"hits": [clean(hit, selector) for hit in group.hits]}) for group in found]

    def _fetch_groups(
        self, group_by: str, search: Search, group_size: int, plan: SearchPlan
    ) -> Steps[list[models.PointGroup]]:
        arguments = search.until(plan.deadline).arguments()
        del arguments["offset"]  # groups have none
        found: models.GroupsResult = yield from call(
            "query_points_groups", self.collection_name, group_by, group_size=group_size, **arguments
        )
        return found.groups
