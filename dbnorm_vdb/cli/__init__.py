"""The command line `dbnorm-vdb`: a module for each group of commands."""

from dbnorm_vdb.cli import (  # noqa: F401  (they register their commands)
    collections,
    comparisons,
    demonstration,
    experiments,
    inspections,
    reports,
    tuning,
)
from dbnorm_vdb.cli.app import run

__all__ = ["run"]
