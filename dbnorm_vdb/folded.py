"""A folded copy of a collection, as its searches see it: base of the engines' adapters for such copies."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from typing import Any

import numpy.typing as npt

from dbnorm_vdb.banks import Vectors
from dbnorm_vdb.errors import DimensionMismatchError, NotFittedError
from dbnorm_vdb.folding import FoldedStatistics
from dbnorm_vdb.parameters import check_ttl
from dbnorm_vdb.planning import DEFAULT_STATISTICS_TTL
from dbnorm_vdb.wrapping import unwrapped


class FoldedCollection(ABC):
    """A copy that an adapter's `fold` made.

    Args:
        client: the user's own client; its life is the user's business.
        collection_name: the copy, or an alias of it.
        statistics_ttl: seconds after which a search looks again how queries are to be folded, so that an alias may be
            switched from one copy to another.
    """

    def __init__(self, client: Any, collection_name: str, *, statistics_ttl: float = DEFAULT_STATISTICS_TTL) -> None:
        check_ttl(statistics_ttl)
        self.client = unwrapped(client)
        self.collection_name = collection_name
        self._ttl = statistics_ttl
        self._cached: tuple[float, FoldedStatistics] | None = None

    @property
    def statistics(self) -> FoldedStatistics:
        """What the copy was made of, and how its queries are folded.

        Raises:
            NotFittedError: the collection is not a folded copy, or an unfinished one.
            StatisticsFormatError: what is stored with it is unreadable or of another format version.
        """
        cached = self._cached
        if cached is not None and time.monotonic() - cached[0] < self._ttl:
            return cached[1]
        stored = self._read_document()
        if stored is None:
            raise NotFittedError(
                f"collection {self.collection_name!r} is not a folded copy; make one with the fold() of an adapter"
            )
        folded = FoldedStatistics.load(stored, collection=self.collection_name)
        if not folded.complete:
            raise NotFittedError(
                f"collection {self.collection_name!r} is an unfinished copy of {folded.source!r}; call its adapter's"
                f" fold({self.collection_name!r}) again"
            )
        self._cached = (time.monotonic(), folded)
        return folded

    @abstractmethod
    def _read_document(self) -> object | None:
        """What is stored with the collection under `FOLDED_KEY`."""


def folded_queries(queries: npt.NDArray[Any], folded: FoldedStatistics) -> Vectors:
    """(q, d) query vectors -> (q, d + 1); DimensionMismatchError if they are not of the source's dimension."""
    if queries.shape[1] != folded.dimension:
        raise DimensionMismatchError(
            f"query vectors have {queries.shape[1]} dimensions, collection {folded.source!r} has {folded.dimension};"
            " embed the queries with the model that embedded the collection"
        )
    return folded.folded_queries(queries)
