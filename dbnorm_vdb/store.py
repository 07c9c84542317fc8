"""The seam: what an engine's adapter implements for one collection."""

from __future__ import annotations

import base64
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dbnorm_vdb.banks import Vectors
from dbnorm_vdb.lookup import StatisticsLookup
from dbnorm_vdb.statistics import BANKS, Floats, ItemId, ItemStatistics, Metric

KEY = "dbnorm"
BOUNDS_KEY = "dbnorm_bounds_"
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
    given, under names that end in `__dbnorm...` or keys that begin with `dbnorm`.

    Attributes:
        collection: its name.
        engine: the engine's name, for messages.
        max_window: the most hits that the engine returns.
        batch_size: items written in one request, unless told otherwise.
    """

    collection: str
    engine: str
    max_window: int
    batch_size: int

    @property
    @abstractmethod
    def described(self) -> bool:
        """Whether `describe` knows the answer without asking the database."""

    @property
    @abstractmethod
    def concurrent(self) -> bool:
        """Whether the client may be used from several threads: true for a server."""

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
        """The number of items in the collection, those included that somebody has just written."""

    @abstractmethod
    def count_fitted(self, generation: int, *, just_written: bool = False) -> int:
        """The number of items with statistics of a generation.

        Args:
            generation: which.
            just_written: by the fit that asks, so that nothing of another one is where these are.
        """

    @abstractmethod
    def pages(self, size: int, *, after: ItemId | None = None) -> Iterator[Page]:
        """All items that have the vector, or those after an id, in the order of ids, in pages of at most `size`.

        At least those that were there when `count` was asked last.
        """

    @abstractmethod
    def ids(self) -> Iterator[list[ItemId]]:
        """The ids of all items, in pages."""

    @abstractmethod
    def fetch(self, ids: Sequence[ItemId]) -> Page:
        """The items of those ids that exist and have the vector, in any order."""

    @abstractmethod
    def ids_of(self, keys: Sequence[str]) -> list[ItemId]:
        """The ids, in the engine's own type, that are written so as text; without those that no item can have."""

    @abstractmethod
    def payloads(self, ids: Sequence[ItemId]) -> dict[ItemId, Mapping[str, Any]]:
        """The payload or fields of the items of those ids that exist, as in `Hit`."""

    @abstractmethod
    def scores(self, similarities: Floats) -> Floats:
        """What the engine calls the scores of items of these similarities."""

    @abstractmethod
    def similarities(self, scores: Floats) -> Floats:
        """The engine's scores on the similarity scale: larger is nearer, Euclidean as negative squared distance."""

    @abstractmethod
    def items(
        self, generation: int, ids: Sequence[ItemId], columns: Sequence[str], *, timeout: float | None = None
    ) -> tuple[list[ItemId], ItemStatistics]:
        """Ids and statistics of those of `ids` that have any; none if the generation was replaced meanwhile.

        With a timeout, in seconds, the client gives up after about that time.
        """

    @abstractmethod
    def all_items(self, generation: int, columns: Sequence[str]) -> StatisticsLookup:
        """The statistics of every item that has any of a generation; of none if that was replaced meanwhile."""

    @abstractmethod
    def read_documents(self) -> dict[str, object]:
        """What is stored at the collection level under our keys: JSON text or JSON types."""

    @abstractmethod
    def write_document(self, key: str, document: Mapping[str, Any] | None) -> None:
        """Replace what is stored under a key in one write; None removes it."""

    @abstractmethod
    def check_writable(self) -> None:
        """Raise ForeignDataError if a name to be written under is taken by data that is not ours."""

    @abstractmethod
    def has_leftovers(self) -> bool:
        """Whether something of ours is there beside the documents, whatever these say."""

    @abstractmethod
    def has_banks(self, generation: int) -> bool:
        """Whether the companion collection with the banks of a generation exists."""

    @abstractmethod
    def begin(self, generation: int, dimension: int, columns: Sequence[str]) -> None:
        """Make room for a generation, empty: banks of `dimension`, items with these biases."""

    @abstractmethod
    def write_bank(self, generation: int, bank: str, vectors: Vectors, log_weights: Floats | None) -> None:
        """Store a bank's (m, d) vectors, and its (m,) weights if it has any."""

    @abstractmethod
    def read_bank(self, generation: int, bank: str) -> tuple[Vectors, Floats | None]:
        """A stored bank's vectors and weights, in the order they were written."""

    @abstractmethod
    def write_items(
        self,
        generation: int,
        ids: Sequence[ItemId],
        items: ItemStatistics,
        *,
        columns: Sequence[str],
        replace: bool = False,
        batch_size: int | None = None,
    ) -> None:
        """Store the statistics of n items. Items that no longer exist are passed over.

        Args:
            generation: under which.
            ids: of the n items.
            items: their statistics.
            columns: the biases among them that the generation has.
            replace: some may be stored already.
            batch_size: items in one request; None for the engine's own.
        """

    @abstractmethod
    def write_activation(
        self, generation: int, ids: Sequence[ItemId], items: ItemStatistics, *, columns: Sequence[str]
    ) -> None:
        """Set the activation sets that n items belong to, once their biases are written.

        Args:
            generation: under which.
            ids: of the n items.
            items: their activation sets, and their biases as they are written; all NaN if they are not known.
            columns: the biases that the generation has.
        """

    @abstractmethod
    def write_checkpoint(self, generation: int, number: int, data: bytes) -> None:
        """Keep the `number`-th state of a fit, in place of the last but one: killed at any point, one is whole."""

    @abstractmethod
    def read_checkpoint(self, generation: int) -> bytes | None:
        """The last state kept whole; None if there is none."""

    @abstractmethod
    def clear_checkpoint(self, generation: int) -> None:
        """Remove what is kept of the state of a fit."""

    @abstractmethod
    def discard_orphans(self, generation: int) -> int:
        """Remove statistics of items that no longer exist; how many there were."""

    @abstractmethod
    def discard_generation(self, generation: int) -> None:
        """Remove a generation that is no longer active."""

    @abstractmethod
    def discard_generations(self, *, keep: int | None) -> None:
        """Remove what all generations but one left: after a fit or a removal that died."""

    @abstractmethod
    def remove_all(self) -> None:
        """Remove everything of ours but the documents at the collection level."""

    @abstractmethod
    def remove_remains(self) -> int:
        """If the collection itself is gone, remove its companion collections; how many there were."""


