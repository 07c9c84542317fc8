"""How searches of Qdrant are answered, alone or many at once: raw, fused, re-ranked by the server or here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from qdrant_client import models

from dbnorm_qdrant.formula import check_execution, normalised_stage, runs_on_server
from dbnorm_qdrant.payload import vector_of, with_our_key
from dbnorm_qdrant.points import clean, lookup
from dbnorm_qdrant.prefetches import QdrantPrefetches, Whole, Windows, concerns, legs_of
from dbnorm_qdrant.queries import check_similarity, engine_score, searches_vector
from dbnorm_qdrant.requests import Search
from dbnorm_vdb.deadline import NO_DEADLINE, Deadline
from dbnorm_vdb.diversity import diversified
from dbnorm_vdb.errors import InvalidParameterError, StatisticsMismatchError, UnsupportedQueryError
from dbnorm_vdb.methods import Method, form_of
from dbnorm_vdb.observing import count_outcomes, count_queries
from dbnorm_vdb.parameters import check_count
from dbnorm_vdb.searching import (
    Candidates,
    Explained,
    Explanation,
    Outcome,
    SearchPlan,
    explanation_of,
    raw_explanation,
)
from dbnorm_vdb.statistics import Metric
from dbnorm_vdb.steps import Each, Steps, call, within

_DIVERSITY = 0.5
"""The engine's default."""

Answer: TypeAlias = Explained[models.QueryResponse]
Send: TypeAlias = Callable[[Sequence[Search]], Steps[list[models.QueryResponse]]]
"""Makes the client search, once or in a batch."""


class Wishes(NamedTuple):
    """Our own arguments of searches: see `QdrantAdapter.query_points`."""

    windows: Windows
    method: str | Method | None = None
    execution: str = "client"
    explained: bool = False
    deadline: Deadline = NO_DEADLINE


Way: TypeAlias = Callable[[Sequence[Search], SearchPlan, Wishes, Send], Steps[list[Answer] | None]]
"""Answers searches that have a plan in common; None if a fit has replaced the statistics meanwhile."""


