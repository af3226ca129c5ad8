"""What contract.py does, and what only HTTP/2 asks for."""

import hashlib
import json

import contract
from contract import route, text
from gates import wait_at


def application(environ, start_response):
    return contract.application(environ, start_response)


@route
def digest(environ, start_response):
    """SHA-256 of the body."""
    seen = hashlib.sha256()
    while block := environ["wsgi.input"].read(65536):
        seen.update(block)
    return text(start_response, seen.hexdigest().encode())


@route
def mirror(environ, start_response):
    """The body, as it came."""
    return text(start_response, environ["wsgi.input"].read())


@route
def streamed(environ, start_response):
    """The body, each line as it comes."""
    start_response("200 OK", [])
    yield b">"
    while line := environ["wsgi.input"].readline(65536):
        yield line


@route
def in_blocks(environ, start_response):
    """As many bytes as the query says, in blocks."""
    start_response("200 OK", [])
    for _ in range(int(environ["QUERY_STRING"]) // 10_000):
        yield b"x" * 10_000


@route
def hints(environ, start_response):
    """Early hints, right and wrong ones."""
    give = environ.get("wsgi.early_hints")
    if give is None:
        return text(start_response, json.dumps({"offered": False}).encode())
    give([("Link", "</a.css>; rel=preload"), ("Link", "</b.js>; rel=preload")])
    if gate := environ["QUERY_STRING"]:
        wait_at(gate)
    wrong = []
    for headers in ({"AB": "b"}, ["AB"], [("A", 1)], [("A", "b\r\nX: y")], [("A B", "b")]):
        try:
            give(headers)
        except (TypeError, ValueError) as error:
            wrong.append(type(error).__name__)
    write = start_response("200 OK", [("Content-Type", "text/plain")])
    give([("Link", "</c.css>; rel=preload"), ("Content-Length", "5"), ("Connection", "close")])
    write(b" ")
    late = None
    try:
        give([("Link", "</d.css>; rel=preload")])
    except RuntimeError as error:
        late = type(error).__name__
    return [json.dumps({"wrong": wrong, "late": late}).encode()]
