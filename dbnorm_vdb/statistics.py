"""What is stored in the database: per collection (pydantic models) and per item (columns).

The models are read back as untrusted input: bounded in size, validated, and versioned.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from functools import cached_property
from typing import Annotated, Any, Literal, NamedTuple, TypeAlias
from uuid import UUID

import numpy as np
import numpy.typing as npt
from pydantic import AwareDatetime, ConfigDict, Field, FiniteFloat, ValidationError

if sys.version_info >= (3, 12):
    from typing import TypedDict
else:  # pydantic asks for it
    from typing_extensions import TypedDict

from dbnorm_vdb.errors import StatisticsFormatError
from dbnorm_vdb.stored import Count, Stored
from dbnorm_vdb.verdicts import Verdict

FORMAT_VERSION = 1
MAX_STATE_BYTES = 64 * 1024
BANKS = ("query", "gallery")
COLUMNS = ("query", "gallery", "sinkhorn", "nnn")
"""The biases an item may have: against each bank, against the weighted query bank, and that of `nnn`."""

BIAS_TOLERANCE = 2e-6
"""Stored biases that differ by less from what they should be, relatively or absolutely, are left as they are."""

EXACT_SHARE = 0.99
"""Of the held-out queries whose exact result the default window shall hold."""

CERTIFIED_SHARE = 0.9
"""Of the held-out queries whose result shall be certified in the first window of an exact search."""

QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)

ItemId: TypeAlias = int | str | UUID
"""Integers and text; Qdrant's client may hand out UUID objects."""

Floats = npt.NDArray[np.float64]
Booleans = npt.NDArray[np.bool_]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Generation = Annotated[int, Field(ge=1, lt=2**53)]


class Metric(str, Enum):
    """How the collection compares vectors, on the similarity scale of this library (larger is nearer).

    `euclidean` similarities are negative *squared* distances, whatever the engine returns.
    """

    COSINE = "cosine"
    DOT = "dot"
    EUCLIDEAN = "euclidean"


class BiasSummary(Stored):
    """How one bank's bias is spread over the gallery, on the similarity scale."""

    mean: FiniteFloat
    min: FiniteFloat
    max: FiniteFloat
    quantiles: Annotated[dict[str, FiniteFloat], Field(max_length=64)] = Field(default_factory=dict)


class BankStatistics(Stored):
    """One bank, and what it says about the gallery as a whole."""

    beta: Positive
    size: Annotated[int, Field(ge=1)]
    fingerprint: str
    source: str = "array"
    bias: BiasSummary
    activation_k: Annotated[int, Field(ge=1)]
    activation_size: Count


class SinkhornStatistics(Stored):
    """The bank weights of `sinkhorn`: how they were learned, and the bias they give.

    Attributes:
        beta: inverse temperature of the query bank, whose weights these are.
        bias: how the weighted bias is spread over the gallery.
        iterations: item steps.
        sample_size: the items that the weights were learned on.
        changes: how far the weights moved in each step, on the similarity scale: convergence.
    """

    beta: Positive
    bias: BiasSummary
    iterations: Annotated[int, Field(ge=1)]
    sample_size: Annotated[int, Field(ge=1)]
    changes: Annotated[tuple[FiniteFloat, ...], Field(max_length=1000)] = ()


class Calibration(Stored):
    """How large windows have to be, found on bank queries whose own vote was taken out of the biases.

    Attributes:
        limit: the results of a query that were looked at.
        query_count: the held-out queries.
        candidates: the smallest window that holds the exact result of `exact_share` of them.
        exact_share: at least 0.99, unless no window that was looked at suffices.
        certified_candidates: the smallest window in which the result of `certified_share` of them is certified.
        certified_share: at least 0.9, unless no window that was looked at suffices.
    """

    limit: Annotated[int, Field(ge=1)]
    query_count: Annotated[int, Field(ge=1)]
    candidates: Annotated[int, Field(ge=1)]
    exact_share: Annotated[float, Field(ge=0, le=1)]
    certified_candidates: Annotated[int, Field(ge=1)]
    certified_share: Annotated[float, Field(ge=0, le=1)]

    @property
    def suffices(self) -> bool:
        """Whether the window is large enough for what it promises; if not, there are hubs beyond any small one."""
        return self.exact_share >= EXACT_SHARE

    def window(self, wanted: int, *, certified: bool = False) -> int:
        """How many candidates to fetch for `wanted` results: in proportion, where it is more than were looked at."""
        window = self.certified_candidates if certified else self.candidates
        return math.ceil(window * max(1.0, wanted / self.limit))