class QdrantAnswers(QdrantPrefetches):
    """The part of `QdrantAdapter` that answers searches for points."""

    def _answered(self, searches: Sequence[Search], wishes: Wishes, send: Send) -> Steps[list[Answer]]:
        """The answers to searches, in their order."""
        check_execution(wishes.execution)
        if not (yield from self._described_in_time(wishes.method, wishes.deadline)):
            return (yield from self._undescribed(searches, wishes, send))
        answers: list[Answer] | None = None
        while answers is None:
            named = [search._replace(using=self._using(search.query, search.using)) for search in searches]
            answers = yield from self._attempt(named, wishes, send)
        return answers

    def _undescribed(self, searches: Sequence[Search], wishes: Wishes, send: Send) -> Steps[list[Answer]]:
        """Raw answers, where not even the vector could be described in time."""
        raw = SearchPlan(Method.RAW, 1, 1, explained=wishes.explained, fallback=wishes.method is None)
        named = [self._using_if_known(search) for search in searches]
        return (yield from self._raw(named, raw, wishes, send)) or []

    def _using_if_known(self, search: Search) -> Search:
        """A search of our vector, by its name as far as that is known without asking the database."""
        ours = search.using is None and searches_vector(search.query, None, "")
        return search._replace(using=self._store.known_name) if ours else search

    def _attempt(self, searches: Sequence[Search], wishes: Wishes, send: Send) -> Steps[list[Answer] | None]:
        """The answers under the statistics of now; None if a fit has replaced them meanwhile, or the vector is another.

        It is, if the collection was made anew, or is an alias and was switched.
        """
        described = self._store.describe()
        plans: dict[int, SearchPlan] = {}
        alike: dict[tuple[Way, int], list[int]] = {}
        for row, search in enumerate(searches):
            wanted = self._wanted(search)
            if wanted not in plans:
                plans[wanted] = yield from self._plan(
                    limit=wanted,
                    method=wishes.method,
                    explained=wishes.explained,
                    deadline=wishes.deadline,
                    **wishes.windows._asdict(),
                )
            if self._store.describe() != described:
                return None
            alike.setdefault((self._way(search, plans[wanted], wishes), wanted), []).append(row)
        answered = yield Each(
            [way([searches[row] for row in rows], plans[wanted], wishes, send) for (way, wanted), rows in alike.items()]
        )
        if None in answered or self._store.describe() != described:
            return None
        answers: dict[int, Answer] = {}
        for rows, found in zip(alike.values(), answered, strict=True):
            answers |= zip(rows, found, strict=True)
        return [answers[row] for row in range(len(searches))]

    def _wanted(self, search: Search) -> int:
        """How many normalised points count for a search, checked; one where it scores none itself."""
        check_count(search.limit, what="limit")
        check_count(search.offset or 0, what="offset", least=0)
        if not searches_vector(search.query, search.using, self.vector_name):
            return 1
        if search.mmr is not None:
            check_count(search.wanted, what="candidates_limit")
            if not 0 <= (search.mmr.diversity or 0) <= 1:
                raise InvalidParameterError(f"diversity must be from 0 to 1, got {search.mmr.diversity!r}")
        return search.wanted

    def _way(self, search: Search, plan: SearchPlan, wishes: Wishes) -> Way:
        if plan.statistics is None:
            return self._raw
        if not searches_vector(search.query, search.using, self.vector_name):
            return self._fused
        on_server = runs_on_server(wishes.execution, plan, diverse=search.mmr is not None)
        return self._on_server if on_server else self._on_client

    # --- ways to answer ----------------------------------------------------------------------------------------

    def _raw(
        self, searches: Sequence[Search], plan: SearchPlan, wishes: Wishes, send: Send
    ) -> Steps[list[Answer] | None]:
        """The client's responses without our key."""
        answers: list[Answer] = []
        for search, response in zip(searches, (yield from send(searches)), strict=True):
            points = [clean(point, search.selector) for point in response.points]
            hits = [(point.id, point.score) for point in points]
            told = (raw_explanation(hits, search.offset or 0),) if plan.explained else ()
            answers.append(Explained(response.model_copy(update={"points": points}), told))
        count_queries(self._store, plan, len(searches))
        return answers

    def _fused(
        self, searches: Sequence[Search], plan: SearchPlan, wishes: Wishes, send: Send
    ) -> Steps[list[Answer] | None]:
        """Of searches that do not score by our vector themselves, the legs."""
        assert plan.statistics is not None
        prepared = yield from self._prepared(searches, plan, wishes)
        if wishes.explained:
            raise UnsupportedQueryError(
                "what a fusion or formula makes of several legs has no explanation; explain each leg as a search of its"
                " own, or method='raw'"
            )
        responses = yield from send([s._replace(with_payload=with_our_key(s.selector)) for s in prepared])
        if (yield from self._replaced(_all_points(responses), plan)):
            return None
        count_queries(self._store, plan, len(searches))
        return [
            _answer(response, [clean(point, search.selector) for point in response.points])
            for search, response in zip(searches, responses, strict=True)
        ]

    def _on_server(
        self, searches: Sequence[Search], plan: SearchPlan, wishes: Wishes, send: Send
    ) -> Steps[list[Answer] | None]:
        """Re-ranked by the server, from the stored statistics: only the results cross the network."""
        assert plan.statistics is not None
        prepared = yield from self._prepared(searches, plan, wishes)
        responses = yield from send([normalised_search(search, plan) for search in prepared])
        if (yield from self._replaced(_all_points(responses), plan)):
            return None
        count_queries(self._store, plan, len(searches), windows=[plan.window] * len(searches))
        return [
            _answer(response, [self._of_server(point, search.selector) for point in response.points])
            for search, response in zip(searches, responses, strict=True)
        ]

    def _of_server(self, point: models.ScoredPoint, selector: Any) -> models.ScoredPoint:
        """A point that the server has normalised, with the engine's kind of score."""
        return clean(point, selector, -point.score if self._metric is Metric.EUCLIDEAN else point.score)

    def _on_client(
        self, searches: Sequence[Search], plan: SearchPlan, wishes: Wishes, send: Send
    ) -> Steps[list[Answer] | None]:
        """Re-ranked here, from all candidates and their payload."""
        prepared = yield from self._prepared(searches, plan, wishes)
        in_memory = self._items.in_use
        selectors = [search.selector for search in searches]
        latest: dict[int, models.QueryResponse] = {}

        def fetch(rows: Sequence[int], window: int) -> Steps[list[Candidates]]:
            asked = [
                prepared[row]._replace(
                    limit=window,
                    offset=None,
                    with_payload=selectors[row] if in_memory else with_our_key(selectors[row]),
                    score_threshold=None,
                )
                for row in rows
            ]
            found = yield from send(asked)
            latest.update(zip(rows, found, strict=True))
            return [self._candidates(response.points) for response in found]

        outcomes = yield from self._search(plan, len(searches), fetch, self._statistics_of if in_memory else lookup)
        count_outcomes(self._store, plan, outcomes)
        points = [self._points(outcome, selector) for outcome, selector in zip(outcomes, selectors, strict=True)]
        pages = yield from self._pages(searches, outcomes, points, plan.deadline)
        answers: list[Answer] = []
        for row, (outcome, page) in enumerate(zip(outcomes, pages, strict=True)):
            told = [explanation_of(outcome, page, self._engine_score)] if plan.explained else []
            answers.append(_answer(latest[row], [points[row][rank] for rank in page], *told))
        return answers

    def _engine_score(self, similarity: float) -> float:
        return engine_score(similarity, self._metric)

    # --- before a search, and after --------------------------------------------------------------------------------

    def _using(self, query: Any, using: str | None) -> str | None:
        """The vector that a query names, or else ours, if it searches one."""
        ours = self.vector_name
        return ours or None if using is None and searches_vector(query, None, "") else using

    def _prepared(self, searches: Sequence[Search], plan: SearchPlan, wishes: Wishes) -> Steps[list[Search]]:
        """Searches whose legs are normalised, and which score by similarity, if at all by our vector."""
        for search in searches:
            self._check(search)
        prepared = [
            s if s.mmr is None else s._replace(query=models.NearestQuery(nearest=s.query.nearest)) for s in searches
        ]
        rows = [row for row, search in enumerate(searches) if legs_of(search.prefetch)]
        if rows:
            wholes = [Whole(plan, wishes.windows, searches[row].query_filter, searches[row].where) for row in rows]
            all_legs = [legs_of(searches[row].prefetch) for row in rows]
            normalised = yield Each([self._legs(legs, whole) for legs, whole in zip(all_legs, wholes, strict=True)])
            for row, legs, prefetch in zip(rows, all_legs, normalised, strict=True):
                query = self._over(prepared[row].query, legs)
                prepared[row] = prepared[row]._replace(prefetch=prefetch, query=query)
        return prepared

    def _check(self, search: Search) -> None:
        """Refuse what normalisation has no meaning for; the rest of the checking is the client's."""
        query, using, name = search.query, search.using, self.vector_name
        if searches_vector(query, using, name):
            check_similarity(query, self._metric)
        elif not concerns(query, using, search.prefetch, name):
            if searches_vector(query, using, using or ""):
                raise StatisticsMismatchError(
                    f"this adapter normalises vector {name!r}, the query uses {using!r}; make an adapter with"
                    f" vector_name={using!r}, or search with method='raw'"
                )
            raise UnsupportedQueryError(
                f"a query of type {type(query).__name__} has nothing to normalise: neither it nor a prefetch of it"
                f" searches vector {name!r}; use the client, or method='raw'"
            )

    def _pages(
        self,
        searches: Sequence[Search],
        outcomes: Sequence[Outcome],
        points: Sequence[Sequence[models.ScoredPoint]],
        deadline: Deadline,
    ) -> Steps[list[list[int]]]:
        """Of each search, the ranks of the points that the caller gets."""
        ranks = [self._passing(of_one, s.score_threshold) for of_one, s in zip(points, searches, strict=True)]
        diverse = [row for row, search in enumerate(searches) if search.mmr is not None]
        if diverse:
            choosing = [self._diverse(searches[r], outcomes[r], points[r], ranks[r]) for r in diverse]
            chosen = yield Each([within(deadline, steps) for steps in choosing])
            for row, order in zip(diverse, chosen, strict=True):
                ranks[row] = order
        return [of_one[search.offset or 0 :] for of_one, search in zip(ranks, searches, strict=True)]

    def _diverse(
        self, search: Search, outcome: Outcome, points: Sequence[models.ScoredPoint], ranks: Sequence[int]
    ) -> Steps[list[int]]:
        """Ranks in the order in which maximal marginal relevance chooses them, up to the end of the page."""
        assert search.mmr is not None
        name = self.vector_name
        records = yield from call(
            "retrieve",
            self.collection_name,
            ids=[points[rank].id for rank in ranks],
            with_payload=False,
            with_vectors=[name] if name else True,
            **search.where,
        )
        vectors = {record.id: vector_of(record, name) for record in records}
        there = [rank for rank in ranks if vectors.get(points[rank].id) is not None]  # the others are gone by now
        order = diversified(
            outcome.best.scores[there],
            np.array([vectors[points[rank].id] for rank in there], dtype=np.float64),
            self._metric,
            diversity=_DIVERSITY if search.mmr.diversity is None else search.mmr.diversity,
            limit=(search.offset or 0) + search.limit,
        )
        return [there[place] for place in order]


def normalised_search(search: Search, plan: SearchPlan) -> Search:
    """A search of similarities as the server normalises it; for Euclid its scores are minus the distances."""
    assert plan.statistics is not None
    stage = normalised_stage(search.stage(), form_of(plan.method, {}), plan.statistics, plan.window)
    return search._replace(
        query=stage.query,
        using=None,
        prefetch=stage.prefetch,
        query_filter=None,
        search_params=None,
        with_payload=with_our_key(search.selector),
        score_threshold=stage.score_threshold,
        others=search.where,
    )


def _answer(response: models.QueryResponse, points: list[models.ScoredPoint], *told: Explanation) -> Answer:
    return Explained(response.model_copy(update={"points": points}), told)


def _all_points(responses: Sequence[models.QueryResponse]) -> list[models.ScoredPoint]:
    return [point for response in responses for point in response.points]
