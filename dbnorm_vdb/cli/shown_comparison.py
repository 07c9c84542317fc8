"""How comparisons are shown: verdict first, then figures, hubness, cost, agreement."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from dbnorm_vdb.cli.console import output
from dbnorm_vdb.evaluation.results import ArmResult, Comparison, Difference, Interval

_DECISIONS = {
    "better": "[green]✓ better[/]",
    "worse": "[bold red]✗ worse[/]",
    "mixed": "[bold yellow]! mixed[/]",
    "undecided": "[yellow]? undecided[/]",
    "unjudged": "[dim]- unjudged[/]",
}
_HUBNESS = {
    "k_skewness": "k-skewness",
    "gini": "gini",
    "antihub_occurrence": "antihubs",
    "hub_occurrence": "hub results",
}


def print_comparison(found: Comparison, written: Sequence[Path] = ()) -> None:
    """Print what a comparison found, and which files were written."""
    output.print(f"\n[bold]{escape(found.verdict.headline)}[/]", highlight=False)
    for verdict in found.verdict.arms:
        told = " ".join(verdict.sentences)
        output.print(f"{_DECISIONS[verdict.decision]} [bold]{escape(verdict.arm)}[/]: {escape(told)}", highlight=False)
    for note in found.notes:
        output.print(f"  • {escape(note)}", highlight=False)
    if found.measures:
        _print_measures(found)
        _print_differences(found)
    _print_costs(found)
    if found.agreements:
        _print_agreements(found)
    if written:
        output.print(f"\nsaved: {escape(', '.join(str(path) for path in written))}", highlight=False, soft_wrap=True)


def _print_measures(found: Comparison) -> None:
    """Every measure of every arm, with its interval: in as many tables as it takes to show each figure whole."""
    arms = list(found.arms)
    while arms:
        shown = len(arms)
        while shown > 1 and _width(_measures(found, arms[:shown])) > output.width:
            shown -= 1
        output.print(_measures(found, arms[:shown]))
        arms = arms[shown:]


def _width(table: Table) -> int:
    """What it takes to show all of it."""
    return output.measure(table, options=output.options.update(max_width=10_000)).maximum


def _measures(found: Comparison, arms: Sequence[ArmResult]) -> Table:
    level = found.settings.confidence_in_words
    table = Table(title=f"Measures, {len(found.queries.judged)} judged queries; in brackets {level} intervals")
    table.add_column("", no_wrap=True)
    for arm in arms:
        name = escape(arm.name) + (" (baseline)" if arm.name == found.baseline else "")
        table.add_column(name, justify="right", overflow="fold", no_wrap=len(arms) > 1)
    for measure in found.measures:
        table.add_row(measure.name, *(_interval(arm.estimates[measure.name]) for arm in arms))
    return table


def _print_differences(found: Comparison) -> None:
    """Every arm against the baseline."""
    table = Table(
        title=f"Against {escape(found.baseline)}: paired permutation tests, p after Holm's correction",
        caption="* significant",
    )
    for heading in ("arm", "measure", "difference", "p", "wins", "ties", "losses"):
        table.add_column(heading, justify="left" if heading in ("arm", "measure") else "right", overflow="fold")
    last = ""
    for one in found.differences:
        name = "" if one.arm == last else escape(one.arm)
        last = one.arm
        table.add_row(
            name, one.measure, _difference(one), _p(one.p_adjusted), *map(str, (one.wins, one.ties, one.losses))
        )
    output.print(table)


def _print_costs(found: Comparison) -> None:
    """Hubness of the first results, and what a search takes."""
    table = Table(title=f"Hubness of the first {found.settings.limit} results, and time of single searches")
    table.add_column("arm", overflow="fold")
    for heading in (*_HUBNESS.values(), "found most often", "median ms", "ratio"):
        table.add_column(heading, justify="right", no_wrap=" " not in heading)
    for arm in found.arms:
        table.add_row(escape(arm.name), *_hubness(arm), *_latency(arm))
    output.print(table)


def _print_agreements(found: Comparison) -> None:
    table = Table(title=f"How alike the arms' results are (overlap of the first {found.settings.limit})")
    for heading in ("", "overlap", "rank-biased overlap", "same first", "identical"):
        table.add_column(heading, justify="right" if heading else "left", overflow="fold")
    for one in found.agreements:
        shares = (one.overlap, one.rbo, one.same_first, one.identical)
        table.add_row(escape(f"{one.first} / {one.second}"), *(f"{share:.1%}" for share in shares))
    output.print(table)


def _hubness(arm: ArmResult) -> list[str]:
    if arm.hubness is None:
        return ["" for _ in (*_HUBNESS, "most")]
    most = arm.hubness.hubs[0].count if arm.hubness.hubs else 0
    return [*(f"{arm.hubness.measures[name]:.3f}" for name in _HUBNESS), str(most)]


def _latency(arm: ArmResult) -> list[str]:
    if arm.latency is None:
        return ["", ""]
    return [f"{arm.latency.median:.2f}", "" if arm.latency.ratio is None else f"{arm.latency.ratio:.2f}"]


def _interval(found: Interval) -> str:
    digits = 3 if abs(found.value) < 10 else 1
    return f"{found.value:.{digits}f} ({found.low:.{digits}f} to {found.high:.{digits}f})"


def _difference(one: Difference) -> str:
    digits = 3 if abs(one.difference.value) < 10 else 1
    ends = f"{one.difference.low:+.{digits}f} to {one.difference.high:+.{digits}f}"
    return f"{one.difference.value:+.{digits}f} ({ends}){' *' if one.significant else '  '}"


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
