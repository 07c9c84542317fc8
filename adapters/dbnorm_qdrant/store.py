"""What is stored in Qdrant, and how: collection metadata, one payload key, one companion collection for the banks."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias
from uuid import UUID

import numpy as np
from qdrant_client import QdrantClient, models

from dbnorm_qdrant.local import count_with_value, is_local
from dbnorm_qdrant.payload import (
    generation_key,
    is_ours,
    is_written_by_us,
    item_payloads,
    item_statistics,
    without_our_key,
)
from dbnorm_qdrant.queries import engine_score
from dbnorm_vdb.banks import Vectors
from dbnorm_vdb.errors import (
    ForeignDataError,
    UnknownVectorError,
    UnsupportedMetricError,
    UnsupportedVectorError,
)
from dbnorm_vdb.lookup import StatisticsLookup
from dbnorm_vdb.statistics import Floats, ItemId, ItemStatistics, Metric
from dbnorm_vdb.store import (
    BANK_SUFFIX,
    BOUNDS_KEY,
    CHECKPOINT,
    KEY,
    SLOTS,
    Page,
    Store,
    VectorInfo,
    checkpoint_rows,
    first_bank_id,
    joined_checkpoint,
    slot,
)

METRICS = {
    models.Distance.COSINE: Metric.COSINE,
    models.Distance.DOT: Metric.DOT,
    models.Distance.EUCLID: Metric.EUCLIDEAN,
}

_Change: TypeAlias = tuple[str, dict[str, Any], list[ItemId]]
"""A payload to be merged into the object at a key of points."""

_IDS_PAGE = 10_000
_VECTORS_PAGE = 1000
_CHECKPOINT_PAGE = 16
_WRITE_BATCH = 200
_CHECKPOINT_PART = 1_000_000


class QdrantStore(Store):
    """One vector of one collection, through the user's own client."""

    engine = "qdrant"
    max_window = 100_000
    batch_size = _WRITE_BATCH

    def __init__(self, client: QdrantClient, collection_name: str, vector_name: str | None) -> None:
        self.client = client
        self.collection = collection_name
        self._asked_vector = vector_name
        self._info: VectorInfo | None = None
        self._real_name = collection_name
        self._checkpoint_ids: set[int] = set()

    def close(self) -> None:
        self.client.close()

    @property
    def described(self) -> bool:
        return self._info is not None

    @property
    def known_name(self) -> str | None:
        """The vector's name, as far as it is known without asking the database; None for the unnamed one, too."""
        return (self._info.name if self._info is not None else self._asked_vector) or None

    @property
    def concurrent(self) -> bool:
        return not is_local(self.client)

    # --- reading -----------------------------------------------------------------------------------------------

    def describe(self, *, fresh: bool = False) -> VectorInfo:
        if self._info is None or fresh:
            self._info = self._describe()
            aliases = {alias.alias_name: alias.collection_name for alias in self.client.get_aliases().aliases}
            self._real_name = aliases.get(self.collection, self.collection)
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

    def count_fitted(self, generation: int, *, just_written: bool = False) -> int:
        return self._count(KEY, generation_key(generation))

    def _count(self, *path: str) -> int:
        """How many points have a value at a path of keys."""
        counted = count_with_value(self.client, self.collection, *path)
        if counted is None:
            counted = self.client.count(self.collection, count_filter=_has(".".join(path)), exact=True).count
        return counted

    def has_items(self, generation: int) -> bool:
        """Whether any item has statistics of a generation."""
        return bool(self.client.scroll(self.collection, scroll_filter=_has(_path(generation)), limit=1)[0])

    def pages(self, size: int, *, after: ItemId | None = None) -> Iterator[Page]:
        name = self.describe().name
        for records in self.scroll(self.collection, size, start=after, with_vectors=[name] if name else True):
            there = records[1:] if records[0].id == after else records
            yield _page(there, name, self.describe().dimension)

    def ids(self) -> Iterator[list[ItemId]]:
        for records in self.scroll(self.collection, _IDS_PAGE):
            yield [record.id for record in records]

    def fetch(self, ids: Sequence[ItemId]) -> Page:
        name = self.describe().name
        records: list[models.Record] = []
        for start in range(0, len(ids), _VECTORS_PAGE):
            records += self.client.retrieve(
                self.collection,
                ids=list(ids[start : start + _VECTORS_PAGE]),
                with_payload=False,
                with_vectors=[name] if name else True,
            )
        return _page(records, name, self.describe().dimension)

    def ids_of(self, keys: Sequence[str]) -> list[ItemId]:
        ids: list[ItemId] = []
        for key in keys:
            if key.isascii() and key.isdigit():
                ids += [int(key)] if int(key) < 2**64 else []
            else:
                with contextlib.suppress(ValueError):
                    ids.append(str(UUID(key)))
        return ids

    def payloads(self, ids: Sequence[ItemId]) -> dict[ItemId, Mapping[str, Any]]:
        records = self.client.retrieve(self.collection, ids=list(ids), with_payload=True)
        return {record.id: without_our_key(record.payload, True) or {} for record in records}

    def scores(self, similarities: Floats) -> Floats:
        metric = self.describe().metric
        return np.array([engine_score(similarity, metric) for similarity in similarities.tolist()], dtype=np.float64)

    def similarities(self, scores: Floats) -> Floats:
        return -np.square(scores) if self.describe().metric is Metric.EUCLIDEAN else scores

    def scroll(
        self,
        collection: str,
        size: int,
        *,
        start: ItemId | None = None,
        scroll_filter: models.Filter | None = None,
        with_payload: bool | list[str] = False,
        with_vectors: bool | list[str] = False,
    ) -> Iterator[list[models.Record]]:
        """All points of a collection, or those from `start` on, in pages."""
        offset: Any = start
        limit = size if start is None else size + 1  # the point to start from comes first, and again
        while True:
            records, offset = self.client.scroll(
                collection,
                scroll_filter=scroll_filter,
                limit=limit,
                offset=offset,
                with_payload=with_payload,
                with_vectors=with_vectors,
            )
            if records:
                yield records
            if offset is None:
                return
            limit = size

    def items(
        self, generation: int, ids: Sequence[ItemId], columns: Sequence[str], *, timeout: float | None = None
    ) -> tuple[list[ItemId], ItemStatistics]:
        records = self.client.retrieve(
            self.collection,
            ids=list(ids),
            with_payload=[_path(generation)],
            timeout=None if timeout is None else math.ceil(timeout),
        )
        there = [record for record in records if generation_key(generation) in ((record.payload or {}).get(KEY) or {})]
        return [record.id for record in there], item_statistics([r.payload for r in there], generation)[0]

    def all_items(self, generation: int, columns: Sequence[str]) -> StatisticsLookup:
        path = _path(generation)
        pages = self.scroll(self.collection, _IDS_PAGE, scroll_filter=_has(path), with_payload=[path])

        def items_of(records: Sequence[models.Record]) -> tuple[list[ItemId], ItemStatistics]:
            return [record.id for record in records], item_statistics([r.payload for r in records], generation)[0]

        return StatisticsLookup(map(items_of, pages), columns)

    # --- the collection level ----------------------------------------------------------------------------------

    def read_documents(self) -> dict[str, object]:
        metadata = self.client.get_collection(self.collection).config.metadata or {}
        return {key: value for key, value in metadata.items() if key == KEY or key.startswith(BOUNDS_KEY)}

    def write_document(self, key: str, document: Mapping[str, Any] | None) -> None:
        self.client.update_collection(self.collection, metadata={key: document})

    def check_writable(self) -> None:
        known = KEY in self.read_documents()
        for records in self._our_values() if known or self._count(KEY) else ():
            values = [(record.id, (record.payload or {}).get(KEY)) for record in records]
            taken = [
                item
                for item, value in values
                if not (is_ours(value) if known else value == {} or is_written_by_us(value))
            ]
            if taken:
                raise ForeignDataError(
                    f"collection {self.collection!r}: points have a payload key {KEY!r} that is not of this library's"
                    f" making (first: {taken[0]!r}); rename or delete that key, then fit"
                )
        for which in SLOTS:
            self._exists_and_is_ours(which)

    def has_leftovers(self) -> bool:
        self.describe()
        if any(self._exists_and_is_ours(which, refuse=False) for which in SLOTS):
            return True
        # what points of a fitted collection have brought along that were copied from there
        pages = self._our_values() if self._count(KEY) else ()
        return any(is_written_by_us((record.payload or {}).get(KEY)) for records in pages for record in records)

    def has_banks(self, generation: int) -> bool:
        return self._exists_and_is_ours(slot(generation), refuse=False)

    def _banks(self, which: str) -> str:
        return self._real_name + BANK_SUFFIX + which

    def _exists_and_is_ours(self, which: str, *, refuse: bool = True) -> bool:
        """Whether our companion is there; ForeignDataError if the name is taken by something else."""
        name = self._banks(which)
        if not self.client.collection_exists(name):
            return False
        metadata = self.client.get_collection(name).config.metadata or {}
        ours = metadata.get(KEY) == {"bank_of": self._real_name}
        if refuse and not ours:
            raise ForeignDataError(f"collection {name!r} exists and was not made by this library; rename it, then fit")
        return ours

    def _our_values(self) -> Iterator[list[models.Record]]:
        return self.scroll(self.collection, _IDS_PAGE, scroll_filter=_has(KEY), with_payload=[KEY])

    # --- writing -----------------------------------------------------------------------------------------------

    def begin(self, generation: int, dimension: int, columns: Sequence[str]) -> None:
        self.client.create_collection(
            self._banks(slot(generation)),
            vectors_config=models.VectorParams(size=dimension, distance=models.Distance.DOT, on_disk=True),
            hnsw_config=models.HnswConfigDiff(m=0),
            metadata={KEY: {"bank_of": self._real_name}},
        )

    def write_bank(self, generation: int, bank: str, vectors: Vectors, log_weights: Floats | None) -> None:
        first = first_bank_id(bank)
        weights = [{}] * len(vectors) if log_weights is None else [{"log_weight": w} for w in log_weights.tolist()]
        for start in range(0, len(vectors), _WRITE_BATCH):
            rows = vectors[start : start + _WRITE_BATCH].tolist()
            points = [
                models.PointStruct.model_construct(
                    id=first + start + row, vector=vector, payload={"bank": bank, **weights[start + row]}
                )
                for row, vector in enumerate(rows)
            ]
            self.client.upsert(self._banks(slot(generation)), points, wait=start + _WRITE_BATCH >= len(vectors))

    def read_bank(self, generation: int, bank: str) -> tuple[Vectors, Floats | None]:
        pages = self.scroll(
            self._banks(slot(generation)),
            _VECTORS_PAGE,
            scroll_filter=_bank_is(bank),
            with_payload=["log_weight"],
            with_vectors=True,
        )
        records = [record for page in pages for record in page]
        vectors = np.array([record.vector for record in records], dtype=np.float32)
        weights = [(record.payload or {}).get("log_weight") for record in records]
        return vectors, None if None in weights else np.array(weights, dtype=np.float64)

    def write_items(
        self,
        generation: int,
        ids: Sequence[ItemId],
        items: ItemStatistics,
        *,
        columns: Sequence[str],
        replace: bool = False,
        batch_size: int | None = None,
    ) -> None:
        key = generation_key(generation)
        payloads = dict(zip(ids, item_payloads(items), strict=True))
        self._set_payloads(
            ids,
            lambda batch: [(KEY, {key: payloads[item]}, [item]) for item in batch],
            batch_size or self.batch_size,
        )

    def write_activation(
        self, generation: int, ids: Sequence[ItemId], items: ItemStatistics, *, columns: Sequence[str]
    ) -> None:
        sets = dict(zip(ids, items.activation_sets(), strict=True))

        def changes(batch: list[ItemId]) -> list[_Change]:
            alike: dict[tuple[str, ...], list[ItemId]] = {}
            for item in batch:
                alike.setdefault(sets[item], []).append(item)
            return [(_path(generation), {"activated": [*banks]}, ids) for banks, ids in alike.items()]

        self._set_payloads(ids, changes, self.batch_size)

    def write_checkpoint(self, generation: int, number: int, data: bytes) -> None:
        zeros = [0.0] * self.describe().dimension
        for row, payload in checkpoint_rows(number, data, _CHECKPOINT_PART):
            self.client.upsert(
                self._banks(slot(generation)), [models.PointStruct(id=row, vector=zeros, payload=payload)], wait=True
            )
            self._checkpoint_ids.add(row)

    def read_checkpoint(self, generation: int) -> bytes | None:
        if not self._exists_and_is_ours(slot(generation), refuse=False):
            return None
        pages = self.scroll(
            self._banks(slot(generation)), _CHECKPOINT_PAGE, scroll_filter=_bank_is(CHECKPOINT), with_payload=True
        )
        records = [record for page in pages for record in page]
        self._checkpoint_ids.update(int(record.id) for record in records)
        return joined_checkpoint([record.payload or {} for record in records])

    def clear_checkpoint(self, generation: int) -> None:
        if self._checkpoint_ids:
            ids: list[Any] = sorted(self._checkpoint_ids)
            self.client.delete(self._banks(slot(generation)), points_selector=models.PointIdsList(points=ids))
        self._checkpoint_ids.clear()

    def _set_payloads(self, ids: Sequence[ItemId], changes: Callable[[list[ItemId]], list[_Change]], size: int) -> None:
        """Change the payloads of points in batches, by the changes that a batch of ids takes; the last one waits."""
        for start in range(0, len(ids), size):
            batch = list(ids[start : start + size])
            wait = start + size >= len(ids)
            try:
                self._apply(changes(batch), wait)
            except Exception:
                # a point deleted since its page was read makes the whole batch fail: write those that are left
                left = {record.id for record in self.client.retrieve(self.collection, ids=batch, with_payload=False)}
                if len(left) == len(batch):
                    raise
                batch = [item for item in batch if item in left]
                if batch:
                    self._apply(changes(batch), wait)

    def _apply(self, changes: Sequence[_Change], wait: bool) -> None:
        """One request; in local mode, where there are none, one call after the other, which is quicker."""
        if is_local(self.client) and isinstance(self.client, QdrantClient):  # an async client would hop for each
            for key, payload, ids in changes:
                self.client.set_payload(self.collection, payload, points=ids, key=key)
            return
        operations = [
            models.SetPayloadOperation(set_payload=models.SetPayload(payload=payload, points=ids, key=key))
            for key, payload, ids in changes
        ]
        self.client.batch_update_points(self.collection, operations, wait=wait)

    # --- removing ----------------------------------------------------------------------------------------------

    def discard_orphans(self, generation: int) -> int:
        # statistics live in the points and go with them, but a point may lose a vector that has a name
        name, path = self.describe().name, _path(generation)
        if not name:
            return 0
        has_vector = models.HasVectorCondition(has_vector=name)
        orphans = models.Filter(must=[_has(path)], must_not=[has_vector])
        count = self.client.count(self.collection, count_filter=orphans, exact=True).count
        if count:
            self.client.delete_payload(self.collection, keys=[path], points=orphans)
        return count

    def discard_generation(self, generation: int) -> None:
        path = _path(generation)
        for records in self.scroll(self.collection, _IDS_PAGE, scroll_filter=_has(path)):
            self.client.delete_payload(self.collection, keys=[path], points=[record.id for record in records])
        if self._exists_and_is_ours(slot(generation), refuse=False):
            self.client.delete_collection(self._banks(slot(generation)))

    def discard_generations(self, *, keep: int | None) -> None:
        kept = None if keep is None else generation_key(keep)
        for records in self._our_values():
            stale: dict[str, list[ItemId]] = {}
            for record in records:
                ours = (record.payload or {}).get(KEY)
                for key in ours if ours is not None and is_ours(ours) else ():
                    if key != kept:
                        stale.setdefault(key, []).append(record.id)
            for key, ids in stale.items():
                self.client.delete_payload(self.collection, keys=[f"{KEY}.{key}"], points=[*ids])
        self._drop_banks(keep)

    def remove_all(self) -> None:
        self.describe(fresh=True)
        for records in self._our_values():
            ours = [record.id for record in records if is_ours((record.payload or {}).get(KEY))]
            if ours:
                self.client.delete_payload(self.collection, keys=[KEY], points=ours)
        self._drop_banks(None)

    def remove_remains(self) -> int:
        there = {collection.name for collection in self.client.get_collections().collections}
        there |= {alias.alias_name for alias in self.client.get_aliases().aliases}
        return 0 if there & {self.collection, self._real_name} else self._drop_banks(None)

    def _drop_banks(self, keep: int | None) -> int:
        """Drop our companions, but for those of one generation; how many there were."""
        dropped = 0
        for which in SLOTS:
            if (keep is None or which != slot(keep)) and self._exists_and_is_ours(which, refuse=False):
                self.client.delete_collection(self._banks(which))
                dropped += 1
        return dropped


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


def _bank_is(name: str) -> models.Filter:
    return models.Filter(must=[models.FieldCondition(key="bank", match=models.MatchValue(value=name))])


def _path(generation: int) -> str:
    return f"{KEY}.{generation_key(generation)}"


def _has(key: str) -> models.Filter:
    return models.Filter(must_not=[models.IsEmptyCondition(is_empty=models.PayloadField(key=key))])
