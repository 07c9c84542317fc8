"""How a report looks on a terminal."""

from __future__ import annotations

from datetime import timedelta

from dbnorm_vdb.errors import MissingDependencyError
from dbnorm_vdb.experiments.report import Estimate, ExperimentReport, Preference
from dbnorm_vdb.experiments.words import METRICS, change, change_interval, figure, p_in_words

try:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text
except ImportError as error:
    raise MissingDependencyError("rich", "cli", "showing a report with tables") from error


def shown_report(report: ExperimentReport) -> Group:
    """The verdict in words, and the figures in tables that fit into 80 columns."""
    parts: list[Text | Table] = [Text(report.verdict, style="bold" if report.valid else "bold red"), Text()]
    parts += [Text(f"Warning: {text}", style="yellow") for text in report.warnings]
    if report.arms:
        parts.append(_arms(report))
    parts += [_tests(report), _sample_ratios(report), Text(_small_print(report))]
    return Group(*parts)


def _arms(report: ExperimentReport) -> Table:
    """A column for each arm."""
    table = _table("Arms: means over users, with intervals that hold at one planned look", "")
    for arm in report.arms:
        table.add_column(Text(arm.arm), justify="right")
    table.add_row("share of traffic", *(f"{arm.share:.1%}" for arm in report.arms))
    table.add_row("users", *(str(arm.users) for arm in report.arms))
    table.add_row("impressions", *(str(arm.impressions) for arm in report.arms))
    table.add_row("clicked items", *(str(arm.clicks) for arm in report.arms))
    for name, metric in (
        ("click-through", "click_through"),
        ("abandonment", "abandonment"),
        ("reciprocal rank", "reciprocal_rank"),
    ):
        table.add_row(name, *(_estimate(metric, getattr(arm, metric)) for arm in report.arms))
    return table


def _tests(report: ExperimentReport) -> Table:
    """Two rows for each comparison: what holds at every look, and what holds at one that was planned."""
    table = _table("Tests", "", "holds at", "interval", "p")
    for found in report.comparisons:
        interval, once = found.sequential.interval, found.difference
        ends = change_interval(found.metric, once.low, once.high)
        table.add_row(
            Text(f"{METRICS[found.metric]}, {found.arm} minus {found.baseline}"),
            "every look\none look",
            f"{change_interval(found.metric, *interval)}\n"
            f"{change(found.metric, once.value).removesuffix(' points')} ({ends})",
            f"{_p(found.sequential.p_value)}\n{_p(found.p_value)}",
            end_section=True,
        )
    if report.interleaving is not None:
        _add_preference(table, report.interleaving)
    return table


def _add_preference(table: Table, found: Preference) -> None:
    interval, once = found.sequential.interval, found.share
    table.add_row(
        Text(f"{found.for_arm} of {found.for_arm + found.for_baseline} users prefer {found.arm} to {found.baseline}"),
        "every look\none look",
        f"{_shares(*interval)}\n{once.value:.1%} ({_shares(once.low, once.high)})",
        f"{_p(found.sequential.p_value)}\n{_p(found.p_value)}",
    )


def _sample_ratios(report: ExperimentReport) -> Table:
    table = _table("Sample ratio", "of", "counts", "should be", "p", "")
    for ratio in report.sample_ratios:
        table.add_row(
            ratio.what,
            Text(", ".join(f"{arm} {count}" for arm, count in ratio.counts.items())),
            " : ".join(f"{share:.1%}" for share in ratio.shares.values()),
            _p(ratio.p_value),
            "[bold red]MISMATCH[/]" if ratio.mismatch else "ok",
        )
    return table


def _small_print(report: ExperimentReport) -> str:
    """Of what, as of when, and what did not count."""
    tally = {name.replace("_", " "): count for name, count in report.tally.model_dump().items() if count}
    return (
        f"{report.experiment} as of {report.until:%Y-%m-%d %H:%M:%S %Z}: {report.events} events;"
        f" {report.final_users} users count, whose first {_duration(report.window)} are over,"
        f" {report.open_users} do not yet."
        + (f" Unreadable lines: {report.unreadable_lines}." if report.unreadable_lines else "")
        + (" By the rules: " + ", ".join(f"{count} {name}" for name, count in tally.items()) + "." if tally else "")
    )


def _duration(window: timedelta) -> str:
    seconds = window.total_seconds()
    units = ((86400, "days"), (3600, "hours"), (60, "minutes"))
    length, unit = next((unit for unit in units if seconds >= 2 * unit[0]), (1, "seconds"))
    return f"{seconds / length:g} {unit}"


def _table(title: str, *headings: str) -> Table:
    table = Table(title=title, title_justify="left")
    for place, heading in enumerate(headings):
        table.add_column(heading, justify="right" if place else "left", no_wrap=place > 0)
    return table


def _shares(low: float, high: float) -> str:
    return f"{low:.1%} to {high:.1%}"


def _p(p_value: float) -> str:
    return p_in_words(p_value).removeprefix("p ").removeprefix("= ")


def _estimate(metric: str, found: Estimate | None) -> str:
    if found is None:
        return ""
    return f"{figure(metric, found.value)} ({figure(metric, found.low)} to {figure(metric, found.high)})"
