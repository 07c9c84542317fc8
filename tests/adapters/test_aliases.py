"""Names that come to stand for another collection: aliases that are switched, collections that are made anew."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from adapters.world import World
from harness import Engine, Found, MilvusEngine
from pymilvus import MilvusClient

import dbnorm_milvus
import dbnorm_qdrant
from dbnorm_vdb.steps import done, run
from dbnorm_vdb.wrapping import WrappedClient

OLD, NEW = World.make("dot", n=60, seed=3), World.make("dot", n=50, seed=4)
OTHER = World.make("dot", n=40, d=5, seed=5)


@pytest.fixture
def fitted(quick_engine: Engine) -> Iterator[list[tuple[str, Any]]]:
    """Collections of the three worlds and their adapters, each with banks of its own."""
    made = []
    for world in (OLD, NEW, OTHER):
        collection = quick_engine.create(world.items, metric="dot")
        adapter = quick_engine.adapter(collection)
        world.fit(adapter)
        made.append((collection, adapter))
    yield made
    for collection, adapter in made:
        adapter.drop()
        quick_engine.drop_collection(collection)


@pytest.fixture
def alias(quick_engine: Engine, fitted: list[tuple[str, Any]]) -> Iterator[str]:
    """It stands for the first of them."""
    name = quick_engine.new_name()
    quick_engine.point_alias(name, fitted[0][0])
    yield name
    quick_engine.drop_alias(name)


def ids(found: list[Found]) -> list[Any]:
    return [hit.id for hit in found]


def rows(world: World, first: int, last: int) -> tuple[range, np.ndarray, list[dict[str, Any]]]:
    """Items to be written in place of those of a world, and their vectors: those of its queries."""
    return range(first, last), world.queries[: last - first], [{"number": 0} for _ in range(first, last)]


def test_new_items_get_the_statistics_of_the_collection_that_the_alias_stands_for_now(
    quick_engine: Engine, fitted: list[tuple[str, Any]], alias: str
) -> None:
    live = quick_engine.adapter(alias)
    quick_engine.upsert(live, *rows(OLD, 0, 5))
    for (collection, adapter), world in zip(fitted[1:], (NEW, OTHER), strict=True):
        quick_engine.point_alias(alias, collection)
        quick_engine.upsert(live, *rows(world, 0, 5))
        summary = adapter.refresh()
        assert (summary.written_count, summary.removed_count) == (0, 0)
        assert adapter.status().coverage == 1.0
    assert fitted[0][1].status().coverage == 1.0
    assert fitted[0][1].refresh().written_count == 0, "and those of the old one are left alone"


@pytest.mark.parametrize("cache", ["all", "lazy"])
def test_an_alias_that_is_switched_back_finds_its_statistics_in_memory_again(
    quick_engine: Engine, fitted: list[tuple[str, Any]], alias: str, cache: str
) -> None:
    live = quick_engine.adapter(alias, statistics_ttl=0.0, cache=cache)
    for which in (1, 0):
        quick_engine.point_alias(alias, fitted[which][0])
        world = (OLD, NEW)[which]
        expected = ids(quick_engine.search(fitted[which][1], None, world.queries[0], limit=10))
        assert ids(quick_engine.search(live, None, world.queries[0], limit=10)) == expected
        before = live.cache_info()
        assert ids(quick_engine.search(live, None, world.queries[0], limit=10)) == expected
        after = live.cache_info()
        assert after.hits > before.hits
        assert after.misses == before.misses


def test_a_collection_made_anew_without_statistics_is_searched_by_its_own_vector(quick_engine: Engine) -> None:
    first = quick_engine.create(OLD.items, metric="dot", vector_name="image")
    alias = quick_engine.new_name()
    quick_engine.point_alias(alias, first)
    live = quick_engine.adapter(alias, statistics_ttl=0.0)
    OLD.fit(live)
    quick_engine.search(live, None, OLD.queries[0], limit=5)
    second = quick_engine.create(OTHER.items, metric="dot", vector_name="picture")
    quick_engine.point_alias(alias, second)
    found = quick_engine.search(live, None, OTHER.queries[0], limit=5)
    best = np.argsort(-OTHER.raw()[0])[:5].tolist()
    assert ids(found) == best
    assert ids(quick_engine.search(live, None, OTHER.queries[0], limit=5, method="raw")) == best
    quick_engine.drop_alias(alias)
    quick_engine.adapter(first).drop()
    quick_engine.drop_collection(first)
    quick_engine.drop_collection(second)


def test_a_wrapped_client_that_gives_a_name_to_another_collection_knows(quick_engine: Engine) -> None:
    package: Any = dbnorm_milvus if isinstance(quick_engine, MilvusEngine) else dbnorm_qdrant
    wrapped = package.wrap(quick_engine.client(), statistics_ttl=3600.0)
    old, new = quick_engine.create(OLD.items, metric="dot"), quick_engine.create(OLD.items, metric="dot")
    OLD.fit(quick_engine.adapter(old))
    alias = quick_engine.new_name()
    quick_engine.point_alias(alias, old)
    query = OLD.queries[0]
    raw = quick_engine.search(quick_engine.client(), new, query, limit=10)
    assert quick_engine.search(wrapped, alias, query, limit=10) != raw
    own, quick_engine._client = quick_engine._client, wrapped  # type: ignore[attr-defined]
    quick_engine.point_alias(alias, new)
    quick_engine._client = own  # type: ignore[attr-defined]
    assert quick_engine.search(wrapped, alias, query, limit=10) == raw
    quick_engine.drop_alias(alias)
    quick_engine.adapter(old).drop()
    quick_engine.drop_collection(old)
    quick_engine.drop_collection(new)


def test_a_wrapped_client_that_uses_another_database_knows(milvus_lite: MilvusEngine) -> None:
    client = MilvusClient(milvus_lite.location)
    wrapped = dbnorm_milvus.wrap(client, statistics_ttl=3600.0)
    collection = milvus_lite.create(OLD.items, metric="dot")
    OLD.fit(milvus_lite.adapter(collection))
    assert milvus_lite.search(wrapped, collection, OLD.queries[0], limit=5)
    client.create_database("another")
    wrapped.use_database(db_name="another")
    client.create_collection(collection, dimension=OLD.items.shape[1], metric_type="IP", consistency_level="Strong")
    client.insert(collection, [{"id": row, "vector": vector.tolist()} for row, vector in enumerate(NEW.items)])
    query = [OLD.queries[0].tolist()]
    assert list(wrapped.search(collection, data=query)[0].distances) == list(
        client.search(collection, data=query)[0].distances
    )
    client.drop_collection(collection)
    client.use_database("default")
    client.drop_database("another")
    milvus_lite.adapter(collection).drop()
    milvus_lite.drop_collection(collection)


def test_an_alias_that_was_searched_elsewhere_meanwhile_is_written_where_it_stands_for(
    quick_engine: Engine, fitted: list[tuple[str, Any]], alias: str
) -> None:
    live = quick_engine.adapter(alias, statistics_ttl=0.0)
    quick_engine.upsert(live, *rows(OLD, 0, 1))
    quick_engine.point_alias(alias, fitted[1][0])
    quick_engine.search(live, None, NEW.queries[0], limit=5)
    quick_engine.point_alias(alias, fitted[0][0])
    quick_engine.upsert(live, *rows(OLD, 0, 5))
    for _, adapter in fitted[:2]:
        assert adapter.status().coverage == 1.0
        assert adapter.refresh().written_count == 0


def test_an_adapter_that_never_saw_statistics_follows_too(quick_engine: Engine) -> None:
    first = quick_engine.create(OLD.items, metric="dot", vector_name="image")
    second = quick_engine.create(NEW.items, metric="dot", vector_name="picture")
    alias = quick_engine.new_name()
    quick_engine.point_alias(alias, first)
    live = quick_engine.adapter(alias, statistics_ttl=0.0)
    assert len(quick_engine.search(live, None, OLD.queries[0], limit=5)) == 5
    quick_engine.point_alias(alias, second)
    found = quick_engine.search(live, None, NEW.queries[0], limit=5)
    assert ids(found) == np.argsort(-NEW.raw()[0])[:5].tolist()
    quick_engine.drop_alias(alias)
    quick_engine.drop_collection(first)
    quick_engine.drop_collection(second)


@pytest.mark.parametrize("cache", ["all", "lazy"])
def test_other_names_leave_what_is_held_of_a_collection(
    quick_engine: Engine, fitted: list[tuple[str, Any]], cache: str
) -> None:
    package: Any = dbnorm_milvus if isinstance(quick_engine, MilvusEngine) else dbnorm_qdrant
    wrapped = package.wrap(quick_engine.client(), statistics_ttl=3600.0, cache=cache)
    collection, query = fitted[0][0], OLD.queries[0]
    expected = ids(quick_engine.search(wrapped, collection, query, limit=10))
    quick_engine.search(wrapped, collection, query, limit=10)
    held = wrapped._dbnorm._adapters[collection].cache_info()
    other = quick_engine.create(NEW.items[:2], metric="dot")
    (wrapped.drop_collection if isinstance(quick_engine, MilvusEngine) else wrapped.delete_collection)(other)
    assert ids(quick_engine.search(wrapped, collection, query, limit=10)) == expected
    after = wrapped._dbnorm._adapters[collection].cache_info()
    assert (after.misses, after.items) == (held.misses, held.items)
    assert after.hits > held.hits


def test_qdrant_groups_follow_too(qdrant_local: Engine) -> None:
    first = qdrant_local.create(OLD.items, metric="dot", vector_name="image")
    second = qdrant_local.create(NEW.items, metric="dot", vector_name="picture")
    alias = qdrant_local.new_name()
    qdrant_local.point_alias(alias, first)
    live: Any = qdrant_local.adapter(alias, statistics_ttl=0.0)
    OLD.fit(live)
    qdrant_local.point_alias(alias, second)
    groups = live.query_points_groups("number", NEW.queries[0].tolist(), limit=5).groups
    assert [group.id for group in groups] == np.argsort(-NEW.raw()[0])[:5].tolist()
    qdrant_local.adapter(first).drop()
    qdrant_local.drop_collection(first)
    qdrant_local.drop_collection(second)


def test_names_given_anew_while_an_adapter_is_being_made_are_looked_at_again() -> None:
    """It serves the call that it is made for, and the next one makes another."""

    class Adapter:
        collection_name = "images"

        def statistics_in_use(self, **_: Any) -> Any:
            return done("statistics")

    made = []

    def make(collection: str) -> Adapter:
        made.append(Adapter())
        if len(made) == 1:
            behind.expire()
        return made[-1]

    behind: WrappedClient[Any, Any] = WrappedClient(object(), make, 3600.0)
    assert [run(behind.adapter("images"), None) for _ in range(3)] == [made[0], made[1], made[1]]
