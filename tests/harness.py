"""The engines under test, behind one face: make a collection, search it raw, take a picture of all it holds."""

from __future__ import annotations

import json
import os
import uuid
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from pymilvus import DataType, MilvusClient
from qdrant_client import QdrantClient, models

from dbnorm_milvus import FoldedMilvusAdapter, MilvusAdapter
from dbnorm_qdrant import FoldedQdrantAdapter, QdrantAdapter
from dbnorm_vdb.collection import NormalizedCollection
from dbnorm_vdb.searching import Explained

QDRANT_METRICS = {
    "cosine": models.Distance.COSINE,
    "dot": models.Distance.DOT,
    "euclidean": models.Distance.EUCLID,
    "manhattan": models.Distance.MANHATTAN,
}
MILVUS_METRICS = {"cosine": "COSINE", "dot": "IP", "euclidean": "L2"}


@dataclass(frozen=True)
class Found:
    """One hit: id, score on the engine's scale, payload."""

    id: Any
    score: float
    payload: Mapping[str, Any]


class Engine(ABC):
    """One engine. Collections get names of their own, so that tests may share a server."""

    name: str

    def new_name(self) -> str:
        return f"t{uuid.uuid4().hex[:12]}"

    @abstractmethod
    def create(
        self,
        vectors: np.ndarray,
        *,
        metric: str = "cosine",
        ids: Sequence[Any] | None = None,
        payloads: Sequence[Mapping[str, Any]] | None = None,
        vector_name: str | None = None,
        other_vectors: Mapping[str, np.ndarray] | None = None,
        dynamic: bool = True,
    ) -> str:
        """A new collection of these items; its name."""

    @abstractmethod
    def adapter(self, collection: str, vector_name: str | None = None, **options: Any) -> NormalizedCollection: ...

    @abstractmethod
    def folded(self, collection: str) -> Any:
        """The adapter of a folded copy."""

    @abstractmethod
    def insert(
        self, collection: str, ids: Sequence[Any], vectors: np.ndarray, payloads: Sequence[Mapping[str, Any]]
    ) -> None: ...

    @abstractmethod
    def upsert(
        self, adapter: Any, ids: Sequence[Any], vectors: np.ndarray, payloads: Sequence[Mapping[str, Any]]
    ) -> None:
        """By the adapter."""

    @abstractmethod
    def delete(self, collection: str, ids: Sequence[Any]) -> None: ...

    @abstractmethod
    def search(
        self, target: Any, collection: str | None, query: np.ndarray, *, limit: int, below: int | None = None, **kw: Any
    ) -> list[Found]:
        """Search an adapter, or a client's `collection`; `below` filters by payload `number < below`."""

    @abstractmethod
    def explain(self, adapter: Any, queries: np.ndarray, **kw: Any) -> Explained[Any]:
        """An explained search of an adapter with each of the queries; on Qdrant with the only one."""

    @abstractmethod
    def client(self) -> Any: ...

    @abstractmethod
    def snapshot(self, collection: str) -> dict[str, Any]:
        """All that the collection holds, and the names of all collections that begin like it."""

    @abstractmethod
    def corrupt_state(self, collection: str, value: str) -> None:
        """Put something else where the collection-level statistics are."""

    @abstractmethod
    def create_foreign(self, collection: str) -> None:
        """Take a name that a fit of `collection` would write under, with data of the user's own."""

    @abstractmethod
    def drop_collection(self, collection: str) -> None: ...

    @abstractmethod
    def drop_banks(self, collection: str) -> None:
        """Remove the companion collections that hold the banks."""

    @abstractmethod
    def point_alias(self, alias: str, collection: str) -> None:
        """Let an alias, which there may be already, stand for a collection."""

    @abstractmethod
    def drop_alias(self, alias: str) -> None:
        """Remove it, before its collection is dropped."""

    def string_ids(self, n: int) -> list[str]:
        return [str(uuid.uuid5(uuid.NAMESPACE_URL, str(i))) for i in range(n)]

    def engine_score(self, similarity: float, metric: str) -> float:
        """What the engine's users call the score of that similarity."""
        raise NotImplementedError


