"""What the command line shows: progress, tables, JSON."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from dbnorm_vdb.demo import DemoReport, Example
from dbnorm_vdb.store import Hit
from dbnorm_vdb.summaries import Status, in_words
from dbnorm_vdb.writing import Progress as Report

output = Console()
progress_output = Console(stderr=True)


@contextmanager
def spinner() -> Iterator[Any]:
    """Something that says what is being done: on a terminal a spinner, elsewhere a line each."""
    if not progress_output.is_terminal:
        yield lambda text: progress_output.print(escape(text))
        return
    with progress_output.status("starting") as shown:
        yield lambda text: shown.update(escape(text))


class _RateColumn(ProgressColumn):
    """How many a second."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:,.0f}/s" if task.speed else "")


def _speed(done: int, left: int, seconds: float) -> str:
    """The rate so far and the time left, in words; nothing before there is a rate."""
    if not done or seconds < 1:
        return ""
    rate = done / seconds
    return f", {rate:,.0f}/s" + (f", about {left / rate:,.0f} s left" if left else "")


@contextmanager
def progress() -> Iterator[Report]:
    """A bar for each stage on a terminal, a line for each tenth elsewhere."""
    if not progress_output.is_terminal:
        seen: dict[str, int] = {}
        began: dict[str, tuple[float, int]] = {}

        def line(stage: str, done: int, total: int) -> None:
            started, first = began.setdefault(stage, (time.monotonic(), done))
            tenth = 10 * done // max(total, 1)
            if seen.get(stage) != tenth:
                seen[stage] = tenth
                speed = _speed(done - first, total - done, time.monotonic() - started)
                progress_output.print(f"{stage}: {done} of {total}{speed}")

        yield line
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _RateColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=progress_output) as bars:
        tasks: dict[str, Any] = {}

        def bar(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=total)
            bars.update(tasks[stage], completed=done, total=total)

        yield bar


def print_json(document: Any) -> None:
    """Print one JSON document, and nothing else."""
    sys.stdout.write(json.dumps(document, ensure_ascii=False, default=str) + "\n")


def demo_json(report: DemoReport) -> dict[str, Any]:
    """The demonstration's figures."""
    engines = {
        name: {
            method.value: {
                "R@1": row.recall_at_1,
                "R@5": row.recall_at_5,
                "R@10": row.recall_at_10,
                "MdR": row.median_rank,
                "k_skewness": row.k_skewness,
                "latency_p50_ms": row.latency_p50_ms,
            }
            for method, row in engine.methods.items()
        }
        for name, engine in report.engines.items()
    }
    return {"engines": engines}


def print_demo(report: DemoReport) -> None:
    """Print the demonstration: a table for each engine, and examples."""
    betas = "; ".join(
        f"{setting.method.value}: query beta {setting.query_beta:g}"
        + (f", gallery beta {setting.gallery_beta:g}" if setting.gallery_beta else "")
        for setting in report.settings
    )
    output.print(
        f"\nText-to-picture search: {report.query_count} test texts against {report.item_count} test pictures,"
        f" each with one right answer.\nBanks: the train split. Betas, best on dev: {betas}.\n"
    )
    for name, engine in report.engines.items():
        table = Table(
            title=f"{name} (embedded; {len(report.settings)} fits in {engine.fit_seconds:.1f} s)", title_justify="left"
        )
        for heading in ("method", "R@1", "R@5", "R@10", "median rank", "k-skewness", "p50 ms"):
            table.add_column(heading, justify="left" if heading == "method" else "right")
        for method, row in engine.methods.items():
            table.add_row(
                method.value,
                f"{row.recall_at_1:.1f}",
                f"{row.recall_at_5:.1f}",
                f"{row.recall_at_10:.1f}",
                f"{row.median_rank:g}",
                f"{row.k_skewness:.2f}",
                f"{row.latency_p50_ms:.1f}",
            )
        output.print(table)
    output.print("Recall in percent. k-skewness of the 10-occurrence: 0 is no hubs; the larger, the more.\n")
    first = next(iter(report.engines.values()))
    output.print(
        f"With dual_is the right picture moved up for {first.improved} texts and down for {first.worsened}."
        " Three that moved up furthest, to the top:\n"
    )
    for example in first.examples:
        _print_example(example)


