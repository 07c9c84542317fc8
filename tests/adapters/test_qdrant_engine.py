"""The real Qdrant engine, embedded, does with our payload what local mode does: same operations, scores and results."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from adapters.world import METRICS, World
from harness import QdrantEngine

from dbnorm_qdrant.payload import KEY, generation_key, item_statistics
from dbnorm_vdb import CollectionStatistics, Metric, rerank

qdrant_edge = pytest.importorskip("qdrant_edge", reason="qdrant-edge-py exists for linux on x86_64 only")


class Shard:
    """A shard of the real engine, in a folder."""

    def __init__(self, folder: Path, world: World) -> None:
        distances = {"cosine": "Cosine", "dot": "Dot", "euclidean": "Euclid"}
        distance = getattr(qdrant_edge.Distance, distances[world.metric])
        vectors = qdrant_edge.EdgeVectorParams(size=world.items.shape[1], distance=distance)
        self.shard = qdrant_edge.EdgeShard.create(str(folder), qdrant_edge.EdgeConfig(vectors=vectors))
        points = [qdrant_edge.Point(row, vector, {"number": row}) for row, vector in enumerate(world.items.tolist())]
        self.shard.update(qdrant_edge.UpdateOperation.upsert_points(points))

    def set_payload(self, item: int, payload: dict[str, Any], key: str) -> None:
        self.shard.update(qdrant_edge.UpdateOperation.set_payload([item], payload, key))

    def delete_payload(self, items: list[int], key: str) -> None:
        self.shard.update(qdrant_edge.UpdateOperation.delete_payload(items, [key]))

    def payload(self, item: int) -> Any:
        (record,) = self.shard.retrieve([item], with_payload=True, with_vector=False)
        return record.payload if isinstance(record.payload, dict) else json.loads(str(record.payload))

    def query(self, vector: np.ndarray, limit: int) -> list[Any]:
        nearest = qdrant_edge.Query.Nearest(vector.tolist())
        hits: list[Any] = self.shard.query(qdrant_edge.QueryRequest(limit=limit, query=nearest, with_payload=True))
        return hits


@pytest.fixture
def shard(tmp_path: Path) -> Iterator[Shard]:
    made = Shard(tmp_path, World.make(n=5))
    yield made
    made.shard.close()


def test_generations_live_side_by_side_in_one_payload_key(shard: Shard) -> None:
    shard.set_payload(1, {generation_key(4): {"query": 0.5}}, KEY)
    shard.set_payload(1, {generation_key(5): {"query": 0.6}}, KEY)
    shard.set_payload(1, {"activated": ["query"]}, f"{KEY}.{generation_key(5)}")
    assert shard.payload(1) == {"number": 1, KEY: {"g4": {"query": 0.5}, "g5": {"query": 0.6, "activated": ["query"]}}}
    shard.delete_payload([1], f"{KEY}.{generation_key(4)}")
    assert shard.payload(1) == {"number": 1, KEY: {"g5": {"query": 0.6, "activated": ["query"]}}}
    having = qdrant_edge.Filter(must_not=[qdrant_edge.IsEmptyCondition(f"{KEY}.g5")])
    assert shard.shard.count(qdrant_edge.CountRequest(filter=having, exact=True)) == 1
    shard.delete_payload([1, 2], KEY)
    assert shard.payload(1) == {"number": 1}


def test_a_point_that_is_gone_fails_the_write(shard: Shard) -> None:
    """As in local mode; the store then writes what is left of the batch."""
    with pytest.raises(Exception, match="No point with id 99"):
        shard.set_payload(99, {"g5": {"query": 0.6}}, KEY)


@pytest.mark.parametrize("metric", METRICS)
def test_re_ranked_hits_of_the_real_engine_equal_the_adapters(
    qdrant_local: QdrantEngine, tmp_path: Path, metric: str
) -> None:
    world = World.make(metric, n=60)
    collection = qdrant_local.create(world.items, metric=metric)
    adapter = qdrant_local.adapter(collection)
    statistics: CollectionStatistics = world.fit(adapter).statistics
    real = Shard(tmp_path, world)
    for key, (payload, _) in qdrant_local.snapshot(collection)["points"].items():
        real.set_payload(int(key), payload[KEY], KEY)
    for query in world.queries[:6]:
        hits = real.query(query, 60)
        payloads = [hit.payload if isinstance(hit.payload, dict) else json.loads(str(hit.payload)) for hit in hits]
        items, outdated = item_statistics(payloads, statistics.generation)
        assert not outdated
        scores = np.array([hit.score for hit in hits], dtype=np.float64)
        similarities = -np.square(scores) if statistics.metric is Metric.EUCLIDEAN else scores
        best = rerank(similarities, items, statistics, limit=10)
        expected = qdrant_local.search(adapter, None, query, limit=10, candidates=60)
        assert [hits[row].id for row in best.order] == [hit.id for hit in expected]
        assert [qdrant_local.engine_score(score, metric) for score in best.scores] == pytest.approx(
            [hit.score for hit in expected], abs=2e-5
        )
    real.shard.close()
    adapter.drop()
    qdrant_local.drop_collection(collection)
