"""Folded copies: what is in them, what they return, how they are made, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from adapters.world import METRICS, World
from harness import Engine, MilvusEngine

import dbnorm_vdb as db
from dbnorm_vdb import copying

METHODS = ("is", "dual_is", "sinkhorn")
N = 60


class Source:
    """A fitted collection, and the copies made of it."""

    def __init__(self, engine: Engine, world: World, *, fit: dict[str, Any] | None = None, **create: Any) -> None:
        self.engine, self.world = engine, world
        self.collection = engine.create(world.items, metric=world.metric, **create)
        self.adapter: Any = engine.adapter(self.collection, create.get("vector_name"))
        world.fit(self.adapter, **(fit or {}))
        self._copies: list[str] = []

    def name(self) -> str:
        self._copies.append(self.engine.new_name())
        return self._copies[-1]

    def fold(self, name: str | None = None, **settings: Any) -> tuple[Any, db.FoldSummary]:
        name = name or self.name()
        summary = self.adapter.fold(name, **settings)
        return self.engine.folded(name), summary

    def drop(self) -> None:
        names = self.engine.snapshot(self.collection)["collections"]
        for name in (*names, *self._copies):
            self.engine.drop_collection(name)


@pytest.fixture(scope="module", params=METRICS)
def source(quick_engine: Engine, request: pytest.FixtureRequest) -> Iterator[Source]:
    made = Source(quick_engine, World.make(request.param, n=N), fit={"method": "sinkhorn"})
    yield made
    made.drop()


@pytest.fixture(scope="module")
def copy(source: Source) -> Any:
    return source.fold(method="dual_is")[0]


@pytest.fixture
def fresh(quick_engine: Engine) -> Iterator[Source]:
    made = Source(quick_engine, World.make(n=N))
    yield made
    made.drop()


def assert_equal_to_exact(source: Source, folded: Any, method: str | None = None, **options: Any) -> None:
    for query in source.world.queries:
        got = source.engine.search(folded, None, query, **{"limit": 10, **options})
        wanted = source.engine.search(
            source.adapter, None, query, method=method, exact=True, **{"limit": 10, **options}
        )
        assert [hit.id for hit in got] == [hit.id for hit in wanted]
        np.testing.assert_allclose([h.score for h in got], [h.score for h in wanted], atol=2e-6)
        assert [dict(hit.payload) for hit in got] == [dict(hit.payload) for hit in wanted]


# --- what it returns -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_it_agrees_with_the_exact_search(source: Source, method: str) -> None:
    folded, summary = source.fold(method=method)
    assert_equal_to_exact(source, folded, method)
    assert (summary.item_count, summary.copied_count, summary.verified_count) == (N, N, N)
    assert (summary.resumed_count, summary.skipped_count, summary.unfitted_count) == (0, 0, 0)
    assert (folded.statistics.method.value, folded.statistics.complete) == (method, True)


def test_it_agrees_on_the_server(engine: Engine) -> None:
    made = Source(engine, World.make("euclidean", n=30), fit={"method": "is"})
    assert_equal_to_exact(made, made.fold()[0])
    made.drop()


def test_filters_and_offsets_act_on_the_normalised_result(source: Source, copy: Any) -> None:
    assert_equal_to_exact(source, copy, "dual_is", below=20)
    assert_equal_to_exact(source, copy, "dual_is", offset=4, limit=7)


def test_thresholds_act_on_the_normalised_score(source: Source, copy: Any) -> None:
    metric = source.world.metric
    scores = source.world.score_oracle("dual_is")[0]
    threshold = source.engine.engine_score(float(np.sort(scores)[-6] + np.sort(scores)[-7]) / 2, metric)
    if isinstance(source.engine, MilvusEngine):
        options: dict[str, Any] = {"search_params": {"params": {"radius": threshold}}}
    else:
        options = {"score_threshold": threshold}
    found = source.engine.search(copy, None, source.world.queries[0], limit=N, **options)
    assert [hit.id for hit in found] == np.argsort(-scores, kind="stable")[:6].tolist()


def test_both_bounds_of_a_range_search(source: Source, copy: Any) -> None:
    if not isinstance(source.engine, MilvusEngine):
        pytest.skip("range searches with two bounds are Milvus'")
    scores = source.world.score_oracle("dual_is")[0]
    ordered = np.sort(scores)[::-1]
    far, near = (
        source.engine.engine_score(float(ordered[k] + ordered[k + 1]) / 2, source.world.metric) for k in (8, 2)
    )
    options = {"search_params": {"radius": far, "range_filter": near, "metric_type": "COSINE"}}
    found = source.engine.search(copy, None, source.world.queries[0], limit=N, **options)
    assert [hit.id for hit in found] == np.argsort(-scores, kind="stable")[3:9].tolist()


def test_vectors_come_back_as_they_were(source: Source, copy: Any) -> None:
    query = source.world.queries[0].tolist()
    if isinstance(source.engine, MilvusEngine):
        (hits,) = copy.search([query], limit=5, output_fields=["*"])
        found = {hit.id: hit["entity"]["vector"] for hit in hits}
    else:
        found = {point.id: point.vector for point in copy.query_points(query, limit=5, with_vectors=True).points}
    for item, vector in found.items():
        wanted = source.world.items[item]
        wanted = wanted / np.linalg.norm(wanted) if source.world.metric == "cosine" else wanted
        np.testing.assert_allclose(vector, wanted, atol=1e-6)


def test_queries_are_checked(source: Source, copy: Any) -> None:
    def search(query: Any) -> Any:
        return copy.search([query]) if isinstance(source.engine, MilvusEngine) else copy.query_points(query)

    with pytest.raises(db.DimensionMismatchError, match="9 dimensions"):
        search([0.5] * 9)
    with pytest.raises(db.NonFiniteVectorError):
        search([np.nan] * 8)
    if source.world.metric == "cosine":
        with pytest.raises(db.ZeroVectorError):
            search([0.0] * 8)
    with pytest.raises(db.InvalidParameterError, match="limit"):
        source.engine.search(copy, None, source.world.queries[0], limit=0)
    with pytest.raises(db.UnsupportedQueryError):
        copy.search(ids=[1]) if isinstance(source.engine, MilvusEngine) else copy.query_points(1)


# --- what is in it ---------------------------------------------------------------------------------------------------


def test_the_source_is_only_read(source: Source) -> None:
    before = source.engine.snapshot(source.collection)
    source.fold()
    assert repr(source.engine.snapshot(source.collection)) == repr(before)


@pytest.mark.parametrize("kind", ["text ids", "named vector"])
def test_ids_other_vectors_and_payloads_are_copied(quick_engine: Engine, kind: str) -> None:
    world = World.make("euclidean", n=30)
    payloads = [{"number": row, "title": f"é\n{row}", "tags": ["a", row], "deep": {"x": None}} for row in range(30)]
    options: dict[str, Any] = {"payloads": payloads}
    if kind == "text ids":
        options["ids"] = quick_engine.string_ids(30)
    else:
        options |= {"vector_name": "image", "other_vectors": {"text": np.flip(world.items, axis=0)}}
    made = Source(quick_engine, world, **options)
    before, name = quick_engine.snapshot(made.collection), made.name()
    folded, _ = made.fold(name)
    assert_equal_to_exact(made, folded)
    after = quick_engine.snapshot(name)
    for key, item in before.get("points", before.get("rows", {})).items():
        copied = after.get("points", after.get("rows", {}))[key]
        if isinstance(quick_engine, MilvusEngine):
            for field, value in item.items():
                if field not in ("image", "vector"):
                    assert copied[field] == value
        else:
            assert copied[0] == {k: v for k, v in item[0].items() if k != "dbnorm"}
            if kind == "named vector":
                assert copied[1]["text"] == item[1]["text"]
    made.drop()


def test_items_without_statistics_count_as_average_ones(fresh: Source) -> None:
    vectors = World.make(n=5, seed=9).items
    fresh.engine.insert(fresh.collection, range(1000, 1005), vectors, [{"number": 7, "title": "x"}] * 5)
    folded, summary = fresh.fold()
    assert (summary.item_count, summary.unfitted_count) == (N + 5, 5)
    assert_equal_to_exact(fresh, folded)


def test_items_upserted_meanwhile_are_within_the_bounds(quick_engine: Engine) -> None:
    made = Source(quick_engine, World.make("euclidean", n=30))
    far = 2 * World.make(n=3, seed=9).items
    quick_engine.upsert(made.adapter, range(1000, 1003), far, [{"number": 7, "title": "x"}] * 3)
    assert_equal_to_exact(made, made.fold()[0])
    made.drop()


# --- interrupted -----------------------------------------------------------------------------------------------------


def interrupt(source: Source, name: str, pages: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fold that dies after some pages of ten."""
    adapter = source.engine.adapter(source.collection)
    target = adapter._fold_target(name)
    write, written = target.write, []

    def dying(*args: Any, **kwargs: Any) -> None:
        if len(written) == pages:
            raise KeyboardInterrupt
        written.append(1)
        write(*args, **kwargs)

    monkeypatch.setattr(target, "write", dying)
    monkeypatch.setattr(adapter, "_fold_target", lambda _: target)
    with pytest.raises(KeyboardInterrupt):
        adapter.fold(name, page_size=10)


