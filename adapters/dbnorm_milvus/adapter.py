"""MilvusAdapter: `MilvusClient.search` of one collection, normalised."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np
import numpy.typing as npt
from pymilvus import MilvusClient

from dbnorm_milvus.results import SAME_SCALE, keep_hits
from dbnorm_milvus.store import MilvusStore
from dbnorm_vdb.banks import check_vectors
from dbnorm_vdb.collection import DEFAULT_STATISTICS_TTL, NormalizedCollection
from dbnorm_vdb.errors import (
    InvalidTargetError,
    NonFiniteVectorError,
    StatisticsMismatchError,
    UnsupportedQueryError,
    ZeroVectorError,
)
from dbnorm_vdb.lookup import StatisticsLookup
from dbnorm_vdb.methods import Method
from dbnorm_vdb.parameters import check_count
from dbnorm_vdb.reranking import rerank
from dbnorm_vdb.statistics import CollectionStatistics, ItemId, ItemStatistics, Metric
from dbnorm_vdb.store import Hit

DEFAULT_CACHE_BYTES = 512 * 1024 * 1024

_BATCH = 100
_INSERT_BATCH = 1000
_REFUSED = ("ranker", "function_chains", "highlighter", "search_aggregation", "group_by_field")


class MilvusAdapter(NormalizedCollection):
    """A Milvus collection whose searches are normalised. Nothing is written before `fit`.

    The statistics of the items are held in memory (about 18 bytes an item with integer keys), since asking for them
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
    def from_url(cls, url: str) -> MilvusAdapter:
        """The adapter of `milvus+http://host:19530/images`, `milvus+https://...` or `milvus:///path/file.db/images`.

        `?vector=name` names the vector field, `?db=name` the database. The token comes from the environment,
        `MILVUS_TOKEN`. The collection is loaded if it is not.
        """
        parts = urlsplit(url)
        location, _, collection = unquote(parts.path).rpartition("/")
        query = parse_qs(parts.query)
        if not collection:
            raise InvalidTargetError(f"{url!r} names no collection; use e.g. milvus+http://localhost:19530/images")
        if parts.username or parts.password:
            raise InvalidTargetError("credentials do not belong into the URL; set MILVUS_TOKEN in the environment")
        if parts.scheme == "milvus":
            if parts.netloc or not location.endswith(".db"):
                raise InvalidTargetError(f"{url!r}: a Milvus Lite file is milvus:///path/to/file.db/collection")
            client = MilvusClient(location)
        elif parts.hostname:
            scheme = parts.scheme.partition("+")[2]
            client = MilvusClient(
                f"{scheme}://{parts.netloc}{location}",
                token=os.environ.get("MILVUS_TOKEN", ""),
                db_name=query.get("db", [""])[0],
            )
        else:
            raise InvalidTargetError(f"{url!r} names no host; use e.g. milvus+http://localhost:19530/images")
        if client.has_collection(collection):
            client.load_collection(collection)
        return cls(client, collection, query.get("vector", [None])[0])

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
        **kwargs: Any,
    ) -> Any:
        """`MilvusClient.search` of this collection, with the same arguments and result, normalised.

        `limit`, `offset`, `radius` and `range_filter` act on the normalised result; distances are on the engine's
        scale (for L2, the squared distance; below zero where an item ranks better than an identical average one
        would). Rows without statistics count as average rows.

        Args:
            data: (q, d) query vectors.
            candidates: how many rows to fetch and re-rank per query; default `max(10 * (offset + limit), 100)`.
            method: instead of the fitted default: `raw`, `is`, `dis`, `dual_is`, `dual_dis`, as far as fitted.
            **kwargs: what else the client takes, handed on.

        Raises:
            InvalidParameterError, NonFiniteVectorError, ZeroVectorError: bad `limit`, `candidates` or query vectors.
            UnsupportedQueryError: grouping, rankers, sparse or text queries: use the client, or `method="raw"`.
            NotFittedError, UnsupportedMethodError: `method` asks for what the statistics cannot serve.
        """
        params = dict(search_params or {})
        offset = kwargs.get("offset", params.get("offset")) or 0
        plan = self._plan(limit=limit, offset=offset, candidates=candidates, method=method)
        arguments: dict[str, Any] = {
            "data": data,
            "filter": filter,
            "output_fields": output_fields,
            "timeout": timeout,
            "partition_names": partition_names,
            "anns_field": self.vector_name if anns_field is None else anns_field,
        }
        if plan.statistics is None:
            return self.client.search(
                self.collection_name, limit=limit, search_params=search_params, **arguments, **kwargs
            )
        self._check_query(data, anns_field, kwargs)
        params.pop("offset", None)
        digits = kwargs.pop("round_decimal", params.pop("round_decimal", None))
        kwargs.pop("offset", None)
        bounds = _pop_bounds(params)
        results = self.client.search(
            self.collection_name, limit=plan.window, search_params=params, **arguments, **kwargs
        )
        statistics, items = self._statistics_of(plan.statistics, [item for hits in results for item in hits.ids])
        first = 0
        for hits in results:
            last = first + len(hits.ids)
            rows, distances = self._rerank(hits, items[first:last], statistics, plan.method, offset + limit)
            first = last
            kept = [i for i, distance in enumerate(distances) if self._within(distance, bounds)][offset:]
            scores = [distances[i] for i in kept]
            rounded = [round(score, digits) for score in scores] if digits and digits > 0 else scores
            keep_hits(hits, [rows[i] for i in kept], rounded)
        return results

    def nearest(
        self,
        queries: npt.ArrayLike,
        *,
        limit: int = 10,
        candidates: int | None = None,
        method: str | Method | None = None,
        with_payload: bool = True,
    ) -> list[list[Hit]]:
        vectors = check_vectors(queries, what="queries", dimension=self._store.describe().dimension)
        key = self._store.primary_field
        fields = self._store.payload_fields if with_payload else [key]
        found: list[list[Hit]] = []
        for start in range(0, len(vectors), _BATCH):
            results = self.search(
                vectors[start : start + _BATCH].tolist(),
                limit=limit,
                output_fields=fields,
                candidates=candidates,
                method=method,
            )
            for hits in results:
                payloads = [{name: value for name, value in hit["entity"].items() if name != key} for hit in hits]
                rows = zip(hits.ids, hits.distances, payloads, strict=True)
                found.append([Hit(item, distance, payload) for item, distance, payload in rows])
        return found

    def _rerank(
        self, hits: Any, items: ItemStatistics, statistics: CollectionStatistics, method: Method, limit: int
    ) -> tuple[list[int], list[float]]:
        """Rows and distances of the best hits of one query."""
        scale = SAME_SCALE[self._store.describe().metric]
        similarities = np.array(list(hits.distances), dtype=np.float64) * scale
        best = rerank(similarities, items, statistics, limit=limit, method=method)
        return best.order.tolist(), (best.scores * scale).tolist()

    def _statistics_of(
        self, statistics: CollectionStatistics, ids: Sequence[ItemId]
    ) -> tuple[CollectionStatistics, ItemStatistics]:
        """The statistics of items, and the generation they are of.

        None of them having any is the sign that another fit has replaced the generation since it was read.
        """
        items = self._items(statistics, ids)
        if len(items) and np.isnan(items.bias(next(iter(statistics.banks)))).all():
            newer = self._newer_statistics(statistics)
            if newer is not None:
                return newer, self._items(newer, ids)
        return statistics, items

    def _items(self, statistics: CollectionStatistics, ids: Sequence[ItemId]) -> ItemStatistics:
        banks = list(statistics.banks)
        lookup = self._lookup_of(statistics)
        items, missing = lookup.find(ids)
        if missing:
            asked = list(dict.fromkeys(ids[position] for position in missing))
            found = StatisticsLookup(statistics.generation, *self._store.items(statistics.generation, asked, banks))
            if self._cacheable(statistics):
                lookup.remember_unknown(asked[row] for row in found.find(asked)[1])
            items.fill(missing, found.find([ids[position] for position in missing])[0])
        return items

    def _cacheable(self, statistics: CollectionStatistics) -> bool:
        return StatisticsLookup.fits(statistics.item_count, self._cache_bytes)

    def _lookup_of(self, statistics: CollectionStatistics) -> StatisticsLookup:
        """The generation's statistics in memory, read when first needed; an empty one if there are too many."""
        with self._lookup_lock:
            if self._lookup is None or self._lookup.generation != statistics.generation:
                everything: tuple[list[ItemId], ItemStatistics] = ([], ItemStatistics.unknown(0))
                if self._cacheable(statistics):
                    everything = self._store.all_items(statistics.generation, list(statistics.banks))
                self._lookup = StatisticsLookup(statistics.generation, *everything)
            return self._lookup

    def _remember(self, statistics: CollectionStatistics | None) -> CollectionStatistics | None:
        if self._lookup is not None:
            self._lookup.forget_unknown()
        return super()._remember(statistics)

    def _within(self, distance: float, bounds: tuple[float | None, float | None]) -> bool:
        """Milvus' range search, on the normalised distance: radius is the far side, exclusive."""
        scale = SAME_SCALE[self._store.describe().metric]
        radius, range_filter = bounds
        return (radius is None or distance * scale > radius * scale) and (
            range_filter is None or distance * scale <= range_filter * scale
        )

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
        if data is None:
            return
        try:
            vectors = np.asarray(data)
        except ValueError:  # ragged: the client says so
            return
        if vectors.size and vectors.dtype.kind not in "fiu":
            raise UnsupportedQueryError(
                "only dense float query vectors are normalised; use the client, or method='raw'"
            )
        if not np.isfinite(vectors).all():
            raise NonFiniteVectorError("the query vectors hold NaN or infinite values; re-embed the queries")
        if self._store.describe().metric is Metric.COSINE and vectors.ndim == 2 and not vectors.any(axis=1).all():
            row = int((~vectors.any(axis=1)).argmax())
            raise ZeroVectorError(f"query vector {row} is all zeros and has no direction; re-embed the query")


def _pop_bounds(params: dict[str, Any]) -> tuple[float | None, float | None]:
    """Take `radius` and `range_filter` out of search parameters, from the top level or from "params"."""
    inner = dict(params.get("params") or {})
    bounds = tuple(params.pop(name, inner.pop(name, None)) for name in ("radius", "range_filter"))
    if "params" in params:
        params["params"] = inner
    return bounds[0], bounds[1]
