"""Gallery pages -> kernel -> statistics. Streaming arithmetic only: reading and writing is the collection's part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone

import numpy as np
import numpy.typing as npt

from dbnorm_vdb.banks import Bank, Vectors, usable_vectors
from dbnorm_vdb.errors import EmptyCollectionError, InvalidParameterError, UnsupportedMethodError
from dbnorm_vdb.kernels import BACKENDS, BankKernel, make_kernel
from dbnorm_vdb.kernels.base import Reals
from dbnorm_vdb.methods import FITTED_METHODS, Method
from dbnorm_vdb.parameters import check_beta, check_count
from dbnorm_vdb.statistics import (
    QUANTILES,
    BankStatistics,
    BiasSummary,
    Booleans,
    CollectionStatistics,
    Floats,
    ItemId,
    Metric,
)

_QUANTILE_SAMPLE = 65_536


@dataclass(frozen=True)
class FitSettings:
    """What a fit computes; validated when it is made.

    Attributes:
        method: the default method of searches.
        query_beta: inverse temperature of the query bank.
        gallery_beta: inverse temperature of the gallery bank.
        activation_k: how many nearest items each bank vector activates.
        page_size: items read, computed and written at a time.
        backend: "numpy", "torch" or "auto".
    """

    method: Method = Method.DUAL_IS
    query_beta: float = 20.0
    gallery_beta: float = 10.0
    activation_k: int = 1
    page_size: int = 1000
    backend: str = "auto"

    def __post_init__(self) -> None:
        check_beta(self.query_beta, what="query_beta")
        check_beta(self.gallery_beta, what="gallery_beta")
        check_count(self.activation_k, what="activation_k")
        check_count(self.page_size, what="page_size")
        if self.backend not in BACKENDS:
            raise InvalidParameterError(f"backend must be one of {', '.join(BACKENDS)}, got {self.backend!r}")
        if self.method not in FITTED_METHODS:
            raise UnsupportedMethodError(
                f"fit stores no statistics for method {self.method.value!r} (normalize() computes it in memory);"
                f" use one of {', '.join(method.value for method in FITTED_METHODS)}"
            )

    def beta(self, bank: str) -> float:
        """The inverse temperature of a bank, "query" or "gallery"."""
        return float(self.query_beta if bank == "query" else self.gallery_beta)

    def check_banks(self, given: Mapping[str, object]) -> None:
        """Raise UnsupportedMethodError unless the method's banks are given, and at least one bank is."""
        missing = [name for name in self.method.banks if given.get(name) is None]
        if missing:
            instead = "; or pick method='is', which needs no gallery bank" if missing == ["gallery"] else ""
            raise UnsupportedMethodError(
                f"method {self.method.value!r} needs a {missing[0]} bank: pass {missing[0]}_bank=...{instead}"
            )
        if not any(bank is not None for bank in given.values()):
            raise UnsupportedMethodError("nothing to fit: pass query_bank=... (and gallery_bank=... for dual_is)")


class GalleryFit:
    """Turns pages of items into biases, and sums up the gallery. Memory is bounded by blocks and banks.

    Args:
        metric: how the collection compares vectors.
        banks: by name, "query" and "gallery".
        settings: what to compute.
        expected_items: about how many items will come, to choose a backend.
    """

    def __init__(
        self, *, metric: Metric, banks: Mapping[str, Bank], settings: FitSettings, expected_items: int = 0
    ) -> None:
        self._metric = metric
        self._settings = settings
        self._passes = {
            name: _BankPass.start(bank, metric, settings.beta(name), settings, expected_items)
            for name, bank in banks.items()
        }
        self._banks = banks
        self._count = 0
        self._skipped = 0
        self._lowest_dual = np.inf

    def page(self, ids: Sequence[ItemId], vectors: Vectors) -> tuple[Booleans, dict[str, Floats]]:
        """Biases of the next items.

        Args:
            ids: of the n items.
            vectors: (n, d) float32, rows as stored.

        Returns:
            (n,) which items could be used (vectors that are not finite, or longer than 1e18, are skipped), and for
            each bank the biases of those.
        """
        usable = usable_vectors(vectors)
        self._skipped += int((~usable).sum())
        vectors = vectors[usable]
        kept = [item for item, use in zip(ids, usable, strict=True) if use]
        self._count += len(kept)
        if not kept:
            return usable, {name: np.empty(0) for name in self._passes}
        biases = {name: bank_pass.page(kept, vectors) for name, bank_pass in self._passes.items()}
        if len(biases) == 2:
            self._lowest_dual = min(self._lowest_dual, float(self._weighted(biases).min()))
        return usable, biases

    def activation_sets(self) -> dict[str, list[ItemId]]:
        """For each bank, the ids of the items among the `activation_k` nearest of at least one of its vectors."""
        return {name: bank_pass.activated() for name, bank_pass in self._passes.items()}

    def statistics(self, *, generation: int, vector: str, dimension: int, version: str) -> CollectionStatistics:
        """The collection-level statistics, after the last page.

        Raises:
            EmptyCollectionError: no item had a usable vector.
        """
        if not self._count:
            raise EmptyCollectionError(
                f"none of the collection's items has a usable vector {vector!r} ({self._skipped} were skipped);"
                " insert vectors, then fit"
            )
        banks = {name: bank_pass.statistics(self._banks[name]) for name, bank_pass in self._passes.items()}
        lowest = None
        if len(banks) == 2:
            means = {name: np.array([bank.bias.mean]) for name, bank in banks.items()}
            lowest = self._lowest_dual - float(self._weighted(means)[0])
        return CollectionStatistics(
            generation=generation,
            method=self._settings.method.value,
            vector=vector,
            dimension=dimension,
            metric=self._metric,
            query=banks.get("query"),
            gallery=banks.get("gallery"),
            item_count=self._count,
            skipped_count=self._skipped,
            lowest_dual_adjustment=lowest,
            fitted_at=datetime.now(timezone.utc),
            library_version=version,
        )

    def _weighted(self, biases: Mapping[str, Floats]) -> Floats:
        total = sum(self._settings.beta(name) for name in biases)
        weighted: Floats = np.sum([values * (self._settings.beta(name) / total) for name, values in biases.items()], 0)
        return weighted


