"""The command `demo`."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from dbnorm_vdb.cli.app import app, load_adapter
from dbnorm_vdb.cli.console import output, print_json, spinner
from dbnorm_vdb.cli.options import AsJson
from dbnorm_vdb.demo import IMAGE_FIELD, DemoReport, Example, load_pictures, run_demo, write_demo_report
from dbnorm_vdb.report import check_report


@app.command()
def demo(
    as_json: AsJson = False,
    engine: Annotated[list[str] | None, typer.Option(help="qdrant or milvus; default: both.")] = None,
    report: Annotated[str | None, typer.Option(help="Also write raw against dual_is as an HTML file.")] = None,
) -> None:
    """Search 1 872 pictures with 1 872 texts on the embedded engines, raw and normalised, and compare."""
    engines = engine or ("qdrant", "milvus")
    if report is not None:
        check_report(report, image_field=IMAGE_FIELD)
    for name in engines:
        load_adapter(name)
    data = load_pictures()
    with spinner() as say:
        found = run_demo(data, engines=engines, compared=report is not None, say=say)
        if report is not None:
            say("writing the report")
            write_demo_report(data, found, report)
    if as_json:
        print_json(demo_json(found))
        return
    print_demo(found)
    if report is not None:
        output.print(f"The report, with pictures: {report}", markup=False, highlight=False, soft_wrap=True)


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
