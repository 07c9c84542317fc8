"""Bias ranges that hold for every item, also for those written after the fit."""

from __future__ import annotations

from datetime import datetime, timezone

import numpy as np

from dbnorm_vdb.methods import Method, adjustments_of, score
from dbnorm_vdb.statistics import BiasBounds, CollectionStatistics, Floats, ItemStatistics

_SLACK = 0.25
"""Reach further than needed by this share of the range, so that few items need new bounds."""


def bounds_beyond(statistics: CollectionStatistics, items: ItemStatistics) -> BiasBounds | None:
    """Bounds that hold for these items too, or None if the statistics' own do.

    Args:
        statistics: with the ranges that hold so far.
        items: about to be written.
    """
    ranges: dict[str, tuple[float, float]] = {}
    for name, column in statistics.columns.items():
        low, high = _finite_range(items.bias(name))
        slack = _SLACK * (column.bias.max - column.bias.min)
        if low < column.bias.min or high > column.bias.max:
            ranges[name] = (
                low - slack if low < column.bias.min else column.bias.min,
                high + slack if high > column.bias.max else column.bias.max,
            )
    lowest_dual = None
    if statistics.lowest_dual_adjustment is not None and len(items):
        lowest = float(dual_adjustments(statistics, items).min())
        if lowest < statistics.lowest_dual_adjustment:
            lowest_dual = lowest - _SLACK * abs(lowest)
    if not ranges and lowest_dual is None:
        return None
    return BiasBounds(
        generation=statistics.generation,
        ranges=ranges,
        lowest_dual=lowest_dual,
        written_at=datetime.now(timezone.utc),
    )


def dual_adjustments(statistics: CollectionStatistics, items: ItemStatistics) -> Floats:
    """(n,) what `dual_is` subtracts from each item's similarity."""
    scores = score(Method.DUAL_IS, np.zeros((1, len(items))), adjustments_of(statistics, items), {})
    adjustments: Floats = -scores[0]
    return adjustments


def _finite_range(values: Floats) -> tuple[float, float]:
    finite = values[np.isfinite(values)]
    return (float(finite.min()), float(finite.max())) if len(finite) else (np.inf, -np.inf)
