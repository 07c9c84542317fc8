"""Normalisation by the server: candidates as a prefetch, the normalised score as a formula over the stored payload.

A *stage* of a query is what a `Prefetch` holds: a query, what it is asked of, and a limit. One that scores points by
their similarity to a vector becomes two, one within the other: the candidates, and the best of them by the formula.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import Any, get_args

import numpy as np
from pydantic import BaseModel
from qdrant_client import models

from dbnorm_qdrant.payload import generation_key
from dbnorm_vdb.errors import InvalidParameterError, UnsupportedMethodError
from dbnorm_vdb.methods import Form, additive_weights, one_gate_floor
from dbnorm_vdb.searching import SearchPlan
from dbnorm_vdb.statistics import CollectionStatistics, Metric
from dbnorm_vdb.store import KEY

EXECUTIONS = ("client", "server", "auto")
SCORE = "$score"

_SCORE_OF_A_LEG = re.compile(r"\$score(?:\[(\d+)\])?")
_WITHOUT_SCORES = (
    *get_args(models.Condition),
    models.GeoDistance,
    models.DatetimeExpression,
    models.DatetimeKeyExpression,
)
"""Expressions in which text is something else than a variable."""


def check_execution(execution: str) -> None:
    """Raise InvalidParameterError unless it is one of `EXECUTIONS`."""
    if execution not in EXECUTIONS:
        raise InvalidParameterError(f"execution must be one of {', '.join(EXECUTIONS)}, got {execution!r}")


def runs_on_server(execution: str, plan: SearchPlan, *, diverse: bool = False) -> bool:
    """Whether a search is to be re-ranked by the server.

    Args:
        execution: as the caller wishes.
        plan: how the search is to be run.
        diverse: by maximal marginal relevance.

    Raises:
        InvalidParameterError: an unknown execution, or "server" for a search that is exact, explained or diverse.
        UnsupportedMethodError: "server" for a method with gates.
    """
    check_execution(execution)
    if execution == "client" or plan.statistics is None:
        return False
    needs_candidates = plan.explained or plan.max_window is not None or diverse
    if execution == "server" and needs_candidates:
        raise InvalidParameterError(
            "execution='server' returns no candidates to certify, explain or diversify a result with; use 'client' or"
            " 'auto' for exact and explained searches, and for MMR"
        )
    if execution == "server" and plan.method.dynamic:
        raise UnsupportedMethodError(
            f"execution='server' cannot compute {plan.method.value!r}, whose gates depend on the query's first result;"
            f" use 'client' or 'auto', or method={plan.method.value.replace('dis', 'is')!r}"
        )
    return not needs_candidates and not plan.method.dynamic


def normalised_stage(
    stage: models.Prefetch, form: Form, statistics: CollectionStatistics, window: int
) -> models.Prefetch:
    """A stage whose scores are similarities to the vector of the statistics, normalised.

    Its scores are those that a search has, but for Euclid minus those, so that larger is nearer; its limit and its
    threshold act on them.

    Args:
        stage: as it would be without normalisation.
        form: of the scores.
        statistics: their generation's values are read from the payload; a point without them is an average one.
        window: how many candidates.
    """
    threshold = stage.score_threshold
    if threshold is not None:
        least = -threshold if statistics.metric is Metric.EUCLIDEAN else threshold
        # a search keeps what is above its threshold, a formula what is not below it, both in float32
        threshold = float(np.nextafter(np.float32(least), np.float32(math.inf)))
    return models.Prefetch(
        prefetch=stage.model_copy(update={"limit": window, "score_threshold": None}),
        query=_formula(form, statistics),
        limit=stage.limit,
        score_threshold=threshold,
    )


def _formula(form: Form, statistics: CollectionStatistics) -> models.FormulaQuery:
    """The scores of `dbnorm_vdb.methods.score_form`; `$score` is what the engine returns."""
    terms: list[Any] = []
    constant, defaults = 0.0, {}
    for name, weight in additive_weights(form, statistics).items():
        key, mean = f"{KEY}.{generation_key(statistics.generation)}.{name}", statistics.columns[name].bias.mean
        terms.append(models.MultExpression(mult=[-weight, key]))
        constant += weight * mean
        defaults[key] = mean
    correction = models.SumExpression(sum=[*terms, constant])
    expression: Any = models.SumExpression(sum=[SCORE, *correction.sum])
    if form.logarithm:
        beta, bias = statistics.columns[form.columns[0]]
        expression = _one_gate(correction, beta, one_gate_floor(beta, bias.max - bias.mean))
    elif statistics.metric is Metric.EUCLIDEAN:
        squared = models.MultExpression(mult=[SCORE, SCORE])
        expression = _signed_root(models.SumExpression(sum=[models.NegExpression(neg=squared), *correction.sum]))
    return models.FormulaQuery(formula=expression, defaults=defaults)


def _signed_root(value: Any) -> models.DivExpression:
    """`sign(x) sqrt(|x|)`."""
    root = models.SqrtExpression(sqrt=models.AbsExpression(abs=value))
    return models.DivExpression(div=models.DivParams(left=value, right=root, by_zero_default=0.0))


def _one_gate(correction: models.SumExpression, beta: float, floor: float) -> models.SumExpression:
    """`s + correction + log(s) / beta` where `s > 0`, else `s - floor`.

    A formula has no conditions on scores: `(s + |s|) / 2` over itself is 1 where `s` is positive, else 0.
    """
    part = models.MultExpression(mult=[0.5, models.SumExpression(sum=[SCORE, models.AbsExpression(abs=SCORE)])])
    positive = models.DivExpression(div=models.DivParams(left=part, right=part, by_zero_default=0.0))
    other = models.SumExpression(sum=[1.0, models.NegExpression(neg=positive)])
    logarithm = models.LnExpression(ln=models.SumExpression(sum=[part, other]))
    return models.SumExpression(
        sum=[
            SCORE,
            models.MultExpression(mult=[positive, correction]),
            models.MultExpression(mult=[1.0 / beta, logarithm]),
            models.MultExpression(mult=[-floor, other]),
        ]
    )


def with_negated_scores(query: models.FormulaQuery, legs: Iterable[int]) -> models.FormulaQuery:
    """A formula over legs, of which those at some positions score minus what the formula was written for."""
    negated = set(legs)

    def concerned(variable: str) -> bool:
        found = _SCORE_OF_A_LEG.fullmatch(variable)
        return found is not None and int(found[1] or 0) in negated

    def rewritten(expression: Any) -> Any:
        if isinstance(expression, str):
            return models.NegExpression(neg=expression) if concerned(expression) else expression
        if isinstance(expression, list):
            return [rewritten(one) for one in expression]
        if isinstance(expression, _WITHOUT_SCORES) or not isinstance(expression, BaseModel):
            return expression
        return expression.model_copy(update={name: rewritten(value) for name, value in expression})

    defaults = {key: -value if concerned(key) else value for key, value in (query.defaults or {}).items()}
    return query.model_copy(update={"formula": rewritten(query.formula), "defaults": defaults or None})
