"""What is shown stays readable: in a pipe, on a narrow terminal, with names that look like markup."""

from __future__ import annotations

import io
import json
import sys
import uuid
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from dbnorm_vdb import InvalidParameterError, InvalidTargetError
from dbnorm_vdb.cli import console, shown, shown_comparison
from dbnorm_vdb.cli.options import bank_of, text_lines
from dbnorm_vdb.evaluation import Arm, compare
from dbnorm_vdb.evaluation.results import Comparison
from dbnorm_vdb.store import Hit
from dbnorm_vdb.targets import Target


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What is printed, 80 columns wide."""
    written = io.StringIO()
    for module, name in ((shown, "output"), (shown_comparison, "output"), (console, "progress_output")):
        monkeypatch.setattr(module, name, Console(file=written, width=80))
    return written


def compared(arms: int) -> Comparison:
    rng = np.random.default_rng(0)
    runs = {f"arm-{number:02}": [rng.permutation(30).tolist() for _ in range(12)] for number in range(arms)}
    asked = {"relevant": list(range(12)), "keys": range(12), "limit": 10, "depth": 30, "item_count": 30}
    return compare(runs, **asked, resamples=50, confidence=0.999)


def test_ids_are_shown_whole(page: io.StringIO) -> None:
    hits = [Hit(str(uuid.uuid5(uuid.NAMESPACE_URL, str(row))), 0.5, {"title": "a title " * 5}) for row in range(3)]
    shown.print_hits(hits, hits[:1])
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in page.getvalue().splitlines() if "│" in line]
    ids = "".join(cell[1] for cell in cells)
    assert ids == "".join(str(hit.id) for hit in hits)


@pytest.mark.parametrize("arms", [2, 4, 10])
def test_every_figure_of_every_arm_is_shown_whole(page: io.StringIO, arms: int) -> None:
    found = compared(arms)
    shown_comparison.print_comparison(found)
    text = page.getvalue()
    assert "…" not in text
    for arm in found.arms:
        for estimate in arm.estimates.values():
            assert shown_comparison._interval(estimate) in text
    assert all(len(line) <= 80 for line in text.splitlines())


def test_a_confidence_is_not_rounded(page: io.StringIO) -> None:
    found = compared(2)
    shown_comparison.print_comparison(found)
    assert "in brackets 99.9% intervals" in page.getvalue()
    assert "100%" not in found.verdict.arms[0].sentences[0]


def test_names_that_look_like_markup_are_shown_as_they_are(page: io.StringIO) -> None:
    with console.progress() as report:
        report("searching [/x] [final]", 0, 4)
    assert page.getvalue() == "searching [/x] [final]: 0 of 4\n"


def test_a_line_of_a_text_file_ends_where_editors_say_so(tmp_path: Path) -> None:
    path = tmp_path / "texts.txt"
    path.write_bytes("\ufeffone\u2028still one\x0c\x85\r\n\ntwo".encode())
    assert text_lines(str(path)) == ["one\u2028still one\x0c\x85", "", "two"]


@pytest.mark.parametrize("url", ["qdrant:///data/images#2", "qdrant+http://localhost/a#", "milvus:///a#b.db/images"])
def test_a_target_is_not_cut_off(url: str) -> None:
    with pytest.raises(InvalidTargetError, match="write %23"):
        Target.parse(url)
    assert "#" in Target.parse(url.replace("#", "%23") + "x").path + Target.parse(url.replace("#", "%23")).collection


def test_what_is_said_of_a_target_does_not_repeat_what_may_be_secret() -> None:
    with pytest.raises(InvalidTargetError) as raised:
        Target.parse("qdrant+http://localhost/images?api_key=secret#x")
    assert "secret" not in str(raised.value)


def test_options_that_would_not_count_are_refused() -> None:
    with pytest.raises(InvalidParameterError, match="exact takes no value"):
        Arm.parse("is,exact=false")
    assert Arm.parse("is,exact").exact
    with pytest.raises(InvalidParameterError, match="the name given for it is empty"):
        bank_of("", "query bank")


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_json_keeps_every_character(monkeypatch: pytest.MonkeyPatch, encoding: str) -> None:
    written = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(written, encoding=encoding, errors="replace"))
    console.print_json({"id": "straße-中"})
    sys.stdout.flush()
    assert json.loads(written.getvalue().decode(encoding)) == {"id": "straße-中"}
