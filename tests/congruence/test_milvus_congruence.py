"""Several hundred calls drawn from all their arguments: raw the client's results, normalised the oracle's."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from congruence.milvus_calls import (
    ADDITIVE,
    METHODS,
    Call,
    Draw,
    N,
    Stock,
    as_searches,
    calls,
    expected,
    expected_hybrid,
    fused,
    pages,
    picture,
)
from harness import MilvusEngine
from pymilvus import AsyncMilvusClient

import dbnorm_vdb as db
from dbnorm_milvus import AsyncMilvusAdapter, MilvusAdapter, wrap

COUNT = 300
UNGATED = {"is": "is", "dis": "is", "dual_is": "dual_is", "dual_dis": "dual_is"}


class Fitted:
    """A stock with statistics, and the three ways to search it."""

    def __init__(self, engine: MilvusEngine, metric: str) -> None:
        self.location = engine.location
        self.client = engine.client()
        self.stock = Stock.make(self.client, engine.new_name(), metric=metric)
        self.adapter: MilvusAdapter = engine.adapter(self.stock.name, "vector")
        self.stock.world.fit(self.adapter)
        self.wrapped = wrap(self.client)


@pytest.fixture(scope="module")
def fitted(milvus_lite: MilvusEngine) -> Iterator[Fitted]:
    fitted = Fitted(milvus_lite, "cosine")
    yield fitted
    milvus_lite.drop_collection(fitted.stock.name)


@pytest.fixture(scope="module")
def euclidean(milvus_lite: MilvusEngine) -> Iterator[Fitted]:
    fitted = Fitted(milvus_lite, "euclidean")
    yield fitted
    milvus_lite.drop_collection(fitted.stock.name)


def method_of(number: int, call: Call) -> str:
    """Each in turn.

    Methods with gates take no `range_filter`, and `dual_dis` tells no score of rows whose similarity is not positive.
    """
    method = METHODS[number % len(METHODS)]
    params = call.arguments.get("search_params") or {}
    bounds = {**params, **params.get("params", {})}
    without_gates = "range_filter" in bounds or (method == "dual_dis" and "radius" in bounds)
    return UNGATED[method] if without_gates else method


def assert_oracle(call: Call, method: str, result: Any, oracle: Any) -> None:
    for hits, wanted in zip(result, oracle, strict=True):
        assert_hits(call, method, hits, wanted)


def assert_hits(call: Call, method: str, hits: Any, wanted: list[tuple[Any, float]]) -> None:
    """The same keys and distances, but for those that the oracle does not tell."""
    assert list(hits.ids) == [key for key, _ in wanted], (method, str(call))
    told = np.array([distance for _, distance in wanted])
    known = ~np.isnan(told)
    digits = call.arguments.get("round_decimal", -1)
    slack = 2e-5 if method == "dual_dis" else 2e-6  # it takes logarithms of similarities close to 0
    if digits >= 0:
        slack = 1.1 * 10.0**-digits  # rounded, it may fall on the other side
    np.testing.assert_allclose(np.array(hits.distances)[known], told[known], atol=slack, err_msg=f"{method} {call}")


def test_raw_searches_are_the_clients(fitted: Fitted) -> None:
    for call in calls(fitted.stock, "search", COUNT, seed=1):
        own = picture(call.of(fitted.client, fitted.stock.name))
        assert picture(call.of_adapter(fitted.adapter, method="raw")) == own, str(call)
        assert picture(call.of(fitted.wrapped, fitted.stock.name, method="raw")) == own, str(call)


def test_normalised_searches_are_the_oracles(fitted: Fitted) -> None:
    """With all rows as candidates. What the hits hold is what the client's own hold."""
    for number, call in enumerate(calls(fitted.stock, "search", COUNT, seed=2)):
        method = method_of(number, call)
        result = call.of_adapter(fitted.adapter, method=method, candidates=N)
        assert_oracle(call, method, result, expected(fitted.stock, call, method))
        if number % 5 == 0:
            wrapped = call.of(fitted.wrapped, fitted.stock.name, method=method, candidates=N)
            assert picture(wrapped) == picture(result), str(call)
            whole = {"limit": N, "offset": 0, "search_params": {}, "group_by_field": None, "round_decimal": -1}
            raw = call.of(fitted.client, fitted.stock.name, **whole)
            for hits, others in zip(result, raw, strict=True):
                entities = {other["key"]: other["entity"] for other in others}
                assert [hit["entity"] for hit in hits] == [entities[hit["key"]] for hit in hits], str(call)


