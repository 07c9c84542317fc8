"""Tune on dev, fit, search the test texts, measure."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, Field

from dbnorm_vdb.collection import NormalizedCollection
from dbnorm_vdb.demo.pictures import Pictures, Split
from dbnorm_vdb.evaluation import Comparison, compare
from dbnorm_vdb.hubness import k_occurrence, measure_hubness
from dbnorm_vdb.methods import Method
from dbnorm_vdb.normalization import normalize
from dbnorm_vdb.targets import adapter_class

METHODS = (Method.RAW, Method.IS, Method.DIS, Method.SINKHORN, Method.DUAL_IS, Method.DUAL_DIS)
"""In the order of the table."""

FITS = {
    Method.IS: (Method.RAW, Method.IS, Method.DIS),
    Method.SINKHORN: (Method.SINKHORN,),
    Method.DUAL_IS: (Method.DUAL_IS, Method.DUAL_DIS),
}
"""What is fitted, each with betas of its own, and the methods that are then searched with."""

LIMIT = 10
DEPTH = 100
QUERY_BETAS = (5.0, 10.0, 15.0, 20.0, 30.0, 50.0)
GALLERY_BETAS = (2.0, 5.0, 10.0, 20.0)
_TIMED_QUERIES = 100
_SAMPLE = 50

Say = Callable[[str], None]


class Setting(BaseModel):
    """Betas that were best on `dev`."""

    method: Method
    query_beta: float
    gallery_beta: float | None


class MethodReport(BaseModel):
    """One row of the table. Recall in percent; the median rank counts ranks beyond 100 as larger than any other."""

    recall_at_1: float
    recall_at_5: float
    recall_at_10: float
    median_rank: float
    k_skewness: float
    latency_p50_ms: float


class Example(BaseModel):
    """One query, the rank of its own picture, and the first pictures found: ids of `pictures.jsonl` and titles."""

    query: str
    own_id: int
    raw_rank: int
    normalized_rank: int
    raw: list[tuple[int, str]]
    normalized: list[tuple[int, str]]


class EngineReport(BaseModel):
    """What one engine's run found.

    Attributes:
        rankings: ids for each test text, to a depth of 100; not in JSON.
        sample: raw against dual_is on some of the texts, with times and windows, if that was asked for; not in JSON.
    """

    methods: dict[Method, MethodReport]
    examples: list[Example]
    improved: int
    worsened: int
    fit_seconds: float
    rankings: dict[Method, list[list[int]]] = Field(exclude=True, repr=False)
    sample: Comparison | None = Field(default=None, exclude=True, repr=False)


class DemoReport(BaseModel):
    """The whole demonstration."""

    query_count: int
    item_count: int
    settings: list[Setting]
    engines: dict[str, EngineReport]


def run_demo(
    data: Pictures,
    *,
    engines: Sequence[str] = ("qdrant", "milvus"),
    compared: bool = False,
    say: Say = lambda text: None,
) -> DemoReport:
    """Run it on the embedded form of each engine.

    Args:
        data: the pictures.
        engines: by name.
        compared: whether raw and dual_is are compared more closely on the first engine, for a report.
        say: called with what is being done.

    Raises:
        MissingDependencyError: an engine's client is not installed.
    """
    classes = {name: adapter_class(name) for name in engines}
    say("tuning betas on the 468 dev pairs")
    settings = [tune(data, method) for method in FITS]
    reports: dict[str, EngineReport] = {}
    for name, kind in classes.items():
        with tempfile.TemporaryDirectory() as directory:
            closely = compared and not reports
            reports[name] = _run_engine(name, kind, directory, data, settings, say, compared=closely)
    return DemoReport(
        query_count=len(data.test.texts), item_count=len(data.test.pictures), settings=settings, engines=reports
    )


def tune(data: Pictures, method: Method) -> Setting:
    """The betas with the best R@1 on the dev pairs (then R@5, then the smallest), with the train split as banks."""
    similarities = data.dev.texts @ data.dev.pictures.T
    query_bank = data.train.texts @ data.dev.pictures.T
    gallery_bank = data.train.pictures @ data.dev.pictures.T
    own = np.arange(len(similarities))

    def quality(betas: tuple[float, float | None]) -> tuple[float, float]:
        scores = normalize(
            similarities,
            query_bank=query_bank,
            gallery_bank=gallery_bank,
            method=method,
            query_beta=betas[0],
            gallery_beta=betas[1] or 1.0,
        )
        ranks = (scores > scores[own, own][:, None]).sum(axis=1) + 1
        return float((ranks <= 1).mean()), float((ranks <= 5).mean())

    dual = "gallery" in method.banks
    grid: list[tuple[float, float | None]] = [(q, g) for q in QUERY_BETAS for g in (GALLERY_BETAS if dual else (None,))]
    best = max(grid, key=quality)
    return Setting(method=method, query_beta=best[0], gallery_beta=best[1])


def _run_engine(
    name: str,
    kind: type[NormalizedCollection],
    directory: str,
    data: Pictures,
    settings: Sequence[Setting],
    say: Say,
    *,
    compared: bool,
) -> EngineReport:
    say(f"{name}: loading {len(data.test.pictures)} pictures")
    adapter = kind.embedded(directory, data.test.pictures, data.test.records, name="pictures")
    methods: dict[Method, MethodReport] = {}
    found: dict[Method, npt.NDArray[np.int64]] = {}
    fit_seconds, sample = 0.0, None
    for setting in settings:
        say(f"{name}: fitting {setting.method.value} against {len(data.train.texts)} texts and pictures")
        summary = adapter.fit(
            query_bank=data.train.texts,
            gallery_bank=data.train.pictures if setting.gallery_beta else None,
            method=setting.method,
            query_beta=setting.query_beta,
            gallery_beta=setting.gallery_beta or 10.0,
        )
        fit_seconds += summary.seconds
        for method in FITS[setting.method]:
            say(f"{name}: searching {len(data.test.texts)} texts, {method.value}")
            found[method] = _search(adapter, data.test, method)
            methods[method] = _measure(found[method], _latency(adapter, data.test, method))
        if compared and setting.method is Method.DUAL_IS:
            say(f"{name}: comparing raw and dual_is, with other windows")
            sample = _compared(adapter, data.test)
    adapter.close()
    raw, normalized = _ranks(found[Method.RAW]), _ranks(found[Method.DUAL_IS])
    return EngineReport(
        methods={method: methods[method] for method in METHODS},
        examples=_examples(data.test, found[Method.RAW], found[Method.DUAL_IS]),
        improved=int((normalized < raw).sum()),
        worsened=int((normalized > raw).sum()),
        fit_seconds=fit_seconds,
        rankings={method: ids.tolist() for method, ids in found.items()},
        sample=sample,
    )


def _search(adapter: NormalizedCollection, test: Split, method: Method) -> npt.NDArray[np.int64]:
    """(n, DEPTH) ids found. The window is the default one of a search for the first ten."""
    results = adapter.nearest(test.texts, limit=DEPTH, candidates=DEPTH, method=method, with_payload=False)
    return np.array([[int(hit.id) for hit in hits] for hits in results])


def _latency(adapter: NormalizedCollection, test: Split, method: Method) -> float:
    """Median milliseconds of a search for the first ten with their payload, one query at a time."""
    seconds = []
    for query in test.texts[:_TIMED_QUERIES]:
        started = time.perf_counter()
        adapter.nearest(query[None], limit=LIMIT, method=method)
        seconds.append(time.perf_counter() - started)
    return 1000 * statistics.median(seconds)


def _compared(adapter: NormalizedCollection, test: Split) -> Comparison:
    """Raw against dual_is, as fitted, on some of the texts."""
    return compare(
        [Method.RAW.value, Method.DUAL_IS.value],
        test.texts[:: len(test.texts) // _SAMPLE],
        adapter=adapter,
        latency_queries=_SAMPLE,
        window_queries=_SAMPLE,
    )


def _ranks(found: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """(n,) rank of each query's own picture, infinite if it was not found."""
    own = found == np.arange(len(found))[:, None]
    return np.where(own.any(axis=1), own.argmax(axis=1) + 1.0, np.inf)


