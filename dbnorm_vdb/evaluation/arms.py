"""The arms of a comparison: methods of a collection, callables, saved runs, all searched alike."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from typing import Any, ClassVar, Protocol, TypeAlias, cast

from dbnorm_vdb.banks import Vectors
from dbnorm_vdb.errors import InvalidParameterError, InvalidRunError, NotFittedError
from dbnorm_vdb.evaluation.rankings import EMPTY, Ranking, Run, read_run, run_of_rows
from dbnorm_vdb.evaluation.results import Source
from dbnorm_vdb.evaluation.tables import Table, item_key
from dbnorm_vdb.methods import Method, check_supported
from dbnorm_vdb.parameters import check_count
from dbnorm_vdb.searching import Explanation
from dbnorm_vdb.statistics import CollectionStatistics
from dbnorm_vdb.store import Hit
from dbnorm_vdb.summaries import Status


class Searchable(Protocol):
    """What is asked of an adapter."""

    def nearest(
        self,
        queries: Any,
        *,
        limit: int = 10,
        candidates: int | None = None,
        method: str | Method | None = None,
        exact: bool = False,
        with_payload: bool = True,
    ) -> list[list[Hit]]:
        """See `NormalizedCollection.nearest`."""

    def nearest_explained(
        self,
        queries: Any,
        *,
        limit: int = 10,
        candidates: int | None = None,
        method: str | Method | None = None,
        exact: bool = False,
    ) -> list[Explanation]:
        """See `NormalizedCollection.nearest_explained`."""

    def status(self) -> Status:
        """See `NormalizedCollection.status`."""


Searcher: TypeAlias = Callable[[Vectors], Sequence[Any]]
"""From (m, d) query vectors to m rankings, see `rankings.run_of_rows`."""


@dataclass(frozen=True)
class Arm:
    """One way to search a collection.

    Attributes:
        method: how to score; None for the fitted default.
        candidates: the window; None for the default one of a search for `limit` results.
        exact: widen the window until certified.
        adapter: of the collection; None for the one given to `compare`.
        name: in tables; None for one made of the rest.
    """

    method: str | Method | None = None
    candidates: int | None = None
    exact: bool = False
    adapter: Searchable | None = None
    name: str | None = None

    def __post_init__(self) -> None:
        method = None if self.method is None else Method.parse(self.method)
        if self.candidates is not None:
            check_count(self.candidates, what="candidates of an arm")
            if method is Method.RAW or self.exact:
                other = "raw searches re-rank nothing" if method is Method.RAW else "exact=True finds its own"
                raise InvalidParameterError(f"an arm with candidates={self.candidates}: {other}; leave one out")

    @classmethod
    def parse(cls, text: str) -> Arm:
        """An arm from text such as "is", "dual_is,candidates=200" or "dual_is,exact,name=best".

        Raises:
            InvalidParameterError: an option that does not exist, or that is no number.
            UnsupportedMethodError: a method that does not exist.
        """
        options = parse_options(text)
        unknown = sorted(set(options) - {"method", "candidates", "exact", "name"})
        if unknown:
            raise InvalidParameterError(
                f"arm {text!r}: unknown option {unknown[0]!r}; there are candidates=N, exact and name=NAME"
            )
        if options.get("exact"):
            raise InvalidParameterError(f"arm {text!r}: exact takes no value; write exact, or leave it out")
        candidates = options.get("candidates")
        if candidates is not None and not candidates.isdecimal():
            raise InvalidParameterError(f"arm {text!r}: candidates must be an integer, got {candidates!r}")
        return cls(
            options.get("method"),
            None if candidates is None else int(candidates),
            "exact" in options,
            name=options.get("name"),
        )

    def __str__(self) -> str:
        window = "exact" if self.exact else f"candidates={self.candidates}" if self.candidates else ""
        return ",".join(part for part in (Method(self.method).value if self.method else "default", window) if part)


ArmInput: TypeAlias = "str | Arm | Searchable | Searcher | Table"
"""A method or options as text ("is", "dual_is,candidates=200"), an `Arm`, an adapter, a callable, or a run: a path or
anything else that `rankings.read_run` takes, or a sequence of rankings, one for each query."""


def parse_options(text: str) -> dict[str, str]:
    """Comma-separated `key=value` and flags; the first part may be a method's name by itself."""
    options: dict[str, str] = {}
    for number, part in enumerate(piece.strip() for piece in text.split(",")):
        key, equals, value = part.partition("=")
        if not equals and part != "exact":
            if number:
                raise InvalidParameterError(f"arm {text!r}: {part!r} is no option; write key=value, or exact")
            key, value = "method", part
        if key in options:
            raise InvalidParameterError(f"arm {text!r} has {key!r} twice")
        options[key.strip()] = value.strip()
    return options


