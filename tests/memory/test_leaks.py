"""A worker gives back what it has taken: after many clients of a kind, memory, descriptors and threads are as before.

Here there are few rounds of each kind; `make soak` goes on for SOAK_SECONDS.
"""

import os
import time
from pathlib import Path

import http2_frames
import pytest
from other_servers import certificate
from secure import Secure
from websocket_frames import CLOSE, TEXT, Client, frame, handshake
from wire import Connection

APP = """
def app(environ, start_response):
    if socket := environ.get("wsgi.websocket"):
        if environ["PATH_INFO"] == "/refused":
            start_response("403 Forbidden", [])
            return [b"no"]
        while (message := socket.receive()) is not None:
            socket.send(message)
        return []
    read = 0
    while block := environ["wsgi.input"].read(8192):
        read += len(block)
    start_response("200 OK", [])
    return [b"%d" % read]
"""
SECONDS = float(os.environ.get("SOAK_SECONDS", 0))
ROUNDS = 20
MEGABYTE = 1 << 20
ALLOWED = 8 * MEGABYTE
# Files that a worker opens once, when it first needs them.
DESCRIPTORS_MORE = 4
MALFORMED = [
    b"GET / HTTP/9.9\r\n\r\n",
    b"GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: " + b"y" * 100_000 + b"\r\n\r\n",
    b"\x16\x03\x01\x00\x00",
]


def malformed_requests(site):
    for request in MALFORMED:
        with Connection(site.plain) as connection:
            connection.send(request)
            # A response, or the end where TLS is spoken.
            connection.more()
            connection.reset()


def aborted_uploads(site):
    for path in ("/whole", "/streamed"):
        for framing in (b"Content-Length: 1000000", b"Transfer-Encoding: chunked"):
            with Connection(site.plain) as connection:
                head = b"POST %s HTTP/1.1\r\nHost: a\r\n%s\r\n\r\n" % (path.encode(), framing)
                connection.send(head + b"4000\r\n" + b"x" * 100)
                connection.reset()


def websockets(site):
    with Client(site.plain) as client:
        client.open("/").send(frame(TEXT, b"hello"))
        assert client.frame() == (TEXT, b"hello")
        client.send(frame(CLOSE))
        assert client.frame()[0] == CLOSE
    with Client(site.plain) as client:
        client.open("/").send(frame(TEXT, b"hello"))
        client.reset()


def refused_upgrades(site):
    for request in (handshake("/refused"), handshake("/", Sec_WebSocket_Version="7")):
        with Connection(site.plain) as connection:
            connection.send(request)
            assert connection.head().status in (400, 403, 426)


def tls_handshakes(site):
    with Secure(site.secure, site.trusted) as connection:
        assert connection.ask("POST", "/whole", body=b"four").body == b"4"
    with Connection(site.secure) as connection:
        connection.send(b"\x16\x03\x01\x02\x00\x01\x00")
        connection.reset()
    with Connection(site.secure) as connection:
        connection.send(b"GET / HTTP/1.1\r\n\r\n")
        connection.rest()


def http2_resets(site):
    with http2_frames.Client(http2_frames.secure(site.secure, site.trusted)) as client:
        for path in ("/whole", "/streamed"):
            stream = client.begin("POST", path, body=b"x" * 100, end=False)
            client.reset(stream)
        assert client.ask("POST", "/whole", body=b"four").body == b"4"


KINDS = [malformed_requests, aborted_uploads, websockets, refused_upgrades, tls_handshakes, http2_resets]


class Resources:
    """Memory, descriptors and threads of a site's worker."""

    def __init__(self, site):
        (self.pid,) = site.workers()

    def count(self, folder):
        return len(list(Path(f"/proc/{self.pid}/{folder}").iterdir()))

    def memory(self):
        status = Path(f"/proc/{self.pid}/status").read_text()
        return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmRSS"))


@pytest.fixture(params=["threads", "gevent"])
def site(serve, tmp_path, request):
    (tmp_path / "app.py").write_text(APP)
    trusted, key = certificate(tmp_path)
    binds = ("--bind", "http://127.0.0.1:0", "--bind", "https://127.0.0.1:0", "-c", trusted, "-k", key)
    options = ("--stream-paths", "/streamed", "--concurrency", request.param, "--threads", "4", "--greenlets", "20")
    site = serve("app:app", *binds, *options)
    (site.plain, site.secure), site.trusted = site.addresses, trusted
    site.idle = DESCRIPTORS_MORE + Resources(site).count("fd")
    return site


@pytest.mark.timeout(1800 + 2 * SECONDS)
def test_what_clients_have_taken_comes_back(site):
    resources = Resources(site)
    # What is made once and kept, such as buffers of threads, is made now.
    for _ in range(3):
        for kind in KINDS:
            kind(site)
    # An idle worker has the descriptors with which it has started.
    site.wait_until(lambda: resources.count("fd") <= site.idle, "the end of the first connections")
    idle = {folder: resources.count(folder) for folder in ("fd", "task")}

    def is_as_before():
        return all(resources.count(folder) <= count for folder, count in idle.items())

    def repeat(kind):
        rounds, until = 0, time.monotonic() + SECONDS / len(KINDS) / 2
        while rounds < ROUNDS or time.monotonic() < until:
            kind(site)
            rounds += 1
        site.wait_until(is_as_before, f"no more descriptors and threads than before {rounds} rounds of {kind.__name__}")
        return rounds

    for kind in KINDS:
        # Memory is taken from the system in large parts, and comes to a level.
        repeat(kind)
        before = resources.memory()
        rounds = repeat(kind)
        grown = resources.memory() - before
        assert grown < ALLOWED, f"{rounds} rounds of {kind.__name__} have taken {grown} bytes"
