"""The command line: demo, fit, status, search, drop. Exit status 0, 1 (failed) or 2 (wrong usage)."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from dbnorm_vdb.banks import Bank
from dbnorm_vdb.collection import NormalizedCollection, Status
from dbnorm_vdb.collection import Progress as Report
from dbnorm_vdb.demo import DemoReport, Example, load_pictures, run_demo
from dbnorm_vdb.errors import InvalidInputError, InvalidParameterError
from dbnorm_vdb.store import Hit
from dbnorm_vdb.targets import EXAMPLES, Target, adapter_class, open_target
from dbnorm_vdb.version import __version__

app = typer.Typer(
    help="Hubness reduction for vector databases: Dual Bank Normalization on Qdrant and Milvus.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
output = Console()
progress_output = Console(stderr=True)

TargetUrl = Annotated[
    str, typer.Argument(help=f"The collection, as a URL: {EXAMPLES}. '?vector=NAME' names the vector.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for machines, and nothing else on standard output.")]


def run() -> None:
    """Run the command line; errors become one line on standard error and an exit status."""
    try:
        app()
    except InvalidInputError as error:
        _fail(error, 2)
    except Exception as error:  # the database clients have no common base class
        _fail(error, 1)


def _load_adapter(engine: str) -> None:
    """Import an adapter and silence its client's logs, which importing sets up: its errors reach us as exceptions."""
    adapter_class(engine)
    for name in ("pymilvus", "milvus_lite", "grpc._server"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


def _fail(error: Exception, status: int) -> None:
    message = escape(" ".join(str(error).split()) or type(error).__name__)
    progress_output.print(f"[bold red]error[/]: {message}", soft_wrap=True)
    sys.exit(status)


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.", is_eager=True)] = False,
) -> None:
    if version:
        output.print(__version__)
        raise typer.Exit


@app.command()
def demo(
    as_json: AsJson = False,
    engine: Annotated[list[str] | None, typer.Option(help="qdrant or milvus; default: both.")] = None,
) -> None:
    """Search 1 872 pictures with 1 872 texts on the embedded engines, raw and normalised, and compare."""
    engines = engine or ("qdrant", "milvus")
    for name in engines:
        _load_adapter(name)
    with _spinner() as say:
        report = run_demo(load_pictures(), engines=engines, say=say)
    if as_json:
        _print_json(_demo_json(report))
    else:
        _print_demo(report)


@app.command()
def fit(
    target: TargetUrl,
    query_bank: Annotated[str | None, typer.Option(help="FILE(.npy|.npz|.parquet)[:KEY] of query vectors.")] = None,
    gallery_bank: Annotated[
        str | None, typer.Option(help="The same of item vectors, or how many items to sample from the collection.")
    ] = None,
    method: Annotated[str, typer.Option(help="The default of searches: is, dis, dual_is or dual_dis.")] = "dual_is",
    query_beta: Annotated[float, typer.Option(help="Inverse temperature of the query bank.")] = 20.0,
    gallery_beta: Annotated[float, typer.Option(help="Inverse temperature of the gallery bank.")] = 10.0,
    activation_k: Annotated[int, typer.Option(help="Nearest items that each bank vector activates.")] = 1,
    seed: Annotated[int, typer.Option(help="Of the sample drawn when --gallery-bank is a number.")] = 0,
    page_size: Annotated[int, typer.Option(help="Items read, computed and written at a time.")] = 1000,
    backend: Annotated[str, typer.Option(help="numpy, torch or auto.")] = "auto",
    as_json: AsJson = False,
) -> None:
    """Compute and store the statistics of every item of a collection."""
    queries = None if query_bank is None else _bank(query_bank, "query bank")
    items = None if gallery_bank is None else _count_or_bank(gallery_bank)
    with _target(target) as adapter, _progress() as report:
        summary = adapter.fit(
            queries,
            items,
            method=method,
            query_beta=query_beta,
            gallery_beta=gallery_beta,
            activation_k=activation_k,
            seed=seed,
            page_size=page_size,
            backend=backend,
            progress=report,
        )
    if as_json:
        _print_json(summary.model_dump(mode="json", exclude_none=True))
        return
    output.print(
        f"fitted {summary.item_count} items in {summary.seconds:.1f} s"
        + (f", skipped {summary.skipped_count} without a usable vector" if summary.skipped_count else "")
        + f"; searches now use {summary.statistics.method}"
    )


@app.command()
def status(target: TargetUrl, as_json: AsJson = False) -> None:
    """Show what is stored for a collection."""
    with _target(target) as adapter:
        report = adapter.status()
    if as_json:
        _print_json(report.model_dump(mode="json") | {"coverage": report.coverage})
    else:
        _print_status(report)


