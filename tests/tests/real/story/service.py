"""A web shop with OpenTelemetry's own SDK: it takes orders over HTTP and tells of them by logs, spans and metrics.

usage: service.py PORT OTLP_GRPC_ENDPOINT TOKEN PROJECT MARKER

`POST /orders {"customer", "card"}` is one order. `POST /stop` flushes and ends it; then it prints, as JSON, what it
counted itself. Every line has a running number and the marker, a word that nobody has a reason to hide.
"""

import json
import logging
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer

from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk._logs import LoggerProvider, LoggingHandler
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Link, SpanKind

port, endpoint, token, project, marker = sys.argv[1:]

target = {"endpoint": endpoint, "insecure": True, "headers": (("authorization", "Bearer " + token),)}
resource = Resource.create({"service.name": "orders", "service.instance.id": "orders-1", "project.id": project})
logs = LoggerProvider(resource=resource)
logs.add_log_record_processor(BatchLogRecordProcessor(OTLPLogExporter(**target), schedule_delay_millis=200))
spans = TracerProvider(resource=resource)
spans.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(**target), schedule_delay_millis=200))
reader = PeriodicExportingMetricReader(OTLPMetricExporter(**target), export_interval_millis=1000)
metrics = MeterProvider(resource=resource, metric_readers=[reader])

logger = logging.getLogger("orders")
logger.setLevel(logging.INFO)
logger.propagate = False
logger.addHandler(LoggingHandler(logger_provider=logs))
tracer = spans.get_tracer("shop")
accepted = metrics.get_meter("shop").create_counter("orders.accepted", unit="{order}")
duration = metrics.get_meter("shop").create_histogram("order.duration", unit="s")

told = {"lines": 0, "traces": [], "counted": {"gift": 0, "plain": 0}, "recorded": []}
last = None


def say(level, text, **attributes):
    """One line: its number stands in the body and among the attributes."""
    number = told["lines"]
    told["lines"] += 1
    logger.log(level, "line %d %s %s", number, marker, text, extra={"number": number, **attributes})


def order(customer, card):
    global last
    number = len(told["recorded"])
    kind = "gift" if number % 3 == 0 else "plain"
    links = [Link(last, {"why": "the order before"})] if last else []
    attributes = {"http.route": "/orders", "customer.email": customer, "marker": marker}
    with tracer.start_as_current_span("POST /orders", kind=SpanKind.SERVER, attributes=attributes, links=links) as span:
        last = span.get_span_context()
        told["traces"].append(format(last.trace_id, "032x"))
        say(logging.INFO, f"order {number} of {customer}", customer=customer)
        with tracer.start_as_current_span("charge", kind=SpanKind.CLIENT, attributes={"payment.with": f"card {card}"}) as charge:
            charge.add_event("paid", {"amount": 12.5, "with": card})
            say(logging.INFO, f"charged {card}", payment={"card": card, "parts": [customer, "rest"]})
        with tracer.start_as_current_span("send receipt", kind=SpanKind.PRODUCER):
            say(logging.WARNING, f"receipt to <{customer}>, paid with {card}")
        # Within the span: so the points carry exemplars that name it.
        seconds = (number % 20) / 16
        accepted.add(1, {"kind": kind, "http.route": "/orders"})
        duration.record(seconds, {"http.route": "/orders"})
    told["counted"][kind] += 1
    told["recorded"].append(seconds)


class Shop(BaseHTTPRequestHandler):
    # A connection for each request: else the one that is served next may wait behind one that is idle.
    protocol_version = "HTTP/1.0"

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        if self.path == "/orders":
            request = json.loads(body)
            order(request["customer"], request["card"])
            status = 201
        elif self.path == "/stop":
            self.server.stopped = True
            self.close_connection = True
            status = 204
        else:
            status = 404
        self.send_response(status)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        """The server's own lines are no part of the story."""


# One request at a time: the numbers of the lines are in the order in which they were said.
shop = HTTPServer(("127.0.0.1", int(port)), Shop)
shop.stopped = False
shop.timeout = 600
print("ready", flush=True)
while not shop.stopped:
    shop.handle_request()

# The shutdown of metrics collects and sends them a last time.
flushed = logs.force_flush(20_000) and spans.force_flush(20_000)
logs.shutdown()
spans.shutdown()
metrics.shutdown()
print(json.dumps(told), flush=True)
sys.exit(0 if flushed else 1)
