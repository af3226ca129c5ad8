"""A server whose application does what a test has planned, and clients of every protocol."""

from __future__ import annotations

import contextlib
import json
import select

import gateways
from conftest import APPS, Served
from http2_frames import Client, plain
from wire import Connection, Response

PROTOCOLS = ("http", "http2", "scgi", "uwsgi", "fastcgi")
#: Paths that all lead to /admin or below it, however they are spelled.
ADMIN_SPELLINGS = [
    *(
        "/admin",
        "/admin/",
        "/admin/users",
        "/admin?x=1",
        "//admin",
        "/admin//users",
        "/./admin",
        "/.//./admin",
        "/x/../admin",
    ),
    *(
        "/%61dmin",
        "/%2e/admin",
        "/x/%2E%2e/admin",
        "/admin%2Fusers",
        "/%2Fadmin",
        "/../admin",
        "/admin/../admin",
        "/admin/.",
    ),
]
#: Addresses for all of them; HTTP/2 has that of HTTP.
EVERYTHING = [part for protocol in PROTOCOLS if protocol != "http2" for part in ("--bind", f"{protocol}://127.0.0.1:0")]


class Planned(Served):
    """A server of tests/apps/plan.py."""

    def __init__(self, arguments, folder, **options):
        self.folder = folder
        self.plans = {}
        self.plan("/")
        super().__init__([APPS / "plan.py", *arguments], folder, **options)

    def plan(self, path, **what):
        """What the application does from now on when it is asked for a path. Gives the path."""
        self.plans[path] = what
        beside = self.folder / "plan.json.new"
        beside.write_text(json.dumps(self.plans))
        beside.rename(self.folder / "plan.json")
        return path

    def open(self, gate):
        """Let those go on that wait at a gate."""
        (self.folder / gate).touch()

    def count(self, event):
        """How often the application noted this: `GET /path`, `wait gate`, `close /path`."""
        events = self.folder / "events"
        return events.read_text().splitlines().count(event) if events.exists() else 0

    def wait_for(self, event, count=1):
        self.wait_until(lambda: self.count(event) >= count, f"{event}, {count} times")

    def hold(self, path, gate, fields=()):
        """A connection whose request waits at a gate, inside of the application."""
        self.plan(path, gate=gate)
        before = self.count(f"wait {gate}")
        lines = [f"GET {path} HTTP/1.1", "Host: test", *(f"{name}: {value}" for name, value in fields)]
        connection = self.connect().send("\r\n".join(lines) + "\r\n\r\n")
        self.wait_for(f"wait {gate}", before + 1)
        return connection

    @contextlib.contextmanager
    def both_workers(self):
        """A connection to each of two workers that have one thread."""
        with self.hold("/held", "both") as one, contextlib.ExitStack() as many:
            asked = []

            def responded():
                asked.append(many.enter_context(self.connect()).send("GET / HTTP/1.1\r\nHost: test\r\n\r\n"))
                readable, _, _ = select.select([connection.socket for connection in asked], [], [], 0.05)
                return next((connection for connection in asked if connection.socket in readable), None)

            # The one that is busy leaves connections to the other, but not for long.
            two = self.wait_until(responded, "the other worker")
            self.open("both")
            assert one.response().json["pid"] != two.response().json["pid"]
            yield one, two

    def speak(self, protocol, method="GET", target="/", fields=(), body=b"", client="192.0.2.7"):
        """One request over a protocol, on a server of `EVERYTHING`. `client`: whom a front server speaks for."""
        place = ("http", "scgi", "uwsgi", "fastcgi").index(protocol.removesuffix("2"))
        return ask(self.addresses[place], protocol, method, target, fields, body, client)


def ask(address, protocol, method="GET", target="/", fields=(), body=b"", client="192.0.2.7"):
    """One request on a connection of its own."""
    if protocol == "http":
        with Connection(address) as connection:
            return connection.ask(method, target, fields, body)
    if protocol == "http2":
        with Client(plain(address)) as connection:
            response = connection.ask(method, target, [(name.lower(), value) for name, value in fields], body or None)
            response.fields = [(name.lower(), value) for name, value in response.fields]
            return response
    named = [("HTTP_HOST", "test"), *(("HTTP_" + name.upper().replace("-", "_"), value) for name, value in fields)]
    variables = gateways.variables(method, target, len(body), fields=named)
    variables = [(name, client if name == "REMOTE_ADDR" else value) for name, value in variables]
    with Connection(address) as connection:
        connection.send(getattr(gateways, protocol)(variables, body))
        wire = connection.rest()
    if protocol == "fastcgi":
        wire, ended = gateways.stdout(wire)
        assert ended == (0, 0)
    status, given, content = gateways.cgi_response(wire)
    fields = [(name, value) for name, values in given.items() for value in values]
    return Response(status, "", "", fields, content)


@contextlib.contextmanager
def planned(folder, *arguments, **options):
    """A running server, on a free port unless addresses are given."""
    bound = [] if "--bind" in arguments else ["--port", "0"]
    served = Planned([*arguments, *bound], folder, **options)
    try:
        yield served.wait_ready()
    finally:
        served.kill()
