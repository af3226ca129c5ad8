"""Requests leave no Python objects behind: after hundreds of a kind a worker has as many as before."""

import itertools
import time

import http2_frames
import pytest
from waiting import PATIENCE
from websocket_frames import CLOSE, TEXT, Client, frame, handshake

APP = """
import gc, sys

class Failure(Exception):
    pass

class File:
    def __init__(self):
        self.blocks = [b"file"]

    def read(self, size=-1):
        return self.blocks.pop() if self.blocks else b""

def app(environ, start_response):
    path, socket = environ["PATH_INFO"], environ.get("wsgi.websocket")
    if path == "/objects":
        gc.collect()
        start_response("200 OK", [])
        return [str(sys.getallocatedblocks()).encode()]
    if path == "/failure":
        raise Failure
    if path == "/refused":
        start_response("403 Forbidden", [])
        return [b"no"]
    if socket:
        while (message := socket.receive()) is not None:
            if path == "/failing":
                raise Failure
            socket.send(message)
        return []
    if path == "/write":
        start_response("200 OK", [])(b"written")
        return []
    if path == "/replaced":
        start_response("200 OK", [])
        try:
            raise Failure
        except Failure:
            start_response("500 Failed", [], sys.exc_info())
        return [b"replaced"]
    if path == "/file":
        file = File()
        file.wrapper = environ["wsgi.file_wrapper"](file)
        start_response("200 OK", [])
        return file.wrapper
    if path == "/kept":
        environ["all"] = environ, start_response, environ["wsgi.input"], environ["wsgi.errors"]
    if "wsgi.early_hints" in environ:
        environ["wsgi.early_hints"]([("Link", "</a.css>; rel=preload")])
    environ["wsgi.input"].read()
    start_response("200 OK", [])
    return (block for block in [b"blocks"])
"""
COUNT = 100
ROUNDS = 4


def opened(served, path):
    with Client(served.address) as client:
        client.open(path).send(frame(TEXT, b"hello"))
        client.frame()
        client.send(frame(CLOSE))
        client.rest()


def refused(served, path):
    with served.connect() as connection:
        connection.send(handshake(path))
        assert connection.response().status == 403


def whole(served, path):
    served.get(path, method="POST", body=b"body")


def over_http2(served, path):
    with http2_frames.Client(http2_frames.plain(served.address)) as client:
        client.ask("POST", path, body=b"body")


KINDS = [
    (opened, "/opened"),
    (opened, "/failing"),
    (refused, "/refused"),
    *((whole, path) for path in ("/", "/streamed", "/failure", "/write", "/replaced", "/file", "/kept")),
    *((over_http2, path) for path in ("/", "/streamed")),
]


@pytest.mark.parametrize("concurrency", ["threads", "gevent"])
def test_requests_leave_no_objects_behind(serve, tmp_path, concurrency):
    (tmp_path / "app.py").write_text(APP)
    served = serve("app:app", "--concurrency", concurrency, "--threads", "1", "--stream-paths", "/streamed")

    def objects():
        return int(served.get("/objects").body)

    def growth(counts):
        """What is made once and kept grows in some rounds, and what is left behind in all of them."""
        return min(after - before for before, after in itertools.pairwise(counts))

    left = {}
    for ask, path in KINDS:
        counts = [objects()]
        for _ in range(ROUNDS):
            for _ in range(COUNT):
                ask(served, path)
            counts.append(objects())
        # The thread that watches for unused WebSockets lets go of each after a second.
        deadline = time.monotonic() + PATIENCE
        while growth(counts) > COUNT / 2 and time.monotonic() < deadline:
            counts[-1] = objects()
        left[ask.__name__, path] = growth(counts)
    assert {kind: count for kind, count in left.items() if count > COUNT / 2} == {}
