"""One fit at a time, and none half done: claims, take-overs, and processes that are killed."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from adapters.world import World
from harness import Engine, MilvusEngine, QdrantEngine
from qdrant_client import QdrantClient

from dbnorm_vdb import FitInProgressError, StoredState
from dbnorm_vdb.ledger import EXPIRES_AFTER, new_claim
from dbnorm_vdb.statistics import FitClaim

WORLD = World.make("dot", n=60)


@pytest.fixture
def collection(engine: Engine) -> Iterator[str]:
    name = engine.create(WORLD.items, metric="dot")
    yield name
    engine.adapter(name).drop()
    engine.drop_collection(name)


@pytest.fixture
def quick_collection(quick_engine: Engine) -> Iterator[str]:
    name = quick_engine.create(WORLD.items, metric="dot")
    yield name
    quick_engine.adapter(name).drop()
    quick_engine.drop_collection(name)


def claim_of_another_host(age: timedelta) -> StoredState:
    then = datetime.now(timezone.utc) - age
    claim = new_claim(5).model_copy(update={"host": "elsewhere", "process": 4711, "since": then, "renewed_at": then})
    return StoredState(writing=claim)


def test_a_second_fit_and_a_drop_are_refused_while_one_runs(engine: Engine, collection: str) -> None:
    messages: list[str] = []

    def meanwhile(stage: str, done: int, total: int) -> None:
        if stage == "items" and done == 30:
            for call in (WORLD.fit, lambda adapter: adapter.drop()):
                with pytest.raises(FitInProgressError) as caught:
                    call(engine.adapter(collection))
                messages.append(str(caught.value))

    WORLD.fit(engine.adapter(collection), page_size=30, progress=meanwhile)
    assert len(messages) == 2
    assert all(f"is being fitted by process {new_claim(1).process}" in message for message in messages)
    assert all("since 20" in message for message in messages)
    assert engine.adapter(collection).status().coverage == 1.0


def test_a_claim_of_another_host_holds_until_it_expires(engine: Engine, collection: str) -> None:
    adapter = engine.adapter(collection)
    adapter._store.write_document("dbnorm", claim_of_another_host(EXPIRES_AFTER - timedelta(seconds=30)).dump())
    before = engine.snapshot(collection)
    with pytest.raises(FitInProgressError, match="by process 4711 on elsewhere since"):
        WORLD.fit(adapter)
    assert engine.snapshot(collection) == before
    adapter._store.write_document("dbnorm", claim_of_another_host(EXPIRES_AFTER + timedelta(seconds=1)).dump())
    assert WORLD.fit(adapter).item_count == 60


def test_of_two_fits_that_claim_in_the_same_moment_the_first_writes_nothing(engine: Engine, collection: str) -> None:
    adapter = engine.adapter(collection)
    before = engine.snapshot(collection)
    settle = adapter._ledger.settle

    def overwritten(claim: FitClaim) -> None:
        adapter._store.write_document("dbnorm", claim_of_another_host(timedelta(0)).dump())
        settle(claim)

    adapter._ledger.settle = overwritten
    with pytest.raises(FitInProgressError, match="took over"):
        WORLD.fit(adapter)
    assert not adapter._store.has_leftovers()
    adapter._store.write_document("dbnorm", None)
    assert engine.snapshot(collection) == before


def test_the_claim_holds_until_the_old_generation_is_cleaned_up(quick_engine: Engine, quick_collection: str) -> None:
    """Else the cleaning up would remove what a fit that starts in between has written."""
    adapter = quick_engine.adapter(quick_collection)
    WORLD.fit(adapter)
    refused: list[str] = []
    discard = adapter._store.discard_generation

    def meanwhile(generation: int) -> None:
        with pytest.raises(FitInProgressError) as caught:
            WORLD.fit(quick_engine.adapter(quick_collection))
        refused.append(str(caught.value))
        discard(generation)

    adapter._store.discard_generation = meanwhile
    WORLD.fit(adapter)
    assert len(refused) == 1
    assert quick_engine.adapter(quick_collection).status().coverage == 1.0


def test_a_claim_that_makes_no_sense_is_dead(quick_engine: Engine, quick_collection: str) -> None:
    adapter = quick_engine.adapter(quick_collection)
    adapter._store.write_document("dbnorm", claim_of_another_host(-timedelta(days=300)).dump())
    assert WORLD.fit(adapter).item_count == 60


def test_a_fit_that_was_taken_over_activates_nothing(engine: Engine, collection: str) -> None:
    adapter = engine.adapter(collection)
    active = WORLD.fit(adapter).statistics

    def take_over(stage: str, done: int, total: int) -> None:
        if done == 60:
            state = claim_of_another_host(timedelta(0)).model_copy(update={"active": active})
            adapter._store.write_document("dbnorm", state.dump())

    with pytest.raises(FitInProgressError, match="took over .* nothing of it was activated"):
        WORLD.fit(adapter, query_beta=99.0, progress=take_over)
    status = engine.adapter(collection).status()
    assert status.active == active
    assert status.writing is not None
    assert status.writing.host == "elsewhere"
    adapter._store.write_document("dbnorm", StoredState(active=active).dump())


KILLED_FIT = textwrap.dedent("""
    import os, signal, sys
    import numpy as np
    from dbnorm_vdb import writing
    engine, location, collection, stage, count, banks = sys.argv[1:]
    if engine == "qdrant":
        from dbnorm_qdrant import QdrantAdapter
        from qdrant_client import QdrantClient
        adapter = QdrantAdapter(QdrantClient(path=location), collection)
    else:
        from dbnorm_milvus import MilvusAdapter
        from pymilvus import MilvusClient
        adapter = MilvusAdapter(MilvusClient(location), collection)

    def progress(current, done, total):
        if current == stage and done >= int(count):
            os.kill(os.getpid(), signal.SIGKILL)

    writing.CHECKPOINT_EVERY = 0.0  # after every page
    arrays = np.load(banks)
    adapter.fit(arrays["query"], arrays["gallery"], query_beta=40, gallery_beta=30, page_size=10, progress=progress)
