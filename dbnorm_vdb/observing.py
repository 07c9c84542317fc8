"""What searches tell telemetry (`dbnorm_vdb.telemetry`): their spans, and how their queries were answered.

Where nobody listens, decorators and steps return what they are given.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, TypeVar, cast

from dbnorm_vdb import telemetry
from dbnorm_vdb.methods import Method
from dbnorm_vdb.searching import Outcome, SearchPlan
from dbnorm_vdb.steps import Steps, Within
from dbnorm_vdb.store import Store
from dbnorm_vdb.telemetry import Answered, Result

T = TypeVar("T")
Search = TypeVar("Search", bound=Callable[..., Steps[Any]])


def observed(operation: str) -> Callable[[Search], Search]:
    """Decorates the steps of a search, a method of what has a store: they are taken within a span.

    Args:
        operation: the client's name for what is asked of it.
    """

    def decorated(search: Search) -> Search:
        if not telemetry.PRESENT:
            return search

        @functools.wraps(search)
        def within(self: Any, *args: Any, **kwargs: Any) -> Steps[Any]:
            if not telemetry.listening():
                return search(self, *args, **kwargs)
            span = partial(telemetry.search_span, _place(self._store), operation)
            return _within(span, search(self, *args, **kwargs))

        return cast("Search", within)

    return decorated


def looked_up(steps: Steps[T]) -> Steps[T]:
    """Steps that look up statistics, within a span."""
    return _within(partial(telemetry.span, "dbnorm.lookup"), steps) if telemetry.within_search() else steps


def _within(span: Callable[[], AbstractContextManager[Any]], steps: Steps[T]) -> Steps[T]:
    result: T = yield Within(span, steps)
    return result


def count_outcomes(store: Store, plan: SearchPlan, outcomes: Sequence[Outcome], *, certifiable: bool = True) -> None:
    """Tell how queries were answered that were re-ranked here, with a certificate or, of groups, without."""
    if outcomes and telemetry.within_search():
        results = Counter(_result_of(outcome, plan, certifiable) for outcome in outcomes)
        windows = [len(outcome.candidates.similarities) for outcome in outcomes]
        rounds = max(outcome.rounds for outcome in outcomes)
        telemetry.count(_place(store), Answered(outcomes[0].method.value, plan.wanted, results, windows, rounds))


def _result_of(outcome: Outcome, plan: SearchPlan, certifiable: bool) -> Result:
    if outcome.method is Method.RAW and plan.method is not Method.RAW:
        return Result.FALLBACK
    return Result.CERTIFIED if certifiable and outcome.best.certified else Result.UNCERTIFIED


def count_queries(store: Store, plan: SearchPlan, queries: int, *, windows: Sequence[int] = ()) -> None:
    """Tell how queries were answered that have no certificate: raw, or normalised, out of windows of these sizes."""
    if telemetry.within_search():
        raw = Result.FALLBACK if plan.fallback else Result.RAW
        results = {raw if plan.method is Method.RAW else Result.UNCERTIFIED: queries}
        telemetry.count(_place(store), Answered(plan.method.value, plan.wanted, results, windows))


def _place(store: Store) -> dict[str, str]:
    return {"db.system.name": store.engine, "db.collection.name": store.collection}
