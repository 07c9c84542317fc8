"""The command line itself: errors become one line on standard error and exit status 1 (failed) or 2 (wrong usage)."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from typing import Annotated

import typer
from rich.markup import escape

from dbnorm_vdb.cli.console import output, progress_output
from dbnorm_vdb.collection import NormalizedCollection
from dbnorm_vdb.errors import InvalidInputError
from dbnorm_vdb.targets import Target, adapter_class, open_target
from dbnorm_vdb.version import __version__

app = typer.Typer(
    help="Hubness reduction for vector databases: Dual Bank Normalization on Qdrant and Milvus.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def run() -> None:
    """Run the command line; errors become one line on standard error and an exit status."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # an ASCII terminal is to show a "?", and not stop half-way
            stream.reconfigure(errors="replace")
    try:
        app()
    except InvalidInputError as error:
        _fail(error, 2)
    except Exception as error:  # the database clients have no common base class
        _fail(error, 1)


def load_adapter(engine: str) -> None:
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


@contextmanager
def opened(url: str) -> Iterator[NormalizedCollection]:
    """The adapter of a target's URL, closed at the end."""
    load_adapter(Target.parse(url).engine)
    adapter = open_target(url)
    try:
        yield adapter
    finally:
        adapter.close()
