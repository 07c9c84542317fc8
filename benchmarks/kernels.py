"""What the kernels cost: beside the matrix product that they contain, and beside other packages.

    python benchmarks/kernels.py [--items 50000] [--bank 10000] [--dimension 512] [--repeats 3] [--only TEXT]

Prints ratios to the bare product of the same shapes in the same blocks, measured in turn in one run: medians over the
repeats of time / time of the product beside it. Then, for the other packages that are installed, the time of their
bias computation / ours. They need an environment of their own (kiez asks for numpy 1 and an older scikit-learn), with
this repository on its path:

    pip install torch nnn-retrieval kiez faiss-cpu "scikit-learn<1.6" "numpy<2" pydantic
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import os
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from dbnorm_vdb.kernels import learn_weights, make_kernel
from dbnorm_vdb.kernels.blocks import CPU_BLOCKS

ITEM_BLOCK, BANK_BLOCK = CPU_BLOCKS.items, CPU_BLOCKS.bank


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


PRODUCTS = {"numpy": product_numpy, "torch": product_torch}


def kernel_cases(items: np.ndarray, bank: np.ndarray) -> dict[str, Callable[[str], object]]:
    """What is timed beside the product, for each backend."""
    weights = np.random.default_rng(1).normal(size=len(bank)).astype(np.float32)
    rows = np.stack([np.zeros_like(weights), weights])

    def scan(
        betas: list[float], k: int, log_weights: np.ndarray | None = None, *, largest_k: int = 0
    ) -> Callable[[str], object]:
        return lambda b: make_kernel(
            bank, betas, log_weights=log_weights, nearest_k=k, largest_k=largest_k, backend=b
        ).scan(items)

    return {
        "log partitions, beta 20": scan([20.0], 0),
        "log partitions, beta 200": scan([200.0], 0),
        "three betas": scan([10.0, 20.0, 50.0], 0),
        "with bank weights": scan([20.0], 0, weights),
        "plain and weighted": scan([20.0, 20.0], 0, rows),
        "with activation sets, k = 1": scan([20.0], 1),
        "with activation sets, k = 10": scan([20.0], 10),
        "with the mean of the 10 largest (nnn)": scan([20.0], 0, largest_k=10),
        "one pass of sinkhorn, beta 20": lambda b: learn_weights(bank, items, 20.0, iterations=2, backend=b),
        "one pass of sinkhorn, beta 200": lambda b: learn_weights(bank, items, 200.0, iterations=2, backend=b),
    }


def nnn_cases(items: np.ndarray, bank: np.ndarray) -> Iterator[tuple[str, Callable[[], object]]]:
    """nnn-retrieval: `alpha` times the mean of the k largest similarities to the bank."""
    import torch
    from nnn import NNNRetriever

    tensors = torch.from_numpy(items), torch.from_numpy(bank)
    for k, batch in ((256, 128), (10, 128), (10, 512)):  # the package's defaults first
        retriever = NNNRetriever(items.shape[1])
        yield (
            f"nnn-retrieval, mean of the {k} largest, batches of {batch}",
            lambda r=retriever, k=k, batch=batch: r.compute_alignment_means(*tensors, k, batch),
        )


def kiez_cases(items: np.ndarray, bank: np.ndarray) -> Iterator[tuple[str, Callable[[], object]]]:
    """kiez: the fit of a hubness reduction, which finds the items' k nearest in the bank."""
    from kiez.hubness_reduction import CSLS, DisSimLocal
    from kiez.neighbors import Faiss, SklearnNN

    def neighbours() -> object:
        return SklearnNN(n_candidates=10, algorithm="brute", metric="euclidean", n_jobs=-1)

    yield "kiez, CSLS fit, k = 10, by scikit-learn", lambda: CSLS(nn_algo=neighbours()).fit(bank, items)
    yield "kiez, DisSimLocal fit, k = 10, by scikit-learn", lambda: DisSimLocal(nn_algo=neighbours()).fit(bank, items)
    if importlib.util.find_spec("faiss"):
        yield (
            "kiez, CSLS fit, k = 10, by faiss",
            lambda: CSLS(nn_algo=Faiss(n_candidates=10, metric="euclidean", index_key="Flat")).fit(bank, items),
        )


OTHERS = {"nnn": nnn_cases, "kiez": kiez_cases}


def main() -> None:
    parser = argparse.ArgumentParser()
    for name, default in (("items", 50_000), ("bank", 10_000), ("dimension", 512), ("repeats", 3)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--only", default="", help="only the lines with this text")
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)

    def vectors(count: int) -> np.ndarray:
        rows = rng.normal(size=(count, arguments.dimension)).astype(np.float32)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    items, bank = vectors(arguments.items), vectors(arguments.bank)
    backends = [backend for backend in PRODUCTS if importlib.util.find_spec(backend)]
    print(f"{arguments.items} items and {arguments.bank} bank vectors of {arguments.dimension} dimensions, float32")
    print(f"{'':60}{'time / product':>15}{'product, s':>12}")
    for backend in backends:
        product = PRODUCTS[backend]
        product(items[:2048], bank)
        for name, case in kernel_cases(items, bank).items():
            line = f"{backend}: {name}"
            if arguments.only in line:
                compare(line, lambda c=case, b=backend: c(b), lambda p=product: p(items, bank), arguments.repeats)

    print("\nTime of another package's bias computation / of our log partitions (beta 20), for the same items and bank")
    print(f"{'':60}{'theirs / ours':>15}{'ours, s':>12}")
    for package, cases in OTHERS.items():
        if importlib.util.find_spec(package) is None:
            print(f"{package}: not installed, see the head of this file")
            continue
        for backend in backends:
            for name, case in cases(items, bank):
                line = f"{name} / {backend}"
                if arguments.only in line:
                    ours = make_kernel(bank, [20.0], backend=backend)
                    compare(line, case, lambda kernel=ours: kernel.scan(items), arguments.repeats)


def compare(line: str, case: Callable[[], object], reference: Callable[[], object], repeats: int) -> None:
    """Print the median ratio of two times, measured in turn."""
    ratios, references = [], []
    for _ in range(repeats):
        beside = timed(reference)
        ratios.append(timed(case) / beside)
        references.append(beside)
    print(f"{line:60}{statistics.median(ratios):>15.2f}{statistics.median(references):>12.2f}", flush=True)


def timed(call: Callable[[], object]) -> float:
    """Seconds that a call takes, without its progress bars and warnings."""
    with warnings.catch_warnings(), Path(os.devnull).open("w") as nowhere, contextlib.redirect_stderr(nowhere):
        warnings.simplefilter("ignore")
        started = time.perf_counter()
        call()
        return time.perf_counter() - started


if __name__ == "__main__":
    main()
