"""Entry point of the command `dbnorm-vdb`."""

from __future__ import annotations

import sys

from dbnorm_vdb.errors import MissingDependencyError


def main() -> None:
    """Run the command line, or say which extra it needs."""
    try:
        from dbnorm_vdb.cli import run
    except ImportError as error:
        if error.name not in ("typer", "rich", "click"):
            raise
        print(MissingDependencyError("typer", "cli", "the command line"), file=sys.stderr)
        sys.exit(1)
    run()


if __name__ == "__main__":
    main()