""")
POINTS = (("query bank", 12), ("gallery bank", 20), ("items", 0), ("items", 10), ("items", 50), ("items", 60))


def kill_a_fit(engine: str, location: str, collection: str, point: tuple[str, int], folder: Path) -> None:
    banks = folder / "banks.npz"
    np.savez(banks, query=WORLD.query_bank, gallery=WORLD.gallery_bank)
    arguments = [engine, location, collection, point[0], str(point[1]), str(banks)]
    result = subprocess.run(
        [sys.executable, "-c", KILLED_FIT, *arguments], capture_output=True, text=True, timeout=120, check=False
    )
    assert result.returncode == -9, result.stderr


def assert_the_fit_goes_on(engine: Engine, collection: str, done: int) -> None:
    """The same fit, called again after so many items were done, writes what an uninterrupted one writes."""
    resumed = WORLD.fit(engine.adapter(collection), query_beta=40, gallery_beta=30, page_size=10)
    assert resumed.resumed_count == done
    served = results(engine, collection)
    other = engine.create(WORLD.items, metric="dot")
    whole = WORLD.fit(engine.adapter(other), query_beta=40, gallery_beta=30, page_size=10)
    assert whole.resumed_count == 0
    times = {"generation", "fitted_at"}
    assert resumed.statistics.model_dump(exclude=times) == whole.statistics.model_dump(exclude=times)
    assert served == results(engine, other)
    engine.adapter(other).drop()
    engine.drop_collection(other)


def results(engine: Engine, collection: str) -> list[Any]:
    adapter = engine.adapter(collection)
    return [engine.search(adapter, None, query, limit=60, candidates=60) for query in WORLD.queries[:3]]


def test_killed_at_any_point_on_qdrant_the_old_statistics_serve(tmp_path: Path) -> None:
    storage = str(tmp_path / "storage")

    def opened() -> QdrantEngine:
        return QdrantEngine("qdrant-path", QdrantClient(path=storage))

    engine = opened()
    collection = engine.create(WORLD.items, metric="dot")
    plain = engine.snapshot(collection)
    WORLD.fit(engine.adapter(collection))
    before = results(engine, collection)
    for point in POINTS:
        engine.client().close()
        kill_a_fit("qdrant", storage, collection, point, tmp_path)
        engine = opened()
        assert engine.adapter(collection).status().writing is not None, point
        assert results(engine, collection) == before, point
    assert_the_fit_goes_on(engine, collection, 60)
    WORLD.fit(engine.adapter(collection))
    assert [[(h.id, h.payload) for h in r] for r in results(engine, collection)] == [
        [(h.id, h.payload) for h in r] for r in before
    ]
    engine.adapter(collection).drop()
    assert engine.snapshot(collection) == plain
    engine.client().close()


def test_killed_at_any_point_on_milvus_the_old_statistics_serve(milvus_2_3_5: MilvusEngine, tmp_path: Path) -> None:
    engine = milvus_2_3_5
    collection = engine.create(WORLD.items, metric="dot")
    plain = engine.snapshot(collection)
    WORLD.fit(engine.adapter(collection))
    before = results(engine, collection)
    for point in POINTS[::2]:
        kill_a_fit("milvus", engine.location, collection, point, tmp_path)
        assert engine.adapter(collection).status().writing is not None, point
        assert results(engine, collection) == before, point
    assert_the_fit_goes_on(engine, collection, 50)
    WORLD.fit(engine.adapter(collection))
    assert [[h.id for h in r] for r in results(engine, collection)] == [[h.id for h in r] for r in before]
    engine.adapter(collection).drop()
    assert engine.snapshot(collection) == plain
    engine.drop_collection(collection)
