"""What is stored in Milvus, and how: one collection property, and companion collections.

The user's rows are never rewritten. Per-item statistics live in `<name>__dbnorm`, the banks in `<name>__dbnorm_bank`;
the generation that follows lives in the same names with `_alt` behind them, the next in the first ones again. After a
fit one of the two slots is left. So a generation is removed by dropping collections, not by deleting rows.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from grpc import RpcError
from pymilvus import DataType, MilvusClient, MilvusException

from dbnorm_milvus.columns import put_columns, values_of, vectors_of
from dbnorm_milvus.rows import (
    BANK_FIELDS,
    ITEM_FIELDS,
    bank_schema,
    columns_of,
    item_schema,
    items_of,
    literal,
    one_of,
    rows_of,
)
from dbnorm_vdb.banks import Vectors
from dbnorm_vdb.errors import (
    ForeignDataError,
    UnknownVectorError,
    UnsupportedMetricError,
    UnsupportedVectorError,
)
from dbnorm_vdb.lookup import StatisticsLookup
from dbnorm_vdb.statistics import BANKS, Floats, ItemId, ItemStatistics, Metric
from dbnorm_vdb.store import (
    BANK_SUFFIX,
    BOUNDS_KEY,
    CHECKPOINT,
    ITEMS_SUFFIX,
    KEY,
    SLOTS,
    Page,
    Store,
    VectorInfo,
    checkpoint_rows,
    first_bank_id,
    joined_checkpoint,
    slot,
)

METRICS = {"COSINE": Metric.COSINE, "IP": Metric.DOT, "L2": Metric.EUCLIDEAN}
SAME_SCALE = {Metric.COSINE: 1.0, Metric.DOT: 1.0, Metric.EUCLIDEAN: -1.0}
"""Milvus' distance times this is the similarity, and the other way round: L2 is the squared distance."""

CLIENT_ERRORS = (MilvusException, RpcError)
"""What a failed call of the client raises: some refusals and time-outs of a server come as gRPC's own."""

_WRITE_BATCH = 1000
_LOOKUP_BATCH = 1000
_IDS_PAGE = 10_000
_LARGEST_PAGE = 16_384
_IN_ORDER = {"iterator": "True", "reduce_stop_for_best": "True"}
"""What makes the server return the rows of the lowest keys, in their order."""

_CHECKPOINT_PART = 60_000  # a JSON value may have 65 536 bytes


