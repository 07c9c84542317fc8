"""What is stored in Milvus, and how: one collection property, and companion collections.

The user's rows are never rewritten. Per-item statistics live in `<name>__dbnorm`, the banks in `<name>__dbnorm_bank`;
the generation that follows lives in the same names with `_alt` behind them, the next in the first ones again. After a
fit one of the two slots is left. So a generation is removed by dropping collections, not by deleting rows.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from pymilvus import DataType, MilvusClient, MilvusException

from dbnorm_vdb.banks import Vectors
from dbnorm_vdb.errors import (
    ForeignDataError,
    UnknownVectorError,
    UnsupportedMetricError,
    UnsupportedVectorError,
)
from dbnorm_vdb.statistics import Floats, ItemId, ItemStatistics, Metric, StoredState
from dbnorm_vdb.store import (
    BANK_SUFFIX,
    BANKS,
    ITEMS_SUFFIX,
    KEY,
    SLOTS,
    Page,
    Store,
    VectorInfo,
    first_bank_id,
    slot,
)

METRICS = {"COSINE": Metric.COSINE, "IP": Metric.DOT, "L2": Metric.EUCLIDEAN}

# fields of the companions; a collection of other fields under these names is not ours
ITEM_FIELDS = {"item", "generation", "biases", "activation"}
BANK_FIELDS = {"id", "bank", "vector"}

_WRITE_BATCH = 1000
_LOOKUP_BATCH = 1000
_IDS_PAGE = 10_000
_LARGEST_PAGE = 16_384


class MilvusStore(Store):
    """One vector field of one collection, through the user's own client."""

    engine = "milvus"
    max_window = 16_384

    def __init__(self, client: MilvusClient, collection_name: str, vector_field: str | None) -> None:
        self.client = client
        self.collection = collection_name
        self._asked_vector = vector_field
        self._info: VectorInfo | None = None
        self._primary: dict[str, Any] = {}
        self._real_name = collection_name

    def close(self) -> None:
        self.client.close()

    # --- reading -----------------------------------------------------------------------------------------------

    def describe(self, *, fresh: bool = False) -> VectorInfo:
        if self._info is None or fresh:
            self._info = self._describe()
        return self._info

    def _describe(self) -> VectorInfo:
        description = self.client.describe_collection(self.collection)
        self._real_name = description.get("collection_name") or self.collection  # the collection may be an alias
        fields = {field["name"]: field for field in description["fields"]}
        (self._primary,) = (field for field in fields.values() if field.get("is_primary"))
        vectors = [name for name, field in fields.items() if "VECTOR" in DataType(field["type"]).name]
        name = self._asked_vector
        if name is None and len(vectors) == 1:
            (name,) = vectors
        if name is None or name not in vectors:
            asked = "it has several: name one (vector_field=...)" if name is None else f"no vector field {name!r}"
            raise UnknownVectorError(
                f"collection {self.collection!r}: {asked}; its vector fields are {sorted(vectors) or 'none'}"
            )
        kind = DataType(fields[name]["type"])
        if kind is not DataType.FLOAT_VECTOR:
            raise UnsupportedVectorError(
                f"collection {self.collection!r}: field {name!r} is a {kind.name}; supported is FLOAT_VECTOR"
            )
        metric = self._metric(name)
        if metric not in METRICS:
            raise UnsupportedMetricError(
                f"collection {self.collection!r}: field {name!r} is compared by {metric or 'nothing (it has no index)'}"
                f"; supported are {', '.join(METRICS)}"
            )
        return VectorInfo(name, int(fields[name]["params"]["dim"]), METRICS[metric])

    def _metric(self, field: str) -> str | None:
        for index_name in self.client.list_indexes(self.collection):
            index = self.client.describe_index(self.collection, index_name)
            if index and index.get("field_name") == field:
                return str(index["metric_type"]).upper()
        return None

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
        return self._count(self.collection)

    def count_fitted(self, generation: int) -> int:
        """Rows of the generation's companion; those of items deleted since the fit count too."""
        companion = self._items_of(generation)
        return self._count(companion, f"generation == {generation}") if self._load(companion) else 0

    def _count(self, collection: str, expression: str = "") -> int:
        rows = self.client.query(collection, filter=expression, output_fields=["count(*)"], consistency_level="Strong")
        return int(rows[0]["count(*)"])

    def pages(self, size: int) -> Iterator[Page]:
        info = self.describe()
        for rows in self._scan(self.collection, size, [self.primary_field, info.name]):
            yield self._page(rows)

    def ids(self) -> Iterator[list[ItemId]]:
        for rows in self._scan(self.collection, _IDS_PAGE, [self.primary_field]):
            yield [row[self.primary_field] for row in rows]

    def fetch(self, ids: Sequence[ItemId]) -> Page:
        rows: list[Any] = []
        for start in range(0, len(ids), _LOOKUP_BATCH):
            rows += self.client.query(
                self.collection,
                filter=one_of(self.primary_field, ids[start : start + _LOOKUP_BATCH]),
                output_fields=[self.primary_field, self.describe().name],
                consistency_level="Strong",
            )
        return self._page(rows)

    def _page(self, rows: Sequence[Mapping[str, Any]]) -> Page:
        info = self.describe()
        there = [row for row in rows if row.get(info.name) is not None]
        vectors = np.array([row[info.name] for row in there], dtype=np.float32).reshape(len(there), info.dimension)
        return Page([row[self.primary_field] for row in there], vectors)

    def _scan(self, collection: str, size: int, fields: Sequence[str], expression: str = "") -> Iterator[list[Any]]:
        """All rows in pages. One strong read brings the node up to date; the pages then need not wait."""
        self._count(collection)
        iterator = self.client.query_iterator(
            collection,
            batch_size=min(size, _LARGEST_PAGE),
            filter=expression,
            output_fields=list(fields),
            consistency_level="Bounded",
        )
        try:
            while rows := iterator.next():
                yield rows
        finally:
            iterator.close()

    # --- the collection level ----------------------------------------------------------------------------------

    def read_state(self) -> object:
        return (self.client.describe_collection(self.collection).get("properties") or {}).get(KEY)

    def write_state(self, state: StoredState | None) -> None:
        if state is None:
            self._remove_property()
            return
        text = state.model_dump_json(exclude_none=True)
        # twice: an old server forgets the last change of a property when it is stopped uncleanly
        for _ in range(2):
            self.client.alter_collection_properties(self.collection, properties={KEY: text})

    def _remove_property(self) -> None:
        try:
            self.client.drop_collection_properties(self.collection, [KEY])
        except MilvusException:
            # servers before 2.5 cannot remove a property
            self.client.alter_collection_properties(self.collection, properties={KEY: ""})

    def check_writable(self) -> None:
        for which in SLOTS:
            self._our_companions(which)

    def has_companions(self) -> bool:
        self.describe()
        return any(self._our_companions(which, refuse=False) for which in SLOTS)

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

    def begin(self, generation: int, dimension: int) -> None:
        schema = self.client.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field("id", DataType.INT64, is_primary=True)
        schema.add_field("bank", DataType.VARCHAR, max_length=16)
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=dimension)
        # without an index it is not loaded: banks take no memory of the server until somebody reads them
        self.client.create_collection(self._banks_of(generation), schema=schema, consistency_level="Bounded")
        schema = self.client.create_schema(auto_id=False, enable_dynamic_field=False)
        primary = self._primary
        length = {"max_length": primary["params"]["max_length"]} if primary["type"] == DataType.VARCHAR else {}
        schema.add_field("item", primary["type"], is_primary=True, **length)
        schema.add_field("generation", DataType.INT64)
        schema.add_field("biases", DataType.FLOAT_VECTOR, dim=len(BANKS))
        schema.add_field("activation", DataType.INT8)
        self.client.create_collection(
            self._items_of(generation),
            schema=schema,
            index_params=self._flat_index("biases"),
            consistency_level="Bounded",
        )

    def _flat_index(self, field: str) -> Any:
        index = self.client.prepare_index_params()
        index.add_index(field, index_type="FLAT", metric_type="L2")
        return index

    def write_bank(self, generation: int, bank: str, vectors: Vectors) -> None:
        first = first_bank_id(bank)
        for start in range(0, len(vectors), _WRITE_BATCH):
            rows = vectors[start : start + _WRITE_BATCH].tolist()
            self.client.insert(
                self._banks_of(generation),
                [{"id": first + start + row, "bank": bank, "vector": vector} for row, vector in enumerate(rows)],
            )

    def read_bank(self, generation: int, bank: str) -> Vectors:
        name = self._banks_of(generation)
        if not self.client.list_indexes(name):
            self.client.create_index(name, self._flat_index("vector"))
        self._load(name)
        pages = self._scan(name, _LOOKUP_BATCH, ["id", "vector"], f'bank == "{bank}"')
        rows = [row for page in pages for row in page]
        rows.sort(key=lambda row: int(row["id"]))
        return np.array([row["vector"] for row in rows], dtype=np.float32)

    def write_items(self, generation: int, ids: Sequence[ItemId], biases: Mapping[str, Floats]) -> None:
        columns = np.stack([biases.get(bank, np.zeros(len(ids))) for bank in BANKS], axis=1)
        rows = [self._row(generation, item, row, 0) for item, row in zip(ids, columns.tolist(), strict=True)]
        for start in range(0, len(rows), _WRITE_BATCH):
            self.client.insert(self._items_of(generation), rows[start : start + _WRITE_BATCH])

    def write_activation_sets(self, generation: int, members: Mapping[str, Sequence[ItemId]]) -> None:
        flags: dict[ItemId, int] = {}
        for bit, bank in enumerate(BANKS):
            for item in members.get(bank, ()):
                flags[item] = flags.get(item, 0) | 1 << bit
        ids = list(flags)
        for start in range(0, len(ids), _LOOKUP_BATCH):
            rows = self._rows(generation, ids[start : start + _LOOKUP_BATCH], "Strong")
            marked = [self._row(generation, row["item"], row["biases"], flags[row["item"]]) for row in rows]
            if marked:
                self.client.upsert(self._items_of(generation), marked)

    def _row(self, generation: int, item: ItemId, biases: Sequence[float], activation: int) -> dict[str, Any]:
        return {
            "item": item,
            "generation": generation,
            "biases": [float(bias) for bias in biases],
            "activation": activation,
        }

    # --- statistics of items -----------------------------------------------------------------------------------

    def all_items(self, generation: int, banks: Sequence[str]) -> tuple[list[ItemId], ItemStatistics]:
        """Ids and statistics of every item of a generation; none if it was replaced meanwhile."""
        name = self._items_of(generation)
        ids: list[ItemId] = []
        parts: list[ItemStatistics] = []
        with self._unless_replaced(name):
            if self._load(name):
                for rows in self._scan(name, _IDS_PAGE, sorted(ITEM_FIELDS), f"generation == {generation}"):
                    page_ids, columns = self._columns(rows, banks)
                    ids += page_ids
                    parts.append(columns)
            return ids, ItemStatistics.joined(parts)
        return [], ItemStatistics.unknown(0)

    def items(
        self, generation: int, ids: Sequence[ItemId], banks: Sequence[str]
    ) -> tuple[list[ItemId], ItemStatistics]:
        """Ids and statistics of those of `ids` that have any; none if the generation was replaced meanwhile."""
        rows: list[Any] = []
        name = self._items_of(generation)
        with self._unless_replaced(name):
            if self._load(name):
                for start in range(0, len(ids), _LOOKUP_BATCH):
                    rows += self._rows(generation, ids[start : start + _LOOKUP_BATCH], "Bounded")
            return self._columns(rows, banks)
        return self._columns([], banks)

    @contextlib.contextmanager
    def _unless_replaced(self, name: str) -> Iterator[None]:
        """Swallow the client's error if it came from a companion that another fit dropped in between."""
        try:
            yield
        except MilvusException:
            if self.client.has_collection(name):
                raise

    def _rows(self, generation: int, ids: Sequence[ItemId], consistency_level: str) -> list[Any]:
        rows = self.client.query(
            self._items_of(generation),
            filter=one_of("item", ids),
            output_fields=sorted(ITEM_FIELDS),
            consistency_level=consistency_level,
        )
        return [row for row in rows if row["generation"] == generation]

    def _columns(self, rows: Sequence[Any], banks: Sequence[str]) -> tuple[list[ItemId], ItemStatistics]:
        items = ItemStatistics.unknown(len(rows))
        biases = np.array([row["biases"] for row in rows], dtype=np.float64).reshape(len(rows), len(BANKS))
        flags = np.array([row["activation"] for row in rows], dtype=np.int64)
        for position, bank in enumerate(BANKS):
            if bank in banks:
                items.bias(bank)[:] = biases[:, position]
                items.activated(bank)[:] = (flags >> position & 1).astype(np.bool_)
        return [row["item"] for row in rows], items

    # --- removing ----------------------------------------------------------------------------------------------

    def discard_generations(self, *, keep: int | None) -> None:
        for which in SLOTS:
            if keep is None or which != slot(keep):
                for name in self._our_companions(which, refuse=False):
                    self.client.drop_collection(name)

    def remove_all(self) -> None:
        self.describe(fresh=True)
        self.discard_generations(keep=None)


def one_of(field: str, ids: Sequence[ItemId]) -> str:
    """A filter for the rows with one of these keys; text is quoted here, since the client does not escape it."""
    return f"{field} in [{', '.join(_quoted(item) if isinstance(item, str) else str(item) for item in ids)}]"


def _quoted(text: str) -> str:
    for character, escaped in (("\\", "\\\\"), ('"', '\\"'), ("\n", "\\n"), ("\r", "\\r"), ("\t", "\\t")):
        text = text.replace(character, escaped)
    return f'"{text}"'
