"""A benchmark that has a store of its own runs, with whatever the seam has come to ask of stores."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def test_memory() -> None:
    command = [sys.executable, str(BENCHMARKS / "memory.py"), "--bank", "20", "--dimension", "8", "--measure", "5000"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    microseconds, megabytes = (float(value) for value in result.stdout.split())
    assert microseconds > 0
    assert megabytes > 0
