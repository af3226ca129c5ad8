"""Applications that fail, each in its way, and `tell`, which is told of it. What happened is at /noted."""

import builtins
import json
import sys
import threading
import traceback

import gates

NOTED = []
ROUTES = {}


def route(function):
    ROUTES["/" + function.__name__] = function
    return function


def where():
    """The thread, and the greenlet in it."""
    if "greenlet" in sys.modules:
        return [threading.get_ident(), id(sys.modules["greenlet"].getcurrent())]
    return [threading.get_ident()]


def being_handled():
    error = sys.exc_info()[1]
    return None if error is None else f"{type(error).__name__}: {error}"


def tell(environ, exc_info):
    """`on_error`."""
    kind, error, frames = exc_info
    NOTED.append(
        {
            "path": environ["PATH_INFO"],
            "told": f"{kind.__name__}: {error}",
            "handled": being_handled(),
            "same": sys.exc_info()[1] is error and kind is type(error),
            "frames": [frame.name for frame in traceback.extract_tb(frames)],
            "frames of sys": [frame.name for frame in traceback.extract_tb(sys.exc_info()[2])],
            "here": where() == environ["test.where"],
        }
    )
    if error.args == ("tell fails",):
        raise LookupError("in the hook")
    if error.args == ("tell waits",):
        wait_for(environ["QUERY_STRING"])


def wait_for(path):
    """Say that somebody waits for the file ``path``, and do so."""
    open(path + ".awaited", "w").close()
    gates.wait_for(path)


def application(environ, start_response):
    environ["test.where"] = where()
    return ROUTES[environ["PATH_INFO"]](environ, start_response)


class Closing:
    """An iterable whose `close()` notes what is being handled, and fails if it is told to."""

    def __init__(self, blocks, fails=None):
        self.blocks, self.fails = blocks, fails

    def __iter__(self):
        return iter(self.blocks)

    def close(self):
        NOTED.append({"closed": being_handled()})
        if self.fails:
            raise OSError(self.fails)


def raising(error, *before):
    yield from before
    raise error


@route
def noted(environ, start_response):
    body = json.dumps(NOTED).encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]


@route
def call(environ, start_response):
    raise ValueError("in the call")


@route
def blocks(environ, start_response):
    start_response("200 OK", [])
    return ["text"]


@route
def first_block(environ, start_response):
    start_response("200 OK", [])
    return Closing(raising(ValueError("in the first block")))


@route
def later_block(environ, start_response):
    start_response("200 OK", [])
    return Closing(raising(ValueError("in a later block"), b"some of it"))


@route
def closing(environ, start_response):
    start_response("200 OK", [("Content-Length", "3")])
    return Closing([b"all"], fails="in close()")


@route
def both(environ, start_response):
    start_response("200 OK", [])
    return Closing(raising(ValueError("in the first block")), fails="in close()")


@route
def leaves(environ, start_response):
    sys.exit(3)


@route
def tell_fails(environ, start_response):
    raise ValueError("tell fails")


@route
def tell_waits(environ, start_response):
    raise ValueError("tell waits")


@route
def fine(environ, start_response):
    start_response("200 OK", [])
    return Closing([b"fine"])


@route
def endless(environ, start_response):
    start_response("200 OK", [])

    def forever():
        while True:
            yield b"x" * 65536

    return Closing(forever())


@route
def handled(environ, start_response):
    """PEP 3333, "Error Handling"."""
    start_response("200 OK", [])
    try:
        raise ValueError("handled")
    except ValueError:
        start_response("500 Oops", [("Content-Length", "4")], sys.exc_info())
    return [b"oops"]


@route
def handled_too_late(environ, start_response):
    start_response("200 OK", [])(b"sent")
    try:
        raise ValueError("handled too late")
    except ValueError:
        start_response("500 Oops", [], sys.exc_info())
    return [b"never"]


@route
def sleeps(environ, start_response):
    try:
        gates.wait_for("never")
    finally:
        NOTED.append({"awake": True})


@route
def websocket(environ, start_response):
    socket = environ["wsgi.websocket"]
    try:
        socket.read_message()
    finally:
        NOTED.append({"websocket": True})
    raise ValueError("in a session")


@route
def groups(environ, start_response):
    try:
        raise KeyError("<the cause>")
    except KeyError as error:
        raise builtins.ExceptionGroup("several", [ValueError("one & two"), TypeError("three")]) from error


@route
def odd(environ, start_response):
    """What it says cannot be written in UTF-8."""
    raise ValueError("lone \udc80 surrogate")


@route
def long(environ, start_response):
    raise ValueError("word " * 100_000 + "x" * 100_000)