class ArmSearch(ABC):
    """An arm that is ready to be searched."""

    source: ClassVar[Source]

    def __init__(self, name: str) -> None:
        self.name = name

    @abstractmethod
    def search(self, queries: Vectors | None, keys: Sequence[str], depth: int) -> Run:
        """The rankings of these queries, `depth` deep at most."""

    def once(self, query: Vectors, limit: int) -> None:
        """One search for `limit` results as a user makes it, with payload, for timing; query is (1, d)."""
        raise NotImplementedError(f"a {self.source} cannot be timed")


class CollectionSearch(ArmSearch):
    """A method of a collection."""

    source: ClassVar[Source] = "collection"

    def __init__(
        self, name: str, adapter: Searchable, arm: Arm, status: Status, *, collection: str, limit: int
    ) -> None:
        super().__init__(name)
        self.adapter, self.arm, self.status, self.collection = adapter, arm, status, collection
        self.statistics = status.active
        if self.statistics is None and (arm.method is None or Method(arm.method) is not Method.RAW):
            raise NotFittedError(
                f"arm {name!r}: collection {status.collection!r} has no statistics; call fit(), or compare 'raw'"
            )
        self.method = Method.RAW if self.statistics is None else Method(arm.method or self.statistics.method)
        if self.statistics is not None:
            check_supported(self.method, self.statistics)
        if arm.candidates is not None and arm.candidates < limit:
            raise InvalidParameterError(
                f"arm {name!r}: candidates={arm.candidates} are less than limit={limit}; ask for at least as many"
            )
        self.window = self._window(self.statistics, limit)

    def facts(self) -> dict[str, Any]:
        """What it is, as `ArmResult` says it."""
        columns = {} if self.statistics is None else self.statistics.columns
        return {
            "collection": self.collection,
            "method": self.method.value,
            "candidates": self.window,
            "exact": self.arm.exact,
            "betas": {name: columns[name].beta for name in self.method.columns},
        }

    def search(self, queries: Vectors | None, keys: Sequence[str], depth: int) -> Run:
        assert queries is not None
        return {
            key: Ranking([item_key(hit.id) for hit in hits], [float(hit.score) for hit in hits])
            for key, hits in zip(keys, self.hits(queries, depth), strict=True)
        }

    def hits(self, queries: Vectors, depth: int, *, with_payload: bool = False) -> list[list[Hit]]:
        """The results of a search for `limit`, looked at further down: its window re-ranked, then the engine's order.

        The window is not widened to `depth`: that would measure another search than the one that users get.
        """
        window = depth if self.window is None else self.window
        found = self.adapter.nearest(
            queries,
            limit=min(depth, window),
            candidates=self.window,
            method=self.method,
            exact=self.arm.exact,
            with_payload=with_payload,
        )
        if depth <= window:
            return found
        beyond = self.adapter.nearest(queries, limit=depth, method=Method.RAW, with_payload=with_payload)
        return [_continued(first, rest, depth) for first, rest in zip(found, beyond, strict=True)]

    def once(self, query: Vectors, limit: int) -> None:
        self.adapter.nearest(
            query, limit=limit, candidates=self.arm.candidates, method=self.method, exact=self.arm.exact
        )

    def _window(self, statistics: CollectionStatistics | None, limit: int) -> int | None:
        """The window of a search for `limit` results; None for raw and exact searches."""
        if statistics is None or self.method is Method.RAW or self.arm.exact:
            return None
        return self.arm.candidates or self.default_window(limit)

    def default_window(self, limit: int) -> int:
        """The window of a search for `limit` results that names none."""
        calibration = None if self.statistics is None else self.statistics.calibration
        return max(10 * limit, 100) if calibration is None else max(limit, calibration.window(limit))


class CallableSearch(ArmSearch):
    """A function from query vectors to rankings."""

    source: ClassVar[Source] = "callable"

    def __init__(self, name: str, function: Searcher) -> None:
        super().__init__(name)
        self._function = function

    def search(self, queries: Vectors | None, keys: Sequence[str], depth: int) -> Run:
        found = run_of_rows(self._function(queries), keys, what=f"arm {self.name!r}")  # type: ignore[arg-type]
        return {key: ranking.first(depth) for key, ranking in found.items()}

    def once(self, query: Vectors, limit: int) -> None:
        self._function(query)


class RunSearch(ArmSearch):
    """A saved run."""

    source: ClassVar[Source] = "run"

    def __init__(self, name: str, run: Run) -> None:
        super().__init__(name)
        self.run = run

    def search(self, queries: Vectors | None, keys: Sequence[str], depth: int) -> Run:
        return {key: self.run.get(key, EMPTY).first(depth) for key in keys}


