"""The example service, on a real socket: uvicorn serves, an HTTP client asks."""

import asyncio
import threading
from datetime import datetime, timedelta, timezone

import httpx
import pytest
from qdrant_client import AsyncQdrantClient
from qdrant_client.http.exceptions import ResponseHandlingException

from dbnorm_vdb.demo import load_pictures

uvicorn = pytest.importorskip("uvicorn")
pytest.importorskip("fastapi")

from service.app import Settings, create_app  # noqa: E402
from service.visitors import send_visitors  # noqa: E402

DATA = load_pictures()
TEXT = DATA.test.records[7]["text"]


def serve(settings):
    """A client of the service, which is stopped when the generator is."""
    server = uvicorn.Server(
        uvicorn.Config(create_app(settings), host="127.0.0.1", port=0, ws="none", log_level="warning")
    )
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()))
    thread.start()
    try:
        while not server.started and thread.is_alive():
            thread.join(0.05)
        port = server.servers[0].sockets[0].getsockname()[1]
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False) as client:
            yield client
    finally:
        server.should_exit = True
        thread.join(60)


@pytest.fixture(scope="module", params=["qdrant", "milvus"])
def service(request, tmp_path_factory):
    log = tmp_path_factory.mktemp("events")
    design = {"qdrant": "interleave", "milvus": "split"}[request.param]
    yield from serve(Settings(engine=request.param, design=design, log=str(log), window=30))


def titles(answer):
    assert answer.status_code == 200, answer.text
    return [found["title"] for found in answer.json()["results"]]


def later(seconds=60):
    return {"until": (datetime.now(timezone.utc) + timedelta(seconds=seconds)).isoformat()}


def test_it_says_that_its_searches_are_normalised(service):
    told = service.get("/health").json()
    assert (told["status"], told["items"], told["coverage"], told["method"]) == ("ok", 1872, 1.0, "dual_is")


def test_normalised_and_raw_search_differ_as_their_methods_do(service):
    raw = DATA.test.texts @ DATA.test.pictures.T
    best = [DATA.test.records[row]["text"] for row in (-raw[7]).argsort()[:10]]
    assert titles(service.post("/search/raw", json={"text": TEXT})) == best
    normalized = titles(service.post("/search", json={"text": TEXT, "limit": 5}))
    assert len(normalized) == 5
    assert normalized != best[:5]
    assert titles(service.post("/search", json={"vector": DATA.test.texts[7].tolist(), "limit": 5})) == normalized
    assert service.get("/health").json()["raw_fallbacks"] == {}


@pytest.mark.parametrize(
    ("wanted", "status", "said"),
    [
        ({"text": "no such text"}, 404, "no vector for this text"),
        ({}, 422, "either a text or a vector"),
        ({"vector": [1.0, 2.0]}, 422, "vectors have 256 numbers, this one has 2"),
        ({"vector": [0.0] * 256}, 422, "zero"),
        ({"text": TEXT, "limit": 0}, 422, "limit"),
    ],
)
def test_what_it_cannot_answer_it_refuses(service, wanted, status, said):
    answer = service.post("/search", json=wanted)
    assert answer.status_code == status
    assert said in answer.text


def test_visitors_take_part_in_an_experiment_that_can_be_watched(service):
    clicked = asyncio.run(send_visitors(str(service.base_url), count=120, seed=3))

    report = service.get("/experiment/report", params=later()).json()

    assert report["valid"], report["problems"]
    assert report["final_users"] == 120
    if report["interleaving"]:
        found = report["interleaving"]
        assert found["impressions"] == 120
        assert 0 < found["for_arm"] + found["for_baseline"] <= clicked
    else:
        assert [arm["arm"] for arm in report["arms"]] == ["raw", "dual_is"]
        shares = [arm["click_through"]["value"] * arm["users"] for arm in report["arms"]]
        assert round(sum(shares)) == clicked
    page = service.get("/pages/watch.html")
    assert page.status_code == 200
    assert "/experiment/report" in page.text


def test_a_visitor_cannot_tell_whose_results_they_see(service):
    answer = service.post("/experiment/search", json={"visitor": "anna", "text": TEXT, "limit": 5}).json()
    assert set(answer) == {"impression", "results"}
    assert {key for found in answer["results"] for key in found} == {"id", "title"}


def test_pictures_and_pages_are_served_and_nothing_else(service):
    first = DATA.test.records[0]["id"]
    assert service.get(f"/pictures/{first}.webp").headers["content-type"] == "image/webp"
    assert service.get("/pictures/999999.webp").status_code == 404
    assert service.get("/pages/..%2Fapp.html").status_code == 404
    assert service.get("/", follow_redirects=True).status_code == 200


@pytest.mark.parametrize("service", ["qdrant"], indirect=True)
def test_a_database_that_is_away_is_said_to_be(service, monkeypatch):
    async def refused(*args, **kwargs):
        raise ResponseHandlingException(ConnectionRefusedError())

    for call in ("query_points", "get_collection"):
        monkeypatch.setattr(AsyncQdrantClient, call, refused)
    assert service.get("/health").status_code == 503
    assert service.post("/search", json={"text": TEXT}).status_code == 503
    monkeypatch.undo()
    assert service.get("/health").json()["status"] == "ok"