class QdrantEngine(Engine):
    def __init__(self, name: str, client: QdrantClient) -> None:
        self.name = name
        self._client = client

    def client(self) -> QdrantClient:
        return self._client

    def create(
        self, vectors, *, metric="cosine", ids=None, payloads=None, vector_name=None, other_vectors=None, dynamic=True
    ):
        name = self.new_name()

        def params(size: int) -> models.VectorParams:
            return models.VectorParams(size=size, distance=QDRANT_METRICS[metric])

        config: Any = params(vectors.shape[1])
        if vector_name:
            config = {vector_name: config, **{k: params(v.shape[1]) for k, v in (other_vectors or {}).items()}}
        self._client.create_collection(name, vectors_config=config, metadata={"owner": "user"})
        points = []
        for row, vector in enumerate(vectors.tolist()):
            data: Any = vector
            if vector_name:
                data = {vector_name: vector, **{k: v[row].tolist() for k, v in (other_vectors or {}).items()}}
            payload = dict(payloads[row]) if payloads else {"number": row, "nested": {"title": f"item {row}"}}
            points.append(models.PointStruct(id=ids[row] if ids else row, vector=data, payload=payload))
        if points:
            self._client.upsert(name, points, wait=True)
        return name

    def adapter(self, collection, vector_name=None, **options):
        return QdrantAdapter(self._client, collection, vector_name, **options)

    def folded(self, collection):
        return FoldedQdrantAdapter(self._client, collection)

    def insert(self, collection, ids, vectors, payloads):
        rows = zip(ids, vectors.tolist(), payloads, strict=True)
        self._client.upsert(
            collection, [models.PointStruct(id=i, vector=v, payload=dict(p)) for i, v, p in rows], wait=True
        )

    def upsert(self, adapter, ids, vectors, payloads):
        rows = zip(ids, vectors.tolist(), payloads, strict=True)
        adapter.upsert([models.PointStruct(id=i, vector=v, payload=dict(p)) for i, v, p in rows])

    def delete(self, collection, ids):
        self._client.delete(collection, points_selector=models.PointIdsList(points=list(ids)), wait=True)

    def search(self, target, collection, query, *, limit, below=None, **kw):
        if below is not None:
            condition = models.FieldCondition(key="number", range=models.Range(lt=below))
            kw["query_filter"] = models.Filter(must=[condition])
        args = {} if collection is None else {"collection_name": collection}
        response = target.query_points(query=query.tolist(), limit=limit, **args, **kw)
        return [Found(point.id, point.score, point.payload or {}) for point in response.points]

    def explain(self, adapter, queries, **kw):
        (query,) = queries
        return adapter.query_points_explained(query.tolist(), **kw)

    def snapshot(self, collection):
        records, _ = self._client.scroll(collection, limit=100_000, with_payload=True, with_vectors=True)
        info = self._client.get_collection(collection).config
        return {
            "points": {str(r.id): (r.payload, r.vector) for r in records},
            "metadata": info.metadata or {},
            "params": info.params.model_dump(),
            "collections": sorted(
                c.name for c in self._client.get_collections().collections if c.name.startswith(collection)
            ),
        }

    def corrupt_state(self, collection, value):
        self._client.update_collection(collection, metadata={"dbnorm": json.loads(value)})

    def create_foreign(self, collection):
        self._client.create_collection(
            f"{collection}__dbnorm_bank", vectors_config=models.VectorParams(size=3, distance=models.Distance.DOT)
        )

    def drop_collection(self, collection):
        self._client.delete_collection(collection)

    def drop_banks(self, collection):
        for suffix in ("", "_alt"):
            self._client.delete_collection(f"{collection}__dbnorm_bank{suffix}")

    def point_alias(self, alias, collection):
        if alias in [one.alias_name for one in self._client.get_aliases().aliases]:
            self.drop_alias(alias)
        create = models.CreateAlias(collection_name=collection, alias_name=alias)
        self._client.update_collection_aliases([models.CreateAliasOperation(create_alias=create)])

    def drop_alias(self, alias):
        delete = models.DeleteAlias(alias_name=alias)
        self._client.update_collection_aliases([models.DeleteAliasOperation(delete_alias=delete)])

    def engine_score(self, similarity, metric):
        if metric != "euclidean":
            return similarity
        return float(np.copysign(np.sqrt(abs(similarity)), -similarity))


