"""Tuning on real engines: only reading, and with settings that a fit takes as they are; also by the async adapters."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from harness import Engine, MilvusEngine
from labelled import LabelledWorld
from pymilvus import AsyncMilvusClient, MilvusClient
from qdrant_client import AsyncQdrantClient, models

from dbnorm_milvus import AsyncMilvusAdapter
from dbnorm_qdrant import AsyncQdrantAdapter

WORLD = LabelledWorld.make(n=80, q=120)
BANKS = {"query_bank": WORLD.query_bank, "gallery_bank": WORLD.gallery_bank}
GRID: dict[str, Any] = {"betas": {"query": [2, 4, 8], "gallery": [0, 1]}}


@pytest.fixture(params=["integers", "text"])
def collection(quick_engine: Engine, request: pytest.FixtureRequest) -> Iterator[tuple[str, list[Any]]]:
    ids = list(range(80)) if request.param == "integers" else sorted(quick_engine.string_ids(80))
    name = quick_engine.create(WORLD.items, metric="euclidean", ids=ids)
    yield name, ids
    quick_engine.adapter(name).drop()
    quick_engine.drop_collection(name)


def test_nothing_is_written_and_a_fit_finds_the_figure_again(
    quick_engine: Engine, collection: tuple[str, list[Any]]
) -> None:
    name, ids = collection
    before = quick_engine.snapshot(name)
    adapter = quick_engine.adapter(name)
    relevant = [ids[own] for own in WORLD.own]
    found = adapter.tune(WORLD.queries, relevant, **BANKS, **GRID)
    assert quick_engine.snapshot(name) == before
    assert found.best.setting.method.value == "is"
    assert (found.candidates, found.beyond_count, found.item_count) == (80, 0, 80)
    fitted = adapter.fit(**BANKS, **found.settings, validation=(WORLD.queries, relevant))
    verdict = fitted.statistics.verdict
    assert verdict is not None
    assert verdict.raw == pytest.approx(found.raw.figures["nDCG@10"])
    assert verdict.normalized == pytest.approx(found.best.figures["nDCG@10"], abs=0.002)  # its window is smaller


def test_a_gallery_bank_may_be_sampled(quick_engine: Engine, collection: tuple[str, list[Any]]) -> None:
    adapter = quick_engine.adapter(collection[0])
    found = adapter.tune(query_bank=WORLD.query_bank, gallery_bank=40, methods=["dual_is"], **GRID)
    assert not found.validated
    assert len(found.trials) == 1 + 3 * 2


def test_the_async_qdrant_adapter_tunes_and_judges_alike() -> None:
    async def run() -> None:
        client = AsyncQdrantClient(":memory:")
        params = models.VectorParams(size=12, distance=models.Distance.EUCLID)
        await client.create_collection("items", vectors_config=params)
        await client.upsert("items", models.Batch(ids=list(range(80)), vectors=WORLD.items.tolist()))
        await assert_it_tunes_and_judges(AsyncQdrantAdapter(client, "items"))
        await client.close()

    asyncio.run(run())


def test_the_async_milvus_adapter_tunes_and_judges_alike(tmp_path: Path) -> None:
    location = str(tmp_path / "tune.db")
    sync = MilvusClient(location)
    name = MilvusEngine("milvus-lite", sync).create(WORLD.items, metric="euclidean")

    async def run() -> None:
        client = AsyncMilvusClient(location)
        await assert_it_tunes_and_judges(AsyncMilvusAdapter(client, name))
        await client.close()

    asyncio.run(run())
    sync.close()


async def assert_it_tunes_and_judges(adapter: Any) -> None:
    labelled = (WORLD.queries, WORLD.own.tolist())
    found = await adapter.tune(*labelled, **BANKS, **GRID)
    assert found.settings["method"] == "is"
    assert (await adapter.fit(**BANKS, **found.settings, validation=labelled)).activated
    refused = await adapter.fit(WORLD.misleading_bank, method="is", query_beta=30.0, validation=labelled)
    assert not refused.activated
    status = await adapter.status(queries=WORLD.queries)
    assert status.rejected.verdict.gain < 0
    assert status.active.query.beta == found.settings["query_beta"]
    assert not status.bank_distance.unlike
    assert np.isfinite(status.bank_distance.distance)
