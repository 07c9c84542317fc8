"""Items as a reader sees them: in the hub gallery, and in result lists side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dbnorm_vdb.errors import InvalidParameterError
from dbnorm_vdb.evaluation.results import Comparison, Example, RankedItem, Reason
from dbnorm_vdb.evaluation.tables import item_key
from dbnorm_vdb.report.pictures import Pictures
from dbnorm_vdb.report.text import NAME_LENGTH, TEXT_LENGTH, change, count, field_of, preview, shown
from dbnorm_vdb.report.views import name_of

Payloads = Mapping[Any, Mapping[str, Any]]

_CAPTION_LENGTH = 120


@dataclass(frozen=True)
class Item:
    """One item.

    Attributes:
        key, caption: what it is called, and what it says.
        picture: the number of its picture; None without.
    """

    key: str
    caption: str
    picture: int | None

    @property
    def label(self) -> str:
        """What its picture is called."""
        return self.caption or f"item {self.key}"


@dataclass(frozen=True)
class HubView:
    """An item that many queries find, and how long its bar is, in percent of the largest."""

    item: Item
    count: int
    share: float
    queries: list[str]


@dataclass(frozen=True)
class ArmHubs:
    """The items that an arm returns most often."""

    arm: str
    style: str
    hubs: list[HubView]


@dataclass(frozen=True)
class ResultView:
    """One result: relevant, judged and not relevant, or not judged (None)."""

    rank: int
    item: Item
    relevant: bool | None


@dataclass(frozen=True)
class Column:
    """What one arm returned for a query."""

    arm: str
    style: str
    rank: str
    results: list[ResultView]


@dataclass(frozen=True)
class ExampleView:
    """A query with the results of two arms side by side."""

    query: str
    key: str
    change: str
    columns: list[Column]
    relevant: list[Item]
    others: str


@dataclass(frozen=True)
class ExampleGroup:
    """Queries of one arm that were chosen for one reason."""

    arm: str
    style: str
    reason: Reason
    title: str
    examples: list[ExampleView]


_TITLES: dict[Reason, str] = {
    "improved": "Most improved by {arm}",
    "harmed": "Most harmed by {arm}",
    "changed": "Most changed by {arm}",
}


class Items:
    """Makes items of keys and payloads.

    Args:
        comparison: where they come from.
        pictures: that collects theirs.
        text_field: of the payloads, whose value is the caption. None for the first few fields.
        payloads: of items, by id, that the comparison does not have: of callables and saved runs.

    Raises:
        InvalidParameterError: no payload has the text field or the pictures' field.
    """

    def __init__(
        self, comparison: Comparison, pictures: Pictures, text_field: str | None, payloads: Payloads | None
    ) -> None:
        self._comparison, self._pictures, self._text_field = comparison, pictures, text_field
        self._texts = dict(zip(comparison.queries.keys, comparison.queries.texts or (), strict=False))
        self._given = {item_key(key): payload for key, payload in (payloads or {}).items()}
        for field, option in ((text_field, "text_field"), (pictures.field, "image_field")):
            self._check(field, option)

    def _check(self, field: str | None, option: str) -> None:
        known = [*self._given.values()]
        known += [payload for found in self._comparison.collections.values() for payload in found.payloads.values()]
        if field is None or any(field_of(payload, field) is not None for payload in known):
            return
        names = sorted({name for payload in known for name in payload})
        has = f"they have {', '.join(map(repr, names[:20]))}" if names else "the comparison has no payloads"
        raise InvalidParameterError(f"{option}={field!r}: no payload has that field; {has}")

    def item(self, arm: str, key: str) -> Item:
        """An item as an arm's collection has it."""
        payload = self._payload(arm, key)
        field = self._text_field
        text = preview(payload, without=self._pictures.field) if field is None else field_of(payload, field)
        return Item(
            shown(key, NAME_LENGTH), "" if text is None else shown(text, _CAPTION_LENGTH), self._pictures.add(payload)
        )

    def _payload(self, arm: str, key: str) -> Mapping[str, Any]:
        """The one given; else the arm's collection's; for callables and runs that of the only collection there is."""
        if key in self._given:
            return self._given[key]
        collections = self._comparison.collections
        own = self._comparison.arm(arm).collection
        if own is None and len(collections) == 1:
            own = next(iter(collections))
        return {} if own is None else collections[own].payloads.get(key, {})

    def hubs(self, styles: Mapping[str, str], most: int) -> list[ArmHubs]:
        """Up to `most` hubs of every arm."""
        found = [(arm.name, arm.hubness.hubs[:most]) for arm in self._comparison.arms if arm.hubness is not None]
        largest = max((hub.count for _, hubs in found for hub in hubs), default=1)
        return [
            ArmHubs(
                name_of(arm),
                styles[arm],
                [
                    HubView(
                        self.item(arm, hub.item),
                        hub.count,
                        round(100 * hub.count / largest, 1),
                        [self._query(key) for key in hub.queries[:5]],
                    )
                    for hub in hubs
                ],
            )
            for arm, hubs in found
        ]

    def _query(self, key: str) -> str:
        """What a query says, or its key."""
        return shown(self._texts.get(key, key), _CAPTION_LENGTH)

    def examples(self, styles: Mapping[str, str], most: int) -> list[ExampleGroup]:
        """The queries to look at, up to `most` of each arm and reason."""
        groups = []
        for arm in (arm.name for arm in self._comparison.arms):
            for reason, title in _TITLES.items():
                own = [e for e in self._comparison.examples if (e.arm, e.reason) == (arm, reason)][:most]
                if own:
                    groups.append(
                        ExampleGroup(
                            name_of(arm),
                            styles[arm],
                            reason,
                            title.format(arm=name_of(arm)),
                            [self._example(example, styles) for example in own],
                        )
                    )
        return groups

    def _example(self, example: Example, styles: Mapping[str, str]) -> ExampleView:
        pair = (self._comparison.baseline, example.arm)
        others = [f"{name_of(name)}: {_rank(rank)}" for name, rank in example.ranks.items() if name not in pair]
        relevant = [key for key, grade in example.relevant.items() if grade > 0]
        return ExampleView(
            query=shown(example.text or f"query {example.query}", TEXT_LENGTH),
            key=shown(example.query, NAME_LENGTH),
            change=self._change(example),
            columns=[
                Column(
                    name_of(name),
                    styles[name],
                    f"first relevant {_rank(example.ranks[name])}" if name in example.ranks else "",
                    self._results(name, example.results.get(name, [])),
                )
                for name in pair
            ],
            relevant=[self.item(example.arm, key) for key in relevant[:3]],
            others="; ".join(others),
        )

    def _change(self, example: Example) -> str:
        primary = self._comparison.settings.primary
        if primary is None:
            return f"rank-biased overlap {example.change:.2f}"
        before, after = (example.ranks.get(name) for name in (self._comparison.baseline, example.arm))
        ranks = "" if before == after else f", rank {before or 'none'} → {after or 'none'}"
        return f"{primary} {change(example.change)}{ranks}"

    def _results(self, arm: str, results: Sequence[RankedItem]) -> list[ResultView]:
        return [
            ResultView(
                rank,
                self.item(arm, result.item),
                None if result.grade is None else result.grade > 0,
            )
            for rank, result in enumerate(results, 1)
        ]


def _rank(rank: int | None) -> str:
    return "not found" if rank is None else f"at rank {rank}"


def queries_of(comparison: Comparison) -> str:
    """How many queries there were, in words."""
    return count(len(comparison.queries.judged) or len(comparison.queries.keys), "query", "queries")
