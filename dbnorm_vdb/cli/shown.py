"""How statuses and search results are shown."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from typing import Any

from rich.markup import escape
from rich.table import Table

from dbnorm_vdb.cli.console import output
from dbnorm_vdb.statistics import BiasSummary, CollectionStatistics
from dbnorm_vdb.store import Hit
from dbnorm_vdb.summaries import Status, in_words


def print_status(report: Status) -> None:
    """Print what is stored for a collection, and what is due."""
    rows: list[tuple[str, Any]] = [
        ("collection", f"{report.collection} ({report.engine})"),
        ("vector", f"{report.vector or '(unnamed)'}, {report.dimension}-d, {report.metric.value}"),
        ("items", report.item_count),
    ]
    if report.active is None:
        rows.append(("statistics", "none: searches are raw; see 'dbnorm-vdb fit --help'"))
    else:
        rows.append(
            ("with statistics", f"{report.fitted_count} ({report.coverage:.1%}); the others count as average items")
        )
        rows += _statistics_rows(report.active)
    if report.rejected is not None and report.rejected.verdict is not None:
        rejected, verdict = report.rejected, report.rejected.verdict
        rows.append(("not activated", f"{rejected.method}, fitted {_when(rejected.fitted_at)}: {verdict.in_words()}"))
    if report.bank_distance is not None and not report.bank_distance.unlike:
        rows.append(("queries", report.bank_distance.in_words()))
    if report.writing is not None:
        rows.append(
            (
                "unfinished",
                f"a fit by process {report.writing.process} on {report.writing.host} since"
                f" {report.writing.since:%Y-%m-%d %H:%M:%S} UTC; if it is dead, the same fit goes on from there",
            )
        )
    rows += [("due", advice) for advice in report.advice]
    table = Table(show_header=False, box=None)
    for name, value in rows:
        table.add_row(f"[bold]{name}[/]", escape(str(value)))
    output.print(table)


def _statistics_rows(active: CollectionStatistics) -> list[tuple[str, Any]]:
    """Of the statistics that searches use."""
    rows: list[tuple[str, Any]] = [
        ("method", active.method),
        ("fitted", f"{_when(active.fitted_at)}, generation {active.generation}"),
        ("verdict", _verdict(active)),
    ]
    if active.refreshed_at is not None:
        rows.append(("refreshed", f"{_when(active.refreshed_at)}, refresh number {active.revision}"))
    if active.calibration is not None:
        rows.append(("candidates", in_words(active.calibration)))
    for name, bank in active.banks.items():
        rows += [
            (
                f"{name} bank",
                f"{bank.size} vectors from {bank.source}, beta {bank.beta:g}, {bank.fingerprint[:12]}",
            ),
            ("", f"{_bias(bank.bias)}; activates {bank.activation_size} items"),
        ]
    if active.sinkhorn is not None:
        changes = active.sinkhorn.changes
        rows += [
            (
                "sinkhorn",
                f"{active.sinkhorn.iterations} iterations on {active.sinkhorn.sample_size} items"
                + (f"; the last step moved the weights by {changes[-1]:.1e}" if changes else ""),
            ),
            ("", _bias(active.sinkhorn.bias)),
        ]
    if active.nnn is not None:
        rows += [
            ("nnn", f"{active.nnn.alpha:g} times the mean of the {active.nnn.k} largest similarities"),
            ("", _bias(active.nnn.bias)),
        ]
    return rows


def _verdict(active: CollectionStatistics) -> str:
    if active.verdict is None:
        return "UNVALIDATED: whether this helps here has not been measured; fit with --validation to know"
    return active.verdict.in_words() + ("" if active.verdict.passed else "; activated all the same")


def _bias(bias: BiasSummary) -> str:
    return f"bias {bias.min:.4f} to {bias.max:.4f}, mean {bias.mean:.4f}"


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
        table.add_column(
            heading, justify="right" if heading in ("rank", "score", "raw rank") else "left", overflow="fold"
        )
    for rank, hit in enumerate(normalized, 1):
        payload = json.dumps(dict(hit.payload), ensure_ascii=False, default=str)
        shown = payload if len(payload) <= 80 else payload[:79] + "…"
        before = str(ranks.get(hit.id, f"> {len(raw)}"))
        table.add_row(str(rank), escape(str(hit.id)), f"{hit.score:.4f}", before, escape(shown))
    output.print(table)
