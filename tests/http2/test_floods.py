"""Clients that make work for nothing: each is sent away with bounded memory, others are served, honest ones stay."""

import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from conftest import APPS, Served
from http2_frames import (
    ACK,
    CANCEL,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    ENHANCE_YOUR_CALM,
    FLOW_CONTROL_ERROR,
    GOAWAY,
    HEADERS,
    PADDED,
    PING,
    PRIORITY,
    PROTOCOL_ERROR,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    Client,
    Raw,
    frame,
    head,
    plain,
)

MANY = 6000
MB = 1_000_000
CANCELLED = CANCEL.to_bytes(4, "big")


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    served = Served(
        [APPS / "contract.py", "--port", "0", "--threads", "2", "--queue-max", "0", "--queue-timeout", "10m"],
        tmp_path_factory.mktemp("floods"),
    ).wait_ready()
    yield served
    served.kill()


def rss(pid):
    return int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1]) * 1024


def streams(raw, count, path="/pid"):
    """Heads of requests on one stream after another."""
    first = raw.request(1, path=path)
    rest = raw.request(3, path=path)
    yield first, 1
    for number in range(1, count):
        stream = 2 * number + 1
        yield rest[:5] + stream.to_bytes(4, "big") + rest[9:], stream


def rapid_reset(raw):
    for request, stream in streams(raw, MANY):
        yield request + frame(RST_STREAM, 0, stream, CANCELLED)


def slow_reset(raw):
    """The same, where each request reaches a thread before it is reset."""
    for request, stream in streams(raw, MANY, "/sleep?0.01"):
        yield request
        yield frame(RST_STREAM, 0, stream, CANCELLED)


def made_to_reset(raw):
    """Streams that the server itself must reset (CVE-2025-8671)."""
    for request, stream in streams(raw, MANY, "/sleep?0.01"):
        yield request + frame(WINDOW_UPDATE, 0, stream, bytes(4))


def made_to_reset_by_bodies(raw):
    for request, stream in streams(raw, MANY, "/sleep?0.01"):
        yield request + frame(DATA, END_STREAM, stream, b"x")


def more_streams_than_allowed(raw):
    for request, _ in streams(raw, MANY, "/sleep?1"):
        yield request


def open_stream(raw):
    return raw.request(1, end=False, method="POST", path="/echo")


def compressed(raw):
    """One field of 4 KB, named ten thousand times (an HPACK bomb)."""
    yield raw.request(1)
    block = raw.encoder.encode(head(path="/pid"))
    block += b"\x40\x03x-a\x7f\x89\x1e" + b"a" * 4000 + b"\xbe" * 12000
    for stream in range(3, 203, 2):
        yield frame(HEADERS, END_STREAM | END_HEADERS, stream, block[:16384])
        block = b"\x82\x86\x84" + b"\xbe" * 16000


def endless_fields(raw, piece):
    yield frame(HEADERS, END_STREAM, 1, raw.encoder.encode(head()))
    for _ in range(MANY):
        yield frame(CONTINUATION, 0, 1, piece)


FLOODS = {
    "rapid_reset": rapid_reset,
    "slow_reset": slow_reset,
    "made_to_reset": made_to_reset,
    "made_to_reset_by_bodies": made_to_reset_by_bodies,
    "more_streams_than_allowed": more_streams_than_allowed,
    "pings": lambda raw: [frame(PING, 0, 0, bytes(8))] * MANY,
    "no_response_to_pings": lambda raw: [frame(PING, ACK, 0, bytes(8))] * MANY,
    "settings": lambda raw: [frame(SETTINGS)] * MANY,
    "settings_with_content": lambda raw: [frame(SETTINGS, 0, 0, b"\0\4\0\0\0\1" * 100)] * MANY,
    "priorities": lambda raw: [frame(PRIORITY, 0, 3, bytes(5))] * MANY,
    "empty_data": lambda raw: [open_stream(raw), *[frame(DATA, 0, 1)] * MANY],
    "padded_empty_data": lambda raw: [open_stream(raw), *[frame(DATA, PADDED, 1, b"\x05" + bytes(5))] * MANY],
    "resets_of_one_stream": lambda raw: [raw.request(1), *[frame(RST_STREAM, 0, 1, CANCELLED)] * MANY],
    "empty_continuations": lambda raw: endless_fields(raw, b""),
    "small_continuations": lambda raw: endless_fields(raw, b"\x00\x01a\x01b"),
    "large_continuations": lambda raw: endless_fields(raw, b"\x00\x01a\x7f\x81\x7e" + b"b" * 16256),
    "data_of_a_stream_that_was_reset": lambda raw: [
        open_stream(raw),
        frame(RST_STREAM, 0, 1, CANCELLED),
        *[frame(DATA, 0, 1, b"x")] * MANY,
    ],
    "windows": lambda raw: [frame(WINDOW_UPDATE, 0, 0, b"\0\0\0\1")] * MANY,
    "windows_of_a_stream": lambda raw: [open_stream(raw), *[frame(WINDOW_UPDATE, 0, 1, b"\0\0\0\1")] * MANY],
    "unknown": lambda raw: [frame(0xFA, 0, 0, b"anything")] * MANY,
    "wide_windows": lambda raw: [frame(WINDOW_UPDATE, 0, 0, b"\x7f\xff\xff\xff")] * 2,
}


