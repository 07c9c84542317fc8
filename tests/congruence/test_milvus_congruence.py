"""Several hundred calls drawn from all their arguments: raw the client's results, normalised the oracle's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from congruence.milvus_calls import METHODS, Call, Draw, N, Stock, calls, expected, pages, picture
from harness import MilvusEngine

import dbnorm_vdb as db
from dbnorm_milvus import MilvusAdapter, wrap

COUNTS = {"milvus-lite": 300, "milvus-2.3.5": 60}


class Fitted:
    """A stock with statistics, and the three ways to search it."""

    def __init__(self, engine: MilvusEngine, metric: str, *, rich: bool) -> None:
        self.engine = engine
        self.client = engine.client()
        self.stock = Stock.make(self.client, engine.new_name(), metric=metric, rich=rich)
        self.adapter: MilvusAdapter = engine.adapter(self.stock.name, "vector")
        self.stock.fit(self.adapter)
        self.wrapped = wrap(self.client)
        self.count = COUNTS.get(engine.name, 60)


@pytest.fixture(scope="module", params=["milvus_lite", "milvus_2_3_5"])
def milvus(request: pytest.FixtureRequest) -> MilvusEngine:
    engine: MilvusEngine = request.getfixturevalue(request.param)
    return engine


@pytest.fixture(scope="module")
def fitted(milvus: MilvusEngine) -> Iterator[Fitted]:
    fitted = Fitted(milvus, "cosine", rich=milvus.name != "milvus-2.3.5")
    yield fitted
    milvus.drop_collection(fitted.stock.name)


@pytest.fixture(scope="module")
def euclidean(milvus_lite: MilvusEngine) -> Iterator[Fitted]:
    fitted = Fitted(milvus_lite, "euclidean", rich=True)
    yield fitted
    milvus_lite.drop_collection(fitted.stock.name)


def method_of(number: int, call: Call) -> str:
    """Each in turn; `dual_dis` has no bounded form, and tells no score of rows whose similarity is not positive."""
    method = METHODS[number % len(METHODS)]
    params = call.arguments.get("search_params") or {}
    bounded = "radius" in {**params, **params.get("params", {})}
    return "dual_is" if method == "dual_dis" and bounded else method


def assert_oracle(call: Call, method: str, result: Any, oracle: Any) -> None:
    for hits, wanted in zip(result, oracle, strict=True):
        assert list(hits.ids) == [key for key, _ in wanted], (method, str(call))
        told = np.array([distance for _, distance in wanted])
        np.testing.assert_allclose(
            np.array(hits.distances)[~np.isnan(told)],
            told[~np.isnan(told)],
            # a rounded distance may fall on the other side
            atol=2e-6
            if call.arguments.get("round_decimal", -1) < 0
            else 1.1 * 10.0 ** -call.arguments["round_decimal"],
            err_msg=f"{method} {call}",
        )


def test_raw_searches_are_the_clients(fitted: Fitted) -> None:
    for call in calls(fitted.stock, "search", fitted.count, seed=1):
        own = picture(call.of(fitted.client, fitted.stock.name))
        assert picture(call.of_adapter(fitted.adapter, method="raw")) == own, str(call)
        assert picture(call.of(fitted.wrapped, fitted.stock.name, method="raw")) == own, str(call)


def test_normalised_searches_are_the_oracles(fitted: Fitted) -> None:
    """With all rows as candidates. What the hits hold is what the client's own hold."""
    for number, call in enumerate(calls(fitted.stock, "search", fitted.count, seed=2)):
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
    for number, call in enumerate(calls(fitted.stock, "search", fitted.count // 4, seed=4)):
        method = method_of(number, call)
        result = call.of_adapter(fitted.adapter, method=method, exact=True)
        assert_oracle(call, method, result, expected(fitted.stock, call, method))


def test_a_batch_is_its_single_searches(fitted: Fitted) -> None:
    for call in calls(fitted.stock, "search", fitted.count // 4, seed=5):
        batch = call.of_adapter(fitted.adapter)
        for row, hits in enumerate(batch):
            (single,) = Call("search", {**call.arguments, "data": call.arguments["data"][row : row + 1]}).of_adapter(
                fitted.adapter
            )
            assert list(hits.ids) == list(single.ids), str(call)
            np.testing.assert_allclose(hits.distances, single.distances, atol=1e-6)
            assert [hit["entity"] for hit in hits] == [hit["entity"] for hit in single]


def test_raw_hybrid_searches_are_the_clients(milvus_lite: MilvusEngine, fitted: Fitted) -> None:
    if not fitted.stock.rich:
        pytest.skip("Milvus 2.3 has no hybrid search")
    for call in calls(fitted.stock, "hybrid_search", 60, seed=6):
        own = picture(call.of(fitted.client, fitted.stock.name))
        assert picture(call.of_adapter(fitted.adapter, method="raw")) == own, str(call)
        assert picture(call.of(fitted.wrapped, fitted.stock.name, method="raw")) == own, str(call)


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
