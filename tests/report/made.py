"""Comparisons to report on, made by `compare`, small."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
from PIL import Image

from dbnorm_vdb.evaluation.comparing import compare
from dbnorm_vdb.evaluation.results import Comparison, WindowPoint, Windows

ITEMS, QUERIES = 40, 30


def picture(colour: str = "red", size: tuple[int, int] = (300, 200), kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, kind)
    return buffer.getvalue()


def noise(seed: int, side: int = 160) -> bytes:
    """A picture that does not compress."""
    buffer = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def data_url(content: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(content).decode()


def comparison(
    *, judged: bool = True, texts: list[str] | None = None, arms: tuple[str, str] = ("raw", "new")
) -> Comparison:
    """Item i belongs to query i; the new arm finds it first for most queries, and loses it for some."""
    rng = np.random.default_rng(0)
    old, new = [], []
    for query in range(QUERIES):
        order = rng.permutation(ITEMS)
        old.append([0, *(int(item) for item in order if item != 0)][:20])
        right = [query, *(int(item) for item in order if item != query)][:20]
        new.append(right if query % 5 else [int(item) for item in order if item != query][:20])
    return compare(
        dict(zip(arms, (old, new), strict=True)),
        keys=range(QUERIES),
        texts=texts or [f"query number {query}" for query in range(QUERIES)],
        relevant=list(range(QUERIES)) if judged else None,
        item_count=ITEMS,
        depth=20,
        resamples=200,
    )


def with_windows(found: Comparison, arm: str = "new") -> Comparison:
    """The same with what windows hold."""
    points = [WindowPoint(candidates=size, held=held, certified=sure) for size, held, sure in SHARES]
    windows = Windows(query_count=20, default=30, points=points)
    arms = [entry.model_copy(update={"windows": windows} if entry.name == arm else {}) for entry in found.arms]
    return found.model_copy(update={"arms": arms})


SHARES = [(10, 0.5, 0.0), (20, 0.8, 0.25), (40, 1.0, 0.75)]


def payloads(**fields: Any) -> dict[int, dict[str, Any]]:
    """The same payload for every item, but its number."""
    return {item: {"number": item, **fields} for item in range(ITEMS)}
