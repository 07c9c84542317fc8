"""QdrantAdapter: one collection of a `QdrantClient`, normalised. Its searches are in `searches` and `groups`."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel
from qdrant_client import AsyncQdrantClient, QdrantClient, grpc, models

from dbnorm_qdrant.copying import QdrantFoldTarget
from dbnorm_qdrant.formula import check_execution
from dbnorm_qdrant.groups import QdrantGroups
from dbnorm_qdrant.payload import as_structs, generation_key, id_as_stored, is_ours, item_payloads, vector_of
from dbnorm_qdrant.points import clean, lookup
from dbnorm_qdrant.store import QdrantStore
from dbnorm_vdb.banks import check_vectors, dense_vectors
from dbnorm_vdb.caching import DEFAULT_CACHE_BYTES
from dbnorm_vdb.deadline import Deadline
from dbnorm_vdb.errors import ForeignDataError, InvalidParameterError, InvalidTargetError
from dbnorm_vdb.eventloop import uninterrupted
from dbnorm_vdb.fallbacks import logger
from dbnorm_vdb.methods import Method
from dbnorm_vdb.observing import count_outcomes, count_queries, observed
from dbnorm_vdb.planning import DEFAULT_STATISTICS_TTL
from dbnorm_vdb.searching import Candidates
from dbnorm_vdb.statistics import CollectionStatistics, ItemId, ItemStatistics
from dbnorm_vdb.stepped import stepped, steps_of
from dbnorm_vdb.steps import Steps, done
from dbnorm_vdb.store import KEY, Hit
from dbnorm_vdb.targets import Target
from dbnorm_vdb.wrapping import unwrapped


def _is_conditional(options: Mapping[str, Any]) -> bool:
    """Whether an upsert with these options perhaps does not write a point."""
    mode = options.get("update_mode")
    return options.get("update_filter") is not None or mode not in (None, models.UpdateMode.UPSERT)


class QdrantAdapter(QdrantGroups):
    """A Qdrant collection whose searches are normalised. Nothing is written before `fit`.

    Args:
        client: the user's own `QdrantClient`; its life is the user's business.
        collection_name: the collection.
        vector_name: the named vector to normalise; may be left out when there is one.
        on_missing, statistics_ttl, cache, cache_bytes: see `dbnorm_vdb.planning.Planning`. Without a cache, statistics
            come with the hits, as part of their payload.
        execution: where searches are re-ranked. "client": here, from all candidates and their payload. "server": by
            Qdrant, from the stored statistics, so that only `limit` points cross the network; for the methods without
            gates, and without `exact` or explanation. "auto": on the server where that is possible.

    Example:
        >>> images = QdrantAdapter(client, "images")  # doctest: +SKIP
        >>> images.fit(query_bank=captions, gallery_bank=5000)  # doctest: +SKIP
        >>> images.query_points(query=vector, limit=10).points  # doctest: +SKIP
    """

    _store: QdrantStore

    def __init__(
        self,
        client: QdrantClient,
        collection_name: str,
        vector_name: str | None = None,
        *,
        on_missing: str = "raw",
        statistics_ttl: float = DEFAULT_STATISTICS_TTL,
        execution: str = "client",
        cache: str = "none",
        cache_bytes: int = DEFAULT_CACHE_BYTES,
    ) -> None:
        check_execution(execution)
        self._execution = execution
        self.client = client = unwrapped(client)
        if isinstance(client, AsyncQdrantClient):
            raise InvalidParameterError(
                "QdrantAdapter takes a QdrantClient; for an AsyncQdrantClient use AsyncQdrantAdapter"
            )
        super().__init__(
            QdrantStore(client, collection_name, vector_name),
            on_missing=on_missing,
            statistics_ttl=statistics_ttl,
            cache=cache,
            cache_bytes=cache_bytes,
        )

    @classmethod
    def from_target(cls, target: Target) -> QdrantAdapter:
        """The adapter of a command-line target; the API key comes from the environment, `QDRANT_API_KEY`.

        Raises:
            InvalidTargetError: there is no local storage at the path.
        """
        vector = target.options.get("vector")
        if "db" in target.options:
            raise InvalidTargetError("Qdrant has no databases; leave 'db' out of the URL")
        if target.server:
            client = QdrantClient(
                url=target.server,
                prefix=target.path.strip("/") or None,
                api_key=os.environ.get("QDRANT_API_KEY"),
                timeout=60,
            )
        elif (Path(target.path) / "meta.json").is_file():
            client = QdrantClient(path=target.path)
        else:
            raise InvalidTargetError(f"there is no local Qdrant storage at {target.path!r}")
        return cls(client, target.collection, vector)

    @classmethod
    def embedded(
        cls, directory: str, vectors: npt.ArrayLike, payloads: Sequence[Mapping[str, Any]], *, name: str = "items"
    ) -> QdrantAdapter:
        """A new in-memory collection of (n, d) cosine vectors, ids 0 to n - 1: for demonstrations.

        `directory` is not used: Qdrant's local mode is quick in memory only.
        """
        rows = check_vectors(vectors, what="vectors").tolist()
        client = QdrantClient(":memory:")
        client.create_collection(
            name, vectors_config=models.VectorParams(size=len(rows[0]), distance=models.Distance.COSINE)
        )
        points = zip(rows, payloads, strict=True)
        client.upsert(
            name,
            [models.PointStruct(id=row, vector=vector, payload=dict(p)) for row, (vector, p) in enumerate(points)],
        )
        return cls(client, name)

    @stepped
    @observed("rerank")
    def rerank(
        self,
        /,
        points: Sequence[models.ScoredPoint],
        *,
        limit: int | None = None,
        method: str | Method | None = None,
    ) -> Steps[list[models.ScoredPoint]]:
        """Normalise points that you have fetched yourself, and return the best of them.

        Args:
            points: found by a search of this vector, from its first point on, with the scores that the engine gave
                them. Those that bring our payload key need no look-up; the others are looked up together.
            limit: how many to return; None for all.
            method: instead of the fitted default.

        Returns:
            Copies with normalised scores, best first, without our payload key.

        Raises:
            InvalidParameterError: `limit` below 1, or something else than points.
            NotFittedError, UnsupportedMethodError: `method` asks for what the statistics cannot serve.
        """
        others = {type(point).__name__ for point in points if not isinstance(point, models.ScoredPoint)}
        if others:
            raise InvalidParameterError(
                f"rerank() takes a list of ScoredPoint, such as response.points, got one of {', '.join(sorted(others))}"
            )
        plan = yield from self._plan(limit=max(len(points), 1) if limit is None else limit, method=method)
        points = [point.model_copy() for point in points]
        if plan.statistics is None or not points:
            count_queries(self._store, plan, 1)
            return [clean(point, True) for point in points[:limit]]
        candidates = [self._candidates(sorted(points, key=self._raw_rank))]
        (outcome,) = yield from self._search(plan, 1, lambda rows, window: done(candidates), self._looked_up)
        count_outcomes(self._store, plan, [outcome], certifiable=False)
        return self._points(outcome, True)

    def _looked_up(
        self, found: Sequence[Candidates], statistics: CollectionStatistics, deadline: Deadline
    ) -> Steps[tuple[ItemStatistics, bool]]:
        """The statistics of points, whether or not they bring them along."""
        items, outdated = yield from lookup(found, statistics, deadline)
        unknown = np.flatnonzero(~items.known()).tolist()
        if unknown:
            ids = [item for candidates in found for item in candidates.ids]
            items.fill(unknown, (yield from self._items.find(statistics, [ids[row] for row in unknown], deadline)))
        return items, outdated

    def upsert(
        self,
        points: models.Batch | Sequence[models.PointStruct | grpc.PointStruct],
        wait: bool = True,
        **kwargs: Any,
    ) -> models.UpdateResult:
        """`QdrantClient.upsert` to this collection; the points get their statistics from the stored banks with it.

        One request writes both. Points without the vector, and those that the server embeds, get none before the
        next `refresh`; until then the others are in no activation set.

        Raises:
            ForeignDataError: the payload of a point has something else under our key.
            StatisticsError: the stored banks are gone, or are not those that were fitted.
        """
        completed, written = self._with_statistics(points)
        with uninterrupted():  # what is held in memory is to be what is written
            result = self.client.upsert(self.collection_name, completed, wait=wait, **kwargs)
            if written is not None and self._items.in_use:
                if _is_conditional(kwargs):
                    self._reread(*written[:2], written_by_now=wait)
                else:
                    self._items.put(*written)
        return result

    def _reread(self, statistics: CollectionStatistics, ids: Sequence[ItemId], *, written_by_now: bool) -> None:
        """Take in what is stored of points that were perhaps written, and perhaps not; or let go of everything."""
        try:
            if written_by_now:
                stored = self._store.items(statistics.generation, ids, list(statistics.columns))
                self._items.put(statistics, *stored)
                return
        except Exception:  # the points are written: a failure here is not the caller's
            logger.debug("collection %r: reading back failed", self.collection_name, exc_info=True)
        self._items.seen(None)

    def _with_statistics(
        self, points: Any
    ) -> tuple[Any, tuple[CollectionStatistics, Sequence[ItemId], ItemStatistics] | None]:
        """The points with our key in their payload, as far as statistics can be computed for them; and these."""
        batch = points if isinstance(points, models.Batch) else None
        if batch is None and not isinstance(points, (Sequence, BaseModel)):
            points = list(points)
        structs = as_structs(points)
        active = self._fitted_before_writing() if structs else None
        if structs is None or active is None:
            return points, None
        info = self._store.describe()
        there, matrix = dense_vectors([vector_of(point, info.name) for point in structs], info.dimension)
        if not there:
            return points, None
        foreign = [structs[row].id for row in there if not is_ours((structs[row].payload or {}).get(KEY, {}))]
        if foreign:
            raise ForeignDataError(
                f"collection {self.collection_name!r}: points have a payload key {KEY!r} that is not of this library's"
                f" making (first: {foreign[0]!r}); rename that key"
            )
        statistics, items = self._new_items(active, matrix)
        for row, ours in zip(there, item_payloads(items), strict=True):
            payload = {**(structs[row].payload or {}), KEY: {generation_key(statistics.generation): ours}}
            if ours:
                structs[row] = structs[row].model_copy(update={"payload": payload})
        ids = [id_as_stored(structs[row].id) for row in there]
        completed: Any = structs
        if batch is not None:
            completed = batch.model_copy(update={"payloads": [point.payload or {} for point in structs]})
        return completed, (statistics, ids, items)

    def _search_of_batches(
        self, explained: bool, limit: int, with_payload: bool, options: Mapping[str, Any]
    ) -> Steps[Callable[[list[list[float]]], Steps[Any]]]:
        searching = steps_of(self.query_batch_points_explained if explained else self.query_batch_points)

        def search(vectors: list[list[float]]) -> Steps[Any]:
            requests = [models.QueryRequest(query=vector, limit=limit, with_payload=with_payload) for vector in vectors]
            return searching(requests, **options)

        return (yield from done(search))

    def _hits(self, found: list[models.QueryResponse]) -> list[list[Hit]]:
        return [[Hit(point.id, point.score, point.payload or {}) for point in response.points] for response in found]

    def _fold_target(self, name: str) -> QdrantFoldTarget:
        return QdrantFoldTarget(self._store, name)
