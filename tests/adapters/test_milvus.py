"""What only Milvus has: batches, fields, ranges, partitions, kinds of collections and of results."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest
from adapters.world import World
from congruence.milvus_calls import pages
from grpc import RpcError, StatusCode
from harness import MilvusEngine
from pymilvus import DataType, MilvusClient, MilvusException

import dbnorm_vdb as db
from dbnorm_milvus import MilvusAdapter, wrap
from dbnorm_vdb.targets import open_target

WORLD = World.make(n=60)


@pytest.fixture(scope="module", params=["milvus_lite", "milvus_2_3_5"])
def milvus(request: pytest.FixtureRequest) -> MilvusEngine:
    engine: MilvusEngine = request.getfixturevalue(request.param)
    return engine


@pytest.fixture(scope="module", params=[True, False], ids=["dynamic", "fixed"])
def fitted(milvus: MilvusEngine, request: pytest.FixtureRequest) -> Iterator[tuple[str, MilvusAdapter]]:
    """A collection with and one without dynamic fields, with an adapter each."""
    collection = milvus.create(WORLD.items, dynamic=request.param)
    adapter = milvus.adapter(collection)
    WORLD.fit(adapter)
    yield collection, adapter
    adapter.drop()
    milvus.drop_collection(collection)


@pytest.mark.parametrize("fields", [["title"], ["number", "key"], ["*"], ["vector"], [], None], ids=str)
@pytest.mark.parametrize("method", ["raw", None])
def test_fields_are_just_what_was_asked_for(
    milvus: MilvusEngine, fitted: tuple[str, MilvusAdapter], fields: list[str] | None, method: str | None
) -> None:
    collection, adapter = fitted
    data = WORLD.queries[:2].tolist()
    own = milvus.client().search(collection, data=data, limit=60, output_fields=fields)
    candidates = 60 if method is None else None
    ours = adapter.search(data=data, limit=60, output_fields=fields, candidates=candidates, method=method)
    assert type(ours) is type(own)
    assert vars(ours).keys() == vars(own).keys()
    for our_hits, own_hits in zip(ours, own, strict=True):
        assert type(our_hits) is type(own_hits)
        assert type(our_hits[0]) is type(own_hits[0])
        assert our_hits[0].keys() == own_hits[0].keys()
        key = next(name for name in own_hits[0] if name not in ("distance", "entity"))
        assert {hit[key]: hit["entity"] for hit in our_hits} == {hit[key]: hit["entity"] for hit in own_hits}
        assert [hit[key] for hit in our_hits] == list(our_hits.ids)
        assert [hit["distance"] for hit in our_hits] == list(our_hits.distances)


@pytest.mark.parametrize("how", [copy.deepcopy, lambda result: result], ids=["copied", "itself"])
def test_results_may_be_copied_and_reranked_before_they_are_read(
    fitted: tuple[str, MilvusAdapter], how: Callable[[Any], Any]
) -> None:
    _, adapter = fitted
    asked: dict[str, Any] = {"data": WORLD.queries[:2].tolist(), "output_fields": ["title", "vector"]}
    read = [list(hits) for hits in adapter.search(**asked, limit=10, candidates=60)]
    unread = how(adapter.search(**asked, limit=10, candidates=60))
    assert [hits[-1] for hits in unread] == [hits[-1] for hits in read]
    assert [list(hits) for hits in unread] == read
    fetched = adapter.search(**asked, limit=60, method="raw")
    twice = adapter.rerank(how(adapter.rerank(fetched, limit=10)), method="dual_is", limit=5)
    for hits in twice:
        assert [hit["entity"]["title"] for hit in hits] == [f"item {key}" for key in hits.ids]


def test_a_batch_equals_single_searches(fitted: tuple[str, MilvusAdapter]) -> None:
    _, adapter = fitted
    batch = adapter.search(data=WORLD.queries.tolist(), limit=8)
    for query, hits in zip(WORLD.queries, batch, strict=True):
        (single,) = adapter.search(data=[query.tolist()], limit=8)
        assert list(hits.ids) == list(single.ids)
        assert list(hits.distances) == pytest.approx(list(single.distances), abs=1e-6)


def test_exact_batches_of_every_kind(milvus: MilvusEngine, fitted: tuple[str, MilvusAdapter]) -> None:
    _, adapter = fitted
    expected = [list(hits.ids) for hits in adapter.search(WORLD.queries[:4].tolist(), limit=5, candidates=61)]
    for data in (WORLD.queries[:4], WORLD.queries[:4].tolist(), list(WORLD.queries[:4])):
        found = adapter.search_explained(data, limit=5, candidates=6, exact=True, output_fields=["number"])
        assert max(query.rounds for query in found.queries) > 1
        assert [list(hits.ids) for hits in found.result] == expected
        for hits in found.result:
            assert [hit["entity"]["number"] for hit in hits] == list(hits.ids)


def test_ef_grows_with_the_window(
    fitted: tuple[str, MilvusAdapter], milvus: MilvusEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """HNSW returns no more hits than its `ef`."""
    _, adapter = fitted
    sent = []
    search = milvus.client().search

    def recorded(*args: Any, **kwargs: Any) -> Any:
        sent.append(kwargs["search_params"])
        return search(*args, **{**kwargs, "search_params": {}})

    monkeypatch.setattr(milvus.client(), "search", recorded)
    data = WORLD.queries[:1].tolist()
    for given, expected in (
        ({"params": {"ef": 16}}, {"params": {"ef": 50}}),
        ({"params": {"ef": 64}, "level": 1}, {"params": {"ef": 64}, "level": 1}),
        ({"ef": 16}, {"ef": 50}),
        ({"params": {"nprobe": 4}}, {"params": {"nprobe": 4}}),
        (None, {}),
    ):
        adapter.search(data, limit=5, candidates=50, search_params=given)
        assert sent.pop() == expected


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_offset_and_range_act_on_the_normalised_result(milvus: MilvusEngine, metric: str) -> None:
    world = World.make(metric, n=40)
    collection = milvus.create(world.items, metric=metric)
    adapter = milvus.adapter(collection)
    world.fit(adapter)
    data = world.queries[:1].tolist()
    (everything,) = adapter.search(data=data, limit=40, candidates=40)
    for arguments in ({"offset": 5}, {"search_params": {"offset": 5}}):
        (page,) = adapter.search(data=data, limit=7, candidates=40, **arguments)
        assert list(page.ids) == list(everything.ids)[5:12]
    near, far = everything.distances[10], everything.distances[20]
    for params in ({"radius": far, "range_filter": near}, {"params": {"radius": far, "range_filter": near}}):
        (ring,) = adapter.search(data=data, limit=40, candidates=40, search_params=params)
        assert list(ring.ids) == list(everything.ids)[10:20], "the radius itself is outside"
    (rounded,) = adapter.search(data=data, limit=3, candidates=40, round_decimal=2)
    assert list(rounded.distances) == [round(distance, 2) for distance in everything.distances[:3]]
    adapter.drop()
    milvus.drop_collection(collection)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"group_by_field": "vector"}, "group_by_field"),
        ({"group_by_fields": ["number", "title"]}, "group_by_fields"),
        ({"order_by_fields": [{"field": "number"}]}, "order_by_fields"),
        ({"ranker": object()}, "ranker"),
        ({"search_params": {"params": {"range_filter": 0.5}}}, "range_filter"),
        ({"data": ["some text"]}, "dense float"),
    ],
)
def test_searches_without_a_normalised_form_are_refused(
    fitted: tuple[str, MilvusAdapter], arguments: dict[str, Any], message: str
) -> None:
    _, adapter = fitted
    with pytest.raises(db.UnsupportedQueryError, match=f"{message}.*method='raw'"):
        adapter.search(**{"data": WORLD.queries[:1].tolist(), **arguments})


def test_another_field_is_refused(fitted: tuple[str, MilvusAdapter]) -> None:
    _, adapter = fitted
    with pytest.raises(db.StatisticsMismatchError, match="the search is on 'caption'.*vector_field='caption'"):
        adapter.search(data=WORLD.queries[:1].tolist(), anns_field="caption")


def test_the_clients_own_refusals_pass_through(fitted: tuple[str, MilvusAdapter]) -> None:
    _, adapter = fitted
    with pytest.raises(MilvusException):
        adapter.search(data=WORLD.queries[:1].tolist(), filter="nonsense ===")


def test_partitions(milvus: MilvusEngine) -> None:
    collection = milvus.create(WORLD.items)
    milvus.client().create_partition(collection, "late")
    milvus.client().insert(
        collection,
        [{"key": 100 + i, "vector": v, "number": i, "title": "late"} for i, v in enumerate(WORLD.items[:9].tolist())],
        partition_name="late",
    )
    adapter = milvus.adapter(collection)
    assert WORLD.fit(adapter).item_count == 69
    (hits,) = adapter.search(data=WORLD.queries[:1].tolist(), limit=20, partition_names=["late"])
    assert sorted(hits.ids) == list(range(100, 109))
    adapter.drop()
    milvus.drop_collection(collection)


def test_without_room_in_memory_statistics_are_looked_up(
    milvus: MilvusEngine, fitted: tuple[str, MilvusAdapter]
) -> None:
    collection, adapter = fitted
    frugal = milvus.adapter(collection, cache_bytes=0)
    for query in WORLD.queries[:3]:
        ours, own = (a.search(data=[query.tolist()], limit=30)[0] for a in (frugal, adapter))
        assert list(ours.ids) == list(own.ids)
    with pytest.raises(db.InvalidParameterError, match="cache_bytes .* got -1"):
        milvus.adapter(collection, cache_bytes=-1)


def test_items_fitted_elsewhere_are_looked_up(milvus_lite: MilvusEngine) -> None:
    """An item that is not in memory but has statistics gets them."""
    collection = milvus_lite.create(WORLD.items)
    adapter = milvus_lite.adapter(collection)
    generation = WORLD.fit(adapter, method="is").statistics.generation
    adapter.search(data=WORLD.queries[:1].tolist())
    milvus_lite.insert(collection, [500], WORLD.queries[:1], [{"number": 500, "title": "new"}])
    values = db.ItemStatistics.of_biases(1, {"query": np.array([0.9])})
    adapter._store.write_items(generation, [500], values, columns=["query"])
    (hits,) = adapter.search(data=WORLD.queries[:1].tolist(), limit=61, candidates=61)
    (raw,) = adapter.search(data=WORLD.queries[:1].tolist(), limit=61, method="raw")
    assert raw.ids[0] == 500
    assert hits.distances[list(hits.ids).index(500)] < 0.8
    adapter.drop()
    milvus_lite.drop_collection(collection)


def test_unsupported_vectors_write_nothing(milvus_lite: MilvusEngine) -> None:
    client: MilvusClient = milvus_lite.client()
    schema = client.create_schema(auto_id=False)
    schema.add_field("key", DataType.INT64, is_primary=True)
    schema.add_field("words", DataType.SPARSE_FLOAT_VECTOR)
    schema.add_field("bare", DataType.FLOAT_VECTOR, dim=8)
    client.create_collection("odd", schema=schema)
    for name, error, message in (
        ("words", db.UnsupportedVectorError, "SPARSE_FLOAT_VECTOR"),
        ("bare", db.UnsupportedMetricError, "has no index"),
    ):
        with pytest.raises(error, match=message):
            WORLD.fit(MilvusAdapter(client, "odd", name))
    assert [name for name in client.list_collections() if name.startswith("odd")] == ["odd"]
    client.drop_collection("odd")


def test_a_database_reopened(tmp_path: Any) -> None:
    path = str(tmp_path / "some.db")
    client = MilvusClient(path)
    engine = MilvusEngine("milvus-lite", client)
    collection = engine.create(WORLD.items)
    WORLD.fit(engine.adapter(collection))
    (first,) = engine.adapter(collection).search(data=WORLD.queries[:1].tolist())
    client.close()
    reopened = open_target(f"milvus://{path}/{collection}")
    (second,) = reopened.search(data=WORLD.queries[:1].tolist())
    assert list(second.ids) == list(first.ids)
    reopened.close()


def test_text_keys_of_any_kind(milvus: MilvusEngine) -> None:
    """The client does not quote keys in the filters it builds; ours are."""
    odd = [
        "it's",
        'say "hi"',
        "a\\b",
        "line\nbreak",
        "tab\tx",
        "ünï 😀",
        "x'] or number > 0 or key in ['y",
        "\\",
        "%s",
        "{a}",
    ]
    keys = [*odd, *(f"plain {row}" for row in range(60 - len(odd)))]
    collection = milvus.create(WORLD.items, ids=keys)
    adapter = milvus.adapter(collection, cache_bytes=0)
    adapter.fit(WORLD.query_bank, 60)
    assert adapter.status().active.gallery.size == 60
    (hits,) = adapter.search(data=WORLD.queries[:1].tolist(), limit=60, candidates=60)
    (raw,) = adapter.search(data=WORLD.queries[:1].tolist(), limit=60, method="raw")
    unchanged = [
        key
        for key in keys
        if dict(zip(hits.ids, hits.distances, strict=True))[key] == dict(zip(raw.ids, raw.distances, strict=True))[key]
    ]
    assert len(unchanged) < 3, "every item has statistics"
    adapter.drop()
    milvus.drop_collection(collection)


def test_range_search_reaches_beyond_the_first_hits(milvus: MilvusEngine) -> None:
    """What lies nearer than range_filter must not use up the window."""
    collection = milvus.create(WORLD.items)
    adapter = milvus.adapter(collection)
    WORLD.fit(adapter)
    data = WORLD.queries[:1].tolist()
    (everything,) = adapter.search(data=data, limit=60, candidates=60)
    bounds = {"radius": everything.distances[50], "range_filter": everything.distances[40]}
    (ring,) = adapter.search(data=data, limit=10, candidates=60, search_params=bounds)
    assert list(ring.ids) == list(everything.ids)[40:50]
    adapter.drop()
    milvus.drop_collection(collection)


@pytest.mark.parametrize("change", ["refresh", "fit", "drop"])
def test_an_iterator_begins_with_what_another_adapter_has_made(milvus_lite: MilvusEngine, change: str) -> None:
    """An iterator that is under way then has to be made anew."""
    collection = milvus_lite.create(WORLD.items)
    writer, reader = milvus_lite.adapter(collection), milvus_lite.adapter(collection, statistics_ttl=3600)
    WORLD.fit(writer)
    asked: dict[str, Any] = {"data": WORLD.queries[:1].tolist(), "batch_size": 10}
    begun = reader.search_iterator(**asked)
    assert len(begun.next()) == 10
    milvus_lite.delete(collection, [3])
    if change == "fit":
        WORLD.fit(writer, method="is")
    else:
        getattr(writer, change)()
    for _ in range(2):
        (whole,) = milvus_lite.adapter(collection).search(asked["data"], limit=59, candidates=59)
        assert [hit.id for page in pages(reader.search_iterator(**asked)) for hit in page] == list(whole.ids)
    with pytest.raises(db.StatisticsMismatchError, match="make a new iterator"):
        pages(begun)
    writer.drop()
    milvus_lite.drop_collection(collection)


@pytest.mark.parametrize("method", ["dis", "dual_dis"])
def test_dynamic_methods_take_no_range_filter(fitted: tuple[str, MilvusAdapter], method: str) -> None:
    """The raw top-1, which decides their gates, may lie beyond it."""
    _, adapter = fitted
    asked: dict[str, Any] = {"data": WORLD.queries[:1].tolist(), "method": method}
    for search in (adapter.search, adapter.search_explained, adapter.search_iterator):
        for bounds in ({"radius": -0.2, "range_filter": 0.2}, {"params": {"radius": -0.2, "range_filter": 0.2}}):
            with pytest.raises(db.UnsupportedQueryError, match=f"range_filter .* {method}:"):
                search(**asked, search_params=bounds)
    (everything,) = adapter.search(**asked, limit=60, candidates=60)
    (near,) = adapter.search(**asked, limit=60, candidates=60, search_params={"radius": everything.distances[20]})
    assert list(near.ids) == list(everything.ids)[:20]


def test_companions_whose_record_was_lost_are_dropped(milvus_lite: MilvusEngine) -> None:
    collection = milvus_lite.create(WORLD.items)
    before = milvus_lite.snapshot(collection)
    adapter = milvus_lite.adapter(collection)
    WORLD.fit(adapter)
    milvus_lite.client().drop_collection_properties(collection, ["dbnorm"])
    adapter.drop()
    assert milvus_lite.snapshot(collection) == before
    milvus_lite.drop_collection(collection)


def test_rows_are_written_even_if_their_statistics_cannot_be(
    milvus_lite: MilvusEngine, caplog: pytest.LogCaptureFixture
) -> None:
    """And what the client makes of keys and arguments stays its own."""
    client = milvus_lite.client()
    collection = milvus_lite.create(WORLD.items)
    adapter = milvus_lite.adapter(collection)
    WORLD.fit(adapter)
    companion = f"{collection}__dbnorm"
    rows = [{"key": 70, "vector": WORLD.items[0].tolist(), "number": 70, "title": "a"}]
    own = client.upsert(collection, [{**rows[0], "key": 71}])
    assert adapter.upsert(rows).keys() == own.keys()
    assert adapter.upsert(rows[0]).keys() == own.keys()
    assert adapter.insert([{**rows[0], "key": 72}])["insert_count"] == 1
    assert rows == [{"key": 70, "vector": WORLD.items[0].tolist(), "number": 70, "title": "a"}]
    ids, items = adapter._store.items(adapter.status().active.generation, [0, 70, 71, 72], ["query", "gallery"])
    assert sorted(ids) == [0, 70, 72]
    np.testing.assert_allclose(items.query_bias, items.query_bias[0], atol=1e-6)
    with pytest.raises(MilvusException) as theirs:
        client.upsert(collection, [{"key": 73, "vector": [1.0, 2.0], "number": 1, "title": "a"}])
    with pytest.raises(MilvusException) as ours:
        adapter.upsert([{"key": 73, "vector": [1.0, 2.0], "number": 1, "title": "a"}])
    assert type(ours.value) is type(theirs.value)
    client.drop_collection(companion)
    assert adapter.upsert([{**rows[0], "key": 74}])["upsert_count"] == 1
    assert "1 rows were written, but not their statistics; call refresh()" in caplog.text
    adapter.drop()
    milvus_lite.drop_collection(collection)


def test_what_cannot_be_written_is_for_the_client_to_refuse(milvus_lite: MilvusEngine) -> None:
    client = milvus_lite.client()
    collection = milvus_lite.create(WORLD.items)
    adapter = milvus_lite.adapter(collection)
    WORLD.fit(adapter)
    vector = WORLD.items[0].tolist()
    row = {"key": 80, "vector": vector, "number": 80, "title": "a"}
    no_vectors = ([10**400] * 8, np.array(1.0), 1.0, [vector] * 8, ["a"] * 8)
    for data in (
        WORLD.items,
        WORLD.items[:0],
        None,
        "some text",
        (row,),
        [vector],
        *({**row, "vector": other} for other in no_vectors),
    ):
        for name in ("insert", "upsert"):
            with pytest.raises(Exception, match=".") as own:
                getattr(client, name)(collection, data)
            for write in (getattr(adapter, name), partial(getattr(wrap(client), name), collection)):
                with pytest.raises(type(own.value)) as ours:
                    write(data)
                assert (type(ours.value), str(ours.value)) == (type(own.value), str(own.value))
    adapter.drop()
    milvus_lite.drop_collection(collection)


class ForbiddenError(RpcError):
    """What gRPC raises where the server denies a call."""

    def code(self) -> StatusCode:
        return StatusCode.PERMISSION_DENIED

    def details(self) -> str:
        return "not your collection"


def test_rows_are_written_even_if_the_server_denies_their_statistics(
    milvus_lite: MilvusEngine, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client then raises gRPC's own error, which is none of its exceptions."""
    collection = milvus_lite.create(WORLD.items)
    adapter = milvus_lite.adapter(collection)
    WORLD.fit(adapter)

    def denied(request: Any, **_: Any) -> None:
        assert request.collection_name == f"{collection}__dbnorm"
        raise ForbiddenError

    # as columns, which the statistics are sent in
    monkeypatch.setattr(milvus_lite.client()._get_connection()._stub.Upsert, "future", denied)
    row = {"key": 70, "vector": WORLD.items[0].tolist(), "number": 70, "title": "a"}
    assert adapter.upsert(row)["upsert_count"] == 1
    assert "1 rows were written, but not their statistics; call refresh()" in caplog.text
    assert isinstance(caplog.records[-1].exc_info[1], ForbiddenError)
    monkeypatch.undo()
    adapter.drop()
    milvus_lite.drop_collection(collection)


