"""Windows of different sizes: what they hold of the exact result, and for how many queries the result is certified."""

from __future__ import annotations

import numpy as np

from dbnorm_vdb.banks import Vectors
from dbnorm_vdb.evaluation.arms import CollectionSearch
from dbnorm_vdb.evaluation.results import WindowPoint, Windows
from dbnorm_vdb.methods import Method
from dbnorm_vdb.statistics import ItemId

_LARGEST = 1000
_STEPS = 8


def measure_windows(search: CollectionSearch, queries: Vectors, *, limit: int) -> Windows | None:
    """How windows from `limit` to 1 000 candidates do, compared with an exact search of the same arm.

    Args:
        search: an arm; None is returned for raw ones, which re-rank nothing.
        queries: (m, d).
        limit: results that a user sees.
    """
    if search.method is Method.RAW:
        return None
    default = search.default_window(limit)
    truth = _results(search, queries, limit, candidates=None)
    points = []
    for size in _sizes(limit, default, search.status.item_count):
        found = _results(search, queries, limit, candidates=size)
        held = [len(ids & exact) / max(len(exact), 1) for (ids, _), (exact, _) in zip(found, truth, strict=True)]
        points.append(
            WindowPoint(
                candidates=size,
                held=round(float(np.mean(held)), 6),
                certified=round(float(np.mean([certified for _, certified in found])), 6),
            )
        )
    return Windows(query_count=len(queries), default=default, points=points)


def _sizes(limit: int, default: int, item_count: int) -> list[int]:
    """About equally spaced on a logarithmic scale, the default among them."""
    most = max(limit, min(_LARGEST, item_count))
    spaced = np.geomspace(limit, most, _STEPS).round().astype(int).tolist()
    return sorted({*spaced, min(default, max(most, default))})


def _results(
    search: CollectionSearch, queries: Vectors, limit: int, *, candidates: int | None
) -> list[tuple[set[ItemId], bool]]:
    """The ids of each query's result, and whether it is certified; without `candidates`, of an exact search."""
    told = search.adapter.nearest_explained(
        queries, limit=limit, candidates=candidates, method=search.method, exact=candidates is None
    )
    return [({hit.id for hit in one.hits}, one.certified) for one in told]
