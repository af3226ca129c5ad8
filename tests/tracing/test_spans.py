"""Spans and metrics that go to an OpenTelemetry collector (docs/guide/tracing.md)."""

import contextlib
import os
import signal
import ssl
import threading
import time

import pytest
from authority import Authority
from collector import SERVER, Collector, partial
from conftest import APPS
from gateways import fastcgi, scgi, uwsgi, variables
from http2_frames import Client
from http2_frames import plain as plain_socket
from waiting import wait_until
from websocket_frames import TEXT, frame
from websocket_frames import Client as WebSocket

CONTRACT = APPS / "contract.py"
KINDS = pytest.mark.parametrize(
    "kind", [(), ("--concurrency", "gevent"), ("--preload",)], ids=lambda kind: "".join(kind)
)
TRACE, CALLER = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SAMPLED, NOT_SAMPLED = f"00-{TRACE}-{CALLER}-01", f"00-{TRACE}-{CALLER}-00"
#: Names of the moments of a request.
QUEUE, LOCK, APPLICATION, FIRST_BYTE = (
    f"anygate.{name}" for name in ("queue", "interpreter_lock", "application", "first_byte")
)


@pytest.fixture
def collector():
    collector = Collector()
    yield collector
    collector.close()


@pytest.fixture
def traced(serve, collector):
    """Start anygate with the collector."""

    def start(app, *arguments, **variables):
        return serve(app, "--otlp", collector.url, *arguments, environment=variables)

    return start


APP = """
import os

def app(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/fails":
        raise RuntimeError("this is what the test wants")
    if path.startswith("/users/"):
        environ["anygate.route"] = "/users/<id>"
    if path == "/unavailable":
        start_response("503 Service Unavailable", [("Content-Length", "0")])
        return []
    body = environ.get("HTTP_TRACEPARENT", "").encode()
    start_response("200 OK", [("Content-Length", str(len(body) + (path == "/short")))])
    if path == "/short":
        return breaks(body)
    return [body]

def breaks(body):
    yield body
    raise RuntimeError("this is what the test wants")
"""


@pytest.fixture
def app(tmp_path):
    (tmp_path / "app.py").write_text(APP)
    return "app:app"


@KINDS
def test_a_request_is_a_span_that_the_application_knows(traced, collector, app, kind):
    served = traced(app, "--trusted-proxies", "127.0.0.1", *kind, OTEL_SERVICE_NAME="shop")
    fields = [("traceparent", SAMPLED), ("tracestate", "a=b"), ("User-Agent", "me"), ("X-Forwarded-For", "192.0.2.7")]
    told = served.get("/users/7?token=secret", fields).body.decode()
    [sent] = collector.spans(1)
    assert told == f"00-{TRACE}-{sent.span.span_id.hex()}-01"
    assert sent.span.trace_id.hex() == TRACE
    assert sent.span.parent_span_id.hex() == CALLER
    assert (sent.span.trace_state, sent.span.name, sent.span.kind) == ("a=b", "GET /users/<id>", SERVER)
    assert sent.attributes == {
        "http.request.method": "GET",
        "http.route": "/users/<id>",
        "url.path": "/users/7",
        "url.scheme": "http",
        "http.response.status_code": 200,
        "http.response.body.size": len(told),
        "network.protocol.version": "1.1",
        "server.address": "test",
        "client.address": "192.0.2.7",
        "user_agent.original": "me",
    }
    assert sent.span.status.code == 0
    assert sent.resource["service.name"] == "shop"
    events = [event.name for event in sent.span.events]
    assert events == ([QUEUE, FIRST_BYTE] if "gevent" in kind else [QUEUE, LOCK, APPLICATION, FIRST_BYTE])
    times = [event.time_unix_nano for event in sent.span.events]
    times = [sent.span.start_time_unix_nano, *times, sent.span.end_time_unix_nano]
    assert times == sorted(times)
    assert served.terminate() == 0


