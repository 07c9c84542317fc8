"""The file: one, small enough, complete, and nothing in it but what belongs there."""

import base64
import hashlib
import re
from html.parser import HTMLParser
from itertools import pairwise

import pytest
from report.made import ITEMS, comparison, data_url, noise, payloads, picture, with_windows

from dbnorm_vdb.errors import InvalidParameterError, MissingDependencyError
from dbnorm_vdb.evaluation.results import Comparison
from dbnorm_vdb.report import write_report
from dbnorm_vdb.report.page import LARGEST

VOID = {"meta", "link"}

HOSTILE = [
    "<script>window.pwned=1</script>",
    "</style><script>window.pwned=1</script>",
    "</title></head><body onload='window.pwned=1'>",
    "\"><img src=x onerror='window.pwned=1'>",
    "'><svg/onload=window.pwned=1>",
    "\" autofocus onfocus=window.pwned=1 x=\"",
    "javascript:window.pwned=1",
    "<a href='javascript:window.pwned=1'>",
    "<iframe src='https://example.com/frame'></iframe>",
    "<link rel=stylesheet href='https://example.com/style.css'>",
    "url(https://example.com/picture.png)",
    "<!--", "]]>", "{{ 7*7 }}{% raw %}", "&lt;script&gt;", "<base href='https://example.com/'>",
    "\u202egnp.exe", "nul\x00 escape\x1b[2J", "lone \ud800", "Z" * 100_000, "a\u0301" * 5000,
]  # fmt: skip


class Page(HTMLParser):
    """Elements with their attributes, and the text outside of styles."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.texts, self._open = [], [], []
        self.feed(text)
        self.close()
        assert not self._open, f"not closed: {self._open}"

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if "style" not in self._open:
            self.texts.append(data)

    def named(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())


def written(found, path, **options):
    assert found.report(path, **options) == path
    return path.read_text(encoding="utf-8")


def hostile(judged=True):
    """Hostile in every place that a database or a user's own names reach."""
    texts = [HOSTILE[query % len(HOSTILE)] for query in range(30)]
    found = comparison(judged=judged, texts=texts, arms=(HOSTILE[0], HOSTILE[3]))
    return found, {item: {HOSTILE[5]: HOSTILE[item % len(HOSTILE)], "image": HOSTILE[-1 - item % len(HOSTILE)],
                          "text": HOSTILE[item % len(HOSTILE)]} for item in range(ITEMS)}  # fmt: skip


def check_safe(page, text):
    """Nothing that runs, loads or leads elsewhere."""
    assert {tag for tag, _ in page.elements}.isdisjoint(
        {"script", "iframe", "object", "embed", "img", "base", "form", "input", "image", "use", "foreignobject"}
    )
    for tag, attributes in page.elements:
        assert not [name for name in attributes if name.startswith("on") or name in ("style", "src", "xlink:href")], tag
        assert attributes.get("href", "#").startswith("#") or (tag, attributes["href"]) == ("link", "data:,")
    (style,) = re.findall(r"<style>(.*?)</style>", text, re.DOTALL)
    assert set(re.findall(r"url\((.{0,21})", style)) <= {"data:image/webp;base64"[:21]}
    policy = page.named("meta")[1]["content"]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy == (
        f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; form-action 'none'"
    )


def test_the_verdict_comes_first_and_everything_is_there(tmp_path):
    found = with_windows(comparison())
    text = written(found, tmp_path / "r.html", payloads=payloads(text="a caption"), text_field="text")
    page = Page(text)
    check_safe(page, text)
    said = page.text
    assert said.index(found.verdict.headline) < said.index("Figures, with 95% bootstrap intervals")
    assert len(page.named("h1")) == 1
    for measure in found.measures:
        assert measure.name in said
        assert measure.meaning in said
    for part in ("Recall at every depth", "How often items are found", "Windows and certificates",
                 "The items found most often", "Most improved by new", "Most harmed by new", "k-skewness",
                 "rank-biased overlap", "a caption"):  # fmt: skip
        assert part in said, part
    assert (
        "Over 20 queries, the default window of new, 30 candidates, holds 90.0 % of the exact first 10 results" in said
    )
    assert "certifies 50.0 % of the queries" in said
    hub = found.arm("raw").hubness.hubs[0]
    assert f"With raw, the item found most often is in {hub.count} lists" in said
    entry = found.difference("new", "R@1")
    assert f"{entry.wins} better · {entry.ties} same · {entry.losses} worse" in said


