"""`anygate.wsgihandler` under servers of other packages: what anygate's own server does for the same file, they do."""

import contextlib
import json
import select
import shutil
import socket
import sys
import zlib
from pathlib import Path

import brotli
import pytest
import zstandard
from conftest import ANYGATE, APPS
from other_servers import free_port, process, wait_for
from waiting import PATIENCE
from wire import Connection

CONFIG = """
# For our own server only.
bind = ["127.0.0.1:{port}"]
workers = 2
threads = 4
access_log = "-"

health_path = "/health"
ready_path = "/ready"
ready_check = "around:is_ready"
ready_check_interval = "50ms"
deny = ["/closed 127.0.0.0/8"]
rate_limit = ["/often 5/1h"]
requests_per_client_max = ["/waits 1"]
body_limits = ["/body/small 100"]
security_headers = "default"
cors_origins = ["https://a.example"]
cors_methods = ["PUT"]
compression = true
compression_min_bytes = 100
error_pages = "on"
request_id = true
trace_context = true
static = ["/static=files"]
cache = ["/cached", "/long"]
trusted_proxies = ["127.0.0.2"]
"""

BIN = Path(sys.executable).parent
SERVE_WSGIREF = """
from wsgiref.simple_server import WSGIRequestHandler, make_server
import around
WSGIRequestHandler.log_message = lambda *_: None
make_server("127.0.0.1", {port}, around.application).serve_forever()
"""
SERVE_GEVENT = """
from gevent import monkey
monkey.patch_all()
from gevent import pywsgi
import around
pywsgi.WSGIServer(("127.0.0.1", {port}), around.application, log=None).serve_forever()
"""
SERVE_WAITRESS = """
import waitress, around
waitress.serve(around.application, host="127.0.0.1", port={port}, threads=4, clear_untrusted_proxy_headers=False)
"""
GUNICORN = [BIN / "gunicorn", "--preload", "--no-control-socket", "--bind", "127.0.0.1:{port}"]
UWSGI = [
    *(BIN / "uwsgi", "--http-socket=127.0.0.1:{port}", f"--virtualenv={sys.prefix}", "--module=around:application"),
    *("--master", "--die-on-term", "--need-app", "--enable-threads", "--http-chunked-input", "--processes=2"),
]
SERVERS = {
    "anygate": [ANYGATE, "--config", "anygate.toml", "around:app"],
    "gunicorn": [*GUNICORN, "-w", "2", "around:application"],
    "gunicorn-threads": [*GUNICORN, "-w", "2", "--threads", "4", "around:application"],
    "uwsgi": UWSGI,
    "uwsgi-threads": [*UWSGI, "--threads=4"],
    "gevent": [sys.executable, "-c", SERVE_GEVENT],
    "waitress": [sys.executable, "-c", SERVE_WAITRESS],
    "wsgiref": [sys.executable, "-c", SERVE_WSGIREF],
}
APART = {"gunicorn-apart": [*(part for part in GUNICORN if part != "--preload"), "-w", "2", "around:application"]}
ONE_AT_A_TIME = {"wsgiref"}
LOSES_CHUNKED = {"uwsgi", "uwsgi-threads", "wsgiref"}
PROCESSES = {"gunicorn", "gunicorn-threads", "uwsgi", "uwsgi-threads", "anygate"}


class Site:
    def __init__(self, served, name, port, folder):
        self.served, self.name, self.address, self.folder = served, name, ("127.0.0.1", port), folder
        self.log = served.log

    def ask(self, method="GET", target="/", fields=(), body=b"", source=None):
        with self.connect(source) as connection:
            return connection.ask(method, target, [("Connection", "close"), *fields], body)

    def get(self, target="/", *fields):
        return self.ask("GET", target, fields)

    def connect(self, source=None):
        connection = Connection(self.address)
        if source is not None:
            connection.close()
            connection.socket = socket.create_connection(self.address, PATIENCE, (source, 0))
        return connection

    def notes(self):
        notes = self.folder / "notes"
        return notes.read_text().splitlines() if notes.exists() else []

    def wait_for_note(self, note, count=1):
        self.served.wait_until(lambda: self.notes().count(note) >= count, f"{count} times {note!r} in {self.notes()}")