def test_bounds_are_those_of_the_statistics_that_are_active_now(milvus_lite: MilvusEngine) -> None:
    """The engine gets wider ones, and what these leave out is seen by nobody afterwards."""
    world = World.make(n=80, seed=6)
    bank = np.concatenate([world.query_bank, -world.query_bank])  # so that a low beta makes all items alike
    collection = milvus_lite.create(world.items)
    MilvusAdapter(milvus_lite.client(), collection).fit(bank, method="is", query_beta=0.1)
    queries = world.queries[:, None].tolist()
    stale = [MilvusAdapter(milvus_lite.client(), collection, statistics_ttl=3600.0) for _ in queries]
    for adapter in stale:
        adapter.search(data=queries[0])
    anew = MilvusAdapter(milvus_lite.client(), collection)
    anew.fit(bank, method="is", query_beta=12.0)
    for query, adapter in zip(queries, stale, strict=True):
        whole = anew.search(data=query, limit=80, candidates=80)[0]
        near, far = whole.distances[30], whole.distances[70]
        params = {"params": {"radius": far, "range_filter": near}}
        found = adapter.search_explained(data=query, limit=80, search_params=params, exact=True)
        assert found.certified
        expected = [item for item, distance in zip(whole.ids, whole.distances, strict=True) if far < distance <= near]
        assert [*found.result[0].ids] == expected
    anew.drop()
    milvus_lite.drop_collection(collection)
