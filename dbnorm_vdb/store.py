"""The seam: what an engine's adapter implements for one collection."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dbnorm_vdb.banks import Vectors
from dbnorm_vdb.statistics import Floats, ItemId, Metric, StoredState

KEY = "dbnorm"
BANKS = ("query", "gallery")
ITEMS_SUFFIX = "__dbnorm"
BANK_SUFFIX = "__dbnorm_bank"
SLOTS = ("", "_alt")


def slot(generation: int) -> str:
    """What stands behind the names of a generation's companion collections.

    Generations that follow each other take turns, so that one can be written, and the other removed by dropping
    collections, while searches use either.
    """
    return SLOTS[generation % 2]


def first_bank_id(bank: str) -> int:
    """The id of a bank's first vector in the companion collection; the others follow."""
    return BANKS.index(bank) << 32


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
    def describe(self, *, fresh: bool = False) -> VectorInfo:
        """The vector, checked: it exists, is dense, and its metric is supported.

        Args:
            fresh: ask the database again; else what it said last will do.
        """

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
    def check_writable(self) -> None:
        """Raise ForeignDataError if a name to be written under is taken by data that is not ours."""

    @abstractmethod
    def has_companions(self) -> bool:
        """Whether some companion collection of ours exists, whatever the state says."""

    @abstractmethod
    def begin(self, generation: int, dimension: int) -> None:
        """Make room for a generation, empty; `dimension` is that of the banks."""

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
