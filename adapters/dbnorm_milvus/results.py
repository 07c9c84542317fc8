"""Milvus search results in and out: the client's own objects, reordered in place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pymilvus.client.search_result import HybridHits

_ADDED_UP = ("cost", "scanned_remote_bytes", "scanned_total_bytes")


def keep_hits(hits: HybridHits, rows: Sequence[int], distances: Sequence[float]) -> None:
    """Reduce the hits of one query to `rows`, in that order, with new distances; all else stays as it is."""
    ids = [hits.ids[row] for row in rows]
    replace_hits(hits, decoded(hits, rows), ids, distances)


def decoded(hits: HybridHits, rows: Sequence[int]) -> list[Any]:
    """The hits at `rows`, whole. The others are not decoded; `replace_hits` must follow.

    Hits decode JSON and vectors when they are first read, all at once, from `start` in the response on. Here each that
    is wanted is decoded alone.
    """
    wanted = [hits.get_raw_item(row) for row in rows]
    if not hits.has_materialized:
        start = hits.start
        for row, hit in zip(rows, wanted, strict=True):
            hits[:] = [hit]
            hits.start, hits.has_materialized = start + row, False
            hits.materialize()
        hits.has_materialized = True
    return wanted


def replace_hits(hits: HybridHits, kept: Sequence[Any], ids: Sequence[Any], distances: Sequence[float]) -> None:
    """Put decoded hits, with new distances, in the place of those of one query."""
    for hit, distance in zip(kept, distances, strict=True):
        hit["distance"] = distance
    hits[:] = kept
    hits.ids = list(ids)
    hits.distances = list(distances)
    hits.has_materialized = True


def add_costs(result: Any, other: Any) -> None:
    """Count what another request cost to a result that it helped to make, where the server tells."""
    for name in _ADDED_UP:
        if name in other.extra:
            result.extra[name] = result.extra.get(name, 0) + other.extra[name]
