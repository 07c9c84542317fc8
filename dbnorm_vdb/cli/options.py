"""Options that several commands share, and what their texts mean."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from dbnorm_vdb.banks import Bank
from dbnorm_vdb.errors import BankFileError, InvalidParameterError
from dbnorm_vdb.targets import EXAMPLES

TargetUrl = Annotated[
    str, typer.Argument(help=f"The collection, as a URL: {EXAMPLES}. '?vector=NAME' names the vector.")
]
PageSize = Annotated[
    int | None, typer.Option(help="Items read and computed at a time; default: about a million numbers.")
]
BatchSize = Annotated[int | None, typer.Option(help="Items in one write request; default: what suits the engine.")]
Pace = Annotated[float | None, typer.Option(help="Read and write no faster than this, on average.")]
Backend = Annotated[str, typer.Option(help="numpy, torch or auto.")]
Qrels = Annotated[
    str | None,
    typer.Option(help="Qrels (TREC, tsv, csv, jsonl, json) of the queries, whose ids are their rows from 0."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for machines, and nothing else on standard output.")]


def count_or_bank(text: str) -> int | Bank:
    """How many items to sample, or a bank from a file."""
    try:
        return int(text)
    except ValueError:
        return bank_of(text, "gallery bank")


def bank_of(text: str, what: str) -> Bank:
    """A bank from FILE or FILE:KEY."""
    if not text:
        raise InvalidParameterError(f"the {what} is to be read from a file, and the name given for it is empty")
    path, colon, key = text.rpartition(":")
    if colon and not Path(text).exists():
        return Bank.of(path, what=what, key=key)
    return Bank.of(text, what=what)


def query_vectors(text: str) -> Any:
    """Query vectors from FILE, FILE:KEY or a JSON list of numbers."""
    if not text.lstrip().startswith("["):
        return bank_of(text, "query").vectors
    try:
        return np.atleast_2d(np.array(json.loads(text), dtype=np.float32))
    except (ValueError, TypeError) as error:
        raise InvalidParameterError(f"--query is not a JSON list of numbers: {error}") from error


def text_lines(path: str) -> list[str]:
    """The lines of a text file."""
    try:
        with Path(path).open(encoding="utf-8-sig") as file:  # splitlines() knows other ends of lines, too
            return [line.removesuffix("\n") for line in file]
    except (OSError, UnicodeDecodeError) as error:
        raise BankFileError(f"text file {path!r} cannot be read: {error}") from error