def _print_example(example: Example) -> None:
    shown = example.query if len(example.query) <= 76 else example.query[:75] + "…"
    table = Table(title=escape(f"“{shown}”"), title_justify="left", title_style="bold")
    table.add_column(f"raw (right picture at rank {example.raw_rank})")
    table.add_column(f"dual_is (right picture at rank {example.normalized_rank})")
    for pair in zip(example.raw, example.normalized, strict=True):
        cells = [(escape(name), item == example.own_id) for item, name in pair]
        table.add_row(*(f"[bold green]✓ {name}[/]" if own else f"  {name}" for name, own in cells))
    output.print(table)


def print_status(report: Status) -> None:
    """Print what is stored for a collection, and what is due."""
    table = Table(show_header=False, box=None)
    active = report.active
    rows: list[tuple[str, Any]] = [
        ("collection", f"{report.collection} ({report.engine})"),
        ("vector", f"{report.vector or '(unnamed)'}, {report.dimension}-d, {report.metric.value}"),
        ("items", report.item_count),
    ]
    if active is None:
        rows.append(("statistics", "none: searches are raw; see 'dbnorm-vdb fit --help'"))
    else:
        rows += [
            ("with statistics", f"{report.fitted_count} ({report.coverage:.1%}); the others count as average items"),
            ("method", active.method),
            ("fitted", f"{_when(active.fitted_at)}, generation {active.generation}"),
        ]
        if active.refreshed_at is not None:
            rows.append(("refreshed", f"{_when(active.refreshed_at)}, refresh number {active.revision}"))
        if active.calibration is not None:
            rows.append(("candidates", in_words(active.calibration)))
        for name, bank in active.banks.items():
            bias = bank.bias
            rows += [
                (
                    f"{name} bank",
                    f"{bank.size} vectors from {bank.source}, beta {bank.beta:g}, {bank.fingerprint[:12]}",
                ),
                (
                    "",
                    f"bias {bias.min:.4f} to {bias.max:.4f}, mean {bias.mean:.4f};"
                    f" activates {bank.activation_size} items",
                ),
            ]
        if active.sinkhorn is not None:
            bias, changes = active.sinkhorn.bias, active.sinkhorn.changes
            rows += [
                (
                    "sinkhorn",
                    f"{active.sinkhorn.iterations} iterations on {active.sinkhorn.sample_size} items"
                    + (f"; the last step moved the weights by {changes[-1]:.1e}" if changes else ""),
                ),
                ("", f"bias {bias.min:.4f} to {bias.max:.4f}, mean {bias.mean:.4f}"),
            ]
        if active.nnn is not None:
            bias = active.nnn.bias
            rows += [
                ("nnn", f"{active.nnn.alpha:g} times the mean of the {active.nnn.k} largest similarities"),
                ("", f"bias {bias.min:.4f} to {bias.max:.4f}, mean {bias.mean:.4f}"),
            ]
    if report.writing is not None:
        rows.append(
            (
                "unfinished",
                f"a fit by process {report.writing.process} on {report.writing.host} since"
                f" {report.writing.since:%Y-%m-%d %H:%M:%S} UTC; if it is dead, the same fit goes on from there",
            )
        )
    for advice in report.advice:
        rows.append(("due", advice))
    for name, value in rows:
        table.add_row(f"[bold]{name}[/]", escape(str(value)))
    output.print(table)


def _when(moment: datetime) -> str:
    """A moment, and how long ago it was."""
    seconds = max(0.0, (datetime.now(timezone.utc) - moment).total_seconds())
    units = ((86400, "days"), (3600, "hours"), (60, "minutes"))
    length, unit = next((unit for unit in units if seconds >= 2 * unit[0]), units[-1])
    age = f"{int(seconds // length)} {unit}"
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC, {age} ago"


def hit_json(hit: Hit) -> dict[str, Any]:
    """A hit as JSON types."""
    return {"id": hit.id, "score": hit.score, "payload": dict(hit.payload)}


def print_hits(normalized: list[Hit], raw: list[Hit]) -> None:
    """Print results, each with its rank before normalisation."""
    ranks = {hit.id: rank for rank, hit in enumerate(raw, 1)}
    table = Table()
    for heading in ("rank", "id", "score", "raw rank", "payload"):
        table.add_column(heading, justify="right" if heading in ("rank", "score", "raw rank") else "left")
    for rank, hit in enumerate(normalized, 1):
        payload = json.dumps(dict(hit.payload), ensure_ascii=False, default=str)
        shown = payload if len(payload) <= 80 else payload[:79] + "…"
        before = str(ranks.get(hit.id, f"> {len(raw)}"))
        table.add_row(str(rank), escape(str(hit.id)), f"{hit.score:.4f}", before, escape(shown))
    output.print(table)