@KINDS
def test_faults_of_the_application_are_errors(traced, collector, app, kind):
    served = traced(app, *kind)
    for path, status, error in [
        ("/", 200, None),
        ("/fails", 500, "500"),
        ("/unavailable", 503, "503"),
        ("/short", 200, "broken_off"),
    ]:
        before = len(collector.sent)
        with served.connect() as connection:
            connection.send(f"GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
            with contextlib.suppress(ConnectionResetError):
                while connection.more():
                    pass
        sent = collector.spans(before + 1)[before]
        assert sent.attributes["http.response.status_code"] == status
        assert sent.attributes.get("error.type") == error, path
        assert (sent.span.status.code == 2) == (error is not None)


def test_all_that_is_responded_to_is_a_span(traced, collector, tmp_path):
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "a.txt").write_text("a file")
    options = ("--static", "/files=files", "--deny", "/closed 127.0.0.1", "--health-path", "/health")
    served = traced(CONTRACT, *options)
    for path, status in [("/files/a.txt", 200), ("/closed", 403), ("/health", 200), ("/files/none", 404)]:
        assert served.get(path).status == status
    with served.connect() as connection:
        connection.send(b"GET / HTTP/1.1\r\nBad Field: x\r\n\r\n")
        assert connection.response().status == 400
    found = {
        one.attributes.get("url.path", ""): one.attributes["http.response.status_code"] for one in collector.spans(5)
    }
    assert found == {"/files/a.txt": 200, "/closed": 403, "/health": 200, "/files/none": 404, "": 400}
    [bad] = [one for one in collector.sent if one.attributes["http.response.status_code"] == 400]
    assert bad.span.name == "HTTP"


CACHED = """
def app(environ, start_response):
    start_response("200 OK", [("Content-Length", "2"), ("Cache-Control", "max-age=1000")])
    return [b"ok"]
"""


def test_stored_responses_are_spans_too(traced, collector, tmp_path):
    (tmp_path / "app.py").write_text(CACHED)
    served = traced("app:app", "--cache", "/")
    assert [served.get("/").status for _ in range(3)] == [200] * 3
    spans = collector.spans(3)
    called = [any(event.name == APPLICATION for event in one.span.events) for one in spans]
    assert sorted(called) == [False, False, True]


@pytest.mark.parametrize(("protocol", "pack"), [("scgi", scgi), ("uwsgi", uwsgi), ("fastcgi", fastcgi)])
def test_requests_of_front_servers_are_spans(traced, collector, protocol, pack):
    served = traced(CONTRACT, "--bind", f"{protocol}://127.0.0.1:0")
    sent_fields = (("HTTP_HOST", "test:81"), ("HTTP_TRACEPARENT", SAMPLED), ("HTTP_USER_AGENT", "me"))
    with served.connect() as connection:
        connection.send(pack(variables(target="/echo?a=secret", fields=sent_fields)))
        while connection.more():
            pass
    [sent] = collector.spans(1)
    assert sent.span.trace_id.hex() == TRACE
    assert sent.span.span_id.hex().encode() in connection.buffer
    names = ("url.path", "client.address", "server.address", "server.port", "user_agent.original")
    assert [sent.attributes[name] for name in names] == ["/echo", "192.0.2.7", "test", 81, "me"]


def test_streams_of_http2_are_spans_side_by_side(traced, collector, gate):
    served = traced(CONTRACT, "--threads", "3")
    with Client(plain_socket(served.address)) as client:
        streams = [client.begin(path=f"/gate?{gate.name}", fields=[("traceparent", SAMPLED)]) for _ in range(2)]
        gate.wait_for(2)
        gate.open()
        for stream in streams:
            assert client.wait(stream).status == 200
    spans = collector.spans(2)
    assert len({one.span.span_id for one in spans}) == 2
    for one in spans:
        assert one.attributes["network.protocol.version"] == "2"
        assert one.span.parent_span_id.hex() == CALLER


@pytest.mark.parametrize("concurrency", ["threads", "gevent"])
def test_a_websocket_is_a_span_from_its_request_to_its_end(traced, collector, concurrency):
    served = traced(APPS / "websocket.py", "--concurrency", concurrency)
    with WebSocket(served.address).open("/echo") as client:
        client.send(frame(TEXT, b"hello"))
        assert client.frame()[-1] == b"hello"
        assert not collector.sent
    [sent] = collector.spans(1)
    assert sent.attributes["http.response.status_code"] == 101
    assert sent.attributes["url.path"] == "/echo"


