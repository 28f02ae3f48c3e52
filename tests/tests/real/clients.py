"""Sends a known set of logs, spans and metrics with OpenTelemetry's Python SDK.

usage: clients.py grpc|http ENDPOINT TOKEN PROJECT
"""

import logging
import sys

from opentelemetry import trace
from opentelemetry.sdk._logs import LoggerProvider, LoggingHandler
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

protocol, endpoint, token, project = sys.argv[1:]
if protocol == "grpc":
    from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter
    from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

    target = {"endpoint": endpoint, "insecure": True, "headers": (("authorization", "Bearer " + token),)}
    exporters = OTLPLogExporter(**target), OTLPSpanExporter(**target), OTLPMetricExporter(**target)
else:
    from opentelemetry.exporter.otlp.proto.http import Compression
    from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    target = {"headers": {"authorization": "Bearer " + token}, "compression": Compression.Gzip}
    exporters = (
        OTLPLogExporter(endpoint=endpoint + "/v1/logs", **target),
        OTLPSpanExporter(endpoint=endpoint + "/v1/traces", **target),
        OTLPMetricExporter(endpoint=endpoint + "/v1/metrics", **target),
    )

resource = Resource.create({"service.name": "python-client", "project.id": project, "team": "blue"})
logs = LoggerProvider(resource=resource)
logs.add_log_record_processor(BatchLogRecordProcessor(exporters[0]))
spans = TracerProvider(resource=resource)
spans.add_span_processor(BatchSpanProcessor(exporters[1]))
metrics = MeterProvider(resource=resource, metric_readers=[PeriodicExportingMetricReader(exporters[2], export_interval_millis=60_000)])

logger = logging.getLogger("orders")
logger.setLevel(logging.DEBUG)
logger.addHandler(LoggingHandler(logger_provider=logs))
tracer = spans.get_tracer("clients")
counter = metrics.get_meter("clients").create_counter("orders.accepted", unit="{order}")
histogram = metrics.get_meter("clients").create_histogram("order.duration", unit="s")

with tracer.start_as_current_span("place order", attributes={"order.number": 7, "customer": "ada@example.com"}) as span:
    span.add_event("paid", {"amount": 12.5})
    trace_id = format(span.get_span_context().trace_id, "032x")
    span_id = format(span.get_span_context().span_id, "016x")
    for number in range(20):
        logger.warning("line %d of ada@example.com", number, extra={"number": number, "ratio": number / 4, "even": number % 2 == 0})
    logger.error("naïve ünïcode ✓", extra={"parts": ["a", "b"]})
counter.add(5, {"route": "/orders"})
histogram.record(0.25, {"route": "/orders"})

# The shutdown of metrics collects and sends them, once.
ok = logs.force_flush(10_000) and spans.force_flush(10_000)
logs.shutdown()
spans.shutdown()
metrics.shutdown()
print(trace_id, span_id)
sys.exit(0 if ok else 1)
