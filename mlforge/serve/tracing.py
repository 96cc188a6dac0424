"""Traces: a span for each request whose caller traces it, as its `traceparent` says, and for no other. Needs the extra `otel`."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mlforge.core.logs import get_logger
from mlforge.serve.http import Scope, header

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
"""Where spans go; without either there are none. Further variables are those of OpenTelemetry's exporter."""
_SAMPLED = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f][13579bdf](-.*)?")
_log = get_logger(__name__)


class Span:
    """A request's span, or none: what becomes of the request is told to either."""

    def __init__(self, span: Any = None, method: str = "") -> None:
        self._span, self._method = span, method

    def end(self, route: str, status: int) -> None:
        """Say how the request ended. route: a path's pattern. status: of HTTP, 499 where the caller has gone."""
        span = self._span
        if span is None:
            return
        from opentelemetry.trace import StatusCode

        span.update_name(f"{self._method} {route}")
        span.set_attribute("http.route", route)
        span.set_attribute("http.response.status_code", status)
        if status >= 500:
            span.set_status(StatusCode.ERROR)


_NONE = Span()


class Tracing:
    """The traces of a server. provider: OpenTelemetry's, which spans go to."""

    def __init__(self, provider: Any) -> None:
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._provider, self._propagator = provider, TraceContextTextMapPropagator()
        self._tracer = provider.get_tracer("mlforge.serve")

    @contextmanager
    def span(self, scope: Scope) -> Iterator[Span]:
        """The span of a request, the current one until the block ends; decided before a span is made."""
        parent = header(scope, b"traceparent")
        if not _SAMPLED.fullmatch(parent):
            yield _NONE
            return
        from opentelemetry.trace import SpanKind

        told = {"traceparent": parent, "tracestate": header(scope, b"tracestate")}
        attributes = {
            "http.request.method": scope["method"],
            "url.path": scope["path"],
            "url.scheme": scope.get("scheme", "http"),
        }
        with self._tracer.start_as_current_span(
            str(scope["method"]),
            self._propagator.extract(told),
            SpanKind.SERVER,
            attributes,
        ) as span:
            yield Span(span, str(scope["method"]))

    def end(self) -> None:
        """Send what has not been sent yet."""
        self._provider.shutdown()


def tracing_of_environment() -> Tracing | None:
    """The traces that the environment asks for, as OpenTelemetry names what it says; None where it names no endpoint."""
    if not any(os.environ.get(name, "").strip() for name in _ENDPOINTS):
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import SERVICE_NAME, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ModuleNotFoundError:
        _log.warning("requests are not traced: that needs the extra 'otel'", variable=_ENDPOINTS[1])
        return None
    resource = Resource.create()
    if str(resource.attributes[SERVICE_NAME]).startswith("unknown_service"):
        resource = resource.merge(Resource({SERVICE_NAME: "mlforge"}))
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return Tracing(provider)
