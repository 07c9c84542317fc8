"""The page in a real browser, headless Chromium: on a desk and on a phone, in the dark, by keyboard, under attack."""

from __future__ import annotations

import io
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from report.made import comparison, data_url, payloads, picture, with_windows
from report.test_page import hostile

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed (apt-get install chromium)")

DESK, PHONE = {"width": 1200, "height": 900}, {"width": 390, "height": 844}

CONTRASTS = """() => {
  const parse = colour => colour.match(/[\\d.]+/g).map(Number);
  const luminance = rgb => rgb.slice(0, 3).map(v => v / 255)
    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = node => {
    for (; node; node = node.parentElement) {
      const colour = parse(getComputedStyle(node).backgroundColor);
      if (colour.length < 4 || colour[3] > 0) return colour;
    }
    return [255, 255, 255];
  };
  return [...document.querySelectorAll("body *")]
    .filter(node => node.tagName !== "title")
    .filter(node => [...node.childNodes].some(child => child.nodeType === 3 && child.data.trim()))
    .map(node => {
      const style = getComputedStyle(node);
      const front = luminance(parse(node.ownerSVGElement ? style.fill : style.color)), back = luminance(behind(node));
      return [(Math.max(front, back) + 0.05) / (Math.min(front, back) + 0.05), node.outerHTML.slice(0, 80)];
    });
}"""


