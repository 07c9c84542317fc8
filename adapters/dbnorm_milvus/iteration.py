"""`search_iterator`, normalised: the client's own iterator brings rows in raw order, and they go on when it is certain.

So it reaches as far as the client's does, sees the same state of the collection, and works where the client's works.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from pymilvus.client.search_result import Hits
from pymilvus.orm.iterator import SearchPage

from dbnorm_milvus.parameters import REFUSED, Taken, refuse, rounded, take, wide_enough, with_bounds
from dbnorm_milvus.queries import check_dense
from dbnorm_milvus.searches import MilvusSearches
from dbnorm_milvus.store import SAME_SCALE
from dbnorm_vdb.deadline import NO_DEADLINE, Deadline
from dbnorm_vdb.errors import InvalidParameterError, StatisticsMismatchError, UnsupportedQueryError
from dbnorm_vdb.methods import Method
from dbnorm_vdb.observing import count_queries, looked_up, observed
from dbnorm_vdb.parameters import check_count
from dbnorm_vdb.searching import Candidates, SearchPlan
from dbnorm_vdb.serving import all_unknown
from dbnorm_vdb.statistics import CollectionStatistics
from dbnorm_vdb.stepped import stepped
from dbnorm_vdb.steps import Steps, Work, call
from dbnorm_vdb.streaming import NormalizedStream, Scored

UNLIMITED = -1

_REFUSED = (*REFUSED, "group_by_field")


class MilvusIteration(MilvusSearches):
    """What `MilvusAdapter` offers in place of the client's search iterator."""

    @stepped
    @observed("search_iterator")
    def search_iterator(
        self,
        /,
        data: Any,
        batch_size: int | None = 1000,
        filter: str | None = None,
        limit: int | None = UNLIMITED,
        output_fields: list[str] | None = None,
        search_params: dict[str, Any] | None = None,
        timeout: float | None = None,
        partition_names: list[str] | None = None,
        anns_field: str | None = None,
        round_decimal: int = -1,
        *,
        external_filter_func: Callable[[Any], Any] | None = None,
        candidates: int | None = None,
        method: str | Method | None = None,
        **kwargs: Any,
    ) -> Steps[Any]:
        """`MilvusClient.search_iterator` of this collection, normalised: its pages follow the normalised order.

        The pages, one after the other, are the whole collection (or what `filter` leaves of it, or the first `limit`)
        in the order of an exact search, no row twice. Rows come from the client's own iterator in raw order, in pages
        of `candidates`, and wait until nothing yet to come can be better. So the first page costs about what a search
        with `exact=True` costs, and memory holds the rows that wait: as many as stand in the raw order between a row
        and one that a hub's bias apart is worth as much, at worst all. Where the client's iterator ends, this ends:
        on servers before 2.5, and on Milvus Lite, that may be before the last row.

        Args:
            data: one query vector, in a list.
            batch_size: rows in a page.
            limit: rows in all; -1 for no end.
            external_filter_func: is given the rows of each page, with normalised distances, and returns those to keep;
                pages are filled up again. Also on servers where the client's iterator passes it over.
            candidates: rows to fetch at a time, at least `batch_size`; by default as in `search`.
            method: instead of the fitted default.
            **kwargs: what else the client takes, handed on.

        Returns:
            An iterator like the client's, with `next()`, which returns an empty page at the end, and `close()`.

        Raises:
            InvalidParameterError, NonFiniteVectorError, ZeroVectorError: bad numbers or query vector.
            StatisticsMismatchError: the search is on another field, or by another metric; or, from `next()`: the
                collection was fitted anew or refreshed meanwhile.
            UnsupportedQueryError: what `search` refuses, and groups.
            NotFittedError, UnsupportedMethodError: `method` asks for what the statistics cannot serve.
        """
        size = check_count(1000 if batch_size is None else batch_size, what="batch_size")
        most = None if limit in (None, UNLIMITED) else check_count(limit, what="limit", least=0)
        deadline = Deadline.after(timeout)
        # every page is compared with what is active then, so it must not begin with what was active before
        plan = yield from self._plan(limit=size, candidates=candidates, method=method, fresh=True, deadline=deadline)
        arguments: dict[str, Any] = {
            "filter": filter,
            "output_fields": output_fields,
            "timeout": timeout,
            "partition_names": partition_names,
            "anns_field": anns_field or self._store.known_field,
            **kwargs,
        }
        if plan.statistics is None:
            own = {"limit": limit, "search_params": search_params, "external_filter_func": external_filter_func}
            rest = {"batch_size": batch_size, "round_decimal": round_decimal, **own, **arguments}
            count_queries(self._store, plan, 1)
            return (yield from call("search_iterator", self.collection_name, data, **rest))
        self._check_field(anns_field)
        metric = self._store.describe().metric
        check_dense(data, metric)
        if "offset" in (search_params or {}) or arguments.get("offset"):
            raise UnsupportedQueryError("an iterator takes no offset; skip as many rows of its pages")
        refuse(arguments, _REFUSED)
        ours = sorted({"exact", "max_candidates"}.intersection(arguments))
        if ours:
            raise InvalidParameterError(f"{ours[0]} has no meaning for an iterator: its order is exact; leave it out")
        taken = take(search_params, {**arguments, "round_decimal": round_decimal}, metric)
        params, plan = with_bounds(taken, plan, metric)
        window = max(size, min(plan.window, self._store.max_window))
        own = yield from call(
            "search_iterator",
            self.collection_name,
            data,
            batch_size=window,
            search_params=wide_enough(params, window),
            **taken.options,
        )
        return NormalizedSearchIterator(self, own, plan, taken, size, most, external_filter_func)


