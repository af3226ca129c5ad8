"""An application with responses of all kinds; `application` is the same with policies of `anygate.toml` around it."""

import json
import os
import time

import anygate
import gates

TEXT = b"a line of text\n" * 1000
PIECES = [b"piece %d of the text\n" % number * 50 for number in range(20)]


def note(text):
    """Leave a word for the test, whichever process this is."""
    with open("notes", "a") as notes:
        notes.write(f"{text}\n")


class Noted:
    """An iterable that says when it is closed."""

    def __init__(self, name, blocks):
        self.name, self.blocks = name, iter(blocks)

    def __iter__(self):
        return self

    def __next__(self):
        return next(self.blocks)

    def close(self):
        note(f"closed {self.name}")


def slowly(blocks, seconds):
    for block in blocks:
        yield block
        time.sleep(seconds)


def is_ready():
    return not os.path.exists("ill")


def text(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/html"), ("ETag", '"text"')])
    return [TEXT]


def image(environ, start_response):
    start_response("200 OK", [("Content-Type", "image/png")])
    return (part for part in PIECES)


def announced(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(sum(map(len, PIECES))))])
    return iter(PIECES)


def streamed(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    yield from PIECES


def slow(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    yield b"first\n" * 50
    yield b""
    gates.wait_for(environ["QUERY_STRING"])
    yield b"second\n" * 50


def written(environ, start_response):
    write = start_response("200 OK", [("Content-Type", "text/plain")])
    for piece in PIECES[:10]:
        write(piece)
    return PIECES[10:]


def file(environ, start_response):
    start_response("200 OK", [("Content-Type", environ["QUERY_STRING"])])
    opened = open("files/page.html", "rb")
    wrapper = environ.get("wsgi.file_wrapper")
    return wrapper(opened) if wrapper else iter(lambda: opened.read(8192), b"")


def own(environ, start_response):
    start_response("200 OK", [("X-Frame-Options", "DENY"), ("X-Request-ID", "own"), ("Referrer-Policy", "no-referrer")])
    return [b"own"]


def seen(environ, start_response):
    """What the application sees."""
    start_response("200 OK", [("Content-Type", "application/json")])
    names = ("REMOTE_ADDR", "PATH_INFO", "SCRIPT_NAME", "QUERY_STRING", "wsgi.url_scheme")
    found = {key: value for key, value in environ.items() if key.startswith("HTTP_") or key in names}
    return [json.dumps(found).encode()]


def cached(environ, start_response):
    note(f"asked {environ['PATH_INFO']}")
    start_response("200 OK", [("Content-Type", "text/plain"), ("Cache-Control", "max-age=3600"), ("ETag", '"c"')])
    return [TEXT]


def long(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain"), ("Cache-Control", "max-age=3600")])
    return Noted("long", slowly([b"%d\n" % number * 5000 for number in range(20)], 0.05))


def fails(environ, start_response):
    raise ZeroDivisionError("on purpose")


def fails_late(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])

    def blocks():
        yield b"the beginning\n" * 100
        raise ZeroDivisionError("on purpose, but later")

    return Noted("fails-late", blocks())


def fails_first(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])

    def blocks():
        raise ZeroDivisionError("on purpose, at the first block")
        yield

    return Noted("fails-first", blocks())


def sorry(environ, start_response):
    """The error page of an application that changed its mind (PEP 3333, "Error Handling")."""
    start_response("200 OK", [("Content-Type", "text/plain")])
    try:
        raise ZeroDivisionError("on purpose")
    except ZeroDivisionError:
        import sys

        start_response("503 Service Unavailable", [("Content-Type", "text/plain")], sys.exc_info())
    return [b"sorry"]


def body(environ, start_response):
    received = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]) if environ.get("CONTENT_LENGTH") else -1)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"%d" % len(received)]


def endless(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return Noted("endless", (os.urandom(1 << 16) for _ in range(2000)))


def waits(environ, start_response):
    """Responds when the test says so."""
    note("waits")
    gates.wait_for("go")
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"waited"]


PAGES = {
    "text": text,
    "image": image,
    "announced": announced,
    "streamed": streamed,
    "slow": slow,
    "written": written,
    "file": file,
    "own": own,
    "seen": seen,
    "cached": cached,
    "long": long,
    "fails": fails,
    "fails-late": fails_late,
    "fails-first": fails_first,
    "sorry": sorry,
    "body": body,
    "endless": endless,
    "waits": waits,
}


def app(environ, start_response):
    page = PAGES.get(environ["PATH_INFO"].split("/")[1])
    if page is None:
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [environ["PATH_INFO"].encode("latin-1")]
    return page(environ, start_response)


if os.path.exists("anygate.toml"):
    application = anygate.wsgihandler(app, config="anygate.toml")