LABELS = """() => [...document.querySelectorAll("figure.chart > svg text")].map(node => {
  const label = node.getBoundingClientRect(), chart = node.ownerSVGElement.getBoundingClientRect();
  return {text: node.textContent, height: label.height, inside: label.left >= chart.left && label.right <= chart.right
    && label.top >= chart.top && label.bottom <= chart.bottom};
})"""


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def opened(chromium: Any) -> Iterator[Callable[..., Any]]:
    """Opens a file, with what it asks for and complains of in `page.events`."""
    contexts = []

    def open_file(path: Path, **options: Any) -> Any:
        contexts.append(chromium.new_context(**{"viewport": DESK, **options}))
        page = contexts[-1].new_page()
        page.events = []
        page.on("request", lambda request: page.events.append(request.url))
        page.on("console", lambda message: page.events.append(message.text))
        page.on("pageerror", lambda error: page.events.append(str(error)))
        page.on("dialog", lambda dialog: page.events.append(dialog.message))
        page.goto(path.as_uri())
        return page

    yield open_file
    for context in contexts:
        context.close()


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same comparison with pictures, and without."""
    found = with_windows(comparison())
    folder = tmp_path_factory.mktemp("reports")
    given = payloads(image=data_url(picture()), text="a caption of some words, and an unbreakable" + "a" * 80)
    return {
        name: found.report(folder / f"{name}.html", payloads=given, text_field="text", image_field=field)
        for name, field in (("pictures", "image"), ("plain", None))
    }


@pytest.fixture(scope="module")
def report(reports: dict[str, Path]) -> Path:
    return reports["pictures"]


def elsewhere(page: Any) -> list[str]:
    """What the page asked for or complained of, but for itself and what it holds."""
    return [event for event in page.events if event != page.url and not event.startswith("data:")]


@pytest.mark.parametrize("policy", [True, False])
@pytest.mark.parametrize("judged", [True, False])
def test_nothing_hostile_runs_loads_or_complains_with_or_without_the_policy(judged, policy, opened, tmp_path):
    found, given = hostile(judged)
    path = found.report(tmp_path / "r.html", payloads=given, text_field="text", image_field="image")
    if not policy:
        text = path.read_text(encoding="utf-8")
        path.write_text(re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", text), encoding="utf-8")
    page = opened(path)
    page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
    page.mouse.wheel(0, 5000)
    assert page.evaluate("window.pwned") is None
    assert elsewhere(page) == []
    assert page.title() == "<img src=x onerror='window.pwned=1'> against <script>window.pwned=1</script>".replace(
        "<img", '"><img', 1
    )


def test_the_policy_stops_what_would_get_through(opened, report, tmp_path):
    attack = "<script>window.pwned=1</script><img src='https://example.com/a.png'><p style='color:red'>x</p>"
    path = tmp_path / "attacked.html"
    path.write_text(report.read_text(encoding="utf-8").replace("<main", attack + "<main", 1), encoding="utf-8")
    page = opened(path)
    assert page.evaluate("window.pwned") is None
    assert len([event for event in page.events if "Content Security Policy" in event]) == 3


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [DESK, PHONE], ids=["desk", "phone"])
@pytest.mark.parametrize("kind", ["pictures", "plain"])
def test_it_fits_and_can_be_read_on_a_desk_and_a_phone_in_light_and_dark(kind, viewport, scheme, opened, reports):
    page = opened(reports[kind], viewport=viewport, color_scheme=scheme)
    page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth") == viewport["width"]
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", background))) < 150) == (scheme == "dark")
    contrasts = page.evaluate(CONTRASTS)
    assert len(contrasts) > 200
    assert [entry for entry in contrasts if entry[0] < 4.5] == []
    labels = page.evaluate(LABELS)
    assert len(labels) > 30
    assert [label for label in labels if not label["inside"] or label["height"] < 11] == []
    assert elsewhere(page) == []


def test_the_verdict_is_what_one_sees_first(opened, report):
    for viewport in (DESK, PHONE):
        page = opened(report, viewport=viewport)
        box = page.locator("h1").bounding_box()
        assert 0 < box["y"] < 150
        assert box["y"] + box["height"] < viewport["height"] / 2


def test_pictures_are_drawn_and_named(opened, report):
    page = opened(report)
    shown = page.locator(".picture.p0")
    assert page.get_by_role("img", name="a caption of some words").count() > 10
    pixels = Image.open(io.BytesIO(shown.first.screenshot())).convert("RGB")
    red, green, blue = pixels.getpixel((pixels.width // 2, pixels.height // 2))
    assert red > 200
    assert max(green, blue) < 60


def test_all_of_it_is_reached_by_keyboard_and_the_focus_is_seen(opened, report):
    page = opened(report)
    page.keyboard.press("Tab")
    focused = "document.activeElement"
    assert page.evaluate(f"{focused}.textContent") == "Skip to the verdict"
    assert page.locator(".skip").bounding_box()["x"] >= 0
    page.keyboard.press("Enter")
    assert page.url.endswith("#main")
    details = page.locator("details.example").nth(1)
    summary = details.locator("summary")
    assert details.get_attribute("open") is None
    reached = False
    for _ in range(400):
        page.keyboard.press("Tab")
        assert page.evaluate(f"{focused} !== document.body"), "the end came before the first closed query"
        assert page.evaluate(f"parseFloat(getComputedStyle({focused}).outlineWidth)") >= 2
        reached = summary.evaluate("node => node === document.activeElement")
        if reached:
            break
    assert reached
    page.keyboard.press("Enter")
    assert details.get_attribute("open") is not None
    scrolled = page.locator(".scroll")
    assert scrolled.count() == page.locator(".scroll[tabindex='0'][role=region][aria-label]").count() > 3


def test_it_needs_no_script_and_moves_only_for_those_who_like_it(opened, report):
    page = opened(report, java_script_enabled=False)
    assert page.get_by_role("heading", level=1).is_visible()
    page.locator("details.example:not([open]) > summary").first.click()
    assert page.locator("details.example[open]").nth(1).is_visible()
    for motion, behaviour in (("reduce", "auto"), ("no-preference", "smooth")):
        page = opened(report, reduced_motion=motion)
        assert page.evaluate("getComputedStyle(document.documentElement).scrollBehavior") == behaviour


def test_charts_tell_what_they_show_to_those_who_cannot_see_them(opened, report):
    page = opened(report)
    for name in ("Recall at every depth", "How often items are found", "Windows and certificates"):
        chart = page.get_by_role("img", name=re.compile(f"^{name} .{{40,}}"))
        assert chart.count() == 1, name
        chart.locator("..").get_by_text("In figures").click()
        assert page.get_by_role("region", name=f"{name}, in figures").locator("tbody tr").count() > 2