class NormalizedSearchIterator:
    """Pages of a collection in the normalised order; made by `MilvusAdapter.search_iterator`."""

    def __init__(
        self,
        adapter: MilvusIteration,
        source: Any,
        plan: SearchPlan,
        taken: Taken,
        batch_size: int,
        limit: int | None,
        external_filter_func: Callable[[Any], Any] | None,
    ) -> None:
        assert plan.statistics is not None
        self._adapter = adapter
        self._store = adapter._store
        self._source = source
        self._plan = plan
        self._statistics = plan.statistics
        self._began = False
        self._scale = SAME_SCALE[plan.statistics.metric]
        self._nearest = plan.at_most
        self._farthest = None if taken.radius is None else taken.radius * self._scale
        self._digits = taken.digits
        self._batch_size = batch_size
        self._left = limit
        self._external_filter_func = external_filter_func
        self._stream = NormalizedStream(plan.method)
        self._ready: list[Any] = []
        self._ended = False

    def next(self) -> SearchPage:
        """The next page: up to `batch_size` rows with normalised distances; an empty one at the end."""
        return self._adapter._run(self._next())

    def close(self) -> None:
        """Give back what the client's iterator holds."""
        self._ended = True
        self._ready.clear()
        self._source.close()

    @observed("search_iterator")
    def _next(self) -> Steps[SearchPage]:
        size = self._batch_size if self._left is None else min(self._batch_size, self._left)
        while len(self._ready) < size and not self._ended:
            found = yield from self._advance()
            self._ready += self._kept(found)
        page, self._ready = self._ready[:size], self._ready[size:]
        if self._left is not None:
            self._left -= len(page)
        return SearchPage(_as_hits(page) if page else None)

    def _advance(self) -> Steps[list[Scored]]:
        """Fetch more rows; those whose place has become certain."""
        page = yield Work(self._source.next)
        hits = [hit for part in page.get_res() for hit in part] if page is not None else []
        similarities = np.array([hit["distance"] for hit in hits], dtype=np.float64) * self._scale
        # bounds that hold for every row the engine knew when it was asked are read after
        statistics = yield from self._adapter.statistics_in_use(fresh=True)
        if statistics is None or not _same(statistics, self._statistics):
            raise StatisticsMismatchError(
                f"collection {self._adapter.collection_name!r} was fitted anew, refreshed or dropped while it was"
                " iterated over; make a new iterator"
            )
        candidates = Candidates(hits, [hit.id for hit in hits], similarities)
        items, _ = yield from looked_up(self._adapter._statistics_of([candidates], statistics, NO_DEADLINE))
        if not self._began and all_unknown(items, statistics):
            self._adapter._fall_back_uncovered(len(hits), self._plan)
        self._began = True
        self._ended = not hits
        passed = self._stream.take(hits, similarities, items, statistics, complete=self._ended)
        return self._within_bounds(passed)

    def _within_bounds(self, passed: list[Scored]) -> list[Scored]:
        """Those within the bounds of a range search; whether rows yet to come can be."""
        if self._nearest is not None:
            passed = [scored for scored in passed if scored.score <= self._nearest]
        if self._farthest is not None:
            self._ended = self._ended or self._stream.beyond <= self._farthest
            passed = [scored for scored in passed if scored.score > self._farthest]
        return passed

    def _kept(self, found: list[Scored]) -> Any:
        """Rows with their normalised distances, as far as the user's own filter lets them through."""
        if not found:
            return []
        distances = rounded([scored.score * self._scale for scored in found], self._digits)
        rows = [scored.hit for scored in found]
        for row, distance in zip(rows, distances, strict=True):
            row["distance"] = distance
        return rows if self._external_filter_func is None else self._external_filter_func(_as_hits(rows))


def _same(one: CollectionStatistics, other: CollectionStatistics) -> bool:
    return (one.generation, one.revision) == (other.generation, other.revision)


def _as_hits(rows: list[Any]) -> Hits:
    """Rows as the client's iterators give them to their callers."""
    hits = Hits(0, [row.id for row in rows], [row["distance"] for row in rows], {}, [], "")
    hits.extend(rows)
    return hits
