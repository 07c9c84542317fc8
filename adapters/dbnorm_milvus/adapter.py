"""MilvusAdapter: `MilvusClient.search` of one collection, normalised."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pymilvus import MilvusClient, MilvusException

from dbnorm_milvus.copying import MilvusFoldTarget
from dbnorm_milvus.queries import check_dense
from dbnorm_milvus.results import SAME_SCALE, keep_hits
from dbnorm_milvus.store import MilvusStore
from dbnorm_vdb.banks import check_vectors, dense_vectors
from dbnorm_vdb.collection import NormalizedCollection
from dbnorm_vdb.errors import (
    InvalidTargetError,
    StatisticsMismatchError,
    UnsupportedQueryError,
)
from dbnorm_vdb.eventloop import uninterrupted
from dbnorm_vdb.lookup import StatisticsLookup
from dbnorm_vdb.methods import Method, adjustment_range
from dbnorm_vdb.parameters import check_count
from dbnorm_vdb.searching import (
    Candidates,
    Explained,
    Explanation,
    SearchPlan,
    explanation_of,
    raw_explanation,
    result_of,
)
from dbnorm_vdb.serving import DEFAULT_STATISTICS_TTL, logger
from dbnorm_vdb.statistics import CollectionStatistics, ItemId, ItemStatistics
from dbnorm_vdb.steps import Each, Steps, Work, call, done
from dbnorm_vdb.store import Hit
from dbnorm_vdb.targets import Target

DEFAULT_CACHE_BYTES = 512 * 1024 * 1024

_BATCH = 100
_INSERT_BATCH = 1000
_REFUSED = ("ranker", "function_chains", "highlighter", "search_aggregation", "group_by_field", "group_by_fields")


class MilvusAdapter(NormalizedCollection):
    """A Milvus collection whose searches are normalised. Nothing is written before `fit`.

    The statistics of the items are held in memory (18 bytes an item, whatever its key), since asking for them
    at every search would cost more than the search; only ids not held are looked up.

    Args:
        client: the user's own `MilvusClient`; its life is the user's business.
        collection_name: the collection.
        vector_field: the vector field to normalise; may be left out when there is one.
        on_missing: see `NormalizedCollection`.
        statistics_ttl: see `NormalizedCollection`.
        cache_bytes: how much memory the items' statistics may take; beyond it they are looked up at every search.

    Example:
        >>> images = MilvusAdapter(client, "images")  # doctest: +SKIP
        >>> images.fit(query_bank=captions, gallery_bank=5000)  # doctest: +SKIP
        >>> images.search(data=[vector], limit=10, output_fields=["title"])  # doctest: +SKIP
    """

    _store: MilvusStore

    def __init__(
        self,
        client: MilvusClient,
        collection_name: str,
        vector_field: str | None = None,
        *,
        on_missing: str = "raw",
        statistics_ttl: float = DEFAULT_STATISTICS_TTL,
        cache_bytes: int = DEFAULT_CACHE_BYTES,
    ) -> None:
        check_count(cache_bytes, what="cache_bytes", least=0)
        self.client = client
        store = MilvusStore(client, collection_name, vector_field)
        super().__init__(store, on_missing=on_missing, statistics_ttl=statistics_ttl)
        self._cache_bytes = cache_bytes
        self._lookup: StatisticsLookup | None = None
        self._lookup_lock = threading.Lock()

    @classmethod
    def from_target(cls, target: Target) -> MilvusAdapter:
        """The adapter of a command-line target; the token comes from the environment, `MILVUS_TOKEN`.

        The collection is loaded if it is not.

        Raises:
            InvalidTargetError: there is no Milvus Lite file at the path.
        """
        if target.server:
            token, database = os.environ.get("MILVUS_TOKEN", ""), target.options.get("db", "")
            client = MilvusClient(target.server + target.path, token=token, db_name=database)
        elif target.path.endswith(".db") and Path(target.path).exists():
            client = MilvusClient(target.path)
        else:
            raise InvalidTargetError(f"there is no Milvus Lite file (.db) at {target.path!r}")
        if client.has_collection(target.collection):
            client.load_collection(target.collection)
        return cls(client, target.collection, target.options.get("vector"))

    @classmethod
    def embedded(
        cls, directory: str, vectors: npt.ArrayLike, payloads: Sequence[Mapping[str, Any]], *, name: str = "items"
    ) -> MilvusAdapter:
        """A new Milvus Lite collection in `directory` of (n, d) cosine vectors, ids 0 to n - 1: for demonstrations."""
        rows = check_vectors(vectors, what="vectors").tolist()
        client = MilvusClient(str(Path(directory) / "milvus.db"))
        client.create_collection(name, dimension=len(rows[0]), metric_type="COSINE", consistency_level="Strong")
        for start in range(0, len(rows), _INSERT_BATCH):
            batch = enumerate(rows[start : start + _INSERT_BATCH], start)
            client.insert(name, [{**payloads[row], "id": row, "vector": vector} for row, vector in batch])
        return cls(client, name)

    def search(
        self,
        data: Any = None,
        filter: str = "",
        limit: int = 10,
        output_fields: list[str] | None = None,
        search_params: dict[str, Any] | None = None,
        timeout: float | None = None,
        partition_names: list[str] | None = None,
        anns_field: str | None = None,
        *,
        candidates: int | None = None,
        method: str | Method | None = None,
        exact: bool = False,
        max_candidates: int | None = None,
        **kwargs: Any,
    ) -> Any:
        """`MilvusClient.search` of this collection, with the same arguments and result, normalised.

        `limit`, `offset`, `radius` and `range_filter` act on the normalised result; distances are on the engine's
        scale (for L2, the squared distance; below zero where an item ranks better than an identical average one
        would). Rows without statistics count as average rows.

        Args:
            data: (q, d) query vectors.
            candidates: how many rows to fetch and re-rank per query; by default what `fit` found to suffice, or else
                `max(10 * (offset + limit), 100)`.
            method: instead of the fitted default: `raw`, `is`, `dis`, `dual_is`, `dual_dis`, `nnn`, `sinkhorn`, as far
                as fitted.
            exact: widen the window of each query until its result is certified to be that of the whole collection,
                or as far as `max_candidates`; a warning is logged where that does not suffice.
            max_candidates: how far `exact` may go; default 10 000.
            **kwargs: what else the client takes, handed on.

        Raises:
            InvalidParameterError, NonFiniteVectorError, ZeroVectorError: bad `limit`, `candidates` or query vectors.
            UnsupportedQueryError: grouping, rankers, sparse or text queries: use the client, or `method="raw"`.
            NotFittedError, UnsupportedMethodError: `method` asks for what the statistics cannot serve.
        """
        steps = self.search_steps(
            False,
            data,
            filter,
            limit,
            output_fields,
            search_params,
            timeout,
            partition_names,
            anns_field,
            candidates=candidates,
            method=method,
            exact=exact,
            max_candidates=max_candidates,
            **kwargs,
        )
        return self._run(result_of(steps))

    def search_explained(self, *args: Any, **kwargs: Any) -> Explained[Any]:
        """`search`, and how its results came about: distances and ranks before and after, and the certificates."""
        return self._run(self.search_steps(True, *args, **kwargs))

    def search_steps(
        self,
        explained: bool,
        data: Any = None,
        filter: str = "",
        limit: int = 10,
        output_fields: list[str] | None = None,
        search_params: dict[str, Any] | None = None,
        timeout: float | None = None,
        partition_names: list[str] | None = None,
        anns_field: str | None = None,
        *,
        candidates: int | None = None,
        method: str | Method | None = None,
        exact: bool = False,
        max_candidates: int | None = None,
        **kwargs: Any,
    ) -> Steps[Explained[Any]]:
        """The steps of `search` and `search_explained`."""
        params = dict(search_params or {})
        offset = kwargs.get("offset", params.get("offset")) or 0
        plan = yield from self._plan(
            limit=limit,
            offset=offset,
            candidates=candidates,
            method=method,
            exact=exact,
            max_candidates=max_candidates,
            explained=explained,
        )
        arguments: dict[str, Any] = {
            "filter": filter,
            "output_fields": output_fields,
            "timeout": timeout,
            "partition_names": partition_names,
            "anns_field": self.vector_name if anns_field is None else anns_field,
        }
        if plan.statistics is None:
            asked = {"data": data, "limit": limit, "search_params": search_params, **arguments, **kwargs}
            results = yield from call("search", self.collection_name, **asked)
            raw = [raw_explanation([*zip(h.ids, h.distances, strict=True)], offset) for h in results if explained]
            return Explained(results, tuple(raw))
        self._check_query(data, anns_field, kwargs)
        params.pop("offset", None)
        digits = kwargs.pop("round_decimal", params.pop("round_decimal", None))
        kwargs.pop("offset", None)
        scale = SAME_SCALE[self._store.describe().metric]
        radius, range_filter = self._widen_bounds(params, plan)
        if range_filter is not None:
            plan = plan._replace(at_most=range_filter * scale)
        arguments |= kwargs
        rounds: list[Any] = []

        def fetch(rows: Sequence[int], window: int) -> Steps[list[Candidates]]:
            queries = {"data": data} if not rounds else _some(data, arguments.get("ids"), rows)
            wide = {"limit": window, "search_params": _wide_enough(params, window)}
            found = yield from call("search", self.collection_name, **{**arguments, **queries, **wide})
            rounds.append(found)
            return [Candidates(hits, hits.ids, np.array(hits.distances, dtype=np.float64) * scale) for hits in found]

        outcomes = yield from self._search(plan, _query_count(data, arguments.get("ids")), fetch, self._statistics_of)
        results, explanations = rounds[0], []
        for row, outcome in enumerate(outcomes):
            distances = (outcome.best.scores * scale).tolist()
            # a range search of Milvus: radius is the far side, exclusive
            ranks = [r for r, d in enumerate(distances) if radius is None or d * scale > radius * scale][offset:]
            if explained:
                explanations.append(explanation_of(outcome, ranks, lambda score: score * scale))
            scores = [distances[rank] for rank in ranks]
            rounded = [round(score, digits) for score in scores] if digits and digits > 0 else scores
            results[row] = outcome.candidates.hits
            keep_hits(results[row], [int(outcome.best.order[rank]) for rank in ranks], rounded)
        return Explained(results, tuple(explanations))

    def rerank(self, results: Any, *, limit: int | None = None, method: str | Method | None = None) -> Any:
        """Normalise hits that you have fetched yourself, and keep the best of each query.

        Args:
            results: of `MilvusClient.search` on this field, with the distances that the engine gave them.
            limit: how many to keep of each query; None for all.
            method: instead of the fitted default.

        Returns:
            The same object, its hits in their new order, with normalised distances.

        Raises:
            InvalidParameterError: `limit` below 1.
            NotFittedError, UnsupportedMethodError: `method` asks for what the statistics cannot serve.
        """
        return self._run(self._rerank(results, limit, method))

    def _rerank(self, results: Any, limit: int | None, method: str | Method | None) -> Steps[Any]:
        if limit is not None:
            check_count(limit, what="limit")
        most = max((len(hits) for hits in results), default=0)
        if not most:
            return results
        plan = yield from self._plan(limit=limit or most, method=method)
        if plan.statistics is None:
            for hits in results:
                keep_hits(hits, range(min(plan.wanted, len(hits))), hits.distances[: plan.wanted])
            return results
        scale = SAME_SCALE[self._store.describe().metric]
        similarities = [np.array(hits.distances, dtype=np.float64) * scale for hits in results]
        orders = [np.argsort(-one, kind="stable") for one in similarities]
        candidates = [
            Candidates(hits, [hits.ids[row] for row in order.tolist()], one[order])
            for hits, one, order in zip(results, similarities, orders, strict=True)
        ]
        outcomes = yield from self._search(
            plan, len(results), lambda rows, window: done([candidates[row] for row in rows]), self._statistics_of
        )
        for hits, order, outcome in zip(results, orders, outcomes, strict=True):
            keep_hits(hits, order[outcome.best.order].tolist(), (outcome.best.scores * scale).tolist())
        return results

    def upsert(
        self,
        data: dict[str, Any] | list[dict[str, Any]],
        timeout: float | None = None,
        partition_name: str | None = "",
        **kwargs: Any,
    ) -> Any:
        """`MilvusClient.upsert` to this collection; the rows get their statistics from the stored banks with it.

        What is written to the collection is exactly what the client would write. Rows without the vector (partial
        updates) keep what they have. The new rows are in no activation set until the next `refresh`.
        """
        return self._write_rows(self.client.upsert, data, timeout, partition_name, kwargs)

    def insert(
        self,
        data: dict[str, Any] | list[dict[str, Any]],
        timeout: float | None = None,
        partition_name: str | None = "",
        **kwargs: Any,
    ) -> Any:
        """`MilvusClient.insert` to this collection; see `upsert`."""
        return self._write_rows(self.client.insert, data, timeout, partition_name, kwargs)

    def _write_rows(
        self, write: Any, data: Any, timeout: float | None, partition_name: str | None, kwargs: dict[str, Any]
    ) -> Any:
        rows = [data] if isinstance(data, dict) else data
        info = self._store.describe()
        vectors = [row.get(info.name) if isinstance(row, dict) else None for row in rows or ()]
        there, matrix = dense_vectors(vectors, info.dimension)
        computed = self._new_items(matrix) if there else None
        with uninterrupted():  # rows are not left without their statistics
            result = write(self.collection_name, data=data, timeout=timeout, partition_name=partition_name, **kwargs)
            if computed is not None:
                written = result.get("ids") or result.get("primary_keys")  # the server may have made them
                ids = [written[row] if written else rows[row][self._store.primary_field] for row in there]
                self._write_statistics(ids, *computed)
        return result

    def _write_statistics(self, ids: Sequence[ItemId], statistics: CollectionStatistics, items: ItemStatistics) -> None:
        """Store the statistics of rows that are written; failing at it must not look like failing to write them."""
        known = np.flatnonzero(~np.isnan(items.bias(next(iter(statistics.columns))))).tolist()
        ids, items = [ids[row] for row in known], items[np.array(known, dtype=np.intp)]
        try:
            if ids:
                columns = list(statistics.columns)
                self._store.write_items(statistics.generation, ids, items, columns=columns, replace=True)
        except MilvusException:
            logger.warning(
                "collection %r: %d rows were written, but not their statistics; call refresh()",
                self.collection_name,
                len(ids),
                exc_info=True,
            )
            return
        lookup = self._lookup
        if lookup is not None and lookup.generation == statistics.generation:
            lookup.replace(ids, items)

    def nearest(
        self,
        queries: npt.ArrayLike,
        *,
        limit: int = 10,
        candidates: int | None = None,
        method: str | Method | None = None,
        exact: bool = False,
        with_payload: bool = True,
    ) -> list[list[Hit]]:
        return self._run(self._nearest(queries, limit, candidates, method, exact, with_payload))

    def _nearest(
        self,
        queries: npt.ArrayLike,
        limit: int,
        candidates: int | None,
        method: str | Method | None,
        exact: bool,
        with_payload: bool,
    ) -> Steps[list[list[Hit]]]:
        info = yield from self._described()
        vectors = check_vectors(queries, what="queries", dimension=info.dimension)
        key = self._store.primary_field
        fields = (yield Work(lambda: self._store.payload_fields)) if with_payload else [key]
        options: dict[str, Any] = {"candidates": candidates, "method": method, "exact": exact}
        batches = [vectors[start : start + _BATCH].tolist() for start in range(0, len(vectors), _BATCH)]
        answers = yield Each([self.search_steps(False, batch, "", limit, fields, **options) for batch in batches])
        found: list[list[Hit]] = []
        for answer in answers:
            for hits in answer.result:
                payloads = [{name: value for name, value in hit["entity"].items() if name != key} for hit in hits]
                rows = zip(hits.ids, hits.distances, payloads, strict=True)
                found.append([Hit(item, distance, payload) for item, distance, payload in rows])
        return found

    def nearest_explained(
        self,
        queries: npt.ArrayLike,
        *,
        limit: int = 10,
        candidates: int | None = None,
        method: str | Method | None = None,
        exact: bool = False,
    ) -> list[Explanation]:
        vectors = check_vectors(queries, what="queries").tolist()
        told: list[Explanation] = []
        for start in range(0, len(vectors), _BATCH):
            batch = vectors[start : start + _BATCH]
            told += self.search_explained(
                batch,
                limit=limit,
                output_fields=[self._store.primary_field],
                candidates=candidates,
                method=method,
                exact=exact,
            ).queries
        return told

    def _fold_target(self, name: str) -> MilvusFoldTarget:
        return MilvusFoldTarget(self._store, name)

    def _statistics_of(
        self, found: Sequence[Candidates], statistics: CollectionStatistics
    ) -> Steps[tuple[ItemStatistics, bool]]:
        """The statistics of candidates; none of them having any is a sign that the generation has been replaced."""
        items = yield from self._items(statistics, [item for candidates in found for item in candidates.ids])
        biases = items.bias(next(iter(statistics.columns)))
        return items, len(biases) > 0 and math.isnan(biases[0]) and bool(np.isnan(biases).all())

    def _items(self, statistics: CollectionStatistics, ids: Sequence[ItemId]) -> Steps[ItemStatistics]:
        lookup = self._lookup
        if lookup is None or not lookup.belongs_to(statistics):
            key = (self, "lookup", statistics.generation, statistics.revision)
            lookup = yield Work(partial(self._lookup_of, statistics), key=key)
        items, missing = lookup.find(ids)
        if missing:
            asked = list(dict.fromkeys(ids[position] for position in missing))
            read = partial(self._store.items, statistics.generation, asked, list(statistics.columns))
            found = StatisticsLookup(statistics.generation, *(yield Work(read)))
            if self._cacheable(statistics):
                lookup.remember_unknown(asked[row] for row in found.find(asked)[1])
            items.fill(missing, found.find([ids[position] for position in missing])[0])
        return items

    def _cacheable(self, statistics: CollectionStatistics) -> bool:
        return StatisticsLookup.fits(statistics.item_count, self._cache_bytes, columns=len(statistics.columns))

    def _lookup_of(self, statistics: CollectionStatistics) -> StatisticsLookup:
        """The generation's statistics in memory, read when first needed; an empty one if there are too many."""
        with self._lookup_lock:
            if self._lookup is None or not self._lookup.belongs_to(statistics):
                everything: tuple[list[ItemId], ItemStatistics] = ([], ItemStatistics.unknown(0))
                if self._cacheable(statistics):
                    everything = self._store.all_items(statistics.generation, list(statistics.columns))
                self._lookup = StatisticsLookup(statistics.generation, *everything, revision=statistics.revision)
            return self._lookup

    def _remember(self, statistics: CollectionStatistics | None) -> CollectionStatistics | None:
        lookup = self._lookup
        if lookup is not None and statistics is not None:
            lookup.forget_unknown()
        else:
            self._lookup = None
        return super()._remember(statistics)

    def _widen_bounds(self, params: dict[str, Any], plan: SearchPlan) -> tuple[float | None, float | None]:
        """Take `radius` and `range_filter`, from the top level or from "params", and widen them for the engine.

        They are meant for the normalised distance, so the engine has to return all that may come to lie between.
        """
        assert plan.statistics is not None
        inner = dict(params.get("params") or {})
        found = {name: params.pop(name, inner.pop(name, None)) for name in ("radius", "range_filter")}
        if found["range_filter"] is not None and plan.method is Method.DUAL_DIS:
            raise UnsupportedQueryError("range_filter is not supported with dual_dis; use another method, e.g. dual_is")
        if found["range_filter"] is not None and found["radius"] is not None:
            scale = SAME_SCALE[self._store.describe().metric]
            least, most = adjustment_range(plan.statistics, plan.method)
            slack = 1e-4 * (1.0 + abs(float(found["range_filter"])))
            nearest = scale * (scale * float(found["range_filter"]) + most + slack)
            params["range_filter"] = max(nearest, 0.0) if scale < 0 else nearest
            params["radius"] = scale * (scale * float(found["radius"]) + least - slack)
        if "params" in params:
            params["params"] = inner
        return found["radius"], found["range_filter"]

    def _check_query(self, data: Any, anns_field: str | None, kwargs: Mapping[str, Any]) -> None:
        """Refuse what normalisation has no meaning for; the rest of the checking is the client's."""
        if anns_field is not None and anns_field != self.vector_name:
            raise StatisticsMismatchError(
                f"this adapter normalises field {self.vector_name!r}, the search is on {anns_field!r};"
                f" make an adapter with vector_field={anns_field!r}, or search with method='raw'"
            )
        refused = [name for name in _REFUSED if kwargs.get(name) is not None]
        if refused:
            raise UnsupportedQueryError(
                f"a search with {', '.join(refused)} is not normalised; use the client, or method='raw'"
            )
        check_dense(data, self._store.describe().metric)


def _wide_enough(params: Mapping[str, Any], window: int) -> dict[str, Any]:
    """The search parameters, with HNSW's `ef` no smaller than the window: Milvus refuses to return more than that."""
    wide = dict(params)
    if isinstance(wide.get("params"), Mapping):
        wide["params"] = _wide_enough(wide["params"], window)
    if isinstance(wide.get("ef"), int):
        wide["ef"] = max(wide["ef"], window)
    return wide


def _query_count(data: Any, ids: Any) -> int:
    """How many queries a search has."""
    return len(data) if data is not None else (1 if isinstance(ids, (int, str)) else len(ids))


def _some(data: Any, ids: Any, rows: Sequence[int]) -> dict[str, Any]:
    """The queries at `rows` of a search, as it takes them."""
    if data is not None:
        return {"data": data[list(rows)] if isinstance(data, np.ndarray) else [data[row] for row in rows]}
    return {"ids": [ids] if isinstance(ids, (int, str)) else [ids[row] for row in rows]}