class MilvusEngine(Engine):
    def __init__(self, name: str, client: MilvusClient, location: str = "") -> None:
        self.name = name
        self.location = location
        self._client = client

    def client(self) -> MilvusClient:
        return self._client

    def create(
        self, vectors, *, metric="cosine", ids=None, payloads=None, vector_name=None, other_vectors=None, dynamic=True
    ):
        if other_vectors and self._client.get_server_version().startswith("v2.3."):
            pytest.skip("Milvus 2.3 has one vector field a collection")
        name = self.new_name()
        text_ids = bool(ids) and isinstance(ids[0], str)
        schema = self._client.create_schema(auto_id=False, enable_dynamic_field=dynamic)
        if text_ids:
            schema.add_field("key", DataType.VARCHAR, is_primary=True, max_length=64)
        else:
            schema.add_field("key", DataType.INT64, is_primary=True)
        fields = {vector_name or "vector": vectors, **(other_vectors or {})}
        index = self._client.prepare_index_params()
        for field, values in fields.items():
            schema.add_field(field, DataType.FLOAT_VECTOR, dim=values.shape[1])
            index.add_index(field, index_type="FLAT", metric_type=MILVUS_METRICS[metric])
        if not dynamic:
            schema.add_field("number", DataType.INT64)
            schema.add_field("title", DataType.VARCHAR, max_length=64)
        self._client.create_collection(name, schema=schema, index_params=index, consistency_level="Strong")
        rows = []
        for row in range(len(vectors)):
            payload = dict(payloads[row]) if payloads else {"number": row, "title": f"item {row}"}
            data = {field: values[row].tolist() for field, values in fields.items()}
            rows.append({"key": ids[row] if ids else row, **data, **payload})
        if rows:
            self._client.insert(name, rows)
        return name

    def adapter(self, collection, vector_name=None, **options):
        return MilvusAdapter(self._client, collection, vector_name, **options)

    def folded(self, collection):
        return FoldedMilvusAdapter(self._client, collection)

    def insert(self, collection, ids, vectors, payloads):
        rows = zip(ids, vectors.tolist(), payloads, strict=True)
        self._client.insert(collection, [{"key": i, "vector": v, **p} for i, v, p in rows])

    def upsert(self, adapter, ids, vectors, payloads):
        rows = zip(ids, vectors.tolist(), payloads, strict=True)
        adapter.upsert([{"key": i, "vector": v, **p} for i, v, p in rows])

    def delete(self, collection, ids):
        self._client.delete(collection, ids=list(ids))

    def search(self, target, collection, query, *, limit, below=None, **kw):
        if below is not None:
            kw["filter"] = f"number < {below}"
        args = {} if collection is None else {"collection_name": collection}
        (hits,) = target.search(data=[query.tolist()], limit=limit, output_fields=["number", "title"], **args, **kw)
        return [Found(i, d, hit["entity"]) for i, d, hit in zip(hits.ids, hits.distances, hits, strict=True)]

    def explain(self, adapter, queries, **kw):
        return adapter.search_explained(queries.tolist(), **kw)

    def snapshot(self, collection):
        rows = self._client.query(
            collection, filter="number >= -1000000", output_fields=["*"], limit=16_000, consistency_level="Strong"
        )
        description = self._client.describe_collection(collection)
        properties = {k: v for k, v in (description.get("properties") or {}).items() if v != ""}
        return {
            "rows": {str(row["key"]): dict(row) for row in rows},
            "properties": properties,
            "fields": description["fields"],
            "collections": sorted(c for c in self._client.list_collections() if c.startswith(collection)),
        }

    def corrupt_state(self, collection, value):
        self._client.alter_collection_properties(collection, properties={"dbnorm": value})

    def create_foreign(self, collection):
        self._client.create_collection(f"{collection}__dbnorm", dimension=3)

    def drop_collection(self, collection):
        self._client.drop_collection(collection)

    def drop_banks(self, collection):
        for suffix in ("", "_alt"):
            self._client.drop_collection(f"{collection}__dbnorm_bank{suffix}")

    def point_alias(self, alias, collection):
        known = any(self._client.list_aliases(name).get("aliases") for name in self._client.list_collections())
        (self._client.alter_alias if known else self._client.create_alias)(collection, alias)

    def drop_alias(self, alias):
        self._client.drop_alias(alias)

    def engine_score(self, similarity, metric):
        return -similarity if metric == "euclidean" else similarity


def servers_from_environment() -> dict[str, str]:
    """Servers that whoever runs the suite has put at its disposal."""
    names = {"qdrant-server": "DBNORM_TEST_QDRANT_URL", "milvus-server": "DBNORM_TEST_MILVUS_URI"}
    return {name: os.environ[variable] for name, variable in names.items() if os.environ.get(variable)}


ENGINES = ("qdrant-local", "milvus-lite", "milvus-2.3.5", *servers_from_environment())
FACES = (*ENGINES, "qdrant-local-async", "milvus-lite-async")
"""The engines, and the embedded ones through async adapters."""


def fixture_name(engine: str) -> str:
    return engine.replace("-", "_").replace(".", "_")
