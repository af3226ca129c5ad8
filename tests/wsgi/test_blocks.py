"""When the blocks of a response leave: together with those that follow them soon, but never later than PEP 3333 allows
("Buffering and Streaming"), and seen by no application. The applications are in tests/apps/blocks.py."""

import contextlib
import json
import socket
import sys

import gateways
import pytest
from conftest import APPS, Served
from gateways import STDOUT, fastcgi, records, scgi, uwsgi, variables
from http2_frames import Client, Reset, plain
from other_servers import certificate
from secure import Secure

sys.path.insert(0, str(APPS))
from blocks import blocks

PROTOCOLS = ["http", "https", "http2", "scgi", "uwsgi", "fastcgi"]
KINDS = ["threads", "greenlets"]


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    return certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture(scope="module", params=KINDS)
def served(request, tmp_path_factory, pair):
    """One server that speaks everything."""
    schemes = ["http", "https", "scgi", "uwsgi", "fastcgi"]
    binds = [part for scheme in schemes for part in ("--bind", f"{scheme}://127.0.0.1:0")]
    around = ["-c", pair[0], "-k", pair[1], "--stream-paths", "/streamed"]
    kind = ["--concurrency", "gevent"] if request.param == "greenlets" else ["--threads", "4"]
    served = Served([APPS / "blocks.py", *binds, *around, *kind], tmp_path_factory.mktemp("served"))
    served.kind = request.param
    try:
        yield served.wait_ready()
    finally:
        served.kill()


class Reader:
    """The body of one response over a protocol, as it arrives."""

    def __init__(self, served, protocol, target, pair):
        self.protocol = protocol
        place = {"http": 0, "http2": 0, "https": 1, "scgi": 2, "uwsgi": 3, "fastcgi": 4}[protocol]
        address = served.addresses[place]
        if protocol == "http2":
            self.connection = Client(plain(address))
            self.stream = self.connection.begin("GET", target)
            return
        self.connection = Secure(address, pair[0]) if protocol == "https" else served.connect(address)
        if protocol in ("http", "https"):
            self.connection.send(f"GET {target} HTTP/1.1\r\nHost: test\r\n\r\n")
        else:
            pack = {"scgi": scgi, "uwsgi": uwsgi, "fastcgi": fastcgi}[protocol]
            self.connection.send(pack(variables("GET", target)))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        (self.connection.socket if self.protocol == "http2" else self.connection).close()

    def wait_for(self, text):
        """Wait until the body has arrived up to this, without its end."""
        while text not in self.arrived():
            assert self.more(), self.arrived()

    def more(self):
        return self.connection.pump() if self.protocol == "http2" else self.connection.more()

    def arrived(self):
        if self.protocol == "http2":
            response = self.connection.responses.get(self.stream)
            return b"".join(response.chunks) if response else b""
        if self.protocol == "fastcgi":
            return b"".join(data for kind, _, data in records(self.connection.buffer)[0] if kind == STDOUT)
        return self.connection.buffer

    def whole(self):
        """The body, and whether its end came."""
        if self.protocol == "http2":
            try:
                return self.connection.wait(self.stream).body, True
            except Reset as reset:
                return reset.response.body if reset.response else b"", False
        if self.protocol in ("http", "https"):
            response = self.connection.response()
            return response.body, response.whole
        whole = True
        try:
            while self.more():
                pass
        except ConnectionResetError:
            whole = False
        if self.protocol == "fastcgi":
            whole = any(kind == gateways.END for kind, _, _ in records(self.connection.buffer)[0])
        return self.arrived().partition(b"\r\n\r\n")[2], whole


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_blocks_arrive_while_the_application_makes_the_next_one(served, gate, pair, protocol):
    with Reader(served, protocol, f"/gated?gate={gate.name}", pair) as reader:
        gate.wait_for(1)
        reader.wait_for(b"first\n")
        gate.let_one_go()
        gate.wait_for(2)
        # Also those that were made after it was slow once.
        reader.wait_for(b"third\n")
        gate.let_one_go()
        body, whole = reader.whole()
        assert (body, whole) == (b"first\nsecond\nthird\nlast\n", True)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_blocks_of_all_sizes_arrive_whole_and_in_order(served, pair, protocol):
    with Reader(served, protocol, "/many", pair) as reader:
        assert reader.whole() == (b"".join(blocks()), True)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_what_is_written_between_blocks_keeps_its_place(served, pair, protocol):
    with Reader(served, protocol, "/written_between", pair) as reader:
        expected = b"".join(b"yielded %d\nwritten %d\n" % (number, number) for number in range(5))
        assert reader.whole() == (expected, True)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_an_exception_breaks_a_response_of_which_blocks_wait(served, pair, protocol):
    with Reader(served, protocol, "/fails", pair) as reader, contextlib.suppress(ConnectionResetError):
        body, whole = reader.whole()
        assert not whole
        # A reset of a connection may take what was sent along.
        assert body == b"one\ntwo\n" if protocol == "http2" else b"one\ntwo\n".startswith(body)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_after_its_first_block_the_head_is_sent(served, pair, protocol):
    with Reader(served, protocol, "/late_head", pair) as reader:
        assert reader.whole() == (b"one\ntoo late", True)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_all_blocks_arrive_before_close_returns(served, gate, pair, protocol):
    with Reader(served, protocol, f"/closes_at?gate={gate.name}", pair) as reader:
        gate.wait_for(1)
        reader.wait_for(b"two\n")
        gate.let_one_go()
        assert reader.whole() == (b"one\ntwo\n", True)


