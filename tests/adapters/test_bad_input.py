"""Bad input raises an error of its own, which says what was wrong, before anything is written."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from adapters.world import World
from harness import Engine

import dbnorm_vdb as db

WORLD = World.make(n=20)
Q, G = WORLD.query_bank, WORLD.gallery_bank


def changed(array: np.ndarray, value: float) -> np.ndarray:
    array = array.copy()
    array[3] = value
    return array


@pytest.fixture(scope="module")
def fitted(engine: Engine) -> Iterator[tuple[str, Any]]:
    collection = engine.create(WORLD.items)
    adapter = engine.adapter(collection)
    WORLD.fit(adapter)
    yield collection, adapter
    adapter.drop()
    engine.drop_collection(collection)


@pytest.fixture(scope="module")
def quick_fitted(quick_engine: Engine) -> Iterator[tuple[str, Any]]:
    collection = quick_engine.create(WORLD.items)
    adapter = quick_engine.adapter(collection)
    WORLD.fit(adapter)
    yield collection, adapter
    adapter.drop()
    quick_engine.drop_collection(collection)


BAD_FITS: dict[str, tuple[tuple[Any, ...], dict[str, Any], type[Exception], str]] = {
    "query bank of another dimension": ((Q[:, :5], G), {}, db.DimensionMismatchError, "query bank: .* 5 .* 8"),
    "gallery bank of another dimension": ((Q, G[:, :5]), {}, db.DimensionMismatchError, "gallery bank: .* 5 .* 8"),
    "NaN": ((changed(Q, np.nan), G), {}, db.NonFiniteVectorError, "query bank: 1 of 12 .* row 3"),
    "infinite": ((Q, changed(G, np.inf)), {}, db.NonFiniteVectorError, "gallery bank: 1 of 20 .* row 3"),
    "zero vector": ((changed(Q, 0), G), {}, db.ZeroVectorError, "query bank: 1 of 12 .* row 3"),
    "empty query bank": ((Q[:0], G), {}, db.EmptyBankError, "query bank: no vectors"),
    "empty gallery bank": ((Q, []), {}, db.EmptyBankError, "gallery bank: no vectors"),
    "one vector that is not a matrix": ((Q[0], G), {}, db.InvalidVectorsError, r"shape \(8,\)"),
    "words": ((["a", "b"], G), {}, db.InvalidVectorsError, "query bank"),
    "missing file": (("nowhere.npy", G), {}, db.BankFileError, "nowhere.npy"),
    "unknown file type": (("bank.csv", G), {}, db.BankFileError, "bank.csv"),
    "query_beta 0": ((Q, G), {"query_beta": 0}, db.InvalidParameterError, "query_beta .* got 0"),
    "gallery_beta negative": ((Q, G), {"gallery_beta": -1.5}, db.InvalidParameterError, "gallery_beta .* got -1.5"),
    "beta NaN": ((Q, G), {"query_beta": float("nan")}, db.InvalidParameterError, "query_beta .* got nan"),
    "sample of nothing": ((Q, 0), {}, db.InvalidParameterError, "sample size.* got 0"),
    "activation_k 0": ((Q, G), {"activation_k": 0}, db.InvalidParameterError, "activation_k .* got 0"),
    "page_size 0": ((Q, G), {"page_size": 0}, db.InvalidParameterError, "page_size .* got 0"),
    "unknown backend": ((Q, G), {"backend": "gpu"}, db.InvalidParameterError, "backend .* got 'gpu'"),
    "unknown precision": ((Q, G), {"precision": "half"}, db.InvalidParameterError, "precision .* got 'half'"),
    "precision of torch on numpy": (
        (Q, G),
        {"precision": "tf32", "backend": "numpy"},
        db.InvalidParameterError,
        "'tf32' needs backend='torch'",
    ),
    "batch_size 0": ((Q, G), {"batch_size": 0}, db.InvalidParameterError, "batch_size .* got 0"),
    "pace 0": ((Q, G), {"max_items_per_second": 0}, db.InvalidParameterError, "max_items_per_second .* got 0"),
    "iterations 0": ((Q, G), {"iterations": 0}, db.InvalidParameterError, "iterations .* got 0"),
    "unknown method": ((Q, G), {"method": "magic"}, db.UnsupportedMethodError, "'magic'"),
    "nnn_k 0": ((Q, G), {"method": "nnn", "nnn_k": 0}, db.InvalidParameterError, "nnn_k .* got 0"),
    "nnn_alpha NaN": ((Q, G), {"nnn_alpha": float("nan")}, db.InvalidParameterError, "nnn_alpha .* got nan"),
    "nnn without queries": ((None, G), {"method": "nnn"}, db.UnsupportedMethodError, "'nnn' needs a query bank"),
    "no query bank": ((None, G), {}, db.UnsupportedMethodError, "needs a query bank"),
    "no gallery bank": ((Q, None), {}, db.UnsupportedMethodError, "needs a gallery bank.*method='is'"),
}


@pytest.mark.parametrize("case", BAD_FITS)
def test_bad_fits_write_nothing(quick_engine: Engine, quick_fitted: tuple[str, Any], case: str) -> None:
    banks, settings, error, message = BAD_FITS[case]
    collection, adapter = quick_fitted
    before = quick_engine.snapshot(collection)
    with pytest.raises(error, match=message) as caught:
        adapter.fit(*banks, **settings)
    assert type(caught.value) is error
    assert isinstance(caught.value, db.DBNormError)
    assert quick_engine.snapshot(collection) == before


BAD_SEARCHES: dict[str, tuple[np.ndarray, dict[str, Any], type[Exception], str]] = {
    "limit 0": (WORLD.queries[0], {"limit": 0}, db.InvalidParameterError, "limit .* got 0"),
    "limit negative": (WORLD.queries[0], {"limit": -3}, db.InvalidParameterError, "limit .* got -3"),
    "candidates 0": (WORLD.queries[0], {"candidates": 0}, db.InvalidParameterError, "candidates .* got 0"),
    "candidates below limit": (WORLD.queries[0], {"limit": 9, "candidates": 8}, db.InvalidParameterError, "8 .* 9"),
    "offset negative": (WORLD.queries[0], {"offset": -1}, db.InvalidParameterError, "offset .* got -1"),
    "NaN": (WORLD.queries[0] * np.nan, {}, db.NonFiniteVectorError, "NaN"),
    "infinite": (WORLD.queries[0] + np.inf, {}, db.NonFiniteVectorError, "infinite"),
    "zero vector": (WORLD.queries[0] * 0, {}, db.ZeroVectorError, "zeros"),
    "unknown method": (WORLD.queries[0], {"method": "magic"}, db.UnsupportedMethodError, "'magic'"),
    "unfitted method": (WORLD.queries[0], {"method": "sinkhorn"}, db.UnsupportedMethodError, "'sinkhorn'"),
}


@pytest.mark.parametrize("case", BAD_SEARCHES)
def test_bad_searches(engine: Engine, fitted: tuple[str, Any], case: str) -> None:
    query, arguments, error, message = BAD_SEARCHES[case]
    with pytest.raises(error, match=message):
        engine.search(fitted[1], None, query, **{"limit": 5, **arguments})


def test_a_query_of_another_dimension_is_refused_by_the_client(engine: Engine, fitted: tuple[str, Any]) -> None:
    collection, adapter = fitted
    query = WORLD.queries[0][:5]
    with pytest.raises(Exception, match=r".") as own:
        engine.search(engine.client(), collection, query, limit=3)
    with pytest.raises(type(own.value)):
        engine.search(adapter, None, query, limit=3)
    with pytest.raises(db.DimensionMismatchError, match="5 .* 8"):
        adapter.nearest(query[None])


def test_an_empty_collection(engine: Engine) -> None:
    collection = engine.create(WORLD.items[:0])
    before = engine.snapshot(collection)
    with pytest.raises(db.EmptyCollectionError, match="has no items"):
        WORLD.fit(engine.adapter(collection))
    assert engine.snapshot(collection) == before
    engine.drop_collection(collection)


def test_a_collection_that_does_not_exist(engine: Engine) -> None:
    """That is the client's own error."""
    with pytest.raises(Exception, match="missing_collection") as caught:
        WORLD.fit(engine.adapter("missing_collection"))
    assert not isinstance(caught.value, db.DBNormError)


