"""compare."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer

from dbnorm_vdb.cli.app import app, opened
from dbnorm_vdb.cli.console import print_json, progress
from dbnorm_vdb.cli.options import AsJson, bank_of, text_lines
from dbnorm_vdb.cli.reports import ImageField, ImageRoot, TextField
from dbnorm_vdb.cli.shown_comparison import print_comparison
from dbnorm_vdb.errors import InvalidParameterError, NotFittedError
from dbnorm_vdb.evaluation import Arm
from dbnorm_vdb.evaluation import compare as compare_arms
from dbnorm_vdb.evaluation.measures import DEFAULT_MEASURES
from dbnorm_vdb.evaluation.saving import check_folder
from dbnorm_vdb.methods import Method
from dbnorm_vdb.report import check_report
from dbnorm_vdb.targets import EXAMPLES


@app.command()
def compare(
    target: Annotated[
        str | None, typer.Argument(help=f"The collection whose methods are compared, as a URL: {EXAMPLES}.")
    ] = None,
    arm: Annotated[
        list[str] | None,
        typer.Option(
            help="A method, with options: raw, 'dual_is,candidates=200', 'is,exact,name=best'; or a saved run,"
            " run:FILE or NAME=run:FILE. Repeat it. Default: raw and the fitted method."
        ),
    ] = None,
    queries: Annotated[str | None, typer.Option(help="FILE(.npy|.npz|.parquet)[:KEY] of query vectors.")] = None,
    qrels: Annotated[str | None, typer.Option(help="Relevance judgements: TREC, BEIR (tsv) or jsonl.")] = None,
    keys: Annotated[
        str | None, typer.Option(help="FILE with the queries' keys, a line each; default: row numbers from 0.")
    ] = None,
    texts: Annotated[str | None, typer.Option(help="FILE with the queries' texts, a line each, to show.")] = None,
    measure: Annotated[
        list[str] | None,
        typer.Option(
            help="As ir-measures writes it, or MedianRank, MeanRank. Repeat it. Default: " + ", ".join(DEFAULT_MEASURES)
        ),
    ] = None,
    primary: Annotated[str | None, typer.Option(help="The measure that decides.")] = None,
    baseline: Annotated[str | None, typer.Option(help="The arm the others are compared with; default: first.")] = None,
    limit: Annotated[int, typer.Option(help="Results that a user sees.")] = 10,
    depth: Annotated[int, typer.Option(help="Results of each query that the measures see.")] = 100,
    item_count: Annotated[int | None, typer.Option(help="Items there are; for the hubness of runs.")] = None,
    resamples: Annotated[int, typer.Option(help="Of bootstrap and permutation tests.")] = 10_000,
    latency_queries: Annotated[int, typer.Option(help="Queries to time; 0 for none.")] = 100,
    window_queries: Annotated[int, typer.Option(help="Queries to try other windows on; 0 for none.")] = 0,
    examples: Annotated[int, typer.Option(help="Most improved, and most harmed, queries to keep.")] = 10,
    seed: Annotated[int, typer.Option(help="Of the resampling.")] = 0,
    save: Annotated[
        str | None, typer.Option(help="New folder for TREC runs and qrels, values by query, and comparison.json.")
    ] = None,
    report: Annotated[str | None, typer.Option(help="HTML file to write, for reading; it works offline.")] = None,
    image_field: ImageField = None,
    image_root: ImageRoot = None,
    text_field: TextField = None,
    as_json: AsJson = False,
) -> None:
    """Compare methods of a collection, and saved runs, on the same queries. Nothing is written to the database."""
    if save is not None:
        check_folder(save)
    _check_report(report, image_field=image_field, image_root=image_root, text_field=text_field)
    if target is None and not arm:
        raise InvalidParameterError("nothing to compare: name a collection (TARGET), or saved runs (--arm run:FILE)")
    vectors = None if queries is None else bank_of(queries, "queries").vectors
    with nullcontext() if target is None else opened(target) as adapter, progress() as progressed:
        result = compare_arms(
            _arms(arm or ["raw", _fitted_method(adapter)]),
            vectors,
            None if qrels is None else Path(qrels),
            adapter=adapter,
            keys=None if keys is None else text_lines(keys),
            texts=None if texts is None else text_lines(texts),
            measures=tuple(measure or DEFAULT_MEASURES),
            primary=primary,
            baseline=baseline,
            limit=limit,
            depth=depth,
            item_count=item_count,
            resamples=resamples,
            latency_queries=latency_queries,
            window_queries=window_queries,
            examples=examples,
            seed=seed,
            progress=progressed,
        )
    written = [] if save is None else result.save(save)
    if report is not None:
        written.append(result.report(report, image_field=image_field, image_root=image_root, text_field=text_field))
    if as_json:
        print_json(json.loads(result.model_dump_json()))
    else:
        print_comparison(result, written)


def _check_report(report: str | None, **options: str | None) -> None:
    """What can be known of a report before there is a comparison."""
    if report is not None:
        check_report(report, image_field=options["image_field"], image_root=options["image_root"])
        return
    for name, value in options.items():
        if value is not None:
            raise InvalidParameterError(f"--{name.replace('_', '-')} says what a report shows; add --report FILE")


def _fitted_method(adapter: Any) -> str:
    active = adapter.status().active
    if active is None:
        raise NotFittedError("the collection has no statistics to compare raw results with; call fit")
    return str(Method(active.method).value)


def _arms(texts: list[str]) -> dict[str, Arm | Path]:
    """Arms by name from their texts: methods, and the paths of runs."""
    found: dict[str, Arm | Path] = {}
    for text in texts:
        before, marker, path = text.partition("run:")
        arm: Arm | Path
        if marker and (not before or before.endswith("=")):
            arm, name = Path(path), before.rstrip("=") or Path(path).stem
        else:
            arm = Arm.parse(text)
            name = arm.name or str(arm)
        if name in found:
            raise InvalidParameterError(
                f"two arms are called {name!r}; say NAME=run:FILE, or add name=NAME to a method's options"
            )
        found[name] = arm
    return found