class TestSampling:
    @pytest.mark.parametrize(
        ("sampler", "argument", "is_trusted", "given", "is_sampled"),
        [
            (None, None, True, None, True),
            (None, None, True, NOT_SAMPLED, False),
            # Who is not trusted cannot hide.
            (None, None, False, NOT_SAMPLED, True),
            ("parentbased_always_off", None, True, SAMPLED, True),
            ("parentbased_always_off", None, False, SAMPLED, False),
            ("always_on", None, True, NOT_SAMPLED, True),
            ("always_off", None, True, SAMPLED, False),
            ("parentbased_traceidratio", "0", True, None, False),
            ("traceidratio", "1", True, NOT_SAMPLED, True),
        ],
    )
    def test_the_application_is_told_what_was_decided(
        self, traced, collector, app, sampler, argument, is_trusted, given, is_sampled
    ):
        names = {"OTEL_TRACES_SAMPLER": sampler, "OTEL_TRACES_SAMPLER_ARG": argument}
        trusted = ("--trusted-proxies", "127.0.0.1") if is_trusted else ()
        served = traced(app, *trusted, **{name: value for name, value in names.items() if value})
        told = served.get("/", [("traceparent", given)] if given else []).body.decode()
        assert told.endswith("-01" if is_sampled else "-00")
        if given:
            assert told.split("-")[1] == TRACE
        collector.spans(is_sampled)
        assert served.terminate() == 0
        assert len(collector.sent) == is_sampled


def test_variables_alone_turn_nothing_on(serve, collector, app):
    served = serve(app, environment={"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_TRACES_EXPORTER": "otlp"})
    assert served.get("/").body == b""
    assert served.terminate() == 0
    assert not collector.requests


def test_variables_name_the_collector_and_what_it_wants(serve, collector, app):
    variables = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        "OTEL_EXPORTER_OTLP_HEADERS": "api-key=a%20b",
        "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip",
        "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=test",
        "OTEL_METRICS_EXPORTER": "none",
    }
    served = serve(app, "--otlp", "auto", environment=variables)
    served.get("/")
    [sent] = collector.spans(1)
    assert sent.resource["deployment.environment.name"] == "test"
    [(path, fields, _)] = collector.requests
    assert (path, fields["api-key"], fields["Content-Encoding"]) == ("/v1/traces", "a b", "gzip")
    assert served.terminate() == 0
    assert len(collector.requests) == 1


def test_a_disabled_sdk_is_off(traced, collector, app):
    served = traced(app, OTEL_SDK_DISABLED="true")
    assert served.get("/").body == b""
    assert served.terminate() == 0
    assert not collector.requests


def test_a_collector_is_reached_over_tls(serve, tmp_path, app):
    authority = Authority(tmp_path / "ca")
    certificate, key = authority.issue("127.0.0.1")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    collector = Collector(context)
    try:
        variables = {"OTEL_EXPORTER_OTLP_CERTIFICATE": str(authority.path)}
        served = serve(app, "--otlp", collector.url, environment=variables)
        served.get("/")
        collector.spans(1)
    finally:
        collector.close()


def counted(served, name):
    """A metric of a server whose admin address is admin.sock."""
    with served.connect(str(served.errors.parent / "admin.sock")) as connection:
        text = connection.ask("GET", "/metrics").body.decode()
    return int(next(line for line in text.splitlines() if line.startswith(f"anygate_{name} ")).split()[1])


