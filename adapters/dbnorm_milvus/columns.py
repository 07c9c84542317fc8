"""Statistics and vectors as the columns that go over the wire, without making rows of them and columns again.

`MilvusClient` takes and returns rows; turning them into columns and back, value by value in Python, is the larger part
of what a fit costs its client. Where the client lets us, that is left out. Otherwise rows will do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pymilvus import DataType, MilvusClient

from dbnorm_vdb.banks import Vectors


def put_columns(
    client: Any, collection: str, schema: Any, columns: Mapping[str, Sequence[Any]], *, replace: bool
) -> bool:
    """Insert rows given as columns, or upsert them with `replace`; False, and nothing done, if the client cannot.

    The call is the one that the client's ORM makes, below `MilvusClient`, so it may not be there in all versions.

    Args:
        client: the user's.
        collection: one of ours.
        schema: its `CollectionSchema`.
        columns: by field, as many values each; all fields of the schema.
        replace: rows of these keys may be there already.
    """
    if not isinstance(client, MilvusClient):  # the async client has no such call
        return False
    try:
        handler = client._get_connection()
        put = handler.upsert if replace else handler.batch_insert
        context = client._generate_call_context()  # which database it is
        fields = schema.to_dict()["fields"]
        types = {field["name"]: DataType(field["type"]) for field in fields}
    except (AttributeError, TypeError):
        return False
    entities = [{"name": name, "type": types[name], "values": values} for name, values in columns.items()]
    put(collection, entities, context=context, schema={"fields": fields})
    return True


def vectors_of(rows: Sequence[Any], field: str, dimension: int) -> Vectors | None:
    """The (n, dimension) vectors of rows that a client returned, if they still lie behind each other as they came.

    With `strict_float32` a vector is a view of the answer's array, and a row is made when it is asked for: looking at
    the first and the last is enough. None if they lie otherwise, as with rows that have no vector.
    """
    first, last = rows[0].get(field), rows[len(rows) - 1].get(field)  # old clients make a wrong row of rows[-1]
    if not (isinstance(first, np.ndarray) and isinstance(last, np.ndarray)):
        return None
    whole: Any = first.base
    if not isinstance(whole, np.ndarray) or whole is not last.base:
        return None
    if whole.dtype != np.float32 or whole.shape != (len(rows) * dimension,):
        return None
    if _addresses(first, last) != _addresses(whole[:dimension], whole[-dimension:]):
        return None
    vectors: Vectors = whole.reshape(len(rows), dimension)
    return vectors


def values_of(rows: Sequence[Any], field: str) -> list[Any]:
    """The values of a field that rows hold from the start, without making whatever else is in them."""
    found = [row.get(field) for row in list.__iter__(rows)] if isinstance(rows, list) else [None]
    return [row[field] for row in rows] if None in found else found


def _addresses(*arrays: Any) -> list[tuple[int, int]]:
    return [(array.__array_interface__["data"][0], array.nbytes) for array in arrays]
