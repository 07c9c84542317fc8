"""What is stored in Qdrant, and how: collection metadata, one payload key, one companion collection for the banks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from qdrant_client import QdrantClient, models

from dbnorm_qdrant.payload import KEY, generation_key, item_payload
from dbnorm_vdb.banks import Vectors
from dbnorm_vdb.errors import (
    ForeignDataError,
    UnknownVectorError,
    UnsupportedMetricError,
    UnsupportedVectorError,
)
from dbnorm_vdb.statistics import Floats, ItemId, Metric, StoredState
from dbnorm_vdb.store import BANK_SUFFIX, Page, Store, VectorInfo

METRICS = {
    models.Distance.COSINE: Metric.COSINE,
    models.Distance.DOT: Metric.DOT,
    models.Distance.EUCLID: Metric.EUCLIDEAN,
}

_IDS_PAGE = 2000
_WRITE_BATCH = 200


class QdrantStore(Store):
    """One vector of one collection, through the user's own client."""

    engine = "qdrant"
    max_window = 100_000

    def __init__(self, client: QdrantClient, collection_name: str, vector_name: str | None) -> None:
        self.client = client
        self.collection = collection_name
        self._asked_vector = vector_name
        self._info: VectorInfo | None = None
        self._banks = collection_name + BANK_SUFFIX

    def close(self) -> None:
        self.client.close()

    # --- reading -----------------------------------------------------------------------------------------------

    def describe(self) -> VectorInfo:
        if self._info is None:
            self._info = self._describe()
        return self._info

    def _describe(self) -> VectorInfo:
        params = self.client.get_collection(self.collection).config.params
        vectors = params.vectors or {}
        named = vectors if isinstance(vectors, dict) else {"": vectors}
        name = self._asked_vector
        if name is None and len(named) == 1:
            (name,) = named
        if name in (params.sparse_vectors or {}):
            raise UnsupportedVectorError(f"collection {self.collection!r}: vector {name!r} is sparse; use a dense one")
        if name is None or name not in named:
            asked = "it has several: name one (vector_name=...)" if name is None else f"no vector {name!r}"
            raise UnknownVectorError(
                f"collection {self.collection!r}: {asked}; its dense vectors are {sorted(named) or 'none'}"
            )
        vector = named[name]
        if vector.multivector_config is not None:
            raise UnsupportedVectorError(
                f"collection {self.collection!r}: vector {name!r} is a multi-vector; use a single dense one"
            )
        if vector.distance not in METRICS:
            raise UnsupportedMetricError(
                f"collection {self.collection!r}: vector {name!r} is compared by {vector.distance.value}; supported are"
                f" {', '.join(distance.value for distance in METRICS)}"
            )
        return VectorInfo(name, int(vector.size), METRICS[vector.distance])

    def count(self) -> int:
        return self.client.count(self.collection, exact=True).count

    def count_fitted(self, generation: int) -> int:
        return self.client.count(self.collection, count_filter=_has(_path(generation)), exact=True).count

    def pages(self, size: int) -> Iterator[Page]:
        name = self.describe().name
        for records in self._scroll(self.collection, size, with_vectors=[name] if name else True):
            yield _page(records, name, self.describe().dimension)

    def ids(self) -> Iterator[list[ItemId]]:
        for records in self._scroll(self.collection, _IDS_PAGE):
            yield [record.id for record in records]

    def fetch(self, ids: Sequence[ItemId]) -> Page:
        name = self.describe().name
        records: list[models.Record] = []
        for start in range(0, len(ids), _IDS_PAGE):
            records += self.client.retrieve(
                self.collection,
                ids=list(ids[start : start + _IDS_PAGE]),
                with_payload=False,
                with_vectors=[name] if name else True,
            )
        return _page(records, name, self.describe().dimension)

    def _scroll(
        self,
        collection: str,
        size: int,
        *,
        scroll_filter: models.Filter | None = None,
        with_payload: bool = False,
        with_vectors: bool | list[str] = False,
    ) -> Iterator[list[models.Record]]:
        offset: Any = None
        while True:
            records, offset = self.client.scroll(
                collection,
                scroll_filter=scroll_filter,
                limit=size,
                offset=offset,
                with_payload=with_payload,
                with_vectors=with_vectors,
            )
            if records:
                yield records
            if offset is None:
                return

    # --- the collection level ----------------------------------------------------------------------------------

    def read_state(self) -> object:
        return (self.client.get_collection(self.collection).config.metadata or {}).get(KEY)

    def write_state(self, state: StoredState | None) -> None:
        self.client.update_collection(self.collection, metadata={KEY: state.dump() if state else None})

    def check_writable(self, *, known: bool) -> None:
        if not known and (taken := self.client.count(self.collection, count_filter=_has(KEY), exact=True).count):
            raise ForeignDataError(
                f"collection {self.collection!r}: {taken} points have a payload key {KEY!r} that this library has no"
                " record of; rename or delete that key, then fit"
            )
        self._bank_collection_exists()

    def _bank_collection_exists(self) -> bool:
        """Whether our companion is there; ForeignDataError if the name is taken by something else."""
        if not self.client.collection_exists(self._banks):
            return False
        metadata = self.client.get_collection(self._banks).config.metadata or {}
        if metadata.get(KEY) != {"bank_of": self.collection}:
            raise ForeignDataError(
                f"collection {self._banks!r} exists and was not made by this library; rename it, then fit"
            )
        return True

    # --- writing -----------------------------------------------------------------------------------------------

    def begin(self, generation: int, dimension: int) -> None:
        if self._bank_collection_exists():
            return
        self.client.create_collection(
            self._banks,
            vectors_config=models.VectorParams(size=dimension, distance=models.Distance.DOT, on_disk=True),
            hnsw_config=models.HnswConfigDiff(m=0),
            metadata={KEY: {"bank_of": self.collection}},
        )

    def write_bank(self, generation: int, bank: str, vectors: Vectors) -> None:
        base = _bank_base(generation, bank)
        for start in range(0, len(vectors), _WRITE_BATCH):
            rows = vectors[start : start + _WRITE_BATCH].tolist()
            points = [
                models.PointStruct(
                    id=base + start + row, vector=vector, payload={"generation": generation, "bank": bank}
                )
                for row, vector in enumerate(rows)
            ]
            self.client.upsert(self._banks, points, wait=start + _WRITE_BATCH >= len(vectors))

    def read_bank(self, generation: int, bank: str) -> Vectors:
        conditions = [
            models.FieldCondition(key=key, match=models.MatchValue(value=value))
            for key, value in (("generation", generation), ("bank", bank))
        ]
        pages = self._scroll(
            self._banks, _IDS_PAGE, scroll_filter=models.Filter(must=list(conditions)), with_vectors=True
        )
        return np.array([record.vector for records in pages for record in records], dtype=np.float32)

    def write_items(self, generation: int, ids: Sequence[ItemId], biases: Mapping[str, Floats]) -> None:
        rows = [dict(zip(biases, row, strict=True)) for row in zip(*biases.values(), strict=True)]
        key = generation_key(generation)
        self._set_payloads(KEY, {item: {key: item_payload(row)} for item, row in zip(ids, rows, strict=True)})

    def write_activation_sets(self, generation: int, members: Mapping[str, Sequence[ItemId]]) -> None:
        banks_of: dict[ItemId, list[str]] = {}
        for bank, ids in members.items():
            for item in ids:
                banks_of.setdefault(item, []).append(bank)
        self._set_payloads(_path(generation), {item: {"activated": banks} for item, banks in banks_of.items()})

    def _set_payloads(self, key: str, payloads: Mapping[ItemId, dict[str, Any]]) -> None:
        """Merge a payload into the object at `key` of each point, in bounded batches; the last one waits."""
        ids = list(payloads)
        for start in range(0, len(ids), _WRITE_BATCH):
            batch = ids[start : start + _WRITE_BATCH]
            wait = start + _WRITE_BATCH >= len(ids)
            try:
                self._set_batch(key, batch, payloads, wait)
            except Exception:
                # a point deleted since its page was read makes the whole batch fail: write those that are left
                left = {record.id for record in self.client.retrieve(self.collection, ids=batch, with_payload=False)}
                if len(left) == len(batch):
                    raise
                self._set_batch(key, [item for item in batch if item in left], payloads, wait)

    def _set_batch(
        self, key: str, ids: Sequence[ItemId], payloads: Mapping[ItemId, dict[str, Any]], wait: bool
    ) -> None:
        if not ids:
            return
        operations = [
            models.SetPayloadOperation(set_payload=models.SetPayload(payload=payloads[item], points=[item], key=key))
            for item in ids
        ]
        self.client.batch_update_points(self.collection, operations, wait=wait)

    # --- removing ----------------------------------------------------------------------------------------------

    def discard_generations(self, *, keep: int | None) -> None:
        kept = None if keep is None else generation_key(keep)
        for records in self._scroll(self.collection, _IDS_PAGE, scroll_filter=_has(KEY), with_payload=True):
            stale: dict[str, list[ItemId]] = {}
            for record in records:
                ours = (record.payload or {}).get(KEY)
                for key in ours if isinstance(ours, dict) else ():
                    if key != kept:
                        stale.setdefault(key, []).append(record.id)
            for key, ids in stale.items():
                self.client.delete_payload(self.collection, keys=[f"{KEY}.{key}"], points=[*ids])
        if self._bank_collection_exists():
            others = models.FieldCondition(key="generation", match=models.MatchExcept(**{"except": [keep or 0]}))
            self.client.delete(self._banks, points_selector=models.FilterSelector(filter=models.Filter(must=[others])))

    def remove_all(self) -> None:
        for records in self._scroll(self.collection, _IDS_PAGE, scroll_filter=_has(KEY)):
            self.client.delete_payload(self.collection, keys=[KEY], points=[record.id for record in records])
        if self._bank_collection_exists():
            self.client.delete_collection(self._banks)


def _page(records: Sequence[models.Record], name: str, dimension: int) -> Page:
    """Ids and vectors of the records that have the vector."""
    ids: list[ItemId] = []
    vectors: list[Any] = []
    for record in records:
        vector = record.vector.get(name) if isinstance(record.vector, dict) else record.vector
        if vector:
            ids.append(record.id)
            vectors.append(vector)
    return Page(ids, np.array(vectors, dtype=np.float32).reshape(len(ids), dimension))


def _path(generation: int) -> str:
    return f"{KEY}.{generation_key(generation)}"


def _has(key: str) -> models.Filter:
    return models.Filter(must_not=[models.IsEmptyCondition(is_empty=models.PayloadField(key=key))])


def _bank_base(generation: int, bank: str) -> int:
    """The first point id of a bank: generations and banks have ranges of their own, 2**31 ids each."""
    return (generation << 32) + (bank == "gallery") * (1 << 31)
