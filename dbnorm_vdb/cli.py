"""The command line: demo, fit, refresh, fold, status, search, drop. Exit status 0, 1 (failed) or 2 (wrong usage)."""

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
from rich.markup import escape

from dbnorm_vdb.banks import Bank
from dbnorm_vdb.collection import NormalizedCollection
from dbnorm_vdb.console import (
    demo_json,
    hit_json,
    output,
    print_demo,
    print_hits,
    print_json,
    print_status,
    progress,
    progress_output,
    spinner,
)
from dbnorm_vdb.demo import load_pictures, run_demo
from dbnorm_vdb.errors import InvalidInputError, InvalidParameterError
from dbnorm_vdb.summaries import in_words
from dbnorm_vdb.targets import EXAMPLES, Target, adapter_class, open_target
from dbnorm_vdb.version import __version__

app = typer.Typer(
    help="Hubness reduction for vector databases: Dual Bank Normalization on Qdrant and Milvus.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

TargetUrl = Annotated[
    str, typer.Argument(help=f"The collection, as a URL: {EXAMPLES}. '?vector=NAME' names the vector.")
]
PageSize = Annotated[int, typer.Option(help="Items read and computed at a time.")]
BatchSize = Annotated[int | None, typer.Option(help="Items in one write request; default: what suits the engine.")]
Pace = Annotated[float | None, typer.Option(help="Read and write no faster than this, on average.")]
Backend = Annotated[str, typer.Option(help="numpy, torch or auto.")]
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
    with spinner() as say:
        report = run_demo(load_pictures(), engines=engines, say=say)
    if as_json:
        print_json(demo_json(report))
    else:
        print_demo(report)


@app.command()
def fit(
    target: TargetUrl,
    query_bank: Annotated[str | None, typer.Option(help="FILE(.npy|.npz|.parquet)[:KEY] of query vectors.")] = None,
    gallery_bank: Annotated[
        str | None, typer.Option(help="The same of item vectors, or how many items to sample from the collection.")
    ] = None,
    method: Annotated[
        str, typer.Option(help="The default of searches: is, dis, dual_is, dual_dis, nnn or sinkhorn.")
    ] = "dual_is",
    query_beta: Annotated[float, typer.Option(help="Inverse temperature of the query bank.")] = 20.0,
    gallery_beta: Annotated[float, typer.Option(help="Inverse temperature of the gallery bank.")] = 10.0,
    activation_k: Annotated[int, typer.Option(help="Nearest items that each bank vector activates.")] = 1,
    iterations: Annotated[int, typer.Option(help="Item steps of sinkhorn.")] = 10,
    sample_size: Annotated[int, typer.Option(help="Items that sinkhorn learns on, at most.")] = 50_000,
    nnn_alpha: Annotated[float, typer.Option(help="Weight of the bias of nnn.")] = 0.5,
    nnn_k: Annotated[int, typer.Option(help="Largest similarities to the query bank that it is the mean of.")] = 10,
    seed: Annotated[int, typer.Option(help="Of the samples drawn: for --gallery-bank N, and sinkhorn.")] = 0,
    page_size: PageSize = 1000,
    batch_size: BatchSize = None,
    max_items_per_second: Pace = None,
    backend: Backend = "auto",
    precision: Annotated[str, typer.Option(help="float32; on torch also tf32 or bfloat16.")] = "float32",
    resume: Annotated[bool, typer.Option(help="Go on where the same fit was interrupted.")] = True,
    as_json: AsJson = False,
) -> None:
    """Compute and store the statistics of every item of a collection."""
    queries = None if query_bank is None else _bank(query_bank, "query bank")
    items = None if gallery_bank is None else _count_or_bank(gallery_bank)
    with _target(target) as adapter, progress() as report:
        summary = adapter.fit(
            queries,
            items,
            method=method,
            query_beta=query_beta,
            gallery_beta=gallery_beta,
            activation_k=activation_k,
            iterations=iterations,
            sample_size=sample_size,
            nnn_alpha=nnn_alpha,
            nnn_k=nnn_k,
            seed=seed,
            page_size=page_size,
            batch_size=batch_size,
            max_items_per_second=max_items_per_second,
            backend=backend,
            precision=precision,
            resume=resume,
            progress=report,
        )
    if as_json:
        print_json(summary.model_dump(mode="json", exclude_none=True))
        return
    output.print(
        f"fitted {summary.item_count} items in {summary.seconds:.1f} s"
        + (f", {summary.resumed_count} of them before an interruption" if summary.resumed_count else "")
        + (f", skipped {summary.skipped_count} without a usable vector" if summary.skipped_count else "")
        + (f", {summary.missing_count} lack statistics (dbnorm-vdb refresh)" if summary.missing_count else "")
        + f"; searches now use {summary.statistics.method}"
    )
    if summary.statistics.calibration is not None:
        output.print(f"candidates: {in_words(summary.statistics.calibration)}")


@app.command()
def refresh(
    target: TargetUrl,
    page_size: PageSize = 1000,
    batch_size: BatchSize = None,
    max_items_per_second: Pace = None,
    backend: Backend = "auto",
    as_json: AsJson = False,
) -> None:
    """Bring the statistics up to date with the collection, using the stored banks."""
    with _target(target) as adapter, progress() as report:
        summary = adapter.refresh(
            page_size=page_size,
            batch_size=batch_size,
            max_items_per_second=max_items_per_second,
            backend=backend,
            progress=report,
        )
    if as_json:
        print_json(summary.model_dump(mode="json", exclude_none=True))
        return
    output.print(
        f"{summary.item_count} items have statistics after {summary.seconds:.1f} s: {summary.written_count} written,"
        f" {summary.removed_count} of deleted items removed"
        + (f", {summary.skipped_count} without a usable vector skipped" if summary.skipped_count else "")
    )


@app.command()
def fold(
    target: TargetUrl,
    name: Annotated[str, typer.Argument(help="The new collection, in the same database.")],
    method: Annotated[str | None, typer.Option(help="Instead of the fitted default: one without gates.")] = None,
    page_size: PageSize = 1000,
    batch_size: BatchSize = None,
    max_items_per_second: Pace = None,
    as_json: AsJson = False,
) -> None:
    """Copy a collection into one whose vectors carry the normalisation, for exact searches without over-fetch."""
    with _target(target) as adapter, progress() as report:
        summary = adapter.fold(
            name,
            method=method,
            page_size=page_size,
            batch_size=batch_size,
            max_items_per_second=max_items_per_second,
            progress=report,
        )
    if as_json:
        print_json(summary.model_dump(mode="json"))
        return
    output.print(
        f"{escape(summary.target)}: {summary.item_count} items folded ({summary.method}) in {summary.seconds:.1f} s"
        + (f", {summary.resumed_count} of them before an interruption" if summary.resumed_count else "")
        + f", {summary.verified_count} compared with the source"
        + (f", {summary.unfitted_count} without statistics count as average items" if summary.unfitted_count else "")
        + (f", {summary.skipped_count} without a usable vector left out" if summary.skipped_count else "")
    )


@app.command()
def status(target: TargetUrl, as_json: AsJson = False) -> None:
    """Show what is stored for a collection."""
    with _target(target) as adapter:
        report = adapter.status()
    if as_json:
        print_json(report.model_dump(mode="json") | {"coverage": report.coverage, "advice": report.advice})
    else:
        print_status(report)


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
    exact: Annotated[bool, typer.Option("--exact", help="Widen the window until the result is certified.")] = False,
    as_json: AsJson = False,
) -> None:
    """Search with one vector, normalised and raw side by side."""
    vectors = _query(query)
    if not 0 <= row < len(vectors):
        raise InvalidParameterError(f"--row {row}: the file holds {len(vectors)} vectors, rows 0 to {len(vectors) - 1}")
    chosen = vectors[row : row + 1]
    with _target(target) as adapter:
        (normalized,) = adapter.nearest(chosen, limit=limit, candidates=candidates, method=method, exact=exact)
        (raw,) = adapter.nearest(chosen, limit=limit, method="raw")
    if as_json:
        print_json({"normalized": [hit_json(hit) for hit in normalized], "raw": [hit_json(hit) for hit in raw]})
    else:
        print_hits(normalized, raw)


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
        print_json({"dropped": name})
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
