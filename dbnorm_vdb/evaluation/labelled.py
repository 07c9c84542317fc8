"""Queries whose right answers are known."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from dbnorm_vdb.banks import Bank, Vectors
from dbnorm_vdb.errors import InvalidJudgementsError
from dbnorm_vdb.evaluation.gains import Grades
from dbnorm_vdb.evaluation.judgements import Judgements, item_key, query_keys, read_judgements, relevance_of_rows
from dbnorm_vdb.store import Store


@dataclass(frozen=True)
class LabelledQueries:
    """q queries, each with at least one relevant item.

    Attributes:
        vectors: (q, d) float32.
        relevant: for each query the keys of its relevant items and their grades, 1 or more.
        left_out: queries that were given without any relevant item.
        unknown: relevant items that the collection does not have, as far as that was looked up.
    """

    vectors: Vectors
    relevant: list[dict[str, int]]
    left_out: int = 0
    unknown: int = 0

    def __len__(self) -> int:
        return len(self.relevant)

    @classmethod
    def of(cls, queries: Any, relevant: Any, *, what: str, dimension: int) -> LabelledQueries:
        """Queries and what is relevant to them, checked.

        Args:
            queries: (n, d) array, path or `Bank`.
            relevant: for each query an id, an iterable of ids, or a mapping of ids to grades, in the order of the
                queries; or by query key, which is the number of the row: a mapping, a data frame, or a file of qrels
                (see `judgements.read_judgements`).
            what: how messages name them.
            dimension: of the collection.

        Raises:
            InvalidInputError: and its kinds, where the vectors or the judgements cannot be used.
        """
        vectors = Bank.of(queries, what=f"{what} queries", dimension=dimension).vectors
        judgements = _judgements(relevant, len(vectors))
        found = [
            {item: grade for item, grade in judgements.get(key, {}).items() if grade > 0}
            for key in query_keys(len(vectors))
        ]
        rows = [row for row, items in enumerate(found) if items]
        if not rows:
            raise InvalidJudgementsError(f"{what}: none of the {len(vectors)} queries has a relevant item")
        return cls(vectors[rows], [found[row] for row in rows], left_out=len(vectors) - len(rows))

    @cached_property
    def groups(self) -> npt.NDArray[np.int64]:
        """(q,) the number of the set of relevant items of each query.

        Queries for the same items do well or badly together: they are one observation, not several.
        """
        numbers: dict[frozenset[str], int] = {}
        return np.array([numbers.setdefault(frozenset(items), len(numbers)) for items in self.relevant])

    @cached_property
    def grades(self) -> Grades:
        """(q, r) grades of the relevant items, in descending order, filled up with 0."""
        grades = np.zeros((len(self), max(len(items) for items in self.relevant)), dtype=np.int64)
        for row, items in enumerate(self.relevant):
            grades[row, : len(items)] = sorted(items.values(), reverse=True)
        return grades

    def looked_up(self, store: Store, *, what: str) -> LabelledQueries:
        """The same, with the number of relevant items that the collection does not have.

        Raises:
            InvalidJudgementsError: it has none of them.
        """
        keys = sorted({key for items in self.relevant for key in items})
        known = {item_key(item) for item in store.fetch(store.ids_of(keys)).ids}
        unknown = [key for key in keys if key not in known]
        if len(unknown) == len(keys):
            seen = next((item_key(page[0]) for page in store.ids() if page), None)
            raise InvalidJudgementsError(
                f"{what}: none of the {len(keys)} relevant items (first: {keys[0]!r}) is in collection"
                f" {store.collection!r}, whose ids look like {seen!r}; give relevant items by the collection's own ids"
            )
        return LabelledQueries(self.vectors, self.relevant, self.left_out, len(unknown))


def _judgements(relevant: Any, count: int) -> Judgements:
    if not (isinstance(relevant, (str, os.PathLike, Mapping)) or hasattr(relevant, "columns")):
        return relevance_of_rows(relevant, count)
    judgements = read_judgements(relevant)
    strangers = sorted(judgements.keys() - set(query_keys(count)))
    if strangers:
        raise InvalidJudgementsError(
            f"relevant: {len(strangers)} of its {len(judgements)} queries (first: {strangers[0]!r}) are not among the"
            f" queries, whose keys are their row numbers, 0 to {count - 1}"
        )
    return judgements
