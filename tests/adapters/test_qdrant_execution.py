"""Searches that Qdrant re-ranks itself return what those re-ranked on the client return."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from adapters.world import METRICS, World
from harness import QdrantEngine
from qdrant_client import grpc, models

import dbnorm_vdb as db

METHODS = ("is", "dual_is", "sinkhorn")


@pytest.fixture(scope="module")
def worlds(qdrant_local: QdrantEngine) -> Iterator[dict[str, tuple[World, str, Any]]]:
    """For each metric a world, its collection, and a fitted adapter; some points are without statistics."""
    made: dict[str, tuple[World, str, Any]] = {}
    for metric in METRICS:
        world = World.make(metric, n=150)
        collection = qdrant_local.create(world.items[:130], metric=metric)
        adapter = qdrant_local.adapter(collection)
        world.fit(adapter, method="sinkhorn")
        rows = range(130, 150)
        qdrant_local.insert(collection, rows, world.items[130:], [{"number": row} for row in rows])
        made[metric] = (world, collection, adapter)
    yield made
    for _, collection, adapter in made.values():
        adapter.drop()
        qdrant_local.drop_collection(collection)


def same(ours: models.QueryResponse, theirs: models.QueryResponse) -> None:
    assert [(p.id, p.payload, p.vector) for p in ours.points] == [(p.id, p.payload, p.vector) for p in theirs.points]
    assert [p.score for p in ours.points] == pytest.approx([p.score for p in theirs.points], abs=3e-5)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("method", METHODS)
def test_same_ids_scores_and_payload(worlds: Any, method: str, metric: str) -> None:
    world, _, adapter = worlds[metric]
    for query in world.queries[:5].tolist():
        for candidates in (12, 150):
            options = {"limit": 10, "candidates": candidates, "method": method}
            client, server = (adapter.query_points(query, **options, execution=e) for e in ("client", "server"))
            same(server, client)


@pytest.mark.parametrize("metric", METRICS)
def test_nnn_on_the_server(qdrant_local: QdrantEngine, metric: str) -> None:
    world = World.make(metric, n=80)
    collection = qdrant_local.create(world.items, metric=metric)
    adapter = qdrant_local.adapter(collection)
    statistics = adapter.fit(world.query_bank, method="nnn", nnn_k=4).statistics
    assert statistics.calibration.suffices
    for query in world.queries[:4].tolist():
        client, server = (adapter.query_points(query, candidates=60, execution=e) for e in ("client", "server"))
        same(server, client)
        told = adapter.query_points_explained(query, candidates=12, exact=True)
        assert told.certified
        everything = adapter.query_points(query, candidates=81)
        assert [point.id for point in told.result.points] == [point.id for point in everything.points]
    adapter.drop()
    qdrant_local.drop_collection(collection)


BELOW = models.Filter(must=[models.FieldCondition(key="number", range=models.Range(lt=60))])
OPTIONS: dict[str, dict[str, Any]] = {
    "filter": {"query_filter": BELOW},
    "offset": {"offset": 7, "limit": 5},
    "no payload": {"with_payload": False},
    "some payload": {"with_payload": ["number"]},
    "but some payload": {"with_payload": models.PayloadSelectorExclude(exclude=["number"])},
    "vectors": {"with_vectors": True},
    "array": {"query": World.make().queries[1]},
    "nearest query": {"query": models.NearestQuery(nearest=World.make().queries[1].tolist())},
    "point id": {"query": 17},
    "point id of gRPC": {"query": grpc.PointId(num=17)},
    "parameters": {"search_params": models.SearchParams(exact=True)},
    "parameters of gRPC": {"search_params": grpc.SearchParams(exact=True)},
    "timeout": {"timeout": 5},
}


@pytest.mark.filterwarnings("ignore:Local mode performs exact:UserWarning")
@pytest.mark.parametrize("case", OPTIONS)
def test_the_other_arguments_mean_the_same(worlds: Any, case: str) -> None:
    world, _, adapter = worlds["cosine"]
    arguments = {"query": world.queries[0].tolist(), "method": "dual_is", **OPTIONS[case]}
    client, server = (adapter.query_points(**arguments, execution=e) for e in ("client", "server"))
    assert client.points
    same(server, client)


@pytest.mark.parametrize("metric", METRICS)
def test_the_threshold_is_on_the_normalised_score(worlds: Any, metric: str) -> None:
    world, _, adapter = worlds[metric]
    query = world.queries[2].tolist()
    ranked = adapter.query_points(query, limit=20, method="dual_is").points
    threshold = (ranked[6].score + ranked[7].score) / 2
    options = {"limit": 20, "method": "dual_is", "score_threshold": threshold}
    client, server = (adapter.query_points(query, **options, execution=e) for e in ("client", "server"))
    assert len(client.points) == 7
    same(server, client)


def test_only_the_results_cross_the_network(
    worlds: Any, qdrant_local: QdrantEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, _, adapter = worlds["cosine"]
    client = qdrant_local.client()
    query_points, returned = client.query_points, []

    def recorded(*args: Any, **kwargs: Any) -> Any:
        response = query_points(*args, **kwargs)
        returned.append(len(response.points))
        return response

    monkeypatch.setattr(client, "query_points", recorded)
    adapter.query_points(world.queries[0].tolist(), limit=4, candidates=90, method="is", execution="server")
    assert returned == [4]


def test_auto_uses_the_server_where_that_is_possible(
    worlds: Any, qdrant_local: QdrantEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, collection, _ = worlds["cosine"]
    adapter = qdrant_local.adapter(collection, execution="auto")
    client, asked = qdrant_local.client(), []
    query_points = client.query_points
    monkeypatch.setattr(
        client, "query_points", lambda *args, **kwargs: (asked.append(kwargs), query_points(*args, **kwargs))[1]
    )

    def runs_on_server(**options: Any) -> bool:
        asked.clear()
        adapter.query_points(world.queries[0].tolist(), limit=3, **options)
        return any(isinstance(kwargs.get("query"), models.FormulaQuery) for kwargs in asked)

    assert all(runs_on_server(method=method) for method in METHODS)
    assert not any(runs_on_server(method=method) for method in ("raw", "dis", "dual_dis"))
    assert not runs_on_server(exact=True)
    assert not runs_on_server(execution="client")
    asked.clear()
    assert adapter.query_points_explained(world.queries[0].tolist(), limit=3).queries
    assert len(asked) == 1


@pytest.mark.parametrize("method", ["dis", "dual_dis"])
def test_gates_cannot_be_demanded_of_the_server(worlds: Any, method: str) -> None:
    world, _, adapter = worlds["cosine"]
    with pytest.raises(db.UnsupportedMethodError, match=f"cannot compute '{method}'.* use 'client' or 'auto'"):
        adapter.query_points(world.queries[0].tolist(), method=method, execution="server")


def test_what_else_is_refused(worlds: Any, qdrant_local: QdrantEngine) -> None:
    world, collection, adapter = worlds["cosine"]
    query = world.queries[0].tolist()
    with pytest.raises(db.InvalidParameterError, match="execution='server' returns no candidates"):
        adapter.query_points(query, exact=True, execution="server")
    with pytest.raises(db.InvalidParameterError, match="execution='server' returns no candidates"):
        adapter.query_points_explained(query, execution="server")
    with pytest.raises(db.InvalidParameterError, match="execution must be one of client, server, auto, got 'gpu'"):
        adapter.query_points(query, execution="gpu")
    with pytest.raises(db.InvalidParameterError, match="execution must be one of"):
        qdrant_local.adapter(collection).query_points(query, execution="gpu", method="raw")
    with pytest.raises(db.InvalidParameterError, match="got 'gpu'"):
        qdrant_local.adapter(collection, execution="gpu")


def test_a_fit_by_another_process_is_noticed(qdrant_local: QdrantEngine) -> None:
    world = World.make(n=60)
    collection = qdrant_local.create(world.items)
    reader = qdrant_local.adapter(collection, execution="server", statistics_ttl=3600)
    writer = qdrant_local.adapter(collection)
    world.fit(writer, method="is")
    query = world.queries[0].tolist()
    reader.query_points(query, limit=5)
    world.fit(writer, method="dual_is", query_beta=30.0)
    same(reader.query_points(query, limit=5), writer.query_points(query, limit=5))
    gated = qdrant_local.adapter(collection, execution="auto", statistics_ttl=3600)
    gated.query_points(query, limit=5)
    world.fit(writer, method="dual_dis")
    same(gated.query_points(query, limit=5), writer.query_points(query, limit=5))
    writer.drop()
    qdrant_local.drop_collection(collection)
