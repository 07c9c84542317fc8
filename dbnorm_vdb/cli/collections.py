"""fit, refresh, fold, status, search, drop."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.markup import escape

from dbnorm_vdb.cli.app import app, opened
from dbnorm_vdb.cli.console import output, print_json, progress
from dbnorm_vdb.cli.options import (
    AsJson,
    Backend,
    BatchSize,
    Pace,
    PageSize,
    Qrels,
    TargetUrl,
    bank_of,
    count_or_bank,
    query_vectors,
)
from dbnorm_vdb.cli.shown import hit_json, print_hits, print_status
from dbnorm_vdb.errors import InvalidParameterError
from dbnorm_vdb.summaries import FitSummary, in_words
from dbnorm_vdb.targets import Target


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
    page_size: PageSize = None,
    batch_size: BatchSize = None,
    max_items_per_second: Pace = None,
    backend: Backend = "auto",
    precision: Annotated[str, typer.Option(help="float32; on torch also tf32 or bfloat16.")] = "float32",
    resume: Annotated[bool, typer.Option(help="Go on where the same fit was interrupted.")] = True,
    validation: Annotated[
        str | None,
        typer.Option(help="FILE[:KEY] of labelled queries: use the statistics only if they beat raw on them."),
    ] = None,
    qrels: Qrels = None,
    measure: Annotated[str, typer.Option(help="What has to get better: R, Success, RR or nDCG, with a cutoff.")] = (
        "nDCG@10"
    ),
    force: Annotated[bool, typer.Option("--force", help="Use the statistics whatever the validation says.")] = False,
    as_json: AsJson = False,
) -> None:
    """Compute and store the statistics of every item of a collection. Exit status 1 if the validation refuses them."""
    if (validation is None) != (qrels is None):
        raise InvalidParameterError("--validation and --qrels belong together: queries, and what is relevant to them")
    queries = None if query_bank is None else bank_of(query_bank, "query bank")
    items = None if gallery_bank is None else count_or_bank(gallery_bank)
    with opened(target) as adapter, progress() as report:
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
            validation=None if validation is None else (bank_of(validation, "validation queries"), qrels),
            measure=measure,
            force=force,
            progress=report,
        )
    if as_json:
        print_json(summary.model_dump(mode="json", exclude_none=True))
    else:
        print_fit(summary)
    if not summary.activated:
        raise typer.Exit(1)


def print_fit(summary: FitSummary) -> None:
    """Print what a fit did, and what its validation found."""
    output.print(
        f"fitted {summary.item_count} items in {summary.seconds:.1f} s"
        + (f", {summary.resumed_count} of them before an interruption" if summary.resumed_count else "")
        + (f", skipped {summary.skipped_count} without a usable vector" if summary.skipped_count else "")
        + (f", {summary.missing_count} lack statistics (dbnorm-vdb refresh)" if summary.missing_count else "")
        + (f"; searches now use {summary.statistics.method}" if summary.activated else "; NOT ACTIVATED")
    )
    if summary.statistics.verdict is not None:
        output.print(f"validation: {summary.statistics.verdict.in_words()}")
    if not summary.activated:
        output.print("searches go on as before; --force overrides")
        return
    if summary.statistics.calibration is not None:
        output.print(f"candidates: {in_words(summary.statistics.calibration)}")


@app.command()
def refresh(
    target: TargetUrl,
    page_size: PageSize = None,
    batch_size: BatchSize = None,
    max_items_per_second: Pace = None,
    backend: Backend = "auto",
    as_json: AsJson = False,
) -> None:
    """Bring the statistics up to date with the collection, using the stored banks."""
    with opened(target) as adapter, progress() as report:
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
    page_size: Annotated[int, typer.Option(help="Items read and written at a time.")] = 1000,
    batch_size: BatchSize = None,
    max_items_per_second: Pace = None,
    as_json: AsJson = False,
) -> None:
    """Copy a collection into one whose vectors carry the normalisation, for exact searches without over-fetch."""
    with opened(target) as adapter, progress() as report:
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
def status(
    target: TargetUrl,
    queries: Annotated[
        str | None, typer.Option(help="FILE[:KEY] of queries served today: how far are they from the query bank?")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show what is stored for a collection."""
    with opened(target) as adapter:
        report = adapter.status(queries=None if queries is None else bank_of(queries, "queries"))
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
    vectors = query_vectors(query)
    if not 0 <= row < len(vectors):
        raise InvalidParameterError(f"--row {row}: the file holds {len(vectors)} vectors, rows 0 to {len(vectors) - 1}")
    chosen = vectors[row : row + 1]
    with opened(target) as adapter:
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
    with opened(target) as adapter:
        adapter.drop()
    if as_json:
        print_json({"dropped": name})
    else:
        output.print("dropped")