@app.command()
def search(
    target: TargetUrl,
    query: Annotated[
        str, typer.Option(help="FILE(.npy|.npz|.parquet)[:KEY] of query vectors, or one as JSON: [0.1, ...]")
    ],
    row: Annotated[int, typer.Option(help="Which vector of the file.")] = 0,
    limit: Annotated[int, typer.Option(help="How many results.")] = 10,
    candidates: Annotated[int | None, typer.Option(help="How many to fetch and re-rank.")] = None,
    method: Annotated[str | None, typer.Option(help="Instead of the fitted default.")] = None,
    as_json: AsJson = False,
) -> None:
    """Search with one vector, normalised and raw side by side."""
    vectors = _query(query)
    if not 0 <= row < len(vectors):
        raise InvalidParameterError(f"--row {row}: the file holds {len(vectors)} vectors, rows 0 to {len(vectors) - 1}")
    chosen = vectors[row : row + 1]
    with _target(target) as adapter:
        (normalized,) = adapter.nearest(chosen, limit=limit, candidates=candidates, method=method)
        (raw,) = adapter.nearest(chosen, limit=limit, method="raw")
    if as_json:
        _print_json({"normalized": [_hit(hit) for hit in normalized], "raw": [_hit(hit) for hit in raw]})
    else:
        _print_hits(normalized, raw)


@app.command()
def drop(
    target: TargetUrl,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Remove everything that this library stored for a collection, and nothing else."""
    name = Target.parse(target).collection
    if not yes and not typer.confirm(f"Remove all normalisation statistics of {name}?", err=True):
        raise typer.Exit(1)
    with _target(target) as adapter:
        adapter.drop()
    if as_json:
        _print_json({"dropped": name})
    else:
        output.print("dropped")


# --- input -------------------------------------------------------------------------------------------------------


@contextmanager
def _target(url: str) -> Iterator[NormalizedCollection]:
    _load_adapter(Target.parse(url).engine)
    adapter = open_target(url)
    try:
        yield adapter
    finally:
        adapter.close()


def _count_or_bank(text: str) -> int | Bank:
    """How many items to sample, or a bank from a file."""
    try:
        return int(text)
    except ValueError:
        return _bank(text, "gallery bank")


def _bank(text: str, what: str) -> Bank:
    """A bank from FILE or FILE:KEY."""
    path, colon, key = text.rpartition(":")
    if colon and not Path(text).exists():
        return Bank.of(path, what=what, key=key)
    return Bank.of(text, what=what)


def _query(text: str) -> Any:
    if not text.lstrip().startswith("["):
        return _bank(text, "query").vectors
    try:
        return np.atleast_2d(np.array(json.loads(text), dtype=np.float32))
    except (ValueError, TypeError) as error:
        raise InvalidParameterError(f"--query is not a JSON list of numbers: {error}") from error


# --- output ------------------------------------------------------------------------------------------------------


@contextmanager
def _spinner() -> Iterator[Any]:
    if not progress_output.is_terminal:
        yield lambda text: progress_output.print(escape(text))
        return
    with progress_output.status("starting") as shown:
        yield lambda text: shown.update(escape(text))


@contextmanager
def _progress() -> Iterator[Report]:
    """A bar for each stage on a terminal, a line for each tenth elsewhere."""
    if not progress_output.is_terminal:
        seen: dict[str, int] = {}

        def line(stage: str, done: int, total: int) -> None:
            tenth = 10 * done // max(total, 1)
            if seen.get(stage) != tenth:
                seen[stage] = tenth
                progress_output.print(f"{stage}: {done} of {total}")

        yield line
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=progress_output) as bars:
        tasks: dict[str, Any] = {}

        def bar(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=total)
            bars.update(tasks[stage], completed=done, total=total)

        yield bar


def _print_json(document: Any) -> None:
    sys.stdout.write(json.dumps(document, ensure_ascii=False, default=str) + "\n")


def _demo_json(report: DemoReport) -> dict[str, Any]:
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


def _print_demo(report: DemoReport) -> None:
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
        table = Table(title=f"{name} (embedded; fitted twice in {engine.fit_seconds:.1f} s)", title_justify="left")
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


def _print_status(report: Status) -> None:
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
            ("fitted", f"{active.fitted_at:%Y-%m-%d %H:%M:%S} UTC, generation {active.generation}"),
        ]
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
    if report.writing is not None:
        rows.append(
            (
                "unfinished",
                f"a fit by process {report.writing.process} on {report.writing.host} since"
                f" {report.writing.since:%Y-%m-%d %H:%M:%S} UTC; if it is dead, fit again",
            )
        )
    for name, value in rows:
        table.add_row(f"[bold]{name}[/]", escape(str(value)))
    output.print(table)


def _hit(hit: Hit) -> dict[str, Any]:
    return {"id": hit.id, "score": hit.score, "payload": dict(hit.payload)}


def _print_hits(normalized: list[Hit], raw: list[Hit]) -> None:
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
