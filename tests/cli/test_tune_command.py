"""Tuning and guarding from the command line, on an embedded engine."""

from __future__ import annotations

import io
import json
import shlex
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from command_line import run, run_process
from harness import QdrantEngine
from labelled import LabelledWorld
from qdrant_client import QdrantClient
from rich.console import Console

from dbnorm_vdb import Method, TuneResult
from dbnorm_vdb.cli.grids import grid_table, heat_maps

WORLD = LabelledWorld.make(n=80, q=120)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tune")
    np.save(folder / "bank.npy", WORLD.query_bank)
    np.save(folder / "misleading.npy", WORLD.misleading_bank)
    np.savez(folder / "labelled.npz", queries=WORLD.queries, others=WORLD.queries[:3])
    rows = [f"{row}\t{own}\t1" for row, own in enumerate(WORLD.own)]
    (folder / "qrels.tsv").write_text("\n".join(["query-id\tcorpus-id\tscore", *rows]))
    return folder


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    storage = tmp_path_factory.mktemp("storage")
    client = QdrantClient(path=str(storage))
    collection = QdrantEngine("qdrant", client).create(WORLD.items)
    client.close()
    return f"qdrant://{storage}/{collection}"


def labelled(files: Path, option: str = "--queries") -> tuple[str, ...]:
    return (option, f"{files / 'labelled.npz'}:queries", "--qrels", str(files / "qrels.tsv"))


def test_the_settings_found_are_a_command_that_fits_and_passes_the_guard(url: str, files: Path) -> None:
    grid = ("--query-betas", "4,8", "--gallery-betas", "0,1", "--methods", "dual_is,nnn")
    bank = ("--query-bank", str(files / "bank.npy"))
    tuned = run_process("tune", url, *bank, "--gallery-bank", "30", *labelled(files), *grid, "--json")
    assert tuned.returncode == 0, tuned.stderr
    found = json.loads(tuned.stdout)
    assert found["settings"] == {"method": "is", "query_beta": 4.0}
    assert found["validated"] is True
    assert found["verdict"].startswith("is, query beta 4: nDCG@10")
    expected = ["dbnorm-vdb", "fit", url, *bank, "--method", "is", "--query-beta", "4"]
    assert shlex.split(found["command"]) == expected

    fitted = run(*expected[1:], *labelled(files, "--validation"))
    assert fitted.returncode == 0, fitted.stderr
    assert "validation: better than raw: nDCG@10" in fitted.stdout

    harmful = ("fit", url, "--query-bank", str(files / "misleading.npy"), "--method", "is", "--query-beta", "30")
    refused = run(*harmful, *labelled(files, "--validation"))
    assert refused.returncode == 1, "for a script to see"
    assert "NOT ACTIVATED" in refused.stdout
    assert "not shown to be better than raw: nDCG@10" in refused.stdout
    shown = " ".join(run("status", url, "--queries", f"{files / 'labelled.npz'}:queries").stdout.split())
    assert "verdict better than raw: nDCG@10" in shown
    assert "not activated is, fitted" in shown
    assert "the queries look like the query bank: distance" in shown


def test_wrong_usage(url: str, files: Path) -> None:
    bank = ("--query-bank", str(files / "bank.npy"))
    for arguments, message in (
        (("tune", url, *bank, "--query-betas", "5;6"), "numbers with commas"),
        (("fit", url, *bank, "--method", "is", "--validation", "queries.npy"), "belong together"),
    ):
        result = run(*arguments)
        assert (result.returncode, result.stdout) == (2, "")
        assert message in " ".join(result.stderr.split())


def test_without_labels_what_is_shown_says_unvalidated_and_so_does_status(url: str, files: Path) -> None:
    tuned = run("tune", url, "--query-bank", str(files / "bank.npy"), "--methods", "is", COLUMNS="80")
    assert tuned.returncode == 0, tuned.stderr
    words = " ".join(tuned.stdout.split())
    assert "settings, * the one to take: UNVALIDATED" in words
    assert "is (gallery beta 0) and dual_is: UNVALIDATED" in words
    assert "warning: UNVALIDATED" in words
    assert "UNVALIDATED: is, query beta" in words
    command = tuned.stdout.splitlines()[-1]
    assert command.startswith(f"dbnorm-vdb fit {url} --query-bank")
    assert run(*shlex.split(command)[1:]).returncode == 0
    assert "verdict UNVALIDATED" in " ".join(run("status", url).stdout.split())


def result_of(figures: dict[tuple[float, float], float]) -> TuneResult:
    """Raw 0.5, and dual_is by query and gallery beta."""
    trials = [{"setting": {"method": "raw"}, "figures": dict.fromkeys(("nDCG@10", "R@1", "R@5", "R@10"), 0.5)}]
    for (query, gallery), figure in figures.items():
        banks = {"method": Method.DUAL_IS, "gallery_beta": gallery} if gallery else {"method": Method.IS}
        values = dict.fromkeys(("nDCG@10", "R@1", "R@5", "R@10"), figure)
        trials.append({"setting": {**banks, "query_beta": query}, "figures": values})
    best = max(trials, key=lambda trial: trial["figures"]["nDCG@10"])
    counts = dict.fromkeys(
        ("query_count", "group_count", "item_count", "candidates", "reach", "beyond_count", "relevant_count"), 9
    )
    return TuneResult.model_validate(
        {"validated": True, "objective": "nDCG@10", "raw": trials[0], "best": best, "highest": best, "trials": trials}
        | {**counts, "held_out": None, "warnings": [], "bank_distance": None}
    )


def test_the_heat_map_has_every_figure_in_its_place_and_a_colour_for_better_and_for_worse() -> None:
    result = result_of({(5, 0): 0.6, (5, 2): 0.5, (20, 0): 0.4, (20, 2): 0.7})
    (shown,) = heat_maps(result)
    plain = Console(width=80, record=True, file=io.StringIO(), force_terminal=True)
    plain.print(shown)
    lines = [line.split() for line in plain.export_text(clear=False).splitlines()]
    assert lines[1][-2:] == ["0", "2"]
    assert lines[2:4] == [["5", "0.6000", "0.5000"], ["20", "0.4000", "0.7000*"]]
    html = plain.export_html()
    assert "background-color: #286ebe" in html, "the best: blue"
    assert "background-color: #de" in html, "the worse: orange, half as strong"
    assert "background-color: #eeeeee" in html, "no difference: neither"


def test_the_table_fits_into_80_columns() -> None:
    table = grid_table(result_of({(5, 0): 0.6, (5000, 1000): 0.7}))
    console = Console(width=80)
    assert console.measure(table).minimum <= 80
