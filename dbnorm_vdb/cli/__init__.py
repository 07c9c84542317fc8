"""The command line `dbnorm-vdb`: a module for each group of commands."""

from dbnorm_vdb.cli import collections, demonstration, experiments, tuning  # noqa: F401  (they register their commands)
from dbnorm_vdb.cli.app import run

__all__ = ["run"]
