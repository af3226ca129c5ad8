"""Packages for monitoring, used in hooks as their documents say."""

import gzip
import http.server
import os
import signal
import threading

import brotli
import pytest
from waiting import wait_until

APP = """
import os

def app(environ, start_response):
    if environ["PATH_INFO"] == "/fail":
        raise ValueError("a failure")
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(os.getpid()).encode()]
"""

KINDS = pytest.mark.parametrize("kind", [[], ["--preload"], ["--concurrency", "gevent"]])


@pytest.fixture
def site(tmp_path):
    (tmp_path / "app.py").write_text(APP)
    return tmp_path


class Collector(http.server.ThreadingHTTPServer):
    """A server that takes what is sent to it."""

    def __init__(self):
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                decode = {"br": brotli.decompress, "gzip": gzip.decompress}.get(self.headers["Content-Encoding"], bytes)
                self.server.taken.append((self.path, decode(body)))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        super().__init__(("127.0.0.1", 0), Handler)
        self.taken = []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self):
        return f"127.0.0.1:{self.server_address[1]}"


@pytest.fixture
def collector():
    server = Collector()
    yield server
    server.shutdown()
    server.server_close()


PROMETHEUS = """
import os
wsgi_app = "app:app"
workers = 2
raw_env = ["PROMETHEUS_MULTIPROC_DIR=" + os.path.abspath("metrics")]

def when_ready(server):
    from prometheus_client import CollectorRegistry, multiprocess, start_http_server
    registry = CollectorRegistry()
    multiprocess.MultiProcessCollector(registry)
    port = start_http_server(0, "127.0.0.1", registry)[0].server_port
    with open("port", "w") as file:
        file.write(str(port))

def child_exit(server, worker):
    from prometheus_client import multiprocess
    multiprocess.mark_process_dead(worker.pid)
"""

PROMETHEUS_APP = """
import os
from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest, multiprocess

REQUESTS = Counter("requests", "All requests")
ALIVE = Gauge("alive", "Workers", multiprocess_mode="livesum")
ALIVE.inc()

def app(environ, start_response):
    REQUESTS.inc()
    if environ["PATH_INFO"] == "/metrics":
        registry = CollectorRegistry()
        multiprocess.MultiProcessCollector(registry)
        body = generate_latest(registry)
    else:
        body = str(os.getpid()).encode()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [body]
"""


@pytest.mark.parametrize("kind", [[], ["--concurrency", "gevent"]])
def test_prometheus_counts_over_all_workers_and_forgets_dead_ones(serve, site, kind):
    pytest.importorskip("prometheus_client")
    (site / "metrics").mkdir()
    (site / "app.py").write_text(PROMETHEUS_APP)
    (site / "gunicorn.conf.py").write_text(PROMETHEUS)
    served = serve("--config", "gunicorn.conf.py", *kind)

    def metric(name):
        lines = served.get("/metrics").text.splitlines()
        return float(next(line.rpartition(" ")[2] for line in lines if line.startswith(name + " ")))

    served.wait_until(lambda: metric("alive") == 2, "both workers")
    before = metric("requests_total")
    killed = served.workers()[0]
    os.kill(killed, signal.SIGKILL)
    served.wait_until(lambda: killed not in served.workers() and len(served.workers()) == 2, "another worker")
    served.wait_until(lambda: metric("alive") == 2, "the dead one to be forgotten")
    # What it has counted stays.
    assert metric("requests_total") > before
    assert not list((site / "metrics").glob(f"gauge_livesum_{killed}.db"))


def test_a_server_of_metrics_that_a_hook_has_started_serves_on_after_a_reload(serve, site):
    pytest.importorskip("prometheus_client")
    (site / "metrics").mkdir()
    (site / "app.py").write_text(PROMETHEUS_APP)
    (site / "gunicorn.conf.py").write_text(PROMETHEUS)
    served = serve("--config", "gunicorn.conf.py")

    def has_port():
        return (site / "port").exists() and (site / "port").read_text()

    def shown():
        return served.connect(("127.0.0.1", int((site / "port").read_text()))).ask(target="/metrics").text

    served.wait_until(has_port, "the server of the hook")
    assert "requests_total" in shown()
    (site / "port").unlink()
    served.send_signal(signal.SIGHUP)
    served.wait_until(has_port, "the server of the new generation")
    served.wait_until(lambda: "requests_total" in shown(), "its metrics")