def test_an_unknown_vector_name(engine: Engine, fitted: tuple[str, Any]) -> None:
    collection, _ = fitted
    before = engine.snapshot(collection)
    with pytest.raises(db.UnknownVectorError, match="no vector .*'depth'"):
        WORLD.fit(engine.adapter(collection, "depth"))
    assert engine.snapshot(collection) == before


def test_several_vectors_and_none_named(engine: Engine) -> None:
    collection = engine.create(WORLD.items, vector_name="image", other_vectors={"text": WORLD.items[:, :3]})
    before = engine.snapshot(collection)
    with pytest.raises(db.UnknownVectorError, match=r"has several.*\['image', 'text'\]"):
        WORLD.fit(engine.adapter(collection))
    assert engine.snapshot(collection) == before
    engine.drop_collection(collection)


def test_statistics_of_another_vector(engine: Engine) -> None:
    collection = engine.create(WORLD.items, vector_name="image", other_vectors={"text": WORLD.items[:, :3].copy()})
    WORLD.fit(engine.adapter(collection, "image"))
    before = engine.snapshot(collection)
    other = engine.adapter(collection, "text")
    with pytest.raises(db.StatisticsMismatchError, match="of vector 'image'.*not of 'text'.*drop"):
        other.fit(Q[:, :3], method="is")
    with pytest.raises(db.StatisticsMismatchError, match="of vector 'image'"):
        engine.search(other, None, WORLD.queries[0][:3], limit=3)
    assert engine.snapshot(collection) == before
    engine.adapter(collection, "image").drop()
    engine.drop_collection(collection)