CHECKPOINT = "checkpoint"
_FIRST_CHECKPOINT_ID = 1 << 40
_MOST_PARTS = 1 << 20


def checkpoint_rows(number: int, data: bytes, size: int) -> list[tuple[int, dict[str, Any]]]:
    """Ids and fields of the rows beside the banks that keep a checkpoint, in parts of at most `size` characters."""
    text = base64.b64encode(data).decode()
    starts = range(0, len(text), size)
    first = _FIRST_CHECKPOINT_ID + number % 2 * _MOST_PARTS
    return [
        (
            first + part,
            {
                "bank": CHECKPOINT,
                "number": number,
                "part": part,
                "parts": len(starts),
                "data": text[start : start + size],
            },
        )
        for part, start in enumerate(starts)
    ]


def joined_checkpoint(rows: Iterable[Mapping[str, Any]]) -> bytes | None:
    """The data of the latest checkpoint that is whole, from the fields of all such rows."""
    found: dict[tuple[int, int], dict[int, str]] = {}
    for row in rows:
        found.setdefault((int(row["number"]), int(row["parts"])), {})[int(row["part"])] = str(row["data"])
    whole = {number: parts for (number, count), parts in found.items() if len(parts) == count}
    if not whole:
        return None
    latest = whole[max(whole)]
    try:
        return base64.b64decode("".join(latest[part] for part in sorted(latest)), validate=True)
    except ValueError:
        return None
