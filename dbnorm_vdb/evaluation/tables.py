"""Rows of query, item and value, from whatever holds them: TREC, BEIR, JSON and jsonl files, data frames, records."""

from __future__ import annotations

import csv
import gzip
import json
import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias
from uuid import UUID

import numpy as np

from dbnorm_vdb.errors import InvalidInputError

Table: TypeAlias = Any
"""A path, a data frame (pandas, polars or alike), a mapping by query, or an iterable of records."""

QUERY_NAMES = ("query_id", "query-id", "qid", "q_id", "query", "topic")
ITEM_NAMES = ("doc_id", "corpus-id", "docid", "docno", "item_id", "item", "id")


class Row(NamedTuple):
    """One row: where it stands, for messages, and what it says. The value is None where there is none.

    Attributes:
        trec: it is of a TREC file, whose rows have no order of their own.
    """

    where: str
    query: str
    item: str
    value: Any
    trec: bool = False


class TableKind(NamedTuple):
    """What one kind of table looks like.

    Attributes:
        what: how messages name it.
        error: what is raised where it cannot be read.
        values: names of the column with the value.
        lists: names of the field of a jsonl record that holds all items of a query.
        trec: the format's columns, as messages show them.
        trec_value: the position of the value among them.
    """

    what: str
    error: type[InvalidInputError]
    values: tuple[str, ...]
    lists: tuple[str, ...]
    trec: str
    trec_value: int


def item_key(identifier: object) -> str:
    """The id of an item or a query as the text that tables know it by: 12 is "12", a UUID its usual form.

    Raises:
        TypeError: neither text nor an integer nor a UUID.
    """
    if isinstance(identifier, str):
        return str(identifier)  # numpy's text becomes Python's
    if isinstance(identifier, (int, np.integer, UUID)) and not isinstance(identifier, bool):
        return str(identifier)
    raise TypeError(f"an id must be text or an integer, got {type(identifier).__name__} {identifier!r}")


def rows_of(table: Table, kind: TableKind) -> Iterator[Row]:
    """The rows of a table, in its order.

    Args:
        table: one of
            a path: a TREC file (`kind.trec`, white space between); a `.tsv` or `.csv` with a header line (BEIR's
            `query-id corpus-id score`); `.jsonl`, a row or a query a line; `.json`, one object by query; any of them
            gzipped;
            a data frame with such columns;
            a mapping of queries to an item, to items, or to a mapping of items to values;
            an iterable of `(query, item)`, `(query, item, value)`, or records with names: mappings, named tuples.
        kind: what it is a table of.

    Raises:
        kind.error: it cannot be read; the message says where.
    """
    if isinstance(table, (str, os.PathLike)):
        yield from _rows_of_file(Path(table), kind)
    elif isinstance(table, Mapping):
        yield from _rows_of_mapping(table, kind, kind.what)
    elif hasattr(table, "columns"):
        yield from _rows_of_frame(table, kind)
    elif isinstance(table, Iterable):
        for number, record in enumerate(table):
            yield from _rows_of_record(record, kind, f"{kind.what}, row {number}")
    else:
        raise kind.error(
            f"{kind.what}: expected a path, a data frame, a mapping by query or an iterable of rows, got"
            f" {type(table).__name__}"
        )


def items_of(items: Any, kind: TableKind, where: str) -> Iterator[tuple[Any, Any]]:
    """Items and values from an item, an iterable of items or of (item, value), or a mapping of items to values."""
    if isinstance(items, Mapping):
        yield from items.items()
    elif isinstance(items, (str, bytes)) or not isinstance(items, Iterable):
        yield items, None
    else:
        for item in items:
            if isinstance(item, Mapping):
                yield _field(item, ITEM_NAMES, kind, where), _optional(item, kind.values)
            elif isinstance(item, Sequence) and not isinstance(item, str):
                if len(item) != 2:
                    raise kind.error(f"{where}: expected an item or (item, value), got {item!r}")
                yield item[0], item[1]
            else:
                yield item, None


def key_of(identifier: Any, kind: TableKind, where: str) -> str:
    """`item_key`, or the kind's error."""
    try:
        return item_key(identifier)
    except TypeError as error:
        advice = "; a data frame turns integers with gaps into floats" if isinstance(identifier, float) else ""
        raise kind.error(f"{where}: {error}{advice}") from None


# --- records -----------------------------------------------------------------------------------------------------


def _rows_of_mapping(table: Mapping[Any, Any], kind: TableKind, what: str) -> Iterator[Row]:
    for query, items in table.items():
        where = f"{what}, query {query!r}"
        yield from _rows_of_query(query, items, kind, where)


def _rows_of_query(query: Any, items: Any, kind: TableKind, where: str) -> Iterator[Row]:
    key = key_of(query, kind, where)
    for item, value in items_of(items, kind, where):
        yield Row(where, key, key_of(item, kind, where), value)


def _rows_of_frame(frame: Any, kind: TableKind) -> Iterator[Row]:
    names = [str(name) for name in frame.columns]
    query, item = (_named(names, wanted, kind, kind.what) for wanted in (QUERY_NAMES, ITEM_NAMES))
    value = next((name for name in kind.values if name in names), None)
    columns = [frame[name].to_list() for name in (query, item)]
    columns.append(frame[value].to_list() if value else [None] * len(columns[0]))
    for number, (query_id, item_id, found) in enumerate(zip(*columns, strict=True)):
        where = f"{kind.what}, row {number}"
        yield Row(where, key_of(query_id, kind, where), key_of(item_id, kind, where), found)


