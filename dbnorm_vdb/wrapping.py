"""Wrapped clients: a client of its own class, whose searches are normalised where a collection has statistics.

What takes the place of the client's methods is written as steps (`dbnorm_vdb.steps`), for sync and async clients alike.
"""

from __future__ import annotations

import functools
import inspect
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, TypeAlias, TypeVar

from dbnorm_vdb.deadline import NO_DEADLINE, Deadline
from dbnorm_vdb.errors import (
    InvalidInputError,
    InvalidParameterError,
    NotFittedError,
    StatisticsError,
    StatisticsMismatchError,
    StatisticsTimeoutError,
)
from dbnorm_vdb.eventloop import run_async
from dbnorm_vdb.fallbacks import Warnings, in_words
from dbnorm_vdb.serving import Serving
from dbnorm_vdb.steps import Steps, Work, run, within, work

Adapter = TypeVar("Adapter", bound=Serving)
Client = TypeVar("Client")

OPTIONS = ("candidates", "method", "exact", "max_candidates", "execution")
"""Arguments of searches that are ours, not the client's."""


class WrappedClient(Generic[Client, Adapter]):
    """What stands behind a wrapped client: the client itself, and the adapters of the collections it is asked for.

    Args:
        client: the user's own.
        make: the adapter of a collection, or None if that has no statistics.
        ttl: seconds after which a collection without statistics is looked at again.
    """

    def __init__(self, client: Client, make: Callable[[str], Adapter | None], ttl: float) -> None:
        self.client = client
        self._make = make
        self._ttl = ttl
        self._lock = threading.Lock()
        self._epoch = 0  # how often names have been given to other collections
        self._adapters: dict[str, Adapter] = {}
        self._without: dict[str, float] = {}
        self._warnings: dict[str, Warnings] = {}

    def expire(self) -> None:
        """Look at every collection anew: the client may mean others by their names from now on."""
        with self._lock:
            self._epoch += 1
            self._without.clear()
            for adapter in self._adapters.values():
                adapter.expire_statistics()

    def adapter(self, collection: str, deadline: Deadline = NO_DEADLINE) -> Steps[Adapter | None]:
        """The adapter of a collection that has statistics.

        Where they cannot be read in time there is none, and a warning, at most once a minute: the client's own call,
        which follows, says what is wrong with the collection, or serves raw results.
        """
        epoch, adapter = self._epoch, self._adapters.get(collection)
        if adapter is None and time.monotonic() - self._without.get(collection, -self._ttl) < self._ttl:
            return None
        deadline = deadline.halfway()
        try:
            if adapter is not None and (yield from self._usable(adapter, deadline)):
                return adapter
            self._forget(collection, adapter)  # it may be fitted all the same: another vector of it
            making = work(functools.partial(self._made, collection, epoch), key=(self, collection, epoch))
            adapter = yield from within(deadline, making)
            if adapter is not None and (yield from self._usable(adapter, deadline)):
                return adapter
        except Exception as error:  # the clients' errors have no common base class
            self._warn(collection, "raw", f"its statistics cannot be used, searches are raw: {in_words(error)}")
            if isinstance(error, StatisticsTimeoutError) and collection in self._adapters:
                return None  # reading them goes on, for the next ones
        self._forget(collection, adapter)
        with self._lock:
            if self._epoch == epoch:
                self._without[collection] = time.monotonic()
        return None

    def _usable(self, adapter: Adapter, deadline: Deadline) -> Steps[bool]:
        """Whether there are statistics of its vector."""
        try:
            return (yield from adapter.statistics_in_use(insist=False, deadline=deadline)) is not None
        except StatisticsMismatchError:
            return False

    def _made(self, collection: str, epoch: int) -> Adapter | None:
        """A new adapter, or the one that another call has just made; for the next calls too."""
        adapter = self._make(collection)
        with self._lock:
            if adapter is not None and self._epoch == epoch:
                adapter = self._adapters.setdefault(collection, adapter)
        return adapter

    def _forget(self, collection: str, adapter: Adapter | None) -> None:
        with self._lock:
            if self._adapters.get(collection) is adapter:
                self._adapters.pop(collection, None)

    def written(self, name: str, adapter: Adapter, arguments: Mapping[str, Any]) -> Steps[Any]:
        """What a method of the adapter that writes items returns; without their statistics, where these cannot be had.

        Then they are written all the same, with a warning, at most once a minute.
        """

        def write() -> Any:
            try:
                return getattr(adapter, name)(**arguments)
            except (StatisticsError, InvalidInputError) as error:  # nothing is written yet
                collection = adapter.collection_name
                words = f"items are written without statistics, which refresh() makes up for: {in_words(error)}"
                self._warn(collection, "written", words)
                return getattr(adapter.client, name)(collection, **arguments)

        return (yield Work(write, writes=True))

    def _warn(self, collection: str, reason: str, words: str) -> None:
        self._warnings.setdefault(collection, Warnings(collection)).warn(reason, words)

    def bound(self, name: str, collection: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments of a call by their names, but for the client itself and the collection.

        Raises:
            TypeError: the client would not take them.
        """
        signature = inspect.signature(getattr(type(self.client), name))
        arguments = signature.bind(self.client, collection, *args, **kwargs).arguments
        del arguments["self"], arguments["collection_name"]
        others = arguments.pop("kwargs", {})
        return {**arguments, **others}


def unwrapped(client: Client) -> Client:
    """The client that was wrapped; another one as it is.

    Adapters work with it: what they take for raw must not be normalised already.
    """
    return client._dbnorm.client if isinstance(client, _SharedState) else client


def without_options(arguments: Mapping[str, Any], collection: str) -> dict[str, Any]:
    """The arguments of a search on a collection without statistics, as the client takes them.

    Raises:
        NotFittedError: they ask for a method that needs statistics.
    """
    if arguments.get("method") not in (None, "raw"):
        raise NotFittedError(
            f"collection {collection!r} has no statistics for method={arguments['method']!r}; fit them with an adapter"
        )
    return {name: value for name, value in arguments.items() if name not in OPTIONS}


Replacement: TypeAlias = Callable[..., Steps[Any]]
"""What takes the place of a client's method: (behind, collection name, its other arguments) -> steps to its result."""


def wrapped(
    client: Client,
    replacements: Mapping[str, Replacement],
    behind: WrappedClient[Client, Any],
    *,
    renaming: Sequence[str] = (),
) -> Client:
    """An object of a subclass of the client's class that shares all the client's state.

    Args:
        client: to be wrapped.
        replacements: of its methods, by name.
        behind: what they work with.
        renaming: methods of the client after which a name may stand for another collection.

    Raises:
        InvalidParameterError: it is a wrapped client.
    """
    if isinstance(client, _SharedState):
        raise InvalidParameterError("this client is wrapped already")
    kind = type(client)
    methods = {name: _method(getattr(kind, name), steps, behind) for name, steps in replacements.items()}
    methods |= {name: _renaming(getattr(kind, name), behind) for name in renaming if hasattr(kind, name)}
    made: Client = object.__new__(
        type(f"Normalized{kind.__name__}", (_SharedState, kind), {"_dbnorm": behind, **methods})
    )
    return made


def _method(own: Callable[..., Any], steps: Replacement, behind: WrappedClient[Any, Any]) -> Callable[..., Any]:
    """A method that looks like the client's own and takes the steps instead."""
    if inspect.iscoroutinefunction(own):

        @functools.wraps(own)
        async def awaited(self: Any, collection_name: str, *args: Any, **kwargs: Any) -> Any:
            return await run_async(steps(behind, collection_name, *args, **kwargs), behind.client)

        return awaited

    @functools.wraps(own)
    def method(self: Any, collection_name: str, *args: Any, **kwargs: Any) -> Any:
        return run(steps(behind, collection_name, *args, **kwargs), behind.client)

    return method


def _renaming(own: Callable[..., Any], behind: WrappedClient[Any, Any]) -> Callable[..., Any]:
    """The client's own method, after which all collections are looked at anew."""
    if inspect.iscoroutinefunction(own):

        @functools.wraps(own)
        async def awaited(self: Any, *args: Any, **kwargs: Any) -> Any:
            try:
                return await own(behind.client, *args, **kwargs)
            finally:
                behind.expire()

        return awaited

    @functools.wraps(own)
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return own(behind.client, *args, **kwargs)
        finally:
            behind.expire()

    return method


class _SharedState:
    """Attributes of the client that was wrapped, read and written; nothing is the wrapper's own."""

    _dbnorm: WrappedClient[Any, Any]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._dbnorm.client, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._dbnorm.client, name, value)

    def __delattr__(self, name: str) -> None:
        delattr(self._dbnorm.client, name)

    def close(self, *args: Any, **kwargs: Any) -> Any:
        return self._dbnorm.client.close(*args, **kwargs)

    def __del__(self) -> None:
        """Nothing: the client that was wrapped closes itself."""