def test_it_goes_on_where_it_stopped(fresh: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    name = fresh.name()
    interrupt(fresh, name, 3, monkeypatch)
    with pytest.raises(db.NotFittedError, match="unfinished copy"):
        fresh.engine.search(fresh.engine.folded(name), None, fresh.world.queries[0], limit=3)
    folded, summary = fresh.fold(name, page_size=10)
    assert (summary.resumed_count, summary.copied_count, summary.item_count) == (30, 30, N)
    assert_equal_to_exact(fresh, folded)


def test_what_changed_in_between_is_copied_as_it_is_now(fresh: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    name = fresh.name()
    interrupt(fresh, name, 3, monkeypatch)
    payload = {"number": 3, "title": "changed"}
    fresh.engine.delete(fresh.collection, [1, 40])
    vectors = World.make(n=2, seed=9).items
    fresh.engine.upsert(fresh.adapter, [2], vectors[:1], [payload])
    fresh.engine.upsert(fresh.adapter, [5000], vectors[1:], [payload])
    folded, summary = fresh.fold(name, page_size=10)
    assert (summary.resumed_count, summary.item_count) == (28, N - 1)
    assert_equal_to_exact(fresh, folded)
    held = fresh.engine.snapshot(name)
    assert "1" not in held.get("points", held.get("rows"))


def test_a_killed_write_of_the_last_document_leaves_it_unfinished(fresh: Source, monkeypatch: Any) -> None:
    name = fresh.name()
    target = fresh.adapter._fold_target(name)
    with monkeypatch.context() as patched:
        patched.setattr(type(target), "write_document", lambda *_: (_ for _ in ()).throw(ConnectionError("lost")))
        with pytest.raises(ConnectionError):
            fresh.fold(name)
    with pytest.raises(db.NotFittedError, match="unfinished"):
        _ = fresh.engine.folded(name).statistics
    _, summary = fresh.fold(name)
    assert (summary.resumed_count, summary.copied_count) == (N, 0)


def test_a_fit_meanwhile_leaves_it_unfinished(fresh: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    name = fresh.name()
    verify = copying.Folder._verify

    def refitted(*args: Any) -> int:
        fresh.world.fit(fresh.engine.adapter(fresh.collection), method="is")
        return verify(*args)

    with monkeypatch.context() as patched:
        patched.setattr(copying.Folder, "_verify", refitted)
        with pytest.raises(db.StatisticsMismatchError, match="fitted anew meanwhile"):
            fresh.fold(name)
    with pytest.raises(db.NotFittedError):
        _ = fresh.engine.folded(name).statistics
    with pytest.raises(db.StatisticsMismatchError, match="unfinished copy"):
        fresh.fold(name)


def test_what_does_not_arrive_is_found(fresh: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    target = type(fresh.adapter._fold_target("x"))
    write = target.write

    def damaging(self: Any, page: Any, vectors: Any, **how: Any) -> None:
        write(self, page, vectors * np.where(np.array(page.ids) == 7, 0.5, 1.0)[:, None].astype(np.float32), **how)

    def losing(self: Any, page: Any, vectors: Any, **how: Any) -> None:
        rows = np.flatnonzero(np.array(page.ids) != 7)
        write(self, page[rows], vectors[rows], **how)

    for broken, message in ((damaging, "1 of 60 items differ"), (losing, "holds 59 items, 60 were written")):
        name = fresh.name()
        monkeypatch.setattr(target, "write", broken)
        with pytest.raises(db.StatisticsError, match=message):
            fresh.fold(name)
        with pytest.raises(db.NotFittedError):
            _ = fresh.engine.folded(name).statistics


# --- refused ---------------------------------------------------------------------------------------------------------


def test_methods_with_gates_are_refused(source: Source) -> None:
    for method in ("dis", "dual_dis"):
        with pytest.raises(db.UnsupportedMethodError, match="gates differ from query to query"):
            source.adapter.fold(source.engine.new_name(), method=method)
    with pytest.raises(db.UnsupportedMethodError, match="nothing to fold"):
        source.adapter.fold(source.engine.new_name(), method="raw")
    with pytest.raises(db.UnsupportedMethodError, match="cannot be served"):
        source.adapter.fold(source.engine.new_name(), method="nnn")


def test_names_that_are_taken_are_refused_and_left_alone(source: Source) -> None:
    engine, client = source.engine, source.engine.client()
    foreign = engine.create(source.world.items)
    alias = engine.new_name()
    if isinstance(engine, MilvusEngine):
        client.create_alias(foreign, alias)
    else:
        from qdrant_client import models

        operation = models.CreateAlias(collection_name=foreign, alias_name=alias)
        client.update_collection_aliases([models.CreateAliasOperation(create_alias=operation)])
    before = repr((engine.snapshot(foreign), engine.snapshot(source.collection)))
    for name in (foreign, alias, source.collection):
        with pytest.raises(db.ForeignDataError, match="is not a folded copy"):
            source.adapter.fold(name)
    for name in (f"{source.collection}__dbnorm", "", None):
        with pytest.raises(db.InvalidParameterError, match="target"):
            source.adapter.fold(name)
    assert repr((engine.snapshot(foreign), engine.snapshot(source.collection))) == before
    with pytest.raises(db.NotFittedError, match="is not a folded copy"):
        engine.search(engine.folded(foreign), None, source.world.queries[0], limit=3)
    if isinstance(engine, MilvusEngine):
        client.drop_alias(alias)
    engine.drop_collection(foreign)


def test_a_complete_copy_is_not_written_again(source: Source, copy: Any) -> None:
    before = repr(source.engine.snapshot(copy.collection_name))
    with pytest.raises(db.ForeignDataError, match="complete copy of"):
        source.adapter.fold(copy.collection_name, method="dual_is")
    assert repr(source.engine.snapshot(copy.collection_name)) == before


def test_the_unfinished_copy_of_something_else_is_refused(fresh: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    name = fresh.name()
    interrupt(fresh, name, 1, monkeypatch)
    with pytest.raises(db.StatisticsMismatchError, match="dual_is, generation 1"):
        fresh.fold(name, method="is")


def test_there_have_to_be_statistics(quick_engine: Engine) -> None:
    collection = quick_engine.create(World.make(n=5).items)
    with pytest.raises(db.NotFittedError, match="no statistics to fold"):
        quick_engine.adapter(collection).fold(quick_engine.new_name())
    quick_engine.drop_collection(collection)


def test_numbers_out_of_range_are_refused(source: Source) -> None:
    for settings in ({"page_size": 0}, {"batch_size": 0}, {"max_items_per_second": 0}):
        with pytest.raises(db.InvalidParameterError):
            source.adapter.fold(source.engine.new_name(), **settings)


def test_damaged_documents_are_refused(fresh: Source) -> None:
    folded, _ = fresh.fold()
    name = folded.collection_name
    target, whole = fresh.adapter._fold_target(name), folded.statistics.model_dump(mode="json")
    for damage, message in (({"complete": True}, "not that of a folded copy"), ({"format_version": 2}, "version 2")):
        target.write_document({**(whole if "format_version" in damage else {}), **damage})
        with pytest.raises(db.StatisticsFormatError, match=message):
            _ = fresh.engine.folded(name).statistics
