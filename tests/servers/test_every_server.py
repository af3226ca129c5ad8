"""Every server that can be installed, started by name: the same six requests, the same answers."""

import contextlib
import os
import signal
import socket
import sys
import time

import gateways
import pytest
from anygate.adapters import SERVERS
from conftest import ANYGATE, APPS, Served
from wire import Connection

NAMES = [name for name, server in SERVERS.items() if server.run and server.protocols]
BODY = bytes(range(256)) * 4000
REMOTE = "127.0.0.1"


class Http:
    """A client of an HTTP server."""

    def __init__(self, port):
        self.address = ("127.0.0.1", port)

    def ask(self, method, target, fields=(), body=b""):
        with Connection(self.address) as connection:
            answer = connection.ask(method, target, [("Connection", "close"), *fields], body)
            cookies = [value for name, value in answer.fields if name.lower() == "set-cookie"]
            return answer.status, cookies, answer.body


class Packed:
    """A client of an SCGI or FastCGI server: what a front server sends."""

    def __init__(self, port, protocol):
        self.address = ("127.0.0.1", port)
        self.pack = getattr(gateways, protocol)
        self.protocol = protocol

    def ask(self, method, target, fields=(), body=b""):
        path, _, query = target.partition("?")
        variables = [
            ("CONTENT_LENGTH", str(len(body))),
            ("SCGI", "1"),
            ("REQUEST_METHOD", method),
            ("REQUEST_URI", target),
            ("SCRIPT_NAME", ""),
            ("PATH_INFO", path.replace("%C3%A9", "\xc3\xa9")),
            ("QUERY_STRING", query),
            ("SERVER_NAME", "test"),
            ("SERVER_PORT", "80"),
            ("SERVER_PROTOCOL", "HTTP/1.1"),
            ("REMOTE_ADDR", REMOTE),
        ]
        for name, value in fields:
            name = name.upper().replace("-", "_")
            variables.append((name if name == "CONTENT_TYPE" else f"HTTP_{name}", value))
        with Connection(self.address) as connection:
            connection.send(self.pack(variables, body))
            answer = connection.rest()
        if self.protocol == "fastcgi":
            answer, _ = gateways.stdout(answer)
        status, answered, body = gateways.cgi_answer(answer)
        return status, answered.get("set-cookie", []), body


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def end(served):
    """End it as an administrator would; all its processes are of its session."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(served.pid, signal.SIGTERM)
    until = time.monotonic() + 15
    while served.process.poll() is None and time.monotonic() < until:
        time.sleep(0.02)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(served.pid, signal.SIGKILL)
    return served.process.wait()


@pytest.fixture(scope="module", params=NAMES)
def server(request, tmp_path_factory):
    known = SERVERS[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    port = free_port()
    session = [sys.executable, "-c", "import os, sys; os.setsid(); os.execv(sys.argv[1], sys.argv[1:])"]
    if request.param.startswith("mod_wsgi") and os.geteuid() == 0:
        # Apache changes its user if root starts it, and that user may not be able to read this Python.
        reading = ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
        session = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *reading, *session]
    arguments = ["-s", request.param, "-i", "127.0.0.1", "-p", port, APPS / "six.py"]
    served = Served(arguments, folder, command=[*session, ANYGATE])
    served.known, served.port = known, port
    served.client = Http(port) if "http" in known.protocols else Packed(port, known.protocols[0])

    def listens():
        if served.process.poll() is not None:
            pytest.fail(f"{request.param} ended with {served.process.returncode}\n{served.log()}{served.stdout()}")
        with contextlib.suppress(OSError, AssertionError, ValueError):
            return served.client.ask("GET", "/ready")[0] == 200
        return False

    try:
        served.wait_until(listens, f"{request.param} answers\n{served.stdout()}")
        yield served
    finally:
        end(served)


def get(client):
    status, _, body = client.ask("GET", "/caf%C3%A9?a=b%20c", [("X-Test", "yes")])
    expected = (
        b'{"REQUEST_METHOD": "GET", "SCRIPT_NAME": "", "PATH_INFO": "/caf\\u00c3\\u00a9", "QUERY_STRING": "a=b%20c", '
        b'"REMOTE_ADDR": "127.0.0.1", "HTTP_X_TEST": "yes", "wsgi.url_scheme": "http"}'
    )
    return (status, body) == (200, expected), (status, body)


def post(client):
    status, _, body = client.ask("POST", "/body", [("Content-Type", "x/y")], BODY)
    return (status, body) == (200, b"x/y %d %d" % (len(BODY), sum(BODY))), (status, body)


def head(client):
    status, _, body = client.ask("HEAD", "/")
    return (status, body) == (200, b""), (status, body)


def pieces(client):
    status, _, body = client.ask("GET", "/pieces")
    return (status, body) == (200, b"".join(b"%d " % number for number in range(1000))), (status, body[:100])


def fields(client):
    answer = client.ask("GET", "/fields")
    return answer == (418, ["a=1; Path=/", "b=2"], b"tea\n"), answer


def chunked(client):
    if isinstance(client, Packed):
        # Chunks are between a client and its front server.
        return True, None
    body = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (b"hello", b"world" * 1000)) + b"0\r\n\r\n"
    status, _, answer = client.ask("POST", "/body", [("Content-Type", "x/y"), ("Transfer-Encoding", "chunked")], body)
    whole = b"hello" + b"world" * 1000
    return (status, answer) == (200, b"x/y %d %d" % (len(whole), sum(whole))), (status, answer)


REQUESTS = {function.__name__: function for function in (get, post, head, pieces, fields, chunked)}


@pytest.mark.parametrize("request_name", REQUESTS)
def test_the_answer_is_the_same(server, request_name):
    """Or the table says that it is not: no more and no less."""
    try:
        same, answer = REQUESTS[request_name](server.client)
    except (OSError, ValueError, AssertionError) as error:
        same, answer = False, repr(error)
    assert same == (request_name not in server.known.breaks), (answer, server.log(), server.stdout())


def test_it_says_what_it_starts(server):
    assert server.stdout().startswith(f"starting {server.known.name} on 127.0.0.1:{server.port}...\n")
