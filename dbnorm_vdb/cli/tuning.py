"""tune."""

from __future__ import annotations

import shlex
from typing import Annotated

import typer
from rich.markup import escape

from dbnorm_vdb.cli.app import app, opened
from dbnorm_vdb.cli.console import output, print_json, progress
from dbnorm_vdb.cli.grids import grid_table, heat_maps
from dbnorm_vdb.cli.options import AsJson, Backend, Qrels, TargetUrl, bank_of, count_or_bank
from dbnorm_vdb.errors import InvalidParameterError
from dbnorm_vdb.methods import Method
from dbnorm_vdb.tuning import TuneResult


@app.command()
def tune(
    target: TargetUrl,
    query_bank: Annotated[str | None, typer.Option(help="As for fit.")] = None,
    gallery_bank: Annotated[str | None, typer.Option(help="As for fit.")] = None,
    queries: Annotated[str | None, typer.Option(help="FILE(.npy|.npz|.parquet)[:KEY] of labelled queries.")] = None,
    qrels: Qrels = None,
    methods: Annotated[
        str | None, typer.Option(help="What to try, e.g. is,dual_is; default: all but sinkhorn.")
    ] = None,
    query_betas: Annotated[str | None, typer.Option(help="E.g. 5,10,20; default: what suits the similarities.")] = None,
    gallery_betas: Annotated[str | None, typer.Option(help="E.g. 0,2,5; with 0, dual_is is is.")] = None,
    measure: Annotated[str, typer.Option(help="To optimise: R, Success, RR or nDCG, with a cutoff.")] = "nDCG@10",
    folds: Annotated[int, typer.Option(help="Of the cross-validation.")] = 5,
    candidates: Annotated[int | None, typer.Option(help="How many items to fetch for each query.")] = None,
    activation_k: Annotated[int, typer.Option(help="As for fit.")] = 1,
    nnn_k: Annotated[int, typer.Option(help="As for fit.")] = 10,
    iterations: Annotated[int, typer.Option(help="As for fit.")] = 10,
    sample_size: Annotated[int, typer.Option(help="As for fit.")] = 50_000,
    seed: Annotated[int, typer.Option(help="Of the folds, and of samples as for fit.")] = 0,
    backend: Backend = "auto",
    as_json: AsJson = False,
) -> None:
    """Find the method and the betas to fit with, on labelled queries; without labels, a guess by hubness."""
    betas = {
        name: _numbers(text, f"--{name}-betas")
        for name, text in (("query", query_betas), ("gallery", gallery_betas))
        if text is not None
    }
    with opened(target) as adapter, progress() as report:
        result = adapter.tune(
            None if queries is None else bank_of(queries, "queries"),
            qrels,
            query_bank=None if query_bank is None else bank_of(query_bank, "query bank"),
            gallery_bank=None if gallery_bank is None else count_or_bank(gallery_bank),
            methods=None if methods is None else [name.strip() for name in methods.split(",")],
            betas=betas or None,
            measure=measure,
            folds=folds,
            candidates=candidates,
            activation_k=activation_k,
            nnn_k=nnn_k,
            iterations=iterations,
            sample_size=sample_size,
            seed=seed,
            backend=backend,
            progress=report,
        )
    command = fit_command(result, target, query_bank, gallery_bank, seed=seed, sample_size=sample_size)
    if as_json:
        found = result.model_dump(mode="json", exclude_none=True)
        print_json(found | {"settings": result.settings, "verdict": result.in_words(), "command": command})
    else:
        print_tuning(result, command)


def fit_command(
    result: TuneResult, target: str, query_bank: str | None, gallery_bank: str | None, *, seed: int, sample_size: int
) -> str:
    """The command that fits with the settings found; empty if these are to leave things raw."""
    method = result.best.setting.method
    if method is Method.RAW:
        return ""
    options = {"query_bank": query_bank, "gallery_bank": gallery_bank if "gallery" in method.banks else None}
    options |= {name: f"{value:g}" if isinstance(value, float) else value for name, value in result.settings.items()}
    if seed:
        options["seed"] = str(seed)
    if method is Method.SINKHORN:
        options["sample_size"] = str(sample_size)
    words = ["dbnorm-vdb", "fit", target]
    for name, value in options.items():
        if value is not None:
            words += [f"--{name.replace('_', '-')}", str(value)]
    return shlex.join(words)


def print_tuning(result: TuneResult, command: str) -> None:
    """Print the grid as a table and as heat maps, and last what to do."""
    output.print(grid_table(result))
    for heat_map in heat_maps(result):
        output.print()
        output.print(heat_map)
    output.print()
    for words in result.warnings:
        output.print(f"[bold yellow]warning[/]: {escape(words)}", soft_wrap=True)
    output.print(f"[bold]{escape(result.in_words())}[/]", soft_wrap=True)
    output.print(escape(command or "leave the collection as it is: do not fit"), soft_wrap=True, highlight=False)


def _numbers(text: str, option: str) -> list[float]:
    try:
        return [float(number) for number in text.split(",")]
    except ValueError as error:
        raise InvalidParameterError(f"{option} {text!r}: give numbers with commas between, as in 5,10,20") from error