FORMATS: list[tuple[Any, str]] = [
    ({"format_version": 99}, "format version 99, this library reads 1"),
    ({"format_version": 1, "active": {"generation": 1}}, "damaged: active"),
    ({"format_version": 1, "writing": -1}, "damaged: writing"),
    ({"mine": "not yours"}, "not statistics of this library"),
    (["list"], "not statistics of this library"),
    ({"format_version": 1, "padding": "x" * 70_000}, "more than 65536"),
]


def test_statistics_of_another_format(engine: Engine) -> None:
    collection = engine.create(WORLD.items)
    adapter = engine.adapter(collection)
    served_by: Any = ((adapter, None), (engine.client(), collection))
    for stored, message in FORMATS:
        engine.corrupt_state(collection, json.dumps(stored))
        before = engine.snapshot(collection)
        calls: list[Callable[[], Any]] = [
            lambda: WORLD.fit(adapter),
            adapter.status,
            lambda: engine.search(adapter, None, WORLD.queries[0], limit=3, method="is"),
            lambda: engine.search(engine.adapter(collection, on_missing="error"), None, WORLD.queries[0], limit=3),
        ]
        for call in calls:
            with pytest.raises(db.StatisticsFormatError, match=message):
                call()
        assert engine.snapshot(collection) == before
        raw = [engine.search(target, name, WORLD.queries[0], limit=3) for target, name in served_by]
        assert [hit.id for hit in raw[0]] == [hit.id for hit in raw[1]]
    adapter.drop()
    assert WORLD.fit(adapter).item_count == 20
    adapter.drop()
    engine.drop_collection(collection)


def test_names_that_are_taken(engine: Engine) -> None:
    collection = engine.create(WORLD.items)
    engine.create_foreign(collection)
    before = engine.snapshot(collection)
    adapter = engine.adapter(collection)
    with pytest.raises(db.ForeignDataError, match="was not made by this library; rename it"):
        WORLD.fit(adapter)
    adapter.drop()
    assert engine.snapshot(collection) == before
    for name in before["collections"]:
        engine.drop_collection(name)


def test_bad_options(engine: Engine, fitted: tuple[str, Any]) -> None:
    with pytest.raises(db.InvalidParameterError, match="on_missing .* got 'ignore'"):
        engine.adapter(fitted[0], on_missing="ignore")
    with pytest.raises(db.InvalidParameterError, match="statistics_ttl .* got -1"):
        engine.adapter(fitted[0], statistics_ttl=-1)
