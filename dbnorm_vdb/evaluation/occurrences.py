"""Hubness of a run: how often its items are found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from dbnorm_vdb.evaluation.rankings import Run
from dbnorm_vdb.evaluation.results import ArmHubness, Hub
from dbnorm_vdb.hubness import measure_hubness

HUBS = 20
_QUERIES_OF_A_HUB = 10


def hubness_of_run(run: Run, keys: Sequence[str], item_count: int, limit: int) -> ArmHubness:
    """Hubness of the first `limit` results of all queries, over `item_count` items, found or not."""
    found: Counter[str] = Counter()
    finders: dict[str, list[str]] = {}
    for key in keys:
        for item in run[key].items[:limit]:
            found[item] += 1
            finders.setdefault(item, []).append(key)
    item_count = max(item_count, len(found))
    distribution = Counter(found.values())
    if item_count > len(found):
        distribution[0] = item_count - len(found)
    often = sorted(found.items(), key=lambda entry: (-entry[1], entry[0]))[:HUBS]
    return ArmHubness(
        measures=measure_hubness(list(found.values()), item_count=item_count).as_dict(),
        item_count=item_count,
        occurrences=sorted(distribution.items()),
        hubs=[Hub(item=item, count=count, queries=finders[item][:_QUERIES_OF_A_HUB]) for item, count in often],
    )
