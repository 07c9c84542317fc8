"""Banks -> the biases of items: similarity as an inner product, the kernel, and the similarity scale.

The bias of an item against a bank is `(L - log m) / beta`, with `L` the log partition (METHODS: Bogolin et al., CVPR
2022, eq. 2; Wang et al., EMNLP 2023, eq. 4). With bank weights it is the bias of `sinkhorn` (Pan et al., ACM MM 2025).
The bias of `nnn` is `alpha` times the mean of the item's k largest similarities to the bank (Chowdhury et al., EMNLP
2024).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dbnorm_vdb.banks import Bank, Vectors
from dbnorm_vdb.kernels import BankKernel, make_kernel
from dbnorm_vdb.kernels.base import Reals
from dbnorm_vdb.statistics import Floats, Metric


@dataclass(frozen=True)
class FittedBank:
    """A bank as it is used: with its inverse temperature, and what `sinkhorn` and `nnn` need of it, if they do.

    Attributes:
        name: "query" or "gallery".
        bank: the m vectors.
        beta: inverse temperature.
        log_weights: (m,) logarithms of the weights, whose sum is m; None for no weighted bias.
        nnn: alpha and k of `nnn`; None for no such bias.
    """

    name: str
    bank: Bank
    beta: float
    log_weights: Floats | None = None
    nnn: tuple[float, int] | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """The biases that it gives an item."""
        return (*self.partitions, "nnn") if self.nnn else self.partitions

    @property
    def partitions(self) -> tuple[str, ...]:
        """Those of them that are log partitions."""
        return (self.name,) if self.log_weights is None else (self.name, "sinkhorn")


class BankBiases:
    """The biases of items against one bank, all from the same matrix product.

    Args:
        fitted: the bank.
        metric: how the collection compares vectors.
        nearest_k: keep this many nearest items of each bank vector; 0 for none.
        backend: "numpy", "torch" or "auto".
        precision: of the matrix product, see `make_kernel`.
        expected_items: about how many items will come, to choose a backend.
    """

    def __init__(
        self,
        fitted: FittedBank,
        metric: Metric,
        *,
        nearest_k: int = 0,
        backend: str = "auto",
        precision: str = "float32",
        expected_items: int = 0,
    ) -> None:
        self.fitted = fitted
        self._metric = metric
        self._log_size = float(np.log(len(fitted.bank)))
        rows, offsets = bank_side(fitted.bank.vectors, metric, fitted.beta)
        weights = offsets
        if fitted.log_weights is not None:
            plain = np.zeros(len(rows)) if offsets is None else offsets
            weights = np.stack([plain, plain + fitted.log_weights]).astype(rows.dtype)
        self.kernel: BankKernel = make_kernel(
            rows,
            [fitted.beta] * len(fitted.partitions),
            log_weights=weights,
            nearest_k=nearest_k,
            largest_k=fitted.nnn[1] if fitted.nnn else 0,
            backend=backend,
            precision=precision,
            expected_items=expected_items,
        )

    def of(self, vectors: Vectors) -> dict[str, Floats]:
        """The (n,) biases of the next (n, d) items, by name, on the similarity scale."""
        return self.of_items(item_side(vectors, self._metric))

    def of_items(self, items: Reals) -> dict[str, Floats]:
        """The same from the items' side of the inner products."""
        rows = dict(zip(self.fitted.columns, self.kernel.scan(items), strict=True))
        biases = {name: np.asarray((rows[name] - self._log_size) / self.fitted.beta) for name in self.fitted.partitions}
        if self.fitted.nnn:
            biases["nnn"] = np.asarray(self.fitted.nnn[0] * rows["nnn"])
        return biases


def bank_side(vectors: Vectors, metric: Metric, beta: float) -> tuple[Reals, Reals | None]:
    """Bank vectors and log weights such that inner products with `item_side` give the exponents' similarities.

    For Euclidean `-|b - g|^2 = <(2b, 1), (g, -|g|^2)> - |b|^2`: one more dimension, and `-beta |b|^2` as log weight
    (which leaves each bank vector's order of the items as it is). In float64, since the difference of large squares
    is small.
    """
    if metric is Metric.COSINE:
        return unit_length(vectors), None
    if metric is Metric.DOT:
        return vectors, None
    wide = vectors.astype(np.float64)
    return np.concatenate([2 * wide, np.ones((len(wide), 1))], axis=1), -beta * np.square(wide).sum(axis=1)


def item_side(vectors: Vectors, metric: Metric) -> Reals:
    """Items as inner-product vectors, the counterpart of `bank_side`."""
    if metric is Metric.COSINE:
        return unit_length(vectors)
    if metric is Metric.DOT:
        return vectors
    wide = vectors.astype(np.float64)
    return np.concatenate([wide, -np.square(wide).sum(axis=1, keepdims=True)], axis=1)


def unit_length(vectors: npt.NDArray[np.float32]) -> Vectors:
    """Rows scaled to length one; zero rows stay zero."""
    norms = np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64))
    norms[norms == 0] = 1.0
    return np.ascontiguousarray(vectors / norms[:, None], dtype=np.float32)
