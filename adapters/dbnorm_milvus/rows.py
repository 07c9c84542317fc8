"""The rows of the companion collections: their schemas, statistics in and out of them, and filters by key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pymilvus import DataType, MilvusClient

from dbnorm_vdb.statistics import BANKS, COLUMNS, ItemId, ItemStatistics

# a collection of other fields under our names is not ours
ITEM_FIELDS = {"item", "generation", "biases", "activation"}
BANK_FIELDS = {"id", "bank", "vector"}


def bank_schema(client: MilvusClient, dimension: int) -> Any:
    """Banks; weights and checkpoints are dynamic fields."""
    schema = client.create_schema(auto_id=False, enable_dynamic_field=True)
    schema.add_field("id", DataType.INT64, is_primary=True)
    schema.add_field("bank", DataType.VARCHAR, max_length=16)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=dimension)
    return schema


def item_schema(client: MilvusClient, primary: Mapping[str, Any], columns: Sequence[str]) -> Any:
    """Statistics of items, under a key of the user's own type."""
    schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
    length = {"max_length": primary["params"]["max_length"]} if primary["type"] == DataType.VARCHAR else {}
    schema.add_field("item", primary["type"], is_primary=True, **length)
    schema.add_field("generation", DataType.INT64)
    schema.add_field("biases", DataType.FLOAT_VECTOR, dim=len(layout(columns)))
    schema.add_field("activation", DataType.INT8)
    return schema


def columns_of(
    generation: int, ids: Sequence[ItemId], items: ItemStatistics, columns: Sequence[str]
) -> dict[str, list[Any]]:
    """The columns of n rows, one for each item."""
    biases = np.nan_to_num(np.stack([items.bias(name) for name in layout(columns)], axis=1), nan=0.0)
    flags = np.sum([items.activated(bank).astype(np.int64) << bit for bit, bank in enumerate(BANKS)], axis=0)
    return {
        "item": list(ids),
        "generation": [generation] * len(ids),
        "biases": biases.tolist(),
        "activation": flags.tolist(),
    }


def rows_of(columns: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Columns as rows."""
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def items_of(rows: Sequence[Any], columns: Sequence[str]) -> tuple[list[ItemId], ItemStatistics]:
    """Ids and statistics of n rows."""
    items = ItemStatistics.unknown(len(rows))
    names = layout(columns)
    biases = np.array([row["biases"] for row in rows], dtype=np.float64).reshape(len(rows), len(names))
    flags = np.array([row["activation"] for row in rows], dtype=np.int64)
    for position, name in enumerate(names):
        if name in columns:
            items.bias(name)[:] = biases[:, position]
    for bit, bank in enumerate(BANKS):
        if bank in columns:
            items.activated(bank)[:] = (flags >> bit & 1).astype(np.bool_)
    return [row["item"] for row in rows], items


def layout(columns: Sequence[str]) -> tuple[str, ...]:
    """What stands where in `biases`: always the banks, since a vector has two dimensions at least, then the others."""
    return tuple(name for name in COLUMNS if name in BANKS or name in columns)


def one_of(field: str, ids: Sequence[ItemId]) -> str:
    """A filter for the rows with one of these keys; text is quoted here, since the client does not escape it."""
    return f"{field} in [{', '.join(literal(item) for item in ids)}]"


def literal(item: ItemId) -> str:
    """A key as a filter writes it."""
    return _quoted(item) if isinstance(item, str) else str(item)


def _quoted(text: str) -> str:
    for character, escaped in (("\\", "\\\\"), ('"', '\\"'), ("\n", "\\n"), ("\r", "\\r"), ("\t", "\\t")):
        text = text.replace(character, escaped)
    return f'"{text}"'
