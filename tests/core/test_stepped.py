"""Searches written as steps, as the methods that users call."""

from __future__ import annotations

import inspect

import pytest

from dbnorm_vdb.searching import Explained
from dbnorm_vdb.stepped import explainable, explained, stepped, steps_of
from dbnorm_vdb.steps import Call, Steps, run


class Client:
    def fetch(self, what: str) -> str:
        return f"fetched {what}"


class Adapter:
    def _run(self, steps):
        return run(steps, Client())

    @stepped
    def plain(self, /, what: str, times: int = 1) -> Steps[list[str]]:
        """Fetch it."""
        found = yield Call("fetch", [what])
        return [found] * times

    @explainable
    def search(self, explained: bool, /, what: str, *, limit: int = 10, **kwargs: int) -> Steps[Explained[str]]:
        """Look for it."""
        found = yield Call("fetch", [what])
        return Explained(f"{found}, {limit}, {kwargs}", ("told",) if explained else ())

    search_explained = explained(search)


def test_the_caller_gets_the_result():
    assert Adapter().plain("it") == ["fetched it"]
    assert Adapter().search("it", limit=3, explained=4) == "fetched it, 3, {'explained': 4}"
    assert Adapter().search_explained("it") == Explained("fetched it, 10, {}", ("told",))


def test_whoever_goes_on_with_the_steps_gets_them():
    adapter = Adapter()
    for search, result in (
        (adapter.plain, ["fetched it"]),
        (adapter.search, "fetched it, 10, {}"),
        (adapter.search_explained, Explained("fetched it, 10, {}", ("told",))),
    ):
        steps = steps_of(search)("it")
        assert next(steps) == Call("fetch", ["it"])
        with pytest.raises(StopIteration) as stop:
            steps.send("fetched it")
        assert stop.value.value == result


def test_they_look_like_ordinary_methods():
    assert str(inspect.signature(Adapter.plain)) == "(self, /, what: 'str', times: 'int' = 1) -> 'list[str]'"
    arguments = "(self, /, what: 'str', *, limit: 'int' = 10, **kwargs: 'int')"
    assert str(inspect.signature(Adapter.search)) == f"{arguments} -> 'str'"
    assert str(inspect.signature(Adapter.search_explained)) == f"{arguments} -> 'Explained[str]'"
    assert (Adapter.search.__name__, Adapter.search.__doc__) == ("search", "Look for it.")
    assert Adapter.search.__annotations__["return"] == "str"
    assert "explained" not in Adapter.search.__annotations__
    assert Adapter.search_explained.__name__ == "search_explained"
    assert "`search`" in Adapter.search_explained.__doc__


def test_arguments_that_a_search_does_not_take_are_refused():
    with pytest.raises(TypeError):
        Adapter().search()
    with pytest.raises(TypeError):
        Adapter().plain("it", 1, 2)
