"""Gallery pages -> kernel -> statistics. Streaming arithmetic only: reading and writing is the collection's part."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from itertools import compress
from typing import Any

import numpy as np
import numpy.typing as npt

from dbnorm_vdb.banks import Bank, Vectors, usable_vectors
from dbnorm_vdb.biases import BankBiases, FittedBank, bank_side, item_side
from dbnorm_vdb.calibration import Calibrator
from dbnorm_vdb.errors import EmptyCollectionError, InvalidParameterError, UnsupportedMethodError
from dbnorm_vdb.kernels import BACKENDS, PRECISIONS, SinkhornWeights, learn_weights, make_kernel
from dbnorm_vdb.kernels.threads import PROCESSORS
from dbnorm_vdb.methods import Method
from dbnorm_vdb.parameters import check_beta, check_count, check_finite
from dbnorm_vdb.statistics import (
    QUANTILES,
    BankStatistics,
    BiasSummary,
    Booleans,
    CollectionStatistics,
    Floats,
    ItemId,
    ItemStatistics,
    Metric,
    NnnStatistics,
    SinkhornStatistics,
)

STATE_FORMAT = 2
"""Of `GalleryFit.state`: what an older version has left is not gone on with."""

_PAGE_NUMBERS = 1 << 20
_LARGEST_PAGE = 4096

_QUANTILE_SAMPLE = 65_536


@dataclass(frozen=True)
class FitSettings:
    """What a fit computes, and how; validated when it is made.

    Attributes:
        method: the default method of searches.
        query_beta: inverse temperature of the query bank.
        gallery_beta: inverse temperature of the gallery bank.
        activation_k: how many nearest items each bank vector activates.
        iterations: item steps of `sinkhorn`.
        sample_size: how many items `sinkhorn` learns its bank weights on, at most.
        nnn_alpha: weight of the bias of `nnn`.
        nnn_k: how many largest similarities to the query bank it is the mean of.
        page_size: items read and computed at a time; None for about a million numbers, at most 4096 items.
        backend: "numpy", "torch" or "auto".
        precision: of the matrix product: "float32", or on torch "tf32" or "bfloat16".
    """

    method: Method = Method.DUAL_IS
    query_beta: float = 20.0
    gallery_beta: float = 10.0
    activation_k: int = 1
    iterations: int = 10
    sample_size: int = 50_000
    nnn_alpha: float = 0.5
    nnn_k: int = 10
    page_size: int | None = None
    backend: str = "auto"
    precision: str = "float32"

    def __post_init__(self) -> None:
        check_beta(self.query_beta, what="query_beta")
        check_beta(self.gallery_beta, what="gallery_beta")
        check_finite(self.nnn_alpha, what="nnn_alpha")
        for name in ("activation_k", "iterations", "sample_size", "nnn_k"):
            check_count(getattr(self, name), what=name)
        if self.page_size is not None:
            check_count(self.page_size, what="page_size")
        for name, known in (("backend", BACKENDS), ("precision", PRECISIONS)):
            if getattr(self, name) not in known:
                raise InvalidParameterError(f"{name} must be one of {', '.join(known)}, got {getattr(self, name)!r}")

    @classmethod
    def of(cls, statistics: CollectionStatistics, **execution: Any) -> FitSettings:
        """The settings that statistics were fitted with; `execution` gives page size, backend and precision."""
        fitted: dict[str, Any] = {f"{name}_beta": bank.beta for name, bank in statistics.banks.items()}
        (activation_k,) = {bank.activation_k for bank in statistics.banks.values()}
        if statistics.nnn is not None:
            fitted |= {"nnn_alpha": statistics.nnn.alpha, "nnn_k": statistics.nnn.k}
        return cls(Method(statistics.method), **fitted, activation_k=activation_k, **execution)

    def check_backend(self, metric: Metric) -> None:
        """Raise, before anything is written, if the backend is not there or cannot compute in that precision."""
        dtype = np.float64 if metric is Metric.EUCLIDEAN else np.float32
        make_kernel(np.ones((1, 1), dtype), [1.0], backend=self.backend, precision=self.precision)

    def items_at_a_time(self, dimension: int) -> int:
        """The size of a page of vectors of that dimension."""
        return self.page_size or max(1, min(_LARGEST_PAGE, _PAGE_NUMBERS // dimension))

    def beta(self, bank: str) -> float:
        """The inverse temperature of a bank, "query" or "gallery"."""
        return float(self.query_beta if bank == "query" else self.gallery_beta)

    def weights(self, banks: Iterable[str]) -> dict[str, float]:
        """What each bias of the default method (if that is raw: of all banks) is multiplied by; the sum is 1."""
        columns = self.method.columns or tuple(banks)
        betas = {column: self.beta(column) for column in columns}
        return {column: beta / sum(betas.values()) for column, beta in betas.items()}

    def fitted(self, name: str, bank: Bank, log_weights: Floats | None = None) -> FittedBank:
        """A bank as it is used; `log_weights`, and what `nnn` needs, are the query bank's."""
        if name != "query":
            return FittedBank(name, bank, self.beta(name))
        return FittedBank(name, bank, self.beta(name), log_weights, self.nnn)

    @property
    def nnn(self) -> tuple[float, int] | None:
        """Alpha and k of `nnn`, if that is the method."""
        return (float(self.nnn_alpha), int(self.nnn_k)) if self.method is Method.NNN else None

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


