"""audit and explain on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from cli.test_cli import WORLD, run, target  # noqa: F401  (a fixture)


def test_audit_and_explain(target: tuple[str, Path]) -> None:  # noqa: F811
    url, folder = target
    live = folder / "live.npy"
    np.save(live, WORLD.queries)
    fitted = run("fit", url, "--query-bank", str(folder / "queries.npy"), "--gallery-bank", f"{folder}/banks.npz:items")
    assert fitted.returncode == 0, fitted.stderr

    options = ("--queries", str(live), "--k", "5", "--threshold", "planted=-2,-1")
    gate = run("audit", url, *options, "--json")
    told = json.loads(gate.stdout)
    assert gate.returncode == 1, "the verdict is a gate"
    assert "planted" in gate.stderr
    finding = next(one for one in told["findings"] if one["name"] == "planted")
    assert (told["verdict"], finding["verdict"]) == ("fail", "fail")
    assert {"raw", "normalized"} <= finding.keys()

    shown = run("audit", url, *options, "--fail-on", "never")
    assert shown.returncode == 0, shown.stderr
    assert "fail" in shown.stdout.splitlines()[1]
    wrong = run("audit", url, "--threshold", "gini=much")
    assert (wrong.returncode, "NAME=WARN,FAIL" in wrong.stderr) == (2, True)

    best = int(np.argmax(WORLD.raw()[2]))
    explained = run("explain", url, "--id", str(best), "--query", str(live), "--row", "2", "--json")
    assert explained.returncode == 0, explained.stderr
    assert json.loads(explained.stdout)["raw_rank"] == 1
    assert (
        "rank 1 in the engine's order"
        in run("explain", url, "--id", str(best), "--query", str(live), "--row", "2").stdout
    )
    absent = run("explain", url, "--id", "4711", "--query", str(live))
    assert (absent.returncode, "has no item 4711" in absent.stderr.replace("\n", " ")) == (2, True)