OPENTELEMETRY = """
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

def post_fork(server, worker):
    server.log.info("Worker spawned (pid: %s)", worker.pid)
    resource = Resource.create(attributes={"service.name": "shop", "service.instance.id": f"worker {worker.pid}"})
    trace.set_tracer_provider(TracerProvider(resource=resource))
    span_processor = BatchSpanProcessor(OTLPSpanExporter(endpoint="http://ADDRESS/v1/traces", timeout=300))
    trace.get_tracer_provider().add_span_processor(span_processor)

def worker_exit(server, worker):
    trace.get_tracer_provider().shutdown()
"""


@KINDS
def test_opentelemetry_exports_the_spans_of_each_worker(serve, site, collector, kind):
    pytest.importorskip("opentelemetry.sdk.trace")
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http")
    application = APP + (
        "from opentelemetry import trace\n"
        "inner = app\n"
        "def app(environ, start_response):\n"
        "    with trace.get_tracer('app').start_as_current_span('a-request'):\n"
        "        return inner(environ, start_response)\n"
    )
    (site / "app.py").write_text(application)
    (site / "conf.py").write_text(OPENTELEMETRY.replace("ADDRESS", collector.url))
    served = serve("app:app", "--hooks", "conf.py", "--workers", "2", *kind)
    workers = [str(pid).encode() for pid in served.workers()]
    responded = {served.get().body for _ in range(20)}
    for pid in workers:
        served.wait_for_log(f"Worker spawned (pid: {pid.decode()})")
    assert served.terminate() == 0
    exported = [body for path, body in collector.taken if path == "/v1/traces"]
    # Each worker has a processor with a thread of its own, which a fork does not copy.
    for pid in responded:
        assert any(b"worker " + pid in body and b"a-request" in body for body in exported)


SENTRY = """
import sentry_sdk

def post_fork(server, worker):
    sentry_sdk.init(dsn="http://key@ADDRESS/1", integrations=[], default_integrations=False)

def worker_exit(server, worker):
    sentry_sdk.flush(300)

def post_request(worker, req, environ, resp):
    if resp.status is None:
        sentry_sdk.capture_message(f"{req.method} {req.path} failed in {worker.pid}")
"""


@KINDS
def test_sentry_takes_what_hooks_report(serve, site, collector, kind):
    pytest.importorskip("sentry_sdk")
    (site / "conf.py").write_text(SENTRY.replace("ADDRESS", collector.url))
    served = serve("app:app", "--hooks", "conf.py", *kind)
    assert served.get("/fail").status == 500
    assert served.terminate() == 0
    assert any(b"GET /fail failed in" in body for _, body in collector.taken)


NEW_RELIC = """
def post_fork(server, worker):
    import newrelic.agent
    newrelic.agent.initialize("newrelic.ini")
    worker.log.info("new relic: %s", newrelic.agent.global_settings().app_name)

def post_worker_init(worker):
    import newrelic.agent
    worker.log.info("wrapped: %s", newrelic.agent.WSGIApplicationWrapper(worker.wsgi) is not worker.wsgi)
"""


def test_new_relic_is_initialised_in_each_worker(serve, site):
    pytest.importorskip("newrelic")
    (site / "newrelic.ini").write_text("[newrelic]\napp_name = the site\ndeveloper_mode = true\nlicense_key = none\n")
    (site / "conf.py").write_text(NEW_RELIC)
    served = serve("app:app", "--hooks", "conf.py", "--workers", "2")
    served.wait_for_log("new relic: the site", 2)
    served.wait_for_log("wrapped: True", 2)
    assert served.get().status == 200


def test_datadog_traces_in_each_worker(serve, site, collector):
    pytest.importorskip("ddtrace")
    (site / "conf.py").write_text("def post_fork(server, worker):\n    import ddtrace.auto\n")
    (site / "app.py").write_text(
        APP + "from ddtrace.contrib.wsgi import DDWSGIMiddleware\napp = DDWSGIMiddleware(app)\n"
    )
    environment = {
        "DD_TRACE_AGENT_URL": f"http://{collector.url}",
        "DD_INSTRUMENTATION_TELEMETRY_ENABLED": "false",
        "DD_REMOTE_CONFIGURATION_ENABLED": "false",
    }
    served = serve("app:app", "--hooks", "conf.py", environment=environment)
    assert served.get().status == 200
    assert served.terminate() == 0
    wait_until(lambda: any("traces" in path for path, _ in collector.taken), "traces", served.log)
