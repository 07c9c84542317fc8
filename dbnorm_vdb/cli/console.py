"""Where the command line writes: output, progress, JSON."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
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
from rich.text import Text

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
                progress_output.print(f"{stage}: {done} of {total}{speed}", markup=False)

        yield line
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
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
    unicode = (sys.stdout.encoding or "").lower().startswith("utf")  # elsewhere escapes keep every character
    sys.stdout.write(json.dumps(document, ensure_ascii=not unicode, default=str) + "\n")
