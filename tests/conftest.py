"""Engines, each started once a run and stopped for sure."""

from __future__ import annotations

import gc
import importlib.util
import logging
import shutil
import warnings
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
from faces import AsyncMilvusEngine, AsyncQdrantEngine, Loop
from harness import ENGINES, FACES, Engine, MilvusEngine, QdrantEngine, fixture_name, servers_from_environment
from pymilvus import MilvusClient
from qdrant_client import QdrantClient

if TYPE_CHECKING:
    from recorded import Recorded

SLOWEST = "milvus-2.3.5"
LONGEST = "tests/cli/test_demo.py"
"""The module whose tests wait for one long command."""


@pytest.fixture(scope="session", params=ENGINES)
def engine(request: pytest.FixtureRequest) -> Engine:
    """Each engine in turn."""
    engine: Engine = request.getfixturevalue(fixture_name(request.param))
    return engine


@pytest.fixture(scope="session", params=[name for name in ENGINES if name != SLOWEST])
def quick_engine(request: pytest.FixtureRequest) -> Engine:
    """Each engine but the one whose collections take seconds to make: for what does not depend on the engine."""
    engine: Engine = request.getfixturevalue(fixture_name(request.param))
    return engine


@pytest.fixture(scope="session")
def qdrant_local() -> Iterator[Engine]:
    client = QdrantClient(":memory:")
    yield QdrantEngine("qdrant-local", client)
    client.close()


@pytest.fixture(scope="session")
def milvus_lite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    logging.getLogger("pymilvus").setLevel(logging.CRITICAL)
    location = str(tmp_path_factory.mktemp("lite") / "lite.db")
    client = MilvusClient(location)
    yield MilvusEngine("milvus-lite", client, location)
    client.close()


@pytest.fixture(scope="session")
def qdrant_local_async() -> Iterator[Engine]:
    engine = AsyncQdrantEngine("qdrant-local-async", QdrantClient(":memory:"), Loop())
    yield engine
    engine.close()


@pytest.fixture(scope="session")
def milvus_lite_async(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    logging.getLogger("pymilvus").setLevel(logging.CRITICAL)
    location = str(tmp_path_factory.mktemp("async") / "lite.db")
    engine = AsyncMilvusEngine("milvus-lite-async", MilvusClient(location), location, Loop())
    yield engine
    engine.close()


@pytest.fixture(scope="session")
def milvus_2_3_5(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """The real server, from its wheel; it listens on loopback."""
    if importlib.util.find_spec("milvus") is None:
        pytest.skip("the wheel milvus==2.3.5 exists for linux on x86_64 only")
    logging.getLogger("pymilvus").setLevel(logging.CRITICAL)
    server = started_milvus(tmp_path_factory)
    try:
        location = f"http://127.0.0.1:{server.listen_port}"
        client = MilvusClient(location)
        yield MilvusEngine("milvus-2.3.5", client, location)
        client.close()
    finally:
        server.stop()


def started_milvus(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A running server. On a busy machine one in some starts never gets healthy, so there are three attempts."""
    from milvus import MilvusServer

    for attempt in (1, 2, 3):
        server = MilvusServer(wait_for_started=False)
        server.set_base_dir(str(tmp_path_factory.mktemp("milvus")))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter(
                    "ignore", ResourceWarning
                )  # looking for free ports, the wheel leaves sockets open
                server.start()
                server.wait_started(timeout=90_000)
                gc.collect()
        except (TimeoutError, RuntimeError):
            server.stop()
            if attempt == 3:
                raise
        except BaseException:
            server.stop()
            raise
        else:
            return server
    raise AssertionError("unreachable")


@pytest.fixture(scope="session")
def qdrant_server() -> Iterator[Engine]:
    client = QdrantClient(url=servers_from_environment()["qdrant-server"], timeout=60)
    yield QdrantEngine("qdrant-server", client)
    client.close()


@pytest.fixture(scope="session")
def milvus_server() -> Iterator[Engine]:
    client = MilvusClient(servers_from_environment()["milvus-server"])
    yield MilvusEngine("milvus-server", client)
    client.close()


@pytest.fixture(scope="session")
def recorded_ever() -> Iterator[Recorded]:
    from recorded import Recorded  # the vector stores of frameworks are tested without OpenTelemetry

    recorded = Recorded()
    yield recorded
    recorded.close()


@pytest.fixture
def recorded(recorded_ever: Recorded) -> Recorded:
    """What telemetry records, spans from now on."""
    recorded_ever.forget_spans()
    return recorded_ever


def pytest_configure(config: pytest.Config) -> None:
    """The order of the groups is the one below, not xdist's own."""
    config.option.loadscopereorder = False


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """In parallel runs one process has the tests of one engine, or else of one module.

    The slow server goes first and the longest module second, so that neither is what a run ends with. The others follow
    by their number of tests.
    """
    groups = {}
    for item in items:
        parameters = getattr(item, "callspec", None)
        names = {str(value).replace("_", "-") for value in parameters.params.values()} if parameters else set()
        names |= {name.replace("_", "-") for name in getattr(item, "fixturenames", ())}
        server = "milvus-2-3-5" in {name.replace(".", "-") for name in names}
        engine = next((name for name in FACES if name in names), item.nodeid.partition("::")[0])
        groups[item] = SLOWEST if server else engine
        item.add_marker(pytest.mark.xdist_group(groups[item]))
    sizes = Counter(groups.values())
    items.sort(key=lambda item: (groups[item] != SLOWEST, groups[item] != LONGEST, -sizes[groups[item]]))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what was not run."""
    if importlib.util.find_spec("torch") is None:
        terminalreporter.write_line("note: torch is not installed, its tests were skipped (pip install torch==2.13.0)")
    if not any(map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))):
        terminalreporter.write_line("note: Chromium is not installed, the report was not tested in a browser")
    given = servers_from_environment()
    if not given:
        terminalreporter.write_line(
            "note: no server given (DBNORM_TEST_QDRANT_URL, DBNORM_TEST_MILVUS_URI); the embedded engines and, where"
            " its wheel is installed, Milvus 2.3.5 were tested"
        )
