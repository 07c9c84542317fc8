"""What the page says, as plain data: every text is already fit to be shown, every figure is in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dbnorm_vdb.evaluation.results import ArmVerdict, Comparison, Decision, Difference, MeasureInfo
from dbnorm_vdb.hubness import MEASURES
from dbnorm_vdb.report.text import MINUS, NAME_LENGTH, change, figure, interval, p_value, percent, shown

BADGES: dict[Decision, str] = {
    "better": "better",
    "worse": "worse",
    "mixed": "mixed",
    "undecided": "no difference shown",
    "unjudged": "not judged",
}

HUBNESS_NAMES = {
    "k_skewness": "k-skewness",
    "robin_hood": "Robin Hood index",
    "gini": "Gini coefficient",
    "atkinson": "Atkinson index",
    "antihub_occurrence": "items never found",
    "hub_occurrence": "slots taken by hubs",
    "groupie_ratio": "largest share of one item",
}
_SHARES = {"antihub_occurrence", "hub_occurrence", "groupie_ratio"}
_ARM_STYLES = 6


@dataclass(frozen=True)
class Tile:
    """One figure before and after."""

    label: str
    before: str
    after: str
    note: str
    good: bool | None


@dataclass(frozen=True)
class Card:
    """The verdict on one arm."""

    arm: str
    style: str
    decision: Decision
    badge: str
    tiles: list[Tile]
    sentences: list[str]


@dataclass(frozen=True)
class Bar:
    """An interval around a difference, on a scale that the rows share: places from 0 to 100, zero at 50."""

    low: float
    value: float
    high: float


@dataclass(frozen=True)
class DifferenceRow:
    """One measure of an arm against the baseline."""

    measure: str
    before: str
    after: str
    difference: str
    interval: str
    p: str
    significant: bool
    good: bool
    bar: Bar
    wins: int
    ties: int
    losses: int
    shares: tuple[float, float, float]


@dataclass(frozen=True)
class Table:
    """A plain table; the first cell of a row is its heading. Cells are (text, small print)."""

    caption: str
    headings: Sequence[str]
    rows: Sequence[Sequence[tuple[str, str]]]


def arm_styles(comparison: Comparison) -> dict[str, str]:
    """A class for each arm's colour: the baseline's own, the others in turn."""
    others = [arm.name for arm in comparison.arms if arm.name != comparison.baseline]
    styles = {name: f"arm-{1 + number % _ARM_STYLES}" for number, name in enumerate(others)}
    return {arm.name: styles.get(arm.name, "arm-0") for arm in comparison.arms}


def cards(comparison: Comparison, styles: Mapping[str, str]) -> list[Card]:
    """The verdict on every arm but the baseline."""
    return [
        Card(
            arm=name_of(verdict.arm),
            style=styles[verdict.arm],
            decision=verdict.decision,
            badge=BADGES[verdict.decision],
            tiles=_tiles(comparison, verdict),
            sentences=[shown(sentence, 600) for sentence in verdict.sentences],
        )
        for verdict in comparison.verdict.arms
    ]


def _tiles(comparison: Comparison, verdict: ArmVerdict) -> list[Tile]:
    base, arm = comparison.arm(comparison.baseline), comparison.arm(verdict.arm)
    tiles = []
    if comparison.settings.primary is not None:
        entry = comparison.difference(arm.name, comparison.settings.primary)
        info = measures_of(comparison)[entry.measure]
        tiles.append(
            Tile(
                entry.measure,
                figure(base.estimates[info.name].value, info),
                figure(arm.estimates[info.name].value, info),
                f"{change(entry.difference.value)}, p {_equal(p_value(entry.p_adjusted))}",
                _is_better(entry, info) if entry.significant else None,
            )
        )
    if base.hubness is not None and arm.hubness is not None:
        before, after = base.hubness.measures, arm.hubness.measures
        for measure in ("k_skewness", "antihub_occurrence"):
            note = "how far hubs stand out; 0 is not at all" if measure == "k_skewness" else "of the collection"
            better = after[measure] < before[measure] if after[measure] != before[measure] else None
            tiles.append(
                Tile(
                    HUBNESS_NAMES[measure], _hubness(measure, before[measure]), _hubness(measure, after[measure]), note,
                    better,
                )
            )  # fmt: skip
    if base.latency is not None and arm.latency is not None and arm.latency.ratio is not None:
        tiles.append(
            Tile(
                "median latency",
                f"{base.latency.median:.3g}",
                f"{arm.latency.median:.3g} ms",
                f"{arm.latency.ratio:.2f} times as long",
                None,
            )
        )
    return tiles


def _equal(p: str) -> str:
    return p if p.startswith("<") else f"= {p}"


def measures_of(comparison: Comparison) -> dict[str, MeasureInfo]:
    """The measures by name."""
    return {measure.name: measure for measure in comparison.measures}


def effect_table(comparison: Comparison) -> Table:
    """Every measure of every arm, with its interval."""
    return Table(
        caption=f"Figures, with {comparison.settings.confidence_in_words} bootstrap intervals over"
        f" {len(comparison.queries.judged)} queries",
        headings=["measure", *(name_of(arm.name) for arm in comparison.arms)],
        rows=[
            [
                (measure.name, "" if measure.larger_is_better else "less is better"),
                *(
                    (figure(found.value, measure), interval(found, measure))
                    for found in (arm.estimates[measure.name] for arm in comparison.arms)
                ),
            ]
            for measure in comparison.measures
        ],
    )


def difference_rows(comparison: Comparison, arm: str) -> list[DifferenceRow]:
    """Every measure of an arm against the baseline."""
    infos = measures_of(comparison)
    entries = [entry for entry in comparison.differences if entry.arm == arm]
    base = comparison.arm(comparison.baseline)
    scores = [_reach(entry) for entry in entries if infos[entry.measure].larger_is_better]
    rows = []
    for entry in entries:
        info = infos[entry.measure]
        reach = max(scores) if info.larger_is_better else _reach(entry)
        total = max(entry.wins + entry.ties + entry.losses, 1)
        rows.append(
            DifferenceRow(
                measure=entry.measure,
                before=figure(base.estimates[info.name].value, info),
                after=figure(comparison.arm(arm).estimates[info.name].value, info),
                difference=change(entry.difference.value),
                interval=f"{change(entry.difference.low)} to {change(entry.difference.high)}",
                p=p_value(entry.p_adjusted),
                significant=entry.significant,
                good=_is_better(entry, info),
                bar=Bar(*(round(50 + 46 * end / (reach or 1), 2) for end in _ends(entry))),
                wins=entry.wins,
                ties=entry.ties,
                losses=entry.losses,
                shares=tuple(round(100 * part / total, 2) for part in (entry.wins, entry.ties, entry.losses)),  # type: ignore[arg-type]
            )
        )
    return rows


def _ends(entry: Difference) -> tuple[float, float, float]:
    return entry.difference.low, entry.difference.value, entry.difference.high


def _reach(entry: Difference) -> float:
    return max(abs(end) for end in _ends(entry))


def _is_better(entry: Difference, info: MeasureInfo) -> bool:
    return (entry.difference.value > 0) == info.larger_is_better and entry.difference.value != 0


def hubness_table(comparison: Comparison) -> Table | None:
    """All hubness measures of the arms that have them."""
    found = [(arm.name, arm.hubness.measures) for arm in comparison.arms if arm.hubness is not None]
    if not found:
        return None
    return Table(
        caption=f"Hubness of the first {comparison.settings.limit} results; less is better throughout",
        headings=["measure", *(name_of(name) for name, _ in found)],
        rows=[
            [
                (HUBNESS_NAMES.get(measure, measure), ""),
                *((_hubness(measure, figures[measure]), "") for _, figures in found),
            ]
            for measure in MEASURES
            if all(measure in figures for _, figures in found)
        ],
    )


def _hubness(measure: str, value: float) -> str:
    return percent(value) if measure in _SHARES else f"{value:.2f}".replace("-", MINUS)


def latency_table(comparison: Comparison) -> Table | None:
    """Times of single searches."""
    found = [(arm.name, arm.latency) for arm in comparison.arms if arm.latency is not None]
    if not found:
        return None
    return Table(
        caption=f"Milliseconds of single searches for {comparison.settings.limit} results,"
        f" {len(found[0][1].samples)} queries, arms taking turns",
        headings=["arm", "median", "95th percentile", "mean", "times the baseline's"],
        rows=[
            [
                (name_of(name), ""),
                *((f"{value:.3g}", "") for value in (latency.median, latency.p95, latency.mean)),
                ("" if latency.ratio is None else f"{latency.ratio:.2f}", ""),
            ]
            for name, latency in found
        ],
    )


def agreement_table(comparison: Comparison) -> Table:
    """How alike the arms' results are."""
    limit = comparison.settings.limit
    return Table(
        caption="How alike the arms' results are, mean over all queries",
        headings=[
            "arms",
            f"overlap of the first {limit}",
            "rank-biased overlap",
            "same first result",
            f"same first {limit}, same order",
        ],
        rows=[
            [
                (f"{name_of(pair.first)} and {name_of(pair.second)}", ""),
                (percent(pair.overlap), ""),
                (f"{pair.rbo:.3f}", ""),
                (percent(pair.same_first), ""),
                (percent(pair.identical), ""),
            ]
            for pair in comparison.agreements
        ],
    )


def arm_table(comparison: Comparison) -> Table:
    """What the arms are."""
    return Table(
        caption="The arms",
        headings=["arm", "what it is", "method", "window", "inverse temperatures"],
        rows=[
            [
                (name_of(arm.name), "baseline" if arm.name == comparison.baseline else ""),
                (arm.source if arm.collection is None else f"collection {shown(arm.collection, NAME_LENGTH)}", ""),
                (arm.method or "", ""),
                ("until certified" if arm.exact else "" if arm.candidates is None else f"{arm.candidates}", ""),
                (", ".join(f"{shown(bank, 20)} {beta:g}" for bank, beta in arm.betas.items()), ""),
            ]
            for arm in comparison.arms
        ],
    )


def name_of(arm: str) -> str:
    """An arm's name, fit to be shown."""
    return shown(arm, NAME_LENGTH)
