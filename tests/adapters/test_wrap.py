"""Wrapped clients: the client's own class and state, normalised where there are statistics, and else unchanged."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from adapters.world import World
from harness import Engine, MilvusEngine
from pymilvus import AnnSearchRequest, MilvusClient, RRFRanker
from qdrant_client import AsyncQdrantClient, QdrantClient, models

import dbnorm_milvus
import dbnorm_qdrant
import dbnorm_vdb as db
from dbnorm_vdb.collection import NormalizedCollection

WORLD = World.make("dot", n=80)  # with cosine, each search in Qdrant's local mode changes vectors by rounding
QUERY = WORLD.queries[0]


def package(engine: Engine) -> Any:
    return dbnorm_milvus if isinstance(engine, MilvusEngine) else dbnorm_qdrant


def wrap(engine: Engine) -> Any:
    return package(engine).wrap(engine.client(), statistics_ttl=0.0)


def create(engine: Engine, **options: Any) -> str:
    return engine.create(WORLD.items, metric=WORLD.metric, **options)


def bound_to(client: Any, collection: str) -> Any:
    """What the harness upserts to."""
    return SimpleNamespace(upsert=lambda rows: client.upsert(collection, rows))


@pytest.fixture(scope="module")
def fitted(quick_engine: Engine) -> Iterator[tuple[str, Any]]:
    collection = create(quick_engine)
    adapter = quick_engine.adapter(collection)
    WORLD.fit(adapter)
    yield collection, adapter
    adapter.drop()
    quick_engine.drop_collection(collection)


@pytest.fixture(scope="module")
def plain(quick_engine: Engine) -> Iterator[str]:
    collection = create(quick_engine)
    yield collection
    quick_engine.drop_collection(collection)


def test_it_is_a_client_and_shares_its_state(quick_engine: Engine, plain: str) -> None:
    client, wrapped = quick_engine.client(), wrap(quick_engine)
    assert isinstance(wrapped, type(client))
    assert isinstance(wrapped, MilvusClient if isinstance(quick_engine, MilvusEngine) else QdrantClient)
    wrapped.some_setting = 3
    assert client.some_setting == 3
    del client.some_setting
    assert not hasattr(wrapped, "some_setting")
    del wrapped
    assert len(quick_engine.search(client, plain, QUERY, limit=3)) == 3
    with pytest.raises(db.InvalidParameterError, match="wrapped already"):
        package(quick_engine).wrap(wrap(quick_engine))
    with pytest.raises(db.InvalidParameterError, match="got str"):
        package(quick_engine).wrap("http://localhost")


@pytest.mark.parametrize("options", [{}, {"method": "is"}, {"candidates": 30}, {"exact": True}, {"below": 40}], ids=str)
def test_searches_are_those_of_the_adapter(
    quick_engine: Engine, fitted: tuple[str, Any], options: dict[str, Any]
) -> None:
    collection, adapter = fitted
    wrapped = wrap(quick_engine)
    changed = 0
    for query in WORLD.queries:
        got = quick_engine.search(wrapped, collection, query, limit=10, **options)
        assert got == quick_engine.search(adapter, None, query, limit=10, **options)
        changed += got != quick_engine.search(adapter, None, query, limit=10, method="raw")
    assert changed > 10


def test_what_was_done_to_the_client_itself_still_happens(
    quick_engine: Engine, fitted: tuple[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    client, name = quick_engine.client(), "search" if isinstance(quick_engine, MilvusEngine) else "query_points"
    own, seen = getattr(client, name), []

    def traced(*args: Any, **kwargs: Any) -> Any:
        seen.append(kwargs["limit"])
        return own(*args, **kwargs)

    monkeypatch.setattr(client, name, traced)
    found = quick_engine.search(wrap(quick_engine), fitted[0], QUERY, limit=3, candidates=17)
    assert found == quick_engine.search(fitted[1], None, QUERY, limit=3, candidates=17)
    assert seen == [17, 17]


def test_other_collections_pass_through(quick_engine: Engine, plain: str, caplog: pytest.LogCaptureFixture) -> None:
    client, wrapped = quick_engine.client(), wrap(quick_engine)
    for options in ({}, {"method": "raw"}, {"candidates": 30, "exact": True}):
        got = quick_engine.search(wrapped, plain, QUERY, limit=10, **options)
        assert got == quick_engine.search(client, plain, QUERY, limit=10)
    with pytest.raises(db.NotFittedError, match="method='is'"):
        quick_engine.search(wrapped, plain, QUERY, limit=10, method="is")
    assert not [record for record in caplog.records if record.name == "dbnorm_vdb"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cache": "al"}, "cache must be"),
        ({"cache_bytes": -1}, "cache_bytes must be at least 0"),
        ({"statistics_ttl": -1}, "statistics_ttl must be at least 0"),
        ({"statistics_ttl": "5"}, "statistics_ttl must be at least 0"),
        ({"statistics_ttl": float("nan")}, "statistics_ttl must be at least 0"),
    ],
)
def test_options_that_cannot_be_used_are_refused_at_once(
    quick_engine: Engine, plain: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(db.InvalidParameterError, match=message):
        package(quick_engine).wrap(quick_engine.client(), **options)
    with pytest.raises(db.InvalidParameterError, match=message):
        quick_engine.adapter(plain, **options)


def test_a_way_of_execution_that_there_is_not_is_refused_at_once(qdrant_local: Engine) -> None:
    with pytest.raises(db.InvalidParameterError, match="execution must be one of"):
        dbnorm_qdrant.wrap(qdrant_local.client(), execution="bar")


def test_an_adapter_of_a_wrapped_client_works_with_the_client_itself(
    quick_engine: Engine, fitted: tuple[str, Any]
) -> None:
    collection, adapter = fitted
    kind = type(adapter)
    beside = kind(wrap(quick_engine), collection)
    for query in WORLD.queries:
        for options in ({}, {"method": "raw"}, {"method": "is"}):
            got = quick_engine.search(beside, None, query, limit=10, **options)
            assert got == quick_engine.search(adapter, None, query, limit=10, **options)
    assert beside.fallback_count == 0
    assert beside.client is quick_engine.client()


def test_a_client_of_the_other_kind_is_refused() -> None:
    sync, awaited = QdrantClient(":memory:"), AsyncQdrantClient(":memory:")
    with pytest.raises(db.InvalidParameterError, match="use AsyncQdrantAdapter"):
        dbnorm_qdrant.QdrantAdapter(awaited, "images")  # type: ignore[arg-type]
    with pytest.raises(db.InvalidParameterError, match="use QdrantAdapter"):
        dbnorm_qdrant.AsyncQdrantAdapter(sync, "images")  # type: ignore[arg-type]
    sync.close()


def test_without_the_banks_items_are_written_all_the_same(
    quick_engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    collection = create(quick_engine)
    adapter = quick_engine.adapter(collection)
    WORLD.fit(adapter)
    quick_engine.drop_banks(collection)
    (advice,) = quick_engine.adapter(collection).status().advice
    assert "the stored banks are gone" in advice
    rows = ([500], WORLD.queries[:1], [{"number": 500}])
    with pytest.raises(db.StatisticsError, match="the stored banks are gone"):
        quick_engine.upsert(quick_engine.adapter(collection), *rows)
    with pytest.raises(db.StatisticsError, match="the stored banks are gone"):
        quick_engine.adapter(collection).refresh()
    wrapped = wrap(quick_engine)
    before = quick_engine.search(wrapped, collection, QUERY, limit=10)
    quick_engine.upsert(bound_to(wrapped, collection), *rows)
    assert [record.message for record in caplog.records if "written without statistics" in record.message]
    (found,) = quick_engine.search(quick_engine.client(), collection, WORLD.queries[0], limit=1)
    assert found.id == 500
    after = quick_engine.search(wrapped, collection, QUERY, limit=11)
    assert [hit for hit in after if hit.id != 500][:10] == before, "searches go on with the statistics that there are"
    WORLD.fit(adapter)
    adapter.drop()
    quick_engine.drop_collection(collection)


def test_errors_are_those_of_the_client(quick_engine: Engine, fitted: tuple[str, Any]) -> None:
    client, wrapped = quick_engine.client(), wrap(quick_engine)
    for call in (
        lambda c: quick_engine.search(c, "no_such_collection", QUERY, limit=3),
        lambda c: quick_engine.search(c, fitted[0], QUERY, limit=3, filter=3, query_filter="rubbish"),
    ):
        with pytest.raises(Exception) as own:  # noqa: PT011
            call(client)
        with pytest.raises(type(own.value)):
            call(wrapped)


def test_fits_and_drops_are_noticed(quick_engine: Engine) -> None:
    collection = create(quick_engine)
    wrapped, client = wrap(quick_engine), quick_engine.client()
    own = quick_engine.search(client, collection, QUERY, limit=5)
    assert quick_engine.search(wrapped, collection, QUERY, limit=5) == own
    adapter = quick_engine.adapter(collection)
    WORLD.fit(adapter)
    normalised = quick_engine.search(adapter, None, QUERY, limit=5)
    assert normalised != own
    assert quick_engine.search(wrapped, collection, QUERY, limit=5) == normalised
    adapter.drop()
    assert quick_engine.search(wrapped, collection, QUERY, limit=5) == own
    quick_engine.drop_collection(collection)


def test_unreadable_statistics_are_said_and_served_raw(quick_engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    collection = create(quick_engine)
    quick_engine.corrupt_state(collection, '{"format_version": 99}')
    wrapped = wrap(quick_engine)
    own = quick_engine.search(quick_engine.client(), collection, QUERY, limit=5)
    with caplog.at_level(logging.WARNING, logger="dbnorm_vdb"):
        for _ in range(3):
            assert quick_engine.search(wrapped, collection, QUERY, limit=5) == own
    said = [record.getMessage() for record in caplog.records if record.name == "dbnorm_vdb"]
    assert len(said) == 1
    assert "format version 99" in said[0]
    quick_engine.drop_collection(collection)


def test_written_items_get_statistics(quick_engine: Engine, fitted: tuple[str, Any]) -> None:
    collection, adapter = fitted
    vectors = World.make(n=2, seed=9).items
    fitted_before = adapter.status().fitted_count
    quick_engine.upsert(
        bound_to(wrap(quick_engine), collection), [5000, 5001], vectors, [{"number": 1, "title": "x"}] * 2
    )
    assert adapter.status().fitted_count == fitted_before + 2
    quick_engine.delete(collection, [5000, 5001])


def test_named_vectors_that_are_not_fitted_pass_through(quick_engine: Engine) -> None:
    others = {"text": np.flip(WORLD.items, axis=1).copy()}
    collection = create(quick_engine, vector_name="image", other_vectors=others)
    adapter: Any = quick_engine.adapter(collection, "image")
    WORLD.fit(adapter)
    wrapped, client = wrap(quick_engine), quick_engine.client()
    name = "anns_field" if isinstance(quick_engine, MilvusEngine) else "using"
    for query in WORLD.queries:
        other = {name: "text", "limit": 5}
        own = quick_engine.search(client, collection, query, **other)
        for hit in own:
            dict.pop(hit.payload, "dbnorm", None)  # type: ignore[arg-type]
        assert quick_engine.search(wrapped, collection, query, **other) == own
        ours = quick_engine.search(wrapped, collection, query, limit=5, **{name: "image"})
        assert ours == quick_engine.search(adapter, None, query, limit=5)
    adapter.drop()
    quick_engine.drop_collection(collection)


def test_what_has_no_normalised_form_is_refused_unless_raw(quick_engine: Engine, fitted: tuple[str, Any]) -> None:
    collection, client, wrapped = fitted[0], quick_engine.client(), wrap(quick_engine)
    vector = QUERY.tolist()
    if isinstance(quick_engine, MilvusEngine):
        order = [{"field": "number", "order": "asc"}]
        calls: list[Any] = [
            lambda c, **raw: c.search(collection, [vector], limit=3, order_by_fields=order, **raw)[0].ids
        ]
    else:
        discover = models.DiscoverQuery(discover=models.DiscoverInput(target=vector, context=[]))
        leg, fusion = models.Prefetch(query=discover, limit=5), models.FusionQuery(fusion=models.Fusion.RRF)
        calls = [
            lambda c, **raw: c.query_points(collection, discover, limit=3, **raw).points[0].id,
            lambda c, **raw: c.query_points(collection, prefetch=[leg, leg], query=fusion, limit=3, **raw).points[0].id,
            lambda c, **raw: c.query_points_groups(collection, "number", discover, **raw).groups[0].id,
        ]
    for call in calls:
        with pytest.raises(db.UnsupportedQueryError, match="method='raw'"):
            call(wrapped)
        assert call(wrapped, method="raw") == call(client)


def test_milvus_iterators_and_hybrid_searches_are_those_of_the_adapter(milvus_lite: Engine) -> None:
    others = {"caption": np.flip(WORLD.items, axis=1).copy()}
    collection = create(milvus_lite, vector_name="image", other_vectors=others)
    adapter: Any = milvus_lite.adapter(collection, "image")
    WORLD.fit(adapter)
    client, wrapped, vector = milvus_lite.client(), wrap(milvus_lite), QUERY.tolist()

    def fused(target: Any, *names: str, **arguments: Any) -> list[Any]:
        requests = [AnnSearchRequest([vector], name, {}, limit=9) for name in names]
        return [*map(dict, target(reqs=requests, ranker=RRFRanker(), limit=5, **arguments)[0])]

    ours = fused(adapter.hybrid_search, "image", "caption")
    assert fused(partial(wrapped.hybrid_search, collection), "image", "caption") == ours
    own = partial(client.hybrid_search, collection)
    assert ours != fused(own, "image", "caption")
    assert fused(partial(wrapped.hybrid_search, collection), "image", "caption", method="raw") == fused(
        own, "image", "caption"
    )
    assert fused(partial(wrapped.hybrid_search, collection), "caption", "caption") == fused(own, "caption", "caption")

    def pages(iterator: Any) -> list[Any]:
        return [list(iterator.next()), list(iterator.next())]

    iterate: dict[str, Any] = {"data": [vector], "batch_size": 4, "anns_field": "image"}
    found = pages(wrapped.search_iterator(collection, **iterate))
    assert found == pages(adapter.search_iterator(**iterate))
    assert found != pages(client.search_iterator(collection, **iterate))
    other = {**iterate, "anns_field": "caption"}
    assert pages(wrapped.search_iterator(collection, **other)) == pages(client.search_iterator(collection, **other))
    milvus_lite.drop_collection(collection)


@pytest.mark.parametrize("fitted_field", ["image", "text"])
def test_a_search_that_names_no_field_is_on_the_one_that_the_client_takes(
    milvus_lite: Engine, fitted_field: str
) -> None:
    others = {"text": np.flip(WORLD.items, axis=1).copy()}
    collection = create(milvus_lite, vector_name="image", other_vectors=others)
    adapter: Any = milvus_lite.adapter(collection, fitted_field)
    WORLD.fit(adapter)
    wrapped, client = wrap(milvus_lite), milvus_lite.client()
    for query in WORLD.queries[:4]:
        for field in ({}, {"anns_field": ""}):
            found = milvus_lite.search(wrapped, collection, query, limit=8, **field)
            first = milvus_lite.search(client, collection, query, limit=8)
            assert first == milvus_lite.search(client, collection, query, limit=8, anns_field="image")
            if fitted_field == "image":
                assert found == milvus_lite.search(adapter, None, query, limit=8) != first
            else:
                assert found == first
    milvus_lite.drop_collection(collection)


def without_our_key(points: list[Any]) -> list[Any]:
    """The same points, of which each has it."""
    payloads = [dict(point.payload) for point in points]
    assert all(payload.pop("dbnorm") for payload in payloads)
    return [point.model_copy(update={"payload": p}) for point, p in zip(points, payloads, strict=True)]


def test_qdrant_points_are_read_without_our_key(qdrant_local: Engine) -> None:
    collection = create(qdrant_local)
    WORLD.fit(qdrant_local.adapter(collection))
    client, wrapped = qdrant_local.client(), wrap(qdrant_local)
    records, offset = client.scroll(collection, limit=7, with_vectors=True)
    assert wrapped.scroll(collection, limit=7, with_vectors=True) == (without_our_key(records), offset)
    assert wrapped.scroll(collection, None, 7, with_payload=False) == client.scroll(
        collection, limit=7, with_payload=False
    )
    assert wrapped.retrieve(collection, [3, 1]) == without_our_key(client.retrieve(collection, [3, 1]))
    groups = client.query_points_groups(collection, "number", limit=4).groups
    for got, own in zip(wrapped.query_points_groups(collection, "number", limit=4).groups, groups, strict=True):
        assert (got.id, got.hits) == (own.id, without_our_key(own.hits))
    assert all("dbnorm" in record.payload for record in client.scroll(collection, limit=80)[0]), "it is still there"
    elsewhere = QdrantClient(":memory:")
    wrapped.migrate(elsewhere, [collection, f"{collection}__dbnorm_bank"])
    assert client.scroll(collection, limit=80)[0] == elsewhere.scroll(collection, limit=80)[0], "it is copied with all"
    elsewhere.close()
    qdrant_local.adapter(collection).drop()
    qdrant_local.drop_collection(collection)


def test_qdrant_calls_without_a_vector_pass_through(qdrant_local: Engine) -> None:
    collection = create(qdrant_local)
    WORLD.fit(qdrant_local.adapter(collection))
    client, wrapped = qdrant_local.client(), wrap(qdrant_local)
    order = models.OrderByQuery(order_by="number")
    for query in (None, order):
        own = client.query_points(collection, query, limit=4).points
        assert wrapped.query_points(collection, query, limit=4).points == without_our_key(own)
    assert wrapped.query_points(collection, vector_list(), None, None, None, None, 4).points  # by position
    requests = [models.QueryRequest(query=vector_list(), limit=4), models.QueryRequest(limit=4)]
    answers = wrapped.query_batch_points(collection, requests)
    assert answers[0] == wrapped.query_points(collection, vector_list(), limit=4, with_payload=False)
    assert answers[1] == client.query_batch_points(collection, requests)[1]
    assert wrapped.query_batch_points(collection, []) == []
    raw = wrapped.query_points(collection, vector_list(), limit=4, method="raw").points
    assert [point.id for point in raw] == [p.id for p in client.query_points(collection, vector_list(), limit=4).points]
    assert all("dbnorm" not in point.payload for point in raw)
    adapter: Any = qdrant_local.adapter(collection)
    groups = wrapped.query_points_groups(collection, "number", vector_list(), limit=4)
    assert groups == adapter.query_points_groups("number", vector_list(), limit=4)
    qdrant_local.drop_collection(collection)


def vector_list() -> list[float]:
    vector: list[float] = QUERY.tolist()
    return vector


def test_closing_one_closes_both(tmp_path: Any) -> None:
    client = QdrantClient(path=str(tmp_path / "storage"))
    dbnorm_qdrant.wrap(client).close()
    assert client._client.closed  # type: ignore[attr-defined]


def test_adapters_are_normalised_collections(fitted: tuple[str, Any]) -> None:
    assert isinstance(fitted[1], NormalizedCollection)
    assert fitted[1].is_fitted()