@dataclass
class _BankPass:
    """One bank's pass over the gallery: its kernel, and the running summary of its biases."""

    kernel: BankKernel
    metric: Metric
    beta: float
    log_size: float
    activation_k: int
    count: int = 0
    total: float = 0.0
    lowest: float = np.inf
    highest: float = -np.inf
    sample: Floats = field(default_factory=lambda: np.empty(0))
    stride: int = 1
    nearest_ids: dict[int, ItemId] = field(default_factory=dict)

    @classmethod
    def start(cls, bank: Bank, metric: Metric, beta: float, settings: FitSettings, expected_items: int) -> _BankPass:
        rows, log_weights = bank_side(bank.vectors, metric, beta)
        kernel = make_kernel(
            rows,
            [beta],
            log_weights=log_weights,
            nearest_k=min(settings.activation_k, expected_items or settings.activation_k),
            backend=settings.backend,
            expected_items=expected_items,
        )
        return cls(kernel, metric, beta, float(np.log(len(bank))), settings.activation_k)

    def page(self, ids: Sequence[ItemId], vectors: Vectors) -> Floats:
        first = self.kernel.scanned
        partitions = self.kernel.scan(item_side(vectors, self.metric))[0]
        biases: Floats = (partitions - self.log_size) / self.beta
        self._summarize(biases, first)
        self._remember(ids, first)
        return biases

    def _summarize(self, biases: Floats, first: int) -> None:
        self.count += len(biases)
        self.total += float(biases.sum())
        self.lowest = min(self.lowest, float(biases.min()))
        self.highest = max(self.highest, float(biases.max()))
        # every stride-th bias of the gallery, thinned as it grows: a bounded sample for the quantiles
        self.sample = np.concatenate([self.sample, biases[(-first) % self.stride :: self.stride]])
        while len(self.sample) > _QUANTILE_SAMPLE:
            self.sample = self.sample[::2]
            self.stride *= 2

    def _remember(self, ids: Sequence[ItemId], first: int) -> None:
        """Keep the ids of the items that are nearest to some bank vector, and of no others."""
        assert self.kernel.nearest is not None
        positions = np.unique(self.kernel.nearest.position)
        kept = {int(p): self.nearest_ids[int(p)] for p in positions[(positions >= 0) & (positions < first)]}
        kept.update((int(p), ids[int(p) - first]) for p in positions[positions >= first])
        self.nearest_ids = kept

    def activated(self) -> list[ItemId]:
        return [self.nearest_ids[position] for position in sorted(self.nearest_ids)]

    def statistics(self, bank: Bank) -> BankStatistics:
        values = np.quantile(self.sample, QUANTILES)
        return BankStatistics(
            beta=self.beta,
            size=len(bank),
            fingerprint=bank.fingerprint,
            source=bank.source[:200],
            bias=BiasSummary(
                mean=self.total / self.count,
                min=self.lowest,
                max=self.highest,
                quantiles={f"{q:g}": float(value) for q, value in zip(QUANTILES, values, strict=True)},
            ),
            activation_k=self.activation_k,
            activation_size=len(self.nearest_ids),
        )


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
