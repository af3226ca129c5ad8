"""What is recorded of requests under a server of another package: access log, metrics, slow requests, tracebacks."""

import contextlib
import json
import re
import shutil
import socket
import sys
from pathlib import Path

import anygate
import pytest
from conftest import APPS
from other_servers import free_port, process, started, wait_for
from waiting import PATIENCE, Gate
from wire import Connection

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
APP = """
import os
import wsgiref.util
import anygate
import gates

def app(environ, start_response):
    path, query = environ["PATH_INFO"], environ["QUERY_STRING"]
    if path != "/":
        environ["anygate.route"] = "/<page>"
    if path == "/fails":
        raise ValueError("<this> fails")
    if path == "/waits":
        gates.wait_at(query)
    start_response("201 Created", [("Content-Type", "text/plain"), ("X-Place", "here")])
    if path == "/file":
        return environ.get("wsgi.file_wrapper", wsgiref.util.FileWrapper)(open("app.py", "rb"))
    if path == "/blocks":
        return (block for block in [b"abc", b"", b"de"])
    return [b"hello, ", str(os.getpid()).encode()]

application = anygate.wsgihandler(
    app,
    access_log="access.log",
    access_log_format="%(m)s %(U)s %(s)s %(B)s %({x-place}o)s %({x-name}i)s",
    metrics_path="/metrics",
    route_metrics=["app", "/"],
    slow_request="50ms",
    debug=True,
)
"""
GUNICORN = [BIN / "gunicorn", "--preload", "--no-control-socket", "--bind", "127.0.0.1:{port}", "app:application"]
UWSGI = [
    *(BIN / "uwsgi", "--http-socket=127.0.0.1:{port}", f"--virtualenv={sys.prefix}", "--module=app:application"),
    *("--master", "--die-on-term", "--need-app", "--enable-threads", "--processes=2", "--threads=2"),
]
GEVENT = """
from gevent import monkey
monkey.patch_all()
from gevent import pywsgi
import app
pywsgi.WSGIServer(("127.0.0.1", {port}), app.application, log=None).serve_forever()
"""
WAITRESS = [BIN / "waitress-serve", "--listen=127.0.0.1:{port}"]
SERVERS = {
    "gunicorn": [*GUNICORN, "--workers=2"],
    "gunicorn-threads": [*GUNICORN, "--workers=2", "--threads=2"],
    "uwsgi": UWSGI,
    "gevent": [sys.executable, "-c", GEVENT],
    "waitress": [*WAITRESS, "--no-clear-untrusted-proxy-headers", "app:application"],
}


class Site:
    def __init__(self, served, folder, port):
        self.served, self.folder, self.port = served, folder, port

    def ask(self, target, *fields, method="GET"):
        with Connection(("127.0.0.1", self.port)) as connection:
            return connection.ask(method, target, [("Connection", "close"), *fields], host="localhost")

    def lines(self):
        return (self.folder / "access.log").read_text().splitlines()

    def metrics(self):
        response = self.ask("/metrics")
        assert response.status == 200, response
        return figures(response.text)


def figures(text):
    """Metrics by name and labels."""
    pairs = (line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, value in pairs}


@contextlib.contextmanager
def running(command, folder):
    (folder / "app.py").write_text(APP)
    shutil.copy(APPS / "gates.py", folder)
    port = free_port()
    command = [str(part).replace("{port}", str(port)) for part in command]
    with process(command, folder, environment={"PYTHONPATH": "."}) as served:
        site = Site(served, folder, port)
        wait_for(served, lambda: site.ask("/").status == 201)
        yield site


@pytest.fixture(params=SERVERS)
def site(request, tmp_path):
    with running(SERVERS[request.param], tmp_path) as site:
        yield site


def test_the_access_log_has_a_line_for_each_request(site):
    length = len(site.ask("/", ("X-Name", "plain")).body)
    site.ask("/blocks", ("X-Name", "blocks"))
    site.ask("/file", ("X-Name", "file"))
    site.ask("/", ("X-Name", "head"), method="HEAD")
    assert "<this> fails" in site.ask("/fails", ("X-Name", "fails")).text
    with contextlib.suppress(ConnectionError):  # uWSGI has no page for it
        site.ask("/fails", ("X-Name", "far"), ("X-Forwarded-For", "192.0.2.1"))
    expected = [
        f"GET / 201 {length} here plain",
        "GET /blocks 201 5 here blocks",
        f"GET /file 201 {(site.folder / 'app.py').stat().st_size} here file",
        "HEAD / 201 0 here head",
        "GET /fails 500 0 - far",
    ]
    # The line of a response that the server takes bit by bit comes at its end.
    site.served.wait_until(lambda: set(expected) <= set(site.lines()), f"{expected} in the log")
    assert re.search(r"^GET /fails 500 [1-9]\d+ - fails$", "\n".join(site.lines()), re.MULTILINE)


