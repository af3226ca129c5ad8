"""The applications that do nothing but what is measured."""

import time

LARGE = b"x" * 100_000


def hello(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "13")])
    return [b"Hello, World!"]


def large(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(LARGE)))])
    return [LARGE]


def mixed(environ, start_response):
    if environ["PATH_INFO"] == "/slow":
        time.sleep(0.1)
    return hello(environ, start_response)


def sleeping(environ, start_response):
    time.sleep(1)
    return hello(environ, start_response)


def waiting(environ, start_response):
    time.sleep(0.0005)
    return hello(environ, start_response)


def post(environ, start_response):
    """Reads a body whole and responds with its length."""
    length = str(len(environ["wsgi.input"].read())).encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(length)))])
    return [length]


HUGE = b"x" * 10_000_000
SHORT = [b"a short block, line %02d\n" % number for number in range(20)]
BLOCK = b"x" * 16_384


def ten_megabytes(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(HUGE)))])
    return [HUGE]


def short_blocks(environ, start_response):
    """A generator of 20 short blocks, without a length."""
    start_response("200 OK", [("Content-Type", "text/plain")])
    yield from SHORT


def streamed(environ, start_response):
    """1 MB in blocks of 16 KB, without a length."""
    start_response("200 OK", [("Content-Type", "text/plain")])
    for _ in range(64):
        yield BLOCK
