"""The command line, run in this process or in one of its own; what is returned is the same."""

from __future__ import annotations

import io
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout

import pytest
from milvus_lite.server_manager import server_manager_instance
from rich.console import Console

from dbnorm_vdb import __main__ as entry
from dbnorm_vdb.cli import console
from dbnorm_vdb.errors import InvalidTargetError
from dbnorm_vdb.targets import Target

SURROUNDINGS = {"COLUMNS": "160"}
QUIETED = ("pymilvus", "milvus_lite", "grpc._server")
"""Loggers that a command silences, for as long as its process lives."""


def run_process(*arguments: str, stdin: str | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a process of its own, as its users do: for what nothing else can show.

    That is whether a command imports all that it uses (each has such a run), what importing the clients and their logs
    write to standard error, what is missing from an environment, pipes, and that one process reads what another wrote.
    """
    return subprocess.run(
        [sys.executable, "-m", "dbnorm_vdb", *arguments],
        capture_output=True,
        text=True,
        input=stdin,
        timeout=120,
        check=False,
        env={**os.environ, **SURROUNDINGS, **environment},
    )


def run(*arguments: str, stdin: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command in this process, as `python -m dbnorm_vdb`, without the seconds that importing the clients takes.

    A warning is an error here, as in every test. What is embedded is closed at the end, as when a process ends.
    """
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, levels_kept(), redirect_stdout(out), redirect_stderr(err):
        for name, value in {**SURROUNDINGS, **environment}.items():
            patch.setenv(name, value)
        patch.setattr(sys, "argv", [str(entry.__file__), *arguments])
        patch.setattr(sys, "stdin", io.StringIO(stdin))
        patch.setattr(sys, "excepthook", sys.excepthook)  # the command sets its own
        patch.setattr(logging.root, "handlers", [])  # pytest's, which keep warnings from standard error
        patch.setitem(sys.modules, "__main__", entry)  # for the program's name in usage messages
        for shared in (console.output, console.progress_output):  # their width and colours are those of the import
            patch.setattr(shared, "__dict__", vars(Console(stderr=shared.stderr)))
        try:
            entry.main()
            status = 0
        except SystemExit as error:
            status = int(error.code or 0)
        finally:
            stop_milvus_lite(arguments)
    return subprocess.CompletedProcess(["dbnorm-vdb", *arguments], status, out.getvalue(), err.getvalue())


@contextmanager
def levels_kept() -> Iterator[None]:
    """What a command silences speaks again afterwards."""
    levels = {name: logging.getLogger(name).level for name in QUIETED}
    try:
        yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


def stop_milvus_lite(arguments: tuple[str, ...]) -> None:
    """Stop the servers of the files that the arguments name, and no other."""
    for argument in arguments:
        if not argument.startswith("milvus:"):
            continue
        try:
            server_manager_instance.release_server(Target.parse(argument).path)
        except InvalidTargetError:
            continue