def test_metrics_are_those_of_all_processes(site):
    (site.folder / "access.log").write_text("")
    name = 'anygate_requests_total{method="GET",status="2xx"}'
    before = site.metrics()[name]
    for _ in range(10):
        site.ask("/")
    # The page itself is counted when it has been responded.
    wait_for(site.served, lambda: site.metrics()[name] >= before + 11)
    shown = site.metrics()
    assert shown["anygate_workers"] >= 1
    assert sum(value for name, value in shown.items() if name.startswith("anygate_worker_memory_bytes")) > 1 << 20
    assert shown["anygate_response_body_bytes_total"] > 100
    assert not [name for name in shown if name.startswith("anygate_connections")]
    refused = site.ask("/metrics", ("X-Forwarded-For", "127.0.0.1"))
    assert refused.status == 403


def test_routes_are_counted_whoever_responds(site):
    name = 'anygate_route_requests_total{{route="{}",status="{}"}}'
    before = site.metrics()[name.format("/", "2xx")]
    for target in ("/", "/blocks", "/file", "/fails"):
        site.ask(target)
    expected = {("/", "2xx"): before + 1, ("/<page>", "2xx"): 2, ("/<page>", "5xx"): 1}

    def counted():
        shown = site.metrics()
        return {route: shown.get(name.format(*route)) for route in expected}

    wait_for(site.served, lambda: counted() == expected)


def test_a_slow_request_is_told_while_it_runs(site):
    with Gate() as gate, Connection(("127.0.0.1", site.port)) as connection:
        connection.send(f"GET /waits?{gate.name} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        site.served.wait_until(lambda: "longer than slow_request" in site.served.log(), "a warning")
        wait_for(site.served, lambda: "in wait_at" in site.served.log())
        gate.open()
        assert connection.response().status == 201
    assert re.search(r"WARN GET /waits\?\S+ from 127\.0\.0\.1 has taken", site.served.log())
    wait_for(site.served, lambda: site.metrics()["anygate_slow_requests_total"] == 1)


def test_where_a_server_hides_proxies_nobody_is_on_this_machine(tmp_path):
    with running([*WAITRESS, "app:application"], tmp_path) as site:
        assert site.ask("/metrics").status == 403
        assert "<this> fails" not in site.ask("/fails").text
        assert "clear_untrusted_proxy_headers" in site.served.log()


@pytest.mark.parametrize("options", [["--preload"], []], ids=str)
def test_processes_that_count_apart_say_so(options, tmp_path):
    command = [part for part in SERVERS["gunicorn"] if part != "--preload"]
    with running([*command, *options], tmp_path) as site:
        assert ("shows the metrics of one process" in site.served.log()) is not bool(options)


def test_the_guide_names_the_metrics(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = anygate.wsgihandler(lambda *_: [], metrics_path="/m").metrics()
    families = set(re.findall(r"# TYPE (\S+)", text))
    guide = (ROOT / "docs/guide/middleware.md").read_text()
    listed = guide[guide.index("These metrics are counted") :].split("\n\n")[0]
    assert set(re.findall(r"`(anygate_\w+)`", listed)) == families


def test_without_a_path_nothing_is_counted():
    with pytest.raises(RuntimeError, match="metrics_path"):
        anygate.wsgihandler(lambda *_: []).metrics()


def test_an_access_log_that_cannot_be_opened_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"access_log.*cannot open"):
        anygate.wsgihandler(lambda *_: [], access_log=tmp_path / "nowhere" / "log")


def test_counts_go_to_statsd(tmp_path):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as statsd:
        statsd.bind(("127.0.0.1", 0))
        statsd.settimeout(PATIENCE)
        program = f"""
import anygate, wsgiref.util
def app(environ, start_response):
    start_response("200 OK", [])
    return [b"all"]
site = anygate.wsgihandler(app, statsd="127.0.0.1:{statsd.getsockname()[1]}", statsd_prefix="mine.")
for _ in range(3):
    environ = {{}}
    wsgiref.util.setup_testing_defaults(environ)
    list(site(environ, lambda *_: None))
"""
        (tmp_path / "program.py").write_text(program)
        with process([sys.executable, "program.py"], tmp_path) as served:
            # What was counted is sent when a process ends.
            assert served.process.wait(PATIENCE) == 0
        lines = statsd.recv(65536).decode().splitlines()
    assert "mine.requests_total.GET.2xx:3|c" in lines
    assert "mine.response_body_bytes_total:9|c" in lines
    assert "mine.workers:1|g" in lines
    assert not [line for line in lines if line.startswith("mine.connections")]


@pytest.mark.parametrize("name", ["gunicorn", "waitress", "wsgiref"])
def test_servers_by_name_have_our_log_in_any_format(name, tmp_path):
    options = ["--access-log", "lines", "--access-log-format", "json", "--metrics-path", "/metrics"]
    with started(name, tmp_path, *options) as served:
        served.client.ask("GET", "/six?a=b")
        lines = wait_for(served, lambda: [line for line in read(tmp_path / "lines") if line["target"] == "/six?a=b"])
        assert lines[0]["method"] == "GET"
        assert lines[0]["remote_addr"] == "127.0.0.1"
        assert served.client.ask("GET", "/metrics")[0] == 403  # HTTP/1.0 names no host


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]
