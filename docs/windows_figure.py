"""Draw docs/windows.png: what a window of candidates holds, and for how many queries the result is certified.

    .venv/bin/python docs/windows_figure.py [--data embeddings.npz]        (needs the extra "dev")

Method `dual_is`, ten results, exact raw order. Pictures: the texts of the test split search its pictures, banks from
the training split, all from the data of `make demo`. Flickr8k: 1 000 captions of the test split search all 8 000
pictures; banks of 5 000 training captions and 4 000 of the pictures; its embeddings do not come with the project.
The dots are the windows that a fit finds by itself, from its query bank alone.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.lines import Line2D
from PIL import Image

from dbnorm_vdb import rerank
from dbnorm_vdb.banks import Bank
from dbnorm_vdb.demo import load_pictures
from dbnorm_vdb.fitting import FitSettings, GalleryFit
from dbnorm_vdb.methods import Method, additive_weights
from dbnorm_vdb.statistics import Calibration, ItemStatistics, Metric

LIMIT = 10
WINDOWS = np.unique(np.geomspace(10, 2000, 80).round().astype(int))
SETTINGS = {(20, 10): "#1f77b4", (50, 20): "#d55e00"}
DASHES = (0, (4, 1.5))
TICKS = (10, 20, 50, 100, 200, 500, 1000, 2000)
DATA = Path(__file__).parents[2] / "shared" / "data" / "flickr8k" / "embeddings.npz"


class Data(NamedTuple):
    """A gallery, the banks of its fit, and live queries: unit vectors."""

    title: str
    gallery: np.ndarray
    query_bank: np.ndarray
    gallery_bank: np.ndarray
    queries: np.ndarray


class Curves(NamedTuple):
    """Shares for each window, and what the fit found."""

    windows: np.ndarray
    held: np.ndarray
    certified: np.ndarray
    calibration: Calibration


def pictures() -> Data:
    """The data of the demonstration."""
    data = load_pictures()
    return Data(
        "1 872 texts search 1 872 pictures", data.test.pictures, data.train.texts, data.train.pictures, data.test.texts
    )


def flickr(path: Path) -> Data:
    """All pictures of Flickr8k; every fifth caption of its test split: one a picture."""

    def unit(rows: np.ndarray) -> np.ndarray:
        rows = rows.astype(np.float32)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    rng = np.random.default_rng(0)
    with np.load(path) as arrays:
        gallery = unit(np.concatenate([arrays[f"{split}_img"] for split in ("train", "dev", "test")]))
        bank = unit(rng.permutation(arrays["train_txt"])[:5000])
        return Data(
            "1 000 captions search 8 000 photographs (Flickr8k)",
            gallery,
            bank,
            gallery[::2],
            unit(arrays["test_txt"][::5]),
        )


def curves(data: Data, query_beta: float, gallery_beta: float) -> Curves:
    """Fit, then re-rank every window of every query; a certified result must be the exact one."""
    gallery = data.gallery
    fit = GalleryFit(
        metric=Metric.COSINE,
        banks={"query": Bank(data.query_bank), "gallery": Bank(data.gallery_bank)},
        settings=FitSettings(Method.DUAL_IS, query_beta, gallery_beta, backend="numpy"),
        expected_items=len(gallery),
    )
    biases = fit.page(range(len(gallery)), gallery)[1]
    statistics = fit.statistics(generation=1, vector="", dimension=gallery.shape[1], version="")
    items = ItemStatistics.of_biases(len(gallery), biases)
    weights = additive_weights(Method.DUAL_IS, statistics)
    penalty = sum(weight * biases[name] for name, weight in weights.items())
    windows = np.unique(np.minimum(WINDOWS, len(gallery)))
    held, certified = np.zeros(len(windows)), np.zeros(len(windows))
    for similarities in (data.queries @ gallery.T).astype(np.float64):
        order = np.argsort(-similarities, kind="stable")
        nearest, candidates = similarities[order], items[order]
        best = np.argsort(-(nearest - penalty[order]), kind="stable")[:LIMIT]
        for position, window in enumerate(windows):
            held[position] += (best < window).mean()
            result = rerank(
                nearest[:window], candidates[:window], statistics, limit=LIMIT, complete=window == len(gallery)
            )
            if result.certified:
                certified[position] += 1
                if result.order.tolist() != best.tolist():
                    raise AssertionError(f"window {window}: certified {result.order}, but the best are {best}")
    assert statistics.calibration is not None
    return Curves(windows, held / len(data.queries), certified / len(data.queries), statistics.calibration)


def draw(axes: plt.Axes, data: Data) -> None:
    """One panel: two curves for each setting, and the windows that its fit found on them."""
    beside = ({"xytext": (-9, -3), "ha": "right"}, {"xytext": (9, -5), "ha": "left"})
    for (betas, colour), side in zip(SETTINGS.items(), beside, strict=True):
        found = curves(data, *betas)
        told = found.calibration
        for shares, window, style, face in (
            (found.held, told.candidates, "-", colour),
            (found.certified, told.certified_candidates, DASHES, "white"),
        ):
            axes.plot(found.windows, 100 * shares, color=colour, linewidth=2, linestyle=style)
            share = 100 * np.interp(window, found.windows, shares)
            axes.plot(window, share, "o", markersize=8, markerfacecolor=face, color=colour, markeredgewidth=2, zorder=3)
            place = {"xytext": (0, 8), "ha": "center"} if style == "-" else side
            axes.annotate(
                str(window),
                (window, share),
                textcoords="offset points",
                fontsize=12,
                color=colour,
                weight="bold",
                **place,
            )
            print(f"{data.title}; betas {betas}: window {window}, {share:.1f} %")
    axes.set_title(data.title, fontsize=13.5, pad=10)
    axes.set_xscale("log")
    axes.set_xlim(10, 2000)
    axes.set_xticks(TICKS, [str(tick) for tick in TICKS])
    axes.minorticks_off()
    axes.set_ylim(0, 109)
    axes.set_yticks(range(0, 101, 20), [f"{share} %" for share in range(0, 101, 20)])
    axes.grid(color="#e6e6e6", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=12, labelleft=True)
    axes.set_xlabel("window: how many candidates are fetched for 10 results", fontsize=12.5, labelpad=6)
    axes.spines[["top", "right"]].set_visible(False)


def legend(figure: plt.Figure) -> None:
    """What lines, colours and dots mean, under both panels, column by column."""
    grey = "#444444"
    dot = {"marker": "o", "linestyle": "", "markersize": 8, "markeredgewidth": 2, "color": grey}
    handles = [
        Line2D([], [], color=grey, linewidth=2, label="share of the true top 10 in the window"),
        Line2D([], [], color=grey, linewidth=2, linestyle=DASHES, label="share of queries certified"),
        *(
            Line2D([], [], color=colour, linewidth=6, label=f"betas {query} and {gallery}")
            for (query, gallery), colour in SETTINGS.items()
        ),
        Line2D([], [], **dot, label="fitted window of a search"),
        Line2D([], [], **dot, markerfacecolor="white", label="first window with exact=True"),
    ]
    figure.legend(handles=handles, loc="lower center", ncols=3, frameon=False, fontsize=12.5, columnspacing=2.5)


def main() -> None:
    """Compute and draw."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, default=DATA)
    arguments = parser.parse_args()
    if not arguments.data.is_file():
        parser.error(f"there are no embeddings of Flickr8k at {arguments.data}: pass --data")
    figure, panels = plt.subplots(1, 2, figsize=(12, 5.4), dpi=110, facecolor="white")
    for axes, data in zip(panels, (pictures(), flickr(arguments.data)), strict=True):
        draw(axes, data)
    legend(figure)
    figure.subplots_adjust(left=0.055, right=0.98, top=0.92, bottom=0.27, wspace=0.14)
    target = Path(__file__).with_name("windows.png")
    figure.savefig(target)
    Image.open(target).convert("RGB").quantize(256).save(target, optimize=True)


if __name__ == "__main__":
    main()
