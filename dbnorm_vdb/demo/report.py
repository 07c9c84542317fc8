"""The demonstration as a page with pictures: raw against dual_is, on what the first engine found."""

from __future__ import annotations

import os
from importlib.resources import as_file, files
from pathlib import Path

from dbnorm_vdb.demo.pictures import Pictures
from dbnorm_vdb.demo.run import DemoReport
from dbnorm_vdb.evaluation import Comparison, compare
from dbnorm_vdb.methods import Method

IMAGE_FIELD = "picture"

_RESAMPLES = 2000


def write_demo_report(data: Pictures, found: DemoReport, path: str | os.PathLike[str]) -> Path:
    """Compare the rankings that the demonstration has anyway, and write the page.

    Raises:
        MissingDependencyError: the extras `evaluation` and `report` are not installed.
    """
    engine = next(iter(found.engines.values()))
    records = data.test.records
    comparison = compare(
        {method.value: engine.rankings[method] for method in (Method.RAW, Method.DUAL_IS)},
        relevant=list(range(len(records))),
        keys=range(len(records)),
        texts=[record["text"] for record in records],
        item_count=len(records),
        resamples=_RESAMPLES,
    )
    if engine.sample is not None:
        comparison = _with_sample(comparison, engine.sample)
    payloads = {
        row: {"text": record["text"], IMAGE_FIELD: f"{record['id']}.webp"} for row, record in enumerate(records)
    }
    with as_file(files("dbnorm_vdb.demo") / "data" / "thumbnails.zip") as archive:
        return comparison.report(
            path, image_field=IMAGE_FIELD, text_field="text", image_root=archive, payloads=payloads
        )


def _with_sample(comparison: Comparison, sample: Comparison) -> Comparison:
    """The comparison with what the closer one of fewer texts says of the arms: settings, times and windows."""
    told = ("source", "collection", "method", "candidates", "betas", "latency", "windows")
    arms = [
        arm.model_copy(update={name: getattr(sample.arm(arm.name), name) for name in told}) for arm in comparison.arms
    ]
    return comparison.model_copy(update={"arms": arms, "collections": sample.collections})
