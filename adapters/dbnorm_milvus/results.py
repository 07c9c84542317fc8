"""Milvus search results in and out: the client's own objects, reordered in place."""

from __future__ import annotations

from collections.abc import Sequence

from pymilvus.client.search_result import HybridHits

from dbnorm_vdb.statistics import Metric

SAME_SCALE = {Metric.COSINE: 1.0, Metric.DOT: 1.0, Metric.EUCLIDEAN: -1.0}
"""Milvus' distance times this is the similarity, and the other way round: L2 is the squared distance."""


def keep_hits(hits: HybridHits, rows: Sequence[int], distances: Sequence[float]) -> None:
    """Reduce the hits of one query to `rows`, in that order, with new distances; all else stays as it is.

    Hits decode JSON and vectors when they are first read, all at once, from `start` in the response on. Those that stay
    are decoded here, each alone, and the others never.
    """
    kept = [hits.get_raw_item(row) for row in rows]
    start = hits.start
    for row, hit, distance in zip(rows, kept, distances, strict=True):
        hit["distance"] = distance
        hits[:] = [hit]
        hits.start, hits.has_materialized = start + row, False
        hits.materialize()
    hits[:] = kept
    hits.ids = [hits.ids[row] for row in rows]
    hits.distances = list(distances)
