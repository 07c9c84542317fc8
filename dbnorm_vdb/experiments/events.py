"""What an event log holds: impressions, split or interleaved, and clicks.

The models are read back as untrusted input: bounded in size, validated, and versioned. They hold the key of the user
(or its hash), ids of items, and nothing else about a person: no query, no address.
"""

from __future__ import annotations

import math
from typing import Annotated, Final, Literal, TypeAlias

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, TypeAdapter, model_validator

from dbnorm_vdb.experiments.keys import MAX_ITEM_LENGTH, MAX_KEY_LENGTH, MAX_NAME_LENGTH

FORMAT_VERSION: Final = 1
MAX_ITEMS = 1000
"""Items of one impression."""

MAX_LINE_BYTES = 1 << 20
"""No event is longer, in the log's UTF-8."""

Name = Annotated[str, Field(min_length=1, max_length=MAX_NAME_LENGTH)]
Item = Annotated[str, Field(min_length=1, max_length=MAX_ITEM_LENGTH)]
Items = Annotated[tuple[Item, ...], Field(max_length=MAX_ITEMS)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class LoggedEvent(BaseModel):
    """What all events have.

    Attributes:
        v: version of the format.
        at: when it happened.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    v: Literal[1] = FORMAT_VERSION
    at: AwareDatetime


class Impression(LoggedEvent):
    """A result list of one arm that a user was shown.

    Attributes:
        experiment: its name.
        id: of this impression, which clicks refer to.
        key: the user, session or query that was assigned to the arm.
        arms: the names of all arms at that time, the baseline first.
        weights: their shares of the traffic at that time: the probability of each to have been assigned.
        arm: the one whose results these are.
        items: the ids that were shown, in order.
    """

    event: Literal["impression"] = "impression"
    experiment: Name
    id: Name
    key: Annotated[str, Field(min_length=1, max_length=MAX_KEY_LENGTH)]
    arms: Annotated[tuple[Name, ...], Field(min_length=2, max_length=16)]
    weights: Annotated[tuple[Share, ...], Field(min_length=2, max_length=16)]
    arm: Name
    items: Items

    @model_validator(mode="after")
    def _consistent(self) -> Impression:
        if len(self.weights) != len(self.arms) or len(set(self.arms)) != len(self.arms):
            raise ValueError("arms must differ and have one weight each")
        if not math.isclose(sum(self.weights), 1, abs_tol=1e-6):
            raise ValueError("weights must sum to 1")
        if self.arm not in self.arms:
            raise ValueError("the arm is none of the arms")
        return self


class InterleavedImpression(LoggedEvent):
    """An interleaved result list that a user was shown.

    Attributes:
        experiment: its name.
        id: of this impression, which clicks refer to.
        key: the user, session or query.
        arms: the two arms, the baseline first.
        items: the ids that were shown, in order.
        teams: the arm that picked each.
        first: the arm that won the first toss; None if one list was empty.
    """

    event: Literal["interleaved"] = "interleaved"
    experiment: Name
    id: Name
    key: Annotated[str, Field(min_length=1, max_length=MAX_KEY_LENGTH)]
    arms: tuple[Name, Name]
    items: Items
    teams: Annotated[tuple[Name, ...], Field(max_length=MAX_ITEMS)]
    first: Name | None = None

    @model_validator(mode="after")
    def _consistent(self) -> InterleavedImpression:
        if self.arms[0] == self.arms[1]:
            raise ValueError("arms must differ")
        if len(self.teams) != len(self.items):
            raise ValueError("every item needs its team")
        if not {*self.teams, self.first} <= {*self.arms, None}:
            raise ValueError("a team is none of the arms")
        return self


class Click(LoggedEvent):
    """A click on an item of an impression.

    Attributes:
        impression: the id of the impression.
        item: the id of the item.
    """

    event: Literal["click"] = "click"
    impression: Name
    item: Item


Event: TypeAlias = Impression | InterleavedImpression | Click

EVENTS: TypeAdapter[Event] = TypeAdapter(Annotated[Event, Field(discriminator="event")])