def test_normalised_searches_by_squared_distance(euclidean: Fitted) -> None:
    for number, call in enumerate(calls(euclidean.stock, "search", 80, seed=3)):
        method = method_of(number, call)
        result = call.of_adapter(euclidean.adapter, method=method, candidates=N)
        assert_oracle(call, method, result, expected(euclidean.stock, call, method))


def test_exact_searches_need_not_have_all_candidates(fitted: Fitted) -> None:
    for number, call in enumerate(calls(fitted.stock, "search", COUNT // 5, seed=4)):
        method = method_of(number, call)
        result = call.of_adapter(fitted.adapter, method=method, exact=True)
        assert_oracle(call, method, result, expected(fitted.stock, call, method))


def test_a_batch_is_its_single_searches(fitted: Fitted) -> None:
    for call in calls(fitted.stock, "search", COUNT // 5, seed=5):
        batch = call.of_adapter(fitted.adapter)
        for row, hits in enumerate(batch):
            (single,) = Call("search", {**call.arguments, "data": call.arguments["data"][row : row + 1]}).of_adapter(
                fitted.adapter
            )
            assert list(hits.ids) == list(single.ids), str(call)
            np.testing.assert_allclose(hits.distances, single.distances, atol=1e-6)
            assert [hit["entity"] for hit in hits] == [hit["entity"] for hit in single]


def test_raw_hybrid_searches_are_the_clients(fitted: Fitted) -> None:
    """So is a fusion, here, of the client's own searches: what fuses normalised ones does as the engine would."""
    for call in calls(fitted.stock, "hybrid_search", 60, seed=6):
        own = call.of(fitted.client, fitted.stock.name)
        seen = picture(own)
        assert picture(call.of_adapter(fitted.adapter, method="raw")) == seen, str(call)
        assert picture(call.of(fitted.wrapped, fitted.stock.name, method="raw")) == seen, str(call)
        legs = [search.of(fitted.client, fitted.stock.name) for search in as_searches(call)]
        for hits, wanted in zip(own, fused(fitted.stock, call, legs), strict=True):
            assert_hits(call, "raw", hits, wanted)


def test_normalised_hybrid_searches_are_fusions_of_the_oracles(fitted: Fitted) -> None:
    """Of the dense leg's normalised ranking and the other legs' own. What the hits hold is what the client's hold."""
    changed = 0
    for number, call in enumerate(calls(fitted.stock, "hybrid_search", 40, seed=9)):
        method = ADDITIVE[number % len(ADDITIVE)]
        result = call.of_adapter(fitted.adapter, method=method, candidates=N)
        own = call.of(fitted.client, fitted.stock.name)
        assert type(result) is type(own)
        assert vars(result).keys() == vars(own).keys()
        for hits, wanted in zip(result, expected_hybrid(fitted.client, fitted.stock, call, method), strict=True):
            assert_hits(call, method, hits, wanted)
        changed += [list(hits.ids) for hits in result] != [list(hits.ids) for hits in own]
        wrapped = call.of(fitted.wrapped, fitted.stock.name, method=method, candidates=N)
        assert picture(wrapped) == picture(result), str(call)
        entities = {hit["key"]: hit["entity"] for leg in as_searches(call) for hit in _all_of(fitted, leg)}
        for hits in result:
            assert [hit["entity"] for hit in hits] == [entities[hit["key"]] for hit in hits], str(call)
    assert changed > 12


def _all_of(fitted: Fitted, search: Call) -> list[Any]:
    return [hit for hits in search.of(fitted.client, fitted.stock.name) for hit in hits] + [
        hit for hits in search.of(fitted.client, fitted.stock.name, limit=N) for hit in hits
    ]


def test_async_calls_are_the_sync_ones(fitted: Fitted) -> None:
    name = fitted.stock.name
    drawn = [*calls(fitted.stock, "search", 30, seed=10), *calls(fitted.stock, "hybrid_search", 10, seed=11)]

    async def compare() -> None:
        client = AsyncMilvusClient(fitted.location)
        try:
            adapter, wrapped = AsyncMilvusAdapter(client, name, "vector"), wrap(client)
            for number, call in enumerate(drawn):
                options = {"method": method_of(number, call), "candidates": (60, N)[number // 4 % 2]}
                normalised = picture(call.of_adapter(fitted.adapter, **options))
                assert picture(await call.of_adapter(adapter, **options)) == normalised, str(call)
                assert picture(await call.of(wrapped, name, **options)) == normalised, str(call)
                own = picture(await call.of(client, name))
                assert picture(await call.of_adapter(adapter, method="raw")) == own, str(call)
                assert picture(await call.of(wrapped, name, method="raw")) == own, str(call)
        finally:
            await client.close()

    asyncio.run(compare())


def test_the_async_adapter_has_no_iterator_since_the_client_has_none() -> None:
    assert not hasattr(AsyncMilvusClient, "search_iterator")
    assert not hasattr(AsyncMilvusAdapter, "search_iterator")


def test_parameters_of_a_filter_reach_the_engine(fitted: Fitted, monkeypatch: pytest.MonkeyPatch) -> None:
    """Milvus Lite does not know them, so what reaches the client is filled in there."""
    own = fitted.client.search

    def filled(*args: Any, filter: str = "", filter_params: Any = None, **kwargs: Any) -> Any:
        return own(*args, filter=filter.format(**(filter_params or {})), **kwargs)

    data = fitted.stock.world.queries[:2].tolist()
    search: dict[str, Any] = {"data": data, "anns_field": "vector", "limit": 5, "candidates": N}
    plain = picture(fitted.adapter.search(**search, filter="owner < 9"))
    monkeypatch.setattr(fitted.client, "search", filled)
    template = {"filter": "owner < {most}", "filter_params": {"most": 9}}
    assert picture(fitted.adapter.search(**search, **template)) == plain
    assert picture(fitted.wrapped.search(fitted.stock.name, **search, **template)) == plain


def test_iterators_follow_the_order_of_the_oracle(fitted: Fitted) -> None:
    for number, call in enumerate(calls(fitted.stock, "search_iterator", 12, seed=7)):
        method = METHODS[number % len(METHODS)]
        limit = call.arguments.get("limit", -1)
        single = Call("search", {**call.arguments, "limit": N if limit < 0 else limit})
        (oracle,) = expected(fitted.stock, single, method)
        found = pages(call.of_adapter(fitted.adapter, method=method, candidates=max(call.arguments["batch_size"], 30)))
        assert [hit["key"] for page in found for hit in page] == [key for key, _ in oracle], (method, str(call))
        assert all(len(page) == call.arguments["batch_size"] for page in found[:-1])


def test_raw_iterators_are_the_clients(fitted: Fitted) -> None:
    for call in calls(fitted.stock, "search_iterator", 12, seed=8):
        limited = Call(call.name, {**call.arguments, "limit": 30})
        own = limited.of(fitted.client, fitted.stock.name)
        found = pages(own)
        for other in (
            limited.of_adapter(fitted.adapter, method="raw"),
            limited.of(fitted.wrapped, fitted.stock.name, method="raw"),
        ):
            assert type(other) is type(own)
            assert pages(other) == found, str(call)


def test_what_the_client_refuses_stays_refused(fitted: Fitted) -> None:
    """By the client's own error where the call is raw, and else by that or by one of ours."""
    data = fitted.stock.world.queries[:1].tolist()
    search = {"data": data, "anns_field": "vector"}
    for arguments in (
        {**search, "filter": "nonsense ==="},
        {**search, "output_fields": "owner"},
        {**search, "consistency_level": "Weird"},
        {**search, "search_params": {"params": 5}},
        {**search, "search_params": {"radius": 0.1, "params": {"radius": 0.2}}},
        {**search, "search_params": {"offset": 1}, "offset": 1},
        {**search, "round_decimal": 9},
        {**search, "round_decimal": None},
        {**search, "ids": [1]},
        {"anns_field": "vector"},
        {**search, "data": []},
        {**search, "data": [[0.1, 0.2]]},
        {**search, "data": data[0]},
    ):
        with pytest.raises(Exception, match=".") as own:
            fitted.client.search(fitted.stock.name, **arguments)
        for raw in (
            lambda arguments=arguments: fitted.adapter.search(**arguments, method="raw"),
            lambda arguments=arguments: fitted.wrapped.search(fitted.stock.name, **arguments, method="raw"),
        ):
            with pytest.raises(type(own.value)) as ours:
                raw()
            assert type(ours.value) is type(own.value)
        with pytest.raises((type(own.value), db.DBNormError)):
            fitted.adapter.search(**arguments)


def test_calls_differ_from_each_other(fitted: Fitted) -> None:
    drawn = [str(call) for call in calls(fitted.stock, "search", 300, seed=1)]
    assert len(set(drawn)) > 250
    assert [str(Draw(fitted.stock, 1).search())] == drawn[:1]