class NnnStatistics(Stored):
    """The bias of `nnn`: `alpha` times the mean of an item's `k` largest similarities to the query bank.

    Attributes:
        alpha: weight of the mean.
        k: how many; all, if the bank has fewer.
        bias: how it is spread over the gallery.
    """

    alpha: FiniteFloat
    k: Annotated[int, Field(ge=1)]
    bias: BiasSummary


class BiasColumn(NamedTuple):
    """One per-item bias: its inverse temperature (1 if it has none), and how it is spread over the gallery."""

    beta: float
    bias: BiasSummary


class CollectionStatistics(Stored):
    """One generation of statistics of one vector of a collection.

    Attributes:
        generation: identifies the per-item values that belong to these.
        method: the default method of searches.
        vector: the vector name or field; "" for Qdrant's unnamed vector.
        sinkhorn: of the method `sinkhorn`, where that was fitted.
        nnn: of the method `nnn`, where that was fitted.
        item_count: items that got statistics, in the fit or the last refresh.
        fitted_item_count: items that got statistics in the fit.
        skipped_count: items whose vector cannot be used (not finite, or longer than 1e18).
        absent_count: items that did not have the vector.
        lowest_dual_adjustment: smallest `sum_B w_B (b_B - mean b_B)` of an item over both banks (the bound of
            METHODS' certificate for `dual_is`; for one bank it is `bias.min - bias.mean`).
        revision: refreshes since the fit.
        refreshed_at: when the last one was.
        calibration: of the window that a search fetches by default; None where there is no query bank to calibrate
            it with: then it is `max(10 * limit, 100)`.
        verdict: of the labelled queries that the fit was given; None if it was given none.
    """

    generation: Generation
    method: Literal["raw", "is", "dis", "dual_is", "dual_dis", "nnn", "sinkhorn"]
    vector: str
    dimension: Annotated[int, Field(ge=1)]
    metric: Metric
    query: BankStatistics | None = None
    gallery: BankStatistics | None = None
    sinkhorn: SinkhornStatistics | None = None
    nnn: NnnStatistics | None = None
    item_count: Count
    fitted_item_count: Count | None = None
    skipped_count: Count = 0
    absent_count: Count = 0
    lowest_dual_adjustment: FiniteFloat | None = None
    calibration: Calibration | None = None
    verdict: Verdict | None = None
    fitted_at: datetime
    revision: Count = 0
    refreshed_at: datetime | None = None
    library_version: str = ""

    @cached_property
    def banks(self) -> dict[str, BankStatistics]:
        """The banks in use, by name ("query", "gallery")."""
        pairs = (("query", self.query), ("gallery", self.gallery))
        return {name: bank for name, bank in pairs if bank is not None}

    @cached_property
    def columns(self) -> dict[str, BiasColumn]:
        """The biases that every item has, by name."""
        columns = {name: BiasColumn(bank.beta, bank.bias) for name, bank in self.banks.items()}
        if self.sinkhorn is not None:
            columns["sinkhorn"] = BiasColumn(self.sinkhorn.beta, self.sinkhorn.bias)
        if self.nnn is not None:
            columns["nnn"] = BiasColumn(1.0, self.nnn.bias)
        return columns

    @cached_property
    def derived(self) -> dict[Any, Any]:
        """What follows from these statistics alone, kept for the next search by whoever computed it."""
        return {}

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> CollectionStatistics:
        """As ever, but without what was computed from the fields before some of them changed."""
        copied = super().model_copy(update=update, deep=deep)
        for computed in copied.__dict__.keys() - type(self).model_fields.keys():
            del copied.__dict__[computed]
        return copied

    def widened(self, bounds: Sequence[BiasBounds]) -> CollectionStatistics:
        """These statistics with bias ranges that include those of `bounds`, as far as they are of this generation."""
        changed: dict[str, Any] = {}
        for name, column in self.columns.items():
            ranges = [b.ranges[name] for b in bounds if b.generation == self.generation and name in b.ranges]
            low, high = (
                min([column.bias.min, *(r[0] for r in ranges)]),
                max([column.bias.max, *(r[1] for r in ranges)]),
            )
            if (low, high) != (column.bias.min, column.bias.max):
                bias = column.bias.model_copy(update={"min": low, "max": high})
                changed[name] = getattr(self, name).model_copy(update={"bias": bias})
        lows = [b.lowest_dual for b in bounds if b.generation == self.generation and b.lowest_dual is not None]
        if self.lowest_dual_adjustment is not None and lows:
            changed["lowest_dual_adjustment"] = min(self.lowest_dual_adjustment, *lows)
        return self.model_copy(update=changed) if changed else self


