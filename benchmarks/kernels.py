"""How much the kernels cost beyond the matrix product they contain.

    .venv/bin/python benchmarks/kernels.py [--items 50000] [--bank 10000] [--dimension 512] [--repeats 3]

Prints ratios to the bare product of the same shapes in the same blocks, measured in turn in one run: medians over the
repeats of time / time of the product beside it.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import time
from collections.abc import Callable

import numpy as np

from dbnorm_vdb.kernels import make_kernel
from dbnorm_vdb.kernels.base import BANK_BLOCK, ITEM_BLOCK


def product_numpy(items: np.ndarray, bank: np.ndarray) -> None:
    """Every block of items @ bank.T, into one buffer."""
    columns = bank.T
    buffer = np.empty(ITEM_BLOCK * BANK_BLOCK, dtype=np.float32)
    for start in range(0, len(items), ITEM_BLOCK):
        block = items[start : start + ITEM_BLOCK]
        for first in range(0, len(bank), BANK_BLOCK):
            part = columns[:, first : first + BANK_BLOCK]
            shape = (len(block), part.shape[1])
            np.matmul(block, part, out=buffer[: shape[0] * shape[1]].reshape(shape))


def product_torch(items: np.ndarray, bank: np.ndarray) -> None:
    """The same in torch."""
    import torch

    columns, rows = torch.from_numpy(bank).T, torch.from_numpy(items)
    buffer = torch.empty(ITEM_BLOCK * BANK_BLOCK)
    for start in range(0, len(items), ITEM_BLOCK):
        block = rows[start : start + ITEM_BLOCK]
        for first in range(0, len(bank), BANK_BLOCK):
            part = columns[:, first : first + BANK_BLOCK]
            shape = (len(block), part.shape[1])
            torch.mm(block, part, out=buffer[: shape[0] * shape[1]].view(shape))


def main() -> None:
    parser = argparse.ArgumentParser()
    for name, default in (("items", 50_000), ("bank", 10_000), ("dimension", 512), ("repeats", 3)):
        parser.add_argument(f"--{name}", type=int, default=default)
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)

    def vectors(count: int) -> np.ndarray:
        rows = rng.normal(size=(count, arguments.dimension)).astype(np.float32)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    items, bank = vectors(arguments.items), vectors(arguments.bank)
    weights = rng.normal(size=len(bank)).astype(np.float32)
    cases: dict[str, Callable[[str], None]] = {
        "log partitions, beta 20": lambda b: run(b, [20.0], 0),
        "log partitions, beta 200": lambda b: run(b, [200.0], 0),
        "three betas": lambda b: run(b, [10.0, 20.0, 50.0], 0),
        "with bank weights": lambda b: run(b, [20.0], 0, weights),
        "with activation sets, k = 1": lambda b: run(b, [20.0], 1),
        "with activation sets, k = 10": lambda b: run(b, [20.0], 10),
    }

    def run(backend: str, betas: list[float], k: int, log_weights: np.ndarray | None = None) -> None:
        make_kernel(bank, betas, log_weights=log_weights, nearest_k=k, backend=backend).scan(items)

    print(f"{arguments.items} items and {arguments.bank} bank vectors of {arguments.dimension} dimensions, float32")
    print(f"{'':32}{'time / product':>15}{'product, s':>12}")
    for backend, product in (("numpy", product_numpy), ("torch", product_torch)):
        if importlib.util.find_spec(backend) is None:
            print(f"{backend}: not installed")
            continue
        product(items[:2048], bank)
        for name, case in cases.items():
            ratios, products = [], []
            for _ in range(arguments.repeats):
                bare, own = timed(product, items, bank), timed(case, backend)
                ratios.append(own / bare)
                products.append(bare)
            print(f"{backend + ': ' + name:36}{statistics.median(ratios):>11.2f}{statistics.median(products):>12.2f}")


def timed(call: Callable[..., None], *arguments: object) -> float:
    """Seconds that a call takes."""
    started = time.perf_counter()
    call(*arguments)
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
