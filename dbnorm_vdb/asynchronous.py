"""Async adapters: the sync ones, awaited.

Searches are steps (`dbnorm_vdb.steps`): on an event loop their calls of the client are awaited where the sync adapter
makes them. Everything else, from reading statistics to a whole fit, runs in a worker thread, whose calls of the async
client are made on the event loop and waited for by that thread (`dbnorm_vdb.eventloop`). So nothing is written twice,
and nothing blocks the loop. What a sync adapter learns to do, its async form has by one line: `awaited` or `threaded`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Coroutine
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

from dbnorm_vdb.caching import CacheInfo
from dbnorm_vdb.collection import NormalizedCollection
from dbnorm_vdb.eventloop import in_thread, in_worker, run_async
from dbnorm_vdb.steps import Steps, run

P = ParamSpec("P")
T = TypeVar("T")


class Awaited:
    """Mixed into a sync adapter that works on a `Bridge`: on an event loop, its searches return coroutines."""

    client: Any

    def _run(self, steps: Steps[T]) -> T:
        if in_worker():
            return run(steps, self.client)
        return cast("T", run_async(steps, self.client))


def awaited(search: Callable[Concatenate[Any, P], T]) -> Callable[Concatenate[Any, P], Coroutine[Any, Any, T]]:
    """The async form of a sync adapter's search: the same arguments, result and documentation."""

    @functools.wraps(search)
    async def method(self: AsyncCollection, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await cast("Coroutine[Any, Any, T]", search(self._inner, *args, **kwargs))

    return method


def threaded(
    work: Callable[Concatenate[Any, P], T], *, writes: bool = True
) -> Callable[Concatenate[Any, P], Coroutine[Any, Any, T]]:
    """The async form of what a sync adapter does in many steps, such as a fit: in a worker thread.

    Functions that are passed to it, such as `progress`, are called in that thread. Cancelled, it ends before its next
    call of the client, cleans up as when it fails, and raises the cancellation then.

    Args:
        work: the sync adapter's method.
        writes: it may write. A call under way is then awaited when it is cancelled, else cancelled as well.
    """

    @functools.wraps(work)
    async def method(self: AsyncCollection, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await in_thread(functools.partial(work, self._inner, *args, **kwargs), writes=writes)

    return method


class AsyncCollection:
    """Base of the async adapters: what is the same for all engines.

    Attributes:
        client: the user's own async client.
    """

    client: Any
    _inner: NormalizedCollection

    @property
    def collection_name(self) -> str:
        """The name of the wrapped collection."""
        return self._inner.collection_name

    @property
    def fallback_count(self) -> int:
        """Searches that were served raw for want of statistics."""
        return self._inner.fallback_count

    @property
    def fallback_reasons(self) -> dict[str, int]:
        """How many of them, by reason: see `NormalizedCollection`."""
        return self._inner.fallback_reasons

    def cache_info(self) -> CacheInfo:
        """Which statistics of items are held in memory; not to be awaited."""
        return self._inner.cache_info()

    is_fitted = threaded(NormalizedCollection.is_fitted, writes=False)
    sample_items = threaded(NormalizedCollection.sample_items, writes=False)
    status = threaded(NormalizedCollection.status, writes=False)
    fit = threaded(NormalizedCollection.fit)
    refresh = threaded(NormalizedCollection.refresh)
    fold = threaded(NormalizedCollection.fold)
    tune = threaded(NormalizedCollection.tune, writes=False)
    drop = threaded(NormalizedCollection.drop)
    audit = threaded(NormalizedCollection.audit, writes=False)
    explain = threaded(NormalizedCollection.explain, writes=False)
