"""What only Qdrant has: payload selectors, thresholds, offsets, kinds of queries."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
from adapters.world import World
from harness import QdrantEngine
from qdrant_client import QdrantClient, grpc, models
from qdrant_client.conversions.conversion import RestToGrpc

import dbnorm_vdb as db
from dbnorm_qdrant import QdrantAdapter, wrap
from dbnorm_qdrant.payload import rest_selector, with_our_key
from dbnorm_vdb.targets import open_target

WORLD = World.make(n=60)
PAYLOADS: list[dict[str, Any]] = [
    {"number": row, "nested": {"title": f"item {row}", "tags": ["a", "b"]}, "dbnorm_like": 1} for row in range(59)
] + [{}]

SELECTORS = {
    "True": True,
    "False": False,
    "None": None,
    "list": ["number"],
    "empty list": [],
    "nested": ["nested.title"],
    "missing": ["nothing"],
    "include": models.PayloadSelectorInclude(include=["number", "nested.tags"]),
    "exclude": models.PayloadSelectorExclude(exclude=["number"]),
    "exclude nested": models.PayloadSelectorExclude(exclude=["nested.title"]),
    "exclude ours": models.PayloadSelectorExclude(exclude=["dbnorm"]),
    "exclude ours and more": models.PayloadSelectorExclude(exclude=["dbnorm", "number"]),
}


@pytest.fixture(scope="module")
def fitted(qdrant_local: QdrantEngine) -> Iterator[tuple[str, str, QdrantAdapter]]:
    """A plain collection, its like with statistics, and the adapter of that."""
    plain = qdrant_local.create(WORLD.items, payloads=PAYLOADS)
    collection = qdrant_local.create(WORLD.items, payloads=PAYLOADS)
    adapter = QdrantAdapter(qdrant_local.client(), collection)
    WORLD.fit(adapter)
    yield plain, collection, adapter
    adapter.drop()
    for name in (plain, collection):
        qdrant_local.drop_collection(name)


@pytest.mark.parametrize("method", ["raw", None])
@pytest.mark.parametrize("selector", SELECTORS)
def test_payloads_are_just_what_was_asked_for(
    qdrant_local: QdrantEngine, fitted: tuple[str, str, QdrantAdapter], selector: str, method: str | None
) -> None:
    plain, _, adapter = fitted
    query = WORLD.queries[0].tolist()
    asked = SELECTORS[selector]
    own = qdrant_local.client().query_points(plain, query=query, limit=60, with_payload=asked, with_vectors=True)
    ours = adapter.query_points(
        query=query,
        limit=60,
        candidates=60 if method is None else None,
        with_payload=asked,
        with_vectors=True,
        method=method,
    )
    assert type(ours) is type(own)
    expected = {point.id: (point.payload, point.vector, point.shard_key) for point in own.points}
    assert {point.id: (point.payload, point.vector, point.shard_key) for point in ours.points} == expected


def test_a_grpc_selector_is_understood() -> None:
    """Local mode takes none, so only the translation is tested here."""
    selector = rest_selector(grpc.WithPayloadSelector(include=grpc.PayloadIncludeSelector(fields=["number"])))
    assert with_our_key(selector) == ["number", "dbnorm"]


def test_asking_for_our_key_gives_nothing(fitted: tuple[str, str, QdrantAdapter]) -> None:
    _, _, adapter = fitted
    for method in ("raw", None):
        points = adapter.query_points(WORLD.queries[0], with_payload=["dbnorm"], method=method).points
        assert [point.payload for point in points] == [{}] * 10


def test_results_do_not_share_the_stored_payload(fitted: tuple[str, str, QdrantAdapter]) -> None:
    _, collection, adapter = fitted
    adapter.query_points(WORLD.queries[0], limit=60, candidates=60)
    stored = adapter.client.retrieve(collection, ids=[0])[0].payload
    assert stored is not None
    assert "dbnorm" in stored


@pytest.mark.parametrize("metric", ["dot", "euclidean"])
def test_offset_and_score_threshold_act_on_the_normalised_result(qdrant_local: QdrantEngine, metric: str) -> None:
    world = World.make(metric, n=60)
    collection = qdrant_local.create(world.items, metric=metric)
    adapter = QdrantAdapter(qdrant_local.client(), collection)
    world.fit(adapter)
    query = world.queries[0].tolist()
    everything = adapter.query_points(query, limit=60, candidates=60).points
    page = adapter.query_points(query, limit=7, offset=5, candidates=60).points
    assert page == everything[5:12]
    threshold = everything[20].score
    passed = adapter.query_points(query, limit=60, candidates=60, score_threshold=threshold).points
    assert passed == everything[:20]
    assert (
        adapter.query_points(query, limit=45, offset=15, candidates=60, score_threshold=threshold).points
        == everything[15:20]
    )
    adapter.drop()
    qdrant_local.drop_collection(collection)


def test_kinds_of_one_query_agree(fitted: tuple[str, str, QdrantAdapter]) -> None:
    _, _, adapter = fitted
    vector = WORLD.queries[0]
    kinds: list[Any] = [vector, vector.tolist(), models.NearestQuery(nearest=vector.tolist())]
    results = [adapter.query_points(kind, limit=10).points for kind in kinds]
    assert results[0] == results[1] == results[2]


def test_a_point_as_the_query_leaves_itself_out(fitted: tuple[str, str, QdrantAdapter]) -> None:
    _, _, adapter = fitted
    found = [point.id for point in adapter.query_points(query=7, limit=60, candidates=60).points]
    assert len(found) == 59
    assert 7 not in found


def test_another_vector_is_refused(fitted: tuple[str, str, QdrantAdapter]) -> None:
    _, _, adapter = fitted
    with pytest.raises(db.StatisticsMismatchError, match="the query uses 'caption'.*vector_name='caption'"):
        adapter.query_points(WORLD.queries[0], using="caption")


def test_unsupported_vectors_write_nothing(qdrant_local: QdrantEngine) -> None:
    client: QdrantClient = qdrant_local.client()
    multi = models.MultiVectorConfig(comparator=models.MultiVectorComparator.MAX_SIM)
    client.create_collection(
        "odd",
        vectors_config={
            "city": models.VectorParams(size=8, distance=models.Distance.MANHATTAN),
            "many": models.VectorParams(size=8, distance=models.Distance.COSINE, multivector_config=multi),
        },
        sparse_vectors_config={"words": models.SparseVectorParams()},
    )
    before = qdrant_local.snapshot("odd")
    for name, error, message in (
        ("city", db.UnsupportedMetricError, "compared by Manhattan; supported are Cosine, Dot, Euclid"),
        ("many", db.UnsupportedVectorError, "multi-vector"),
        ("words", db.UnsupportedVectorError, "sparse"),
    ):
        with pytest.raises(error, match=message):
            WORLD.fit(QdrantAdapter(client, "odd", name))
    assert qdrant_local.snapshot("odd") == before
    client.delete_collection("odd")


def test_points_without_the_vector_are_passed_over(qdrant_local: QdrantEngine) -> None:
    client: QdrantClient = qdrant_local.client()
    collection = qdrant_local.create(
        WORLD.items, vector_name="image", other_vectors={"text": WORLD.items[:, :3].copy()}
    )
    client.upsert(collection, [models.PointStruct(id=100, vector={"text": [1.0, 2.0, 3.0]}, payload={"number": 100})])
    before = qdrant_local.snapshot(collection)
    adapter = QdrantAdapter(client, collection, "image")
    assert WORLD.fit(adapter).item_count == 60
    assert len(adapter.sample_items(1000)) == 60
    adapter.drop()
    assert qdrant_local.snapshot(collection) == before
    qdrant_local.drop_collection(collection)


def test_a_payload_key_of_the_users_own_is_not_touched(qdrant_local: QdrantEngine) -> None:
    collection = qdrant_local.create(WORLD.items[:2], payloads=[{"dbnorm": "mine"}, {"number": 1}])
    before = qdrant_local.snapshot(collection)
    adapter = QdrantAdapter(qdrant_local.client(), collection)
    with pytest.raises(
        db.ForeignDataError, match="payload key 'dbnorm' that is not of this library's making .first: 0"
    ):
        WORLD.fit(adapter)
    adapter.drop()
    assert qdrant_local.snapshot(collection) == before
    qdrant_local.drop_collection(collection)


@pytest.mark.parametrize(
    "value", ["text", {}, {"query": "0.3"}, {"query": None}, {"query": float("inf")}, {"query": True}, ["query"]]
)
def test_damaged_item_statistics_count_as_none(qdrant_local: QdrantEngine, value: Any) -> None:
    collection = qdrant_local.create(WORLD.items)
    adapter = QdrantAdapter(qdrant_local.client(), collection)
    generation = WORLD.fit(adapter, method="is").statistics.generation
    raw = {point.id: point.score for point in adapter.query_points(WORLD.queries[0], limit=60, method="raw").points}
    qdrant_local.client().set_payload(collection, payload={f"g{generation}": value}, key="dbnorm", points=[5])
    found = {p.id: p.score for p in adapter.query_points(WORLD.queries[0], limit=60, candidates=60, method="is").points}
    assert len(found) == 60
    assert found[5] == pytest.approx(raw[5], abs=1e-6)
    assert np.isfinite(list(found.values())).all()
    qdrant_local.client().delete_payload(collection, keys=["dbnorm"], points=[5])
    adapter.drop()
    qdrant_local.drop_collection(collection)


def test_items_without_statistics_are_counted_whatever_they_had_before(qdrant_local: QdrantEngine) -> None:
    collection = qdrant_local.create(WORLD.items)
    client = qdrant_local.client()
    adapter = QdrantAdapter(client, collection)

    def overwrite(stage: str, done: int, total: int) -> None:
        if stage == "items" and done == total:
            client.overwrite_payload(collection, payload={"mine": 1}, points=[*range(20)])

    first = adapter.fit(WORLD.query_bank, WORLD.gallery_bank, progress=overwrite)
    lost = [p.id for p in client.scroll(collection, limit=100)[0] if "dbnorm" not in (p.payload or {})]
    assert first.missing_count == len(lost) > 0  # the others were flagged as activated after that
    client.delete_vectors(collection, vectors=[""], points=[27])
    second = adapter.fit(WORLD.query_bank, WORLD.gallery_bank)
    (left,) = client.retrieve(collection, ids=[27])
    assert left.payload is not None
    assert left.payload["dbnorm"] == {}
    assert (second.item_count, second.missing_count) == (len(WORLD.items) - 1, 1)
    adapter.drop()
    qdrant_local.drop_collection(collection)


def test_storage_on_disk_keeps_the_statistics(tmp_path: Any) -> None:
    client = QdrantClient(path=str(tmp_path))
    engine = QdrantEngine("qdrant-path", client)
    collection = engine.create(WORLD.items[:20])
    adapter = engine.adapter(collection)
    WORLD.fit(adapter)
    first = adapter.query_points(WORLD.queries[0], limit=5).points
    client.close()
    reopened = open_target(f"qdrant://{tmp_path}/{collection}")
    assert [p.id for p in reopened.query_points(WORLD.queries[0], limit=5).points] == [p.id for p in first]
    reopened.close()


def test_a_refit_leaves_only_its_own_banks(qdrant_local: QdrantEngine) -> None:
    collection = qdrant_local.create(WORLD.items)
    adapter = QdrantAdapter(qdrant_local.client(), collection)
    for _ in range(2):
        WORLD.fit(adapter)
        names = [c.name for c in adapter.client.get_collections().collections if c.name.startswith(f"{collection}_")]
        assert len(names) == 1
        assert adapter.client.count(names[0]).count == len(WORLD.query_bank) + len(WORLD.gallery_bank)
    adapter.drop()
    qdrant_local.drop_collection(collection)


def test_upsert_takes_what_the_client_takes(qdrant_local: QdrantEngine) -> None:
    client = qdrant_local.client()
    collection = qdrant_local.create(WORLD.items)
    adapter = qdrant_local.adapter(collection)
    generation = WORLD.fit(adapter).statistics.generation
    vector = WORLD.items[0].tolist()
    point = models.PointStruct(id=100, vector=vector, payload={"title": "a"})
    before = point.model_copy(deep=True)
    as_grpc = RestToGrpc.convert_point_struct(point.model_copy(update={"id": 102}))
    batch = models.Batch(ids=[103, 104], vectors=[vector, vector], payloads=[{"title": "b"}, {}])
    result = adapter.upsert([point])
    assert result.status == models.UpdateStatus.COMPLETED
    assert point == before, "the caller's objects stay as they are"
    adapter.upsert(models.PointStruct(id=i, vector=vector) for i in (101,))
    adapter.upsert([as_grpc])
    adapter.upsert(points=batch, wait=True)
    adapter.upsert(models.Batch(ids=[105], vectors=[vector]), ordering=models.WriteOrdering.STRONG)
    ids, items = adapter._store.items(generation, [0, *range(100, 106)], ["query", "gallery"])
    assert sorted(ids) == [0, *range(100, 106)]
    np.testing.assert_allclose(items.query_bias, items.query_bias[0], atol=1e-5)
    (found,) = [hit for hit in adapter.query_points(vector, limit=100).points if hit.id == 103]
    assert found.payload == {"title": "b"}
    for bad in ([{"id": 7}], [models.PointStruct(id=106, vector=[1.0, 2.0])], "points"):
        with pytest.raises(Exception, match=r".") as own:
            client.upsert(collection, bad)
        with pytest.raises(type(own.value)):
            adapter.upsert(bad)
    adapter.drop()
    qdrant_local.drop_collection(collection)


def test_a_payload_key_of_the_users_own_is_not_touched_after_a_fit_either(qdrant_local: QdrantEngine) -> None:
    collection = qdrant_local.create(WORLD.items)
    client, adapter = qdrant_local.client(), QdrantAdapter(qdrant_local.client(), collection)
    WORLD.fit(adapter)
    vector = WORLD.items[0].tolist()
    theirs = [{"dbnorm": "text"}, {"dbnorm": {"user": "data"}}]
    with pytest.raises(db.ForeignDataError, match="first: 901"):
        adapter.upsert([models.PointStruct(id=901 + row, vector=vector, payload=p) for row, p in enumerate(theirs)])
    assert not client.retrieve(collection, [901, 902])
    wrap(client).upsert(collection, [models.PointStruct(id=900, vector=vector, payload=theirs[1])])
    with pytest.raises(db.ForeignDataError, match="first: 900"):
        adapter.refresh()
    adapter.drop()
    assert [record.payload for record in client.retrieve(collection, [900])] == [theirs[1]]
    qdrant_local.drop_collection(collection)


def test_what_a_copied_payload_has_brought_along_is_replaced_and_dropped(qdrant_local: QdrantEngine) -> None:
    collection = qdrant_local.create(WORLD.items)
    client, adapter = qdrant_local.client(), QdrantAdapter(qdrant_local.client(), collection)
    WORLD.fit(adapter)
    records = client.scroll(collection, limit=100, with_vectors=True)[0]
    points = [models.PointStruct(id=r.id, vector=r.vector, payload=r.payload) for r in records]
    copy = qdrant_local.create(WORLD.items[:0])
    client.upsert(copy, points)
    QdrantAdapter(client, copy).drop()
    assert all("dbnorm" not in record.payload for record in client.scroll(copy, limit=100)[0])
    client.upsert(copy, points)
    client.delete_payload(copy, keys=[f"dbnorm.{key}" for key in points[0].payload["dbnorm"]], points=[0, 1])
    assert client.retrieve(copy, [0])[0].payload["dbnorm"] == {}, "as it may be left by a fit"
    anew = QdrantAdapter(client, copy)
    generation = anew.fit(WORLD.query_bank, WORLD.gallery_bank, query_beta=3).statistics.generation
    assert all([*record.payload["dbnorm"]] == [f"g{generation}"] for record in client.scroll(copy, limit=100)[0])
    anew.drop()
    client.upsert(copy, points)
    anew.drop()
    assert all("dbnorm" not in record.payload for record in client.scroll(copy, limit=100)[0])
    for name in (collection, copy):
        QdrantAdapter(client, name).drop()
        qdrant_local.drop_collection(name)


@pytest.mark.parametrize("value", [{}, {"g1": {}}, {"g1": {"title": "a"}}, {"g1": {"query": "a"}}, {"g1": 3}], ids=str)
def test_what_only_looks_like_ours_is_not_taken_for_it(qdrant_local: QdrantEngine, value: Any) -> None:
    collection = qdrant_local.create(WORLD.items, payloads=[{"dbnorm": value}] * len(WORLD.items))
    adapter = QdrantAdapter(qdrant_local.client(), collection)
    if value:  # an empty object is what we may leave, and holds nothing to lose
        with pytest.raises(db.ForeignDataError, match="not of this library's making"):
            WORLD.fit(adapter)
    adapter.drop()
    assert qdrant_local.client().retrieve(collection, [0])[0].payload == {"dbnorm": value}
    qdrant_local.drop_collection(collection)


@pytest.mark.parametrize("cache", ["none", "lazy", "all"])
@pytest.mark.parametrize(
    "condition",
    [
        {"update_mode": models.UpdateMode.INSERT_ONLY},
        {"update_filter": models.Filter(must=[models.HasIdCondition(has_id=[])])},
        {"update_mode": models.UpdateMode.UPDATE_ONLY},
        {"update_mode": models.UpdateMode.UPDATE_ONLY, "wait": False},
        {"update_mode": models.UpdateMode.UPSERT},
    ],
    ids=["insert only", "filter", "update only", "not waited for", "always"],
)
@pytest.mark.parametrize("reading_fails", [False, True])
def test_a_conditional_upsert_is_served_as_it_was_written(
    qdrant_local: QdrantEngine,
    monkeypatch: pytest.MonkeyPatch,
    cache: str,
    condition: dict[str, Any],
    reading_fails: bool,
) -> None:
    collection = qdrant_local.create(WORLD.items, metric="dot")
    client = qdrant_local.client()
    WORLD.fit(QdrantAdapter(client, collection))
    adapter, uncached = (QdrantAdapter(client, collection, cache=how) for how in (cache, "none"))

    def found(by: QdrantAdapter) -> dict[Any, float]:
        points = by.query_points(WORLD.queries[0].tolist(), limit=80, candidates=80).points
        return {point.id: pytest.approx(point.score, abs=1e-6) for point in points}

    found(adapter)
    points = [models.PointStruct(id=row, vector=(-WORLD.items[row % 60]).tolist(), payload={}) for row in range(50, 70)]
    if reading_fails:
        monkeypatch.setattr(adapter._store, "items", Mock(side_effect=OSError("no connection")))
    adapter.upsert(points, **condition)
    monkeypatch.undo()
    assert found(adapter) == found(uncached)
    uncached.drop()
    qdrant_local.drop_collection(collection)


@pytest.mark.parametrize("execution", ["client", "server"])
def test_a_point_in_several_groups_has_one_score(qdrant_local: QdrantEngine, execution: str) -> None:
    payloads = [{"tags": ["all", f"t{row % 3}"]} for row in range(len(WORLD.items))]
    collection = qdrant_local.create(WORLD.items, metric="euclidean", payloads=payloads)
    adapter = QdrantAdapter(qdrant_local.client(), collection)
    WORLD.fit(adapter)
    query = WORLD.queries[0].tolist()
    scores = {point.id: point.score for point in adapter.query_points(query, limit=60, candidates=60).points}
    groups = adapter.query_points_groups(
        "tags", query, limit=4, group_size=5, candidates=60, execution=execution
    ).groups
    assert len(groups) == 4
    for hit in [hit for group in groups for hit in group.hits]:
        assert hit.score == pytest.approx(scores[hit.id], abs=1e-5)
    adapter.drop()
    qdrant_local.drop_collection(collection)


def test_what_is_no_payload_selector_is_for_the_client_to_refuse(
    qdrant_local: QdrantEngine, fitted: tuple[str, str, QdrantAdapter]
) -> None:
    plain, _, adapter = fitted
    query = WORLD.queries[0].tolist()
    with pytest.raises(ValueError, match="with_payload must be") as own:
        qdrant_local.client().query_points(plain, query, with_payload="title")  # type: ignore[arg-type]
    with pytest.raises(type(own.value), match="with_payload must be"):
        adapter.query_points(query, with_payload="title")


@pytest.mark.parametrize(
    "points",
    [
        models.Batch(ids=[1, 2], vectors=[[0.0] * 8]),
        models.Batch(ids=[1], vectors=[[0.0] * 8], payloads=[{}, {}]),
        models.PointStruct(id=1, vector=[0.0] * 8),
        [(1, [0.0] * 8)],
    ],
    ids=["too few vectors", "too many payloads", "a single point", "no points"],
)
def test_what_cannot_be_upserted_is_for_the_client_to_refuse(
    qdrant_local: QdrantEngine, fitted: tuple[str, str, QdrantAdapter], points: Any
) -> None:
    plain, _, adapter = fitted
    with pytest.raises(Exception) as own:  # noqa: PT011
        qdrant_local.client().upsert(plain, points)
    with pytest.raises(type(own.value)) as ours:
        adapter.upsert(points)
    assert str(ours.value) == str(own.value)


def test_points_that_have_lost_the_vector_lose_their_statistics_at_a_refresh(qdrant_local: QdrantEngine) -> None:
    collection = qdrant_local.create(WORLD.items, vector_name="image", other_vectors={"text": WORLD.items})
    client, adapter = qdrant_local.client(), QdrantAdapter(qdrant_local.client(), collection, "image")
    WORLD.fit(adapter)
    client.delete_vectors(collection, ["image"], list(range(5)))
    summary = adapter.refresh()
    assert (summary.removed_count, summary.item_count) == (5, 55)
    assert (adapter.status().fitted_count, adapter.status().advice) == (55, [])
    later = [models.PointStruct(id=100 + row, vector={"image": WORLD.items[row].tolist()}) for row in range(5)]
    client.upsert(collection, later)
    assert adapter.status().advice == ["refresh: 10 of 65 items lack statistics"]
    adapter.drop()
    qdrant_local.drop_collection(collection)
