"""Text of a database becomes one visible line."""

import pytest

from dbnorm_vdb.report.text import change, field_of, p_value, preview, shown


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("plain", "plain"),
        ("two\n\tlines", "two lines"),
        ("nul\x00 bell\x07 escape\x1b[31m", "nul␀ bell␇ escape␛[31m"),
        ("left\u202eright", "left[U+202E]right"),
        ("\u2066isolated\u2069", "[U+2066]isolated[U+2069]"),
        ("zero\u200bwidth\ufeff", "zerowidth"),
        ("lone\ud800surrogate", "lone\ufffdsurrogate"),
        ("c1\x9b", "c1\ufffd"),
        ("👩\u200d🚀", "👩\u200d🚀"),
        ("שלום", "שלום"),
        (12.5, "12.5"),
        (None, "None"),
    ],
)
def test_what_cannot_be_seen_or_moves_other_text_is_made_visible(given, expected):
    assert shown(given) == expected
    shown(given).encode("utf-8")


def test_long_texts_are_cut():
    assert shown("a" * 10, 10) == "a" * 10
    assert shown("a" * 11, 10) == "a" * 10 + "…"
    assert shown(" " * 1000 + "a", 10) == "…"
    assert len(shown("<" * 10_000_000)) == 241


def test_fields_may_be_in_objects():
    payload = {"a": {"b": {"c": 1}}, "a.b": 2, "x": "text"}
    assert field_of(payload, "a.b") == 2
    assert field_of({"a": {"b": {"c": 1}}}, "a.b.c") == 1
    assert field_of(payload, "x.y") is None
    assert field_of(payload, "nothing") is None


def test_a_preview_is_the_first_simple_fields():
    payload = {"picture": "...", "title": "A hub", "tags": ["x"], "year": 2020, "seen": True, "kind": "icon", "more": 1}
    assert preview(payload, without="picture") == "title: A hub · year: 2020 · kind: icon"


def test_figures():
    assert (change(-0.5), change(12.345), p_value(0.0004), p_value(0.0404), p_value(0.4)) == (
        "\u22120.5000",
        "+12.35",
        "< 0.001",
        "0.040",
        "0.40",
    )
