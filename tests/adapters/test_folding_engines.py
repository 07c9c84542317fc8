"""What a folded copy takes over of each engine's own: partitions and schemas, sparse vectors and parameters."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from adapters.world import World
from harness import Engine
from pymilvus import DataType
from qdrant_client import models

import dbnorm_vdb as db
from dbnorm_milvus import FoldedMilvusAdapter, MilvusAdapter
from dbnorm_qdrant import FoldedQdrantAdapter, QdrantAdapter
from dbnorm_qdrant.copying import QdrantFoldTarget

WORLD = World.make(n=30)


# --- Milvus ----------------------------------------------------------------------------------------------------------


def milvus_collection(engine: Engine, *, keyed: bool = False, **field: Any) -> str:
    """A collection with many kinds of fields, in two partitions or by a partition key."""
    client, name = engine.client(), engine.new_name()
    schema = client.create_schema(auto_id=True, enable_dynamic_field=False)
    schema.add_field("pk", DataType.INT64, is_primary=True, auto_id=True)
    schema.add_field("image", DataType.FLOAT_VECTOR, dim=8)
    schema.add_field("words", DataType.SPARSE_FLOAT_VECTOR)
    schema.add_field("owner", DataType.VARCHAR, max_length=20, is_partition_key=keyed)
    schema.add_field("about", DataType.JSON)
    schema.add_field("sizes", DataType.ARRAY, element_type=DataType.INT64, max_capacity=4)
    schema.add_field("price", DataType.FLOAT, nullable=True)
    if field:
        schema.add_field(**field)
    index = client.prepare_index_params()
    index.add_index("image", index_type="HNSW", metric_type="COSINE", params={"M": 8, "efConstruction": 64})
    index.add_index("words", index_type="SPARSE_INVERTED_INDEX", metric_type="IP")
    client.create_collection(name, schema=schema, index_params=index, consistency_level="Strong")
    if not keyed:
        client.create_partition(name, "new")
    for row, vector in enumerate(WORLD.items.tolist()):
        data = {"image": vector, "words": {row: 0.5, 100: 1.5}, "owner": f"o{row % 3}", "about": {"row": [row, None]}}
        data |= {"sizes": [row, 2], "price": None if row % 2 else row / 7}
        client.insert(name, [data], **({} if keyed or row % 2 == 0 else {"partition_name": "new"}))
    return name


@pytest.mark.parametrize("keyed", [False, True], ids=["partitions", "partition key"])
def test_milvus_partitions_fields_and_generated_keys(milvus_lite: Engine, keyed: bool) -> None:
    client, name = milvus_lite.client(), milvus_collection(milvus_lite, keyed=keyed)
    copied = f"copy_{name}"
    adapter = MilvusAdapter(client, name, "image")
    WORLD.fit(adapter)
    assert adapter.fold(copied, page_size=7).verified_count == 30

    def rows(collection: str, **where: Any) -> list[dict[str, Any]]:
        fields = ["pk", "words", "owner", "about", "sizes", "price"]
        found = client.query(collection, filter="pk > 0", output_fields=fields, consistency_level="Strong", **where)
        return sorted((dict(row) for row in found), key=lambda row: row["pk"])

    assert len(rows(copied)) == 30
    assert rows(copied) == rows(name)
    if not keyed:
        assert client.list_partitions(copied) == client.list_partitions(name)
        assert rows(copied, partition_names=["new"]) == rows(name, partition_names=["new"])
    folded = FoldedMilvusAdapter(client, copied)
    for options in ({}, {"filter": 'owner == "o1"'}, {} if keyed else {"partition_names": ["new"]}):
        got = folded.search(WORLD.queries, limit=5, **options)
        wanted = adapter.search(WORLD.queries, limit=5, exact=True, **options)
        assert [hits.ids for hits in got] == [hits.ids for hits in wanted]
    kinds = {
        (index["field_name"], index["index_type"], index["metric_type"])
        for index in (client.describe_index(copied, i) for i in client.list_indexes(copied))
    }
    assert kinds == {("image", "HNSW", "IP"), ("words", "SPARSE_INVERTED_INDEX", "IP")}
    client.drop_collection(copied)
    adapter.drop()
    client.drop_collection(name)


def test_milvus_fields_that_cannot_be_copied_are_refused(milvus_lite: Engine) -> None:
    client, name = milvus_lite.client(), milvus_lite.new_name()
    schema = client.create_schema(auto_id=False)
    schema.add_field("pk", DataType.INT64, is_primary=True)
    schema.add_field("image", DataType.FLOAT_VECTOR, dim=8)
    schema.add_field("place", DataType.GEOMETRY)
    index = client.prepare_index_params()
    index.add_index("image", index_type="FLAT", metric_type="L2")
    client.create_collection(name, schema=schema, index_params=index)
    client.insert(name, [{"pk": row, "image": v, "place": "POINT (1 2)"} for row, v in enumerate(WORLD.items.tolist())])
    adapter = MilvusAdapter(client, name, "image")
    WORLD.fit(adapter)
    with pytest.raises(db.UnsupportedCollectionError, match="field 'place' is a GEOMETRY"):
        adapter.fold(f"copy_{name}")
    assert not client.has_collection(f"copy_{name}")
    adapter.drop()
    client.drop_collection(name)


# --- Qdrant ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def mixed(qdrant_local: Engine) -> tuple[QdrantAdapter, str]:
    """Points with a dense, a sparse and a multi-vector, some without the dense one."""
    client, name = qdrant_local.client(), qdrant_local.new_name()
    dense = models.VectorParams(size=8, distance=models.Distance.COSINE, on_disk=True)
    tokens = models.VectorParams(
        size=3,
        distance=models.Distance.DOT,
        multivector_config=models.MultiVectorConfig(comparator=models.MultiVectorComparator.MAX_SIM),
    )
    client.create_collection(
        name,
        vectors_config={"image": dense, "tokens": tokens},
        sparse_vectors_config={"words": models.SparseVectorParams()},
        metadata={"owner": "user"},
    )
    points = []
    for row, vector in enumerate(WORLD.items.tolist()):
        vectors: dict[str, Any] = {"image": vector, "tokens": [[0.1, row, 3.0], [1.0, 2.0, 3.0]]}
        vectors["words"] = models.SparseVector(indices=[row, 100], values=[0.5, 1.5])
        if row >= 28:
            del vectors["image"]
        points.append(models.PointStruct(id=row, vector=vectors, payload={"row": row} if row % 2 else None))
    client.upsert(name, points, wait=True)
    adapter = QdrantAdapter(client, name, "image")
    WORLD.fit(adapter)
    return adapter, name


def test_qdrant_vectors_payloads_and_metadata(mixed: tuple[QdrantAdapter, str], qdrant_local: Engine) -> None:
    adapter, name = mixed
    client, copied = adapter.client, f"copy-{name}"
    summary = adapter.fold(copied, page_size=7)
    assert (summary.item_count, summary.verified_count, summary.unfitted_count) == (30, 30, 0)
    source, copy = (qdrant_local.snapshot(one) for one in (name, copied))
    assert {**copy["metadata"], "dbnorm_folded": None} == {"owner": "user", "dbnorm_folded": None}
    assert copy["params"]["vectors"]["tokens"] == source["params"]["vectors"]["tokens"]
    assert copy["params"]["vectors"]["image"]["on_disk"] is True
    for item, (payload, vectors) in source["points"].items():
        payload_there, vectors_there = copy["points"][item]
        assert payload_there == {k: v for k, v in payload.items() if k != "dbnorm"}
        assert vectors_there["tokens"] == vectors["tokens"]
        assert vectors_there["words"] == vectors["words"]
        assert ("image" in vectors_there) == ("image" in vectors) == (int(item) < 28)
    folded = FoldedQdrantAdapter(client, copied)
    for query in WORLD.queries:
        got = folded.query_points(query, using="image", limit=5, with_vectors=["image", "tokens"]).points
        wanted = adapter.query_points(query, limit=5, exact=True, with_vectors=["image", "tokens"]).points
        assert [point.id for point in got] == [point.id for point in wanted]
        for point, other in zip(got, wanted, strict=True):
            np.testing.assert_allclose(point.vector["image"], other.vector["image"], atol=1e-6)
            assert point.vector["tokens"] == other.vector["tokens"]
    with pytest.raises(db.StatisticsMismatchError, match="uses 'tokens'"):
        folded.query_points([0.1, 0.2, 0.3], using="tokens")
    with pytest.raises(db.UnsupportedQueryError, match="prefetch"):
        folded.query_points(WORLD.queries[0], prefetch=models.Prefetch(query=WORLD.queries[0].tolist(), using="image"))
    nearest = models.NearestQuery(nearest=WORLD.queries[0].tolist())
    assert folded.query_points(nearest).points == folded.query_points(WORLD.queries[0]).points


def test_qdrant_parameters_are_taken_over(mixed: tuple[QdrantAdapter, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Local mode keeps no parameters, so what would be sent to a server is looked at."""
    adapter, name = mixed
    client: Any = adapter.client
    info = client.get_collection(name)
    info.config.hnsw_config.m = 24
    scalar = models.ScalarQuantization(scalar=models.ScalarQuantizationConfig(type=models.ScalarType.INT8))
    info.config.quantization_config = scalar
    info.config.params.replication_factor = 3
    params = models.KeywordIndexParams(type="keyword", is_tenant=True)
    keyword = models.PayloadSchemaType.KEYWORD
    info.payload_schema = {
        "owner": models.PayloadIndexInfo(data_type=keyword, params=params, points=3),
        "row": models.PayloadIndexInfo(data_type=models.PayloadSchemaType.INTEGER, points=3),
    }
    sent: dict[str, Any] = {}
    indexes: dict[str, Any] = {}
    monkeypatch.setattr(client, "get_collection", lambda *_: info)
    monkeypatch.setattr(client, "create_collection", lambda _, **settings: sent.update(settings))
    monkeypatch.setattr(client, "create_payload_index", lambda _, f, field_schema: indexes.update({f: field_schema}))
    QdrantFoldTarget(adapter._store, "copy").create({})
    assert (sent["hnsw_config"].m, sent["replication_factor"]) == (24, 3)
    assert sent["vectors_config"]["tokens"].quantization_config == scalar
    assert sent["vectors_config"]["image"].quantization_config is None
    assert (sent["vectors_config"]["image"].size, sent["vectors_config"]["image"].distance) == (9, models.Distance.DOT)
    assert "quantization_config" not in sent
    assert indexes == {"owner": params, "row": models.PayloadSchemaType.INTEGER}
    info.config.params.sharding_method = models.ShardingMethod.CUSTOM
    with pytest.raises(db.UnsupportedCollectionError, match="shards"):
        QdrantFoldTarget(adapter._store, "copy").create({})
