"""From fit to drop: what is written, what is left, and what happens to a collection that lives on meanwhile."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from adapters.world import World
from harness import FACES, Engine, MilvusEngine, fixture_name
from oracle import assert_same_order, bias
from qdrant_client import models

from dbnorm_vdb import CollectionStatistics, EmptyCollectionError


class InterruptionError(Exception):
    """Stands for whatever ends a fit before its time."""


@pytest.fixture(scope="module", params=FACES)
def engine(request: pytest.FixtureRequest) -> Engine:
    """Sync and async adapters alike."""
    engine: Engine = request.getfixturevalue(fixture_name(request.param))
    return engine


@pytest.fixture
def world() -> World:
    """By inner product: Qdrant's local mode changes the last bits of cosine vectors at every search, anybody's."""
    return World.make("dot", n=60)


@pytest.fixture
def collection(engine: Engine, world: World) -> Iterator[str]:
    name = engine.create(world.items, metric=world.metric)
    yield name
    engine.adapter(name).drop()
    engine.drop_collection(name)


def interrupt_at(stage: str, count: int) -> Any:
    """A progress callback that ends the fit."""

    def progress(current: str, done: int, total: int) -> None:
        if current == stage and done >= count:
            raise InterruptionError

    return progress


def ids(found: Any) -> list[Any]:
    return [hit.id for hit in found]


def test_drop_leaves_the_collection_as_it_was_before_fit(engine: Engine, world: World, collection: str) -> None:
    before = engine.snapshot(collection)
    adapter = engine.adapter(collection)
    world.fit(adapter)
    assert engine.snapshot(collection)["collections"] != before["collections"]
    world.fit(adapter, method="dual_dis")
    adapter.drop()
    assert engine.snapshot(collection) == before
    adapter.drop()
    assert engine.snapshot(collection) == before


def test_a_fit_writes_what_the_design_lists_and_nothing_else(engine: Engine, world: World, collection: str) -> None:
    before = engine.snapshot(collection)
    world.fit(engine.adapter(collection))
    after = engine.snapshot(collection)
    added = {name.removeprefix(collection) for name in set(after["collections"]) - set(before["collections"])}
    if engine.name.startswith("qdrant"):
        assert added == {"__dbnorm_bank"}
        assert set(after["metadata"]) == {"owner", "dbnorm"}
        for key, (payload, vector) in after["points"].items():
            assert {k: v for k, v in payload.items() if k != "dbnorm"} == before["points"][key][0]
            assert vector == before["points"][key][1]
            (values,) = payload["dbnorm"].values()
            assert set(values) - {"activated"} == {"query", "gallery"}
    else:
        assert added == {"__dbnorm", "__dbnorm_bank"}
        assert after["rows"] == before["rows"]
        assert len(after["properties"]["dbnorm"]) < 64 * 1024


def test_statistics_equal_the_oracle(engine: Engine, world: World, collection: str) -> None:
    statistics: CollectionStatistics = world.fit(engine.adapter(collection)).statistics
    assert statistics.item_count == 60
    for name, bank in statistics.banks.items():
        expected = bias(world.banks()[f"{name}_bank"], bank.beta)
        assert bank.bias.mean == pytest.approx(expected.mean(), abs=1e-6)
        assert bank.bias.min == pytest.approx(expected.min(), abs=1e-6)
        assert bank.bias.max == pytest.approx(expected.max(), abs=1e-6)
        assert bank.activation_size == len(world.activated(name))
        assert bank.size == len(getattr(world, f"{name}_bank"))


def test_the_banks_are_kept(engine: Engine, world: World, collection: str) -> None:
    adapter = engine.adapter(collection)
    generation = world.fit(adapter).statistics.generation
    for name in ("query", "gallery"):
        stored, weights = adapter._store.read_bank(generation, name)
        assert weights is None
        np.testing.assert_allclose(stored, getattr(world, f"{name}_bank"), rtol=1e-6)


def test_status_tells_what_is_there(engine: Engine, world: World, collection: str) -> None:
    adapter = engine.adapter(collection)
    status = adapter.status()
    assert (status.active, status.fitted_count, status.item_count, status.coverage) == (None, 0, 60, 0.0)
    world.fit(adapter, method="is")
    engine.insert(collection, [1000], world.items[:1], [{"number": 1000, "title": "new"}])
    status = adapter.status(query_bank=world.query_bank, gallery_bank=world.gallery_bank[1:])
    assert status.active is not None
    assert (status.active.method, status.active.metric.value, status.dimension) == ("is", "dot", 8)
    assert (status.item_count, status.fitted_count, status.writing) == (61, 60, None)
    assert status.coverage == pytest.approx(60 / 61)
    assert status.changed_banks == ["gallery"]


def test_items_without_statistics_count_as_average_ones(engine: Engine, world: World, collection: str) -> None:
    adapter = engine.adapter(collection)
    world.fit(adapter)
    query = world.queries[0]
    engine.insert(collection, [1000], query[None], [{"number": 1000, "title": "new"}])
    found = engine.search(adapter, None, query, limit=61, candidates=61)
    assert len(found) == 61
    new = next(hit for hit in found if hit.id == 1000)
    assert new.score == pytest.approx(float(query @ query), abs=1e-5), "an average item keeps its raw score"
    known = {hit.id: hit.score for hit in found if hit.id != 1000}
    expected = world.score_oracle("dual_is")[0]
    assert known == pytest.approx(dict(enumerate(expected)), abs=1e-4)


def test_deleted_items_are_gone_and_the_rest_is_served(engine: Engine, world: World, collection: str) -> None:
    adapter = engine.adapter(collection)
    world.fit(adapter)
    engine.delete(collection, list(range(30)))
    found = engine.search(adapter, None, world.queries[0], limit=60, candidates=60)
    assert sorted(ids(found)) == list(range(30, 60))


def test_items_deleted_during_a_fit_do_not_stop_it(engine: Engine, world: World, collection: str) -> None:
    adapter = engine.adapter(collection)

    def delete_some(stage: str, done: int, total: int) -> None:
        if stage == "items" and done == 0:
            engine.delete(collection, [0, 1, 59])

    world.fit(adapter, page_size=20, progress=delete_some)
    found = engine.search(adapter, None, world.queries[0], limit=60, candidates=60)
    assert sorted(ids(found)) == list(range(2, 59))


def test_a_refit_replaces_the_statistics_and_cleans_up(engine: Engine, world: World, collection: str) -> None:
    adapter = engine.adapter(collection)
    first = world.fit(adapter)
    size = len(str(engine.snapshot(collection)))
    second = world.fit(adapter, query_beta=40.0, gallery_beta=30.0)
    assert second.statistics.generation > first.statistics.generation
    snapshot = engine.snapshot(collection)
    assert len(snapshot["collections"]) == (2 if engine.name.startswith("qdrant") else 3)
    assert abs(len(str(snapshot)) - size) < 0.02 * size
    assert not re.search(rf"\bg?{first.statistics.generation}\b", str(snapshot))
    np.testing.assert_allclose(adapter._store.read_bank(second.statistics.generation, "query")[0], world.query_bank)


def test_an_interrupted_fit_leaves_the_old_statistics_serving(engine: Engine, world: World, collection: str) -> None:
    adapter = engine.adapter(collection)
    world.fit(adapter)
    before = [engine.search(adapter, None, query, limit=60, candidates=60) for query in world.queries[:3]]
    for stage, count in (("query bank", 1), ("items", 0), ("items", 20), ("items", 60)):
        with pytest.raises(InterruptionError):
            world.fit(adapter, query_beta=40.0, page_size=10, progress=interrupt_at(stage, count))
        fresh = engine.adapter(collection)
        assert fresh.status().writing is not None, (stage, count)
        after = [engine.search(fresh, None, query, limit=60, candidates=60) for query in world.queries[:3]]
        assert after == before, (stage, count)
    world.fit(adapter)
    assert adapter.status().writing is None
    for query, order in zip(world.queries, world.order_oracle("dual_is"), strict=True):
        assert_same_order(ids(engine.search(adapter, None, query, limit=60, candidates=60)), order, relative=1e-3)


def test_a_fit_interrupted_before_any_other_leaves_raw_results(engine: Engine, world: World, collection: str) -> None:
    before = engine.snapshot(collection)
    adapter = engine.adapter(collection)
    own = engine.search(engine.client(), collection, world.queries[0], limit=5)
    with pytest.raises(InterruptionError):
        world.fit(adapter, page_size=10, progress=interrupt_at("items", 30))
    assert engine.search(adapter, None, world.queries[0], limit=5) == own
    adapter.drop()
    assert engine.snapshot(collection) == before


def test_a_search_during_a_fit_sees_one_generation(engine: Engine, world: World, collection: str) -> None:
    """Another adapter, which read the old generation, searches at every page of a refit and after it."""
    adapter, reader = engine.adapter(collection), engine.adapter(collection, statistics_ttl=3600)
    world.fit(adapter)

    def scores() -> list[float]:
        found = engine.search(reader, None, world.queries[0], limit=60, candidates=60)
        return [hit.score for hit in sorted(found, key=lambda hit: hit.id)]

    old = scores()
    seen: list[list[float]] = []
    world.fit(adapter, query_beta=40.0, page_size=10, progress=lambda *_: seen.append(scores()))
    new = [
        hit.score
        for hit in sorted(
            engine.search(engine.adapter(collection), None, world.queries[0], limit=60, candidates=60),
            key=lambda hit: hit.id,
        )
    ]
    assert old != new
    assert len(seen) > 6
    assert all(scored in (old, new) for scored in [*seen, scores()])


def test_another_process_fitting_takes_effect(engine: Engine, world: World, collection: str) -> None:
    reader = engine.adapter(collection, statistics_ttl=0)
    world.fit(engine.adapter(collection), method="is")
    first = engine.search(reader, None, world.queries[0], limit=20)
    world.fit(engine.adapter(collection), method="dual_is")
    second = engine.search(reader, None, world.queries[0], limit=20)
    assert second == engine.search(engine.adapter(collection), None, world.queries[0], limit=20)
    assert first != second
    engine.adapter(collection).drop()
    assert engine.search(reader, None, world.queries[0], limit=20) == engine.search(
        engine.client(), collection, world.queries[0], limit=20
    )


def test_a_sampled_gallery_bank_is_seeded(engine: Engine, world: World, collection: str) -> None:
    adapter = engine.adapter(collection)
    samples = [adapter.sample_items(25, seed=seed) for seed in (0, 0, 1)]
    assert [len(sample) for sample in samples] == [25, 25, 25]
    assert samples[0].fingerprint == samples[1].fingerprint != samples[2].fingerprint
    adapter.fit(world.query_bank, 25, seed=1)
    assert adapter.status(gallery_bank=samples[2]).changed_banks == []
    assert len(adapter.sample_items(10_000)) == 60


def test_text_ids(engine: Engine, world: World) -> None:
    names = engine.string_ids(60)
    collection = engine.create(world.items, metric=world.metric, ids=names)
    before = engine.snapshot(collection)
    adapter = engine.adapter(collection)
    world.fit(adapter)
    for query, order in zip(world.queries[:4], world.order_oracle("dual_is"), strict=False):
        found = engine.search(adapter, None, query, limit=60, candidates=60)
        assert_same_order([names.index(hit.id) for hit in found], order, relative=1e-3)
    adapter.drop()
    assert engine.snapshot(collection) == before
    engine.drop_collection(collection)


def test_one_of_several_vectors(engine: Engine, world: World) -> None:
    other = np.ones((60, 3), dtype=np.float32)
    collection = engine.create(
        world.items, metric=world.metric, vector_name="image", other_vectors={"caption": other}, dynamic=False
    )
    before = engine.snapshot(collection)
    adapter = engine.adapter(collection, "image")
    world.fit(adapter)
    for query, order in zip(world.queries[:4], world.order_oracle("dual_is"), strict=False):
        found = engine.search(adapter, None, query, limit=60, candidates=60)
        assert_same_order(ids(found), order, relative=1e-3)
    adapter.drop()
    assert engine.snapshot(collection) == before
    engine.drop_collection(collection)


def test_duplicate_items_and_a_bank_of_one(engine: Engine, world: World) -> None:
    items = np.repeat(world.items[:3], 5, axis=0)
    collection = engine.create(items)
    adapter = engine.adapter(collection)
    adapter.fit(world.query_bank[:1], world.gallery_bank[:1], query_beta=200.0, gallery_beta=200.0)
    found = engine.search(adapter, None, world.queries[0], limit=15)
    assert sorted(ids(found)) == list(range(15))
    assert np.isfinite([hit.score for hit in found]).all()
    adapter.drop()
    engine.drop_collection(collection)


def test_a_fit_after_a_drop_is_not_mistaken_for_the_one_before(engine: Engine, world: World, collection: str) -> None:
    adapter = engine.adapter(collection, statistics_ttl=3600)
    world.fit(adapter)
    first = engine.search(adapter, None, world.queries[0], limit=20)
    adapter.drop()
    world.fit(adapter, query_beta=60.0)
    second = engine.search(adapter, None, world.queries[0], limit=20)
    assert second == engine.search(engine.adapter(collection), None, world.queries[0], limit=20)
    assert first != second


def test_a_collection_made_anew_with_other_vectors(engine: Engine, world: World) -> None:
    """The companions of its predecessor are in the way, and a living adapter remembers the old vector."""
    collection = engine.create(world.items, metric=world.metric)
    adapter = engine.adapter(collection)
    world.fit(adapter)
    engine.drop_collection(collection)
    engine.new_name = lambda: collection  # type: ignore[method-assign]
    try:
        engine.create(world.items[:, :4].copy(), metric=world.metric)
    finally:
        del engine.new_name
    adapter.fit(world.query_bank[:, :4], world.gallery_bank[:, :4])
    assert adapter.status().dimension == 4
    assert len(engine.search(adapter, None, world.queries[0][:4], limit=5)) == 5
    adapter.drop()
    engine.drop_collection(collection)


def test_items_without_any_vector_are_noticed_before_anything_is_written(qdrant_local: Engine, world: World) -> None:
    other = world.items[:, :3].copy()
    collection = qdrant_local.create(world.items[:0], vector_name="image", other_vectors={"text": other[:0]})
    qdrant_local.client().upsert(collection, [models.PointStruct(id=1, vector={"text": [1.0, 2.0, 3.0]})])
    before = qdrant_local.snapshot(collection)
    with pytest.raises(EmptyCollectionError, match="usable vector 'image'"):
        world.fit(qdrant_local.adapter(collection, "image"))
    assert qdrant_local.snapshot(collection) == before
    qdrant_local.drop_collection(collection)


def test_drop_removes_what_a_collection_that_is_gone_has_left(engine: Engine, world: World) -> None:
    collection = engine.create(world.items, metric=world.metric)
    world.fit(engine.adapter(collection))
    neighbour = engine.create(world.items, metric=world.metric)
    other = engine.adapter(neighbour)
    world.fit(other)
    engine.drop_collection(collection)
    client = engine.client()

    def names() -> list[str]:
        if isinstance(engine, MilvusEngine):
            return sorted(client.list_collections())
        return sorted(found.name for found in client.get_collections().collections)

    assert [name for name in names() if name.startswith(collection)]
    before = names()
    engine.adapter(collection).drop()
    assert names() == [name for name in before if not name.startswith(collection)]
    with pytest.raises(Exception, match="not (found|exist)"):  # now there is nothing of that name
        engine.adapter(collection).drop()
    assert other.status().coverage == 1.0
    other.drop()
    engine.drop_collection(neighbour)
