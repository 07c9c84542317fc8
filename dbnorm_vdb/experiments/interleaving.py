"""Team-draft interleaving of two result lists (Radlinski, Kurup and Joachims, CIKM 2008; Chapelle et al., TOIS 2012).

The two rankers pick like captains of two teams. In each round a coin says who picks first; each picks the best of its
own list that nobody has picked yet. A click is credited to the team that picked the item, so that with equally good
lists each team wins as often as the other, whatever the users' habits.

- An item that both lists have belongs to whichever team came to pick it first; the coin makes that fair.
- An item that a list has twice counts where it stands first.
- When one list has nothing left, the other goes on alone, and is credited with what it adds. A list that is longer can
  win by that: compare lists of equal length. It cannot happen as long as both lists have at least as many distinct
  items as are shown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Generic, TypeVar

from dbnorm_vdb.experiments.keys import MAX_ITEM_LENGTH, check_text, digest

T = TypeVar("T")

_COINS = 512


@dataclass(frozen=True)
class Interleaved(Generic[T]):
    """What to show of two result lists, and whose pick each item is.

    Attributes:
        items: the user's own objects, in the order in which to show them.
        ids: the id of each, as text.
        teams: the arm that picked each.
        first: the arm that won the first toss; None if there was none, since one of the lists was empty.
        key: the key of the user.
        impression: the id of the impression. The same lists with the same id and key are interleaved in the same way.
    """

    items: tuple[T, ...]
    ids: tuple[str, ...]
    teams: tuple[str, ...]
    first: str | None
    key: str
    impression: str

    def __len__(self) -> int:
        return len(self.items)


def coins(*seed: str) -> Iterator[bool]:
    """Fair coins from a hash of texts, as many as are asked for."""
    for block in count():
        bits = digest(*seed, str(block), size=_COINS // 8)
        yield from (bool(bits >> position & 1) for position in range(_COINS))


def team_draft(
    first: Sequence[T],
    second: Sequence[T],
    tosses: Iterator[bool],
    *,
    limit: int,
    id_of: Callable[[T], object],
) -> tuple[list[T], list[str], list[int]]:
    """Interleave two lists, best first, up to `limit` items.

    Args:
        first: the list of team 0.
        second: the list of team 1.
        tosses: a coin for each round: whether team 1 picks first.
        limit: how many items to show at most.
        id_of: the id of an item: a string, an integer or a UUID.

    Returns:
        The items, their ids as text, and the team (0 or 1) that picked each.
    """
    lists = [[(check_text(id_of(item), what="item id", longest=MAX_ITEM_LENGTH), item) for item in side]
             for side in (first, second)]  # fmt: skip
    places = [0, 0]
    sizes = [0, 0]
    items: list[T] = []
    ids: list[str] = []
    teams: list[int] = []
    shown: set[str] = set()
    while len(items) < limit:
        for team, side in enumerate(lists):
            while places[team] < len(side) and side[places[team]][0] in shown:
                places[team] += 1
        left = [places[team] < len(lists[team]) for team in (0, 1)]
        if not any(left):
            break
        if not all(left):
            team = left.index(True)
        elif sizes[0] == sizes[1]:
            team = int(next(tosses))
        else:
            team = sizes.index(min(sizes))
        text, item = lists[team][places[team]]
        sizes[team] += 1
        items.append(item)
        ids.append(text)
        teams.append(team)
        shown.add(text)
    return items, ids, teams
