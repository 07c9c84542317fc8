"""audit and explain on the command line."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import numpy as np
import pytest
import typer
from cli.test_cli import WORLD, target  # noqa: F401  (a fixture)
from command_line import run, run_process

from dbnorm_vdb.audits.auditing import FIT, TUNE
from dbnorm_vdb.audits.domain import outside_finding
from dbnorm_vdb.audits.hubs import planted_finding
from dbnorm_vdb.audits.lists import Asked, Lists
from dbnorm_vdb.audits.report import Domain, FoundBy, HubItem
from dbnorm_vdb.audits.verdicts import THRESHOLDS
from dbnorm_vdb.cli.app import app
from dbnorm_vdb.cli.inspections import _item_id
from dbnorm_vdb.store import Hit

ASKED = Asked(np.zeros((2, 2), dtype=np.float32), np.arange(2), "q.npy")
FROM_BANK = Asked(ASKED.vectors, ASKED.rows, "q.npy", from_bank=True)


@pytest.mark.parametrize("target", ["qdrant"], indirect=True)
def test_audit_and_explain(target: tuple[str, Path]) -> None:  # noqa: F811
    url, folder = target
    live = folder / "live.npy"
    np.save(live, WORLD.queries)
    fitted = run("fit", url, "--query-bank", str(folder / "queries.npy"), "--gallery-bank", f"{folder}/banks.npz:items")
    assert fitted.returncode == 0, fitted.stderr

    options = ("--queries", str(live), "--k", "5", "--threshold", "planted=-2,-1")
    gate = run_process("audit", url, *options, "--json")
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
    explained = run_process("explain", url, "--id", str(best), "--query", str(live), "--row", "2", "--json")
    assert explained.returncode == 0, explained.stderr
    assert json.loads(explained.stdout)["raw_rank"] == 1
    assert (
        "rank 1 in the engine's order"
        in run("explain", url, "--id", str(best), "--query", str(live), "--row", "2").stdout
    )
    absent = run("explain", url, "--id", "4711", "--query", str(live))
    assert (absent.returncode, "has no item 4711" in absent.stderr.replace("\n", " ")) == (2, True)


def after_planting(asked: Asked, item: int | str = "--x") -> str | None:
    """What is suggested for an item that looks planted."""
    planted = HubItem(
        id=item,
        payload={},
        occurrences=2,
        normalized_occurrences=None,
        z_score=9.0,
        nearness_z=9.0,
        near_duplicates=[],
        looks_planted=True,
        queries=[FoundBy(row=1, rank=1, text=None)],
    )
    lists = Lists([[Hit(item, 1.0, {})]] * 2)
    return planted_finding([planted], lists, None, asked, THRESHOLDS).next_command


@pytest.mark.parametrize("item", [7, "7", '"7"', "a b", "$(x)", "--id"])
def test_whatever_an_id_looks_like_the_suggested_command_means_it(item: int | str) -> None:
    suggested = after_planting(ASKED, item)
    assert suggested is not None
    arguments = shlex.split(suggested)
    assert _item_id(arguments[arguments.index("--id") + 1]) == item


def out_of_domain() -> str | None:
    domain = Domain(
        reference="query bank",
        reference_count=100,
        boundary=0.5,
        expected_share=0.01,
        outside_count=2,
        farthest=[(1, None)],
    )
    return outside_finding(domain, ASKED, THRESHOLDS).next_command


@pytest.mark.parametrize("suggested", [FIT, TUNE, out_of_domain(), after_planting(ASKED), after_planting(FROM_BANK)])
def test_every_suggested_command_is_one_that_can_be_run(suggested: str | None) -> None:
    assert suggested is not None
    program, name, *arguments = shlex.split(suggested)
    commands = typer.main.get_command(app)
    assert program == "dbnorm-vdb"
    with commands.commands[name].make_context(name, arguments) as context:  # type: ignore[attr-defined]
        assert context.params["target"] == "TARGET"
