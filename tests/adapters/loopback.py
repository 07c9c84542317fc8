"""A Qdrant server on the loopback, REST and gRPC, that keeps each request and lets local mode answer it.

It stands in for a server's wire, not for its engine: what clients send, and what they make of the answers.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import grpc as transport
from qdrant_client import QdrantClient, grpc, models
from qdrant_client.conversions.conversion import GrpcToRest, RestToGrpc
from qdrant_client.grpc import points_service_pb2_grpc as service

SEARCHES = ("query_points", "query_batch_points", "query_points_groups")


class OverTheWire:
    """A client whose searches go over the wire; everything else to the client that has the collections.

    Attributes:
        received: the searches as the server got them: path and query string with a JSON body, or gRPC messages.
    """

    def __init__(self, own: QdrantClient, remote: QdrantClient, received: list[Any]) -> None:
        self._own, self._remote, self.received = own, remote, received

    def __getattr__(self, name: str) -> Any:
        return getattr(self._remote if name in SEARCHES else self._own, name)


@contextmanager
def over_rest(own: QdrantClient) -> Iterator[OverTheWire]:
    """A client that speaks REST."""
    received: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            parts = urlsplit(self.path)
            received.append((parts.path, dict(parse_qsl(parts.query)), body))
            _, _, collection, _, *search = parts.path.split("/")
            answer = json.dumps({"result": _rest(own, collection, "/".join(search), body), "status": "ok", "time": 0})
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer.encode())

        def log_message(self, *args: Any) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    remote = QdrantClient(f"http://127.0.0.1:{server.server_port}", check_compatibility=False)
    try:
        yield OverTheWire(own, remote, received)
    finally:
        remote.close()
        server.shutdown()
        thread.join()
        server.server_close()


def _rest(own: QdrantClient, collection: str, search: str, body: Any) -> Any:
    if search == "query":
        (answer,) = own.query_batch_points(collection, [models.QueryRequest(**body)])
        return answer.model_dump(mode="json")
    if search == "query/batch":
        requests = [models.QueryRequest(**one) for one in body["searches"]]
        return [answer.model_dump(mode="json") for answer in own.query_batch_points(collection, requests)]
    assert search == "query/groups", search
    return _groups(own, collection, models.QueryGroupsRequest(**body)).model_dump(mode="json")


def _groups(own: QdrantClient, collection: str, asked: models.QueryGroupsRequest) -> models.GroupsResult:
    return own.query_points_groups(
        collection,
        asked.group_by,
        query=asked.query,
        using=asked.using,
        prefetch=asked.prefetch,
        query_filter=asked.filter,
        limit=asked.limit or 10,
        group_size=asked.group_size or 3,
        with_payload=asked.with_payload or False,
        with_vectors=asked.with_vector or False,
        score_threshold=asked.score_threshold,
    )


@contextmanager
def over_grpc(own: QdrantClient) -> Iterator[OverTheWire]:
    """A client that speaks gRPC."""
    received: list[Any] = []

    class Points(service.PointsServicer):
        def Query(self, request: Any, context: Any) -> Any:  # noqa: N802  # named by the protocol
            received.append(request)
            (answer,) = own.query_batch_points(request.collection_name, [GrpcToRest.convert_query_points(request)])
            return grpc.QueryResponse(result=_points(answer.points))

        def QueryBatch(self, request: Any, context: Any) -> Any:  # noqa: N802  # named by the protocol
            received.append(request)
            requests = [GrpcToRest.convert_query_points(one) for one in request.query_points]
            answers = own.query_batch_points(request.collection_name, requests)
            batch = [grpc.BatchResult(result=_points(answer.points)) for answer in answers]
            return grpc.QueryBatchResponse(result=batch)

        def QueryGroups(self, request: Any, context: Any) -> Any:  # noqa: N802  # named by the protocol
            received.append(request)
            shared = [field for field in _IN_BOTH if request.HasField(field)]
            points = grpc.QueryPoints(prefetch=request.prefetch, **{name: getattr(request, name) for name in shared})
            fields = GrpcToRest.convert_query_points(points).model_dump(exclude_none=True)
            sizes = {"group_by": request.group_by, "group_size": request.group_size}
            asked = models.QueryGroupsRequest(**{**fields, **sizes})
            groups = _groups(own, request.collection_name, asked).groups
            made = [RestToGrpc.convert_point_group(group) for group in groups]
            return grpc.QueryGroupsResponse(result=grpc.GroupsResult(groups=made))

    server = transport.server(ThreadPoolExecutor(2))
    service.add_PointsServicer_to_server(Points(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    remote = QdrantClient("127.0.0.1", grpc_port=port, prefer_grpc=True, check_compatibility=False)
    try:
        yield OverTheWire(own, remote, received)
    finally:
        remote.close()
        server.stop(None).wait()


_IN_BOTH = ("query", "using", "filter", "params", "limit", "score_threshold", "with_payload", "with_vectors")


def _points(points: Any) -> list[Any]:
    return [RestToGrpc.convert_scored_point(point) for point in points]