class TestTroubles:
    def test_a_collector_that_is_gone_hurts_nobody_and_gets_the_spans_later(self, serve, app):
        collector = Collector(listens=False)
        served = serve(app, "--otlp", collector.url)
        assert [served.get("/").status for _ in range(20)] == [200] * 20
        served.wait_for_log("cannot send spans")
        collector.listen()
        try:
            assert len(collector.spans(20)) == 20
            served.wait_for_log(f"spans are sent to {collector.url}/v1/traces again")
        finally:
            collector.close()

    def test_a_collector_that_hangs_costs_spans_and_no_request(self, serve, app):
        # Whoever connects waits for a response that never comes.
        collector = Collector(listens=False)
        collector.server_activate()
        variables = {"OTEL_EXPORTER_OTLP_TIMEOUT": "3600000", "OTEL_METRICS_EXPORTER": "none"}
        served = serve(app, "--otlp", collector.url, "--admin", "unix:admin.sock", environment=variables)
        # Of 12 MB of spans 8 have room.
        fields = (
            f"Host: {'h' * 128}\r\nUser-Agent: {'u' * 192}\r\ntraceparent: {SAMPLED}\r\ntracestate: a={'s' * 500}\r\n"
        )
        request = f"GET /{'p' * 255} HTTP/1.1\r\n{fields}\r\n".encode()
        with served.connect() as connection:
            for _ in range(100):
                connection.send(request * 100)
                assert [connection.response().status for _ in range(100)] == [200] * 100
        served.wait_until(lambda: counted(served, "spans_dropped_total") > 0, "dropped spans")
        assert counted(served, "spans_sent_total") == 0
        assert counted(served, "spans_dropped_total") < 10_000
        assert served.get("/").status == 200
        assert served.terminate() == 0
        assert "the last spans and metrics were not sent" in served.log()
        collector.server_close()

    def test_spans_that_a_busy_collector_put_off_are_sent_again_once(self, traced, collector, app):
        collector.responses += [(503, {"Retry-After": "1"}, b""), (429, {}, b"")]
        served = traced(app, OTEL_METRICS_EXPORTER="none")
        served.get("/")
        collector.spans(1)
        assert [status for _, _, status in collector.requests] == [503, 429, 200]
        assert served.terminate() == 0
        assert len(collector.sent) == 1

    def test_spans_that_a_collector_does_not_want_are_counted(self, traced, collector, app):
        collector.responses += [(400, {}, b""), (200, {}, partial(1, "too old"))]
        variables = {"OTEL_METRICS_EXPORTER": "none"}
        served = traced(app, "--admin", "unix:admin.sock", **variables)
        for dropped in (1, 2):
            served.get("/")
            served.wait_until(
                lambda dropped=dropped: counted(served, "spans_dropped_total") == dropped, "a dropped span"
            )
        served.wait_for_log("does not take spans")
        served.wait_for_log("too old")
        served.get("/")
        served.wait_until(lambda: counted(served, "spans_sent_total") == 1, "a span that was sent")

    def test_a_worker_that_is_killed_holds_nothing(self, traced, collector, app):
        served = traced(CONTRACT, "--workers", "2", "--deny", "/sent 127.0.0.1")
        first = int(served.get("/pid").body)
        os.kill(first, signal.SIGKILL)
        served.wait_until(lambda: first not in served.workers(), "its end")
        for _ in range(10):
            assert served.get("/sent").status == 403

        def are_sent():
            return sum(one.attributes.get("url.path") == "/sent" for one in list(collector.sent)) == 10

        wait_until(are_sent, "all spans")

    def test_a_collector_that_does_not_respond_delays_no_end_for_long(self, serve, app):
        silent = threading.Event()

        class Silent(Collector):
            def take(self, path, body):
                silent.wait()

        collector = Silent()
        try:
            served = serve(app, "--otlp", collector.url)
            served.get("/")
            wait_until(lambda: collector.requests, "a transmission")
            assert served.terminate() == 0
            assert "the collector took too long" in served.log()
        finally:
            silent.set()
            collector.close()


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR2], ids=["reload", "upgrade"])
def test_spans_of_old_workers_are_sent_when_new_ones_serve(traced, collector, gate, number):
    served = traced(CONTRACT)
    before = int(served.get("/pid").body)
    with served.connect() as connection:
        connection.send(f"GET /gate?{gate.name} HTTP/1.1\r\nHost: old\r\n\r\n")
        gate.wait_for()
        served.send_signal(number)
        served.wait_until(lambda: int(served.get("/pid").body) != before, "new workers")
        gate.open()
        assert connection.response().status == 200
    served.get("/echo")
    wait_until(lambda: {"/gate", "/echo"} <= {one.attributes["url.path"] for one in list(collector.sent)}, "both spans")


