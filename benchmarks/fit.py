"""What a fit costs beyond its parts: reading all vectors, the matrix product, writing the statistics.

    .venv/bin/python benchmarks/fit.py [--engines qdrant milvus-lite milvus-server] [--repeats 3] [--bank 5000]

Each part is measured alone in the same run, with plain calls of the client and pages and batches of the fit's sizes:
reading (into float32 arrays), multiplying (in the kernel's blocks), and writing what a fit writes (banks, biases of
all items, activation flags; from arrays, as reading is into arrays). The embedded engines run in our own process, one
step after the other, so the fit is compared with the sum; a server works beside us, so it is compared with the largest.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from pymilvus import DataType, MilvusClient
from qdrant_client import QdrantClient, models

from dbnorm_milvus import MilvusAdapter
from dbnorm_qdrant import QdrantAdapter
from dbnorm_vdb.collection import NormalizedCollection

NAME = "items"
PAGE = 4096
DIMENSION = 256
SIDES = ("query", "gallery")


def unit_vectors(count: int, seed: int) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(size=(count, DIMENSION)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


class Engine(ABC):
    """An engine with a collection of `count` items, by its client alone."""

    serial = True

    def __init__(self, client: Any, count: int) -> None:
        self.client = client
        self.count = count

    @abstractmethod
    def load(self, vectors: np.ndarray) -> None: ...

    @abstractmethod
    def adapter(self) -> NormalizedCollection: ...

    @abstractmethod
    def read(self) -> np.ndarray: ...

    @abstractmethod
    def write(self, banks: list[np.ndarray], biases: np.ndarray, flags: np.ndarray) -> None:
        """Write both banks, and for each item its two biases and in whose activation set it is (a bit for each)."""

    @abstractmethod
    def unwrite(self) -> None:
        """Leave the collection as it was."""


class Qdrant(Engine):
    batch = 200

    def load(self, vectors: np.ndarray) -> None:
        config = models.VectorParams(size=DIMENSION, distance=models.Distance.COSINE)
        self.client.create_collection(NAME, vectors_config=config)
        for start in range(0, len(vectors), PAGE):
            rows = vectors[start : start + PAGE].tolist()
            points = [models.PointStruct(id=start + i, vector=v, payload={"n": start + i}) for i, v in enumerate(rows)]
            self.client.upsert(NAME, points)

    def adapter(self) -> NormalizedCollection:
        return QdrantAdapter(self.client, NAME)

    def read(self) -> np.ndarray:
        pages, offset = [], None
        while True:
            records, offset = self.client.scroll(NAME, limit=PAGE, offset=offset, with_payload=False, with_vectors=True)
            pages.append(np.array([record.vector for record in records], dtype=np.float32))
            if offset is None:
                return np.concatenate(pages)

    def write(self, banks: list[np.ndarray], biases: np.ndarray, flags: np.ndarray) -> None:
        config = models.VectorParams(size=DIMENSION, distance=models.Distance.DOT)
        self.client.create_collection("bare_bank", vectors_config=config)
        point = models.PointStruct.model_construct  # checked, a vector takes longer than all else
        for which, name in enumerate(SIDES):
            for start in range(0, len(banks[which]), self.batch):
                rows = enumerate(banks[which][start : start + self.batch].tolist(), which * len(banks[0]) + start)
                points = [point(id=i, vector=vector, payload={"bank": name}) for i, vector in rows]
                self.client.upsert("bare_bank", points)
        # one by one: in local mode, batches of updates take longer
        for i, (query, gallery) in enumerate(biases.tolist()):
            self.client.set_payload(NAME, {"g1": {"query": query, "gallery": gallery}}, points=[i], key="bare")
        for flag in range(1, 4):
            payload = {"activated": [name for bit, name in enumerate(SIDES) if flag >> bit & 1]}
            ids = np.flatnonzero(flags == flag).tolist()
            for start in range(0, len(ids), self.batch):
                self.client.set_payload(NAME, payload, points=ids[start : start + self.batch], key="bare.g1")

    def unwrite(self) -> None:
        self.client.delete_collection("bare_bank")
        self.client.delete_payload(NAME, keys=["bare"], points=models.Filter())


class Milvus(Engine):
    batch = 1000

    def load(self, vectors: np.ndarray) -> None:
        self.client.create_collection(NAME, dimension=DIMENSION, metric_type="COSINE", consistency_level="Bounded")
        for start in range(0, len(vectors), PAGE):
            rows = vectors[start : start + PAGE].tolist()
            self.client.insert(NAME, [{"id": start + i, "vector": v} for i, v in enumerate(rows)])
        self.client.flush(NAME)
        # a server goes on to index them, with what time others leave it
        give_up = time.monotonic() + 300
        while self.client.describe_index(NAME, "vector").get("pending_index_rows", 0) and time.monotonic() < give_up:
            time.sleep(1)

    def adapter(self) -> NormalizedCollection:
        return MilvusAdapter(self.client, NAME)

    def read(self) -> np.ndarray:
        pages = []
        iterator = self.client.query_iterator(
            NAME, batch_size=PAGE, output_fields=["id", "vector"], consistency_level="Bounded", strict_float32=True
        )
        while rows := iterator.next():
            pages.append(np.array([row["vector"] for row in rows], dtype=np.float32))
        iterator.close()
        return np.concatenate(pages)

    def write(self, banks: list[np.ndarray], biases: np.ndarray, flags: np.ndarray) -> None:
        schema = self.client.create_schema(auto_id=False, enable_dynamic_field=True)
        schema.add_field("id", DataType.INT64, is_primary=True)
        schema.add_field("bank", DataType.VARCHAR, max_length=16)
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=DIMENSION)
        self.client.create_collection("bare_bank", schema=schema)
        for which, name in enumerate(SIDES):
            for start in range(0, len(banks[which]), self.batch):
                rows = enumerate(banks[which][start : start + self.batch].tolist(), which * len(banks[0]) + start)
                self.client.insert("bare_bank", [{"id": i, "bank": name, "vector": vector} for i, vector in rows])
        schema = self.client.create_schema(auto_id=False)
        schema.add_field("item", DataType.INT64, is_primary=True)
        schema.add_field("generation", DataType.INT64)
        schema.add_field("biases", DataType.FLOAT_VECTOR, dim=2)
        schema.add_field("activation", DataType.INT8)
        index = self.client.prepare_index_params()
        index.add_index("biases", index_type="FLAT", metric_type="L2")
        self.client.create_collection("bare", schema=schema, index_params=index)

        def put(write: Callable[..., Any], ids: np.ndarray, activation: np.ndarray) -> None:
            for start in range(0, len(ids), self.batch):
                part = ids[start : start + self.batch]
                columns = (part.tolist(), biases[part].tolist(), activation[part].tolist())
                rows = [
                    {"item": i, "generation": 1, "biases": pair, "activation": flag}
                    for i, pair, flag in zip(*columns, strict=True)
                ]
                write("bare", rows)

        put(self.client.insert, np.arange(self.count), np.zeros_like(flags))
        put(self.client.upsert, np.flatnonzero(flags), flags)

    def unwrite(self) -> None:
        for name in ("bare", "bare_bank"):
            self.client.drop_collection(name)


class MilvusServer(Milvus):
    serial = False


@contextmanager
def opened(name: str, folder: str) -> Iterator[Engine]:
    if name == "qdrant":
        client = QdrantClient(":memory:")
        yield Qdrant(client, 20_000)
        client.close()
    elif name == "milvus-lite":
        client = MilvusClient(f"{folder}/lite.db")
        yield Milvus(client, 20_000)
        client.close()
    else:
        from milvus import MilvusServer as Server

        server = Server()
        server.set_base_dir(folder)
        try:
            server.start()
            client = MilvusClient(f"http://127.0.0.1:{server.listen_port}")
            yield MilvusServer(client, 100_000)
            client.close()
        finally:
            server.stop()


def product(items: np.ndarray, banks: list[np.ndarray]) -> None:
    """All similarities, in blocks of 512 x 2048, in one buffer."""
    buffer = np.empty(512 * 2048, dtype=np.float32)
    for bank in banks:
        columns = bank.T
        for start in range(0, len(items), 512):
            block = items[start : start + 512]
            for first in range(0, len(bank), 2048):
                part = columns[:, first : first + 2048]
                np.matmul(block, part, out=buffer[: len(block) * part.shape[1]].reshape(len(block), -1))


def activation(items: np.ndarray, banks: list[np.ndarray]) -> np.ndarray:
    """(n,) a bit for each bank in whose activation set an item is."""
    flags = np.zeros(len(items), dtype=np.int64)
    for bit, bank in enumerate(banks):
        for start in range(0, len(bank), 500):
            flags[(bank[start : start + 500] @ items.T).argmax(axis=1)] |= 1 << bit
    return flags


def seconds(call: Callable[..., Any], *arguments: Any) -> float:
    started = time.perf_counter()
    call(*arguments)
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser()
    names = ["qdrant", "milvus-lite", "milvus-server"]
    parser.add_argument("--engines", nargs="+", choices=names, default=names)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--bank", type=int, default=5000)
    arguments = parser.parse_args()
    for logger in ("pymilvus", "milvus_lite", "grpc._server"):
        logging.getLogger(logger).setLevel(logging.CRITICAL)
    banks = [unit_vectors(arguments.bank, seed) for seed in (1, 2)]
    print(f"{DIMENSION} dimensions, two banks of {arguments.bank}; seconds, the median of {arguments.repeats}")
    for name in arguments.engines:
        with tempfile.TemporaryDirectory() as folder, opened(name, folder) as engine:
            engine.load(unit_vectors(engine.count, 0))
            compare(name, engine, banks, arguments.repeats)


def compare(name: str, engine: Engine, banks: list[np.ndarray], repeats: int) -> None:
    rounds = []
    items = engine.read()
    biases, flags = np.random.default_rng(3).normal(size=(len(items), 2)), activation(items, banks)
    for _ in range(repeats):
        adapter = engine.adapter()
        fit = seconds(lambda a: a.fit(banks[0], banks[1]), adapter)
        adapter.drop()
        parts = [
            seconds(engine.read),
            seconds(product, items, banks),
            seconds(engine.write, banks, biases, flags),
        ]
        engine.unwrite()
        bound = sum(parts) if engine.serial else max(parts)
        rounds.append((fit / bound, fit, *parts))
    ratio, fit, read, multiply, write_seconds = (statistics.median(column) for column in zip(*rounds, strict=True))
    compared = "sum" if engine.serial else "largest"
    print(
        f"{name:14} {engine.count:7} items: fit {fit:6.2f}; read {read:6.2f}, multiply {multiply:6.2f},"
        f" write {write_seconds:6.2f}; fit / {compared} {ratio:.2f}"
        f" ({', '.join(f'{one[0]:.2f}' for one in rounds)})",
        flush=True,
    )


if __name__ == "__main__":
    main()
