"""Milvus: what is written as columns is what rows would have written; vectors are read as they came."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from adapters.world import World
from harness import MilvusEngine

from dbnorm_milvus import MilvusAdapter, columns, store
from dbnorm_milvus.columns import put_columns, values_of, vectors_of
from dbnorm_vdb import FitSummary
from dbnorm_vdb.store import ITEMS_SUFFIX, slot

WORLD = World.make(n=150)


@pytest.fixture(scope="module", params=["milvus_lite", "milvus_2_3_5"])
def milvus(request: pytest.FixtureRequest) -> MilvusEngine:
    engine: MilvusEngine = request.getfixturevalue(request.param)
    return engine


def test_only_lite_is_taken_for_lite(milvus: MilvusEngine) -> None:
    collection = milvus.create(WORLD.items[:3])
    adapter = milvus.adapter(collection)
    assert isinstance(adapter, MilvusAdapter)
    assert (adapter._store.lite, adapter._store.concurrent) == (
        (False, True) if "2.3.5" in milvus.name else (True, False)
    )
    milvus.drop_collection(collection)


def stored(milvus: MilvusEngine, collection: str, fitted: FitSummary) -> dict[Any, tuple[Any, ...]]:
    """The rows of the companion, by key, without the generation."""
    name = collection + ITEMS_SUFFIX + slot(fitted.statistics.generation)
    rows = milvus.client().query(name, filter="generation > 0", output_fields=["*"], consistency_level="Strong")
    return {row["item"]: (tuple(map(float, row["biases"])), row["activation"]) for row in rows}


@pytest.mark.parametrize("text", [False, True], ids=["numbers", "text"])
def test_columns_write_what_rows_write(milvus: MilvusEngine, text: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = milvus.string_ids(150) if text else None
    collection = milvus.create(WORLD.items, ids=ids)
    adapter = milvus.adapter(collection)
    put: list[tuple[int, bool]] = []

    def watched(client: Any, name: str, schema: Any, values: Any, *, replace: bool) -> bool:
        put.append((len(values["item"]), replace))
        return put_columns(client, name, schema, values, replace=replace)

    monkeypatch.setattr(store, "put_columns", watched)
    fitted = WORLD.fit(adapter, method="sinkhorn")
    assert (150, False) in put
    assert [replace for _, replace in put] == [False, True], "the biases, then once more those with flags"
    as_columns = stored(milvus, collection, fitted)
    monkeypatch.setattr(store, "put_columns", lambda *_, **__: False)
    WORLD.fit(adapter, method="sinkhorn", query_beta=19.0)
    as_rows = stored(milvus, collection, WORLD.fit(adapter, method="sinkhorn"))
    assert as_columns == as_rows
    assert len(as_rows) == 150
    assert any(flags for _, flags in as_rows.values())
    milvus.drop_collection(collection)


def test_a_client_that_takes_no_columns_is_given_rows(milvus: MilvusEngine) -> None:
    class Older(type(milvus.client())):  # type: ignore[misc]
        _generate_call_context = None

    client = object.__new__(Older)
    client.__dict__.update(vars(milvus.client()))
    assert not put_columns(client, "none", None, {}, replace=False)
    assert not put_columns(object(), "none", None, {}, replace=False)


def test_vectors_are_read_as_they_came(milvus: MilvusEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    collection = milvus.create(WORLD.items)
    adapter = milvus.adapter(collection)
    assert isinstance(adapter, MilvusAdapter)
    found: list[bool] = []

    def watched(*arguments: Any) -> Any:
        vectors = vectors_of(*arguments)
        found.append(vectors is not None)
        return vectors

    monkeypatch.setattr(store, "vectors_of", watched)
    quick = list(adapter._store.pages(64))
    assert found
    assert all(found), "the client returns vectors otherwise now"
    monkeypatch.setattr(store, "vectors_of", lambda *_: None)
    slow = list(adapter._store.pages(64))
    assert [page.ids for page in quick] == [page.ids for page in slow]
    for ours, rows in zip(quick, slow, strict=True):
        np.testing.assert_array_equal(ours.vectors, rows.vectors)
    milvus.drop_collection(collection)


def rows_over(whole: Any, dimension: int = 2) -> list[dict[str, Any]]:
    return [{"v": whole[start : start + dimension]} for start in range(0, len(whole), dimension)]


WHOLE = np.arange(6, dtype=np.float32)


def test_vectors_that_lie_behind_each_other_are_one_array() -> None:
    vectors = vectors_of(rows_over(WHOLE), "v", 2)
    assert vectors is not None
    assert vectors.tolist() == [[0, 1], [2, 3], [4, 5]]
    assert np.shares_memory(vectors, WHOLE)


@pytest.mark.parametrize(
    "rows",
    [
        rows_over(WHOLE)[::-1],
        rows_over(WHOLE)[1:],
        [*rows_over(WHOLE)[:2], {"v": None}],
        [*rows_over(WHOLE)[:2], {}],
        [{"v": [0.0, 1.0]}, {"v": [2.0, 3.0]}],
        rows_over(WHOLE.astype(np.float64)),
        [{"v": WHOLE[:2].copy()}, {"v": WHOLE[2:4].copy()}, {"v": WHOLE[4:].copy()}],
    ],
    ids=["reversed", "a part", "a null", "a row without", "lists", "float64", "apart"],
)
def test_vectors_that_lie_otherwise_are_not(rows: list[dict[str, Any]]) -> None:
    assert vectors_of(rows, "v", 2) is None


def test_values_that_are_not_there_from_the_start_are_asked_for() -> None:
    class Lazy(list[Any]):
        def __iter__(self) -> Any:
            return iter({"k": number} for number in range(len(self)))

    assert values_of([{"k": 1}, {"k": 2}], "k") == [1, 2]
    assert values_of(Lazy([{}, {}]), "k") == [0, 1]
    assert columns.values_of(({"k": 1},), "k") == [1]