def _rows_of_record(record: Any, kind: TableKind, where: str) -> Iterator[Row]:
    if isinstance(record, tuple) and hasattr(record, "_fields"):
        record = dict(zip(record._fields, record, strict=True))
    if isinstance(record, Mapping):
        query = _field(record, QUERY_NAMES, kind, where)
        together = [name for name in kind.lists if name in record]
        if together:
            yield from _rows_of_query(query, record[together[0]], kind, where)
            return
        item, value = _field(record, ITEM_NAMES, kind, where), _optional(record, kind.values)
    elif isinstance(record, (Sequence, np.ndarray)) and not isinstance(record, str) and len(record) in (2, 3):
        query, item, value = (*record, None)[:3]
    else:
        raise kind.error(f"{where}: expected (query, item), (query, item, value) or names, got {record!r}")
    yield Row(where, key_of(query, kind, where), key_of(item, kind, where), value)


def _named(names: Iterable[str], wanted: Sequence[str], kind: TableKind, where: str) -> str:
    present = list(names)
    for name in wanted:
        if name in present:
            return name
    raise kind.error(f"{where}: one of {', '.join(wanted)} is needed, found {', '.join(present) or 'nothing'}")


def _field(record: Mapping[str, Any], wanted: Sequence[str], kind: TableKind, where: str) -> Any:
    return record[_named(map(str, record), wanted, kind, where)]


def _optional(record: Mapping[str, Any], wanted: Sequence[str]) -> Any:
    return next((record[name] for name in wanted if name in record), None)


# --- files -------------------------------------------------------------------------------------------------------

Reader: TypeAlias = Callable[[Iterable[str], TableKind, str], Iterator[Row]]


def _rows_of_file(path: Path, kind: TableKind) -> Iterator[Row]:
    if not path.is_file():
        raise kind.error(f"{kind.what}: there is no file {str(path)!r}")
    suffixes = [suffix.lower() for suffix in path.suffixes if suffix.lower() != ".gz"]
    readers: dict[str, Reader] = {
        ".json": _rows_of_json,
        ".jsonl": _rows_of_jsonl,
        ".ndjson": _rows_of_jsonl,
        ".csv": _rows_of_separated,
        ".tsv": _rows_of_separated,
    }
    reader: Reader = readers.get(suffixes[-1] if suffixes else "", _rows_of_trec)
    try:
        opened: Callable[..., Any] = partial(gzip.open, path, "rt") if path.suffix == ".gz" else path.open
        with opened(encoding="utf-8-sig") as file:  # spreadsheets write a byte order mark
            yield from reader(file, kind, f"{kind.what} {path.name!r}")
    except (OSError, EOFError, UnicodeDecodeError, csv.Error, zlib.error) as error:
        raise kind.error(f"{kind.what}: {str(path)!r} cannot be read: {error}") from error


def _rows_of_json(file: Iterable[str], kind: TableKind, what: str) -> Iterator[Row]:
    document = _parsed("".join(file), kind, what)
    if isinstance(document, Mapping):
        yield from _rows_of_mapping(document, kind, what)
    elif isinstance(document, list):
        for number, record in enumerate(document):
            yield from _rows_of_record(record, kind, f"{what}, row {number}")
    else:
        raise kind.error(f"{what}: expected an object by query or a list of rows, got {type(document).__name__}")


def _rows_of_jsonl(file: Iterable[str], kind: TableKind, what: str) -> Iterator[Row]:
    for number, line in enumerate(file, 1):
        if line.strip():
            where = f"{what}, line {number}"
            yield from _rows_of_record(_parsed(line, kind, where), kind, where)


def _parsed(text: str, kind: TableKind, where: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise kind.error(f"{where}: not JSON: {error}") from error


def _rows_of_separated(file: Iterable[str], kind: TableKind, what: str) -> Iterator[Row]:
    """A header line, and rows below it; the separator is the header's. Without a header it is a TREC file."""
    lines = iter(file)
    header = next(lines, "")
    separator = "\t" if "\t" in header else ","
    names = [name.strip() for name in next(csv.reader([header], delimiter=separator), [])]
    if not set(names) & set(QUERY_NAMES):
        yield from _rows_of_trec(_chain(header, lines), kind, what)
        return
    for number, fields in enumerate(csv.reader(lines, delimiter=separator), 2):
        where = f"{what}, line {number}"
        if fields and len(fields) != len(names):
            raise kind.error(f"{where}: expected {len(names)} columns ({', '.join(names)}), got {len(fields)}")
        if fields:
            yield from _rows_of_record(dict(zip(names, fields, strict=True)), kind, where)


def _chain(first: str, rest: Iterator[str]) -> Iterator[str]:
    yield first
    yield from rest


def _rows_of_trec(file: Iterable[str], kind: TableKind, what: str) -> Iterator[Row]:
    columns = len(kind.trec.split())
    for number, line in enumerate(file, 1):
        fields = line.split()
        if not fields:
            continue
        if len(fields) != columns:
            raise kind.error(
                f"{what}, line {number}: expected the {columns} columns of a TREC file ({kind.trec}), got {len(fields)}"
            )
        yield Row(f"{what}, line {number}", fields[0], fields[2], fields[kind.trec_value], trec=True)
