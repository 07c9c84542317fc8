"""The items found most often: what they are, who finds them, and whether they are doubles or look planted."""

from __future__ import annotations

import heapq
import json
import shlex
from collections.abc import Sequence

import numpy as np

from dbnorm_vdb.audits.findings import share_finding
from dbnorm_vdb.audits.lists import EXAMPLES, Asked, Lists, Subject
from dbnorm_vdb.audits.outliers import (
    NEAR_EVERY_QUERY,
    OUTLYING,
    compared_as,
    mean_similarity,
    mean_squared_distance,
    near_duplicates,
    robust_z,
)
from dbnorm_vdb.audits.report import FoundBy, HubItem
from dbnorm_vdb.audits.verdicts import PLANTED, Finding, Thresholds
from dbnorm_vdb.banks import Vectors
from dbnorm_vdb.statistics import ItemId

_NEIGHBOURS = 20


def find_hubs(
    subject: Subject,
    asked: Asked,
    raw: Lists,
    normalized: Lists | None,
    *,
    count: int,
    item_count: int,
    reference: Vectors,
) -> list[HubItem]:
    """The `count` items found most often, raw or normalised.

    Args:
        subject: the collection.
        asked: the queries.
        raw: their lists.
        normalized: their normalised lists.
        count: how many hubs.
        item_count: of the collection.
        reference: vectors of items drawn by lot.
    """
    most: dict[ItemId, tuple[int, Lists]] = {}
    for lists in (raw, *([normalized] if normalized else [])):
        for item, occurrences in lists.counts.most_common(count):
            if item not in most or occurrences > most[item][0]:
                most[item] = (occurrences, lists)
    chosen = sorted(most, key=lambda item: -most[item][0])[:count]
    ids, vectors = subject.fetch(chosen)
    metric = subject.store.describe().metric
    similar = mean_similarity(vectors, asked.vectors, metric)
    nearness = dict(
        zip(ids, robust_z(similar, mean_similarity(reference, asked.vectors, metric)).tolist(), strict=True)
    )
    doubles = _duplicates(subject, ids, vectors, reference)
    payloads = subject.store.payloads(chosen)
    z_scores = {lists: lists.z_scores(item_count) for lists in {lists for _, lists in most.values()}}
    return [
        HubItem(
            id=item,
            payload=dict(payloads.get(item, {})),
            occurrences=raw.counts[item],
            normalized_occurrences=None if normalized is None else normalized.counts[item],
            z_score=(z := z_scores[most[item][1]][item]),
            nearness_z=(near := nearness.get(item, 0.0)),
            near_duplicates=doubles.get(item, []),
            looks_planted=z >= OUTLYING and near >= NEAR_EVERY_QUERY,
            queries=_found_by(item, most[item][1], asked),
        )
        for item in chosen
    ]


def planted_finding(
    hubs: Sequence[HubItem], raw: Lists, normalized: Lists | None, asked: Asked, thresholds: Thresholds
) -> Finding:
    """How many queries find an item that looks planted."""
    planted = [hub for hub in hubs if hub.looks_planted]
    ids = [hub.id for hub in planted]
    count = "No item is" if not planted else "An item is" if len(planted) == 1 else f"{len(planted)} items are"
    meaning = f"{count} both a hub and nearer to the queries on average than items come to be by themselves"
    command = None
    if planted:
        meaning += ": see whether somebody planted it, or whether it is defective"
        row = planted[0].queries[0].row
        command = f"dbnorm-vdb explain TARGET --id {_as_argument(ids[0])} --query QUERIES --row {row}"
    if asked.from_bank:
        command = command and "dbnorm-vdb audit TARGET --queries QUERIES"
    return share_finding(
        PLANTED,
        raw.share(ids),
        None if normalized is None else normalized.share(ids),
        thresholds,
        meaning=f"{meaning}.",
        next_command=command,
    )


def _as_argument(item: ItemId) -> str:
    """An id for the command line, which takes a text that reads as JSON, such as "7", for what it says."""
    return shlex.quote(json.dumps(item) if isinstance(item, str) and _is_json(item) else str(item))


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _found_by(item: ItemId, lists: Lists, asked: Asked) -> list[FoundBy]:
    """Some of the queries that find an item, those first where it ranks highest."""
    ranks = ((ids.index(item) + 1, position) for position, ids in enumerate(lists.ids) if item in ids)
    told = ((rank, asked.told(position)) for rank, position in heapq.nsmallest(EXAMPLES, ranks))
    return [FoundBy(row=row, rank=rank, text=text) for rank, (row, text) in told]


def _duplicates(
    subject: Subject, ids: Sequence[ItemId], vectors: Vectors, reference: Vectors
) -> dict[ItemId, list[ItemId]]:
    """The near-duplicates of each item, looked for among its own nearest neighbours and the other items."""
    neighbours = [hit.id for hits in subject.search("neighbours of hubs", vectors, limit=_NEIGHBOURS) for hit in hits]
    there, around = subject.fetch(list(dict.fromkeys([*ids, *neighbours])))
    metric = subject.store.describe().metric
    apart = mean_squared_distance(compared_as(reference, metric))
    others = compared_as(around, metric)
    doubles: dict[ItemId, list[ItemId]] = {}
    for item, vector in zip(ids, compared_as(vectors, metric), strict=True):
        rows = np.flatnonzero(near_duplicates(vector, others, apart)).tolist()
        doubles[item] = [there[row] for row in rows if there[row] != item]
    return doubles
