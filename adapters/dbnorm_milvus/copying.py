"""The folded copy of a Milvus collection: made like the source, filled with whole rows, compared row by row."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from pymilvus import CollectionSchema, DataType

from dbnorm_milvus.rows import one_of
from dbnorm_milvus.store import MilvusStore
from dbnorm_vdb.banks import Vectors
from dbnorm_vdb.copying import FoldPage, FoldTarget
from dbnorm_vdb.errors import ForeignDataError, UnsupportedCollectionError
from dbnorm_vdb.folding import FOLDED_KEY
from dbnorm_vdb.statistics import CollectionStatistics, ItemId, ItemStatistics, Metric

_IDS_PAGE = 10_000
_FETCH = 1000
_PROPERTIES = ("collection.ttl.seconds", "mmap.enabled", "partitionkey.isolation")
_NOT_PARAMETERS = {
    "index_type",
    "metric_type",
    "field_name",
    "index_name",
    "total_rows",
    "indexed_rows",
    "pending_index_rows",
    "state",
}
_KINDS = {
    DataType.BOOL,
    DataType.INT8,
    DataType.INT16,
    DataType.INT32,
    DataType.INT64,
    DataType.FLOAT,
    DataType.DOUBLE,
    DataType.VARCHAR,
    DataType.JSON,
    DataType.ARRAY,
    DataType.FLOAT_VECTOR,
    DataType.SPARSE_FLOAT_VECTOR,
}


class _Row(NamedTuple):
    """A row, and the partition it is in, where that has to be said."""

    fields: dict[str, Any]
    partition: str | None


class MilvusFoldTarget(FoldTarget):
    """Copies the collection of a store, through its client."""

    def __init__(self, store: MilvusStore, name: str) -> None:
        self._store = store
        self._client = store.client
        self.name = name
        self._vector = store.describe().name
        self._key = store.primary_field
        description = self._client.describe_collection(store.collection)
        self._fields = [field["name"] for field in description["fields"]]
        if description.get("enable_dynamic_field"):
            self._fields.append("$meta")
        self._partitioned = False
        self._partitions: list[str | None] = [None]
        if not any(field.get("is_partition_key") for field in description["fields"]):
            names = self._client.list_partitions(store.collection)
            self._partitions = [*names] if len(names) > 1 else [None]

    # --- the collection ----------------------------------------------------------------------------------------

    def read_document(self) -> object | None:
        if not self._client.has_collection(self.name):
            return None
        description = self._client.describe_collection(self.name)
        document: object = (description.get("properties") or {}).get(FOLDED_KEY)
        if document is None or description.get("collection_name", self.name) != self.name:
            raise ForeignDataError(f"collection {self.name!r} exists and is not a folded copy; pick another name")
        return document

    def create(self, document: dict[str, Any]) -> None:
        description = self._client.describe_collection(self._store.collection)
        self._check_copyable(description)
        schema = CollectionSchema.construct_from_dict({**description, "auto_id": False})
        for field in schema.fields:
            field.auto_id = False
            if field.name == self._vector:
                field.params["dim"] = int(field.params["dim"]) + 1
        kept = {k: v for k, v in (description.get("properties") or {}).items() if k in _PROPERTIES}
        keyed = any(field.is_partition_key for field in schema.fields)
        self._client.create_collection(
            self.name,
            schema=schema,
            index_params=self._indexes(),
            consistency_level=description.get("consistency_level", "Bounded"),
            num_shards=description.get("num_shards", 1),
            properties={**kept, FOLDED_KEY: json.dumps(document)},
            **({"num_partitions": description["num_partitions"]} if keyed else {}),
        )

    def _check_copyable(self, description: Mapping[str, Any]) -> None:
        kinds = {field["name"]: DataType(field["type"]) for field in description["fields"]}
        problems = [f"field {name!r} is a {kind.name}" for name, kind in kinds.items() if kind not in _KINDS]
        problems += [f"there is a function {one.get('name')!r}" for one in description.get("functions") or ()]
        problems += [f"there is a struct {one.get('name')!r}" for one in description.get("struct_array_fields") or ()]
        if problems:
            raise UnsupportedCollectionError(
                f"collection {self._store.collection!r} cannot be copied yet: {'; '.join(problems)}"
            )

    def _indexes(self) -> Any:
        """The source's indexes; the folded field is compared so that its last dimension counts."""
        copied = self._client.prepare_index_params()
        for name in self._client.list_indexes(self._store.collection):
            index = self._client.describe_index(self._store.collection, name)
            metric = index.get("metric_type")
            if index["field_name"] == self._vector:
                metric = "L2" if self._store.describe().metric is Metric.EUCLIDEAN else "IP"
            copied.add_index(
                index["field_name"],
                index_type=index["index_type"],
                index_name=index["index_name"],
                params={key: value for key, value in index.items() if key not in _NOT_PARAMETERS},
                **({"metric_type": metric} if metric else {}),
            )
        return copied

    def write_document(self, document: dict[str, Any]) -> None:
        self._client.flush(self.name)  # so that what was written is stored and indexed first
        self._store.write_property(self.name, FOLDED_KEY, document)

    # --- rows --------------------------------------------------------------------------------------------------

    def pages(self, size: int, statistics: CollectionStatistics) -> Iterator[FoldPage]:
        for partition in self._partitions:
            for rows in self._store.scan(self._store.collection, self._key, size, self._fields, partition=partition):
                yield self._page([_Row(dict(row), partition) for row in rows], statistics)

    def fetch(self, ids: Sequence[ItemId], statistics: CollectionStatistics) -> FoldPage:
        rows = [
            _Row(dict(row), partition)
            for partition in self._partitions
            for row in self._query(self._store.collection, ids, partition)
        ]
        return self._page(rows, statistics)

    def _query(self, collection: str, ids: Sequence[ItemId], partition: str | None = None) -> list[Any]:
        rows: list[Any] = []
        for start in range(0, len(ids), _FETCH):
            rows += self._client.query(
                collection,
                filter=one_of(self._key, ids[start : start + _FETCH]),
                output_fields=self._fields,
                partition_names=None if partition is None else [partition],
                consistency_level="Strong",
                strict_float32=True,
            )
        return rows

    def _page(self, rows: Sequence[_Row], statistics: CollectionStatistics) -> FoldPage:
        ids = [row.fields[self._key] for row in rows]
        there = np.array([row.fields.get(self._vector) is not None for row in rows], dtype=np.bool_)
        vectors = np.zeros((len(rows), self._store.describe().dimension), dtype=np.float32)
        for position in np.flatnonzero(there).tolist():
            vectors[position] = rows[position].fields[self._vector]
        found, stored = self._store.items(statistics.generation, ids, list(statistics.columns))
        items = ItemStatistics.unknown(len(rows))
        row_of = {item: position for position, item in enumerate(ids)}
        items.fill([row_of[item] for item in found], stored)
        return FoldPage(ids, vectors, there, items, rows)

    def write(self, page: FoldPage, folded: Vectors, *, replace: bool, batch_size: int | None) -> None:
        write = self._client.upsert if replace else self._client.insert
        self._create_partitions()
        size = batch_size or self._store.batch_size
        copies = list(self._copies(page, folded))
        for partition in self._partitions:
            rows = [row for row, kept in zip(copies, page.records, strict=True) if kept.partition == partition]
            for start in range(0, len(rows), size):
                write(self.name, rows[start : start + size], partition_name=partition or "")

    def _create_partitions(self) -> None:
        """Those of the source, as far as they are missing: once, since a fold may die at any point."""
        if not self._partitioned and self._partitions != [None]:
            for partition in set(self._partitions) - set(self._client.list_partitions(self.name)):
                self._client.create_partition(self.name, partition)
        self._partitioned = True

    def _copies(self, page: FoldPage, folded: Vectors) -> Iterator[dict[str, Any]]:
        """Of each row of a page, what its copy has to be."""
        for row, there, vector in zip(page.records, page.there.tolist(), folded, strict=True):
            yield {**row.fields, self._vector: vector if there else None}

    def differing(self, page: FoldPage, folded: Vectors) -> list[int]:
        found = {row[self._key]: row for row in self._query(self.name, page.ids)}
        return [
            position
            for position, copy in enumerate(self._copies(page, folded))
            if copy[self._key] not in found or not _same_rows(found[copy[self._key]], copy)
        ]

    def ids(self) -> Iterator[list[ItemId]]:
        for rows in self._store.scan(self.name, self._key, _IDS_PAGE):
            yield [row[self._key] for row in rows]

    def count(self) -> int:
        return self._store.count_of(self.name)

    def delete(self, ids: Sequence[ItemId]) -> None:
        self._client.delete(self.name, ids=list(ids))


def _same_rows(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    return found.keys() == wanted.keys() and all(_same(found[name], value) for name, value in wanted.items())


def _same(found: Any, wanted: Any) -> bool:
    if isinstance(wanted, np.ndarray):
        return found is not None and np.array_equal(np.asarray(found, dtype=np.float32), wanted)
    return bool(found == wanted)
