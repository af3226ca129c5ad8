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
    """Reads a body whole and answers how long it was."""
    length = str(len(environ["wsgi.input"].read())).encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(length)))])
    return [length]