class BiasBounds(Stored):
    """How far items written after a fit reach beyond the ranges it found. Written before those items, never changed.

    Attributes:
        generation: the statistics they belong to.
        ranges: for each bias, its smallest and largest value.
        lowest_dual: smallest `lowest_dual_adjustment` of these items.
        written_at: when; a refresh that begins some time later has seen the items and takes their place.
    """

    generation: Generation
    ranges: Annotated[dict[str, tuple[FiniteFloat, FiniteFloat]], Field(max_length=16)]
    lowest_dual: FiniteFloat | None = None
    written_at: AwareDatetime


class StoredItem(TypedDict, total=False):
    """One item's statistics in one generation, on the similarity scale."""

    __pydantic_config__ = ConfigDict(extra="ignore", strict=True)  # type: ignore[misc]

    query: FiniteFloat | None
    gallery: FiniteFloat | None
    sinkhorn: FiniteFloat | None
    nnn: FiniteFloat | None
    activated: Annotated[tuple[Literal["query", "gallery"], ...], Field(strict=False)]


class FitClaim(Stored):
    """Who is writing a generation, since when, and when they last said so.

    `work` identifies what is being fitted (banks, betas, vector): a fit of the same work may go on where a dead one
    stopped.
    """

    generation: Generation
    host: str
    process: Annotated[int, Field(ge=1, lt=2**31)]
    token: str
    work: str = ""
    since: AwareDatetime
    renewed_at: AwareDatetime


class StoredState(Stored):
    """All that this library keeps at the collection level: one document, replaced in one write.

    Attributes:
        active: the generation that searches use; None before the first fit has ended.
        writing: the claim of the fit that is writing (or was, when it was killed).
        rejected: the generation of the last fit, if that was written and not activated, since its verdict was against
            it. What it wrote is gone.
    """

    format_version: int = FORMAT_VERSION
    active: CollectionStatistics | None = None
    writing: FitClaim | None = None
    rejected: CollectionStatistics | None = None

    def dump(self) -> dict[str, Any]:
        """The document as JSON types."""
        return self.model_dump(mode="json", exclude_none=True)

    @classmethod
    def load(cls, stored: object, *, collection: str) -> StoredState | None:
        """Read the document back: JSON text or JSON types; None and "" mean that there is none.

        Raises:
            StatisticsFormatError: too large, not ours, invalid, or of another format version.
        """
        if stored is None or stored == "":
            return None
        try:
            text = stored if isinstance(stored, str) else json.dumps(stored)
            if len(text.encode()) > MAX_STATE_BYTES:
                raise ValueError(f"{len(text.encode())} bytes, more than {MAX_STATE_BYTES}")
            document = json.loads(text)
            version = document["format_version"]
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise StatisticsFormatError(
                f"collection {collection!r}: what is stored under the key 'dbnorm' is not statistics of this library"
                f" ({type(error).__name__}: {error}); drop() removes it, then fit() again"
            ) from error
        if version != FORMAT_VERSION:
            raise StatisticsFormatError(
                f"collection {collection!r}: its statistics have format version {version!r}, this library reads"
                f" {FORMAT_VERSION}; use the library that wrote them, or drop() and fit() again"
            )
        try:
            return cls.model_validate(document)
        except ValidationError as error:
            raise StatisticsFormatError(
                f"collection {collection!r}: its statistics are damaged: {_first(error)}; drop() and fit() again"
            ) from error


def _first(error: ValidationError) -> str:
    detail = error.errors(include_url=False)[0]
    return f"{'.'.join(str(part) for part in detail['loc'])}: {detail['msg']}"


