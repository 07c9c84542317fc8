"""`dbnorm-vdb experiment analyze`, as its users see it."""

import json
import os
import subprocess
import sys
from datetime import datetime, timedelta, timezone

import command_line
import pytest

from dbnorm_vdb.experiments import EventLog, Experiment, ExperimentReport

START = datetime(2025, 1, 1, tzinfo=timezone.utc)


def run(*arguments, by=command_line.run, **environment):
    return by("experiment", "analyze", *map(str, arguments), **{"COLUMNS": "80", **environment})


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    """Two experiments: one in order, and one whose second arm lost two thirds of its users."""
    path = tmp_path_factory.mktemp("log")
    with EventLog(path) as written:
        for name in ("fair", "lossy"):
            experiment = Experiment(name, ("raw", "dual_is"))
            for user in range(300):
                arm = experiment.assign(user)
                if name == "lossy" and arm == "dual_is" and user % 3:
                    continue
                at = START + timedelta(minutes=user)
                shown = written.impression(experiment, user, arm, [1, 2], at=at)
                if arm == "dual_is" or user % 4 == 0:
                    written.click(shown, 1, at=at)
    return path


def test_the_verdict_comes_first(log):
    told = run(log, "--experiment", "fair", "--window", "30m")
    assert told.returncode == 0, told.stderr
    assert told.stdout.startswith("dual_is is better than raw (click-through 100.0% against ")
    assert "first 30 minutes are over" in " ".join(told.stdout.split())


def test_json_is_the_report_and_settings_are_passed_on(log):
    told = run(log, "--experiment", "fair", "--json", "--metric", "reciprocal_rank", "--alpha", "0.1", "--window", "2h")
    report = ExperimentReport.model_validate(json.loads(told.stdout))
    assert (report.metric, report.alpha, report.window) == ("reciprocal_rank", 0.1, timedelta(hours=2))
    early = run(log, "--experiment", "fair", "--json", "--window", "1m", "--until", "2025-01-01T01:00")
    assert json.loads(early.stdout)["final_users"] == 60


def test_an_invalid_experiment_is_status_1_and_says_so_first(log):
    told = run(log, "--experiment", "lossy", by=command_line.run_process)
    assert told.returncode == 1
    assert told.stdout.startswith("INVALID: sample ratio mismatch")
    assert told.stderr == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["LOG"], "which experiment to analyse: it holds 'fair', 'lossy'"),
        (["LOG", "--experiment", "fair", "--window", "soon"], "30m, 24h"),
        (["LOG", "--experiment", "fair", "--until", "soon"], "is no time"),
        (["nowhere"], "does not exist"),
    ],
)
def test_wrong_usage_is_status_2_and_one_sentence(log, arguments, message):
    told = run(*(log if argument == "LOG" else argument for argument in arguments))
    assert (told.returncode, told.stdout) == (2, "")
    assert message in " ".join(told.stderr.split())
    assert "Traceback" not in told.stderr


def test_without_scipy_the_message_names_the_extra(log, tmp_path):
    (tmp_path / "scipy.py").write_text("raise ImportError('no scipy here', name='scipy')")
    told = run(log, "--experiment", "fair", by=command_line.run_process, PYTHONPATH=str(tmp_path))
    assert told.returncode == 1
    assert 'pip install "dbnorm-vdb[evaluation]"' in " ".join(told.stderr.split())


def test_split_interleaving_and_log_need_neither_scipy_nor_rich(tmp_path):
    for package in ("scipy", "rich", "typer"):
        (tmp_path / f"{package}.py").write_text(f"raise ImportError('no {package} here', name='{package}')")
    script = """
import sys
from dbnorm_vdb.experiments import EventLog, Experiment, read_events
experiment = Experiment("hubs", ("raw", "dual_is"))
with EventLog(sys.argv[1]) as log:
    log.impression(experiment, "anna", experiment.assign("anna"), [1])
    shown = log.interleaved(experiment, experiment.interleave("anna", [1], [2]))
    log.click(shown, 1)
print(len(list(read_events(sys.argv[1]))))
"""
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    told = subprocess.check_output([sys.executable, "-c", script, str(tmp_path / "log")], env=environment, text=True)
    assert told.strip() == "3"
