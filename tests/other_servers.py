"""Servers of other packages as processes, and clients of what they speak."""

import collections
import contextlib
import os
import signal
import socket
import ssl
import subprocess
import sys

import gateways
import pytest
from anygate.adapters import SERVERS
from conftest import ANYGATE, APPS, Served
from waiting import PATIENCE
from wire import Connection


class Http:
    """A client of an HTTP server."""

    def __init__(self, port):
        self.address = ("127.0.0.1", port)

    def ask(self, method, target, fields=(), body=b""):
        with Connection(self.address) as connection:
            response = connection.ask(method, target, [("Connection", "close"), *fields], body)
            cookies = [value for name, value in response.fields if name.lower() == "set-cookie"]
            return response.status, cookies, response.body


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
            ("REMOTE_ADDR", "127.0.0.1"),
        ]
        for name, value in fields:
            name = name.upper().replace("-", "_")
            variables.append((name if name == "CONTENT_TYPE" else f"HTTP_{name}", value))
        with Connection(self.address) as connection:
            connection.send(self.pack(variables, body))
            response = connection.rest()
        if self.protocol == "fastcgi":
            response, _ = gateways.stdout(response)
        status, responded, body = gateways.cgi_response(response)
        return status, responded.get("set-cookie", []), body


#: Ports that were given away not long ago: still bound, so that nobody else is given them before a server listens.
HELD = collections.deque(maxlen=32)


def free_port():
    """A port for a server that takes over addresses which nobody listens on, as all of them do."""
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    held.bind(("127.0.0.1", 0))
    HELD.append(held)
    return held.getsockname()[1]


def end(served):
    """End it as an administrator would; all its processes are of its session."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(served.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        served.process.wait(3)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(served.pid, signal.SIGKILL)
    return served.process.wait()


def wait_for(served, ready):
    """Wait until `ready` gives something true and no error."""

    def look():
        if served.process.poll() is not None:
            pytest.fail(f"ended with {served.process.returncode}\n{served.log()}{served.stdout()}")
        with contextlib.suppress(OSError, AssertionError, ValueError):
            return ready()
        return False

    return served.wait_until(look, f"a response\n{served.stdout()}")


#: What starts Apache as another user who can read everything: if root starts it, it changes to one who may not be able
#: to read this Python.
READING = ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
WITHOUT_RIGHTS = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *READING] if os.geteuid() == 0 else []


@contextlib.contextmanager
def process(command, folder, *, drop_rights=False, environment=None):
    """A server as a session of its own, so that nothing of it is left behind."""
    session = [sys.executable, "-c", "import os, sys; os.setsid(); os.execv(sys.argv[1], sys.argv[1:])"]
    if drop_rights:
        session = [*WITHOUT_RIGHTS, *session]
    served = Served(command[1:], folder, command=[*session, command[0]], environment=environment)
    try:
        yield served
    finally:
        end(served)


@contextlib.contextmanager
def started(name, folder, *options, place=None, app=APPS / "six.py"):
    """A server by name, on a free port or at `place`, when it responds."""
    known = SERVERS[name]
    port = free_port()
    place = place or ["-i", "127.0.0.1", "-p", port]
    command = [ANYGATE, "-s", name, *place, *options, app]
    with process(command, folder, drop_rights=name.startswith("mod_wsgi")) as served:
        served.known, served.port = known, port
        served.client = Http(port) if "http" in known.protocols else Packed(port, known.protocols[0])
        if place[0] == "-i" and "-c" not in options:
            wait_for(served, lambda: served.client.ask("GET", "/ready")[0] == 200)
        yield served


def certificate(folder):
    """A certificate for 127.0.0.1 and its key."""
    paths = folder / "certificate.pem", folder / "key.pem"
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    new = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *subject]
    subprocess.run([*new, "-out", paths[0], "-keyout", paths[1]], check=True, capture_output=True)
    paths[1].chmod(0o644)
    return paths


def over_tls(port, trusted):
    """GET / over TLS; the body."""
    context = ssl.create_default_context(cafile=trusted)
    with (
        socket.create_connection(("127.0.0.1", port), PATIENCE) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as secure,
    ):
        secure.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        response = b""
        while data := secure.recv(65536):
            response += data
    return response
