"""Memory and time of a fit do not depend on the gallery's size, but for reading it.

    .venv/bin/python benchmarks/memory.py [--items 1000000] [--bank 10000] [--dimension 512]

A synthetic gallery, made page by page, takes the place of a database: it keeps nothing of what is written. Each size
runs in a process of its own; printed are its highest resident memory and the time per item, once the banks are there.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from dbnorm_vdb.collection import NormalizedCollection
from dbnorm_vdb.statistics import ItemId, ItemStatistics, Metric
from dbnorm_vdb.store import Page, Store, VectorInfo


class SyntheticStore(Store):
    """`count` random unit vectors; documents are kept, all else that is written is forgotten."""

    collection = "synthetic"
    engine = "synthetic"
    max_window = 1000
    batch_size = 1000
    concurrent = False

    def __init__(self, count: int, dimension: int) -> None:
        self._count = count
        self._info = VectorInfo("", dimension, Metric.COSINE)
        self._documents: dict[str, object] = {}
        # slices of one long random array: making numbers is not what is measured
        self._numbers = np.random.default_rng(0).normal(size=4_000_003).astype(np.float32)

    def describe(self, *, fresh: bool = False) -> VectorInfo:
        return self._info

    def count(self) -> int:
        return self._count

    def pages(self, size: int, *, after: ItemId | None = None) -> Iterator[Page]:
        for start in range(0 if after is None else int(after) + 1, self._count, size):
            ids = [*range(start, min(start + size, self._count))]
            length = len(ids) * self._info.dimension
            first = start * 7919 % (len(self._numbers) - length)
            yield Page(ids, self._numbers[first : first + length].reshape(len(ids), -1).copy())

    def read_documents(self) -> dict[str, object]:
        return dict(self._documents)

    def write_document(self, key: str, document: Mapping[str, Any] | None) -> None:
        self._documents[key] = document

    def count_fitted(self, generation: int, *, just_written: bool = False) -> int:
        return self._count

    def ids(self) -> Iterator[list[ItemId]]:
        raise NotImplementedError

    def fetch(self, ids: Sequence[ItemId]) -> Page:
        raise NotImplementedError

    def items(self, generation: int, ids: Sequence[ItemId], columns: Sequence[str]) -> tuple[list[ItemId], Any]:
        return [], ItemStatistics.unknown(0)

    def all_items(self, generation: int, columns: Sequence[str]) -> Any:
        raise NotImplementedError

    def read_bank(self, generation: int, bank: str) -> tuple[Any, Any]:
        raise NotImplementedError

    def read_checkpoint(self, generation: int) -> bytes | None:
        return None

    @property
    def described(self) -> bool:
        return True

    def ids_of(self, keys: Sequence[str]) -> list[ItemId]:
        raise NotImplementedError

    def payloads(self, ids: Sequence[ItemId]) -> dict[ItemId, Mapping[str, Any]]:
        raise NotImplementedError

    def scores(self, similarities: np.ndarray) -> np.ndarray:
        return similarities

    def similarities(self, scores: np.ndarray) -> np.ndarray:
        return scores

    def has_leftovers(self) -> bool:
        return False

    def has_banks(self, generation: int) -> bool:
        return True

    def remove_remains(self) -> int:
        return 0

    def discard_orphans(self, generation: int) -> int:
        return 0

    def _nothing(self, *arguments: Any, **options: Any) -> None:
        """Keep nothing."""

    close = check_writable = begin = write_bank = write_items = write_activation = _nothing
    write_checkpoint = clear_checkpoint = discard_generation = discard_generations = remove_all = _nothing


class SyntheticCollection(NormalizedCollection):
    def nearest(self, *arguments: Any, **options: Any) -> Any:
        raise NotImplementedError

    from_target = embedded = classmethod(nearest)
    _fold_target = _search_of_batches = _hits = nearest


def measure(count: int, bank_size: int, dimension: int) -> None:
    began = 0.0

    def progress(stage: str, done: int, total: int) -> None:
        nonlocal began
        if stage == "items" and not done:
            began = time.perf_counter()

    rng = np.random.default_rng(1)
    bank = rng.normal(size=(bank_size, dimension)).astype(np.float32)
    collection = SyntheticCollection(
        SyntheticStore(count, dimension), on_missing="raw", statistics_ttl=30.0, cache="none", cache_bytes=1
    )
    collection.fit(bank, method="is", progress=progress, backend="numpy")
    microseconds = 1e6 * (time.perf_counter() - began) / count
    print(f"{microseconds:.2f} {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f}")


def main() -> None:
    parser = argparse.ArgumentParser()
    for name, default in (("items", 1_000_000), ("bank", 10_000), ("dimension", 512), ("measure", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    arguments = parser.parse_args()
    if arguments.measure:
        measure(arguments.measure, arguments.bank, arguments.dimension)
        return
    print(f"{arguments.bank} bank vectors of {arguments.dimension} dimensions, float32")
    shape = ["--bank", str(arguments.bank), "--dimension", str(arguments.dimension)]
    first = None
    for count in (arguments.items // 10, arguments.items, arguments.items // 10):
        command = [sys.executable, __file__, *shape, "--measure", str(count)]
        result = subprocess.run(command, capture_output=True, text=True, check=True)
        microseconds, megabytes = (float(value) for value in result.stdout.split())
        first = first or microseconds
        print(
            f"{count:>9} items: {microseconds:8.1f} us an item ({microseconds / first:.2f} of the first),"
            f" at most {megabytes:.0f} MB resident",
            flush=True,
        )


if __name__ == "__main__":
    main()
