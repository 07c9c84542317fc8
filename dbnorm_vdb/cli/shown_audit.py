"""How audits and explanations are shown."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping
from typing import Any

from rich.markup import escape
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from dbnorm_vdb.audits.report import Audit, HubItem
from dbnorm_vdb.audits.verdicts import Verdict
from dbnorm_vdb.cli.console import output
from dbnorm_vdb.explanations import ItemExplanation

_SIGNS = {
    Verdict.OK: "[green]✓ ok[/]  ",
    Verdict.WARN: "[bold yellow]! warn[/]",
    Verdict.FAIL: "[bold red]✗ fail[/]",
    None: "[dim]- none[/]",
}
_TITLES = {"k_skewness": "k-skewness", "outside_domain": "outside the domain", "planted": "look planted"}
_WIDEST_PAYLOAD = 150
_WIDEST_TEXT = 60
_MOST_QUERIES = 3


def print_audit(audit: Audit) -> None:
    """Print what an audit found: verdict first, then each finding, hubs and antihubs."""
    searched = f"{audit.item_count} items, {audit.query_count} queries, the first {audit.k} results of each"
    output.print()
    output.print(
        f"{_SIGNS[audit.verdict].strip()}  [bold]{escape(audit.collection)}[/] ({audit.engine}): {searched}",
        highlight=False,
    )
    output.print(f"queries: {escape(audit.queries)}; normalised by: {audit.method or 'nothing'}", highlight=False)
    for note in audit.notes:
        _print_sentence(f"• {note}", 2)
    _print_findings(audit)
    _print_hubs(audit)
    _print_antihubs(audit)


def _print_sentence(sentence: str, indent: int, *, style: str = "") -> None:
    """Wrapped by hand: rich would fill its lines with spaces."""
    margin = indent * " "
    lines = textwrap.wrap(_printable(sentence), max(output.width, 40), initial_indent=margin, subsequent_indent=margin)
    output.print(Text("\n".join(lines), style=style), soft_wrap=True)


def _print_findings(audit: Audit) -> None:
    heading = f"{'':8}{'':20}{'raw':>8}{'normalised':>12}{'chance':>8}   range"
    output.print(f"\n[bold]{heading}[/]", highlight=False)
    said: set[str] = set()
    for finding in audit.findings:
        name = _TITLES.get(finding.name, finding.name.replace("_", " "))
        after = _figure(finding.normalized.value) if finding.normalized else "-"
        chance = _figure(finding.chance) if finding.chance is not None else "-"
        span = f"{_figure(finding.least)} to {_figure(finding.most)}"
        figures = f"{name:20}{_figure(finding.raw.value):>8}{after:>12}{chance:>8}"
        output.print(
            f"{_SIGNS[finding.verdict]}  {figures}   [dim]{span}[/]",
            highlight=False,
            soft_wrap=True,
        )
        _print_sentence(finding.meaning, 8, style="dim" if finding.verdict is Verdict.OK else "")
        if finding.next_command is not None:
            again = finding.next_command in said
            said.add(finding.next_command)
            command = "as above" if again else f"[bold]{escape(_printable(finding.next_command))}[/]"
            output.print(f"        try: {command}", soft_wrap=True, highlight=False)
    output.print(
        "chance: what it would be if every list held items drawn by lot. Verdicts are on what is beyond it.",
        style="dim",
        highlight=False,
    )


def _print_hubs(audit: Audit) -> None:
    fitted = audit.method is not None
    table = Table(
        title=f"Found most often, by how many of the {audit.query_count} queries",
        title_justify="left",
        title_style="bold",
        show_lines=True,
    )
    for heading in ("id", "raw", *(["normalised"] if fitted else []), "z"):
        table.add_column(heading, justify="left" if heading == "id" else "right", overflow="fold")
    table.add_column("what it is, and the queries that find it", overflow="fold", ratio=1)
    for hub in audit.hubs:
        counts = [str(hub.occurrences), *([str(hub.normalized_occurrences)] if fitted else [])]
        table.add_row(Text(_printable(hub.id)), *counts, f"{hub.z_score:.1f}", _hub_in_words(hub))
    output.print()
    output.print(table)
    output.print(
        "z: robust z-score of how often an item is found; from 3.5 on it is outlying.", style="dim", highlight=False
    )


def _hub_in_words(hub: HubItem) -> Text:
    text = Text(_payload(hub.payload))
    if hub.looks_planted:
        text.append(
            f"\nlooks planted: its mean similarity to the queries has a z-score of {hub.nearness_z:.1f}",
            style="bold red",
        )
    if hub.near_duplicates:
        shown = ", ".join(_printable(item) for item in hub.near_duplicates[:5])
        more = f" and {len(hub.near_duplicates) - 5} more" if len(hub.near_duplicates) > 5 else ""
        text.append(f"\nnearly the same as {shown}{more}", style="bold yellow")
    if any(query.text is not None for query in hub.queries):
        lines = [f"row {q.row}: {_shortened(q.text or '', _WIDEST_TEXT)}" for q in hub.queries[:_MOST_QUERIES]]
    else:
        lines = ["rows " + ", ".join(str(query.row) for query in hub.queries)]
    return text.append("".join(f"\n{line}" for line in lines), style="dim")


def _print_antihubs(audit: Audit) -> None:
    antihubs = audit.antihubs
    after = "" if antihubs.normalized_count is None else f", {antihubs.normalized_count} after normalisation"
    output.print(
        f"\n[bold]Antihubs:[/] {antihubs.count} of {audit.item_count} items are found by no query{after}.",
        highlight=False,
    )
    if antihubs.examples:
        table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
        table.add_column(overflow="fold")
        table.add_column(overflow="fold", ratio=1, style="dim")
        for item in antihubs.examples:
            table.add_row(Text(_printable(item.id)), Text(_payload(item.payload)))
        output.print(Padding(table, (0, 0, 0, 2)))


def print_explanation(explanation: ItemExplanation) -> None:
    """Print how an item comes to its place."""
    output.print(Text(_printable(explanation.headline), style="bold"))
    output.print(Text(_payload(explanation.payload), style="dim"))
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column()
    table.add_column(justify="right")
    table.add_column(overflow="fold", style="dim")
    for row in explanation.rows:
        table.add_row(*(Text(_printable(cell)) for cell in row))
    output.print()
    output.print(Padding(table, (0, 0, 0, 2)))
    for remark in explanation.remarks:
        output.print()
        _print_sentence(remark, 0)


def _figure(value: float) -> str:
    if value == 0:
        return "0"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.3f}"


def _payload(payload: Mapping[str, Any]) -> str:
    return _shortened(json.dumps(dict(payload), ensure_ascii=False, default=str), _WIDEST_PAYLOAD)


def _shortened(text: str, width: int) -> str:
    line = _printable(text)
    return line if len(line) <= width else line[: width - 1] + "…"


def _printable(text: object) -> str:
    """Text on one line, without control characters: what a database holds must not steer the terminal."""
    return "".join(character if character.isprintable() else " " for character in str(text))
