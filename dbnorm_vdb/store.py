"""The seam: what an engine's adapter implements for one collection."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dbnorm_vdb.banks import Vectors
from dbnorm_vdb.statistics import Floats, ItemId, Metric, StoredState

BANK_SUFFIX = "__dbnorm_bank"


@dataclass(frozen=True)
class VectorInfo:
    """The vector an adapter works on, as the engine describes it.

    Attributes:
        name: vector name or field; "" for Qdrant's unnamed vector.
        dimension: its number of dimensions.
        metric: how the engine compares it.
    """

    name: str
    dimension: int
    metric: Metric


@dataclass(frozen=True)
class Page:
    """Some of a collection's items: n ids and (n, d) float32 vectors."""

    ids: list[ItemId]
    vectors: Vectors


@dataclass(frozen=True)
class Hit:
    """One search result in engine-neutral form: id, score on the engine's scale, payload or fields."""

    id: ItemId
    score: float
    payload: Mapping[str, Any]


class Store(ABC):
    """What the core asks of one collection of an engine. Errors of the client pass through.

    An adapter's store only moves data: it knows no formulas. It writes nothing but what `write_*` and `begin` are
    given, under names that end in `__dbnorm...` or a key named `dbnorm`.
    """

    collection: str
    engine: str
    max_window: int

    @abstractmethod
    def close(self) -> None:
        """Close the client."""

    @abstractmethod
    def describe(self) -> VectorInfo:
        """The vector, checked: it exists, is dense, and its metric is supported."""

    @abstractmethod
    def count(self) -> int:
        """The number of items in the collection."""

    @abstractmethod
    def count_fitted(self, generation: int) -> int:
        """The number of items with statistics of a generation."""

    @abstractmethod
    def pages(self, size: int) -> Iterator[Page]:
        """All items that have the vector, in pages of at most `size`."""

    @abstractmethod
    def ids(self) -> Iterator[list[ItemId]]:
        """The ids of all items, in pages."""

    @abstractmethod
    def fetch(self, ids: Sequence[ItemId]) -> Page:
        """The items of those ids that exist and have the vector, in any order."""

    @abstractmethod
    def read_state(self) -> object:
        """What is stored at the collection level: JSON text, JSON types, or None."""

    @abstractmethod
    def write_state(self, state: StoredState | None) -> None:
        """Replace it in one write; None removes it."""

    @abstractmethod
    def check_writable(self, *, known: bool) -> None:
        """Raise ForeignDataError if a name to be written under is taken by data that is not ours.

        Args:
            known: whether the collection-level state exists, so that per-item values are expected to be ours.
        """

    @abstractmethod
    def begin(self, generation: int, dimension: int) -> None:
        """Make room for a generation, empty."""

    @abstractmethod
    def write_bank(self, generation: int, bank: str, vectors: Vectors) -> None:
        """Store a bank's (m, d) vectors."""

    @abstractmethod
    def read_bank(self, generation: int, bank: str) -> Vectors:
        """A stored bank's vectors, in the order they were written."""

    @abstractmethod
    def write_items(self, generation: int, ids: Sequence[ItemId], biases: Mapping[str, Floats]) -> None:
        """Store the biases of n items. Items that no longer exist are passed over."""

    @abstractmethod
    def write_activation_sets(self, generation: int, members: Mapping[str, Sequence[ItemId]]) -> None:
        """Mark the members of each bank's activation set, after all items were written."""

    @abstractmethod
    def discard_generations(self, *, keep: int | None) -> None:
        """Remove what all other generations left."""

    @abstractmethod
    def remove_all(self) -> None:
        """Remove everything of ours but the collection-level state."""
