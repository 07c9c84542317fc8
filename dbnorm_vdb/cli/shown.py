"""How statuses and search results are shown."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from typing import Any

from rich.markup import escape
from rich.table import Table

from dbnorm_vdb.cli.console import output
from dbnorm_vdb.store import Hit
from dbnorm_vdb.summaries import Status, in_words


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