@pytest.mark.parametrize("flood", FLOODS)
def test_floods_end(served, flood):
    worker = served.workers()[0]
    with Client(plain(served.address)) as other, Raw(plain(served.address)) as raw, ThreadPoolExecutor(1) as pool:
        assert other.ask("GET", "/pid").status == 200
        before, said = rss(worker), len(served.log())

        def send():
            batch = b""
            for piece in FLOODS[flood](raw):
                batch += piece
                if len(batch) > 8000 or flood == "slow_reset":
                    raw.try_send(batch)
                    batch = b""
            raw.try_send(batch)

        sending = pool.submit(send)
        code = raw.end()
        assert code in (ENHANCE_YOUR_CALM, PROTOCOL_ERROR, FLOW_CONTROL_ERROR)
        assert rss(worker) - before < 40 * MB
        raw.socket.close()
        sending.result()
        assert other.ask("GET", "/pid").status == 200
        assert len(served.log()) - said < 2000
    assert served.workers() == [worker]


def test_fields_that_decode_to_much(served):
    worker = served.workers()[0]
    before = rss(worker)
    with Raw(plain(served.address)) as raw:
        for piece in compressed(raw):
            raw.try_send(piece)
        raw.try_send(frame(PING, 0, 0, b"finished"))
        responses = []
        while (found := raw.next()) is not None and found[0] not in (PING, GOAWAY):
            responses.append(found[0])
        # Refused one by one, or the connection ended.
        assert HEADERS in responses or found is None or found[0] == GOAWAY
    assert rss(worker) - before < 20 * MB
    with Client(plain(served.address)) as client:
        assert client.ask("GET", "/pid").status == 200


def test_windows_opened_byte_by_byte(served):
    """A client that makes one frame of each byte (CVE-2019-9511)."""
    worker = served.workers()[0]
    before = rss(worker)
    with Raw(plain(served.address)) as raw, Client(plain(served.address)) as other:
        raw.send(frame(SETTINGS, 0, 0, b"\0\4\0\0\0\0"))
        raw.send(b"".join(raw.request(2 * number + 1, path="/large?1000000") for number in range(50)))
        for _ in range(200):
            for number in range(50):
                raw.send(frame(WINDOW_UPDATE, 0, 2 * number + 1, b"\0\0\0\1"))
            waiting = {2 * number + 1 for number in range(50)}
            while waiting:
                kind, _, stream, payload = raw.next()
                if kind == DATA:
                    assert len(payload) == 1
                    waiting.remove(stream)
        assert other.ask("GET", "/pid").status == 200
        assert rss(worker) - before < 80 * MB


# Honest clients.


def h2load(served, *arguments, path="/pid"):
    host, port = served.address
    command = ["h2load", *arguments, f"http://{host}:{port}{path}"]
    said = subprocess.run(command, capture_output=True, text=True, timeout=1700, check=True).stdout
    return dict(reversed(pair.split()) for pair in re.search(r"requests: (.*)", said)[1].split(","))


def test_many_requests_are_no_flood(served):
    counts = h2load(served, "-n", "20000", "-c", "5", "-m", "50")
    assert (counts["succeeded"], counts["failed"], counts["errored"]) == ("20000", "0", "0")


def test_large_fields_are_no_flood(served):
    """Each request takes several frames."""
    counts = h2load(served, "-n", "600", "-c", "1", "-m", "50", "-H", "cookie: " + "x" * 40_000)
    assert counts["succeeded"] == "600"


def test_uploads_are_no_flood(served, tmp_path):
    (tmp_path / "body").write_bytes(b"x" * 70_000)
    counts = h2load(served, "-n", "2000", "-c", "2", "-m", "20", "-d", tmp_path / "body", path="/count_input")
    assert counts["succeeded"] == "2000"


def test_downloads_are_no_flood(served):
    """Each piece of data opens two windows."""
    with Client(plain(served.address)) as client:
        for _ in range(4):
            assert len(client.ask("GET", "/large?20000000").body) == 20_000_000
        assert client.ask("GET", "/pid").status == 200


def test_a_browser_that_leaves_pages_is_no_flood(served):
    with Client(plain(served.address)) as client:
        for _ in range(10):
            assert client.ask("GET", "/pid").status == 200
            images = [client.begin("GET", "/sleep?0.001") for _ in range(90)]
            for stream in images:
                client.reset(stream)
        assert client.ask("GET", "/pid").status == 200


def test_requests_and_resets_in_one_packet(served):
    """As after a gap in the network."""
    with Raw(plain(served.address)) as raw:
        sent = b""
        for request, stream in streams(raw, 95):
            sent += request + frame(RST_STREAM, 0, stream, CANCELLED)
        raw.send(sent + raw.request(201))
        assert raw.verdict(201) == ("response", 201)
