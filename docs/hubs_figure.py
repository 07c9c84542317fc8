"""Draw docs/hubs.png: the pictures that come back most often, before and after, and one query's results.

    .venv/bin/python docs/hubs_figure.py        (needs the extra "dev")

Exact evaluation of the test split with the betas that were best on dev, as in `make demo`.
"""

from __future__ import annotations

import io
import zipfile
from importlib.resources import files
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

from dbnorm_vdb import normalize
from dbnorm_vdb.demo import load_pictures

RAW, NEW = "#c0392b", "#1f77b4"
SHOWN = 9
QUERY = "pasta;"

data = load_pictures()
texts, pictures = data.test.texts, data.test.pictures
raw = texts @ pictures.T
new = normalize(
    raw,
    query_bank=data.train.texts @ pictures.T,
    gallery_bank=data.train.pictures @ pictures.T,
    query_beta=20,
    gallery_beta=5,
)


def occurrences(scores: np.ndarray) -> np.ndarray:
    """How many of the texts have each picture among their first ten."""
    return np.bincount(np.argsort(-scores, axis=1)[:, :10].ravel(), minlength=scores.shape[1])


with zipfile.ZipFile(io.BytesIO((files("dbnorm_vdb.demo") / "data" / "thumbnails.zip").read_bytes())) as archive:
    thumbnails = [
        Image.open(io.BytesIO(archive.read(next(n for n in archive.namelist() if Path(n).name == f"{r['id']}.webp"))))
        for r in data.test.records
    ]


def show(axes: plt.Axes, item: int, caption: str, colour: str, *, mark: bool = False) -> None:
    """One thumbnail with a caption under it."""
    picture = thumbnails[item].convert("RGBA")
    canvas = Image.new("RGBA", picture.size, "white")
    canvas.alpha_composite(picture)
    axes.imshow(canvas)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_color("#2e7d32" if mark else "#dddddd")
        spine.set_linewidth(3.5 if mark else 0.8)
    axes.set_xlabel(caption, fontsize=10, color=colour, labelpad=4)


counts = {"raw": occurrences(raw), "dual_is": occurrences(new)}
colours = {"raw": RAW, "dual_is": NEW}
figure = plt.figure(figsize=(12, 9.2), dpi=110, facecolor="white")
rows = figure.subfigures(3, 1, height_ratios=[3.5, 3.4, 3.1], hspace=0.0)

top = rows[0].subplots(2, SHOWN)
rows[0].suptitle("The pictures returned most often (times among the first ten of 1 872 texts)", fontsize=13, y=0.98)
for line, (method, count) in zip(top, counts.items(), strict=True):
    for axes, item in zip(line, np.argsort(-count, kind="stable"), strict=False):
        show(axes, item, f"{count[item]} times", colours[method])
    line[0].set_ylabel("raw" if method == "raw" else "dual_is", fontsize=12, color=colours[method])
rows[0].subplots_adjust(left=0.05, right=0.99, top=0.88, bottom=0.1, hspace=0.35)

query = next(row for row, record in enumerate(data.test.records) if record["text"].startswith(QUERY))
middle = rows[1].subplots(2, SHOWN)
rows[1].suptitle(f"The first results for the text “{data.test.records[query]['text']}”", fontsize=13, y=0.98)
for line, (method, scores) in zip(middle, {"raw": raw, "dual_is": new}.items(), strict=True):
    for axes, item in zip(line, np.argsort(-scores[query], kind="stable"), strict=False):
        own = item == query
        show(axes, item, "the right one" if own else "", "#2e7d32", mark=own)
    line[0].set_ylabel("raw" if method == "raw" else "dual_is", fontsize=12, color=colours[method])
rows[1].subplots_adjust(left=0.05, right=0.99, top=0.88, bottom=0.1, hspace=0.3)

axes = rows[2].subplots()
bins = np.arange(0, counts["raw"].max() + 3, 2)
for method, count in counts.items():
    never = (count == 0).mean()
    axes.hist(
        count,
        bins=bins,
        histtype="step",
        linewidth=2,
        color=colours[method],
        label=f"{method}: at most {count.max()} times; {never:.1%} of the pictures are never found",
    )
axes.set_yscale("log")
axes.set_xlabel("times a picture is among the first ten results (10 on average)", fontsize=11)
axes.set_ylabel("pictures", fontsize=11)
axes.spines[["top", "right"]].set_visible(False)
axes.legend(frameon=False, fontsize=11)
rows[2].subplots_adjust(left=0.07, right=0.98, top=0.95, bottom=0.2)

target = Path(__file__).with_name("hubs.png")
figure.savefig(target)
Image.open(target).convert("RGB").quantize(256).save(target, optimize=True)
