"""What a normalised search costs beside the client's own, and the re-ranking beside a sort.

    .venv/bin/python benchmarks/search.py [--engines qdrant milvus-lite milvus-server] [--queries 200] [--repeats 5]
                                          [--data embeddings.npz]

Every query is run by all variants one after the other, in random order, so that whatever else the machine does meets
all of them alike; a repeat is one pass over all queries. Printed are ratios of medians: the middle one of the repeats,
and the least and the greatest. The data are the embeddings of Flickr8k (8 000 pictures; 5 000 captions of the training
split as query bank; captions of the test split as queries), or, without that file, two synthetic clouds.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import tempfile
import time
import timeit
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timezone
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pymilvus import MilvusClient
from qdrant_client import QdrantClient, models

from dbnorm_milvus import FoldedMilvusAdapter, MilvusAdapter
from dbnorm_qdrant import FoldedQdrantAdapter, QdrantAdapter
from dbnorm_vdb import rerank
from dbnorm_vdb.banks import Bank
from dbnorm_vdb.collection import NormalizedCollection
from dbnorm_vdb.fitting import FitSettings, GalleryFit
from dbnorm_vdb.methods import Method
from dbnorm_vdb.searching import Explanation
from dbnorm_vdb.statistics import BiasBounds, ItemStatistics, Metric

NAME, FOLDED_NAME = "items", "folded"
PAGE = 1000
DIMENSION = 256
LIMIT = 10
FIELDS = ["title"]
QUERY_BANK, GALLERY_BANK = 5000, 4000
DATA = Path(__file__).parents[2] / "shared" / "data" / "flickr8k" / "embeddings.npz"

Variant = Callable[[list[float]], Any]

OWN = "client, 10 hits"
OWN_WINDOW = "client, the window"
DEFAULT = "adapter"
EXACT = "adapter, exact"
SERVER = "adapter, on the server"
FOLDED = "folded copy"
RATIOS = (
    (DEFAULT, OWN_WINDOW, 1.15),
    (DEFAULT, OWN, None),
    (EXACT, OWN, None),
    (SERVER, OWN_WINDOW, None),
    (SERVER, OWN, None),
    (FOLDED, OWN, None),
)
"""Numerator, denominator, target. Variants that an engine does not have are left out."""


class Data(NamedTuple):
    gallery: np.ndarray
    bank: np.ndarray
    queries: np.ndarray


def unit(rows: np.ndarray) -> np.ndarray:
    rows = rows.astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def flickr(path: Path, queries: int) -> Data:
    rng = np.random.default_rng(0)
    with np.load(path) as arrays:
        gallery = np.concatenate([arrays[f"{split}_img"] for split in ("train", "dev", "test")])
        bank = rng.permutation(arrays["train_txt"])[:QUERY_BANK]
        return Data(unit(gallery), unit(bank), unit(rng.permutation(arrays["test_txt"])[:queries]))


def synthetic(queries: int, items: int = 20_000) -> Data:
    """Two modalities: clouds around different means, along the same unequal axes."""
    rng = np.random.default_rng(0)
    axes = (1 + np.arange(DIMENSION)) ** -0.25
    means = rng.normal(size=(2, DIMENSION)) * 0.1

    def cloud(count: int, mean: np.ndarray) -> np.ndarray:
        return unit(mean + rng.normal(size=(count, DIMENSION)) * axes)

    return Data(cloud(items, means[0]), cloud(QUERY_BANK, means[1]), cloud(queries, means[1]))


class Engine(ABC):
    """An engine with the gallery in a collection."""

    def __init__(self, client: Any) -> None:
        self.client = client

    @abstractmethod
    def load(self, vectors: np.ndarray) -> None: ...

    @abstractmethod
    def adapter(self) -> NormalizedCollection: ...

    @abstractmethod
    def variants(self, adapter: Any, window: int) -> dict[str, Variant]:
        """The ways to search that are compared; another one needs a name, a line here and one in RATIOS."""

    @abstractmethod
    def explained(self, adapter: Any, query: list[float], *, exact: bool) -> Explanation: ...


class Qdrant(Engine):
    def load(self, vectors: np.ndarray) -> None:
        config = models.VectorParams(size=DIMENSION, distance=models.Distance.COSINE)
        self.client.create_collection(NAME, vectors_config=config)
        for start in range(0, len(vectors), PAGE):
            rows = enumerate(vectors[start : start + PAGE].tolist(), start)
            points = [models.PointStruct(id=i, vector=v, payload={"title": f"picture {i}"}) for i, v in rows]
            self.client.upsert(NAME, points)

    def adapter(self) -> NormalizedCollection:
        return QdrantAdapter(self.client, NAME)

    def variants(self, adapter: Any, window: int) -> dict[str, Variant]:
        client, fields, ours = self.client, FIELDS, [*FIELDS, "dbnorm"]
        folded = FoldedQdrantAdapter(client, FOLDED_NAME)
        return {
            OWN: lambda q: client.query_points(NAME, query=q, limit=LIMIT, with_payload=fields),
            OWN_WINDOW: lambda q: client.query_points(NAME, query=q, limit=window, with_payload=ours),
            DEFAULT: lambda q: adapter.query_points(query=q, limit=LIMIT, with_payload=fields),
            EXACT: lambda q: adapter.query_points(query=q, limit=LIMIT, with_payload=fields, exact=True),
            SERVER: lambda q: adapter.query_points(query=q, limit=LIMIT, with_payload=fields, execution="server"),
            FOLDED: lambda q: folded.query_points(query=q, limit=LIMIT, with_payload=fields),
        }

    def explained(self, adapter: Any, query: list[float], *, exact: bool) -> Explanation:
        return adapter.query_points_explained(query=query, limit=LIMIT, exact=exact).queries[0]


class Milvus(Engine):
    def load(self, vectors: np.ndarray) -> None:
        self.client.create_collection(NAME, dimension=DIMENSION, metric_type="COSINE", consistency_level="Bounded")
        for start in range(0, len(vectors), PAGE):
            rows = enumerate(vectors[start : start + PAGE].tolist(), start)
            self.client.insert(NAME, [{"id": i, "vector": v, "title": f"picture {i}"} for i, v in rows])
        self.client.flush(NAME)

    def adapter(self) -> NormalizedCollection:
        return MilvusAdapter(self.client, NAME)

    def variants(self, adapter: Any, window: int) -> dict[str, Variant]:
        client, folded = self.client, FoldedMilvusAdapter(self.client, FOLDED_NAME)
        return {
            OWN: lambda q: client.search(NAME, data=[q], limit=LIMIT, output_fields=FIELDS),
            OWN_WINDOW: lambda q: client.search(NAME, data=[q], limit=window, output_fields=FIELDS),
            DEFAULT: lambda q: adapter.search(data=[q], limit=LIMIT, output_fields=FIELDS),
            EXACT: lambda q: adapter.search(data=[q], limit=LIMIT, output_fields=FIELDS, exact=True),
            FOLDED: lambda q: folded.search(data=[q], limit=LIMIT, output_fields=FIELDS),
        }

    def explained(self, adapter: Any, query: list[float], *, exact: bool) -> Explanation:
        return adapter.search_explained(data=[query], limit=LIMIT, output_fields=FIELDS, exact=exact).queries[0]


@contextmanager
def opened(name: str, folder: str) -> Iterator[Engine]:
    if name == "qdrant":
        client = QdrantClient(":memory:")
        yield Qdrant(client)
        client.close()
    elif name == "milvus-lite":
        client = MilvusClient(f"{folder}/lite.db")
        yield Milvus(client)
        client.close()
    else:
        from milvus import MilvusServer as Server

        server = Server()
        server.set_base_dir(folder)
        try:
            server.start()
            client = MilvusClient(f"http://127.0.0.1:{server.listen_port}")
            yield Milvus(client)
            client.close()
        finally:
            server.stop()


def compare(name: str, engine: Engine, data: Data, repeats: int) -> None:
    adapter: Any = engine.adapter()
    took = adapter.fit(data.bank, gallery_bank=GALLERY_BANK).seconds
    folding = adapter.fold(FOLDED_NAME).seconds
    calibration = adapter.status().active.calibration
    window = calibration.window(LIMIT)
    queries = data.queries.tolist()
    print(f"\n{name}: fitted in {took:.1f} s, folded in {folding:.1f} s (once each)")
    print(f"  the window is {window}, of an exact search at first {calibration.window(LIMIT, certified=True)}")
    for exact in (False, True):
        told = [engine.explained(adapter, query, exact=exact) for query in queries]
        print(
            f"  {EXACT if exact else DEFAULT}: {statistics.fmean(one.certified for one in told):.1%} certified,"
            f" {statistics.fmean(one.rounds for one in told):.2f} rounds and"
            f" {statistics.fmean(one.candidates for one in told):.0f} candidates in the mean"
        )
    variants = engine.variants(adapter, window)
    for variant in variants.values():
        variant(queries[0])
    passes = [medians(variants, queries, seed) for seed in range(repeats)]
    for variant in variants:
        print(f"  {variant:24}{1000 * statistics.median(one[variant] for one in passes):8.2f} ms")
    for above, below, target in RATIOS:
        if above in variants and below in variants:
            print(f"  {f'{above} / {below}':46}{spread([one[above] / one[below] for one in passes])}{wanted(target)}")


def medians(variants: Mapping[str, Variant], queries: list[list[float]], seed: int) -> dict[str, float]:
    """The median seconds of each variant in one pass over the queries."""
    rng = np.random.default_rng(seed)
    names = list(variants)
    took: dict[str, list[float]] = {name: [] for name in names}
    for query in queries:
        for name in rng.permutation(names).tolist():
            started = time.perf_counter()
            variants[name](query)
            took[name].append(time.perf_counter() - started)
    return {name: statistics.median(seconds) for name, seconds in took.items()}


def spread(ratios: list[float]) -> str:
    return f"{statistics.median(ratios):6.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


def wanted(target: float | None) -> str:
    return "" if target is None else f", at most {target:g} wanted"


def compare_reranking(data: Data, repeats: int, *, count: int = 1000, calls: int = 200) -> None:
    """The re-ranking of candidates that are at hand, beside one sort of as many numbers."""
    gallery = data.gallery
    banks = {"query": Bank(data.bank), "gallery": Bank(gallery[:: len(gallery) // GALLERY_BANK])}
    fit = GalleryFit(
        metric=Metric.COSINE, banks=banks, settings=FitSettings(Method.DUAL_IS), expected_items=len(gallery)
    )
    biases = fit.page(range(len(gallery)), gallery)[1]
    fitted = fit.statistics(generation=1, vector="", dimension=DIMENSION, version="")
    everything = ItemStatistics.of_biases(len(gallery), biases)
    similarities = (gallery @ data.queries[0]).astype(np.float64)
    rows = np.argsort(-similarities, kind="stable")[:count]
    nearest, items = similarities[rows], everything[rows]
    items.activated("query")[0] = True  # one gate open, the other closed: the form that takes longest
    ranges = dict.fromkeys(banks, (-1.0, 1.0))  # with a hub of that kind beyond, nothing is certified
    bounds = BiasBounds(generation=1, ranges=ranges, lowest_dual=-1.0, written_at=datetime.now(timezone.utc))
    uncertified = fitted.widened([bounds])
    numbers = np.random.default_rng(0).normal(size=count)
    print(f"\nre-ranking {count} candidates, limit {LIMIT} / numpy.argsort of {count} random numbers")
    print(f"  the fastest of {20 * repeats} times {calls} calls; of the dynamic method one gate is open")
    for method, known in product((Method.IS, Method.DUAL_IS, Method.DUAL_DIS), (fitted, uncertified)):
        certified = rerank(nearest, items, known, limit=LIMIT, method=method).certified
        ours, sorting = [], []
        for _ in range(20 * repeats):
            sorting.append(timeit.timeit(lambda: np.argsort(numbers), number=calls))
            ours.append(
                timeit.timeit(
                    lambda m=method, k=known: rerank(nearest, items, k, limit=LIMIT, method=m),  # type: ignore[misc]
                    number=calls,
                )
            )
        best, beside = min(ours), min(sorting)
        print(
            f"  {method.value:10}{'certified' if certified else 'uncertified':12}{best / beside:6.2f}, at most 3 wanted"
            f" ({1e6 * best / calls:.1f} us, the sort {1e6 * beside / calls:.1f} us)"
        )


def on_engines(compare: Callable[[str, Engine, Data, int], None]) -> tuple[Data, int]:
    """Call it for each engine that the command line asks for, with the gallery loaded; the data and the repeats."""
    parser = argparse.ArgumentParser()
    names = ["qdrant", "milvus-lite", "milvus-server"]
    parser.add_argument("--engines", nargs="*", choices=names, default=names)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--data", type=Path, default=DATA)
    arguments = parser.parse_args()
    for logger in ("pymilvus", "milvus_lite", "grpc._server"):
        logging.getLogger(logger).setLevel(logging.CRITICAL)
    there = arguments.data.is_file()
    data = flickr(arguments.data, arguments.queries) if there else synthetic(arguments.queries)
    print(
        f"{'Flickr8k' if there else 'synthetic clouds'}: {len(data.gallery)} items of {DIMENSION} dimensions, banks of"
        f" {len(data.bank)} and {GALLERY_BANK}, {len(data.queries)} queries; the median of {arguments.repeats} passes"
        " (least to greatest)"
    )
    for name in arguments.engines:
        with tempfile.TemporaryDirectory() as folder, opened(name, folder) as engine:
            engine.load(data.gallery)
            compare(name, engine, data, arguments.repeats)
    return data, arguments.repeats


def main() -> None:
    compare_reranking(*on_engines(compare))


if __name__ == "__main__":
    main()
