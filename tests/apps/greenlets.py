"""What requests in greenlets do beside each other."""

import fcntl
import threading
import time
from pathlib import Path

import gevent
from gates import wait_at

LOCAL = threading.local()
EVENTS = []
LOCKS = {"flock": fcntl.flock, "lockf": fcntl.lockf}


def application(environ, start_response):
    return globals()[environ["PATH_INFO"].strip("/")](environ, start_response)


def respond(start_response, text):
    body = str(text).encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]


def ready(environ, start_response):
    return respond(start_response, "yes")


def events(environ, start_response):
    return respond(start_response, EVENTS)


def gate(environ, start_response):
    """Waits at the gate that the query names."""
    wait_at(environ["QUERY_STRING"])
    return respond(start_response, "waited")


def gives_up(environ, start_response):
    """Give up reading again and again, for longer than a client may take, and then read."""
    body = environ["wsgi.input"]
    for _ in range(8):
        with gevent.Timeout(0.25, False):
            body.read(1)
    Path(environ["QUERY_STRING"]).touch()
    return respond(start_response, body.read().decode())


def counted(environ, start_response):
    """How often this was called with the same thread-local object."""
    LOCAL.count = getattr(LOCAL, "count", 0) + 1
    wait_at(environ["QUERY_STRING"])
    return respond(start_response, LOCAL.count)


def locked(environ, start_response):
    """Hold the lock of a session, as web2py does, until the gate opens."""
    kind, path, gate = environ["QUERY_STRING"].split(",")
    with open(path, "r+b") as session:
        LOCKS[kind](session.fileno(), fcntl.LOCK_EX)
        begun = time.monotonic()
        wait_at(gate)
        LOCKS[kind](session.fileno(), fcntl.LOCK_UN)
    return respond(start_response, f"{begun} {time.monotonic()}")


def blocks(environ, start_response):
    """As many blocks of 64 KiB as the query says."""
    kind, count = environ["QUERY_STRING"].split(",")
    given = [bytes([place % 256]) * 65536 for place in range(int(count))]

    def noted():
        yield from given
        EVENTS.append("all blocks were taken")

    if kind == "write":
        write = start_response("200 OK", [])
        for block in noted():
            write(block)
        return []
    start_response("200 OK", [])
    return given if kind == "list" else noted()


def upload(environ, start_response):
    return respond(start_response, len(environ["wsgi.input"].read()))


def lines(environ, start_response):
    return respond(start_response, [line.decode() for line in environ["wsgi.input"]])


def busy(environ, start_response):
    """Compute until there is the file that the query names."""
    awaited = Path(environ["QUERY_STRING"])
    awaited.with_suffix(".begun").touch()
    while not awaited.exists():
        pass
    return respond(start_response, "computed")
