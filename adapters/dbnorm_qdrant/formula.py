"""Re-ranking by the server: candidates as a prefetch, the normalised score as a formula over the stored payload."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

import numpy as np
from qdrant_client import grpc, models
from qdrant_client.conversions.conversion import GrpcToRest

from dbnorm_qdrant.payload import generation_key
from dbnorm_vdb.errors import InvalidParameterError, UnsupportedMethodError
from dbnorm_vdb.methods import Method, additive_weights
from dbnorm_vdb.searching import SearchPlan
from dbnorm_vdb.statistics import CollectionStatistics, Metric
from dbnorm_vdb.store import KEY

EXECUTIONS = ("client", "server", "auto")

_FROM_GRPC: dict[type, Any] = {
    grpc.Filter: GrpcToRest.convert_filter,
    grpc.SearchParams: GrpcToRest.convert_search_params,
    grpc.PointId: GrpcToRest.convert_point_id,
}
_OF_THE_PREFETCH = {"query": "query", "using": "using", "query_filter": "filter", "search_params": "params"}


def check_execution(execution: str) -> None:
    """Raise InvalidParameterError unless it is one of `EXECUTIONS`."""
    if execution not in EXECUTIONS:
        raise InvalidParameterError(f"execution must be one of {', '.join(EXECUTIONS)}, got {execution!r}")


def runs_on_server(execution: str, plan: SearchPlan) -> bool:
    """Whether a search is to be re-ranked by the server.

    Raises:
        InvalidParameterError: an unknown execution, or "server" for an exact or explained search.
        UnsupportedMethodError: "server" for a method with gates.
    """
    check_execution(execution)
    if execution == "client" or plan.statistics is None:
        return False
    needs_candidates = plan.explained or plan.max_window is not None
    if execution == "server" and needs_candidates:
        raise InvalidParameterError(
            "execution='server' returns no candidates to certify or explain a result with; use 'client' or 'auto' for"
            " exact and explained searches"
        )
    if execution == "server" and plan.method.dynamic:
        raise UnsupportedMethodError(
            f"execution='server' cannot compute {plan.method.value!r}, whose gates depend on the query's first result;"
            f" use 'client' or 'auto', or method={plan.method.value.replace('dis', 'is')!r}"
        )
    return not needs_candidates and not plan.method.dynamic


def formula_query(
    statistics: CollectionStatistics, method: Method, metric: Metric, window: int, arguments: Mapping[str, Any]
) -> dict[str, Any]:
    """Arguments of `query_points` that make the server score `s - sum_B w_B (b_B - mean b_B)` on the similarity scale.

    Args:
        statistics: their generation's values are read from the payload; a point without them is an average one.
        method: without gates.
        metric: of the vector; Euclid's score is a distance, its similarity minus the square of that.
        window: how many candidates.
        arguments: of `query_points`, for the search as it would be without normalisation.
    """
    prefetch = {ours: _in_rest_form(arguments[theirs]) for theirs, ours in _OF_THE_PREFETCH.items()}
    if "lookup_from" in arguments:
        prefetch["lookup_from"] = arguments["lookup_from"]
    of_the_whole = {
        name: value for name, value in arguments.items() if name not in _OF_THE_PREFETCH and name != "lookup_from"
    }
    columns = statistics.columns
    similarity: Any = "$score"
    if metric is Metric.EUCLIDEAN:
        similarity = models.NegExpression(neg=models.MultExpression(mult=["$score", "$score"]))
    terms, constant, defaults = [similarity], 0.0, {}
    for name, weight in additive_weights(method, statistics).items():
        key = f"{KEY}.{generation_key(statistics.generation)}.{name}"
        terms.append(models.MultExpression(mult=[-weight, key]))
        constant += weight * columns[name].bias.mean
        defaults[key] = columns[name].bias.mean
    formula = models.FormulaQuery(formula=models.SumExpression(sum=[*terms, constant]), defaults=defaults)
    return {**of_the_whole, "prefetch": models.Prefetch(limit=window, **prefetch), "query": formula}


def _in_rest_form(value: Any) -> Any:
    """What `query_points` takes, as a prefetch takes it."""
    if isinstance(value, (list, tuple, np.ndarray)):
        return np.asarray(value).tolist()
    if isinstance(value, UUID):
        return str(value)
    convert = _FROM_GRPC.get(type(value))
    return value if convert is None else convert(value)
