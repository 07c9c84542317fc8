"""Where charts draw what."""

import re

import pytest
from report.made import comparison, with_windows

from dbnorm_vdb.report.charts import Axis, Chart, Line, nice_ceiling
from dbnorm_vdb.report.figures import charts_of

STYLES = {"raw": "arm-0", "new": "arm-1"}


def chart(lines, *, x=None, y=None):
    return Chart("key", "title", "summary", x or Axis("x", 0, 10), y or Axis("y", 0, 1), lines, [], [])


def corners(path):
    """The points of a path's steps and lines."""
    place, found = [0.0, 0.0], []
    for kind, numbers in re.findall(r"([MLHV])([\d. ]+)", path):
        values = [float(number) for number in numbers.split()]
        place = {"H": [*values, place[1]], "V": [place[0], *values]}.get(kind, values)
        found.append(tuple(place))
    return found


@pytest.mark.parametrize(
    ("axis", "ticks"),
    [
        (Axis("", 0, 1), [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (Axis("", 0, 84), [0, 20, 40, 60, 80]),
        (Axis("", 0, 0.3), [0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3]),
        (Axis("", 1, 100, log=True), [1, 2, 5, 10, 20, 50, 100]),
        (Axis("", 1, 1872, log=True), [1, 3, 10, 30, 100, 300, 1000]),
        (Axis("", 10, 1e9, log=True), [10, 1000, 100_000, 10_000_000, 1_000_000_000]),
        (Axis("", 3, 4, log=True), [3]),
        (Axis("", 2, 2), [2]),
    ],
)
def test_ticks_are_few_and_round(axis, ticks):
    assert axis.ticks() == pytest.approx(ticks)


def test_values_lie_between_the_ends():
    assert [Axis("", 0, 10).place(value) for value in (-1, 0, 5, 10, 11)] == [0, 0, 0.5, 1, 1]
    assert [Axis("", 1, 100, log=True).place(value) for value in (0, 1, 10, 100)] == pytest.approx([0, 0, 0.5, 1])


def test_lines_and_steps_go_through_their_points():
    drawn = chart([Line("a", "arm-0", [(0, 0), (5, 1), (10, 0.5)]), Line("b", "arm-1", [(0, 1), (5, 0)], stepped=True)])
    left, right, top, bottom = drawn.left, drawn.right, drawn.top, drawn.bottom
    middle = (left + right) / 2
    assert corners(drawn.drawn[0].path) == [(left, bottom), (middle, top), (right, (top + bottom) / 2)]
    assert corners(drawn.drawn[1].path) == [(left, top), (middle, top), (middle, bottom)]


def test_the_ends_of_axes_are_round():
    assert [nice_ceiling(value) for value in (0, 0.04, 0.75, 1, 0.31, 61)] == pytest.approx([1, 0.04, 0.8, 1, 0.4, 80])


def test_the_line_of_occurrences_falls_where_items_are_no_longer_found():
    found = comparison()
    drawn = {made.key: made for made in charts_of(found, STYLES)}["occurrence"]
    for line, arm in zip(drawn.lines, found.arms, strict=True):
        occurrences = arm.hubness.occurrences
        assert line.points[0] == (0, arm.hubness.item_count)
        assert line.points[-1][0] == max(often for often, _ in occurrences)
        for often, left in line.points[1:]:
            assert left == max(1, sum(items for times, items in occurrences if times > often))
    assert [row[0] for row in drawn.rows][:3] == ["0 lists", "1 list", "2 lists"]
    assert drawn.rows[0][1:] == ["40", "40"]


def test_recall_and_windows_are_those_of_the_comparison():
    found = with_windows(comparison())
    drawn = {made.key: made for made in charts_of(found, STYLES)}
    assert [list(line.points) for line in drawn["recall"].lines] == [
        list(enumerate(arm.recall, 1)) for arm in found.arms
    ]
    held, certified = drawn["windows"].lines
    assert list(held.points) == [(10, 0.5), (20, 0.8), (40, 1.0)]
    assert list(certified.points) == [(10, 0.0), (20, 0.25), (40, 0.75)]
    assert (held.dashed, certified.dashed) == (False, True)
    assert held.marked == [(30, pytest.approx(0.9), "new: 30 candidates, the default")]
    assert drawn["windows"].rows[1] == ["20", "80.0\u00a0%", "25.0\u00a0%"]
