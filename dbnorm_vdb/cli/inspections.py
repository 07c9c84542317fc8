"""audit, explain."""

from __future__ import annotations

import json
import re
import shlex
from enum import Enum
from typing import Annotated, Any

import typer

from dbnorm_vdb.audits.verdicts import THRESHOLDS, Verdict
from dbnorm_vdb.cli.app import app, opened
from dbnorm_vdb.cli.console import print_json, progress, progress_output
from dbnorm_vdb.cli.options import AsJson, TargetUrl, bank_of, query_vectors, text_lines
from dbnorm_vdb.cli.shown_audit import print_audit, print_explanation
from dbnorm_vdb.errors import InvalidParameterError


class FailOn(str, Enum):
    """From which verdict on the exit status of an audit is 1."""

    WARN = "warn"
    FAIL = "fail"
    NEVER = "never"


@app.command()
def audit(
    target: TargetUrl,
    queries: Annotated[
        str | None,
        typer.Option(help="FILE(.npy|.npz|.parquet)[:KEY] of query vectors; default: the stored query bank."),
    ] = None,
    texts: Annotated[str | None, typer.Option(help="FILE with the queries' texts, a line each, to show.")] = None,
    k: Annotated[int, typer.Option(help="How many results of each query count.")] = 10,
    sample: Annotated[int, typer.Option(help="Use at most this many of the queries.")] = 1000,
    seed: Annotated[int, typer.Option(help="Of what is drawn by lot.")] = 0,
    method: Annotated[str | None, typer.Option(help="Of the normalised results; default: the fitted one.")] = None,
    hubs: Annotated[int, typer.Option(help="How many of the items found most often to look at.")] = 10,
    threshold: Annotated[
        list[str] | None,
        typer.Option(
            help="NAME=WARN,FAIL: from which excess over chance (for outside_domain and planted: share of the queries)"
            " on to warn and to fail. May be repeated. Default: "
            + ", ".join(f"{name}={warn:g},{fail:g}" for name, (warn, fail) in THRESHOLDS.items())
        ),
    ] = None,
    fail_on: Annotated[FailOn, typer.Option(help="The verdict from which on the exit status is 1.")] = FailOn.FAIL,
    as_json: AsJson = False,
) -> None:
    """Show hubs and antihubs, raw and normalised, planted vectors and queries out of domain. Nothing is written.

    Exit status: 0 if the verdict on what is served is ok or warn, 1 if it is fail (--fail-on changes that) or the audit
    could not be made, in which case nothing is on standard output; 2 for wrong usage.
    """
    changed = dict(_threshold(text) for text in threshold or ())
    asked = None if queries is None else bank_of(queries, "queries")
    lines = None if texts is None else text_lines(texts)
    with opened(target) as adapter, progress() as report:
        result = adapter.audit(
            asked,
            k=k,
            sample=sample,
            seed=seed,
            method=method,
            texts=lines,
            hubs=hubs,
            thresholds=changed,
            progress=report,
        )
    findings = [
        finding.model_copy(update={"next_command": _filled(finding.next_command, target, queries)})
        for finding in result.findings
    ]
    result = result.model_copy(update={"findings": findings})
    if as_json:
        print_json(json.loads(result.model_dump_json()))
    else:
        print_audit(result)
    if fail_on is not FailOn.NEVER and result.verdict.severity >= Verdict(fail_on.value).severity:
        names = ", ".join(
            f.name for f in findings if f.verdict and f.verdict.severity >= Verdict(fail_on.value).severity
        )
        progress_output.print(f"[bold red]audit[/]: {result.verdict.value} ({names})", soft_wrap=True)
        raise typer.Exit(1)


@app.command()
def explain(
    target: TargetUrl,
    item: Annotated[str, typer.Option("--id", help="Of the item; a text that looks like a number in double quotes.")],
    query: Annotated[str, typer.Option(help="FILE(.npy|.npz|.parquet)[:KEY] of query vectors, or a JSON list.")],
    row: Annotated[int, typer.Option(help="Which vector of the file.")] = 0,
    method: Annotated[str | None, typer.Option(help="Instead of the fitted default.")] = None,
    max_candidates: Annotated[int | None, typer.Option(help="How far to widen the window; default 10 000.")] = None,
    as_json: AsJson = False,
) -> None:
    """Tell how an item comes to its rank for a query, raw and normalised."""
    vectors = query_vectors(query)
    if not 0 <= row < len(vectors):
        raise InvalidParameterError(f"--row {row}: the file holds {len(vectors)} vectors, rows 0 to {len(vectors) - 1}")
    with opened(target) as adapter:
        explanation = adapter.explain(vectors[row], _item_id(item), method=method, max_candidates=max_candidates)
    if as_json:
        print_json(json.loads(explanation.model_dump_json()))
    else:
        print_explanation(explanation)


def _threshold(text: str) -> tuple[str, tuple[float, float]]:
    """NAME=WARN,FAIL."""
    name, _, pair = text.partition("=")
    try:
        warn, fail = (float(part) for part in pair.split(","))
    except ValueError as error:
        raise InvalidParameterError(f"--threshold {text!r} is not NAME=WARN,FAIL, such as gini=0.2,0.4") from error
    return name, (warn, fail)


def _item_id(text: str) -> int | str:
    """A number, a JSON string, or a text as it is."""
    try:
        parsed: Any = json.loads(text)
    except ValueError:
        return text
    return parsed if isinstance(parsed, (int, str)) and not isinstance(parsed, bool) else text


def _filled(command: str | None, target: str, queries: str | None) -> str | None:
    """A suggested command with what this one was given."""
    if command is None:
        return None
    given = {"TARGET": target, "QUERIES": queries or "QUERIES.npy"}
    return re.sub("TARGET|QUERIES", lambda match: shlex.quote(given[match[0]]), command)
