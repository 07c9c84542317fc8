"""dbnorm-vdb report: a saved comparison becomes a page."""

import json
from pathlib import Path

import pytest
from command_line import run, run_process
from report.made import comparison


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "comparison"
    comparison().save(folder)
    return folder


def test_a_saved_comparison_becomes_a_page(saved: Path, tmp_path: Path) -> None:
    done = run_process("report", str(saved), str(tmp_path / "r.html"), "--json")
    assert (done.returncode, done.stderr) == (0, "")
    size = (tmp_path / "r.html").stat().st_size
    assert json.loads(done.stdout) == {"path": str(tmp_path / "r.html"), "bytes": size}
    assert "<h1" in (tmp_path / "r.html").read_text(encoding="utf-8")


def test_wrong_usage_is_said_in_one_line_and_writes_nothing(saved: Path, tmp_path: Path) -> None:
    path = str(tmp_path / "r.html")
    for arguments, said in (
        ((str(tmp_path / "none"), path), "is no comparison that can be read"),
        ((str(saved), path, "--image-field", "image"), "no payload has that field"),
        ((str(saved), path, "--image-root", str(tmp_path)), "no image_field"),
        ((str(saved), str(tmp_path)), "is a folder"),
    ):
        done = run("report", *arguments)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
        assert said in done.stderr
    assert not (tmp_path / "r.html").exists()


def test_compare_writes_a_page_too(saved: Path, tmp_path: Path) -> None:
    path = tmp_path / "r.html"
    arms = [f"--arm=run:{saved / name}.run" for name in ("raw", "new")]
    options = (*arms, "--qrels", str(saved / "qrels.trec"), "--depth", "20", "--resamples", "100", "--item-count", "40")
    done = run("compare", *options, "--report", str(path))
    assert done.returncode == 0, done.stderr
    assert str(path) in done.stdout
    assert "Most improved by new" in path.read_text(encoding="utf-8")
    path.unlink()
    for more, said in (
        (("--report", str(path), "--image-root", str(tmp_path)), "no image_field"),
        (("--text-field", "title"), "--text-field says what a report shows; add --report FILE"),
    ):
        done = run("compare", *options, *more)
        assert (done.returncode, said in done.stderr) == (2, True), done.stderr
    assert not path.exists()
