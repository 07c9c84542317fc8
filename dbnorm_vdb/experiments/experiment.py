"""One experiment: its arms, who gets which, and both at once."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import TypeVar
from uuid import UUID

from dbnorm_vdb.errors import InvalidParameterError
from dbnorm_vdb.experiments.interleaving import Interleaved, coins, team_draft
from dbnorm_vdb.experiments.keys import MAX_KEY_LENGTH, MAX_NAME_LENGTH, check_text, new_id
from dbnorm_vdb.experiments.split import assigned_arm
from dbnorm_vdb.parameters import check_count

T = TypeVar("T")

MAX_ARMS = 16


@dataclass(frozen=True)
class Experiment:
    """A comparison of two or more arms on live traffic. Pure: it stores nothing and asks nobody.

    Every process that makes it with the same arguments gives every key the same arm.

    Args:
        name: of the experiment, as the event log has it. A new name is a new, independent split.
        arms: names of the arms, the baseline first; for instance values of `method=` of an adapter's search.
        weights: shares of the traffic in any unit, one an arm; None for equal shares. An arm of weight 0 gets nobody.
            `assign` says who moves when they are changed.
        salt: makes the split another one, and unpredictable to those who do not know it.

    Raises:
        InvalidParameterError: fewer than two arms or more than 16, names that repeat or are empty, weights that are
            negative, not finite, all zero, or not as many as the arms.
    """

    name: str
    arms: tuple[str, ...]
    weights: tuple[float, ...]
    salt: str

    def __init__(
        self, name: str, arms: Sequence[str], *, weights: Sequence[float] | None = None, salt: str = ""
    ) -> None:
        object.__setattr__(self, "name", check_text(name, what="experiment name", longest=MAX_NAME_LENGTH))
        object.__setattr__(self, "arms", _checked_arms(arms))
        object.__setattr__(self, "weights", _shares(weights, len(self.arms)))
        if not isinstance(salt, str):
            raise InvalidParameterError(f"salt must be a string, got {salt!r}")
        object.__setattr__(self, "salt", salt)

    def assign(self, key: str | int | UUID) -> str:
        """The arm of a user, a session or a query: the same for the same key, everywhere and for ever.

        When weights change, a key moves from one arm to another only if the other's weight grew relative to the one's;
        with two arms that is as few as possible. See `dbnorm_vdb.experiments.split`.

        Raises:
            InvalidParameterError: the key is no string, integer or UUID, empty, or longer than 256 characters.
        """
        text = check_text(key, what="key", longest=MAX_KEY_LENGTH)
        return assigned_arm(text, self.arms, self.weights, experiment=self.name, salt=self.salt)

    def interleave(
        self,
        key: str | int | UUID,
        first: Sequence[T],
        second: Sequence[T],
        *,
        id_of: Callable[[T], object] = lambda item: item,
        limit: int | None = None,
        impression: str | None = None,
    ) -> Interleaved[T]:
        """Both arms' results as one list, by team-draft interleaving (see `dbnorm_vdb.experiments.interleaving`).

        Args:
            key: of the user, session or query; `analyze` counts each once.
            first: the results of `arms[0]`, best first.
            second: the results of `arms[1]`.
            id_of: an item's id, for instance `lambda point: point.id`; by default items are their own ids.
            limit: how many to show; by default as many as the longer list has.
            impression: an id for this impression, which seeds the coins; by default a new, random one. With the same
                id, the same results give the same list, or its beginning if `limit` is less.

        Raises:
            InvalidParameterError: the experiment has more than two arms, or an id or the key cannot be one.
        """
        if len(self.arms) != 2:
            raise InvalidParameterError(f"interleaving compares two arms, experiment {self.name!r} has {self.arms}")
        text = check_text(key, what="key", longest=MAX_KEY_LENGTH)
        seed = new_id() if impression is None else check_text(impression, what="impression", longest=MAX_NAME_LENGTH)
        most = max(len(first), len(second)) if limit is None else check_count(limit, what="limit")
        tosses = coins(self.salt, self.name, "interleave", text, seed)
        items, ids, teams = team_draft(first, second, tosses, limit=most, id_of=id_of)
        return Interleaved(
            tuple(items),
            tuple(ids),
            tuple(self.arms[team] for team in teams),
            self.arms[teams[0]] if first and second and teams else None,
            text,
            seed,
        )


def _checked_arms(arms: Sequence[str]) -> tuple[str, ...]:
    if isinstance(arms, str) or not 2 <= len(arms) <= MAX_ARMS:
        raise InvalidParameterError(f"an experiment compares 2 to {MAX_ARMS} arms, got {arms!r}")
    names = tuple(check_text(arm, what="arm", longest=MAX_NAME_LENGTH) for arm in arms)
    if len(set(names)) < len(names):
        raise InvalidParameterError(f"arms must differ, got {names}")
    return names


def _shares(weights: Sequence[float] | None, count: int) -> tuple[float, ...]:
    """Weights that sum to 1."""
    given = [1.0] * count if weights is None else list(weights)
    if len(given) != count:
        raise InvalidParameterError(f"{count} arms need {count} weights, got {weights!r}")
    usable = all(isinstance(weight, Real) and math.isfinite(weight) and weight >= 0 for weight in given)
    if not usable or not sum(given) > 0:
        raise InvalidParameterError(f"weights must be finite numbers of at least 0, and not all 0; got {weights!r}")
    return tuple(float(weight) / float(sum(given)) for weight in given)
