"""Line charts: from figures to where things are drawn. The template draws them, as SVG."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

WIDTH, HEIGHT = 440.0, 290.0
LEFT, RIGHT, TOP, BOTTOM = 58.0, 22.0, 30.0, 46.0
_MOST_TICKS = 7

Point = tuple[float, float]
Format = Callable[[float], str]


@dataclass(frozen=True)
class Axis:
    """One axis.

    Attributes:
        label: what it shows, with its unit.
        low, high: the ends, in the figures' own scale; `low > 0` if it is logarithmic.
        log: whether it is logarithmic.
        format: of its ticks.
    """

    label: str
    low: float
    high: float
    log: bool = False
    format: Format = "{:g}".format

    def place(self, value: float) -> float:
        """Where a value lies between the ends, 0 to 1."""
        low, high, value = (math.log(v) if self.log else v for v in (self.low, self.high, max(value, self._least)))
        return min(max((value - low) / (high - low), 0.0), 1.0) if high > low else 0.0

    @property
    def _least(self) -> float:
        return self.low if self.log else -math.inf

    def ticks(self) -> list[float]:
        """Round numbers between the ends."""
        return _log_ticks(self.low, self.high) if self.log else _linear_ticks(self.low, self.high)


@dataclass(frozen=True)
class Line:
    """What is drawn for one arm.

    Attributes:
        name: in the legend.
        style: the class of its colour.
        points: ascending in x.
        dashed: whether it is dashed.
        stepped: whether a value holds until the next one.
        marked: points to mark, with what they are.
    """

    name: str
    style: str
    points: Sequence[Point]
    dashed: bool = False
    stepped: bool = False
    marked: Sequence[tuple[float, float, str]] = ()


@dataclass(frozen=True)
class Tick:
    """A tick: where, and what it says."""

    at: float
    label: str


@dataclass(frozen=True)
class Drawn:
    """A line as SVG has it."""

    name: str
    style: str
    path: str
    dashed: bool
    marks: list[tuple[float, float, str]]


@dataclass(frozen=True)
class Chart:
    """A chart that is ready to be drawn, in units of its view box.

    Attributes:
        key: of its anchor.
        title, summary: what it shows, and what it says: its text alternative.
        headings, rows: the same in figures.
    """

    key: str
    title: str
    summary: str
    x: Axis
    y: Axis
    lines: Sequence[Line]
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    width: float = field(default=WIDTH, init=False)
    height: float = field(default=HEIGHT, init=False)
    left: float = field(default=LEFT, init=False)
    right: float = field(default=WIDTH - RIGHT, init=False)
    top: float = field(default=TOP, init=False)
    bottom: float = field(default=HEIGHT - BOTTOM, init=False)

    @property
    def x_ticks(self) -> list[Tick]:
        """Of the lower axis."""
        return [Tick(self._x(value), self.x.format(value)) for value in self.x.ticks()]

    @property
    def y_ticks(self) -> list[Tick]:
        """Of the left axis."""
        return [Tick(self._y(value), self.y.format(value)) for value in self.y.ticks()]

    @property
    def drawn(self) -> list[Drawn]:
        """The lines, the first one last, on top."""
        return [
            Drawn(
                line.name,
                line.style,
                self._path(line),
                line.dashed,
                [(self._x(x), self._y(y), text) for x, y, text in line.marked],
            )
            for line in self.lines
        ]

    def _x(self, value: float) -> float:
        return round(self.left + (self.right - self.left) * self.x.place(value), 1)

    def _y(self, value: float) -> float:
        return round(self.bottom - (self.bottom - self.top) * self.y.place(value), 1)

    def _path(self, line: Line) -> str:
        path, before = "", None
        for x, y in ((self._x(x), self._y(y)) for x, y in line.points):
            if before is None:
                path = f"M{x:g} {y:g}"
            elif line.stepped:
                path += f"H{x:g}V{y:g}"
            elif before != (x, y):
                path += f"L{x:g} {y:g}"
            before = (x, y)
        return path


def _linear_ticks(low: float, high: float) -> list[float]:
    raw = (high - low) / (_MOST_TICKS - 1)
    if raw <= 0:
        return [low]
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(number * step, 12) for number in range(first, last + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten, with 2 and 5 times them where there is room."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1, 2, 5), (1, 3), (1,)):
        ticks = [factor * 10.0**power for power in powers for factor in factors]
        ticks = [tick for tick in ticks if low * (1 - 1e-9) <= tick <= high * (1 + 1e-9)]
        if len(ticks) <= _MOST_TICKS:
            break
    return ticks[:: math.ceil(len(ticks) / _MOST_TICKS)] if ticks else [low]


def nice_ceiling(value: float) -> float:
    """The next round number, for the end of an axis."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(factor * power for factor in (1, 1.5, 2, 3, 4, 5, 6, 8, 10) if factor * power >= value * (1 - 1e-9))
