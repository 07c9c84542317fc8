"""The guard of a fit: do searches with its statistics beat raw ones on labelled queries?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from dbnorm_vdb.banks import Bank, Vectors
from dbnorm_vdb.errors import InvalidParameterError
from dbnorm_vdb.evaluation.candidates import Nearest, Positions, RawCandidates
from dbnorm_vdb.evaluation.gains import Floats, Measure
from dbnorm_vdb.evaluation.labelled import LabelledQueries
from dbnorm_vdb.likeness import bank_distance
from dbnorm_vdb.methods import Method
from dbnorm_vdb.reranking import rerank
from dbnorm_vdb.statistics import CollectionStatistics, ItemStatistics
from dbnorm_vdb.store import Store
from dbnorm_vdb.verdicts import Verdict

DEFAULT_MEASURE = "nDCG@10"

LEAST_GROUPS = 5
"""Fewer queries that differ show nothing, even if all of them are better: a chance of 1/16 is more than 5 %."""

_CONFIDENCE = 0.95
_RESAMPLES = 10_000
_BLOCK = 1 << 21

ValidationInput: TypeAlias = tuple[Any, Any]
"""Queries, and what is relevant to them: see `LabelledQueries.of`."""


class Validation:
    """Labelled queries that a fit is to be judged by, checked before anything is written.

    Args:
        given: (queries, relevant), see `LabelledQueries.of`.
        measure: what is to be better.
        method: the default method of searches after the fit.
        store: the engine's side.
        dimension: of the collection.

    Raises:
        InvalidInputError: and its kinds, where the queries, the judgements or the measure cannot be used; also where
            there are too few of them to show any gain.
    """

    def __init__(self, given: ValidationInput, *, measure: str, method: Method, store: Store, dimension: int) -> None:
        self._store = store
        self._measure = Measure.parse(measure)
        if method is Method.RAW:
            raise InvalidParameterError("validation compares a method with raw; with method='raw' leave it out")
        if not isinstance(given, tuple) or len(given) != 2:
            raise InvalidParameterError(f"validation is (queries, relevant), got {type(given).__name__}")
        labelled = LabelledQueries.of(*given, what="validation", dimension=dimension)
        if int(labelled.groups.max()) + 1 < LEAST_GROUPS:
            raise InvalidParameterError(
                f"validation: {len(labelled)} queries with {int(labelled.groups.max()) + 1} different sets of relevant"
                f" items can never show a gain; give at least {LEAST_GROUPS}, better hundreds"
            )
        self._labelled = labelled.looked_up(store, what="validation")

    @property
    def cutoff(self) -> int:
        """How many results of a search count."""
        return self._measure.cutoff

    def verdict(
        self,
        statistics: CollectionStatistics,
        query_bank: Bank | None,
        nearest: Nearest,
        window: int,
        report: Callable[[int, int], None],
    ) -> Verdict:
        """Search raw, re-rank with statistics that are written but not active, and compare.

        Args:
            statistics: of the generation.
            query_bank: that they were computed with.
            nearest: searches the collection.
            window: how many candidates such a search fetches.
            report: told how many queries are done, and of how many.
        """
        labelled = self._labelled
        windows = RawCandidates.read(nearest, self._store, labelled.vectors, window, report)
        grades = windows.grades(labelled)
        raw_columns = np.broadcast_to(np.arange(min(self.cutoff, window)), (len(labelled), min(self.cutoff, window)))
        raw, normalized = (
            self._measure.of(np.take_along_axis(grades, columns, axis=1), labelled.grades)
            for columns in (raw_columns, self._normalized(statistics, windows))
        )
        lowest, changed = lowest_gain(normalized - raw, labelled.groups)
        return Verdict(
            measure=str(self._measure),
            raw=float(raw.mean()),
            normalized=float(normalized.mean()),
            lowest_gain=lowest,
            passed=lowest > 0 and changed >= LEAST_GROUPS,
            query_count=len(labelled),
            group_count=int(labelled.groups.max()) + 1,
            better=int((normalized > raw).sum()),
            worse=int((normalized < raw).sum()),
            candidates=window,
            unknown_count=labelled.unknown,
            banked_count=0 if query_bank is None else banked_count(query_bank, labelled.vectors),
            bank_distance=query_bank and bank_distance(query_bank.vectors, labelled.vectors, statistics.metric),
        )

    def _normalized(self, statistics: CollectionStatistics, windows: RawCandidates) -> Positions:
        """(q, cutoff) columns of the results of normalised searches."""
        self._store.count_fitted(statistics.generation)  # one strong read: what was just written is seen from here on
        found, stored = self._store.items(statistics.generation, windows.ids, list(statistics.columns))
        place = {item: position for position, item in enumerate(windows.ids)}
        items = ItemStatistics.unknown(len(windows.ids))
        items.fill([place[item] for item in found], stored)
        columns = np.zeros((len(windows.items), min(self.cutoff, windows.items.shape[1])), dtype=np.intp)
        for row, (rows, similarities) in enumerate(zip(windows.items, windows.similarities, strict=True)):
            there = rows >= 0
            best = rerank(similarities[there], items[rows[there]], statistics, limit=self.cutoff).order
            columns[row] = [*best, *range(len(best), columns.shape[1])]  # what is not there has no grade
        return columns


def lowest_gain(differences: Floats, groups: npt.NDArray[np.int64], *, seed: int = 0) -> tuple[float, int]:
    """The lower end of the one-sided 95 % percentile interval of a mean difference, by a paired bootstrap.

    Args:
        differences: (q,) of each query, new minus old.
        groups: (q,) numbers; queries of a group are drawn together.
        seed: of the resamples.

    Returns:
        That, and in how many groups there is a difference at all.
    """
    sums, sizes = np.bincount(groups, differences).round(12), np.bincount(groups)
    kinds, counts = np.unique(np.stack([sums, sizes]), axis=1, return_counts=True)
    rng = np.random.default_rng(seed)
    means = np.empty(_RESAMPLES)
    step = max(1, _BLOCK // len(counts))
    for start in range(0, _RESAMPLES, step):
        drawn = rng.multinomial(len(sums), counts / len(sums), size=min(step, _RESAMPLES - start))
        means[start : start + step] = (drawn @ kinds[0]) / (drawn @ kinds[1])
    return float(np.quantile(means, 1 - _CONFIDENCE)), int((sums != 0).sum())


def banked_count(bank: Bank, queries: Vectors) -> int:
    """How many of the queries are vectors of the bank."""
    asked = [vector.tobytes() for vector in queries]
    wanted = set(asked)
    banked = {row for vector in bank.vectors if (row := vector.tobytes()) in wanted}
    return sum(row in banked for row in asked)


def concerns(verdict: Verdict) -> Sequence[str]:
    """What makes a verdict less than it seems, in words."""
    found = []
    if verdict.unknown_count:
        found.append(
            f"{verdict.unknown_count} relevant items of the validation are not in the collection; they count as never"
            " found"
        )
    if verdict.banked_count:
        found.append(
            f"{verdict.banked_count} of the {verdict.query_count} validation queries are in the query bank: these say"
            " nothing about queries it does not hold; validate with others"
        )
    if verdict.bank_distance is not None and verdict.bank_distance.unlike:
        found.append(
            f"{verdict.bank_distance.in_words()}; a bank of queries like those that are served would do better"
        )
    return found
