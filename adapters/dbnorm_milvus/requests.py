"""The requests of one search: the first is for all its queries, later ones for some of them, with wider windows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dbnorm_milvus.parameters import wide_enough
from dbnorm_milvus.results import add_costs
from dbnorm_vdb.deadline import Deadline
from dbnorm_vdb.searching import Candidates
from dbnorm_vdb.steps import Steps, call


class Requests:
    """What is asked of the engine.

    Args:
        collection: of which.
        data, ids: the queries, one of them given.
        search_params: of the engine.
        arguments: what else the client's search takes, but for `limit` and `timeout`.
        scale: a distance times this is the similarity.
        deadline: of all requests together.

    Attributes:
        count: how many queries there are.
        result: the answer to the first request, for the caller, with what all of them cost.
    """

    def __init__(
        self,
        collection: str,
        data: Any,
        ids: Any,
        search_params: Mapping[str, Any],
        arguments: Mapping[str, Any],
        scale: float,
        deadline: Deadline,
    ) -> None:
        self._collection = collection
        self._queries = {name: queries for name, queries in (("data", data), ("ids", ids)) if queries is not None}
        self._search_params = search_params
        self._arguments = arguments
        self._scale = scale
        self._deadline = deadline
        some = ids if data is None else data
        # none at all: for the client to say so
        self.count = 1 if some is None or isinstance(some, (int, str)) else len(some) or 1
        self.result: Any = None

    def fetch(self, rows: Sequence[int], window: int) -> Steps[list[Candidates]]:
        """The `window` nearest of the queries at these rows."""
        found = yield from call(
            "search",
            self._collection,
            **self._arguments,
            **(self._queries if self.result is None else {name: _some(of, rows) for name, of in self._queries.items()}),
            limit=window,
            search_params=wide_enough(self._search_params, window),
            timeout=self._deadline.client_timeout(),
        )
        if self.result is None:
            self.result = found
        else:
            add_costs(self.result, found)
            if found.recalls and self.result.recalls:
                for row, recall in zip(rows, found.recalls, strict=False):
                    self.result.recalls[row] = recall
        return [Candidates(hits, hits.ids, np.array(hits.distances, dtype=np.float64) * self._scale) for hits in found]


def _some(queries: Any, rows: Sequence[int]) -> Any:
    """The queries at `rows`, as the client takes them."""
    if isinstance(queries, (int, str)):
        return [queries]
    return queries[list(rows)] if isinstance(queries, np.ndarray) else [queries[row] for row in rows]