@pytest.mark.parametrize("length", ["", "&length=8"])
def test_all_blocks_have_left_before_close(served, tmp_path, length):
    with served.connect() as connection:
        connection.send(f"GET /left_at_close?file={tmp_path}/left{length} HTTP/1.1\r\nHost: test\r\n\r\n")
        served.wait_until(lambda: (tmp_path / "left").is_file() and (tmp_path / "left").read_text(), "close()")
        assert int((tmp_path / "left").read_text()) > len(b"one\ntwo\n")
        assert connection.response().body == b"one\ntwo\n"


def ask_and_read_nothing(served, target):
    """The response, read only when all of it has come."""
    with served.connect() as connection:
        connection.send(f"GET {target} HTTP/1.1\r\nHost: test\r\n\r\n")
        while not connection.socket.recv(65536, socket.MSG_PEEK).endswith(b"\r\n0\r\n\r\n"):
            pass
        return connection.response()


@pytest.mark.parametrize("target", ["/left?type=text/event-stream", "/left?type=Text/Event-Stream;charset=utf-8"])
def test_an_event_has_left_before_the_next_is_made(served, target):
    event, count = ask_and_read_nothing(served, target).chunks
    assert event == b"data: event\n\n"
    assert int(count.split()[1]) > len(event)


def test_a_block_of_a_streamed_path_has_left_before_the_next_is_made(serve):
    served = serve(APPS / "blocks.py", "--stream-paths", "/left")
    assert int(ask_and_read_nothing(served, "/left").chunks[1].split()[1]) > len(b"data: event\n\n")


def test_what_is_written_has_left_when_write_returns(served):
    response = ask_and_read_nothing(served, "/left_after_write")
    assert response.body.startswith(b"written\n")
    assert int(response.body.split()[1]) > len(b"written\n")


def test_blocks_for_http_1_0_end_with_the_connection(served):
    with served.connect() as connection:
        response = connection.ask("GET", "/many", version="HTTP/1.0")
        assert (response.body, response.whole) == (b"".join(blocks()), True)
        assert response["content-length"] is response["transfer-encoding"] is None


def test_an_exception_resets_http_1_0_and_other_blocks_have_left(served):
    with served.connect() as connection:
        response = connection.ask("GET", "/fails", version="HTTP/1.0")
        assert not response.whole
        assert response.body == b"one\ntwo\n"


def test_head_has_no_blocks_and_the_connection_stays(served):
    with served.connect() as connection:
        response = connection.ask("HEAD", "/many")
        assert response.status == 200
        assert connection.ask("GET", "/many").body == b"".join(blocks())


def test_all_bytes_of_blocks_are_logged(serve, tmp_path):
    served = serve(APPS / "blocks.py", "--access-log", tmp_path / "log", "--access-log-format", "json")
    served.get("/many")
    served.get("/many", method="HEAD")
    served.wait_until(lambda: (tmp_path / "log").read_text().count("\n") == 2, "two lines in the log")
    count = sum(map(len, blocks()))
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert [line["body_bytes"] for line in lines] == [count, 0]


def test_a_client_that_leaves_ends_a_response_in_blocks(serve, gate):
    served = serve(APPS / "blocks.py", "--threads", "1")
    with served.connect() as connection:
        connection.send(f"GET /gated?gate={gate.name} HTTP/1.1\r\nHost: test\r\n\r\n")
        gate.wait_for(1)
        connection.reset()
    gate.let_one_go()
    gate.open()
    assert served.get("/other").body == b"/other"
