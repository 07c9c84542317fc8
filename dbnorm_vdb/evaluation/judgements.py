"""Relevance judgements (qrels): every form that they come in becomes one.

That form is `{query key: {item key: grade}}`. Keys are text, as in files: the id 12 of a database is "12" here (see
`item_key`). A grade of 1 or more means relevant; 0 and less, judged and not relevant.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from numbers import Real
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from dbnorm_vdb.errors import InvalidJudgementsError
from dbnorm_vdb.evaluation.tables import Row, Table, TableKind, item_key, items_of, key_of, rows_of

__all__ = ["Judgements", "Relevant", "item_key", "query_keys", "read_judgements", "relevance_of_rows"]

Judgements: TypeAlias = dict[str, dict[str, int]]
"""{query key: {item key: grade}}; every query has at least one judged item."""

Relevant: TypeAlias = Sequence[Any] | npt.NDArray[Any]
"""What is relevant to each query row: an id, an iterable of ids, or a mapping of ids to grades."""

_KIND = TableKind(
    what="qrels",
    error=InvalidJudgementsError,
    values=("relevance", "grade", "rel", "label", "score"),
    lists=("relevant", "items", "docs"),
    trec="query iteration item relevance",
    trec_value=3,
)


def read_judgements(qrels: Table) -> Judgements:
    """Read relevance judgements in whatever form they come.

    Args:
        qrels: a path (TREC `query iteration item relevance`; BEIR's tsv, or another tsv or csv with a header; jsonl
            with `{"query_id": ..., "doc_id": ..., "relevance": ...}` or `{"query_id": ..., "relevant": [...]}` on each
            line; json by query; any of them gzipped), a data frame, a mapping of queries to an item, to items or to
            `{item: grade}`, or an iterable of `(query, item)` or `(query, item, grade)` rows. Where no grade is given
            it is 1.

    Raises:
        InvalidJudgementsError: unreadable, empty, a grade that is no integer, or two grades for one item of a query.
    """
    judgements: Judgements = {}
    for row in rows_of(qrels, _KIND):
        _add(judgements, row)
    if not judgements:
        raise InvalidJudgementsError("qrels: there are no judgements in it")
    return judgements


def relevance_of_rows(relevant: Relevant, keys: Sequence[str] | int) -> Judgements:
    """Judgements given row by row, beside the queries.

    Args:
        relevant: for each of n queries the id of the relevant item, an iterable of such ids, or a mapping of ids to
            grades. A query for which there are none is left out of the result.
        keys: of the n queries, or n, for `query_keys(n)`.

    Raises:
        InvalidJudgementsError: of another length, or with an entry that is none of those.
    """
    names = query_keys(keys) if isinstance(keys, int) else list(keys)
    if isinstance(relevant, (str, Mapping)) or not isinstance(relevant, Iterable):
        raise InvalidJudgementsError(
            f"relevant: expected an entry for each query, in the order of the queries, got {type(relevant).__name__};"
            " judgements by query key are qrels"
        )
    entries = list(relevant)
    if len(entries) != len(names):
        raise InvalidJudgementsError(
            f"relevant has {len(entries)} entries for {len(names)} queries; give one for each, in their order"
        )
    judgements: Judgements = {}
    for number, (name, entry) in enumerate(zip(names, entries, strict=True)):
        where = f"relevant, row {number}"
        for item, grade in items_of(entry, _KIND, where):
            _add(judgements, Row(where, name, key_of(item, _KIND, where), grade))
    if not judgements:
        raise InvalidJudgementsError("relevant: no query has a relevant item")
    return judgements


def query_keys(count: int) -> list[str]:
    """The keys of queries that have none of their own: their row numbers, from "0"."""
    return [str(row) for row in range(count)]


def _add(judgements: Judgements, row: Row) -> None:
    grade = 1 if row.value is None else _grade(row)
    items = judgements.setdefault(row.query, {})
    if items.setdefault(row.item, grade) != grade:
        raise InvalidJudgementsError(
            f"{row.where}: item {row.item!r} of query {row.query!r} has the grades {items[row.item]} and {grade}"
        )


def _grade(row: Row) -> int:
    """A grade as an integer: 1, 1.0, "1", "1.0" and True are 1."""
    try:
        number = float(row.value) if isinstance(row.value, (Real, str, np.bool_)) else np.nan
    except ValueError:
        number = np.nan
    if not number.is_integer():
        raise InvalidJudgementsError(f"{row.where}: a grade must be an integer, got {row.value!r}")
    return int(number)
