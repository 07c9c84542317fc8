"""Milvus search results in and out: the client's own objects, reordered in place."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from pymilvus.client.search_result import HybridHits

from dbnorm_vdb.statistics import Metric

SAME_SCALE = {Metric.COSINE: 1.0, Metric.DOT: 1.0, Metric.EUCLIDEAN: -1.0}
"""Milvus' distance times this is the similarity, and the other way round: L2 is the squared distance."""


def keep_hits(hits: HybridHits, rows: Sequence[int], distances: Sequence[float]) -> None:
    """Reduce the hits of one query to `rows`, in that order, with new distances; all else stays as it is.

    Hits decode JSON and vectors when they are first read: here, too, and those that stay only.
    """
    if "materialize" in vars(hits):  # kept before, and not read yet
        hits.materialize()
    kept = [hits.get_raw_item(row) for row in rows]
    for hit, distance in zip(kept, distances, strict=True):
        hit["distance"] = distance
    hits[:] = kept
    hits.ids = [hits.ids[row] for row in rows]
    hits.distances = list(distances)
    if not hits.has_materialized:
        hits.materialize = partial(_materialize, hits, [hits.start + row for row in rows])


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
