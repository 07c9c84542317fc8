"""The charts of a comparison: k-occurrence, recall at every depth, windows and certificates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise

from dbnorm_vdb.evaluation.results import ArmHubness, ArmResult, Comparison, WindowPoint
from dbnorm_vdb.report.charts import Axis, Chart, Line, nice_ceiling
from dbnorm_vdb.report.text import NAME_LENGTH, count, percent, shown, whole

_DEPTHS_TOLD = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)

Styles = Mapping[str, str]
"""The class of each arm's colour, by its name."""


def charts_of(comparison: Comparison, styles: Styles) -> list[Chart]:
    """All charts that the comparison has figures for."""
    made = (draw(comparison, styles) for draw in (recall_chart, occurrence_chart, window_chart))
    return [chart for chart in made if chart is not None]


def occurrence_chart(comparison: Comparison, styles: Styles) -> Chart | None:
    """How many items are found at least so often; hubs are the tail on the right."""
    found = [(arm, arm.hubness) for arm in comparison.arms if arm.hubness is not None]
    if not found:
        return None
    limit = comparison.settings.limit
    most = max(hubness.occurrences[-1][0] for _, hubness in found)
    items = max(hubness.item_count for _, hubness in found)
    told = sorted({0, *(n for n in _DEPTHS_TOLD if n <= most)})
    summary = " ".join(
        f"With {_name(arm)}, the item found most often is in {count(hubness.occurrences[-1][0], 'list', 'lists')};"
        f" {percent(hubness.measures['antihub_occurrence'])} of the items are in none."
        for arm, hubness in found
    )
    return Chart(
        key="occurrence",
        title="How often items are found",
        summary=f"{summary} The further right a line ends, the larger its hubs.",
        x=Axis(f"in at least so many lists of the first {limit} (k-occurrence)", 0, max(most, 1)),
        y=Axis("items", 1, max(items, 2), log=True, format=whole),
        lines=[Line(_name(arm), styles[arm.name], _at_least(hubness), stepped=True) for arm, hubness in found],
        headings=["in at least", *(f"items with {_name(arm)}" for arm, _ in found)],
        rows=[
            [count(often, "list", "lists"), *(whole(_items_at_least(hubness, often)) for _, hubness in found)]
            for often in told
        ],
    )


def recall_chart(comparison: Comparison, styles: Styles) -> Chart | None:
    """Recall at every depth."""
    found = [arm for arm in comparison.arms if arm.recall]
    if not found:
        return None
    depth = max(len(arm.recall) for arm in found)
    told = [k for k in _DEPTHS_TOLD if k <= depth]
    at = comparison.settings.limit if comparison.settings.limit <= depth else depth
    figures = ", ".join(f"{percent(arm.recall[min(at, len(arm.recall)) - 1])} with {_name(arm)}" for arm in found)
    return Chart(
        key="recall",
        title="Recall at every depth",
        summary=f"The share of the relevant items that are among the first {at} results is {figures}.",
        x=Axis("first k results", 1, max(depth, 2), log=True, format=whole),
        y=Axis("recall", 0, nice_ceiling(max(max(arm.recall) for arm in found)), format=_percent),
        lines=[Line(_name(arm), styles[arm.name], list(enumerate(arm.recall, 1))) for arm in found],
        headings=["first", *(_name(arm) for arm in found)],
        rows=[[count(k, "result", "results"), *(percent(arm.recall[k - 1]) for arm in found)] for k in told],
    )


def window_chart(comparison: Comparison, styles: Styles) -> Chart | None:
    """What windows of candidates hold, and for how many queries their result is certified."""
    found = [(arm, arm.windows) for arm in comparison.arms if arm.windows is not None and arm.windows.points]
    if not found:
        return None
    limit = comparison.settings.limit
    sizes = sorted({point.candidates for _, windows in found for point in windows.points})
    lines: list[Line] = []
    for arm, windows in found:
        held = [(float(point.candidates), point.held) for point in windows.points]
        certified = [(float(point.candidates), point.certified) for point in windows.points]
        at, style = windows.default, styles[arm.name]
        mark = (float(at), _between(held, at), f"{_name(arm)}: {at} candidates, the default")
        lines.append(Line(f"{_name(arm)}: held", style, held, marked=[mark]))
        lines.append(Line(f"{_name(arm)}: certified", style, certified, dashed=True))
    summary = " ".join(
        f"Over {count(windows.query_count, 'query', 'queries')}, the default window of {_name(arm)}, {windows.default}"
        f" candidates, holds"
        f" {percent(_between([(p.candidates, p.held) for p in windows.points], windows.default))} of the exact first"
        f" {limit} results, and certifies"
        f" {percent(_between([(p.candidates, p.certified) for p in windows.points], windows.default))} of the queries."
        for arm, windows in found
    )
    return Chart(
        key="windows",
        title="Windows and certificates",
        summary=summary,
        x=Axis("window: candidates fetched and re-ranked", sizes[0], max(sizes[-1], sizes[0] + 1), True, whole),
        y=Axis("share", 0, 1, format=_percent),
        lines=lines,
        headings=["candidates", *(f"{_name(arm)}, {what}" for arm, _ in found for what in ("held", "certified"))],
        rows=[
            [whole(size), *(cell for _, windows in found for cell in _window_cells(windows.points, size))]
            for size in sizes
        ],
    )


def _window_cells(points: Sequence[WindowPoint], size: int) -> list[str]:
    point = next((point for point in points if point.candidates == size), None)
    return ["", ""] if point is None else [percent(point.held), percent(point.certified)]


def _name(arm: ArmResult) -> str:
    return shown(arm.name, NAME_LENGTH)


def _at_least(hubness: ArmHubness) -> list[tuple[float, float]]:
    """Pairs (n, items in at least n lists), for steps: the line falls after n, to what is in at least n + 1."""
    points: list[tuple[float, float]] = [(0.0, float(hubness.item_count))]
    counts = [items for _, items in hubness.occurrences]
    left = [hubness.item_count - gone for gone in accumulate(counts)]
    for (often, _), remaining in zip(hubness.occurrences, left, strict=True):
        points.append((float(often), float(max(remaining, 1))))
    return points


def _items_at_least(hubness: ArmHubness, often: int) -> int:
    return sum(items for times, items in hubness.occurrences if times >= often)


def _between(points: Sequence[tuple[float, float]], at: float) -> float:
    """The value at `at`, on the straight line between its neighbours."""
    for (low, before), (high, after) in pairwise(points):
        if low <= at <= high and high > low:
            return before + (after - before) * (at - low) / (high - low)
    return points[0][1] if at < points[0][0] else points[-1][1]


def _percent(share: float) -> str:
    return f"{100 * share:g} %"
