"""From events to columns: an experiment's impressions, and which of their items were clicked when."""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel

from dbnorm_vdb.errors import EventLogError
from dbnorm_vdb.experiments.events import MAX_ITEMS, Click, Event, Impression, InterleavedImpression
from dbnorm_vdb.experiments.sequential import Floats

Integers: TypeAlias = npt.NDArray[np.int64]
Split: TypeAlias = tuple[tuple[int, ...], tuple[float, ...]]
"""Arms, by number, and their shares of the traffic."""


class Tally(BaseModel):
    """What did not count, or is worth knowing; `dbnorm_vdb.experiments.users` has the rules.

    Attributes:
        later_events: after the time as of which the log was analysed.
        duplicate_impressions: logged again under the same id.
        duplicate_clicks: on an item of an impression that had been clicked before.
        orphan_clicks: on an impression that is not in the log.
        foreign_clicks: on an item that the impression did not show.
        late_impressions: after their user's window.
        late_clicks: after their user's window.
        robots: users with too many impressions in their window.
        robot_impressions: theirs.
        switched_users: shown results of several arms in their window; they count, for the first.
    """

    later_events: int = 0
    duplicate_impressions: int = 0
    duplicate_clicks: int = 0
    orphan_clicks: int = 0
    foreign_clicks: int = 0
    late_impressions: int = 0
    late_clicks: int = 0
    robots: int = 0
    robot_impressions: int = 0
    switched_users: int = 0


@dataclass(frozen=True)
class Impressions:
    """The `n` impressions of an experiment, and the `m` items in them that were clicked.

    Attributes:
        arms: all that occur, the baseline first.
        splits: all that were in force.
        pair: the two that were interleaved, the baseline first; None if nothing was.
        at: (n,) Unix time.
        user: (n,) number of the user.
        split: (n,) which split was in force; -1 if the impression is interleaved.
        arm: (n,) the arm shown; if interleaved, the one that won the first toss, or -1.
        clicked: (m,) number of the impression, in ascending order, and within it by time.
        clicked_at: (m,) Unix time of the first click on the item.
        rank: (m,) of the item, from 1.
        team: (m,) the arm that the item is of.
    """

    arms: list[str]
    splits: list[Split]
    pair: tuple[int, int] | None
    at: Floats
    user: Integers
    split: Integers
    arm: Integers
    clicked: Integers
    clicked_at: Floats
    rank: Integers
    team: Integers


@dataclass
class _Columns:
    at: array[float] = field(default_factory=lambda: array("d"))
    user: array[int] = field(default_factory=lambda: array("q"))
    split: array[int] = field(default_factory=lambda: array("q"))
    arm: array[int] = field(default_factory=lambda: array("q"))
    start: array[int] = field(default_factory=lambda: array("q", (0,)))
    items: array[int] = field(default_factory=lambda: array("q"))  # hashes: eight bytes an item
    teams: array[int] = field(default_factory=lambda: array("b"))


def gather(
    events: Iterable[Event], *, experiment: str | None, until: datetime, tally: Tally
) -> tuple[str, Impressions]:
    """An experiment's name and impressions. The order of the events does not matter.

    Args:
        events: of the log.
        experiment: its name; may be left out if the log holds one experiment.
        until: what happened later is left out.
        tally: counts what is.

    Raises:
        EventLogError: the log holds no impression of the experiment, or several experiments and none was named.
    """
    gathering = _Gathering(experiment, until, tally)
    for event in events:
        gathering.add(event)
    return gathering.name, gathering.impressions()


