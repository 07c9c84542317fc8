"""What a search asks for that is carried out here, on the normalised result, instead of by the engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from dbnorm_milvus.store import METRICS, SAME_SCALE
from dbnorm_vdb.errors import InvalidParameterError, StatisticsMismatchError, UnsupportedQueryError
from dbnorm_vdb.methods import adjustment_range
from dbnorm_vdb.parameters import check_count, check_finite
from dbnorm_vdb.searching import SearchPlan
from dbnorm_vdb.statistics import Metric

REFUSED = (
    "ranker",
    "function_chains",
    "highlighter",
    "search_aggregation",
    "order_by_fields",
    "group_by_fields",
    "json_path",
    "json_type",
    "strict_cast",
)
"""Arguments of `MilvusClient.search` that have no normalised form."""

_AT_LEAST_THE_WINDOW = ("ef", "search_list", "reorder_k", "itopk_size")
_MOST_DIGITS = 6


class Grouping(NamedTuple):
    """Hits in groups.

    Attributes:
        field: by its values.
        size: at most so many hits of each.
        strict: only groups of that many.
    """

    field: str
    size: int
    strict: bool


class Taken(NamedTuple):
    """The parameters of a search, parted.

    Attributes:
        search_params: for the engine.
        options: other arguments, for the engine.
        radius: the far bound of distances, exclusive.
        range_filter: the near one, inclusive.
        grouping: None for hits one by one.
        digits: decimal places of distances; -1 for all.
    """

    search_params: dict[str, Any]
    options: dict[str, Any]
    radius: float | None = None
    range_filter: float | None = None
    grouping: Grouping | None = None
    digits: int = -1


def take(search_params: Mapping[str, Any] | None, options: Mapping[str, Any], metric: Metric) -> Taken:
    """Part what is done here from what is left for the engine.

    Args:
        search_params: as the client takes them: in one layer, or with some under "params".
        options: the other arguments of the search, by name.
        metric: how the field is compared.

    Raises:
        InvalidParameterError: a number is out of its range, or given twice.
        StatisticsMismatchError: the search asks for another metric than the statistics are of.
        UnsupportedQueryError: something that has no normalised form.
    """
    params, left = dict(search_params or {}), dict(options)
    refuse(left)
    if "offset" in params and "offset" in left:
        raise InvalidParameterError("offset is given twice, in search_params and beside them; give it once")
    params.pop("offset", None)
    left.pop("offset", None)
    asked = params.get("metric_type")
    if asked and METRICS.get(str(asked).upper()) is not metric:
        raise StatisticsMismatchError(
            f"the search asks for metric {asked!r}, the statistics are of {metric.value}; leave metric_type out, or"
            " search with method='raw'"
        )
    bounds = {name: _bound(params, name) for name in ("radius", "range_filter")}
    if bounds["range_filter"] is not None and bounds["radius"] is None:
        raise UnsupportedQueryError(
            "range_filter without radius is not supported, since engines differ in what they make of it: pass radius"
            " as well, or search with method='raw'"
        )
    return Taken(params, left, grouping=_grouping(left), digits=check_digits(left.pop("round_decimal", -1)), **bounds)


def refuse(options: Mapping[str, Any], names: Sequence[str] = REFUSED) -> None:
    """Raise UnsupportedQueryError if one of these arguments is given."""
    given = [name for name in names if options.get(name) is not None and options[name] != []]
    if given:
        raise UnsupportedQueryError(
            f"a search with {', '.join(given)} is not normalised; use the client, or method='raw'"
        )


def check_digits(digits: Any) -> int:
    """Return `round_decimal`, or raise InvalidParameterError unless the client would take it."""
    if check_count(digits, what="round_decimal", least=-1) > _MOST_DIGITS:
        raise InvalidParameterError(f"round_decimal must be at most {_MOST_DIGITS}, got {digits!r}")
    return int(digits)


def rounded(distances: Sequence[float], digits: int) -> list[float]:
    """Distances, rounded if that was asked for."""
    return list(distances) if digits < 0 else [round(distance, digits) for distance in distances]


def has_bounds(search_params: Mapping[str, Any] | None) -> bool:
    """Whether the engine is to be given bounds of similarities, which the statistics decide."""
    params = search_params or {}
    inner = params.get("params")
    return "range_filter" in params or (isinstance(inner, Mapping) and "range_filter" in inner)


def _bound(params: dict[str, Any], name: str) -> float | None:
    """Take a bound of a range search out of the parameters, from whichever layer it is in."""
    layers = [params]
    if isinstance(params.get("params"), Mapping):
        params["params"] = dict(params["params"])
        layers.append(params["params"])
    found = [layer.pop(name) for layer in layers if name in layer]
    if len(found) == 2 and found[0] != found[1]:
        raise InvalidParameterError(f"{name} is {found[0]!r} in search_params and {found[1]!r} in its 'params'")
    return None if not found or found[0] is None else check_finite(found[0], what=name)


def _grouping(options: dict[str, Any]) -> Grouping | None:
    """Take what the result is to be grouped by out of the arguments."""
    field = options.pop("group_by_field", None)
    if not field:
        return None
    size, strict = options.pop("group_size", None), options.pop("strict_group_size", None)
    return Grouping(str(field), 1 if size is None else check_count(size, what="group_size"), bool(strict))


def with_bounds(taken: Taken, plan: SearchPlan, metric: Metric) -> tuple[dict[str, Any], SearchPlan]:
    """The engine's parameters and the plan of a range search, whose bounds are meant for the normalised distance.

    The engine has to return all that may come to lie between; with a far bound alone, that is simply the best.
    """
    params = taken.search_params
    if taken.range_filter is None or taken.radius is None:
        return params, plan
    if plan.method.dynamic:
        raise UnsupportedQueryError(
            f"range_filter is not supported with {plan.method.value}: the raw top-1, which decides its gates, may lie"
            " beyond it; use a method without gates, e.g. is"
        )
    assert plan.statistics is not None
    scale = SAME_SCALE[metric]
    least, most = adjustment_range(plan.statistics, plan.method)
    slack = 1e-4 * (1.0 + abs(taken.range_filter))
    nearest = scale * (scale * taken.range_filter + most + slack)
    wide = {
        "range_filter": max(nearest, 0.0) if scale < 0 else nearest,
        "radius": scale * (scale * taken.radius + least - slack),
    }
    # in the inner layer, where every version of the client looks for them
    return {**params, "params": {**params.get("params", {}), **wide}}, plan._replace(at_most=taken.range_filter * scale)


def wide_enough(params: Mapping[str, Any], window: int) -> dict[str, Any]:
    """The search parameters, with those no smaller than the window of which an index returns no more hits than that."""
    wide = dict(params)
    if isinstance(wide.get("params"), Mapping):
        wide["params"] = wide_enough(wide["params"], window)
    for name in _AT_LEAST_THE_WINDOW:
        if isinstance(wide.get(name), int):
            wide[name] = max(wide[name], window)
    return wide
