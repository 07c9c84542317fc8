"""The searches of `MilvusAdapter`: `MilvusClient.search`, normalised, and hits that the user has fetched."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from pymilvus import MilvusClient

from dbnorm_milvus.groups import HitGroups, hit_groups
from dbnorm_milvus.parameters import Taken, has_bounds, rounded, take, with_bounds
from dbnorm_milvus.queries import check_lists
from dbnorm_milvus.requests import Requests
from dbnorm_milvus.results import keep_hits
from dbnorm_milvus.store import SAME_SCALE, MilvusStore
from dbnorm_vdb.collection import NormalizedCollection
from dbnorm_vdb.deadline import Deadline
from dbnorm_vdb.errors import StatisticsMismatchError
from dbnorm_vdb.methods import Method
from dbnorm_vdb.observing import count_outcomes, count_queries, observed
from dbnorm_vdb.parameters import check_count
from dbnorm_vdb.searching import (
    DEFAULT_MAX_CANDIDATES,
    Candidates,
    Explained,
    Outcome,
    SearchPlan,
    explanation_of,
    raw_explanation,
)
from dbnorm_vdb.stepped import explainable, explained, stepped
from dbnorm_vdb.steps import Steps, call, done


class MilvusSearches(NormalizedCollection):
    """What `MilvusAdapter` offers in place of the client's search.

    Attributes:
        client: the user's own.
    """

    client: MilvusClient
    _store: MilvusStore

    def normalizes(self, anns_field: str | None) -> bool:
        """Whether a search of the client on that field, or on the one it takes where none is named, is normalised."""
        return (anns_field or self._store.default_field) == self.vector_name

    @explainable
    @observed("search")
    def search(
        self,
        explained: bool,
        /,
        data: Any = None,
        filter: str = "",
        limit: int = 10,
        output_fields: list[str] | None = None,
        search_params: dict[str, Any] | None = None,
        timeout: float | None = None,
        partition_names: list[str] | None = None,
        anns_field: str | None = None,
        *,
        candidates: int | None = None,
        method: str | Method | None = None,
        exact: bool = False,
        max_candidates: int | None = None,
        **kwargs: Any,
    ) -> Steps[Explained[Any]]:
        """`MilvusClient.search` of this collection, with the same arguments and result, normalised.

        `limit`, `offset`, `radius`, `range_filter`, `group_by_field` and `round_decimal` act on the normalised result;
        distances are on the engine's scale (for L2, the squared distance; below zero where an item ranks better than
        an identical average one would). Rows without statistics count as average rows.

        With `group_by_field`, `limit` and `offset` count groups. They are in the order of their best rows, and hold
        their `group_size` best; with `strict_group_size`, groups of which fewer rows were fetched are left out.

        Args:
            data: (q, d) query vectors; or `ids=`, where the server searches by primary keys.
            candidates: how many rows to fetch and re-rank per query; by default what `fit` found to suffice, or else
                `max(10 * (offset + limit), 100)`, and more where these hold too few groups.
            method: instead of the fitted default: `raw`, `is`, `dis`, `dual_is`, `dual_dis`, `nnn`, `sinkhorn`, as far
                as fitted.
            exact: widen the window of each query until its result is certified to be that of the whole collection,
                or as far as `max_candidates`; a warning is logged where that does not suffice.
            max_candidates: how far `exact` may go; default 10 000.
            **kwargs: what else the client takes, handed on.

        Raises:
            InvalidParameterError, NonFiniteVectorError, ZeroVectorError: bad numbers or query vectors.
            StatisticsMismatchError: the search is on another field, or by another metric, than the statistics.
            UnsupportedQueryError: rankers, aggregation, highlighting, ordering by fields, groups by several fields or
                by JSON, sparse or text queries: use the client, or `method="raw"`; or `range_filter` without `radius`,
                or with `dis` or `dual_dis`.
            NotFittedError, UnsupportedMethodError: `method` asks for what the statistics cannot serve.
        """
        deadline = Deadline.after(timeout)
        offset = kwargs.get("offset", (search_params or {}).get("offset")) or 0
        plan = yield from self._plan(
            limit=limit,
            offset=offset,
            candidates=candidates,
            method=method,
            exact=exact,
            max_candidates=max_candidates,
            explained=explained,
            fresh=has_bounds(search_params),  # hits beyond bounds of older statistics would never be seen
            deadline=deadline,
        )
        arguments: dict[str, Any] = {
            "filter": filter,
            "partition_names": partition_names,
            "anns_field": anns_field or self._store.known_field,
        }
        if plan.statistics is None:
            arguments |= {"limit": limit, "output_fields": output_fields, "search_params": search_params}
            arguments["timeout"] = deadline.client_timeout()
            results = yield from call("search", self.collection_name, data=data, **arguments, **kwargs)
            count_queries(self._store, plan, len(results))
            raw = [raw_explanation([*zip(h.ids, h.distances, strict=True)], offset) for h in results if explained]
            return Explained(results, tuple(raw))
        self._check_field(anns_field)
        metric = self._store.describe().metric
        check_lists(data, metric)
        taken = take(search_params, kwargs, metric)
        params, plan = with_bounds(taken, plan, metric)
        groups: HitGroups | None = None
        if taken.grouping is not None:
            groups, output_fields = yield from hit_groups(
                self._store, taken.grouping, plan.wanted, output_fields, deadline
            )
        arguments |= {"output_fields": output_fields, **taken.options}
        requests = Requests(
            self.collection_name, data, arguments.pop("ids", None), params, arguments, SAME_SCALE[metric], deadline
        )
        if groups is None:
            outcomes = yield from self._search(plan, requests.count, requests.fetch, self._statistics_of)
        else:
            outcomes = yield from self._search_groups(plan, requests, groups, candidates)
        count_outcomes(self._store, plan, outcomes)
        results, explanations = requests.result, []
        for row, outcome in enumerate(outcomes):
            ranks = self._put(results, row, outcome, taken, groups, offset)
            if explained:
                explanations.append(explanation_of(outcome, ranks, lambda score: score * SAME_SCALE[metric]))
        return Explained(results, tuple(explanations))

    search_explained = explained(search)

    def _search_groups(
        self, plan: SearchPlan, requests: Requests, groups: HitGroups, candidates: int | None
    ) -> Steps[list[Outcome]]:
        """As `_search`; where the window was left to us, it is widened until it holds as many groups as are wanted."""
        assert plan.statistics is not None
        most = min(DEFAULT_MAX_CANDIDATES, self._store.max_window) if plan.max_window is None else plan.max_window
        window = plan.window
        if candidates is None:
            window = self._default_window(
                plan.statistics, plan.wanted * groups.size, exact=plan.max_window is not None, most=most
            )
        if plan.explained or plan.max_window is not None:
            plan = plan._replace(needed=groups.needed)
        else:  # nobody asks for a certificate: all candidates are ranked
            plan = plan._replace(wanted=sys.maxsize)
        outcomes: dict[int, Outcome] = {}
        rows = list(range(requests.count))

        def fetch(some: Sequence[int], window: int) -> Steps[list[Candidates]]:
            return requests.fetch([rows[row] for row in some], window)

        while True:
            try:
                found = yield from self._search(plan._replace(window=window), len(rows), fetch, self._statistics_of)
            except Exception:
                if not outcomes or not plan.deadline.is_over:
                    raise
                break  # with the groups that are there
            for row, outcome in zip(rows, found, strict=True):
                before = outcomes[row].rounds if row in outcomes else 0
                outcomes[row] = outcome._replace(rounds=before + outcome.rounds)
            if candidates is not None or window >= most or plan.deadline.is_over:
                break
            short = [row for row in rows if len(groups.ranks(outcomes[row])) < groups.groups]
            rows[:] = [row for row in short if len(outcomes[row].candidates.similarities) >= window]
            if not rows:
                break
            window = min(2 * window, most)
        return [outcomes[row] for row in range(requests.count)]

    def _put(
        self, results: Any, row: int, outcome: Outcome, taken: Taken, groups: HitGroups | None, offset: int
    ) -> list[int]:
        """Put a query's normalised hits in their place in the result; their ranks."""
        scale = SAME_SCALE[self._store.describe().metric]
        distances = (outcome.best.scores * scale).tolist()
        # a range search of Milvus: radius is the far side, exclusive
        passing = len(distances)
        if taken.radius is not None:
            passing = sum(distance * scale > taken.radius * scale for distance in distances)
        if groups is None:
            ranks = list(range(offset, passing))
        else:
            ranks = [rank for group in groups.ranks(outcome, passing)[offset:] for rank in group]
        results[row] = outcome.candidates.hits
        kept = [int(outcome.best.order[rank]) for rank in ranks]
        keep_hits(results[row], kept, rounded([distances[rank] for rank in ranks], taken.digits))
        if groups is not None:
            groups.clear(results[row])
        return ranks

    @stepped
    @observed("rerank")
    def rerank(self, /, results: Any, *, limit: int | None = None, method: str | Method | None = None) -> Steps[Any]:
        """Normalise hits that you have fetched yourself, and keep the best of each query.

        Args:
            results: of `MilvusClient.search` on this field, with the distances that the engine gave them.
            limit: how many to keep of each query; None for all.
            method: instead of the fitted default.

        Returns:
            The same object, its hits in their new order, with normalised distances.

        Raises:
            InvalidParameterError: `limit` below 1.
            NotFittedError, UnsupportedMethodError: `method` asks for what the statistics cannot serve.
        """
        if limit is not None:
            check_count(limit, what="limit")
        most = max((len(hits) for hits in results), default=0)
        if not most:
            return results
        plan = yield from self._plan(limit=limit or most, method=method)
        if plan.statistics is None:
            count_queries(self._store, plan, len(results))
            for hits in results:
                keep_hits(hits, range(min(plan.wanted, len(hits))), hits.distances[: plan.wanted])
            return results
        scale = SAME_SCALE[self._store.describe().metric]
        similarities = [np.array(hits.distances, dtype=np.float64) * scale for hits in results]
        orders = [np.argsort(-one, kind="stable") for one in similarities]
        candidates = [
            Candidates(hits, [hits.ids[row] for row in order.tolist()], one[order])
            for hits, one, order in zip(results, similarities, orders, strict=True)
        ]
        outcomes = yield from self._search(
            plan, len(results), lambda rows, window: done([candidates[row] for row in rows]), self._statistics_of
        )
        count_outcomes(self._store, plan, outcomes, certifiable=False)
        for hits, order, outcome in zip(results, orders, outcomes, strict=True):
            keep_hits(hits, order[outcome.best.order].tolist(), (outcome.best.scores * scale).tolist())
        return results

    def _check_field(self, anns_field: str | None) -> None:
        """Raise StatisticsMismatchError if a search is on another field than the adapter's."""
        if anns_field and anns_field != self.vector_name:
            raise StatisticsMismatchError(
                f"this adapter normalises field {self.vector_name!r}, the search is on {anns_field!r};"
                f" make an adapter with vector_field={anns_field!r}, or search with method='raw'"
            )