class _Gathering:
    """Takes events in any order. Of a million impressions of ten items it keeps some 300 MB."""

    def __init__(self, experiment: str | None, until: datetime, tally: Tally) -> None:
        self._experiment = experiment
        self._until = until
        self._tally = tally
        self._names: dict[str, None] = {}
        self._arms: dict[str, int] = {}
        self._splits: dict[Split, int] = {}
        self._pairs: dict[tuple[int, ...], None] = {}
        self._users: dict[str, int] = {}
        self._ids: dict[str, int] = {}  # of impressions; -1: another experiment's
        self._columns = _Columns()
        self._early: list[tuple[str, int, float]] = []  # clicks whose impression was not read yet
        self._clicked: dict[int, float] = {}  # row * MAX_ITEMS + position: time

    @property
    def name(self) -> str:
        """The experiment's."""
        names = list(self._names)
        found = f"it holds {', '.join(map(repr, names[:10]))}" if names else "it holds no impressions"
        if self._experiment is None:
            if len(names) != 1:
                raise EventLogError(f"the log does not say by itself which experiment to analyse: {found}")
            return names[0]
        if self._experiment not in self._names:
            raise EventLogError(f"the log lacks the experiment {self._experiment!r}: {found}")
        return self._experiment

    def add(self, event: Event) -> None:
        if event.at > self._until:
            self._tally.later_events += 1
        elif isinstance(event, Click):
            click = (event.impression, hash(event.item), event.at.timestamp())
            if event.impression in self._ids:
                self._add_click(*click)
            else:
                self._early.append(click)
        else:
            self._names.setdefault(event.experiment)
            if event.id in self._ids:
                self._tally.duplicate_impressions += 1
            elif self._experiment in (None, event.experiment):
                self._ids[event.id] = len(self._columns.at)
                self._add_impression(event)
            else:
                self._ids[event.id] = -1

    def impressions(self) -> Impressions:
        for click in self._early:
            self._add_click(*click)
        self._early = []
        columns = self._columns
        cells = np.fromiter(self._clicked.keys(), dtype=np.int64, count=len(self._clicked))
        times = np.fromiter(self._clicked.values(), dtype=np.float64, count=len(self._clicked))
        row, position = np.divmod(cells, MAX_ITEMS)
        order = np.lexsort((position, times, row))
        start, teams = np.array(columns.start), np.array(columns.teams, dtype=np.int64)
        return Impressions(
            list(self._arms),
            list(self._splits),
            self._pair(),
            np.array(columns.at),
            np.array(columns.user),
            np.array(columns.split),
            np.array(columns.arm),
            row[order],
            times[order],
            position[order] + 1,
            teams[start[row] + position][order],
        )

    def _pair(self) -> tuple[int, int] | None:
        pairs = list(self._pairs)
        if len({frozenset(pair) for pair in pairs}) > 1:
            raise EventLogError(
                f"experiment {self.name!r} interleaves several pairs of arms, {', '.join(self._arms)}:"
                " give every pair a name of its own"
            )
        return (pairs[0][0], pairs[0][1]) if pairs else None

    def _add_impression(self, event: Impression | InterleavedImpression) -> None:
        columns = self._columns
        numbers = tuple(self._arms.setdefault(arm, len(self._arms)) for arm in event.arms)
        columns.at.append(event.at.timestamp())
        columns.user.append(self._users.setdefault(event.key, len(self._users)))
        columns.items.extend(map(hash, event.items))
        if isinstance(event, Impression):
            columns.split.append(self._splits.setdefault((numbers, event.weights), len(self._splits)))
            columns.arm.append(self._arms[event.arm])
            columns.teams.extend([self._arms[event.arm]] * len(event.items))
        else:
            self._pairs.setdefault(numbers)
            columns.split.append(-1)
            columns.arm.append(-1 if event.first is None else self._arms[event.first])
            columns.teams.extend(self._arms[team] for team in event.teams)
        columns.start.append(len(columns.items))

    def _add_click(self, impression: str, item: int, at: float) -> None:
        row = self._ids.get(impression)
        if row is None:
            self._tally.orphan_clicks += 1
        elif row >= 0:
            columns = self._columns
            start, end = columns.start[row], columns.start[row + 1]
            try:
                cell = row * MAX_ITEMS + columns.items.index(item, start, end) - start
            except ValueError:
                self._tally.foreign_clicks += 1
                return
            if cell in self._clicked:
                self._tally.duplicate_clicks += 1
            self._clicked[cell] = min(at, self._clicked.get(cell, at))
