"""Groups of points on Qdrant: their order, size and number are those of the normalised result."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from adapters.world import METRICS, World
from harness import Engine
from qdrant_client import models

import dbnorm_vdb as db

N = 120


@pytest.fixture(scope="module", params=METRICS)
def fitted(qdrant_local: Engine, request: pytest.FixtureRequest) -> Iterator[tuple[World, Any]]:
    world = World.make(request.param, n=N)
    payloads: list[dict[str, Any]] = [
        {"number": row, "owner": f"o{row % 17}", "tags": [row % 5, 7]} for row in range(N)
    ]
    for row in range(0, N, 9):
        del payloads[row]["owner"]
    name = qdrant_local.create(world.items, metric=request.param, payloads=payloads)
    adapter: Any = qdrant_local.adapter(name)
    world.fit(adapter)
    yield world, adapter
    qdrant_local.drop_collection(name)


def expected(adapter: Any, query: Any, key: str, limit: int, size: int, **options: Any) -> list[tuple[Any, list[Any]]]:
    """Grouped by hand, from all points."""
    condition = models.IsEmptyCondition(is_empty=models.PayloadField(key=key))
    points = adapter.query_points(
        query, limit=N, candidates=N + 1, query_filter=models.Filter(must_not=[condition]), **options
    ).points
    groups: dict[Any, list[Any]] = {}
    for point in points:
        value = point.payload[key]
        for one in dict.fromkeys(value if isinstance(value, list) else [value]):
            groups.setdefault(one, []).append((point.id, point.score))
    return [(name, hits[:size]) for name, hits in list(groups.items())[:limit]]


@pytest.mark.parametrize("method", ["is", "dual_is", "dis", "dual_dis"])
@pytest.mark.parametrize(("key", "limit"), [("owner", 4), ("tags", 6)])  # of the tags all: points are in two of them
def test_with_all_points_groups_are_those_of_the_whole_result(
    fitted: tuple[World, Any], method: str, key: str, limit: int
) -> None:
    world, adapter = fitted
    for query in world.queries[:5].tolist():
        found = adapter.query_points_groups(
            key, query, limit=limit, group_size=2, candidates=8 * N, method=method, with_payload=[key]
        )
        got = [(group.id, [(hit.id, hit.score) for hit in group.hits]) for group in found.groups]
        wanted = expected(adapter, query, key, limit, 2, method=method)
        if key == "tags":
            got, wanted = sorted(got), sorted(wanted)
        assert [(name, [item for item, _ in hits]) for name, hits in got] == [
            (name, [item for item, _ in hits]) for name, hits in wanted
        ]
        for (_, hits), (_, others) in zip(got, wanted, strict=True):
            assert [score for _, score in hits] == pytest.approx([score for _, score in others], abs=1e-6)
        assert all(set(hit.payload) == {key} for group in found.groups for hit in group.hits)


def test_the_default_window_asks_for_more_than_is_wanted(
    fitted: tuple[World, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    world, adapter = fitted
    own, asked = adapter.client.query_points_groups, []

    def recorded(*args: Any, **kwargs: Any) -> Any:
        asked.append((kwargs["limit"], kwargs["group_size"]))
        return own(*args, **kwargs)

    monkeypatch.setattr(adapter.client, "query_points_groups", recorded)
    found = adapter.query_points_groups("owner", world.queries[0].tolist(), limit=3, group_size=2, candidates=30)
    assert asked == [(15, 10)]
    assert len(found.groups) == 3
    assert all(1 <= len(group.hits) <= 2 for group in found.groups)


def test_thresholds_and_lookups(fitted: tuple[World, Any], qdrant_local: Engine) -> None:
    world, adapter = fitted
    query = world.queries[0].tolist()
    whole = adapter.query_points_groups("tags", query, limit=3, group_size=4, candidates=8 * N)
    threshold = sorted(hit.score for group in whole.groups for hit in group.hits)[6]
    sign = -1 if world.metric == "euclidean" else 1
    lookup = models.WithLookup(collection=adapter.collection_name, with_payload=["number"])
    some = adapter.query_points_groups(
        "tags", query, limit=3, group_size=4, candidates=8 * N, score_threshold=threshold, with_lookup=lookup
    )
    scores = [hit.score for group in some.groups for hit in group.hits]
    assert scores
    assert all(sign * score > sign * threshold for score in scores)
    assert all(group.lookup.payload == {"number": group.id} for group in some.groups)


def test_raw_groups_are_those_of_the_client(fitted: tuple[World, Any]) -> None:
    world, adapter = fitted
    for query in world.queries.tolist():
        own = adapter.client.query_points_groups(
            adapter.collection_name, "owner", query, limit=4, with_payload=["owner"]
        )
        got = adapter.query_points_groups("owner", query, limit=4, method="raw")
        assert [(g.id, [h.id for h in g.hits]) for g in got.groups] == [
            (g.id, [h.id for h in g.hits]) for g in own.groups
        ]
    assert "dbnorm" not in adapter.query_points_groups("owner", query, method="raw").groups[0].hits[0].payload


def test_bad_input(fitted: tuple[World, Any]) -> None:
    world, adapter = fitted
    query = world.queries[0].tolist()
    for options, error in (
        ({"limit": 0}, db.InvalidParameterError),
        ({"group_size": 0}, db.InvalidParameterError),
        ({"candidates": 3}, db.InvalidParameterError),
        ({"using": "other"}, db.StatisticsMismatchError),
        ({"query": models.NearestQuery(nearest=query, mmr=models.Mmr(diversity=0.5))}, db.UnsupportedQueryError),
        ({"query": models.FusionQuery(fusion=models.Fusion.RRF)}, db.UnsupportedQueryError),
        ({"exact": True}, db.InvalidParameterError),
        ({"max_candidates": 1000}, db.InvalidParameterError),
        ({"execution": "gpu"}, db.InvalidParameterError),
        ({"method": "nnn"}, db.UnsupportedMethodError),
    ):
        with pytest.raises(error):
            adapter.query_points_groups("owner", **{"query": query, **options})
    with pytest.raises(db.NonFiniteVectorError):
        adapter.query_points_groups("owner", [float("nan")] * 8)
