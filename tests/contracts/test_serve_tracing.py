"""Spans of requests: for those whose callers trace them, sent where the environment says, and for no others."""

from __future__ import annotations

import asyncio
import gzip
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from mlforge import Definitions, Service
from mlforge.online import RedisStore
from mlforge.serve.app import App
from mlforge.serve.tracing import tracing_of_environment
from tests.support.projects import Project, rows

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACED, UNTRACED = f"00-{TRACE}-{PARENT}-01", f"00-{TRACE}-{PARENT}-00"


@pytest.fixture
def definitions(tmp_path: Path, online: RedisStore) -> Definitions:
    project = Project(tmp_path)
    project.drop("a", rows((1, 0, 1.0)))
    spend = project.define()
    definitions = project.definitions(
        spend, online_store=online, services=[Service("checkout", [spend])]
    )
    definitions.build(online=True)
    return definitions


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """The spans that a collector of this machine has got."""
    spans: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            for of_resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                names = {a.key: a.value.string_value for a in of_resource.resource.attributes}
                for scoped in of_resource.scope_spans:
                    spans.extend((names["service.name"], span) for span in scoped.spans)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.delenv("OTEL_SERVICE_NAME", raising=False)
    yield spans
    server.shutdown()
    server.server_close()


def test_a_request_is_traced_where_its_caller_says_so_and_else_not(
    definitions: Definitions, collector: list[Any]
) -> None:
    tracing = tracing_of_environment()
    assert tracing is not None
    app = App(definitions, tracing=tracing)

    async def ask() -> list[int]:
        transport = httpx.ASGITransport(app)
        statuses = []
        async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
            for path, parent in (
                ("/v1/services/checkout?user_id=1", TRACED),
                ("/v1/services/nothing?user_id=1", TRACED),
                ("/v1/services/checkout?user_id=1", UNTRACED),
                ("/v1/services/checkout?user_id=1", f"00-{'0' * 31}-{PARENT}-01"),
                ("/v1/services/checkout?user_id=1", ""),
            ):
                answer = await client.get(path, headers={"traceparent": parent} if parent else {})
                statuses.append(answer.status_code)
            definitions.online_store.drop("spend")  # type: ignore[union-attr]
            answer = await client.get(
                "/v1/services/checkout?user_id=1", headers={"traceparent": TRACED}
            )
            return [*statuses, answer.status_code]

    assert asyncio.run(ask()) == [200, 404, 200, 200, 200, 503]
    tracing.end()
    told = [
        (
            span.name,
            span.trace_id.hex(),
            span.parent_span_id.hex(),
            {a.key: a.value.string_value or a.value.int_value for a in span.attributes},
            span.status.code,
        )
        for _, span in collector
    ]
    path = {"http.request.method": "GET", "url.scheme": "http"}
    served = {**path, "url.path": "/v1/services/checkout", "http.route": "/v1/services/checkout"}
    unknown = {**path, "url.path": "/v1/services/nothing", "http.route": "unknown"}
    assert told == [
        (
            f"GET {route['http.route']}",
            TRACE,
            PARENT,
            {**route, "http.response.status_code": s},
            code,
        )
        for route, s, code in ((served, 200, 0), (unknown, 404, 0), (served, 503, 2))
    ]
    assert {name for name, _ in collector} == {"mlforge"}


def test_without_an_endpoint_nothing_is_traced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT", raising=False)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", " ")
    assert tracing_of_environment() is None


@pytest.mark.parametrize(
    ("variable", "value", "name"),
    [
        ("OTEL_RESOURCE_ATTRIBUTES", "service.name=shop", "shop"),
        ("OTEL_SERVICE_NAME", "shop", "shop"),
        ("OTEL_SERVICE_NAME", "", "mlforge"),
    ],
)
def test_the_service_has_the_name_that_opentelemetry_is_told(
    variable: str, value: str, name: str, collector: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    tracing = tracing_of_environment()
    assert tracing is not None
    assert tracing._provider.resource.attributes["service.name"] == name
    tracing.end()