class MilvusStore(Store):
    """One vector field of one collection, through the user's own client."""

    engine = "milvus"
    max_window = 16_384
    batch_size = _WRITE_BATCH

    def __init__(self, client: MilvusClient, collection_name: str, vector_field: str | None) -> None:
        self.client = client
        self.collection = collection_name
        self._asked_vector = vector_field
        self._info: VectorInfo | None = None
        self._primary: dict[str, Any] = {}
        self._fields: dict[str, DataType] = {}
        self._metrics: dict[str, str | None] = {}
        self._real_name = collection_name
        self._lite: bool | None = None
        self._checkpoint_ids: set[int] = set()

    def close(self) -> None:
        self.client.close()

    @property
    def described(self) -> bool:
        return self._info is not None

    @property
    def known_field(self) -> str | None:
        """The vector field, as far as it is known without asking the database."""
        return self._info.name if self._info is not None else self._asked_vector

    @property
    def concurrent(self) -> bool:
        return not self.lite

    @property
    def lite(self) -> bool:
        """Whether this is Milvus Lite, which returns other fields unasked, and breaks ties otherwise, than a server."""
        if self._lite is None:
            # "milvus_lite-3.2.2"; the wheel of the real server says "v2.3.5-lite"
            self._lite = str(self.client.get_server_version()).startswith("milvus_lite")
        return self._lite

    # --- reading -----------------------------------------------------------------------------------------------

    def describe(self, *, fresh: bool = False) -> VectorInfo:
        if self._info is None or fresh:
            self._info = self._describe()
        return self._info

    def _describe(self) -> VectorInfo:
        description = self.client.describe_collection(self.collection)
        self._real_name = description.get("collection_name") or self.collection  # the collection may be an alias
        fields = {field["name"]: field for field in description["fields"]}
        self._fields = {name: DataType(field["type"]) for name, field in fields.items()}
        self._metrics = {}
        (self._primary,) = (field for field in fields.values() if field.get("is_primary"))
        vectors = [name for name, kind in self._fields.items() if "VECTOR" in kind.name]
        name = self._asked_vector
        if name is None and len(vectors) == 1:
            (name,) = vectors
        if name is None or name not in vectors:
            asked = "it has several: name one (vector_field=...)" if name is None else f"no vector field {name!r}"
            raise UnknownVectorError(
                f"collection {self.collection!r}: {asked}; its vector fields are {sorted(vectors) or 'none'}"
            )
        kind = self._fields[name]
        if kind is not DataType.FLOAT_VECTOR:
            raise UnsupportedVectorError(
                f"collection {self.collection!r}: field {name!r} is a {kind.name}; supported is FLOAT_VECTOR"
            )
        metric = self.metric_of(name)
        if metric not in METRICS:
            raise UnsupportedMetricError(
                f"collection {self.collection!r}: field {name!r} is compared by {metric or 'nothing (it has no index)'}"
                f"; supported are {', '.join(METRICS)}"
            )
        return VectorInfo(name, int(fields[name]["params"]["dim"]), METRICS[metric])

    def metric_of(self, field: str) -> str | None:
        """How a vector field is compared, in Milvus' words; None if it has no index."""
        if field not in self._metrics:
            self._metrics[field] = self._metric(field)
        return self._metrics[field]

    def _metric(self, field: str) -> str | None:
        for index_name in self.client.list_indexes(self.collection):
            index = self.client.describe_index(self.collection, index_name)
            if index and index.get("field_name") == field:
                return str(index["metric_type"]).upper()
        return None

    @property
    def default_field(self) -> str | None:
        """The vector field of a search that names none: the only one; Lite takes the first dense one of several."""
        self.describe()
        vectors = [name for name, kind in self._fields.items() if "VECTOR" in kind.name]
        dense = [name for name in vectors if self._fields[name] is DataType.FLOAT_VECTOR]
        return next(iter(vectors if len(vectors) == 1 else dense), None)

    def kind_of(self, field: str) -> DataType | None:
        """The type of a field; None if there is none of that name, as for dynamic ones."""
        self.describe()
        return self._fields.get(field)

    @property
    def primary_field(self) -> str:
        """The name of the user's primary key."""
        self.describe()
        return str(self._primary["name"])

    @property
    def payload_fields(self) -> list[str]:
        """The names of the user's fields other than vectors, and what holds the dynamic ones."""
        description = self.client.describe_collection(self.collection)
        names = [field["name"] for field in description["fields"] if "VECTOR" not in DataType(field["type"]).name]
        return [*names, "$meta"] if description.get("enable_dynamic_field") else names

    def count(self) -> int:
        return self.count_of(self.collection)

    def count_fitted(self, generation: int, *, just_written: bool = False) -> int:
        """Rows of the generation's companion; those of items deleted since the fit count too."""
        companion = self._items_of(generation)
        # all rows are soon counted; to look at the generation of each takes a while
        expression = "" if just_written else f"generation == {generation}"
        return self.count_of(companion, expression) if self._load(companion) else 0

    def count_of(self, collection: str, expression: str = "") -> int:
        """The number of rows of a collection, or of those that an expression holds for."""
        rows = self.client.query(collection, filter=expression, output_fields=["count(*)"], consistency_level="Strong")
        return int(rows[0]["count(*)"])

    def pages(self, size: int, *, after: ItemId | None = None) -> Iterator[Page]:
        info = self.describe()
        expression = "" if after is None else f"{self.primary_field} > {literal(after)}"
        for rows in self.scan(self.collection, self.primary_field, size, [info.name], expression, counted=True):
            yield self._page(rows)

    def ids(self) -> Iterator[list[ItemId]]:
        for rows in self.scan(self.collection, self.primary_field, _IDS_PAGE):
            yield [row[self.primary_field] for row in rows]

    def fetch(self, ids: Sequence[ItemId]) -> Page:
        rows: list[Any] = []
        for start in range(0, len(ids), _LOOKUP_BATCH):
            rows += self.client.query(
                self.collection,
                filter=one_of(self.primary_field, ids[start : start + _LOOKUP_BATCH]),
                output_fields=[self.primary_field, self.describe().name],
                consistency_level="Strong",
                strict_float32=True,
            )
        return self._page(rows)

    def ids_of(self, keys: Sequence[str]) -> list[ItemId]:
        self.describe()
        if self._primary["type"] == DataType.VARCHAR:
            return list(keys)
        numbers = [int(key) for key in keys if re.fullmatch(r"-?[0-9]{1,19}", key)]
        return [number for number in numbers if -(2**63) <= number < 2**63]

    def payloads(self, ids: Sequence[ItemId]) -> dict[ItemId, Mapping[str, Any]]:
        key, fields = self.primary_field, self.payload_fields
        found: dict[ItemId, Mapping[str, Any]] = {}
        for start in range(0, len(ids), _LOOKUP_BATCH):
            expression = one_of(key, ids[start : start + _LOOKUP_BATCH])
            rows = self.client.query(
                self.collection, filter=expression, output_fields=fields, consistency_level="Strong"
            )
            found |= {row[key]: {name: value for name, value in row.items() if name != key} for row in rows}
        return found

    def scores(self, similarities: Floats) -> Floats:
        return similarities * SAME_SCALE[self.describe().metric]

    def similarities(self, scores: Floats) -> Floats:
        return scores * SAME_SCALE[self.describe().metric]

    def _page(self, rows: Sequence[Mapping[str, Any]]) -> Page:
        info = self.describe()
        whole = vectors_of(rows, info.name, info.dimension) if rows else None
        if whole is not None:
            return Page(values_of(rows, self.primary_field), whole)
        there = [row for row in rows if row.get(info.name) is not None]
        vectors = np.array([row[info.name] for row in there], dtype=np.float32).reshape(len(there), info.dimension)
        return Page([row[self.primary_field] for row in there], vectors)

    def scan(
        self,
        collection: str,
        key: str,
        size: int,
        fields: Sequence[str] = (),
        expression: str = "",
        *,
        partition: str | None = None,
        counted: bool = False,
    ) -> Iterator[list[Any]]:
        """These fields, and the primary `key`, of all rows in the order of that, in pages.

        What the client's `query_iterator` does, which its async form lacks. One strong read brings the node up to
        date, unless the rows were `counted` before; the pages then need not wait. A page may be short, and the next
        one not: a server stops where one of its segments ends.
        """
        if not counted:
            self.count_of(collection)
        size = min(size, _LARGEST_PAGE)
        left = f"({expression}) and " if expression else ""
        beyond = expression
        while rows := self.client.query(
            collection,
            filter=beyond,
            output_fields=list({key: None, **dict.fromkeys(fields)}),
            partition_names=None if partition is None else [partition],
            limit=size,
            strict_float32=True,  # vectors as arrays: half the time
            **_IN_ORDER,
        ):
            if len(rows) <= size:
                yield rows
            else:  # a server may return more than asked for
                yield from (rows[start : start + size] for start in range(0, len(rows), size))
            beyond = f"{left}{key} > {literal(rows[len(rows) - 1][key])}"

    # --- the collection level ----------------------------------------------------------------------------------

    def read_documents(self) -> dict[str, object]:
        properties = self.client.describe_collection(self.collection).get("properties") or {}
        return {key: value for key, value in properties.items() if key == KEY or key.startswith(BOUNDS_KEY)}

    def write_document(self, key: str, document: Mapping[str, Any] | None) -> None:
        if document is None:
            self._remove_property(key)
            return
        self.write_property(self.collection, key, document)

    def write_property(self, collection: str, key: str, document: Mapping[str, Any]) -> None:
        """Store a document as a property of a collection."""
        # twice: an old server forgets the last change of a property when it is stopped uncleanly
        for _ in range(2):
            self.client.alter_collection_properties(collection, properties={key: json.dumps(document)})

    def _remove_property(self, key: str) -> None:
        try:
            self.client.drop_collection_properties(self.collection, [key])
        except MilvusException:
            # servers before 2.5 cannot remove a property
            self.client.alter_collection_properties(self.collection, properties={key: ""})

    def check_writable(self) -> None:
        for which in SLOTS:
            self._our_companions(which)

    def has_leftovers(self) -> bool:
        self.describe()
        return any(self._our_companions(which, refuse=False) for which in SLOTS)

    def has_banks(self, generation: int) -> bool:
        return bool(self.client.has_collection(self._banks_of(generation)))

    def _our_companions(self, which: str, *, refuse: bool = True) -> list[str]:
        """Those of a slot's companions that exist; ForeignDataError if a name is taken by something else."""
        ours = []
        for suffix, fields in ((ITEMS_SUFFIX, ITEM_FIELDS), (BANK_SUFFIX, BANK_FIELDS)):
            name = self._real_name + suffix + which
            if not self.client.has_collection(name):
                continue
            if {field["name"] for field in self.client.describe_collection(name)["fields"]} == fields:
                ours.append(name)
            elif refuse:
                raise ForeignDataError(
                    f"collection {name!r} exists and was not made by this library; rename it, then fit"
                )
        return ours

    def _items_of(self, generation: int) -> str:
        return self._real_name + ITEMS_SUFFIX + slot(generation)

    def _banks_of(self, generation: int) -> str:
        return self._real_name + BANK_SUFFIX + slot(generation)

    def _load(self, collection: str) -> bool:
        """Load a companion unless it is; whether it exists."""
        if not self.client.has_collection(collection):
            return False
        if str(self.client.get_load_state(collection)["state"]).rpartition(".")[2] != "Loaded":
            self.client.load_collection(collection)
        return True

    # --- writing -----------------------------------------------------------------------------------------------

    def begin(self, generation: int, dimension: int, columns: Sequence[str]) -> None:
        # without an index it is not loaded: banks take no memory of the server until somebody reads them
        banks = bank_schema(self.client, dimension)
        self.client.create_collection(self._banks_of(generation), schema=banks, consistency_level="Bounded")
        self.client.create_collection(
            self._items_of(generation),
            schema=item_schema(self.client, self._primary, columns),
            consistency_level="Bounded",
        )
        self._make_flat_index(self._items_of(generation), "biases", wait=False)
        # a server takes seconds for it, and `_load` waits for what is left of them when rows are first read
        self.client.load_collection(self._items_of(generation), _async=True)

    def _make_flat_index(self, collection: str, field: str, *, wait: bool = True) -> None:
        index = self.client.prepare_index_params()
        index.add_index(field, index_type="FLAT", metric_type="L2")
        try:
            self.client.create_index(collection, index, sync=wait)
        except RpcError:
            # Milvus Lite makes it and then lacks the call by which the async client waits for it
            if not self.client.list_indexes(collection):
                raise

    def write_bank(self, generation: int, bank: str, vectors: Vectors, log_weights: Floats | None) -> None:
        first = first_bank_id(bank)
        weights = [{}] * len(vectors) if log_weights is None else [{"log_weight": w} for w in log_weights.tolist()]
        for start in range(0, len(vectors), _WRITE_BATCH):
            rows = vectors[start : start + _WRITE_BATCH].tolist()
            self.client.insert(
                self._banks_of(generation),
                [
                    {"id": first + start + row, "bank": bank, "vector": vector, **weights[start + row]}
                    for row, vector in enumerate(rows)
                ],
            )

    def read_bank(self, generation: int, bank: str) -> tuple[Vectors, Floats | None]:
        rows = self._bank_rows(generation, bank, ["id", "vector", "log_weight"])
        rows.sort(key=lambda row: int(row["id"]))
        vectors = np.array([row["vector"] for row in rows], dtype=np.float32)
        weights = [row.get("log_weight") for row in rows]
        return vectors, None if None in weights else np.array(weights, dtype=np.float64)

    def _bank_rows(self, generation: int, bank: str, fields: Sequence[str]) -> list[Any]:
        name = self._banks_of(generation)
        if not self.client.list_indexes(name):
            self._make_flat_index(name, "vector")
        self._load(name)
        return [row for page in self.scan(name, "id", _LOOKUP_BATCH, fields, f'bank == "{bank}"') for row in page]

    def write_items(
        self,
        generation: int,
        ids: Sequence[ItemId],
        items: ItemStatistics,
        *,
        columns: Sequence[str],
        replace: bool = False,
        batch_size: int | None = None,
    ) -> None:
        name, schema = self._items_of(generation), item_schema(self.client, self._primary, columns)
        whole = columns_of(generation, ids, items, columns)
        size = batch_size or self.batch_size
        for start in range(0, len(ids), size):
            batch = {field: values[start : start + size] for field, values in whole.items()}
            if not put_columns(self.client, name, schema, batch, replace=replace):
                (self.client.upsert if replace else self.client.insert)(name, rows_of(batch))

    def write_activation(
        self, generation: int, ids: Sequence[ItemId], items: ItemStatistics, *, columns: Sequence[str]
    ) -> None:
        if not items.known().all():
            ids, items = self._with_stored_biases(generation, ids, items, columns)
        self.write_items(generation, ids, items, columns=columns, replace=True)

    def _with_stored_biases(
        self, generation: int, ids: Sequence[ItemId], items: ItemStatistics, columns: Sequence[str]
    ) -> tuple[list[ItemId], ItemStatistics]:
        """Those of the items that are stored: with these activation sets, and the biases that are stored."""
        self._load(self._items_of(generation))
        self.count_of(self._items_of(generation))  # as in `_scan`: one strong read
        found, stored = items_of(self._rows_in_pages(generation, ids, None), columns)
        row_of = {item: row for row, item in enumerate(ids)}
        rows = [row_of[item] for item in found]
        for bank in BANKS:
            stored.activated(bank)[:] = items.activated(bank)[rows]
        return found, stored

    def write_checkpoint(self, generation: int, number: int, data: bytes) -> None:
        zeros = [0.0] * self.describe().dimension
        rows = [{"id": i, "vector": zeros, **fields} for i, fields in checkpoint_rows(number, data, _CHECKPOINT_PART)]
        for row in rows:
            self.client.upsert(self._banks_of(generation), [row])
        self._checkpoint_ids.update(row["id"] for row in rows)

    def read_checkpoint(self, generation: int) -> bytes | None:
        if not self.client.has_collection(self._banks_of(generation)):
            return None
        rows = self._bank_rows(generation, CHECKPOINT, ["id", "number", "part", "parts", "data"])
        self._checkpoint_ids.update(row["id"] for row in rows)
        return joined_checkpoint(rows)

    def clear_checkpoint(self, generation: int) -> None:
        # by key: other filters would need the banks loaded
        if self._checkpoint_ids:
            self.client.delete(self._banks_of(generation), ids=sorted(self._checkpoint_ids))
        self._checkpoint_ids.clear()

    # --- statistics of items -----------------------------------------------------------------------------------

    def all_items(self, generation: int, columns: Sequence[str]) -> StatisticsLookup:
        name = self._items_of(generation)
        with self._unless_replaced(name):
            if self._load(name):
                pages = self.scan(name, "item", _IDS_PAGE, sorted(ITEM_FIELDS), f"generation == {generation}")
                return StatisticsLookup((items_of(rows, columns) for rows in pages), columns)
        return StatisticsLookup([], columns)

    def items(
        self, generation: int, ids: Sequence[ItemId], columns: Sequence[str], *, timeout: float | None = None
    ) -> tuple[list[ItemId], ItemStatistics]:
        name = self._items_of(generation)
        with self._unless_replaced(name):
            try:
                rows = self._rows_in_pages(generation, ids, timeout)
            except MilvusException:  # as a rule it is there and loaded: asking that first would take two requests more
                rows = self._rows_in_pages(generation, ids, timeout) if self._load(name) else []
            return items_of(rows, columns)
        return [], ItemStatistics.unknown(0)

    def _rows_in_pages(self, generation: int, ids: Sequence[ItemId], timeout: float | None) -> list[Any]:
        pages = [ids[start : start + _LARGEST_PAGE] for start in range(0, len(ids), _LARGEST_PAGE)]
        return [row for page in pages for row in self._rows(generation, page, "Bounded", timeout)]

    @contextlib.contextmanager
    def _unless_replaced(self, name: str) -> Iterator[None]:
        """Swallow the client's error if it came from a companion that another fit dropped in between."""
        try:
            yield
        except MilvusException:
            if self.client.has_collection(name):
                raise

    def _rows(
        self, generation: int, ids: Sequence[ItemId], consistency_level: str, timeout: float | None = None
    ) -> list[Any]:
        rows = self.client.query(
            self._items_of(generation),
            filter=one_of("item", ids),
            output_fields=sorted(ITEM_FIELDS),
            consistency_level=consistency_level,
            timeout=timeout,
        )
        return [row for row in rows if row["generation"] == generation]

    # --- removing ----------------------------------------------------------------------------------------------

    def discard_orphans(self, generation: int) -> int:
        name, removed = self._items_of(generation), 0
        self.count_of(self.collection)  # as in `_scan`: one strong read
        for rows in self.scan(name, "item", _LOOKUP_BATCH, expression=f"generation == {generation}"):
            ids = [row["item"] for row in rows]
            left = self.client.query(
                self.collection,
                filter=one_of(self.primary_field, ids),
                output_fields=[self.primary_field],
                consistency_level="Bounded",
            )
            orphans = sorted(set(ids) - {row[self.primary_field] for row in left})
            if orphans:
                self.client.delete(name, filter=one_of("item", orphans))
                removed += len(orphans)
        return removed

    def discard_generation(self, generation: int) -> None:
        for name in self._our_companions(slot(generation), refuse=False):
            self.client.drop_collection(name)

    def discard_generations(self, *, keep: int | None) -> None:
        self._drop_companions(keep)

    def _drop_companions(self, keep: int | None) -> int:
        """Drop those of ours that are not of one generation; how many there were."""
        slots = [which for which in SLOTS if keep is None or which != slot(keep)]
        names = [name for which in slots for name in self._our_companions(which, refuse=False)]
        for name in names:
            self.client.drop_collection(name)
        return len(names)

    def remove_remains(self) -> int:
        there = self.client.has_collection(self.collection) or self._real_name in self.client.list_collections()
        return 0 if there else self._drop_companions(None)

    def remove_all(self) -> None:
        self.describe(fresh=True)
        self.discard_generations(keep=None)
