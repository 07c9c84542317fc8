"""Milvus search results in and out: the client's own objects, reordered in place."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from pymilvus.client.search_result import HybridHits

_ADDED_UP = ("cost", "scanned_remote_bytes", "scanned_total_bytes")


def keep_hits(hits: HybridHits, rows: Sequence[int], distances: Sequence[float]) -> None:
    """Reduce the hits of one query to `rows`, in that order, with new distances; all else stays as it is.

    Hits decode JSON and vectors when they are first read: here, too, and those that stay only.
    """
    if "materialize" in vars(hits):  # kept before, and not read yet
        hits.materialize()
    kept = [hits.get_raw_item(row) for row in rows]
    _put(hits, kept, [hits.ids[row] for row in rows], distances)
    if not hits.has_materialized:
        hits.materialize = partial(_materialize, hits, [hits.start + row for row in rows])


def merge_hits(several: Sequence[HybridHits], places: Sequence[tuple[int, int]], distances: Sequence[float]) -> None:
    """Make the first of several lists of one query's hits hold those at `places`: (which list, which row) of each.

    They stand in different responses, so that they are decoded here; the other lists are used up.
    """
    ids = [several[which].ids[row] for which, row in places]
    for which, hits in enumerate(several):
        rows = [row for of, row in places if of == which]
        keep_hits(hits, rows, [hits.distances[row] for row in rows])
    whole = [iter(list(hits)) for hits in several]
    _put(several[0], [next(whole[which]) for which, _ in places], ids, distances)


def _put(hits: HybridHits, kept: Sequence[Any], ids: Sequence[Any], distances: Sequence[float]) -> None:
    """Put these hits, with new distances, in the place of those of one query."""
    for hit, distance in zip(kept, distances, strict=True):
        hit["distance"] = distance
    hits[:] = kept
    hits.ids = list(ids)
    hits.distances = list(distances)


def _materialize(hits: HybridHits, rows: Sequence[int]) -> None:
    """Decode what the hits, which stand in these rows of the response, have not decoded yet.

    The client's own way decodes all rows from `start` on, so it is given one hit at a time.
    """
    del hits.materialize  # from now on the class's
    kept = list.copy(hits)
    start = hits.start
    for row, hit in zip(rows, kept, strict=True):
        hits[:] = [hit]
        hits.start, hits.has_materialized = row, False
        hits.materialize()
    hits[:] = kept
    hits.start, hits.has_materialized = start, True


def add_costs(result: Any, other: Any) -> None:
    """Count what another request cost to a result that it helped to make, where the server tells."""
    for name in _ADDED_UP:
        if name in other.extra:
            result.extra[name] = result.extra.get(name, 0) + other.extra[name]
