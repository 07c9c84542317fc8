"""The command line, as its users see it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from adapters.world import World
from command_line import run, run_process
from harness import Engine, MilvusEngine, QdrantEngine
from milvus_lite.server_manager import server_manager_instance
from pymilvus import MilvusClient
from qdrant_client import QdrantClient

WORLD = World.make(n=60)


@pytest.fixture(params=["qdrant", "milvus"])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Path]:
    """A collection on disk, closed, as a URL; and a folder with bank files."""
    engine: Engine
    if request.param == "qdrant":
        client: Any = QdrantClient(path=str(tmp_path / "storage"))
        engine, location = QdrantEngine("qdrant", client), tmp_path / "storage"
    else:
        client = MilvusClient(str(tmp_path / "images.db"))
        engine, location = MilvusEngine("milvus", client), tmp_path / "images.db"
    collection = engine.create(WORLD.items)
    client.close()
    server_manager_instance.release_server(str(location))  # else Milvus Lite keeps the file locked
    np.save(tmp_path / "queries.npy", WORLD.query_bank)
    np.savez(tmp_path / "banks.npz", items=WORLD.gallery_bank, other=WORLD.gallery_bank[:3])
    return f"{request.param}://{location}/{collection}", tmp_path


def test_fold(target: tuple[str, Path]) -> None:
    url, folder = target
    fitted = run("fit", url, "--query-bank", str(folder / "queries.npy"), "--method", "is", "--json")
    assert fitted.returncode == 0, fitted.stderr
    gated = run("fold", url, "copy", "--method", "dis")
    assert (gated.returncode, "dis" in gated.stderr) == (2, True)
    folded = run_process("fold", url, "copy", "--json")
    assert folded.returncode == 0, folded.stderr
    summary = json.loads(folded.stdout)
    assert (summary["target"], summary["method"], summary["item_count"], summary["verified_count"]) == (
        "copy",
        "is",
        60,
        60,
    )
    assert "items: 60 of 60" in folded.stderr
    again = run("fold", url, "copy")
    assert (again.returncode, "complete copy" in again.stderr) == (1, True)
    said = run("fold", url, "other")
    assert "other: 60 items folded (is) in" in said.stdout


def test_fit_status_search_drop(target: tuple[str, Path]) -> None:
    url, folder = target
    banks = ("--query-bank", str(folder / "queries.npy"), "--gallery-bank", f"{folder / 'banks.npz'}:items")

    fitted = run_process("fit", url, *banks, "--query-beta", "12", "--gallery-beta", "5", "--json")
    assert fitted.returncode == 0, fitted.stderr
    assert json.loads(fitted.stdout)["statistics"]["gallery"]["size"] == 20
    assert "items: 60 of 60" in fitted.stderr
    assert "WARNING" not in fitted.stderr, "the clients' own logs"

    status = run("status", url, "--json")
    assert json.loads(status.stdout)["coverage"] == 1.0
    plain = run("status", url)
    assert "dual_is" in plain.stdout
    assert "60 (100.0%)" in plain.stdout
    assert "held-out bank queries" in plain.stdout.replace("\n", " ")

    refreshed = run_process("refresh", url, "--json", "--max-items-per-second", "1000")
    assert refreshed.returncode == 0, refreshed.stderr
    assert {"item_count": 60, "written_count": 0, "removed_count": 0}.items() <= json.loads(refreshed.stdout).items()
    status = json.loads(run("status", url, "--json").stdout)
    assert (status["active"]["revision"], status["advice"]) == (1, [])

    searched = run(
        "search", url, "--query", json.dumps(WORLD.queries[0].tolist()), "--limit", "5", "--candidates", "60", "--json"
    )
    assert searched.returncode == 0, searched.stderr
    hits = json.loads(searched.stdout)
    best = np.argsort(-WORLD.score_oracle("dual_is")[0])[:5]
    assert [hit["id"] for hit in hits["normalized"]] == best.tolist()
    assert [hit["id"] for hit in hits["raw"]] == np.argsort(-WORLD.raw()[0])[:5].tolist()
    assert "dbnorm" not in searched.stdout
    options = ("--query", json.dumps(WORLD.queries[0].tolist()), "--limit", "5", "--candidates", "5", "--json")
    exact = json.loads(run("search", url, *options, "--exact").stdout)
    assert [hit["id"] for hit in exact["normalized"]] == best.tolist()
    table = run("search", url, "--query", str(folder / "queries.npy"), "--row", "2")
    assert "raw rank" in table.stdout

    refused = run_process("drop", url, stdin="n\n")
    assert refused.returncode == 1
    assert json.loads(run("status", url, "--json").stdout)["active"] is not None
    assert run("drop", url, "--yes").returncode == 0
    assert json.loads(run("status", url, "--json").stdout)["active"] is None
    assert "searches are raw" in run("status", url).stdout


def test_a_gallery_bank_as_a_number_is_sampled(target: tuple[str, Path]) -> None:
    url, folder = target
    fitted = run("fit", url, "--query-bank", str(folder / "queries.npy"), "--gallery-bank", "25")
    assert fitted.returncode == 0, fitted.stderr
    assert "fitted 60 items" in fitted.stdout
    assert json.loads(run("status", url, "--json").stdout)["active"]["gallery"]["size"] == 25


@pytest.mark.parametrize("target", ["qdrant"], indirect=True)
def test_nnn_is_fitted_with_its_own_settings_and_status_says_so(target: tuple[str, Path]) -> None:
    url, folder = target
    settings = ("--method", "nnn", "--nnn-alpha", "0.8", "--nnn-k", "3")
    fitted = run("fit", url, "--query-bank", str(folder / "queries.npy"), *settings)
    assert fitted.returncode == 0, fitted.stderr
    assert "searches now use nnn" in fitted.stdout
    assert "0.8 times the mean of the 3 largest similarities" in run("status", url).stdout


@pytest.mark.parametrize("target", ["qdrant"], indirect=True)
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["status", "images"], "not a target"),
        (["status", "weaviate+http://host/images"], "no adapter for 'weaviate'; there are milvus, qdrant"),
        (["status", "qdrant+http://localhost:6333/"], "names no collection"),
        (["status", "qdrant+http://user:secret@localhost/images"], "set QDRANT_API_KEY"),
        (["status", "milvus+http://user:secret@localhost/images"], "MILVUS_TOKEN in the environment"),
        (["status", "milvus:///folder/images"], "no Milvus Lite file (.db) at '/folder'"),
        (["status", "qdrant:///folder/images"], "no local Qdrant storage at '/folder'"),
        (["status", "qdrant+http://user:secret@localhost:6333"], "credentials do not belong"),
        (["drop", "qdrant+http://user:secret@localhost/images"], "credentials do not belong"),
        (["status", "qdrant+http://localhost/images?api_key=secret"], "unknown option 'api_key'"),
        (["status", "qdrant+ftp://localhost/images"], "a server is qdrant+http"),
        (["status", "qdrant+http://localhost:abc/images"], "not a URL"),
        (["fit", "TARGET", "--query-bank", "BANK", "--gallery-bank", "-5"], "got -5"),
        (["fit", "TARGET"], "needs a query bank"),
        (["fit", "TARGET", "--query-bank", "nowhere.npy"], "does not exist"),
        (["fit", "TARGET", "--query-bank", "BANK", "--method", "nnn", "--nnn-k", "0"], "nnn_k must be at least 1"),
        (["fit", "TARGET", "--query-bank", "BANK", "--gallery-bank", "0"], "sample size"),
        (["fit", "TARGET", "--query-bank", "BANK", "--gallery-bank", "5", "--query-beta", "0"], "query_beta"),
        (["search", "TARGET", "--query", "[1, 2"], "JSON list"),
        (["search", "TARGET", "--query", "BANK", "--row", "99"], "rows 0 to 11"),
        (["search", "TARGET", "--query", "BANK", "--limit", "0"], "limit must be at least 1, got 0"),
        (["frobnicate"], "frobnicate"),
        (["search", "TARGET"], "--query"),
    ],
)
def test_wrong_usage_is_status_2_and_one_sentence(target: tuple[str, Path], arguments: list[str], message: str) -> None:
    url, folder = target
    given = {"TARGET": url, "BANK": str(folder / "queries.npy")}
    result = run(*(given.get(argument, argument) for argument in arguments))
    assert result.returncode == 2, result.stderr
    assert message in " ".join(result.stderr.split())
    assert "Traceback" not in result.stderr
    assert "secret" not in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize("url", ["qdrant+http://127.0.0.1:1/images", "milvus+http://127.0.0.1:1/images"])
def test_a_server_that_is_not_there_is_status_1(url: str) -> None:
    result = run_process("status", url, QDRANT_API_KEY="hush-hush", MILVUS_TOKEN="hush-hush")
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert "hush" not in result.stderr + result.stdout


def test_statistics_that_do_not_exist_are_status_1(target: tuple[str, Path]) -> None:
    url, folder = target
    result = run("search", url, "--query", str(folder / "queries.npy"), "--method", "is")
    assert result.returncode == 1
    assert "has no statistics" in result.stderr


def test_version_and_help() -> None:
    assert run("--version").stdout.strip() == "0.1.0"
    usage = run("--help").stdout
    assert all(command in usage for command in ("demo", "fit", "status", "search", "drop"))


def test_the_installed_script_is_the_same_command() -> None:
    script = Path(sysconfig.get_path("scripts")) / "dbnorm-vdb"
    assert subprocess.check_output([script, "--version"], text=True).strip() == "0.1.0"


@pytest.mark.parametrize("target", ["qdrant"], indirect=True)
@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["--help"], 0),
        (["status", "TARGET"], 0),
        (["search", "TARGET", "--query", "BANK", "--method", "is"], 1),
        (["status", "images"], 2),
        (["frobnicate"], 2),
    ],
)
def test_a_process_of_its_own_says_the_same(target: tuple[str, Path], arguments: list[str], status: int) -> None:
    """What the other tests find of a command in their process is so for those who call it."""
    url, folder = target
    given = {"TARGET": url, "BANK": str(folder / "queries.npy")}
    called = [given.get(argument, argument) for argument in arguments]
    alone, here = run_process(*called), run(*called)
    assert (alone.returncode, alone.stdout, alone.stderr) == (status, here.stdout, here.stderr)
    assert here.returncode == status


def test_without_typer_the_message_names_the_extra(tmp_path: Path) -> None:
    (tmp_path / "typer.py").write_text("raise ImportError('no typer here', name='typer')")
    result = run_process("--help", PYTHONPATH=str(tmp_path))
    assert result.returncode == 1
    assert 'pip install "dbnorm-vdb[cli]"' in result.stderr


@pytest.mark.parametrize(
    ("package", "client", "extra"),
    [("dbnorm_qdrant", "qdrant_client", "qdrant"), ("dbnorm_milvus", "pymilvus", "milvus")],
)
def test_without_its_client_an_adapter_names_the_extra(tmp_path: Path, package: str, client: str, extra: str) -> None:
    (tmp_path / f"{client}.py").write_text(f"raise ImportError('no client here', name='{client}')")
    code = f"import {package}"
    result = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )
    assert f'pip install "dbnorm-vdb[{extra}]"' in result.stderr
