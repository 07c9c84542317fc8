"""experiment analyze."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone
from typing import Annotated

import typer

from dbnorm_vdb.cli.app import app
from dbnorm_vdb.cli.console import output, print_json
from dbnorm_vdb.cli.options import AsJson
from dbnorm_vdb.errors import InvalidParameterError
from dbnorm_vdb.experiments import analyze

experiment_app = typer.Typer(help="Experiments on live traffic.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(experiment_app, name="experiment")

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


@experiment_app.command("analyze")
def analyze_log(
    log: Annotated[str, typer.Argument(help="The folder of the event log.")],
    experiment: Annotated[str | None, typer.Option(help="Its name, if the log holds several.")] = None,
    window: Annotated[str, typer.Option(help="How long each user is watched: 30m, 24h, 7d.")] = "24h",
    metric: Annotated[str, typer.Option(help="That the verdict goes by: click_through or reciprocal_rank.")] = (
        "click_through"
    ),
    alpha: Annotated[float, typer.Option(help="Error rate of the verdict.")] = 0.05,
    max_impressions: Annotated[int, typer.Option(help="Users with more in their window are taken for robots.")] = 200,
    until: Annotated[
        str | None, typer.Option(help="Analyse the log as it was at that time (ISO 8601; UTC if it does not say).")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say which arm is better, and how surely; looking early and often is safe. Exit status 1 if the log is invalid."""
    report = analyze(
        log,
        experiment=experiment,
        window=_duration(window),
        metric=metric,
        alpha=alpha,
        max_impressions=max_impressions,
        until=None if until is None else _time(until),
    )
    if as_json:
        print_json(report.model_dump(mode="json"))
    else:
        output.print(report)
    if not report.valid:
        raise typer.Exit(1)


def _duration(text: str) -> timedelta:
    found = re.fullmatch(r"(\d{1,9})([smhdw])", text.strip())
    if found is None:
        raise InvalidParameterError(f"--window {text!r} is no duration; use for instance 90s, 30m, 24h, 7d or 2w")
    try:
        return timedelta(**{_UNITS[found[2]]: int(found[1])})
    except OverflowError as error:
        raise InvalidParameterError(f"--window {text!r} is longer than time goes: {error}") from error


def _time(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError as error:
        raise InvalidParameterError(f"--until {text!r} is no time; use for instance 2025-01-31T12:00:00") from error
    return moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)
