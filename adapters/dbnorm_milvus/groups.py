"""Searches with `group_by_field`: hits are fetched one by one, normalised, and then put into groups.

Not the engine's own groups, of which the best raw hits alone would come: the best normalised ones may be others. So a
window of single hits is grouped here; if it holds too few groups, the query is asked again with a wider one.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from pymilvus import DataType

from dbnorm_milvus.parameters import Grouping
from dbnorm_milvus.store import MilvusStore
from dbnorm_vdb.deadline import Deadline
from dbnorm_vdb.errors import UnsupportedQueryError
from dbnorm_vdb.grouping import Groups, best_groups
from dbnorm_vdb.searching import Candidates, Outcome
from dbnorm_vdb.steps import Steps, within, work

_KINDS = (DataType.BOOL, DataType.INT8, DataType.INT16, DataType.INT32, DataType.INT64, DataType.VARCHAR)


class HitGroups:
    """The groups that one search asks for.

    Args:
        grouping: what it says.
        groups: how many groups count: offset + limit.
        added: the engine is asked for the field's values for our sake alone.
    """

    def __init__(self, grouping: Grouping, groups: int, added: bool) -> None:
        self.field, self.size, self._strict = grouping
        self.groups = groups
        self._added = added

    def needed(self, candidates: Candidates, order: npt.NDArray[np.intp]) -> int | None:
        """How many of the ranked candidates decide the groups; see `SearchPlan.needed`."""
        return self._best(candidates, order).needed

    def ranks(self, outcome: Outcome, passing: int | None = None) -> list[list[int]]:
        """The ranks of each group's hits, from 0, among the first `passing`."""
        return self._best(outcome.candidates, outcome.best.order[:passing]).ranks

    def _best(self, candidates: Candidates, order: npt.NDArray[np.intp]) -> Groups:
        entities = [candidates.hits.get_raw_item(row)["entity"] for row in order.tolist()]
        return best_groups([entity.get(self.field) for entity in entities], self.groups, self.size, strict=self._strict)

    def clear(self, hits: Sequence[Any]) -> None:
        """Take the field's values out of the hits of a result, unless they were asked for."""
        for hit in hits if self._added else ():
            hit["entity"].pop(self.field, None)


def hit_groups(
    store: MilvusStore, grouping: Grouping, groups: int, output_fields: Any, deadline: Deadline
) -> Steps[tuple[HitGroups, Any]]:
    """The groups of a search, and the output fields to ask the engine for.

    Raises:
        UnsupportedQueryError: the collection has no such field, or one whose values do not group.
        StatisticsTimeoutError: what the client says of it does not come in time.
    """
    kind = store.kind_of(grouping.field)
    if kind is None:  # it may be new
        yield from within(deadline, work(partial(store.describe, fresh=True)))
        kind = store.kind_of(grouping.field)
    if kind not in _KINDS:
        raise UnsupportedQueryError(
            f"group_by_field {grouping.field!r} is {'no field of the schema' if kind is None else f'a {kind.name}'};"
            " normalised results are grouped by fields that hold integers, booleans or VarChar; use the client, or"
            " method='raw'"
        )
    there = {"*", grouping.field}.intersection(output_fields or ()) if _is_list(output_fields) else True
    if not output_fields:
        there = yield from within(
            deadline, work(lambda: store.lite)
        )  # which then returns every field, and a server none
    if there:
        return HitGroups(grouping, groups, added=False), output_fields
    return HitGroups(grouping, groups, added=True), [*(output_fields or ()), grouping.field]


def _is_list(output_fields: Any) -> bool:
    """Whether the client will take them."""
    return output_fields is None or isinstance(output_fields, list)