def _measure(found: npt.NDArray[np.int64], latency: float) -> MethodReport:
    ranks = _ranks(found)
    measured = measure_hubness(k_occurrence(found[:, :LIMIT], len(found)))
    recall = {k: round(100 * float((ranks <= k).mean()), 2) for k in (1, 5, 10)}
    return MethodReport(
        recall_at_1=recall[1],
        recall_at_5=recall[5],
        recall_at_10=recall[10],
        median_rank=float(np.median(ranks)),
        k_skewness=round(measured.k_skewness, 3),
        latency_p50_ms=round(latency, 2),
    )


def _examples(
    test: Split, raw: npt.NDArray[np.int64], normalized: npt.NDArray[np.int64], *, count: int = 3, shown: int = 5
) -> list[Example]:
    """The queries whose right picture came first only after normalisation, and had been furthest down before."""
    raw_ranks, new_ranks = _ranks(raw), _ranks(normalized)
    risen = np.flatnonzero((new_ranks == 1) & np.isfinite(raw_ranks))
    chosen = risen[np.argsort(-raw_ranks[risen], kind="stable")][:count]
    pictures = [(int(record["id"]), title(record["text"])) for record in test.records]
    return [
        Example(
            query=test.records[query]["text"],
            own_id=pictures[query][0],
            raw_rank=int(raw_ranks[query]),
            normalized_rank=int(new_ranks[query]),
            raw=[pictures[item] for item in raw[query, :shown]],
            normalized=[pictures[item] for item in normalized[query, :shown]],
        )
        for query in chosen.tolist()
    ]


def title(text: str, width: int = 32) -> str:
    """The first words of a picture's text."""
    first = text.split(";")[0].strip()
    return first if len(first) <= width else first[: width - 1] + "…"
