"""The pictures data: 6 646 picture-text pairs, see data/ATTRIBUTION.md."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import numpy as np

from dbnorm_vdb.banks import Vectors


@dataclass(frozen=True)
class Split:
    """n picture-text pairs; text i belongs to picture i.

    Attributes:
        pictures: (n, 256) float32, unit length.
        texts: (n, 256) float32, unit length.
        records: n dicts with `id`, `source`, `name`, `text`, `split`.
    """

    pictures: Vectors
    texts: Vectors
    records: list[dict[str, Any]]


@dataclass(frozen=True)
class Pictures:
    """Banks come from `train`, settings are tuned on `dev`, results are reported on `test`."""

    train: Split
    dev: Split
    test: Split


def load_pictures() -> Pictures:
    """Read the data that comes with the package."""
    folder = files("dbnorm_vdb.demo") / "data"
    records = [json.loads(line) for line in (folder / "pictures.jsonl").read_text(encoding="utf-8").splitlines()]
    with (folder / "embeddings.npz").open("rb") as file, np.load(file) as arrays:
        pictures, texts = arrays["image"].astype(np.float32), arrays["text"].astype(np.float32)

    def split(name: str) -> Split:
        rows = [row for row, record in enumerate(records) if record["split"] == name]
        return Split(pictures[rows], texts[rows], [records[row] for row in rows])

    return Pictures(split("train"), split("dev"), split("test"))
