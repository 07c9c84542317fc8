"""What OpenTelemetry's SDK, set up as a program would, has recorded of searches."""

from __future__ import annotations

from collections import Counter
from typing import Any

from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter


class Recorded:
    """Sets the providers of this process; that can be done once only."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self._reader = InMemoryMetricReader()
        self._tracing = TracerProvider()
        self._tracing.add_span_processor(SimpleSpanProcessor(self._exporter))
        self._metering = MeterProvider([self._reader])
        trace.set_tracer_provider(self._tracing)
        metrics.set_meter_provider(self._metering)

    def forget_spans(self) -> None:
        self._exporter.clear()

    def spans(self, name: str | None = None) -> list[ReadableSpan]:
        """The spans that have ended, of that name."""
        return [span for span in self._exporter.get_finished_spans() if name in (None, span.name)]

    def search(self) -> ReadableSpan:
        """The only search."""
        (span,) = self.spans("dbnorm.search")
        return span

    def points(self, metric: str, collection: str) -> list[Any]:
        """What has been measured of searches of a collection."""
        data = self._reader.get_metrics_data()
        return [
            point
            for resource in (data.resource_metrics if data else ())
            for scope in resource.scope_metrics
            for one in scope.metrics
            if one.name == metric
            for point in one.data.data_points
            if point.attributes["db.collection.name"] == collection
        ]

    def outcomes(self, collection: str) -> Counter[str]:
        """How many queries of a collection came to which outcome."""
        counted: Counter[str] = Counter()
        for point in self.points("dbnorm.queries", collection):
            counted[point.attributes["dbnorm.outcome"]] += point.value
        return counted

    def close(self) -> None:
        self._tracing.shutdown()
        self._metering.shutdown()


def parent(span: ReadableSpan) -> int | None:
    """The id of the span that it is within."""
    return span.parent and span.parent.span_id


def own(span: ReadableSpan) -> int:
    """The id of a span."""
    assert span.context is not None
    return span.context.span_id
