"""Prefetches: the legs of a fusion, a formula or a re-scoring, normalised where they search the fitted vector.

A leg is normalised by the server, within the one request: its candidates become a prefetch of its own, and the best of
them by the normalised score (`formula`) take its place. So fusion, limits, thresholds and filters do with them what
they do with any leg. Methods with gates need the leg's raw first point, and exact searches its window: for these the
leg is searched by itself before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from qdrant_client import grpc, models
from qdrant_client.conversions.conversion import GrpcToRest

from dbnorm_qdrant.formula import SCORE, normalised_stage, with_negated_scores
from dbnorm_qdrant.payload import item_statistics
from dbnorm_qdrant.points import QdrantPoints, lookup
from dbnorm_qdrant.queries import check_similarity, mmr_of, searches_vector
from dbnorm_qdrant.requests import DEFAULT_LIMIT
from dbnorm_vdb.errors import InvalidParameterError, UnsupportedQueryError
from dbnorm_vdb.methods import Form, Method, form_of
from dbnorm_vdb.searching import Candidates, SearchPlan
from dbnorm_vdb.statistics import Metric
from dbnorm_vdb.steps import Each, Steps, call, within
from dbnorm_vdb.store import KEY


class Windows(NamedTuple):
    """How many candidates a search, and each of its legs, is to have, as the caller says: see `query_points`."""

    candidates: int | None = None
    exact: bool = False
    max_candidates: int | None = None


class Whole(NamedTuple):
    """The query that legs belong to.

    Attributes:
        plan: of which the legs take the method and the statistics.
        windows: as the caller says.
        query_filter: what the engine hands down to every leg.
        where: replicas, shards and timeout.
    """

    plan: SearchPlan
    windows: Windows
    query_filter: Any
    where: Mapping[str, Any]


class QdrantPrefetches(QdrantPoints):
    """The part of `QdrantAdapter` that normalises the legs of its searches."""

    def _legs(
        self, legs: Sequence[models.Prefetch], whole: Whole, above: Sequence[models.Filter | None] = ()
    ) -> Steps[list[models.Prefetch]]:
        """The legs, normalised.

        Args:
            legs: of one query.
            whole: what they are part of.
            above: the filters of the prefetches that they are within, from the outermost on.
        """
        normalised: list[models.Prefetch] = yield Each([self._leg(leg, whole, above) for leg in legs])
        return normalised

    def _leg(self, leg: models.Prefetch, whole: Whole, above: Sequence[models.Filter | None]) -> Steps[models.Prefetch]:
        within = legs_of(leg.prefetch)
        if within:
            prefetch = yield from self._legs(within, whole, [*above, leg.filter])
            leg = leg.model_copy(update={"prefetch": prefetch, "query": self._over(leg.query, within)})
        if not searches_vector(leg.query, leg.using, self.vector_name):
            return leg
        if mmr_of(leg.query) is not None:
            raise UnsupportedQueryError(
                "MMR in a prefetch is not normalised, but as the whole query it is; use the client, or method='raw'"
            )
        check_similarity(leg.query, self._metric)
        statistics = whole.plan.statistics
        assert statistics is not None
        form, window = yield from self._form_and_window(leg, whole, above)
        if not form.columns and self._metric is not Metric.EUCLIDEAN:
            return leg  # raw; but Euclidean legs all have to be on the same scale
        return normalised_stage(leg, form, statistics, window)

    def _over(self, query: Any, legs: Sequence[models.Prefetch]) -> Any:
        """A query over legs, once they are normalised: then a Euclidean one of ours scores minus its distances."""
        if not isinstance(query, models.FormulaQuery) or self._metric is not Metric.EUCLIDEAN:
            return query
        ours = [at for at, leg in enumerate(legs) if searches_vector(leg.query, leg.using, self.vector_name)]
        return with_negated_scores(query, ours)

    def _form_and_window(
        self, leg: models.Prefetch, whole: Whole, above: Sequence[models.Filter | None]
    ) -> Steps[tuple[Form, int]]:
        """How a leg's points are scored, and how many candidates that takes."""
        plan, (candidates, exact, most) = whole.plan, whole.windows
        assert plan.statistics is not None
        wanted = DEFAULT_LIMIT if leg.limit is None else leg.limit
        if candidates is not None and candidates < wanted:
            raise InvalidParameterError(
                f"candidates={candidates} is less than the limit of a prefetch, {wanted}: ask for at least as many"
            )
        max_window = self._max_window(wanted, candidates, exact, most)
        window = candidates or self._default_window(plan.statistics, wanted, exact=exact, most=max_window)
        if not plan.method.dynamic and not exact:
            return form_of(plan.method, {}), window
        alone = plan._replace(wanted=wanted, window=window, max_window=max_window, explained=False)
        if not exact:  # for the gates alone the first point will do
            alone = alone._replace(wanted=1, window=1, probe=True)

        def fetch(rows: Sequence[int], window: int) -> Steps[list[Candidates]]:
            stage = leg.model_copy(update={"limit": window, "score_threshold": None})
            for condition in reversed(above):
                stage = models.Prefetch(prefetch=stage, query=_AS_SCORED, filter=condition, limit=window)
            found = yield from call(
                "query_points",
                self.collection_name,
                prefetch=stage,
                query=_AS_SCORED,
                query_filter=whole.query_filter,
                limit=window,
                with_payload=[KEY],
                **whole.where,
            )
            return [self._candidates(sorted(found.points, key=self._raw_rank))]

        try:
            (outcome,) = yield from within(plan.deadline, self._search(alone, 1, fetch, lookup))
        except Exception as error:
            self._fall_back_or_raise(error, plan)
            return Form(()), wanted
        points, similarities = outcome.candidates.hits, outcome.candidates.similarities
        if not points or outcome.method is Method.RAW:
            return Form(()), window
        first, _ = item_statistics([points[0].payload], plan.statistics.generation)
        form = form_of(plan.method, {name: bool(first.activated(name)[0]) for name in plan.method.banks})
        if form.logarithm and not similarities[0] > 0:
            form = Form(())  # similarities alone decide
        return form, max(window, len(points))


_AS_SCORED = models.FormulaQuery(formula=SCORE)


def legs_of(prefetch: Any) -> list[models.Prefetch]:
    """The legs of a query: none, one or several, in REST form; a client of gRPC takes both."""
    if not prefetch:
        return []
    legs = prefetch if isinstance(prefetch, (list, tuple)) else [prefetch]
    return [GrpcToRest.convert_prefetch_query(leg) if isinstance(leg, grpc.PrefetchQuery) else leg for leg in legs]


def concerns(query: Any, using: str | None, prefetch: Any, vector: str) -> bool:
    """Whether a query, or some leg of it, scores points by a vector, given by name; "" is the unnamed one."""
    return searches_vector(query, using, vector) or any(
        concerns(leg.query, leg.using, leg.prefetch, vector) for leg in legs_of(prefetch)
    )