def learn_sinkhorn(
    bank: Bank, items: Vectors, metric: Metric, settings: FitSettings, report: Any = None
) -> SinkhornWeights:
    """The weights of a query bank, learned on (n, d) items (METHODS, `sinkhorn`)."""
    beta = settings.beta("query")
    rows, offsets = bank_side(bank.vectors, metric, beta)
    return learn_weights(
        rows,
        item_side(items, metric),
        beta,
        offsets=offsets,
        iterations=settings.iterations,
        backend=settings.backend,
        report=report,
    )


class GalleryFit:
    """Turns pages of items into biases, and sums up the gallery. Memory is bounded by blocks and banks.

    Args:
        metric: how the collection compares vectors.
        banks: by name, "query" and "gallery".
        settings: what to compute.
        log_weights: of the query bank, for `sinkhorn`.
        expected_items: about how many items will come, to choose a backend.
    """

    def __init__(
        self,
        *,
        metric: Metric,
        banks: Mapping[str, Bank],
        settings: FitSettings,
        log_weights: Floats | None = None,
        expected_items: int = 0,
    ) -> None:
        self._metric = metric
        self._settings = settings
        nearest_k = min(settings.activation_k, expected_items or settings.activation_k)
        self._passes = {
            name: BankBiases(
                settings.fitted(name, bank, log_weights),
                metric,
                nearest_k=nearest_k,
                backend=settings.backend,
                precision=settings.precision,
                expected_items=expected_items,
            )
            for name, bank in banks.items()
        }
        query = self._passes["query"].fitted if "query" in banks else None
        self._calibrator = (
            Calibrator(query, metric, settings.weights(banks)) if query is not None and len(query.bank) > 1 else None
        )
        columns = [column for one in self._passes.values() for column in one.fitted.columns]
        self._summaries = {column: _Summary() for column in columns}
        self._near = _NearItems(columns)
        self._dual = _Summary()
        self._count = 0
        self._skipped = 0

    def page(self, ids: Sequence[ItemId], vectors: Vectors) -> tuple[Booleans, dict[str, Floats]]:
        """Biases of the next items.

        Args:
            ids: of the n items.
            vectors: (n, d) float32, rows as stored.

        Returns:
            (n,) which items could be used (vectors that are not finite, or longer than 1e18, are skipped), and each
            bias of those.
        """
        usable = usable_vectors(vectors)
        self._skipped += int((~usable).sum())
        if not usable.all():
            vectors = vectors[usable]
        kept = [item for item, use in zip(ids, usable, strict=True) if use]
        if not kept:
            return usable, {name: np.empty(0) for name in self._summaries}
        items = item_side(vectors, self._metric)
        biases: dict[str, Floats] = {}
        with PROCESSORS.taken_over():  # for all of it: the library's threads stay busy a while after they have worked
            for bank in self._passes.values():
                biases.update(bank.of_items(items))
            if self._calibrator is not None:
                self._calibrator.page(items, biases)
        self._near.page(self._count, kept, biases, list(self._nearest().values()))
        for name, values in biases.items():
            self._summaries[name].add(values, self._count)
        if len(self._passes) == 2:
            self._dual.add(dual_bias(biases, self._settings), self._count)
        self._count += len(kept)
        return usable, biases

    def activated(self) -> tuple[list[ItemId], ItemStatistics]:
        """The items that are in some activation set, in the order they came, and their statistics.

        The activation set of a bank: the items among the `activation_k` nearest of at least one of its vectors.
        """
        return self._near.items(self._nearest())

    def _nearest(self) -> dict[str, npt.NDArray[np.int64]]:
        """For each bank, the positions of its vectors' nearest items, in no order and some several times."""
        nearest: dict[str, npt.NDArray[np.int64]] = {}
        for name, bank in self._passes.items():
            assert bank.kernel.nearest is not None
            positions = bank.kernel.nearest.position
            nearest[name] = positions[positions >= 0]
        return nearest

    def statistics(
        self,
        *,
        generation: int,
        vector: str,
        dimension: int,
        version: str,
        sinkhorn: tuple[int, Sequence[float]] | None = None,
    ) -> CollectionStatistics:
        """The collection-level statistics, after the last page; `sinkhorn` is its sample size and its changes.

        Raises:
            EmptyCollectionError: no item had a usable vector.
        """
        if not self._count:
            raise EmptyCollectionError(
                f"none of the collection's items has a usable vector {vector!r} ({self._skipped} were skipped);"
                " insert vectors, then fit"
            )
        biases = {name: summary.result() for name, summary in self._summaries.items()}
        sizes = {name: len(np.unique(positions)) for name, positions in self._nearest().items()}
        banks = {
            name: self._bank_statistics(bank.fitted, biases[name], sizes[name]) for name, bank in self._passes.items()
        }
        weighted = None
        if "sinkhorn" in biases:
            sample_size, changes = sinkhorn or (self._count, ())
            weighted = SinkhornStatistics(
                beta=self._settings.beta("query"),
                bias=biases["sinkhorn"],
                iterations=self._settings.iterations,
                sample_size=sample_size,
                changes=tuple(changes),
            )
        nnn = None
        if "nnn" in biases and self._settings.nnn is not None:
            alpha, k = self._settings.nnn
            nnn = NnnStatistics(alpha=alpha, k=k, bias=biases["nnn"])
        statistics = CollectionStatistics(
            generation=generation,
            method=self._settings.method.value,
            vector=vector,
            dimension=dimension,
            metric=self._metric,
            query=banks.get("query"),
            gallery=banks.get("gallery"),
            sinkhorn=weighted,
            nnn=nnn,
            item_count=self._count,
            fitted_item_count=self._count,
            skipped_count=self._skipped,
            lowest_dual_adjustment=self._dual.lowest - self._dual.total / self._count if len(banks) == 2 else None,
            fitted_at=datetime.now(timezone.utc),
            library_version=version,
        )
        if self._calibrator is None:
            return statistics
        return statistics.model_copy(update={"calibration": self._calibrator.result(statistics)})

    def _bank_statistics(self, fitted: FittedBank, bias: BiasSummary, activation_size: int) -> BankStatistics:
        return BankStatistics(
            beta=fitted.beta,
            size=len(fitted.bank),
            fingerprint=fitted.bank.fingerprint,
            source=fitted.bank.source[:200],
            bias=bias,
            activation_k=self._settings.activation_k,
            activation_size=activation_size,
        )

    # --- to go on after an interruption ------------------------------------------------------------------------

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """All that it has gathered so far, as arrays."""
        state: dict[str, npt.NDArray[Any]] = {"counts": np.array([self._count, self._skipped])}
        for name, summary in {**self._summaries, "dual": self._dual}.items():
            state |= {f"{name}.{key}": value for key, value in summary.state().items()}
        state |= {f"near.{key}": value for key, value in self._near.state().items()}
        for name, bank in self._passes.items():
            nearest = bank.kernel.nearest
            assert nearest is not None
            state |= {f"{name}.nearest.similarity": nearest.similarity, f"{name}.nearest.position": nearest.position}
        if self._calibrator is not None:
            state |= {f"calibrator.{key}": value for key, value in self._calibrator.state().items()}
        return state

    def restore(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        """Go on from what `state` returned, with the same banks and settings.

        Raises:
            ValueError, KeyError: it is not such a state.
        """
        for name, summary in {**self._summaries, "dual": self._dual}.items():
            summary.restore(_under(name, state))
        self._near.restore(_under("near", state))
        for name, bank in self._passes.items():
            similarity, position = (state[f"{name}.nearest.{what}"] for what in ("similarity", "position"))
            bank.kernel.resume(int(state["counts"][0]), similarity, position)
        if self._calibrator is not None:
            self._calibrator.restore(_under("calibrator", state))
        self._count, self._skipped = (int(count) for count in state["counts"])


def dual_bias(biases: Mapping[str, Floats], settings: FitSettings) -> Floats:
    """(n,) of `dual_is`: the biases against both banks, weighted by their inverse temperatures."""
    total = settings.query_beta + settings.gallery_beta
    weighted: Floats = (settings.query_beta * biases["query"] + settings.gallery_beta * biases["gallery"]) / total
    return weighted


def _under(name: str, state: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
    prefix = f"{name}."
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


@dataclass
class _Summary:
    """The running summary of one bias."""

    count: int = 0
    total: float = 0.0
    lowest: float = np.inf
    highest: float = -np.inf
    sample: Floats = field(default_factory=lambda: np.empty(0))
    stride: int = 1

    def add(self, biases: Floats, first: int) -> None:
        self.count += len(biases)
        self.total += float(biases.sum())
        self.lowest = min(self.lowest, float(biases.min()))
        self.highest = max(self.highest, float(biases.max()))
        # every stride-th bias of the gallery, thinned as it grows: a bounded sample for the quantiles
        self.sample = np.concatenate([self.sample, biases[(-first) % self.stride :: self.stride]])
        while len(self.sample) > _QUANTILE_SAMPLE:
            self.sample = self.sample[::2]
            self.stride *= 2

    def result(self) -> BiasSummary:
        values = np.quantile(self.sample, QUANTILES)
        return BiasSummary(
            mean=self.total / self.count,
            min=self.lowest,
            max=self.highest,
            quantiles={f"{q:g}": float(value) for q, value in zip(QUANTILES, values, strict=True)},
        )

    def state(self) -> dict[str, npt.NDArray[Any]]:
        sums = np.array([self.count, self.stride, self.total, self.lowest, self.highest])
        return {"sums": sums, "sample": self.sample}

    def restore(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        count, stride, self.total, self.lowest, self.highest = (float(value) for value in state["sums"])
        self.count, self.stride, self.sample = int(count), int(stride), state["sample"]


class _NearItems:
    """The items that are nearest to some bank vector: their ids, which the kernels do not know, and their biases.

    Others are let go of from time to time, so that memory is bounded by the banks and a page.

    Args:
        columns: the names of the biases.
    """

    def __init__(self, columns: Sequence[str]) -> None:
        self._columns = columns
        self._positions = np.empty(0, dtype=np.int64)
        self._ids: list[ItemId] = []
        self._biases = np.empty((0, len(columns)))

    def page(
        self,
        first: int,
        ids: Sequence[ItemId],
        biases: Mapping[str, Floats],
        nearest: Sequence[npt.NDArray[np.int64]],
    ) -> None:
        """Take in those items of a page, which begins at position `first`, that are now among the nearest."""
        new = np.unique(np.concatenate([positions[positions >= first] for positions in nearest])) - first
        self._positions = np.concatenate([self._positions, new + first])
        self._ids += [ids[row] for row in new.tolist()]
        self._biases = np.concatenate([self._biases, np.stack([biases[name][new] for name in self._columns], axis=1)])
        if len(self._ids) > 2 * sum(map(len, nearest)):
            self._keep(np.isin(self._positions, np.concatenate(nearest)))

    def _keep(self, rows: Booleans) -> None:
        self._positions, self._biases = self._positions[rows], self._biases[rows]
        self._ids = list(compress(self._ids, rows.tolist()))

    def items(self, nearest: Mapping[str, npt.NDArray[np.int64]]) -> tuple[list[ItemId], ItemStatistics]:
        """Ids and statistics of the nearest ones, in the order of their positions."""
        self._keep(np.isin(self._positions, np.concatenate(list(nearest.values()))))
        items = ItemStatistics.of_biases(len(self._ids), dict(zip(self._columns, self._biases.T, strict=True)))
        for name, positions in nearest.items():
            items.activated(name)[:] = np.isin(self._positions, positions)
        return list(self._ids), items

    def state(self) -> dict[str, npt.NDArray[Any]]:
        ids = json.dumps([item if isinstance(item, int) else str(item) for item in self._ids])
        return {
            "positions": self._positions,
            "ids": np.frombuffer(ids.encode(), dtype=np.uint8),
            "biases": self._biases,
        }

    def restore(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        self._positions, self._biases = state["positions"], state["biases"]
        self._ids = json.loads(state["ids"].tobytes())
