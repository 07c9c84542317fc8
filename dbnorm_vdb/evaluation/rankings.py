"""Ranked results: of one query, of a whole run, read from whatever form they come in."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from numbers import Real
from typing import Any, NamedTuple, TypeAlias

from dbnorm_vdb.errors import InvalidRunError
from dbnorm_vdb.evaluation.tables import Row, Table, TableKind, items_of, key_of, rows_of

_KIND = TableKind(
    what="run",
    error=InvalidRunError,
    values=("score", "sim", "similarity"),
    lists=("results", "ranking", "hits", "items", "docs"),
    trec="query Q0 item rank score tag",
    trec_value=4,
)


class Ranking(NamedTuple):
    """The items of one query, best first.

    Attributes:
        items: their keys, each once.
        scores: as whoever ranked them gave them (distances ascend), or None if there are none. Below the window of an
            arm that re-ranks they are the engine's own.
    """

    items: list[str]
    scores: list[float] | None = None

    def first(self, count: int) -> Ranking:
        """The best `count` of it."""
        return Ranking(self.items[:count], None if self.scores is None else self.scores[:count])


Run: TypeAlias = dict[str, Ranking]
"""{query key: ranking}."""

EMPTY = Ranking([], [])


def read_run(run: Table) -> Run:
    """Read ranked results by query, in whatever form they come.

    Args:
        run: a path (TREC `query Q0 item rank score tag`; tsv or csv with a header; jsonl with
            `{"query_id": ..., "doc_id": ..., "score": ...}` or `{"query_id": ..., "results": [...]}` on each line;
            json by query; any of them gzipped), a data frame, a mapping of queries to items or to `{item: score}`, or
            an iterable of `(query, item)` or `(query, item, score)` rows.

    Returns:
        Each query's items by descending score; without scores in their order. Equal scores keep the order of the rows,
        and in a TREC file, whose ranks do not count, go by descending item, as `trec_eval` takes them.

    Raises:
        InvalidRunError: unreadable, empty, an item twice for a query, a score that is no finite number, or scores for
            some items only.
    """
    if isinstance(run, Mapping) and run and all(isinstance(ranking, Ranking) for ranking in run.values()):
        return dict(run)
    found: dict[str, list[Row]] = {}
    for row in rows_of(run, _KIND):
        found.setdefault(row.query, []).append(row)
    if not found:
        raise InvalidRunError("run: there are no results in it")
    return {query: _sorted(rows) for query, rows in found.items()}


def run_of_rows(rankings: Sequence[Any], keys: Sequence[str], *, what: str = "run") -> Run:
    """A run from one ranking for each query, in the order of the queries.

    Args:
        rankings: n of them, each best first: ids, (id, score) pairs, hits (objects with `id` and `score`, or mappings),
            or a mapping of ids to scores, which is sorted.
        keys: of the n queries.
        what: how messages name it.

    Raises:
        InvalidRunError: not n of them, or one that is none of those, holds an item twice, or has scores that are not
            finite, or neither descend nor ascend.
    """
    if isinstance(rankings, (str, bytes, Mapping)) or not isinstance(rankings, Iterable):
        raise InvalidRunError(f"{what}: expected a ranking for each query, got {type(rankings).__name__}")
    given = list(rankings)
    if len(given) != len(keys):
        raise InvalidRunError(f"{what}: {len(given)} rankings for {len(keys)} queries; give one for each, in order")
    return {
        key: _ranking(ranking, f"{what}, row {number}")
        for number, (key, ranking) in enumerate(zip(keys, given, strict=True))
    }


def _ranking(ranking: Any, where: str) -> Ranking:
    if isinstance(ranking, (str, bytes)) or not isinstance(ranking, Iterable):
        raise InvalidRunError(f"{where}: expected a list of ids, best first, got {ranking!r}")
    if not isinstance(ranking, Mapping):
        ranking = [(entry.id, entry.score) if hasattr(entry, "score") else entry for entry in ranking]
    pairs = items_of(ranking, _KIND, where)
    rows = [Row(where, "", key_of(item, _KIND, where), score) for item, score in pairs]
    if isinstance(ranking, Mapping):
        return _sorted(rows)
    scores = _scores(rows)
    _check_once(rows)
    if scores is not None:
        steps = [later - earlier for earlier, later in itertools.pairwise(scores)]
        if min(steps, default=0) < 0 < max(steps, default=0):
            raise InvalidRunError(f"{where}: a ranking goes from best to worst, but its scores go up and down")
    return Ranking([row.item for row in rows], scores)


def _sorted(rows: list[Row]) -> Ranking:
    scores = _scores(rows)
    _check_once(rows)
    if scores is None:
        return Ranking([row.item for row in rows])
    scored = list(zip(scores, rows, strict=True))
    if all(row.trec for row in rows):
        scored.sort(key=lambda entry: entry[1].item, reverse=True)
    scored.sort(key=lambda entry: -entry[0])
    return Ranking([row.item for _, row in scored], [score for score, _ in scored])


def _check_once(rows: list[Row]) -> None:
    seen: set[str] = set()
    for row in rows:
        if row.item in seen:
            query = f" of query {row.query!r}" if row.query else ""
            raise InvalidRunError(f"{row.where}: item {row.item!r}{query} is ranked twice")
        seen.add(row.item)


def _scores(rows: list[Row]) -> list[float] | None:
    """The rows' scores; None if none has one."""
    if all(row.value is None for row in rows):
        return None
    scores = []
    for row in rows:
        try:
            score = float(row.value) if isinstance(row.value, (Real, str)) else math.nan
        except ValueError:
            score = math.nan
        if not math.isfinite(score):
            raise InvalidRunError(
                f"{row.where}: the score of item {row.item!r} must be a finite number, got {row.value!r}"
            )
        scores.append(score)
    return scores
