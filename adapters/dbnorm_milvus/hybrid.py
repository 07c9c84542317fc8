"""`hybrid_search` with a normalised leg: the legs are searched one by one, and fused here as the engine would."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from dbnorm_milvus.fusion import Ranking, ReciprocalRanks, WeightedScores, fuse, fusion_of
from dbnorm_milvus.iteration import MilvusIteration
from dbnorm_milvus.parameters import REFUSED, check_digits, refuse, rounded
from dbnorm_milvus.results import add_costs, merge_hits
from dbnorm_vdb.deadline import Deadline
from dbnorm_vdb.errors import InvalidParameterError, UnsupportedQueryError
from dbnorm_vdb.methods import Method
from dbnorm_vdb.observing import count_queries, observed
from dbnorm_vdb.searching import SearchPlan
from dbnorm_vdb.stepped import stepped, steps_of
from dbnorm_vdb.steps import Each, Steps, call, within, work

_REFUSED = (*REFUSED, "group_by_field", "rank_group_scorer")


class MilvusHybridSearches(MilvusIteration):
    """What `MilvusAdapter` offers in place of the client's hybrid search."""

    @stepped
    @observed("hybrid_search")
    def hybrid_search(
        self,
        /,
        reqs: Sequence[Any],
        ranker: Any,
        limit: int = 10,
        output_fields: list[str] | None = None,
        timeout: float | None = None,
        partition_names: list[str] | None = None,
        *,
        candidates: int | None = None,
        method: str | Method | None = None,
        exact: bool = False,
        max_candidates: int | None = None,
        **kwargs: Any,
    ) -> Steps[Any]:
        """`MilvusClient.hybrid_search` of this collection, same arguments and result, its dense leg normalised.

        The requests become searches of their own: those on the adapter's field normalised, as by `search`, the others
        as they are. Their results, cut to each request's `limit`, are fused here, by the engine's own formulas:
        `RRFRanker` from ranks, `WeightedRanker` from distances, of which those of the normalised leg are normalised. So
        hubs lose their ranks in the one leg, and the fusion is otherwise what it was. It costs a round trip for each
        leg.

        Args:
            reqs: `AnnSearchRequest`s. On Milvus Lite, which passes over `radius` and `range_filter` in them, they are
                honoured.
            ranker: `RRFRanker`, `WeightedRanker`, or a `Function` that stands for one of these.
            candidates, exact, max_candidates: of the normalised leg, as in `search`.
            method: instead of the fitted default; "raw" hands the whole call to the client.
            **kwargs: what else the client takes (`offset`, `consistency_level`, ...).

        Raises:
            InvalidParameterError, NonFiniteVectorError, ZeroVectorError: bad numbers or query vectors.
            UnsupportedQueryError: no request is on the adapter's field; other rankers; grouping; `offset` in a request.
            NotFittedError, UnsupportedMethodError: `method` asks for what the statistics cannot serve.
        """
        options = {"candidates": candidates, "method": method, "exact": exact, "max_candidates": max_candidates}
        offset = kwargs.get("offset") or 0
        deadline = Deadline.after(timeout)
        arguments = {"partition_names": partition_names, **kwargs}
        plan = yield from self._plan(limit=limit, offset=offset, method=method, deadline=deadline)
        raw = {"limit": limit, "output_fields": output_fields, **arguments}
        if plan.statistics is None:
            return (yield from self._raw_hybrid(reqs, ranker, raw, plan))
        fields = [request.anns_field or self._store.default_field or "" for request in reqs]
        if self.vector_name not in fields:
            raise UnsupportedQueryError(
                f"none of the requests searches field {self.vector_name!r}, which this adapter normalises; use the"
                " client, or method='raw'"
            )
        refuse(arguments, _REFUSED)
        if any("offset" in (request.param or {}) for request in reqs):
            raise UnsupportedQueryError("a request of a hybrid search takes no offset; pass it to hybrid_search itself")
        fusion = fusion_of(ranker)
        fusion.check(len(reqs))
        digits = check_digits(arguments.pop("round_decimal", -1))
        arguments.pop("offset", None)
        arguments["output_fields"] = output_fields
        metrics = [""] * len(reqs)
        if fusion.needs_metrics:
            try:
                metrics = yield from within(deadline.halfway(), work(partial(self._metrics, fields)))
            except Exception as error:
                self._fall_back_or_raise(error, plan)
                return (yield from self._raw_hybrid(reqs, ranker, raw, plan._replace(method=Method.RAW, fallback=True)))
        legs = yield Each(
            [
                self._leg(request, field, options, arguments, deadline)
                for request, field in zip(reqs, fields, strict=True)
            ]
        )
        _check_counts(legs)
        return _fused(legs, metrics, fusion, slice(offset, offset + limit), digits)

    def _raw_hybrid(self, reqs: Sequence[Any], ranker: Any, asked: Mapping[str, Any], plan: SearchPlan) -> Steps[Any]:
        """The client's own."""
        timeout = plan.deadline.client_timeout()
        results = yield from call("hybrid_search", self.collection_name, reqs, ranker, **asked, timeout=timeout)
        count_queries(self._store, plan, len(results))
        return results

    def _leg(
        self, request: Any, field: str, options: Mapping[str, Any], arguments: Mapping[str, Any], deadline: Deadline
    ) -> Steps[Any]:
        """The search that one request stands for, in what is left of the time."""
        asked = {
            "data": request.data,
            "filter": request.expr or "",
            "limit": request.limit,
            "search_params": request.param,
            "anns_field": field,
            "filter_params": request.expr_params or {},
            "timeout": deadline,
            **arguments,
        }
        if field == self.vector_name:
            return (yield from steps_of(self.search)(**asked, **options))
        asked["timeout"] = deadline.client_timeout()
        return (yield from call("search", self.collection_name, **asked))

    def _metrics(self, fields: Sequence[str]) -> list[str]:
        return [self._store.metric_of(field) or "" for field in fields]


def _check_counts(legs: Sequence[Any]) -> None:
    """Raise InvalidParameterError unless all legs answer the same number of queries."""
    counts = [len(leg) for leg in legs]
    if len(set(counts)) > 1:
        raise InvalidParameterError(f"the requests have {counts} query vectors; each has to have as many")


def _fused(
    legs: Sequence[Any],
    metrics: Sequence[str],
    fusion: ReciprocalRanks | WeightedScores,
    part: slice,
    digits: int,
) -> Any:
    """The result of the first leg, with the fused hits of all legs in place of its own."""
    result = legs[0]
    for other in legs[1:]:
        add_costs(result, other)
    for row in range(len(result)):
        hits = [leg[row] for leg in legs]
        rankings = [Ranking(of.ids, of.distances, metric) for of, metric in zip(hits, metrics, strict=True)]
        best = fuse(fusion, rankings)[part]
        merge_hits(hits, [(one.leg, one.row) for one in best], rounded([one.score for one in best], digits))
    return result