def ready_arms(
    arms: Mapping[str, ArmInput] | Sequence[ArmInput],
    adapter: Searchable | None,
    keys: Sequence[str] | None,
    *,
    limit: int,
) -> list[ArmSearch]:
    """The arms, checked and named.

    Args:
        arms: by name, or in a sequence: then they are named after what they are.
        adapter: whose methods are meant where an arm names no other.
        keys: of the queries, if they are known yet.
        limit: results that a user sees.

    Raises:
        InvalidParameterError: fewer than two, two of the same name, an asynchronous one, or one that needs an adapter
            and has none.
        InvalidRunError: a run that cannot be read, or an arm that is none of all this.
        NotFittedError, UnsupportedMethodError: a method that the collection's statistics cannot serve.
    """
    given = list(arms.items()) if isinstance(arms, Mapping) else [(None, arm) for arm in arms]
    if len(given) < 2:
        raise InvalidParameterError(f"a comparison needs at least two arms, got {len(given)}")
    described = [(name, _described(arm, adapter)) for name, arm in given]
    collections = _collections(
        [arm.adapter for _, arm in described if isinstance(arm, Arm) and arm.adapter is not None]
    )
    searches: list[ArmSearch] = []
    for name, arm in described:
        if isinstance(arm, Arm):
            assert arm.adapter is not None
            key, status = collections[id(arm.adapter)]
            full = name or arm.name or (f"{key}: {arm}" if len(collections) > 1 else str(arm))
            searches.append(CollectionSearch(full, arm.adapter, arm, status, collection=key, limit=limit))
        else:
            searches.append(_other(name or _own_name(arm), arm, keys))
    names = [search.name for search in searches]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise InvalidParameterError(f"two arms are called {twice[0]!r}; give names: {{name: arm, ...}}, or name=")
    return searches


def _described(arm: ArmInput, adapter: Searchable | None) -> Any:
    """What an arm's input means: an `Arm` with its adapter, a callable, or a run in whatever form."""
    if isinstance(arm, str):
        arm = Arm.parse(arm)
    elif not isinstance(arm, Arm):
        if not hasattr(arm, "nearest"):
            return arm
        arm = Arm(adapter=cast("Searchable", arm))
    if arm.adapter is None and adapter is None:
        raise InvalidParameterError(
            f"arm {str(arm)!r} is a method of a collection; say of which: compare(..., adapter=...); a run is a Path"
        )
    found = arm if arm.adapter is not None else replace(arm, adapter=adapter)
    _check_sync(getattr(found.adapter, "nearest", None), f"the adapter {type(found.adapter).__name__}")
    return found


def _collections(adapters: Sequence[Searchable]) -> dict[int, tuple[str, Status]]:
    """A key that tells the adapters' collections apart, and their status, by the adapter's identity."""
    found: dict[int, tuple[str, Status]] = {}
    for adapter in adapters:
        if id(adapter) not in found:
            status = adapter.status()
            key, number = status.collection, 1
            taken = {key for key, _ in found.values()}
            while key in taken:
                number += 1
                key = f"{status.collection} #{number}"
            found[id(adapter)] = (key, status)
    return found


def _continued(first: Sequence[Hit], rest: Sequence[Hit], depth: int) -> list[Hit]:
    """The first hits, and then those of the rest that are not among them; `depth` in all."""
    seen = {hit.id for hit in first}
    return [*first, *(hit for hit in rest if hit.id not in seen)][:depth]


def _check_sync(search: Any, what: str) -> None:
    """Raise InvalidParameterError if searching returns coroutines, which nobody would await."""
    if inspect.iscoroutinefunction(search):
        raise InvalidParameterError(
            f"{what} is asynchronous; arms are searched one at a time: pass the sync adapter of the same collection, or"
            " a function that returns the rankings themselves"
        )


def _own_name(arm: Any) -> str:
    name = getattr(arm, "__name__", "<lambda>") if callable(arm) else getattr(arm, "stem", "<lambda>")
    if name == "<lambda>":
        raise InvalidParameterError(f"an arm that is a {type(arm).__name__} needs a name: {{name: arm, ...}}")
    return str(name)


def _other(name: str, arm: Any, keys: Sequence[str] | None) -> ArmSearch:
    """A callable or a run."""
    if callable(arm):
        _check_sync(arm, f"arm {name!r}")
        return CallableSearch(name, arm)
    if isinstance(arm, (PathLike, Mapping)) or hasattr(arm, "columns"):
        return RunSearch(name, read_run(arm))
    if keys is None:
        raise InvalidRunError(f"arm {name!r}: rankings in the order of the queries need queries, or keys=")
    return RunSearch(name, run_of_rows(arm, keys, what=f"arm {name!r}"))
