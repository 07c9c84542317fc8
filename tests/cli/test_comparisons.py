"""compare on the command line, with the methods of a collection."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from cli.test_cli import WORLD, target  # noqa: F401  (a fixture)
from command_line import run, run_process


@pytest.mark.parametrize("target", ["qdrant"], indirect=True)
def test_compare(target: tuple[str, Path]) -> None:  # noqa: F811
    url, folder = target
    live, qrels, keys = folder / "live.npy", folder / "qrels.jsonl", folder / "keys.txt"
    np.save(live, WORLD.queries)
    best = np.argmax(WORLD.score_oracle("dual_is"), axis=1)
    keys.write_text("".join(f"query-{row}\n" for row in range(16)))
    qrels.write_text(
        "".join(json.dumps({"qid": f"query-{row}", "relevant": [int(best[row])]}) + "\n" for row in range(16))
    )
    asked = ("compare", url, "--queries", str(live), "--qrels", str(qrels), "--keys", str(keys), "--resamples", "100")

    unfitted = run(*asked)
    assert (unfitted.returncode, "call fit" in unfitted.stderr.replace("\n", " ")) == (1, True), unfitted.stderr
    banks = ("--query-bank", str(folder / "queries.npy"), "--gallery-bank", f"{folder}/banks.npz:items")
    fitted = run("fit", url, *banks, "--query-beta", "12", "--gallery-beta", "5")
    assert fitted.returncode == 0, fitted.stderr

    shown = run_process(*asked, "--depth", "20", "--latency-queries", "2", "--json")
    assert shown.returncode == 0, shown.stderr
    told = json.loads(shown.stdout)
    raw, dual = told["arms"]
    assert (raw["name"], dual["name"], told["baseline"]) == ("raw", "dual_is", "raw")
    assert dual["estimates"]["R@1"]["value"] == 1.0
    assert raw["estimates"]["R@1"]["value"] == np.mean(np.argmax(WORLD.raw(), axis=1) == best)
    assert len(dual["latency"]["samples"]) == 2
    assert told["queries"]["keys"][:2] == ["query-0", "query-1"]
