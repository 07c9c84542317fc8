"""Draw docs/report.png: the report that `make demo` writes, on a desk in light and on a phone in dark.

.venv/bin/python docs/report_figure.py [report.html]        (needs the extra "dev", and Chromium)
"""

from __future__ import annotations

import io
import shutil
import sys
from pathlib import Path

from PIL import Image, ImageDraw
from playwright.sync_api import Browser, sync_playwright

SHADE, GAP = "#d9dee5", 28
DESK, PHONE = (1100, 1180), (390, 1180)


def shot(browser: Browser, page: Path, size: tuple[int, int], scheme: str, first: str) -> Image.Image:
    """What a window of that size shows, with the element `first` at its top."""
    context = browser.new_context(viewport={"width": size[0], "height": size[1]}, color_scheme=scheme)  # type: ignore[arg-type]
    tab = context.new_page()
    tab.goto(page.resolve().as_uri())
    tab.evaluate("first => document.querySelector(first).scrollIntoView({behavior: 'instant'})", first)
    image = Image.open(io.BytesIO(tab.screenshot()))
    context.close()
    return image.convert("RGB")


def main() -> None:
    """Take both and put them beside each other."""
    page = Path(sys.argv[1] if len(sys.argv) > 1 else "report.html")
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        shots = [shot(browser, page, DESK, "light", "body"), shot(browser, page, PHONE, "dark", "#examples")]
        browser.close()
    width = sum(image.width for image in shots) + GAP * 3
    canvas = Image.new("RGB", (width, DESK[1] + 2 * GAP), "white")
    left = GAP
    for image in shots:
        canvas.paste(image, (left, GAP))
        ImageDraw.Draw(canvas).rectangle((left - 1, GAP - 1, left + image.width, GAP + image.height), outline=SHADE)
        left += image.width + GAP
    target = Path(__file__).with_name("report.png")
    canvas.quantize(128, dither=Image.Dither.NONE).save(target, optimize=True)
    print(f"{target.name}: {target.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
