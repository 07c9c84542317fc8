"""MilvusAdapter: `MilvusClient.search` of one collection, normalised."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pymilvus import AsyncMilvusClient, MilvusClient

from dbnorm_milvus.copying import MilvusFoldTarget
from dbnorm_milvus.hybrid import MilvusHybridSearches
from dbnorm_milvus.store import CLIENT_ERRORS, MilvusStore
from dbnorm_vdb.banks import check_vectors, dense_vectors
from dbnorm_vdb.caching import DEFAULT_CACHE_BYTES
from dbnorm_vdb.errors import InvalidParameterError, InvalidTargetError
from dbnorm_vdb.eventloop import uninterrupted
from dbnorm_vdb.fallbacks import logger
from dbnorm_vdb.planning import DEFAULT_STATISTICS_TTL
from dbnorm_vdb.statistics import CollectionStatistics, ItemId, ItemStatistics
from dbnorm_vdb.stepped import steps_of
from dbnorm_vdb.steps import Steps, Work
from dbnorm_vdb.store import Hit
from dbnorm_vdb.targets import Target
from dbnorm_vdb.wrapping import unwrapped

_INSERT_BATCH = 1000


class MilvusAdapter(MilvusHybridSearches):
    """A Milvus collection whose searches are normalised. Nothing is written before `fit`.

    By default the statistics of the items are held in memory (18 bytes an item, whatever its key), since asking for
    them at every search would cost more than the search; only ids not held are looked up.

    Args:
        client: the user's own `MilvusClient`; its life is the user's business.
        collection_name: the collection.
        vector_field: the vector field to normalise; may be left out when there is one.
        on_missing, statistics_ttl, cache, cache_bytes: see `dbnorm_vdb.planning.Planning`.

    Example:
        >>> images = MilvusAdapter(client, "images")  # doctest: +SKIP
        >>> images.fit(query_bank=captions, gallery_bank=5000)  # doctest: +SKIP
        >>> images.search(data=[vector], limit=10, output_fields=["title"])  # doctest: +SKIP
    """

    def __init__(
        self,
        client: MilvusClient,
        collection_name: str,
        vector_field: str | None = None,
        *,
        on_missing: str = "raw",
        statistics_ttl: float = DEFAULT_STATISTICS_TTL,
        cache: str = "all",
        cache_bytes: int = DEFAULT_CACHE_BYTES,
    ) -> None:
        self.client = client = unwrapped(client)
        if isinstance(client, AsyncMilvusClient):
            raise InvalidParameterError(
                "MilvusAdapter takes a MilvusClient; for an AsyncMilvusClient use AsyncMilvusAdapter"
            )
        super().__init__(
            MilvusStore(client, collection_name, vector_field),
            on_missing=on_missing,
            statistics_ttl=statistics_ttl,
            cache=cache,
            cache_bytes=cache_bytes,
        )

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
        elif "db" in target.options:
            raise InvalidTargetError("a Milvus Lite file has one database; leave 'db' out of the URL")
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
        rows = data if isinstance(data, list) else [data]  # what is neither a row nor a list, the client refuses
        active = self._fitted_before_writing()
        info = self._store.describe()
        vectors = [row.get(info.name) if isinstance(row, dict) else None for row in rows]
        there, matrix = dense_vectors(vectors, info.dimension)
        computed = self._new_items(active, matrix) if active is not None and there else None
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
        except CLIENT_ERRORS:
            logger.warning(
                "collection %r: %d rows were written, but not their statistics; call refresh()",
                self.collection_name,
                len(ids),
                exc_info=True,
            )
            return
        self._items.put(statistics, ids, items)

    def _search_of_batches(
        self, explained: bool, limit: int, with_payload: bool, options: Mapping[str, Any]
    ) -> Steps[Callable[[list[list[float]]], Steps[Any]]]:
        fields = (yield Work(lambda: self._store.payload_fields)) if with_payload else [self._store.primary_field]
        searching = steps_of(self.search_explained if explained else self.search)
        return lambda vectors: searching(vectors, "", limit, fields, **options)

    def _hits(self, found: Any) -> list[list[Hit]]:
        key = self._store.primary_field
        several: list[list[Hit]] = []
        for hits in found:
            payloads = [{name: value for name, value in hit["entity"].items() if name != key} for hit in hits]
            rows = zip(hits.ids, hits.distances, payloads, strict=True)
            several.append([Hit(item, distance, payload) for item, distance, payload in rows])
        return several

    def _fold_target(self, name: str) -> MilvusFoldTarget:
        return MilvusFoldTarget(self._store, name)
