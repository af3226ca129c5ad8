"""An OpenTelemetry collector that keeps what is sent to it, as the packages of OpenTelemetry decode it."""

from __future__ import annotations

import gzip
import http.server
import threading
from collections import namedtuple

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from waiting import wait_until

#: A span, what it says, and what is said of its server.
Sent = namedtuple("Sent", "span attributes resource scope")
SERVER = 2


def plain(attributes):
    """Attributes as a dictionary."""
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in attributes}


def partial(rejected, message):
    """A response that tells of spans that were not taken."""
    success = ExportTracePartialSuccess(rejected_spans=rejected, error_message=message)
    return ExportTraceServiceResponse(partial_success=success).SerializeToString()


class Collector(http.server.ThreadingHTTPServer):
    """Takes what is sent to it. ``responses``: status, fields and body of those that come first."""

    daemon_threads = True

    def __init__(self, context=None, listens=True):
        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers["Content-Encoding"] == "gzip":
                    body = gzip.decompress(body)
                status, fields, response = self.server.responses.pop(0) if self.server.responses else (200, {}, b"")
                self.server.requests.append((self.path, self.headers, status))
                if status == 200:
                    self.server.take(self.path, body)
                self.send_response(status)
                for name, value in {**fields, "Content-Length": str(len(response))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(response)

            def log_message(self, *_):
                pass

        super().__init__(("127.0.0.1", 0), Handler, bind_and_activate=False)
        self.server_bind()
        if context:
            self.socket = context.wrap_socket(self.socket, server_side=True)
        self.is_secure = bool(context)
        self.responses, self.requests, self.sent, self.metrics = [], [], [], []
        if listens:
            self.listen()

    def listen(self):
        """Take what is sent from now on: until then clients are refused."""
        self.server_activate()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self):
        return f"http{'s' if self.is_secure else ''}://127.0.0.1:{self.server_address[1]}"

    def take(self, path, body):
        if path == "/v1/metrics":
            self.metrics.append(ExportMetricsServiceRequest.FromString(body))
        else:
            assert path == "/v1/traces"
            for of_resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                resource = plain(of_resource.resource.attributes)
                for of_scope in of_resource.scope_spans:
                    for span in of_scope.spans:
                        self.sent.append(Sent(span, plain(span.attributes), resource, of_scope.scope.name))

    def spans(self, count, scope="anygate"):
        """The spans of a scope, when there are so many."""

        def found():
            sent = [one for one in list(self.sent) if one.scope == scope]
            return [True, sent] if len(sent) >= count else None

        return wait_until(found, f"{count} spans", lambda: str([one.attributes for one in self.sent]))[1]

    def value(self, name, **labels):
        """The last value of a metric."""
        for message in reversed(list(self.metrics)):
            for metric in message.resource_metrics[0].scope_metrics[0].metrics:
                points = getattr(metric, metric.WhichOneof("data")).data_points
                for point in points if metric.name == name else ():
                    if plain(point.attributes) == labels:
                        return point
        return None

    def close(self):
        self.shutdown()
        self.server_close()
