"""The queries of a comparison: vectors, keys, texts, whatever of it there is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy.typing as npt

from dbnorm_vdb.banks import Vectors, check_vectors
from dbnorm_vdb.errors import InvalidParameterError, InvalidRunError
from dbnorm_vdb.evaluation.arms import ArmSearch, RunSearch
from dbnorm_vdb.evaluation.judgements import query_keys
from dbnorm_vdb.evaluation.tables import item_key


@dataclass(frozen=True)
class Queries:
    """The queries as given; keys are None where only the saved runs know them."""

    vectors: Vectors | None
    keys: list[str] | None
    texts: list[str] | None

    @classmethod
    def of(cls, queries: npt.ArrayLike | None, keys: Sequence[Any] | None, texts: Sequence[str] | None) -> Queries:
        vectors = None if queries is None else check_vectors(queries, what="queries")
        if vectors is not None and not len(vectors):
            raise InvalidParameterError("queries: there are none")
        names = None if vectors is None else query_keys(len(vectors))
        if keys is not None:
            try:
                names = [item_key(key) for key in keys]
            except TypeError as error:
                raise InvalidParameterError(f"keys: {error}") from None
            if vectors is not None and len(names) != len(vectors):
                raise InvalidParameterError(f"there are {len(names)} keys for {len(vectors)} queries")
            if len(set(names)) != len(names):
                twice = next(name for name in names if names.count(name) > 1)
                raise InvalidParameterError(f"keys: {twice!r} is the key of two queries")
        if texts is not None and len(texts) != len(names or ()):
            raise InvalidParameterError(f"there are {len(texts)} texts for {len(names or ())} queries")
        return cls(vectors, names, None if texts is None else [str(text) for text in texts])

    def completed(self, searches: Sequence[ArmSearch]) -> Queries:
        """The same with the runs' query keys, if there are no others; each arm has what it needs."""
        runs = [search for search in searches if isinstance(search, RunSearch)]
        needing = [search.name for search in searches if search not in runs]
        if needing and self.vectors is None:
            raise InvalidParameterError(f"arm {needing[0]!r} has to be searched: pass query vectors")
        keys = self.keys or list(dict.fromkeys(key for search in runs for key in search.run))
        for search in runs:
            if not search.run.keys() & set(keys):
                raise InvalidRunError(
                    f"arm {search.name!r} has results for none of the queries: it knows {some_of(search.run)}, the"
                    f" queries are {some_of(keys)}"
                )
        return Queries(self.vectors, keys, self.texts)

    @property
    def names(self) -> list[str]:
        assert self.keys is not None
        return self.keys


def some_of(keys: Iterable[str], count: int = 3) -> str:
    """The first few keys, for messages."""
    shown = [repr(key) for key in islice(keys, count + 1)]
    return ", ".join(shown[:count]) + (", ..." if len(shown) > count else "")
