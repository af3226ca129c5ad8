"""Small applications, one for each path, that show what a server does to its application."""

import io
import itertools
import json
import os
import sys
import tempfile
import threading
import time
from wsgiref.validate import validator

from gates import wait_at, wait_for

CLOSED = []
ROUTES = {}


def route(function):
    ROUTES["/" + function.__name__] = function
    return function


def text(start_response, body, status="200 OK", fields=()):
    start_response(status, [("Content-Type", "text/plain"), ("Content-Length", str(len(body))), *fields])
    return [body]


def application(environ, start_response):
    return ROUTES.get(environ["PATH_INFO"], echo)(environ, start_response)


class Closing:
    """An iterable that notes how often it was closed."""

    def __init__(self, name, blocks):
        self.name, self.blocks = name, blocks

    def __iter__(self):
        return iter(self.blocks)

    def close(self):
        CLOSED.append(self.name)


@route
def echo(environ, start_response):
    """The environ and the body as JSON."""
    body = environ["wsgi.input"].read()
    seen = {key: value for key, value in environ.items() if isinstance(value, (str, bool, tuple))}
    seen["body"] = body.decode("latin-1")
    seen["pid"] = os.getpid()
    return text(start_response, json.dumps(seen).encode())


@route
def closed(environ, start_response):
    return text(start_response, json.dumps(CLOSED).encode())


@route
def pid(environ, start_response):
    return text(start_response, str(os.getpid()).encode())


@route
def sleep(environ, start_response):
    time.sleep(float(environ["QUERY_STRING"]))
    return text(start_response, str(os.getpid()).encode())


@route
def gate(environ, start_response):
    """Waits at the gate that the query names."""
    wait_at(environ["QUERY_STRING"])
    return text(start_response, str(os.getpid()).encode())


@route
def threads(environ, start_response):
    return text(start_response, threading.current_thread().name.encode())


# Responses.


