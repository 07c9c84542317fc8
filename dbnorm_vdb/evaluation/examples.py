"""Queries to look at: those that an arm improved or harmed most, with what every arm returned, and the payloads."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from dbnorm_vdb.banks import Vectors
from dbnorm_vdb.evaluation.agreement import rank_biased_overlap
from dbnorm_vdb.evaluation.arms import ArmSearch, CollectionSearch
from dbnorm_vdb.evaluation.judgements import Judgements, item_key
from dbnorm_vdb.evaluation.measures import first_relevant_ranks
from dbnorm_vdb.evaluation.queries import Queries
from dbnorm_vdb.evaluation.rankings import EMPTY, Ranking, Run
from dbnorm_vdb.evaluation.results import (
    ArmResult,
    CollectionInfo,
    Example,
    MeasureInfo,
    QuerySet,
    RankedItem,
    Reason,
    Settings,
)
from dbnorm_vdb.evaluation.testing import Values, gains

Floats = npt.NDArray[np.float64]


def choose_examples(
    values: Values,
    measures: Sequence[MeasureInfo],
    baseline: str,
    queries: QuerySet,
    runs: Mapping[str, Run],
    judged: Judgements,
    settings: Settings,
    *,
    count: int,
) -> list[Example]:
    """For each arm but the baseline the queries that it improved and harmed most, `count` of either.

    Without judgements, those whose results it changed most.
    """
    found = []
    for arm in runs:
        if arm == baseline:
            continue
        if judged:
            primary = next(measure for measure in measures if measure.name == settings.primary)
            gained = gains(values[arm][primary.name], values[baseline][primary.name], primary)
            ranks = [_ranks(judged, runs[name], settings.depth) for name in (baseline, arm)]
            chosen = most_changed(gained, ranks[0] - ranks[1], count)
            change, rows = gained, queries.judged
        else:
            pairs = ((runs[baseline][key].items, runs[arm][key].items) for key in queries.keys)
            change = np.array([rank_biased_overlap(*pair) for pair in pairs])
            order = np.argsort(change, kind="stable")[:count]
            chosen = [(int(row), "changed") for row in order if change[row] < 1]
            rows = list(range(len(queries.keys)))
        found += [
            _example(rows[place], arm, reason, float(change[place]), queries, runs, judged, settings.limit)
            for place, reason in chosen
        ]
    return found


def most_changed(gained: Floats, risen: Floats, count: int) -> list[tuple[int, Reason]]:
    """Positions of the queries that gained most, and of those that lost most, `count` of either.

    Args:
        gained: (n,) by how much each query did better.
        risen: (n,) by how many ranks its first relevant item rose, which decides among equal gains.
        count: of either.
    """
    order = np.lexsort((-risen, -gained))
    better = [row for row in order if (gained[row], risen[row]) > (0, 0)]
    worse = [row for row in order[::-1] if (gained[row], risen[row]) < (0, 0)]
    chosen: list[tuple[int, Reason]] = [(int(row), "improved") for row in better[:count]]
    return chosen + [(int(row), "harmed") for row in worse[:count]]


def _ranks(judged: Judgements, run: Run, depth: int) -> Floats:
    return np.array([rank or depth + 1 for rank in first_relevant_ranks(judged, run)], dtype=np.float64)


def _example(
    row: int,
    arm: str,
    reason: Reason,
    change: float,
    queries: QuerySet,
    runs: Mapping[str, Run],
    judged: Judgements,
    limit: int,
) -> Example:
    """The query of that row with what every arm returned for it."""
    key = queries.keys[row]
    grades = judged.get(key, {})
    own = {key: grades} if grades else {}
    return Example(
        query=key,
        row=row,
        text=queries.texts[row] if queries.texts else None,
        arm=arm,
        reason=reason,
        change=change,
        ranks={name: rank for name, run in runs.items() for rank in first_relevant_ranks(own, run)},
        relevant=grades,
        results={name: _ranked_items(run[key].first(limit), grades) for name, run in runs.items()},
    )


def _ranked_items(ranking: Ranking, grades: Mapping[str, int]) -> list[RankedItem]:
    scores: Sequence[float | None] = ranking.scores or [None] * len(ranking.items)
    return [
        RankedItem(item=item, score=score, grade=grades.get(item))
        for item, score in zip(ranking.items, scores, strict=True)
    ]


def collections_of(
    searches: Sequence[ArmSearch],
    arms: Sequence[ArmResult],
    examples: Sequence[Example],
    runs: Mapping[str, Run],
    asked: Queries,
    depth: int,
) -> dict[str, CollectionInfo]:
    """The collections that arms search, with the payloads of the items in examples and among the hubs."""
    found: dict[str, CollectionInfo] = {}
    wanted = {item for example in examples for item in example.relevant}
    wanted |= {result.item for example in examples for results in example.results.values() for result in results}
    wanted |= {hub.item for arm in arms if arm.hubness for hub in arm.hubness.hubs}
    by_key: dict[str, list[CollectionSearch]] = {}
    for search in searches:
        if isinstance(search, CollectionSearch):
            by_key.setdefault(search.collection, []).append(search)
    for key, own in by_key.items():
        status = own[0].status
        assert asked.vectors is not None
        found[key] = CollectionInfo(
            engine=status.engine,
            collection=status.collection,
            vector=status.vector,
            item_count=status.item_count,
            payloads=payloads_of(
                wanted, own, runs, asked.vectors, asked.names, first=[example.row for example in examples], depth=depth
            ),
        )
    return found


def payloads_of(
    wanted: set[str],
    searches: Sequence[CollectionSearch],
    runs: Mapping[str, Run],
    queries: Vectors,
    keys: Sequence[str],
    *,
    first: Sequence[int],
    depth: int,
) -> dict[str, dict[str, Any]]:
    """The payloads of these items, got by repeating searches that return them.

    Args:
        wanted: items.
        searches: the arms of one collection.
        runs: what every arm returned.
        queries: (n, d).
        keys: of the n queries.
        first: rows of queries to try before the others.
        depth: of the searches.
    """
    missing = set(wanted)
    found: dict[str, dict[str, Any]] = {}
    order = list(dict.fromkeys([*first, *range(len(keys))]))
    for search in searches:
        rows = []
        for row in order:
            items = missing.intersection(runs[search.name].get(keys[row], EMPTY).items)
            if items:
                rows.append(row)
                missing -= items
        if rows:
            for hits in search.hits(queries[rows], depth, with_payload=True):
                for hit in hits:
                    if item_key(hit.id) in wanted:
                        found.setdefault(item_key(hit.id), _as_json(hit.payload))
    return found


def _as_json(payload: Mapping[str, Any]) -> dict[str, Any]:
    """The payload in JSON types; what JSON does not know, as text."""
    converted: dict[str, Any] = json.loads(json.dumps(dict(payload), default=str))
    return converted
