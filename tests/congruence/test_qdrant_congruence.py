"""Generated calls: raw ones are the bare client's to the last bit, normalised ones the oracle's, whoever answers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from congruence.qdrant_calls import NORMALISED, RAW_ONLY, Call, Calls
from congruence.qdrant_gallery import Gallery, N
from congruence.qdrant_oracle import Oracle, assert_same_ranking
from qdrant_client import AsyncQdrantClient, QdrantClient

from dbnorm_qdrant import AsyncQdrantAdapter, QdrantAdapter, wrap

pytestmark = pytest.mark.filterwarnings("ignore:Local mode performs exact")  # that search_params change nothing

METHODS = ("is", "dis", "dual_is", "dual_dis")
WORLDS = {"cosine": "image", "dot": "", "euclidean": "image"}
EACH = 6
"""Calls of each kind for each world, a third of them by groups where there are groups of such a kind."""

_OF_THE_POINTS = ("with_payload", "with_vectors", "search_params", "consistency", "timeout")

UNGROUPED = ("mmr", "order by", "no query")


@pytest.fixture(scope="module", params=WORLDS)
def gallery(request: pytest.FixtureRequest) -> Iterator[Gallery]:
    client = QdrantClient(":memory:")
    vector = WORLDS[request.param]
    yield Gallery.make(client, lambda name, named: QdrantAdapter(client, name, named), request.param, vector)
    client.close()


@pytest.fixture(scope="module")
def adapter(gallery: Gallery) -> QdrantAdapter:
    return QdrantAdapter(gallery.client, gallery.fitted, gallery.using)


def drawn(gallery: Gallery, kinds: tuple[str, ...]) -> list[Call]:
    calls = Calls(gallery, seed=11)
    kinds = tuple(kind for kind in kinds if gallery.vector or kind != "other vector")
    return [
        calls.draw(kind, grouped=number % 3 == 2 and kind not in UNGROUPED) for kind in kinds for number in range(EACH)
    ]


def asked(target: Any, call: Call, *collection: str, **options: Any) -> Any:
    """The answer of an adapter, or of a client that is told the collection."""
    arguments = call.of_adapter if not collection else call.arguments
    search = target.query_points_groups if call.grouped else target.query_points
    return search(*collection, **arguments, **options)


def ranking(points: Any) -> list[tuple[Any, float]]:
    return [(point.id, point.score) for point in points]


def test_raw_calls_are_those_of_the_bare_client(gallery: Gallery, adapter: QdrantAdapter) -> None:
    found_some = 0
    for call in drawn(gallery, NORMALISED + RAW_ONLY):
        bare = asked(gallery.client, call, gallery.plain)
        assert asked(adapter, call, method="raw") == bare, call
        found_some += bool(bare.groups if call.grouped else bare.points)
    assert found_some >= 80


def test_with_all_candidates_normalised_calls_are_the_oracles(gallery: Gallery, adapter: QdrantAdapter) -> None:
    compared = 0
    for number, call in enumerate(drawn(gallery, NORMALISED)):
        method = METHODS[number % len(METHODS)]
        oracle = Oracle(gallery, method)
        found = asked(adapter, call, method=method, candidates=8 * N)
        arguments = {k: v for k, v in call.arguments.items() if k not in _OF_THE_POINTS}
        if call.grouped:
            key = arguments.pop("group_by")
            size = arguments.pop("group_size")
            groups = oracle.groups(key, group_size=size, **arguments)
            if not oracle.unscored:
                assert [group.id for group in found.groups] == [name for name, _ in groups], call
                for group, (_, hits) in zip(found.groups, groups, strict=True):
                    assert_same_ranking(ranking(group.hits), hits, hits, tolerance=1e-4)
            compared += not oracle.unscored
            continue
        wanted = oracle.ranking(**arguments)
        everything = wanted if call.kind == "mmr" else oracle.ranking(**{**arguments, "limit": N, "offset": 0})
        if not oracle.unscored:
            assert_same_ranking(ranking(found.points), wanted, everything, tolerance=1e-4)
        elif "prefetch" not in arguments and call.kind != "mmr":
            assert [point.id for point in found.points] == [item for item, _ in wanted], call
        compared += not oracle.unscored
    assert compared >= 50


def test_payload_and_vectors_of_normalised_calls_are_those_of_the_bare_client(
    gallery: Gallery, adapter: QdrantAdapter
) -> None:
    for call in drawn(gallery, NORMALISED):
        if call.grouped:
            continue
        everything = {**call.arguments, "limit": N, "score_threshold": None, "offset": None, "prefetch": None}
        everything |= {"query": gallery.world.queries[0].tolist(), "using": gallery.using, "query_filter": None}
        bare = {point.id: point for point in gallery.client.query_points(gallery.plain, **everything).points}
        for point in asked(adapter, call, method="dual_is").points:
            assert point.payload == bare[point.id].payload, call
            assert point.vector == bare[point.id].vector, call


def test_batches_are_their_calls_one_by_one(gallery: Gallery, adapter: QdrantAdapter) -> None:
    calls = [call for call in drawn(gallery, NORMALISED) if not call.grouped]
    for number, method in enumerate((*METHODS, "raw")):
        some = calls[number::5]
        batch = adapter.query_batch_points([call.request for call in some], method=method)
        for call, together in zip(some, batch, strict=True):
            assert asked(adapter, call, method=method) == together, call


def test_wrapped_clients_answer_like_adapters(gallery: Gallery, adapter: QdrantAdapter) -> None:
    wrapped = wrap(gallery.client)
    for number, call in enumerate(drawn(gallery, NORMALISED)):
        method = (*METHODS, "raw")[number % 5]
        assert asked(wrapped, call, gallery.fitted, method=method) == asked(adapter, call, method=method), call
        assert asked(wrapped, call, gallery.plain) == asked(gallery.client, call, gallery.plain), call


def test_async_adapters_answer_like_sync_ones(gallery: Gallery, adapter: QdrantAdapter) -> None:
    calls = drawn(gallery, NORMALISED)[::2]

    async def answers() -> list[Any]:
        client: Any = AsyncQdrantClient(":memory:")
        local: Any = gallery.client
        client._client.collections = local._client.collections  # the same points, without a server
        client._client.aliases = local._client.aliases
        theirs = AsyncQdrantAdapter(client, gallery.fitted, gallery.using)
        return [await asked(theirs, call, method=METHODS[row % 4]) for row, call in enumerate(calls)]

    for row, (call, answer) in enumerate(zip(calls, asyncio.run(answers()), strict=True)):
        assert answer == asked(adapter, call, method=METHODS[row % 4]), call
