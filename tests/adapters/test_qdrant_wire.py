"""Searches over REST and gRPC: what reaches the server, and that both give what local mode does."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from adapters.loopback import OverTheWire, over_grpc, over_rest
from congruence.qdrant_gallery import WORDS, Gallery
from qdrant_client import QdrantClient, grpc, models
from qdrant_client.conversions.conversion import RestToGrpc

from dbnorm_qdrant import QdrantAdapter
from dbnorm_vdb.store import KEY

pytestmark = pytest.mark.filterwarnings("ignore:Local mode performs exact")  # that search_params change nothing

WIRES = {"rest": over_rest, "grpc": over_grpc}
EXECUTIONS = ("client", "server")


@pytest.fixture(scope="module")
def gallery() -> Iterator[Gallery]:
    client = QdrantClient(":memory:")
    yield Gallery.make(client, lambda name, vector: QdrantAdapter(client, name, vector), "dot", "image")
    client.close()


@pytest.fixture(scope="module", params=WIRES)
def wire(request: pytest.FixtureRequest, gallery: Gallery) -> Iterator[OverTheWire]:
    with WIRES[request.param](gallery.client) as client:
        yield client


@pytest.fixture
def remote(wire: OverTheWire, gallery: Gallery) -> QdrantAdapter:
    wire.received.clear()
    client: Any = wire
    return QdrantAdapter(client, gallery.fitted, "image")


@pytest.fixture(scope="module")
def local(gallery: Gallery) -> QdrantAdapter:
    return QdrantAdapter(gallery.client, gallery.fitted, "image")


def below(number: int) -> models.Filter:
    return models.Filter(must=[models.FieldCondition(key="number", range=models.Range(lt=number))])


def queries(gallery: Gallery) -> dict[str, dict[str, Any]]:
    vector = gallery.world.queries[0].tolist()
    legs = [
        models.Prefetch(query=vector, using="image", limit=20, filter=below(70)),
        models.Prefetch(query=gallery.word_queries[0], using=WORDS, limit=20),
    ]
    return {
        "list": {"query": vector, "query_filter": below(60), "offset": 3},
        "array": {"query": np.array(vector, dtype=np.float32), "score_threshold": 0.1},
        "integer": {"query": 4, "with_payload": ["number"]},
        "uuid": {"query": gallery.ids[3], "with_payload": models.PayloadSelectorExclude(exclude=["nested"])},
        "nearest": {"query": models.NearestQuery(nearest=vector), "with_payload": False},
        "mmr": {"query": models.NearestQuery(nearest=vector, mmr=models.Mmr(diversity=0.5, candidates_limit=30))},
        "recommend": {"query": models.RecommendQuery(recommend=models.RecommendInput(positive=[4, vector]))},
        "fusion": {"prefetch": legs, "query": models.FusionQuery(fusion=models.Fusion.DBSF)},
        "formula": {"prefetch": legs, "query": models.FormulaQuery(formula="$score", defaults={"$score": 0.0})},
    }


def same(found: list[models.ScoredPoint], wanted: list[models.ScoredPoint]) -> None:
    assert wanted
    assert [(p.id, p.payload, p.vector) for p in found] == [(p.id, p.payload, p.vector) for p in wanted]
    np.testing.assert_allclose([p.score for p in found], [p.score for p in wanted], atol=1e-6)


@pytest.mark.parametrize("execution", EXECUTIONS)
def test_searches_give_what_local_mode_does(
    gallery: Gallery, remote: QdrantAdapter, local: QdrantAdapter, execution: str
) -> None:
    for kind, arguments in queries(gallery).items():
        options = {"method": "dual_is", "execution": "auto" if kind == "mmr" else execution}
        same(remote.query_points(**arguments, **options).points, local.query_points(**arguments, **options).points)


def test_batches_and_groups_give_what_local_mode_does(
    gallery: Gallery, remote: QdrantAdapter, local: QdrantAdapter
) -> None:
    vectors = gallery.world.queries[:3].tolist()
    requests = [models.QueryRequest(query=v, limit=4 + row, with_payload=True) for row, v in enumerate(vectors)]
    wanted = local.query_batch_points(requests, method="dual_dis")
    for one, other in zip(remote.query_batch_points(requests, method="dual_dis"), wanted, strict=True):
        same(one.points, other.points)
    for execution in EXECUTIONS:
        options: dict[str, Any] = {"limit": 4, "group_size": 2, "method": "is", "execution": execution}
        found, theirs = (a.query_points_groups("owner", vectors[0], **options).groups for a in (remote, local))
        assert [group.id for group in found] == [group.id for group in theirs]
        for one, other in zip(found, theirs, strict=True):
            same(one.hits, other.hits)


def where_of(sent: Any) -> tuple[Any, ...]:
    """Consistency, timeout and shards of a request, as they were given."""
    if isinstance(sent, tuple):
        _, asked, body = sent
        return int(asked["consistency"]), int(asked["timeout"]), body["shard_key"]
    (shard,) = sent.shard_key_selector.shard_keys
    return sent.read_consistency.factor, sent.timeout, shard.keyword


def stage_of(sent: Any, execution: str) -> tuple[int, int]:
    """`hnsw_ef` and limit of the candidates."""
    if isinstance(sent, tuple):
        stage = sent[2]["prefetch"] if execution == "server" else sent[2]
        return stage["params"]["hnsw_ef"], stage["limit"]
    stage = sent.prefetch[0] if execution == "server" else sent
    return stage.params.hnsw_ef, stage.limit


WHERE: dict[str, Any] = {"consistency": 2, "timeout": 7, "shard_key_selector": "eu"}


@pytest.mark.parametrize("execution", EXECUTIONS)
def test_the_server_gets_what_the_caller_said_of_replicas_shards_time_and_index(
    gallery: Gallery, remote: QdrantAdapter, wire: OverTheWire, execution: str
) -> None:
    params = models.SearchParams(hnsw_ef=77)
    vector = gallery.world.queries[0].tolist()
    remote.query_points(vector, search_params=params, candidates=50, method="is", execution=execution, **WHERE)
    (sent,) = wire.received
    assert where_of(sent) == (2, 7, "eu")
    assert stage_of(sent, execution) == (77, 50)


def test_so_do_the_requests_that_come_before_a_fusion_and_those_of_groups(
    gallery: Gallery, remote: QdrantAdapter, wire: OverTheWire
) -> None:
    arguments = queries(gallery)["fusion"]
    remote.query_points(**arguments, method="dual_dis", **WHERE)
    assert [where_of(sent) for sent in wire.received] == [(2, 7, "eu")] * 2  # the gates' first point, then the fusion
    wire.received.clear()
    remote.query_points_groups("owner", gallery.world.queries[0].tolist(), **WHERE)
    assert [where_of(sent) for sent in wire.received] == [(2, 7, "eu")]


@pytest.mark.parametrize("execution", EXECUTIONS)
def test_messages_of_grpc_are_taken_where_the_client_takes_them(
    gallery: Gallery, local: QdrantAdapter, execution: str
) -> None:
    few = grpc.Filter(must=[grpc.Condition(field=grpc.FieldCondition(key="number", range=grpc.Range(lt=60)))])
    with over_grpc(gallery.client) as client:
        over: Any = client
        adapter = QdrantAdapter(over, gallery.fitted, "image", execution=execution)
        found = adapter.query_points(
            grpc.PointId(num=4),
            query_filter=few,
            search_params=grpc.SearchParams(exact=True),
            with_payload=grpc.WithPayloadSelector(include=grpc.PayloadIncludeSelector(fields=["number"])),
            method="is",
        ).points
        same(found, local.query_points(4, query_filter=below(60), with_payload=["number"], method="is").points)
        assert all(set(point.payload or {}) == {"number"} for point in found)

        arguments = queries(gallery)["fusion"]
        messages = [RestToGrpc.convert_prefetch_query(leg) for leg in arguments["prefetch"]]
        fused: Any = {**arguments, "prefetch": messages}
        same(adapter.query_points(**fused, method="is").points, local.query_points(**arguments, method="is").points)

        request = models.QueryRequest(query=gallery.world.queries[0].tolist(), using="image", with_payload=True)
        message: Any = RestToGrpc.convert_query_points(request, gallery.fitted)
        ((one,), (other,)) = (a.query_batch_points([r], method="is") for a, r in ((adapter, message), (local, request)))
        same(one.points, other.points)


def test_only_the_results_cross_the_network_when_the_server_normalises(
    gallery: Gallery, remote: QdrantAdapter, wire: OverTheWire
) -> None:
    remote.query_points(gallery.world.queries[0].tolist(), limit=5, with_payload=False, method="is", execution="server")
    (sent,) = wire.received
    if isinstance(sent, tuple):
        assert (sent[2]["limit"], sent[2]["with_payload"]) == (5, [KEY])
    else:
        assert (sent.limit, list(sent.with_payload.include.fields)) == (5, [KEY])