@dataclass(frozen=True)
class ItemStatistics:
    """What is stored per item, as columns of `n` items. A NaN bias means that the item has no such statistic.

    Attributes:
        query_bias: (n,) bias against the query bank; all NaN if there is none.
        gallery_bias: (n,) bias against the gallery bank; all NaN if there is none.
        query_activated: (n,) whether the item is in the query bank's activation set.
        gallery_activated: (n,) the same for the gallery bank.
        sinkhorn_bias: (n,) bias against the query bank with the weights of `sinkhorn`; all NaN by default.
        nnn_bias: (n,) bias of `nnn`; all NaN by default.
    """

    query_bias: Floats
    gallery_bias: Floats
    query_activated: Booleans
    gallery_activated: Booleans
    sinkhorn_bias: Floats = field(default_factory=lambda: np.empty(0))
    nnn_bias: Floats = field(default_factory=lambda: np.empty(0))

    def __post_init__(self) -> None:
        for name in ("sinkhorn_bias", "nnn_bias"):
            if len(getattr(self, name)) != len(self.query_bias):
                object.__setattr__(self, name, np.full(len(self.query_bias), np.nan))

    def __len__(self) -> int:
        return len(self.query_bias)

    @classmethod
    def unknown(cls, size: int) -> ItemStatistics:
        """Columns of `size` items without statistics, which may then be filled in."""
        biases = np.empty((len(COLUMNS), size))
        biases.fill(np.nan)
        query, gallery, *others = biases
        in_query, in_gallery = np.zeros((len(BANKS), size), dtype=np.bool_)
        return cls(query, gallery, in_query, in_gallery, *others)

    @classmethod
    def of_biases(cls, size: int, biases: Mapping[str, Floats]) -> ItemStatistics:
        """Columns of `size` items with these biases, in no activation set."""
        items = cls.unknown(size)
        for name, values in biases.items():
            items.bias(name)[:] = values
        return items

    @classmethod
    def joined(cls, parts: Sequence[ItemStatistics]) -> ItemStatistics:
        """The columns of all parts, one after the other."""
        columns = zip(*(part._columns() for part in parts), strict=True)
        return cls(*(np.concatenate(column) for column in columns)) if parts else cls.unknown(0)

    def __getitem__(self, rows: slice | npt.NDArray[Any]) -> ItemStatistics:
        return ItemStatistics(*(column[rows] for column in self._columns()))

    def put(self, rows: Sequence[int], stored: Sequence[StoredItem]) -> None:
        """Set the statistics of the items at `rows`, which have none yet."""
        there = set[str]().union(*stored)
        for name in there.intersection(COLUMNS):
            values = [item.get(name) for item in stored]
            self.bias(name)[rows] = np.array(values, dtype=np.float64)  # None becomes NaN
        if "activated" in there:
            for row, item in zip(rows, stored, strict=True):
                for bank in item.get("activated", ()):
                    self.activated(bank)[row] = True

    def known(self) -> Booleans:
        """(n,) whether there are any statistics of an item."""
        known: Booleans = np.logical_or.reduce([self.bias(name) == self.bias(name) for name in COLUMNS])  # not NaN
        return known

    def fill(self, rows: Sequence[int] | npt.NDArray[Any], items: ItemStatistics) -> None:
        """Replace the statistics of the items at `rows`."""
        for own, other in zip(self._columns(), items._columns(), strict=True):
            own[rows] = other

    def bias(self, name: str) -> Floats:
        """A bias column: "query", "gallery", "sinkhorn" or "nnn"."""
        column: Floats = getattr(self, f"{name}_bias")
        return column

    def activated(self, bank: str) -> Booleans:
        """The activation column of a bank, "query" or "gallery"."""
        column: Booleans = getattr(self, f"{bank}_activated")
        return column

    def activation_sets(self) -> list[tuple[str, ...]]:
        """For each item, the banks in whose activation set it is."""
        return [
            tuple(bank for bank, there in zip(BANKS, flags, strict=True) if there)
            for flags in zip(*(self.activated(bank).tolist() for bank in BANKS), strict=True)
        ]

    def _columns(self) -> tuple[npt.NDArray[Any], ...]:
        return (
            self.query_bias,
            self.gallery_bias,
            self.query_activated,
            self.gallery_activated,
            self.sinkhorn_bias,
            self.nnn_bias,
        )