@contextlib.contextmanager
def running(name, folder, config=CONFIG):
    port = free_port()
    shutil.copy(APPS / "around.py", folder)
    shutil.copy(APPS / "gates.py", folder)
    (folder / "anygate.toml").write_text(config.replace("{port}", str(port)))
    (folder / "files").mkdir()
    (folder / "files/page.html").write_text("a page of text\n" * 5000)
    (folder / "files/large.json").write_bytes(b'"a file that is not small",\n' * 200_000)
    command = [str(part).replace("{port}", str(port)) for part in {**SERVERS, **APART}[name]]
    with process(command, folder, environment={"PYTHONPATH": "."}) as served:
        site = Site(served, name, port, folder)
        wait_for(served, lambda: site.get("/hello").body == b"/hello")
        yield site


@pytest.fixture(scope="module", params=SERVERS)
def site(request, tmp_path_factory):
    with running(request.param, tmp_path_factory.mktemp(request.param)) as site:
        yield site


def decoded(response):
    match response["content-encoding"]:
        case "gzip":
            decoder = zlib.decompressobj(31)
            body = decoder.decompress(response.body)
            assert decoder.eof
            return body
        case "br":
            decoder = brotli.Decompressor()
            body = decoder.process(response.body)
            assert decoder.is_finished()
            return body
        case "zstd":
            return b"".join(zstandard.ZstdDecompressor().read_to_iter(response.body))
        case None:
            return response.body


def accepts(coding):
    return "Accept-Encoding", coding


TEXT = b"a line of text\n" * 1000
PIECES = b"".join(b"piece %d of the text\n" % number * 50 for number in range(20))


@pytest.mark.parametrize("coding", ["gzip", "br", "zstd"])
@pytest.mark.parametrize(
    ("target", "body"),
    [("/text", TEXT), ("/announced", PIECES), ("/streamed", PIECES), ("/written", PIECES)],
)
def test_compression(site, coding, target, body):
    response = site.get(target, accepts(coding))
    assert (response.status, response["content-encoding"]) == (200, coding)
    assert "Accept-Encoding" in response["vary"]
    assert response.whole
    assert decoded(response) == body
    if target == "/text":
        assert (response["etag"], response["content-length"]) == ('W/"text"', str(len(response.body)))
    plain = site.get(target, accepts("identity"))
    assert (plain.whole, plain["content-encoding"], plain.body) == (True, None, body)
    assert plain["content-length"] == (None if target in ("/streamed", "/written") else str(len(body)))


def test_what_is_not_compressed_goes_on_as_it_is(site):
    response = site.get("/image", accepts("gzip"))
    assert (response["content-encoding"], response.body) == (None, PIECES)


@pytest.mark.parametrize("coding", ["identity", "gzip"])
def test_a_block_is_sent_before_the_next_is_there(site, coding):
    with site.connect() as connection:
        connection.send(
            f"GET /slow?{coding} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nAccept-Encoding: {coding}\r\n\r\n"
        )
        response = connection.head()
        decoder = zlib.decompressobj(31) if coding == "gzip" else None
        while len(got := body_so_far(response, connection.buffer, decoder)) < 300:
            assert connection.more()
        assert got[:300] == b"first\n" * 50
        (site.folder / coding).touch()
        connection.rest()


def body_so_far(response, data, decoder):
    if response["transfer-encoding"]:
        body, rest = b"", data
        while b"\r\n" in rest:
            size, _, rest = rest.partition(b"\r\n")
            body, rest = body + rest[: int(size, 16)], rest[int(size, 16) + 2 :]
        data = body
    return decoder.copy().decompress(data) if decoder else data


