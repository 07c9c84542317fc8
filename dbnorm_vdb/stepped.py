"""Searches that are written as steps, as the methods that users call.

An adapter's search is a generator of steps, with the arguments and the documentation that users see. `stepped` makes it
a method that takes these steps and returns their result; `explainable` does so with steps that may also explain it,
which `explained` then offers. Whoever goes on with the steps themselves, such as a wrapped client, has them by
`steps_of`.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

from dbnorm_vdb.searching import Explained, result_of
from dbnorm_vdb.steps import Steps

P = ParamSpec("P")
T = TypeVar("T")

_STEPS, _EXPLAINED_STEPS = "steps", "explained_steps"
_WRAPPING = ("Steps[", "Explained[")


def stepped(steps: Callable[Concatenate[Any, P], Steps[T]]) -> Callable[Concatenate[Any, P], T]:
    """Decorates a method of steps: its caller gets their result."""

    @functools.wraps(steps)
    def search(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return cast("T", self._run(steps(self, *args, **kwargs)))

    _as_users_see_it(search, steps)
    vars(search)[_STEPS] = steps
    return search


def explainable(steps: Callable[Concatenate[Any, bool, P], Steps[Explained[T]]]) -> Callable[Concatenate[Any, P], T]:
    """The same for steps that are told, before the caller's arguments, whether their result is to be explained."""

    def plain(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> Steps[T]:
        return result_of(steps(self, False, *args, **kwargs))

    def explaining(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> Steps[Explained[T]]:
        return steps(self, True, *args, **kwargs)

    search = stepped(plain)
    functools.update_wrapper(search, steps)
    _as_users_see_it(search, steps)
    vars(search)[_STEPS], vars(search)[_EXPLAINED_STEPS] = plain, explaining
    return search


def explained(search: Callable[Concatenate[Any, P], T]) -> Callable[Concatenate[Any, P], Explained[T]]:
    """The explained variant of an explainable search."""
    steps = vars(search)[_EXPLAINED_STEPS]

    @functools.wraps(search)
    def explaining(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> Explained[T]:
        return cast("Explained[T]", self._run(steps(self, *args, **kwargs)))

    explaining.__name__ += "_explained"
    explaining.__qualname__ += "_explained"
    explaining.__doc__ = f"`{search.__name__}`, and how its result came about: scores, ranks and certificates."
    signature = inspect.signature(search)
    result = f"Explained[{signature.return_annotation}]"
    vars(explaining)["__signature__"] = signature.replace(return_annotation=result)
    vars(explaining)[_STEPS] = steps
    return explaining


def steps_of(search: Callable[P, T]) -> Callable[P, Steps[T]]:
    """The steps of a search, given as a bound method."""
    bound = cast("Any", search)
    return functools.partial(getattr(bound, _STEPS), bound.__self__)


def _as_users_see_it(search: Callable[..., Any], steps: Callable[..., Any]) -> None:
    """Give a search the signature of its steps, but for what is ours: that it is steps, and whether they explain."""
    signature = inspect.signature(steps)
    result = signature.return_annotation
    for wrapping in _WRAPPING:
        if isinstance(result, str) and result.startswith(wrapping):
            result = result[len(wrapping) : -1]
    parameters = [one for name, one in signature.parameters.items() if name != "explained"]
    vars(search)["__signature__"] = signature.replace(parameters=parameters, return_annotation=result)
    search.__annotations__ = {**{one.name: one.annotation for one in parameters}, "return": result}
