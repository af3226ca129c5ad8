"""One of several applications with processes of their own: what it gets, who it is, and what it can be told to do."""

import hashlib
import json
import os
import sys

from gates import wait_at

NAME = os.environ.get("APP_NAME", "")


def application(environ, start_response):
    name = environ["PATH_INFO"].strip("/").split("/")[0]
    return globals().get(f"do_{name}", seen)(environ, start_response)


def seen(environ, start_response):
    """The environ, the body, and facts about the process as JSON."""
    facts = {key: value for key, value in environ.items() if isinstance(value, (str, bool))}
    facts |= {"body": environ["wsgi.input"].read().decode("latin-1"), "app": NAME, "pid": os.getpid()}
    facts |= {
        "uid": os.getuid(),
        "gid": os.getgid(),
        "prefix": os.environ.get("VIRTUAL_ENV", sys.prefix),
        "path": sys.path,
    }
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(facts).encode()]


def do_digest(environ, start_response):
    digest, count = hashlib.sha256(), 0
    while piece := environ["wsgi.input"].read(65536):
        digest.update(piece)
        count += len(piece)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{count} {digest.hexdigest()}".encode()]


def do_large(environ, start_response):
    """As many bytes as the query says, with a length or in chunks."""
    count, _, chunked = environ["QUERY_STRING"].partition("&")
    fields = [("Content-Type", "application/octet-stream")]
    start_response("200 OK", fields if chunked else [*fields, ("Content-Length", count)])
    whole, rest = divmod(int(count), 65536)
    yield from [b"x" * 65536] * whole
    yield b"x" * rest


def do_events(environ, start_response):
    """One event before the gate, one behind it."""
    start_response("200 OK", [("Content-Type", "text/event-stream")])
    yield b"data: one\n\n"
    wait_at(environ["QUERY_STRING"])
    yield b"data: two\n\n"


class Endless:
    """Blocks until it is closed, which it tells in a file."""

    def __iter__(self):
        while True:
            yield b"x" * 65536

    def close(self):
        open(f"closed-{NAME}", "w").close()


def do_endless(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return Endless()


def do_gate(environ, start_response):
    wait_at(environ["QUERY_STRING"])
    start_response("200 OK", [])
    return [NAME.encode()]


def do_die(environ, start_response):
    os._exit(1)


def do_cut(environ, start_response):
    """Ends the process in the middle of a response."""
    start_response("200 OK", [("Content-Length", "200000")])
    yield b"x" * 100_000
    wait_at(environ["QUERY_STRING"])
    os._exit(1)


def do_status(environ, start_response):
    start_response(environ["QUERY_STRING"].replace("+", " "), [("X-A", "1"), ("X-A", "2"), ("Connection", "X-A")])
    return []


def do_socket(environ, start_response):
    ws = environ["wsgi.websocket"]
    ws.accept("chat" if "HTTP_SEC_WEBSOCKET_PROTOCOL" in environ else None)
    ws.send(f"{NAME} {environ['SCRIPT_NAME']}")
    while (message := ws.receive()) is not None:
        if message == "end":
            ws.close(4001, "as you say")
        else:
            ws.send(message)
    open(f"ended-{NAME}-{ws.close_code if hasattr(ws, 'close_code') else ''}", "w").close()
    return []


def do_spy(environ, start_response):
    """What this process can reach of the folders of the others, whose place the query names."""
    found = {}
    root = environ["QUERY_STRING"]
    for folder in os.listdir(root) if os.access(root, os.R_OK) else ["sockets", "1", "2", "3", "4"]:
        try:
            found[folder] = sorted(os.listdir(os.path.join(root, folder)))
        except OSError as error:
            found[folder] = type(error).__name__
    start_response("200 OK", [])
    return [json.dumps(found).encode()]
