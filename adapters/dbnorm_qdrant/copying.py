"""The folded copy of a Qdrant collection: made like the source, filled with whole points, compared point by point."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from qdrant_client import models

from dbnorm_qdrant.payload import item_statistics, without_our_key
from dbnorm_qdrant.store import QdrantStore
from dbnorm_vdb.banks import Vectors, dense_vectors
from dbnorm_vdb.copying import FoldPage, FoldTarget
from dbnorm_vdb.errors import ForeignDataError, UnsupportedCollectionError
from dbnorm_vdb.folding import FOLDED_KEY
from dbnorm_vdb.statistics import CollectionStatistics, ItemId, Metric
from dbnorm_vdb.store import KEY

_IDS_PAGE = 10_000
_FETCH = 1000
_TOLERANCE = 1e-5  # the engine brings cosine vectors to unit length again


class QdrantFoldTarget(FoldTarget):
    """Copies the collection of a store, through its client."""

    def __init__(self, store: QdrantStore, name: str) -> None:
        self._store = store
        self._client = store.client
        self.name = name
        self._vector = store.describe().name

    # --- the collection ----------------------------------------------------------------------------------------

    def read_document(self) -> object | None:
        document: object = None
        if self.name not in {alias.alias_name for alias in self._client.get_aliases().aliases}:
            if not self._client.collection_exists(self.name):
                return None
            document = (self._client.get_collection(self.name).config.metadata or {}).get(FOLDED_KEY)
        if document is None:
            raise ForeignDataError(f"collection {self.name!r} exists and is not a folded copy; pick another name")
        return document

    def create(self, document: dict[str, Any]) -> None:
        source = self._client.get_collection(self._store.collection)
        config, params = source.config, source.config.params
        if params.sharding_method is models.ShardingMethod.CUSTOM:
            raise UnsupportedCollectionError(
                f"collection {self._store.collection!r} has shards of the user's own making, which cannot be copied yet"
            )
        named: dict[str, models.VectorParams] = (
            dict(params.vectors) if isinstance(params.vectors, dict) else {"": params.vectors}  # type: ignore[dict-item]
        )
        vectors = {
            name: self._folded(vector)
            if name == self._vector
            # what the collection says of all vectors must not hold for the folded one: quantised, it would lose bias
            else vector.model_copy(
                update={"quantization_config": vector.quantization_config or config.quantization_config}
            )
            for name, vector in named.items()
        }
        metadata = {k: v for k, v in (config.metadata or {}).items() if not k.startswith(KEY)}
        hnsw = config.hnsw_config.model_dump(exclude_none=True)
        self._client.create_collection(
            self.name,
            vectors_config=vectors if isinstance(params.vectors, dict) else vectors[""],
            sparse_vectors_config=params.sparse_vectors,
            shard_number=params.shard_number,
            replication_factor=params.replication_factor,
            write_consistency_factor=params.write_consistency_factor,
            on_disk_payload=params.on_disk_payload,
            hnsw_config=models.HnswConfigDiff(**hnsw),
            metadata={**metadata, FOLDED_KEY: document},
        )
        for field, index in (source.payload_schema or {}).items():
            self._client.create_payload_index(self.name, field, field_schema=index.params or index.data_type)

    def _folded(self, vector: models.VectorParams) -> models.VectorParams:
        """One dimension more, compared so that the last one counts, in float32 and not quantised."""
        euclidean = self._store.describe().metric is Metric.EUCLIDEAN
        return models.VectorParams(
            size=vector.size + 1,
            distance=models.Distance.EUCLID if euclidean else models.Distance.DOT,
            hnsw_config=vector.hnsw_config,
            on_disk=vector.on_disk,
        )

    def write_document(self, document: dict[str, Any]) -> None:
        self._client.update_collection(self.name, metadata={FOLDED_KEY: document})

    # --- points ------------------------------------------------------------------------------------------------

    def pages(self, size: int, statistics: CollectionStatistics) -> Iterator[FoldPage]:
        for records in self._store.scroll(self._store.collection, size, with_payload=True, with_vectors=True):
            yield self._page(records, statistics)

    def fetch(self, ids: Sequence[ItemId], statistics: CollectionStatistics) -> FoldPage:
        return self._page(self._retrieve(self._store.collection, ids), statistics)

    def _page(self, records: Sequence[models.Record], statistics: CollectionStatistics) -> FoldPage:
        dimension = self._store.describe().dimension
        rows, found = dense_vectors([self._own(record) for record in records], dimension)
        vectors = np.zeros((len(records), dimension), dtype=np.float32)
        there = np.zeros(len(records), dtype=np.bool_)
        vectors[rows], there[rows] = found, True
        items = item_statistics([record.payload for record in records], statistics.generation)[0]
        return FoldPage([record.id for record in records], vectors, there, items, records)

    def _own(self, record: models.Record) -> Any:
        """The vector of a record that is folded."""
        return record.vector.get(self._vector) if isinstance(record.vector, dict) else record.vector

    def write(self, page: FoldPage, folded: Vectors, *, replace: bool, batch_size: int | None) -> None:
        points = [
            # made without validation: all of it comes from the client
            models.PointStruct.model_construct(id=item, vector=vector, payload=payload)
            for item, vector, payload in self._copies(page, folded)
        ]
        size = batch_size or self._store.batch_size
        for start in range(0, len(points), size):
            self._client.upsert(self.name, points[start : start + size], wait=start + size >= len(points))

    def _copies(self, page: FoldPage, folded: Vectors) -> Iterator[tuple[ItemId, Any, dict[str, Any]]]:
        """Of each point of a page, what its copy has to be: id, vectors, payload."""
        for record, there, vector in zip(page.records, page.there.tolist(), folded.tolist(), strict=True):
            others = record.vector if isinstance(record.vector, dict) else {}
            mine = {self._vector: vector} if there else {}
            copied = vector if there and not self._vector else {**others, **mine}
            yield record.id, copied, without_our_key(record.payload or {}, True) or {}

    def differing(self, page: FoldPage, folded: Vectors) -> list[int]:
        found = {record.id: record for record in self._retrieve(self.name, page.ids)}
        return [
            row
            for row, (item, vector, payload) in enumerate(self._copies(page, folded))
            if item not in found
            or (found[item].payload or {}) != payload
            or not _same_vectors(found[item].vector, vector)
        ]

    def _retrieve(self, collection: str, ids: Sequence[ItemId]) -> list[models.Record]:
        records: list[models.Record] = []
        for start in range(0, len(ids), _FETCH):
            batch = list(ids[start : start + _FETCH])
            records += self._client.retrieve(collection, batch, with_payload=True, with_vectors=True)
        return records

    def ids(self) -> Iterator[list[ItemId]]:
        for records in self._store.scroll(self.name, _IDS_PAGE):
            yield [record.id for record in records]

    def count(self) -> int:
        return self._client.count(self.name, exact=True).count

    def delete(self, ids: Sequence[ItemId]) -> None:
        self._client.delete(self.name, points_selector=models.PointIdsList(points=list(ids)), wait=True)


def _same_vectors(found: Any, wanted: Any) -> bool:
    if isinstance(wanted, Mapping):
        found = found or {}
        return found.keys() == wanted.keys() and all(_same_vectors(found[name], wanted[name]) for name in wanted)
    if isinstance(wanted, models.SparseVector):
        pairs = [dict(zip(one.indices, one.values, strict=True)) for one in (found, wanted)]
        return pairs[0].keys() == pairs[1].keys() and all(
            np.isclose(pairs[0][i], pairs[1][i], rtol=_TOLERANCE) for i in pairs[1]
        )
    return np.shape(found) == np.shape(wanted) and np.allclose(found, wanted, rtol=_TOLERANCE, atol=_TOLERANCE)
