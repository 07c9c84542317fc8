"""What is stored in the database: per collection (pydantic models) and per item (columns).

The models are read back as untrusted input: bounded in size, validated, and versioned.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Annotated, Any, Literal, TypeAlias
from uuid import UUID

import numpy as np
import numpy.typing as npt
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, FiniteFloat, ValidationError

from dbnorm_vdb.errors import StatisticsFormatError

FORMAT_VERSION = 1
MAX_STATE_BYTES = 64 * 1024
QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)

ItemId: TypeAlias = int | str | UUID
"""Integers and text; Qdrant's client may hand out UUID objects."""

Floats = npt.NDArray[np.float64]
Booleans = npt.NDArray[np.bool_]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0)]
Generation = Annotated[int, Field(ge=1, lt=2**53)]


class Metric(str, Enum):
    """How the collection compares vectors, on the similarity scale of this library (larger is nearer).

    `euclidean` similarities are negative *squared* distances, whatever the engine returns.
    """

    COSINE = "cosine"
    DOT = "dot"
    EUCLIDEAN = "euclidean"


class _Stored(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", str_max_length=1024)


class BiasSummary(_Stored):
    """How one bank's bias is spread over the gallery, on the similarity scale."""

    mean: FiniteFloat
    min: FiniteFloat
    max: FiniteFloat
    quantiles: Annotated[dict[str, FiniteFloat], Field(max_length=64)] = Field(default_factory=dict)


class BankStatistics(_Stored):
    """One bank, and what it says about the gallery as a whole."""

    beta: Positive
    size: Annotated[int, Field(ge=1)]
    fingerprint: str
    source: str = "array"
    bias: BiasSummary
    activation_k: Annotated[int, Field(ge=1)]
    activation_size: Count


class CollectionStatistics(_Stored):
    """One generation of statistics of one vector of a collection.

    Attributes:
        generation: identifies the per-item values that belong to these.
        method: the default method of searches.
        vector: the vector name or field; "" for Qdrant's unnamed vector.
        item_count: items that got statistics.
        skipped_count: items whose vector cannot be used (not finite, or longer than 1e18).
        lowest_dual_adjustment: smallest `sum_B w_B (b_B - mean b_B)` of an item over both banks (the bound of
            METHODS' certificate for `dual_is`; for one bank it is `bias.min - bias.mean`).
        candidates: the window a search fetches by default (more if it asks for more); None for
            `max(10 * limit, 100)`.
    """

    generation: Generation
    method: Literal["raw", "is", "dis", "dual_is", "dual_dis"]
    vector: str
    dimension: Annotated[int, Field(ge=1)]
    metric: Metric
    query: BankStatistics | None = None
    gallery: BankStatistics | None = None
    item_count: Count
    skipped_count: Count = 0
    lowest_dual_adjustment: FiniteFloat | None = None
    candidates: Annotated[int, Field(ge=1)] | None = None
    fitted_at: datetime
    library_version: str = ""

    @property
    def banks(self) -> dict[str, BankStatistics]:
        """The banks in use, by name ("query", "gallery")."""
        pairs = (("query", self.query), ("gallery", self.gallery))
        return {name: bank for name, bank in pairs if bank is not None}


class StoredItem(BaseModel):
    """One item's statistics in one generation, on the similarity scale."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    query: FiniteFloat | None = None
    gallery: FiniteFloat | None = None
    activated: tuple[Literal["query", "gallery"], ...] = Field(default=(), strict=False)


class FitClaim(_Stored):
    """Who is writing a generation, since when, and when they last said so."""

    generation: Generation
    host: str
    process: Annotated[int, Field(ge=1, lt=2**31)]
    token: str
    since: AwareDatetime
    renewed_at: AwareDatetime


class StoredState(_Stored):
    """All that this library keeps at the collection level: one document, replaced in one write.

    Attributes:
        active: the generation that searches use; None before the first fit has ended.
        writing: the claim of the fit that is writing (or was, when it was killed).
    """

    format_version: int = FORMAT_VERSION
    active: CollectionStatistics | None = None
    writing: FitClaim | None = None

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
    """What is stored per item, as columns of `n` items. A NaN bias means that the item has no statistics.

    Attributes:
        query_bias: (n,) bias against the query bank; all NaN if there is none.
        gallery_bias: (n,) bias against the gallery bank; all NaN if there is none.
        query_activated: (n,) whether the item is in the query bank's activation set.
        gallery_activated: (n,) the same for the gallery bank.
    """

    query_bias: Floats
    gallery_bias: Floats
    query_activated: Booleans
    gallery_activated: Booleans

    def __len__(self) -> int:
        return len(self.query_bias)

    @classmethod
    def unknown(cls, size: int) -> ItemStatistics:
        """Columns of `size` items without statistics, which may then be filled in."""
        return cls(
            np.full(size, np.nan),
            np.full(size, np.nan),
            np.zeros(size, dtype=np.bool_),
            np.zeros(size, dtype=np.bool_),
        )

    @classmethod
    def joined(cls, parts: Sequence[ItemStatistics]) -> ItemStatistics:
        """The columns of all parts, one after the other."""
        columns = [[part.query_bias, part.gallery_bias, part.query_activated, part.gallery_activated] for part in parts]
        return cls(*(np.concatenate(column) for column in zip(*columns, strict=True))) if parts else cls.unknown(0)

    def __getitem__(self, rows: slice) -> ItemStatistics:
        return ItemStatistics(
            self.query_bias[rows], self.gallery_bias[rows], self.query_activated[rows], self.gallery_activated[rows]
        )

    def put(self, row: int, stored: StoredItem) -> None:
        """Set the statistics of one item."""
        self.query_bias[row] = np.nan if stored.query is None else stored.query
        self.gallery_bias[row] = np.nan if stored.gallery is None else stored.gallery
        self.query_activated[row] = "query" in stored.activated
        self.gallery_activated[row] = "gallery" in stored.activated

    def fill(self, rows: Sequence[int], items: ItemStatistics) -> None:
        """Replace the statistics of the items at `rows`."""
        for bank in ("query", "gallery"):
            self.bias(bank)[rows] = items.bias(bank)
            self.activated(bank)[rows] = items.activated(bank)

    def bias(self, bank: str) -> Floats:
        """The bias column of a bank, "query" or "gallery"."""
        return self.query_bias if bank == "query" else self.gallery_bias

    def activated(self, bank: str) -> Booleans:
        """The activation column of a bank, "query" or "gallery"."""
        return self.query_activated if bank == "query" else self.gallery_activated