def test_every_section_and_figure_has_a_name_and_every_table_a_caption(tmp_path):
    text = written(with_windows(comparison()), tmp_path / "r.html")
    page = Page(text)
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    for tag, attributes in page.elements:
        for name in ("aria-labelledby",):
            assert set(attributes.get(name, "").split()) <= set(ids)
        if tag == "section":
            assert attributes["aria-labelledby"]
        if tag == "svg":
            assert attributes.get("aria-hidden") == "true" or attributes.get("role") == "img" or "viewbox" in attributes
        if tag == "a":
            assert attributes["href"][1:] in ids
    assert len(page.named("table")) == len(page.named("caption")) > 5
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch(r"h\d", tag)]
    assert levels[0] == 1
    assert all(later - earlier <= 1 for earlier, later in pairwise(levels))


@pytest.mark.parametrize("judged", [True, False])
@pytest.mark.parametrize("image_field", [None, "image"])
def test_hostile_payloads_queries_and_names_are_text_and_nothing_else(judged, image_field, tmp_path):
    found, given = hostile(judged)
    harmless = Page(written(comparison(judged=judged), tmp_path / "h.html", payloads=payloads(image="x", text="t"),
                            text_field="text", image_field=image_field))  # fmt: skip
    for options in ({"text_field": "text"}, {}):
        text = written(found, tmp_path / "r.html", payloads=given, image_field=image_field, **options)
        page = Page(text)
        check_safe(page, text)
        assert len(text) < 1_000_000
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e\u2066-\u2069]", text)
        if options:
            kinds = [{tag for tag, _ in which.elements} for which in (page, harmless)]
            assert kinds[0] - {"aside", "li"} == kinds[1] - {"aside", "li"}
            assert "<script>window.pwned=1</script>" in page.text
    assert "{{ 7*7 }}" in page.text or image_field


def test_pictures_are_in_the_file_made_anew(tmp_path):
    text = written(
        comparison(), tmp_path / "r.html", payloads=payloads(image=data_url(picture()), t="red"),
        image_field="image", text_field="t",
    )  # fmt: skip
    page = Page(text)
    check_safe(page, text)
    assert text.count("url(data:image/webp;base64,") == 1
    shown = [attributes for attributes in page.named("span") if "p0" in attributes.get("class", "").split()]
    assert len(shown) > 50
    assert {attributes["aria-label"] for attributes in shown} == {"red"}


def test_a_report_stays_below_3_mb_whatever_the_pictures(tmp_path, monkeypatch):
    monkeypatch.setattr("dbnorm_vdb.report.page.LARGEST", 150_000)
    given = {item: {"image": data_url(noise(item))} for item in range(ITEMS)}
    text = written(comparison(), tmp_path / "r.html", payloads=given, image_field="image")
    assert len(text.encode()) < 150_000
    assert text.count("url(data:image/webp;base64,") > 10
    assert LARGEST == 3_000_000
    monkeypatch.setattr("dbnorm_vdb.report.page.LARGEST", 10_000)
    with pytest.raises(InvalidParameterError, match="the report would have"):
        comparison().report(tmp_path / "r.html")
    assert (tmp_path / "r.html").read_text(encoding="utf-8") == text


def test_without_judgements_there_is_what_needs_none(tmp_path):
    said = Page(written(comparison(judged=False), tmp_path / "r.html")).text
    assert "Most changed by new" in said
    assert "How often items are found" in said
    assert "Recall at every depth" not in said
    assert "Looked for" not in said


def test_a_comparison_read_back_gives_the_same_report(tmp_path):
    found = comparison()
    found.save(tmp_path / "saved")
    first = written(found, tmp_path / "a.html")
    assert written(Comparison.load(tmp_path / "saved"), tmp_path / "b.html") == first


def test_fields_that_no_payload_has_and_places_that_cannot_be_written_are_refused(tmp_path):
    found = comparison()
    with pytest.raises(
        InvalidParameterError, match="text_field='title': no payload has that field; they have 'number'"
    ):
        found.report(tmp_path / "r.html", text_field="title", payloads=payloads())
    with pytest.raises(InvalidParameterError, match="image_field='image': .*has no payloads"):
        found.report(tmp_path / "r.html", image_field="image")
    with pytest.raises(InvalidParameterError, match="is a folder"):
        found.report(tmp_path)
    with pytest.raises(InvalidParameterError, match="there is no folder"):
        found.report(tmp_path / "no" / "r.html")
    assert list(tmp_path.iterdir()) == []


def test_jinja_is_asked_for(monkeypatch, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, "jinja2", None)
    with pytest.raises(MissingDependencyError, match=r"dbnorm-vdb\[report\]"):
        write_report(comparison(), tmp_path / "r.html")