def test_head_requests_have_no_body(site):
    for target in ("/text", "/static/page.html", "/closed", "/announced", "/cached/head"):
        response = site.ask("HEAD", target)
        assert response.status == (403 if target == "/closed" else 200)
        with site.connect() as connection:
            connection.send(f"HEAD {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            connection.head()
            assert connection.is_closed()


def test_files_of_the_application(site):
    page = (site.folder / "files/page.html").read_bytes()
    for kind, coding in [("image/png", None), ("text/html", "gzip")]:
        response = site.get(f"/file?{kind}", accepts("gzip"))
        assert (response.status, response["content-encoding"], decoded(response)) == (200, coding, page)


def test_static_files(site):
    page = (site.folder / "files/page.html").read_bytes()
    response = site.get("/static/page.html")
    assert (response.status, response["content-type"], response.body) == (200, "text/html; charset=utf-8", page)
    assert (response["content-length"], response["x-content-type-options"]) == (str(len(page)), "nosniff")
    assert response["etag"]
    assert site.get("/static/page.html", ("If-None-Match", response["etag"])).status == 304
    assert site.get("/static/page.html", ("If-Modified-Since", response["last-modified"])).status == 304
    part = site.get("/static/page.html", ("Range", "bytes=10-19"))
    assert (part.status, part["content-range"], part.body) == (206, f"bytes 10-19/{len(page)}", page[10:20])
    parts = site.get("/static/page.html", ("Range", "bytes=0-9,50000-50009"))
    assert (parts.status, parts.body.count(b"Content-Range")) == (206, 2)
    assert site.get("/static/page.html", ("Range", "bytes=9999999-")).status == 416
    coded = site.get("/static/page.html", accepts("br"))
    assert (coded["content-encoding"], decoded(coded)) == ("br", page)
    assert site.get("/static/missing").status == 404
    assert b"import" not in site.get("/static/../around.py").body
    assert site.ask("POST", "/static/page.html", body=b"x").status == 405


@pytest.mark.parametrize("coding", ["identity", "gzip", "zstd"])
def test_large_files(site, coding):
    large = (site.folder / "files/large.json").read_bytes()
    response = site.get("/static/large.json", accepts(coding))
    assert (response.status, response.whole) == (200, True)
    assert decoded(response) == large
    part = site.get("/static/large.json", accepts(coding), ("Range", f"bytes=100000-{len(large) - 2}"))
    assert (part.status, part.body) == (206, large[100_000:-1])


def test_the_cache_responds_again(site):
    responses = [site.get("/cached/again", accepts(coding)) for coding in ("identity", "gzip", "br", "identity") * 3]
    assert {decoded(response) for response in responses} == {TEXT}
    # Each process has its own.
    assert 1 <= site.notes().count("asked /cached/again") <= 2
    assert sum("hit" in response["cache-status"] for response in responses) >= 10
    assert len({response["x-request-id"] for response in responses}) == 12
    tag = [("If-None-Match", '"c"')]
    responses = [site.ask("GET", "/cached/condition", tag if turn else []) for turn in range(8)]
    assert [response.status for response in responses] == [200] + [304] * 7


def test_half_a_response_is_not_kept(site):
    for turn in range(2):
        with site.connect() as connection:
            connection.send("GET /long HTTP/1.1\r\nHost: a\r\n\r\n")
            connection.head()
            connection.reset()
        site.wait_for_note("closed long", turn + 1)
    for _ in range(4):
        response = site.get("/long")
        assert (response.whole, response.body) == (True, b"".join(b"%d\n" % number * 5000 for number in range(20)))


def test_rates_hold_for_all_processes_together(site):
    responses = [site.get("/often") for _ in range(9)]
    assert sorted(response.status for response in responses) == [200] * 5 + [429] * 4
    late = responses[-1]
    assert late.status == 429
    assert int(late["retry-after"]) > 0
    assert late["x-request-id"]


def test_requests_at_once_are_counted_for_all_processes_together(site):
    if site.name in ONE_AT_A_TIME:
        pytest.skip("it responds to one request after the other")
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(site.connect())
        first.send("GET /waits HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        site.wait_for_note("waits")
        try:
            others = []

            def has_response():
                """Servers without threads leave some of these to the process that is busy."""
                connection = stack.enter_context(site.connect())
                connection.send("GET /waits HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
                others.append(connection)
                return len(others) >= 8 and select.select([other.socket for other in others], [], [], 0.1)[0]

            site.served.wait_until(has_response, "a response while the first waits")
        finally:
            (site.folder / "go").touch()
        assert first.response().body == b"waited"
        statuses = [connection.response().status for connection in others]
        assert statuses.count(429) >= 1
    assert site.get("/waits").status == 200


def test_preflights_and_pages_of_other_origins(site):
    asks = [("Origin", "https://a.example"), ("Access-Control-Request-Method", "PUT")]
    preflight = site.ask("OPTIONS", "/text", asks)
    assert (preflight.status, preflight["access-control-allow-methods"]) == (204, "PUT")
    assert preflight["access-control-allow-origin"] == "https://a.example"
    allowed = site.get("/text", asks[0])
    assert (allowed["access-control-allow-origin"], allowed.body) == ("https://a.example", TEXT)
    assert site.get("/text", ("Origin", "https://b.example"))["access-control-allow-origin"] is None


def test_security_headers_overwrite_nothing(site):
    response = site.get("/text")
    assert (response["x-frame-options"], response["x-content-type-options"]) == ("SAMEORIGIN", "nosniff")
    own = site.get("/own")
    assert (own["x-frame-options"], own["referrer-policy"], own["x-request-id"]) == ("DENY", "no-referrer", "own")
    assert own.names().count("x-frame-options") == 1


def test_requests_have_names(site):
    response = site.get("/seen", ("X-Request-ID", "made-up"), ("Tracestate", "a=b"))
    assert response.json["HTTP_X_REQUEST_ID"] == response["x-request-id"] != "made-up"
    assert response.json["HTTP_TRACEPARENT"].startswith("00-")
    assert "HTTP_TRACESTATE" not in response.json
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    assert site.get("/seen", ("traceparent", trace)).json["HTTP_TRACEPARENT"] == trace


def test_trusted_proxies_are_believed(site):
    fields = [("X-Forwarded-For", "192.0.2.7"), ("X-Forwarded-Proto", "https"), ("X-Request-ID", "abc")]
    stranger = site.ask("GET", "/seen", fields).json
    # Some servers have ideas of their own about the scheme.
    assert stranger["REMOTE_ADDR"] == "127.0.0.1"
    assert not [name for name in stranger if "FORWARDED" in name]
    believed = site.ask("GET", "/seen?x=%20", [*fields, ("X-Forwarded-Host", "example.org")], source="127.0.0.2")
    assert (believed.json["REMOTE_ADDR"], believed.json["wsgi.url_scheme"]) == ("192.0.2.7", "https")
    assert (believed.json["HTTP_HOST"], believed.json["QUERY_STRING"]) == ("example.org", "x=%20")
    assert believed["x-request-id"] == "abc"
    assert believed["strict-transport-security"]
    # The client is who it is about, not the proxy.
    assert site.ask("GET", "/closed", fields, source="127.0.0.2").status == 200


def test_clients_are_kept_out(site):
    for target in ("/closed", "/closed/in", "//closed", "/x/../closed", "/%63losed"):
        response = site.get(target, ("Accept", "text/html"))
        assert (response.status, response["content-type"]) == (403, "text/html; charset=utf-8")
    assert site.get("/closedish").body == b"/closedish"


def test_health(site):
    assert (site.get("/health").body, site.get("/ready").body) == (b"OK", b"READY")
    assert site.ask("POST", "/health", body=b"x").body == b"/health"
    (site.folder / "ill").touch()
    try:
        site.served.wait_until(lambda: site.get("/ready").status == 503, "its own check says no")
        assert site.get("/health").status == 200
    finally:
        (site.folder / "ill").unlink()
    site.served.wait_until(lambda: [site.get("/ready").status for _ in range(4)] == [200] * 4, "and yes again")


def test_bodies_have_limits(site):
    assert site.ask("POST", "/body/small", body=b"x" * 100).body == b"100"
    assert site.ask("POST", "/body", body=b"x" * 101).body == b"101"
    refused = site.ask("POST", "/body/small", [("Accept", "application/json")], body=b"x" * 101)
    assert (refused.status, refused.json["status"]) == (413, 413)


def test_bodies_without_a_length_have_limits(site):
    if site.name in LOSES_CHUNKED:
        pytest.skip("it has no bodies without a length")
    for count, status in [(100, 200), (101, 413)]:
        body = b"%x\r\n%s\r\n0\r\n\r\n" % (count, b"x" * count)
        response = site.ask("POST", "/body/small", [("Transfer-Encoding", "chunked")], body)
        assert response.status == status


def test_a_failed_application_has_a_page(site):
    for target, accept, kind in [
        ("/fails", "application/json", "application/problem+json"),
        ("/fails-first", "text/html", "text/html; charset=utf-8"),
    ]:
        response = site.get(target, ("Accept", accept), accepts("gzip"))
        assert (response.status, response["content-type"]) == (500, kind)
        if kind == "application/problem+json":
            assert json.loads(decoded(response))["request_id"] == response["x-request-id"]
    site.served.wait_until(lambda: site.log().count("ZeroDivisionError: on purpose") >= 2, "both tracebacks")
    site.wait_for_note("closed fails-first")
    assert site.notes().count("closed fails-first") == 1


@pytest.mark.parametrize("coding", ["identity", "gzip"])
def test_a_response_that_breaks_off_does_not_look_whole(site, coding):
    before = site.notes().count("closed fails-late")
    response = site.get("/fails-late", accepts(coding))
    assert response.status == 200
    if coding == "gzip":
        decoder = zlib.decompressobj(31)
        assert decoder.decompress(response.body) == b"the beginning\n" * 100
        assert not decoder.eof
    elif response["transfer-encoding"]:
        assert not response.whole
    site.wait_for_note("closed fails-late", before + 1)
    assert site.notes().count("closed fails-late") == before + 1


def test_an_application_may_change_its_mind(site):
    response = site.get("/sorry")
    assert (response.status, response.body) == (503, b"sorry")


def test_close_is_called_once_when_the_client_goes_away(site):
    with site.connect() as connection:
        connection.send("GET /endless HTTP/1.1\r\nHost: a\r\n\r\n")
        connection.take(100_000)
        connection.reset()
    site.wait_for_note("closed endless")
    assert site.get("/hello").body == b"/hello"
    assert site.notes().count("closed endless") == 1


@pytest.mark.skipif(not shutil.which("redis-server"), reason="Debian's redis-server is not installed")
def test_processes_that_were_made_apart_share_a_redis(tmp_path):
    path = tmp_path / "redis.sock"
    redis = [
        shutil.which("redis-server"),
        "--port",
        "0",
        "--unixsocket",
        str(path),
        "--save",
        "",
        "--dir",
        str(tmp_path),
    ]
    config = f'rate_limit = ["/often 5/1h"]\ncache = ["/cached"]\nshared = "unix://{path}"\nshared_timeout = "20s"\n'
    with process(redis, tmp_path) as served:
        served.wait_until(path.exists, "Redis")
        with running("gunicorn-apart", tmp_path, config) as site:
            responses = [site.get("/often") for _ in range(12)]
            assert [response.status for response in responses] == [200] * 5 + [429] * 7
            assert {site.get("/cached/here").body for _ in range(12)} == {TEXT}
            assert site.notes().count("asked /cached/here") == 1


def test_nothing_was_complained_about(site):
    """The last of this server's tests: it has seen nothing that an application must not do."""
    log = site.log()
    for word in ("Error: ", "Warning"):
        lines = [line for line in log.splitlines() if word in line and "ZeroDivisionError" not in line]
        known = (
            "BrokenPipeError",
            "ConnectionResetError",
            "the request body is too large",
            "OSError: write error",
            "SIGPIPE",
        )
        assert [line for line in lines if not any(name in line for name in known)] == []