@route
def chunks(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    yield b"one"
    yield b""
    yield b"two"


@route
def late_start(environ, start_response):
    """start_response inside a generator, before the first block."""
    start_response("201 Created", [("X-Late", "yes")])
    yield b"late"


@route
def nothing(environ, start_response):
    start_response("200 OK", [("X-Empty", "yes")])
    return []


@route
def no_content(environ, start_response):
    start_response("204 No Content", [])
    return [b"this must not be sent"]


@route
def not_modified(environ, start_response):
    start_response("304 Not Modified", [("ETag", '"a"'), ("Content-Length", "400")])
    return [b"this must not be sent"]


@route
def writer(environ, start_response):
    write = start_response("200 OK", [("Content-Type", "text/plain")])
    write(b"written ")
    write(b"")
    write(b"first, ")
    return [b"returned last"]


@route
def kept_writer(environ, start_response):
    """Keeps write() and uses it when the request is over."""
    ROUTES.setdefault("kept", start_response("200 OK", []))
    return [b"kept"]


@route
def use_kept_writer(environ, start_response):
    try:
        ROUTES["kept"](b"injected")
    except RuntimeError as error:
        return text(start_response, str(error).encode())
    return text(start_response, b"it worked")


@route
def too_long(environ, start_response):
    start_response("200 OK", [("Content-Length", "5")])
    return [b"hello", b" and more"]


@route
def too_short(environ, start_response):
    start_response("200 OK", [("Content-Length", "50")])
    return [b"hello"]


@route
def reset_content(environ, start_response):
    start_response("205 Reset Content", [("Content-Length", "5")])
    return [b"hello"]


@route
def closing(environ, start_response):
    start_response("200 OK", [])
    return Closing(environ["QUERY_STRING"], [b"a", b"b"])


@route
def closing_fails(environ, start_response):
    class Failing(Closing):
        def close(self):
            super().close()
            raise ValueError("close failed")

    start_response("200 OK", [("Content-Length", "2")])
    return Failing(environ["QUERY_STRING"], [b"a", b"b"])


@route
def closing_waits(environ, start_response):
    """close() waits for the file that the query names."""

    class Waiting(Closing):
        def close(self):
            wait_for(self.name)
            super().close()

    start_response("200 OK", [("Content-Length", "2")])
    return Waiting(environ["QUERY_STRING"], [b"a", b"b"])


@route
def endless(environ, start_response):
    start_response("200 OK", [])

    def blocks():
        while True:
            yield b"x" * 65536

    return Closing(environ["QUERY_STRING"], blocks())


@route
def never_ends(environ, start_response):
    """Blocks for ever, with a head that says how many the client gets: status and Content-Length of the query."""
    name, status, length = environ["QUERY_STRING"].split(",")
    start_response(f"{status} OK", [("Content-Length", length)] if length else [("Content-Type", "text/event-stream")])
    return Closing(name, itertools.repeat(b"block "))


@route
def never_gives(environ, start_response):
    """Empty blocks for ever; the query names them."""
    name = environ["QUERY_STRING"]
    start_response("200 OK", [("Content-Type", "text/event-stream")])

    def blocks():
        CLOSED.append(f"{name} begun")
        while True:
            yield b""
            time.sleep(0.01)

    return Closing(name, blocks())


@route
def large(environ, start_response):
    count = int(environ["QUERY_STRING"])
    return text(start_response, b"0123456789abcdef" * (count // 16))


@route
def fields(environ, start_response):
    start_response(
        "200 Fine & dandy", [("X-One", "1"), ("Set-Cookie", "a=1"), ("Set-Cookie", "b=2"), ("X-Caf", "caf\xe9")]
    )
    return [b"ok"]


@route
def hop_by_hop(environ, start_response):
    start_response(
        "200 OK",
        [
            ("Connection", "keep-alive"),
            ("Transfer-Encoding", "chunked"),
            ("Keep-Alive", "x"),
            ("Upgrade", "x"),
            ("Proxy-Authenticate", "Basic"),
            ("Proxy-Authorization", "Basic x"),
            ("X-A", "1"),
        ],
    )
    return [b"ok"]


@route
def frames_itself(environ, start_response):
    """Chunks of its own, in the way that the query names, or data without chunks."""
    blocks = [b"5\r\nhello\r\n", b"0\r\n\r\n"]
    how = environ["QUERY_STRING"]
    write = start_response("200 OK", [("Content-Type", "text/plain"), ("Transfer-Encoding", "chunked")])
    if how == "data":
        return [b"hello"]
    if how == "write":
        for block in blocks:
            write(block)
        return []
    return blocks if how == "list" else iter(blocks)


@route
def own_fields(environ, start_response):
    start_response("200 OK", [("Date", "Thu, 01 Jan 1970 00:00:00 GMT"), ("Server", "mine"), ("Content-Length", "2")])
    return [b"ok"]


@route
def says_close(environ, start_response):
    start_response("200 OK", [("Connection", "close"), ("Content-Length", "2")])
    return [b"ok"]


@route
def one_block(environ, start_response):
    """len() is 1, so the length is known although nobody said it."""

    class One:
        def __len__(self):
            return 1

        def __iter__(self):
            return iter([b"just one"])

    start_response("200 OK", [])
    return One()


# Files.


@route
def file(environ, start_response):
    """Serve the file that the query names, from the offset behind a comma."""
    name, _, offset = environ["QUERY_STRING"].partition(",")
    handle = open(name, "rb")
    handle.seek(int(offset or 0))
    start_response("200 OK", [("Content-Type", "application/octet-stream")])
    return environ["wsgi.file_wrapper"](handle)


@route
def file_with_length(environ, start_response):
    name, _, length = environ["QUERY_STRING"].partition(",")
    start_response("200 OK", [("Content-Length", length)])
    return environ["wsgi.file_wrapper"](open(name, "rb"), 8192)


@route
def temporary_file(environ, start_response):
    handle = tempfile.TemporaryFile()
    handle.write(b"temporary")
    handle.seek(4)
    start_response("200 OK", [])
    return environ["wsgi.file_wrapper"](handle)


@route
def file_like(environ, start_response):
    class Noted(io.BytesIO):
        def close(self):
            CLOSED.append("file_like")
            super().close()

    start_response("200 OK", [])
    return environ["wsgi.file_wrapper"](Noted(b"y" * 100_000), 1000)


@route
def named_arguments_of_file(environ, start_response):
    """A file wrapper as that of wsgiref is made, which tells how it was made."""
    wrapper = environ["wsgi.file_wrapper"](filelike=open(environ["QUERY_STRING"], "rb"), blksize=3)
    start_response("200 OK", [("X-Size", str(wrapper.blksize))])
    return wrapper


@route
def compressed_file(environ, start_response):
    """A file whose bytes are not those of its descriptor."""
    import gzip

    start_response("200 OK", [])
    return environ["wsgi.file_wrapper"](gzip.open(environ["QUERY_STRING"], "rb"))


# Input.


@route
def read_input(environ, start_response):
    """Read the body as the query says: a list of calls such as readline(3)."""
    stream, results = environ["wsgi.input"], []
    for call in environ["QUERY_STRING"].split(";"):
        name, _, argument = call.partition("(")
        argument = argument.rstrip(")")
        if name == "iterate":
            value = list(stream)
        else:
            value = getattr(stream, name)(*([int(argument)] if argument else []))
        results.append([item.decode() for item in value] if isinstance(value, list) else value.decode())
    return text(start_response, json.dumps(results).encode())


@route
def wrapped_input(environ, start_response):
    """Lines of the body through what the standard library puts around a binary stream."""
    with environ["wsgi.input"] as stream:
        first = stream.read(size=2)
        lines = list(io.TextIOWrapper(io.BufferedReader(stream), "utf-8"))
    return text(start_response, json.dumps([first.decode(), *lines]).encode())


@route
def count_input(environ, start_response):
    total = 0
    while block := environ["wsgi.input"].read(65536):
        total += len(block)
    return text(start_response, f"{total} {environ.get('CONTENT_LENGTH')}".encode())


@route
def ignore_input(environ, start_response):
    return text(start_response, b"ignored")


@route
def streamed(environ, start_response):
    """Note what reading a body that breaks off raises."""
    try:
        data = environ["wsgi.input"].read()
        CLOSED.append(f"read {len(data)}")
    except OSError as error:
        CLOSED.append(f"OSError {type(error).__name__} {error}")
        raise
    return text(start_response, data[:100])


@route
def errors(environ, start_response):
    environ["wsgi.errors"].write("a line for the log \u2713\n")
    environ["wsgi.errors"].writelines(["two ", "parts\n"])
    environ["wsgi.errors"].flush()
    print("printed", file=sys.stdout, flush=True)
    return text(start_response, b"ok")


@route
def errors_as_file(environ, start_response):
    """What loggers and terminal libraries ask the stream for."""
    stream = environ["wsgi.errors"]
    try:
        descriptor = stream.fileno()
    except io.UnsupportedOperation:
        descriptor = None
    stream.close()
    print("still open", file=stream)
    seen = [stream.isatty(), stream.closed, stream.writable(), stream.readable(), stream.seekable(), descriptor]
    return text(start_response, json.dumps([*seen, stream.encoding, stream.errors, stream.name, stream.mode]).encode())


# Failures.


@route
def raises(environ, start_response):
    raise ValueError("before start_response")


@route
def raises_after_start(environ, start_response):
    start_response("200 OK", [("X-Gone", "1")])
    raise ValueError("after start_response")


@route
def raises_in_first_block(environ, start_response):
    start_response("200 OK", [])
    raise ValueError("in the first block")
    yield b""


@route
def raises_between_blocks(environ, start_response):
    start_response("200 OK", [] if environ["QUERY_STRING"] != "length" else [("Content-Length", "100")])

    def blocks():
        yield b"some of it"
        if environ["QUERY_STRING"] == "slow":
            time.sleep(0.5)
        raise ValueError("between blocks")

    return Closing("raises_between_blocks", blocks())


@route
def pieces(environ, start_response):
    start_response("200 OK", [("X-Accel-Buffering", "no")])
    yield b"first\n"
    # Its client makes the file when it has that.
    wait_for(environ["QUERY_STRING"])
    yield b"second\n"


@route
def replaces_headers(environ, start_response):
    start_response("200 OK", [("X-Old", "1")])
    try:
        raise ValueError("replaced")
    except ValueError:
        start_response("500 Replaced", [("X-New", "1"), ("Content-Length", "3")], sys.exc_info())
        return [b"new"]


@route
def replaces_too_late(environ, start_response):
    write = start_response("200 OK", [("X-Old", "1")])
    write(b"sent")
    try:
        raise ValueError("too late")
    except ValueError:
        start_response("500 Replaced", [], sys.exc_info())
        return [b"never"]


def raising(exception):
    def fail(environ, start_response):
        raise exception

    return fail


for exception in (SystemExit(3), KeyboardInterrupt(), MemoryError(), GeneratorExit(), StopIteration()):
    ROUTES["/" + type(exception).__name__] = raising(exception)


@route
def RecursionError_(environ, start_response):
    return RecursionError_(environ, start_response)


@route
def unprintable(environ, start_response):
    class Unprintable(Exception):
        def __str__(self):
            raise ValueError("no text")

    raise Unprintable


def responding(status="200 OK", headers=(), body=(b"x",)):
    def response(environ, start_response):
        start_response(status, headers)
        return body

    return response


BAD_RESPONSES = {
    "status_20": responding(status="20"),
    "status_2000": responding(status="2000 OK"),
    "status_text": responding(status="OK"),
    "status_int": responding(status=200),
    "status_crlf": responding(status="200 OK\r\nX-Injected: 1"),
    "status_control": responding(status="200 O\x07K"),
    "status_not_latin1": responding(status="200 \u2713"),
    "status_informational": responding(status="100 Continue"),
    "headers_none": responding(headers=None),
    "headers_dict": responding(headers={"AB": "b"}),
    "headers_str": responding(headers="AB"),
    "header_not_a_pair": responding(headers=[("A", "b", "c")]),
    "header_str": responding(headers=["AB"]),
    "header_int": responding(headers=[("A", 1)]),
    "header_bytes": responding(headers=[(b"A", "b")]),
    "header_crlf": responding(headers=[("A", "b\r\nX-Injected: 1")]),
    "header_lf": responding(headers=[("A", "b\nX-Injected: 1")]),
    "header_nul": responding(headers=[("A", "b\0")]),
    "header_not_latin1": responding(headers=[("A", "\u2713")]),
    "header_name_space": responding(headers=[("A B", "b")]),
    "header_name_colon": responding(headers=[("A:", "b")]),
    "header_name_empty": responding(headers=[("", "b")]),
    "header_name_not_latin1": responding(headers=[("\u2713", "b")]),
    "length_text": responding(headers=[("Content-Length", "x")]),
    "length_plus": responding(headers=[("Content-Length", "+1")]),
    "length_twice": responding(headers=[("Content-Length", "1"), ("Content-Length", "2")]),
    "body_str": responding(body=["text"]),
    "body_text": responding(body="text"),
    "body_bytes": responding(body=b"bytes"),
    "body_none": responding(body=None),
    "body_int": responding(body=[1]),
    "body_later_str": responding(body=(item for item in ["text"])),
}
ROUTES.update({"/bad/" + name: function for name, function in BAD_RESPONSES.items()})


@route
def no_start(environ, start_response):
    return [b"without a head"]


@route
def starts_twice(environ, start_response):
    start_response("200 OK", [])
    start_response("200 OK", [])
    return [b"x"]


@route
def by_name(environ, start_response):
    names = {"response_headers": [("Content-Type", "text/plain")]}
    if environ["QUERY_STRING"] == "headers":
        names = {"headers": names["response_headers"]}
    start_response(status="200 OK", exc_info=None, **names)(data=b"by ")
    return [b"name"]


@route
def headers_as(environ, start_response):
    """Headers in another container than the list of tuples that PEP 3333 wants."""
    headers = {"X-A": "1", "X-B": "2"}
    made = {
        "tuple": tuple(headers.items()),
        "items": headers.items(),
        "iterator": iter(headers.items()),
        "lists": [list(pair) for pair in headers.items()],
    }
    start_response("200 OK", made[environ["QUERY_STRING"]])
    return [b"ok"]


@route
def end_of_file(environ, start_response):
    """The last bytes of a large file, as frameworks send a part: they ask whether the wrapper can seek."""
    with open(environ["QUERY_STRING"], "rb", buffering=0) as handle:
        wrapper = environ["wsgi.file_wrapper"](handle)
        assert wrapper.seekable()
        wrapper.seek(-10, os.SEEK_END)
        start_response("200 OK", [("Content-Type", "text/plain"), ("X-Place", str(wrapper.tell()))])
        return [next(wrapper)]


# The validator of the standard library.


def _validated(environ, start_response):
    stream = environ["wsgi.input"]
    body = stream.read(int(environ.get("CONTENT_LENGTH") or 0)) if environ.get("CONTENT_LENGTH") else b""
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"valid ", body]


ROUTES["/valid"] = validator(_validated)
