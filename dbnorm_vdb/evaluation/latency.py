"""How long searches take, arm against arm: interleaved, so that whatever else happens meets all arms alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np

from dbnorm_vdb.banks import Vectors
from dbnorm_vdb.evaluation.arms import ArmSearch
from dbnorm_vdb.evaluation.results import Latency

_WARM_UP = 3

Clock = Callable[[], float]


def measure_latency(
    searches: Sequence[ArmSearch], queries: Vectors, *, baseline: str, limit: int, clock: Clock = time.perf_counter
) -> dict[str, Latency]:
    """Time single searches; the arms take turns query by query, and each query another one goes first.

    The first query of all is searched by every arm a few times before, untimed: connections and caches are warm then.

    Args:
        searches: the arms, none of them a saved run.
        queries: (m, d).
        baseline: the arm that the others' times are divided by.
        limit: results asked for.
        clock: seconds.
    """
    for search in searches:
        for _ in range(_WARM_UP):
            search.once(queries[:1], limit)
    seconds = np.empty((len(searches), len(queries)))
    for row in range(len(queries)):
        for turn in range(len(searches)):
            arm = (row + turn) % len(searches)
            started = clock()
            searches[arm].once(queries[row : row + 1], limit)
            seconds[arm, row] = clock() - started
    names = [search.name for search in searches]
    base = np.maximum(seconds[names.index(baseline)], 1e-9) if baseline in names else None
    return {
        name: Latency(
            median=_ms(np.median(times)),
            p95=_ms(np.quantile(times, 0.95)),
            mean=_ms(times.mean()),
            ratio=None if base is None else round(float(np.median(times / base)), 3),
            samples=[_ms(taken) for taken in times],
        )
        for name, times in zip(names, seconds, strict=True)
    }


def spread(count: int, wanted: int) -> list[int]:
    """`wanted` of `count` rows, evenly spread; all if there are fewer."""
    return [int(row) for row in np.unique(np.linspace(0, count - 1, min(count, wanted)).astype(np.intp))]


def _ms(seconds: float | np.floating) -> float:
    return round(1000 * float(seconds), 4)
