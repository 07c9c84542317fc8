"""The demonstration's figures, which the README quotes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from dbnorm_vdb import Method
from dbnorm_vdb.demo import load_pictures
from dbnorm_vdb.demo.run import tune


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the demonstration writes its page."""
    return tmp_path_factory.mktemp("demo") / "report.html"


@pytest.fixture(scope="module")
def report(page: Path) -> dict[str, dict[str, dict[str, dict[str, float]]]]:
    result = subprocess.run(
        [sys.executable, "-m", "dbnorm_vdb", "demo", "--json", "--report", str(page)],
        capture_output=True,
        text=True,
        check=True,
        timeout=900,
    )
    document: dict[str, dict[str, dict[str, dict[str, float]]]] = json.loads(result.stdout)
    return document


def test_the_data_is_whole() -> None:
    data = load_pictures()
    assert [len(split.records) for split in (data.train, data.dev, data.test)] == [4306, 468, 1872]


def test_betas_come_from_dev() -> None:
    data = load_pictures()
    assert (tune(data, Method.IS).query_beta, tune(data, Method.IS).gallery_beta) == (15.0, None)
    dual = tune(data, Method.DUAL_IS)
    assert (dual.query_beta, dual.gallery_beta) == (20.0, 5.0)


def test_both_engines_and_all_methods_are_there(report: dict[str, dict[str, dict[str, dict[str, float]]]]) -> None:
    assert set(report) == {"engines"}
    assert set(report["engines"]) == {"qdrant", "milvus"}
    for methods in report["engines"].values():
        assert list(methods) == ["raw", "is", "dis", "sinkhorn", "dual_is", "dual_dis"]
        for figures in methods.values():
            assert {"R@1", "R@5", "R@10", "MdR", "k_skewness"} <= set(figures)


def test_normalisation_helps_as_the_readme_says(report: dict[str, dict[str, dict[str, dict[str, float]]]]) -> None:
    for methods in report["engines"].values():
        assert methods["raw"]["R@1"] == pytest.approx(12.5, abs=0.2)
        assert methods["is"]["R@1"] >= 15.0
        assert methods["dual_is"]["R@1"] >= 14.8
        assert methods["sinkhorn"]["R@1"] >= 14.7
        assert methods["raw"]["k_skewness"] == pytest.approx(1.92, abs=0.05)
        assert all(methods[method]["k_skewness"] < 0.9 for method in methods if method != "raw")


def test_the_engines_agree(report: dict[str, dict[str, dict[str, dict[str, float]]]]) -> None:
    qdrant, milvus = report["engines"]["qdrant"], report["engines"]["milvus"]
    for method, figures in qdrant.items():
        for measure in ("R@1", "R@5", "R@10"):
            assert figures[measure] == pytest.approx(milvus[method][measure], abs=0.2)


def test_its_page_shows_the_same_figures_and_pictures(
    report: dict[str, dict[str, dict[str, dict[str, float]]]], page: Path
) -> None:
    text = page.read_text(encoding="utf-8")
    assert len(text.encode()) < 3_000_000
    assert text.count("url(data:image/webp;base64,") > 100
    assert "Yes: dual_is is better than raw on 1872 queries" in text
    for method in ("raw", "dual_is"):
        assert f"{report['engines']['qdrant'][method]['R@1'] / 100:.4f}" in text
