"""Reloads and upgrades under load, with a long request, an upload and a WebSocket in flight: none fails."""

import os
import shutil
import signal
from contextlib import ExitStack

import pytest
from conftest import APPS
from load import Load
from versions import UNCACHED
from waiting import Gate
from websocket_frames import TEXT, Client, frame

KINDS = {
    "threads": (),
    "greenlets": ("--concurrency", "gevent"),
    "preload": ("--preload",),
    "preload-greenlets": ("--preload", "--concurrency", "gevent"),
}
SOAK = bool(os.environ.get("SOAK_SECONDS"))
#: What is sent, how often, and what the log says when it is done.
SIGNALS = {
    "reloads": (signal.SIGHUP, 50 if SOAK else 3, "reloaded: 2 new workers are serving"),
    "upgrades": (signal.SIGUSR2, 20 if SOAK else 3, " serves "),
}
APP = """
from gates import wait_at

def app(environ, start_response):
    if websocket := environ.get("wsgi.websocket"):
        while (message := websocket.receive()) is not None:
            websocket.send(message)
        return []
    if environ["QUERY_STRING"]:
        wait_at(environ["QUERY_STRING"])
    read = len(environ["wsgi.input"].read())
    start_response("200 OK", [])
    return [f"version {VERSION}, {read} bytes".encode()]
"""
HALF = b"x" * 300_000


def write(folder, version):
    (folder / "app.py").write_text(APP.replace("VERSION", str(version)))


class InFlight:
    """A request that waits, an upload that is half sent, and a WebSocket, of one version of the application."""

    def __init__(self, served, version, stack):
        self.version = version
        self.gate = stack.enter_context(Gate())
        self.long, self.upload = (stack.enter_context(served.connect()) for _ in range(2))
        self.websocket = stack.enter_context(Client(served.address))
        self.long.send(f"GET /?{self.gate.name} HTTP/1.1\r\nHost: a\r\n\r\n")
        self.gate.wait_for()
        head = f"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {2 * len(HALF)}\r\n\r\n"
        self.upload.send_read(head.encode() + HALF)
        self.websocket.open().send(frame(TEXT, b"hello"))
        assert self.websocket.frame() == (TEXT, b"hello")

    def finish(self):
        """End what is in flight, of which the old worker must have kept all."""
        assert self.websocket.close_code() == 1001
        self.upload.send(HALF)
        response = self.upload.response()
        assert (response.status, response.text) == (200, f"version {self.version}, {2 * len(HALF)} bytes")
        self.gate.open()
        response = self.long.response()
        assert (response.status, response.text) == (200, f"version {self.version}, 0 bytes")


@pytest.mark.timeout(1800 if not SOAK else 3600)
@pytest.mark.parametrize("signals", SIGNALS.values(), ids=SIGNALS)
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_nothing_fails_under_load(serve, tmp_path, kind, signals):
    number, count, done = signals
    shutil.copy(APPS / "gates.py", tmp_path)
    write(tmp_path, 1)
    options = ("--workers", "2", "--websocket-ping-interval", "1h")
    served = serve("app:app", *options, *kind, environment=UNCACHED)
    before = served.log().count(done)
    with Load(served) as load:
        for version in range(1, count + 1):
            with ExitStack() as stack:
                flying = InFlight(served, version, stack)
                write(tmp_path, version + 1)
                served.send_signal(number)
                served.wait_for_log(done, before + version)
                load.wait_for(20, f"version {version + 1}, 0 bytes")
                flying.finish()
    assert load.failures == []
    assert served.terminate() == 0