FLASK = """
from flask import Flask, request
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.flask import FlaskInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter()))
trace.set_tracer_provider(provider)
app = Flask(__name__)
FlaskInstrumentor().instrument_app(app)

@app.before_request
def name_route():
    request.environ["anygate.route"] = request.url_rule and request.url_rule.rule

@app.get("/users/<name>")
def user(name):
    with trace.get_tracer("site").start_as_current_span("look up"):
        return name
"""


@pytest.mark.parametrize("concurrency", ["threads", "gevent"])
def test_spans_of_the_application_belong_to_those_of_the_server(serve, collector, tmp_path, concurrency):
    pytest.importorskip("opentelemetry.instrumentation.flask", reason="no OpenTelemetry for Flask on this Python")
    (tmp_path / "app.py").write_text(FLASK)
    variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_SERVICE_NAME": "shop"}
    served = serve(
        "app:app",
        "--otlp",
        "auto",
        "--concurrency",
        concurrency,
        "--trusted-proxies",
        "127.0.0.1",
        environment=variables,
    )
    assert served.get("/users/ann", [("traceparent", SAMPLED)]).body == b"ann"
    assert served.get("/none").status == 404
    assert served.get("/users/bob", [("traceparent", NOT_SAMPLED)]).body == b"bob"
    flask = "opentelemetry.instrumentation.flask"
    ours, theirs, [inner] = collector.spans(2), collector.spans(2, flask), collector.spans(1, "site")
    known, unknown = (next(one for one in ours if bool(one.span.parent_span_id) == has) for has in (True, False))
    assert known.span.parent_span_id.hex() == CALLER
    assert known.attributes["http.route"] == "/users/<name>"
    parents = {one.span.parent_span_id: one for one in theirs}
    assert set(parents) == {known.span.span_id, unknown.span.span_id}
    of_known = parents[known.span.span_id].span
    assert inner.span.parent_span_id == of_known.span_id
    assert {one.span.trace_id.hex() for one in (known, parents[known.span.span_id], inner)} == {TRACE}
    assert known.span.start_time_unix_nano <= of_known.start_time_unix_nano
    assert {one.resource["service.name"] for one in collector.sent} == {"shop"}
    assert served.terminate() == 0
    assert len(collector.sent) == 5


def test_metrics_are_sent_under_the_names_that_prometheus_reads(traced, collector, app):
    served = traced(app, OTEL_METRIC_EXPORT_INTERVAL="50", OTEL_TRACES_EXPORTER="none")
    for _ in range(3):
        assert served.get("/").body == b""

    def counted():
        point = collector.value("anygate_requests_total", method="GET", status="2xx")
        return point and point.as_int == 3

    wait_until(counted, "the requests")
    assert collector.value("anygate_request_duration_seconds").count == 3
    assert collector.value("anygate_workers").as_int == 1
    assert served.terminate() == 0
    assert not collector.sent


def test_what_a_proxy_waited_is_told_if_it_is_trusted(traced, collector, app):
    served = traced(app, "--trusted-proxies", "127.0.0.1", "--admin", "unix:admin.sock")
    served.get("/nginx", [("X-Request-Start", f"t={time.time() - 5:.3f}")])
    served.get("/later", [("X-Request-Start", f"t={time.time() + 1000:.3f}")])
    served.get("/none")
    spans = {one.attributes["url.path"]: one.attributes for one in collector.spans(3)}
    assert spans["/nginx"]["anygate.proxy_queue.duration"] >= 5
    assert spans["/later"]["anygate.proxy_queue.duration"] == 0
    assert "anygate.proxy_queue.duration" not in spans["/none"]
    with served.connect(str(served.errors.parent / "admin.sock")) as connection:
        text = connection.ask("GET", "/metrics").body.decode()
    assert "anygate_request_proxy_queue_seconds_count 2\n" in text
