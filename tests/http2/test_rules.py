"""The rules of RFC 9113 and RFC 7541, one by one: bytes that a client may or may not send, and what becomes of them.

What h2spec asks of a server is all here, so that it need not be installed.
"""

import os
import signal
import socket

import pytest
from conftest import APPS
from http2_frames import (
    ACK,
    CANCEL,
    COMPRESSION_ERROR,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    FLOW_CONTROL_ERROR,
    FRAME_SIZE_ERROR,
    GOAWAY,
    HEADERS,
    PADDED,
    PING,
    PREFACE,
    PRIORITIZED,
    PRIORITY,
    PROTOCOL_ERROR,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    STREAM_CLOSED,
    WINDOW_UPDATE,
    Raw,
    frame,
    head,
    plain,
)
from waiting import stop
from wire import send_read

BOTH = END_STREAM | END_HEADERS


def block(raw, fields=(), **parts):
    """A request's fields, compressed."""
    return raw.encoder.encode(head(fields=list(fields), **parts))


def listed(raw, *fields):
    """Exactly these fields."""
    return frame(HEADERS, BOTH, 1, raw.encoder.encode(list(fields)))


def setting(number, value):
    return number.to_bytes(2, "big") + value.to_bytes(4, "big")


def number(value):
    return value.to_bytes(4, "big")


def literal(raw, coded):
    """A request whose last field is coded by hand."""
    return frame(HEADERS, BOTH, 1, block(raw) + coded)


def post(raw, stream=1, fields=()):
    return raw.request(stream, end=False, method="POST", path="/echo", fields=list(fields))


def settled(raw):
    """One request that has its response already."""
    raw.send(raw.request(1))
    while (found := raw.next())[:3] != (DATA, END_STREAM, 1):
        assert found[0] != GOAWAY
    return b""


PSEUDO = [(":method", "GET"), (":scheme", "http"), (":authority", "test"), (":path", "/pid")]

# What is right, or must be borne: the request of the stream gets a response.
FINE = {
    "unknown frame": (1, lambda raw: frame(0xEE, 0xFF, 0, b"x" * 100) + frame(0xEE, 0, 7) + raw.request(1)),
    "undefined flags": (1, lambda raw: frame(PING, 0x16, 0, b"x" * 8) + raw.request(1)),
    "reserved bit": (1, lambda raw: frame(PING, 0, 1 << 31, b"x" * 8) + raw.request(1)),
    "unknown setting": (1, lambda raw: frame(SETTINGS, 0, 0, setting(0xEEEE, 1)) + raw.request(1)),
    "settings twice": (1, lambda raw: frame(SETTINGS, 0, 0, setting(4, 100) + setting(4, 200)) + raw.request(1)),
    "goaway": (1, lambda raw: raw.request(1) + frame(GOAWAY, 0, 0, bytes(8))),
    "goaway of an unknown error": (1, lambda raw: raw.request(1) + frame(GOAWAY, 0, 0, b"\0\0\0\0\xff\xff\xff\xff")),
    "priority of idle and closed streams": (
        3,
        lambda raw: (
            frame(PRIORITY, 0, 3, number(1) + b"\x10")
            + settled(raw)
            + frame(PRIORITY, 0, 1, number(1 << 31) + b"\xff")
            + raw.request(3)
            + frame(PRIORITY, 0, 3, number(0) + b"\0")
        ),
    ),
    "a window of a stream that was asked": (
        1,
        lambda raw: raw.request(1, path=raw.held) + frame(WINDOW_UPDATE, 0, 1, number(5)),
    ),
    "a reset of a closed stream": (
        3,
        lambda raw: settled(raw) + frame(RST_STREAM, 0, 1, number(CANCEL)) + raw.request(3),
    ),
    "a window of a closed stream": (
        3,
        lambda raw: settled(raw) + frame(WINDOW_UPDATE, 0, 1, number(1)) + raw.request(3),
    ),
    "a reset with an unknown code": (
        3,
        lambda raw: raw.request(1, path=raw.held) + frame(RST_STREAM, 0, 1, b"\xff\xff\xff\xff") + raw.request(3),
    ),
    "padding and priority": (
        1,
        lambda raw: frame(
            HEADERS, BOTH | PADDED | PRIORITIZED, 1, b"\x05" + number(0) + b"\x10" + block(raw) + bytes(5)
        ),
    ),
    "a padded body": (
        1,
        lambda raw: post(raw) + frame(DATA, PADDED, 1, b"\x03abc" + bytes(3)) + frame(DATA, END_STREAM, 1),
    ),
    "a body of the largest frame": (1, lambda raw: post(raw) + frame(DATA, END_STREAM, 1, b"x" * 16384)),
    "continued fields": (
        1,
        lambda raw: (
            frame(HEADERS, END_STREAM, 1, (coded := block(raw))[:3])
            + frame(CONTINUATION, 0, 1, coded[3:5])
            + frame(CONTINUATION, END_HEADERS, 1, coded[5:])
        ),
    ),
    "trailers": (
        1,
        lambda raw: post(raw) + frame(DATA, 0, 1, b"x") + frame(HEADERS, BOTH, 1, raw.encoder.encode([("x-t", "1")])),
    ),
    "trailers are welcome": (1, lambda raw: raw.request(1, fields=[("te", "trailers")])),
    "a literal that is indexed": (1, lambda raw: literal(raw, b"\x40\x03x-a\x011")),
    "a literal without index": (1, lambda raw: literal(raw, b"\x00\x03x-a\x011")),
    "a literal never indexed": (1, lambda raw: literal(raw, b"\x10\x03x-a\x011")),
    "a literal of Huffman": (1, lambda raw: literal(raw, b"\x00\x83\xf2\xb2\x3f\x81\x0f")),
    "sizes of the table": (1, lambda raw: frame(HEADERS, BOTH, 1, b"\x20\x3f\xe1\x1f" + block(raw))),
    "an empty frame of settings": (1, lambda raw: frame(SETTINGS) + raw.request(1)),
    "push turned off": (1, lambda raw: frame(SETTINGS, 0, 0, setting(2, 0)) + raw.request(1)),
}

# What is wrong with one stream. It is reset; or the request is refused, which is said here as a response.
STREAM_ERRORS = {
    "upper case": (PROTOCOL_ERROR, lambda raw: listed(raw, *PSEUDO, ("X-A", "1"))),
    "an unknown pseudo-field": (PROTOCOL_ERROR, lambda raw: listed(raw, *PSEUDO, (":test", "1"))),
    "the pseudo-field of responses": (PROTOCOL_ERROR, lambda raw: listed(raw, *PSEUDO, (":status", "200"))),
    "a pseudo-field behind others": (
        PROTOCOL_ERROR,
        lambda raw: listed(raw, *PSEUDO[:3], ("x-a", "1"), (":path", "/")),
    ),
    "a pseudo-field in trailers": (
        PROTOCOL_ERROR,
        lambda raw: post(raw) + frame(HEADERS, BOTH, 1, raw.encoder.encode([(":method", "POST")])),
    ),
    "a pseudo-field of the request in trailers behind data": (
        PROTOCOL_ERROR,
        lambda raw: (
            post(raw) + frame(DATA, 0, 1, b"x") + frame(HEADERS, BOTH, 1, raw.encoder.encode([(":authority", "test")]))
        ),
    ),
    "a path with a fragment": (PROTOCOL_ERROR, lambda raw: listed(raw, *PSEUDO[:3], (":path", "/pid#part"))),
    "a space before a value": (PROTOCOL_ERROR, lambda raw: listed(raw, *PSEUDO, ("x-a", " 1"))),
    "a tab behind a value": (PROTOCOL_ERROR, lambda raw: listed(raw, *PSEUDO, ("x-a", "1\t"))),
    "a value that is a space": (PROTOCOL_ERROR, lambda raw: listed(raw, *PSEUDO, ("x-a", " "))),
    "a space behind a value in trailers": (
        PROTOCOL_ERROR,
        lambda raw: post(raw) + frame(DATA, 0, 1, b"x") + frame(HEADERS, BOTH, 1, raw.encoder.encode([("x-t", "1 ")])),
    ),
    "a path with a fragment in pieces": (
        PROTOCOL_ERROR,
        lambda raw: (
            frame(HEADERS, END_STREAM, 1, (coded := block(raw, path="/pid?a#b"))[:3])
            + frame(CONTINUATION, 0, 1, coded[3:5])
            + frame(CONTINUATION, END_HEADERS, 1, coded[5:])
        ),
    ),
    "a path with a fragment behind padding and priority": (
        PROTOCOL_ERROR,
        lambda raw: frame(
            HEADERS,
            BOTH | PADDED | PRIORITIZED,
            1,
            b"\x04" + number(0) + b"\x10" + block(raw, path="/#") + b"\0" * 4,
        ),
    ),
    "trailers that do not end the stream": (
        PROTOCOL_ERROR,
        lambda raw: post(raw) + frame(HEADERS, END_HEADERS, 1, raw.encoder.encode([("x-t", "1")])),
    ),
    "connection": (PROTOCOL_ERROR, lambda raw: listed(raw, *PSEUDO, ("connection", "keep-alive"))),
    "keep-alive": (PROTOCOL_ERROR, lambda raw: listed(raw, *PSEUDO, ("keep-alive", "1"))),
    "proxy-connection": (PROTOCOL_ERROR, lambda raw: listed(raw, *PSEUDO, ("proxy-connection", "x"))),
    "upgrade": (PROTOCOL_ERROR, lambda raw: listed(raw, *PSEUDO, ("upgrade", "h2c"))),
    "transfer-encoding": (PROTOCOL_ERROR, lambda raw: listed(raw, *PSEUDO, ("transfer-encoding", "chunked"))),
    "te": (PROTOCOL_ERROR, lambda raw: listed(raw, *PSEUDO, ("te", "gzip"))),
    "no path": (PROTOCOL_ERROR, lambda raw: listed(raw, *PSEUDO[:3])),
    "an empty path": (PROTOCOL_ERROR, lambda raw: listed(raw, *PSEUDO[:3], (":path", ""))),
    "a path without a slash": (PROTOCOL_ERROR, lambda raw: listed(raw, *PSEUDO[:3], (":path", "pid"))),
    "no method": (PROTOCOL_ERROR, lambda raw: listed(raw, *PSEUDO[1:])),
    "no scheme": (PROTOCOL_ERROR, lambda raw: listed(raw, PSEUDO[0], *PSEUDO[2:])),
    "two paths": (PROTOCOL_ERROR, lambda raw: listed(raw, *PSEUDO, (":path", "/"))),
    "two methods": (PROTOCOL_ERROR, lambda raw: listed(raw, *PSEUDO, (":method", "GET"))),
    "two schemes": (PROTOCOL_ERROR, lambda raw: listed(raw, *PSEUDO, (":scheme", "http"))),
    "two authorities": (PROTOCOL_ERROR, lambda raw: listed(raw, *PSEUDO, (":authority", "a"))),
    "an end of line in a value": (PROTOCOL_ERROR, lambda raw: literal(raw, b"\x00\x03x-a\x03a\r\n")),
    "a NUL in a value": (PROTOCOL_ERROR, lambda raw: literal(raw, b"\x00\x03x-a\x02a\0")),
    "a space in a name": (PROTOCOL_ERROR, lambda raw: literal(raw, b"\x00\x03x a\x011")),
    "a colon in a name": (PROTOCOL_ERROR, lambda raw: literal(raw, b"\x00\x03x:a\x011")),
    "an empty name": (PROTOCOL_ERROR, lambda raw: literal(raw, b"\x00\x00\x011")),
    "a body longer than its length": (
        PROTOCOL_ERROR,
        lambda raw: post(raw, fields=[("content-length", "1")]) + frame(DATA, END_STREAM, 1, b"xx"),
    ),
    "bodies longer than their length": (
        PROTOCOL_ERROR,
        lambda raw: (
            post(raw, fields=[("content-length", "1")]) + frame(DATA, 0, 1, b"x") + frame(DATA, END_STREAM, 1, b"x")
        ),
    ),
    "a body shorter than its length": (
        PROTOCOL_ERROR,
        lambda raw: post(raw, fields=[("content-length", "2")]) + frame(DATA, END_STREAM, 1, b"x"),
    ),
    "a window of nothing": (
        PROTOCOL_ERROR,
        lambda raw: raw.request(1, path=raw.held) + frame(WINDOW_UPDATE, 0, 1, number(0)),
    ),
    "a window too wide": (
        FLOW_CONTROL_ERROR,
        lambda raw: raw.request(1, path=raw.held) + frame(WINDOW_UPDATE, 0, 1, number(2**31 - 1)),
    ),
    "a body after the end": (
        STREAM_CLOSED,
        lambda raw: raw.request(1, path=raw.held) + frame(DATA, END_STREAM, 1, b"x"),
    ),
    "a body of a closed stream": (
        STREAM_CLOSED,
        lambda raw: settled(raw) + frame(DATA, END_STREAM, 1, b"x"),
    ),
    "priority that depends on itself": (PROTOCOL_ERROR, lambda raw: frame(PRIORITY, 0, 1, number(1) + b"\0")),
    "fields after the end": (
        STREAM_CLOSED,
        lambda raw: raw.request(1, path=raw.held) + raw.request(1),
    ),
}

# What ends the connection.
CONNECTION_ERRORS = {
    "data before a request": (PROTOCOL_ERROR, lambda raw: frame(DATA, END_STREAM, 1, b"x")),
    "a reset before a request": (PROTOCOL_ERROR, lambda raw: frame(RST_STREAM, 0, 1, number(CANCEL))),
    "a window before a request": (PROTOCOL_ERROR, lambda raw: frame(WINDOW_UPDATE, 0, 1, number(1))),
    "a continuation of nothing": (PROTOCOL_ERROR, lambda raw: frame(CONTINUATION, END_HEADERS, 1, b"")),
    "a continuation after the end": (
        PROTOCOL_ERROR,
        lambda raw: raw.request(1) + frame(CONTINUATION, END_HEADERS, 1, b""),
    ),
    "a continuation of another stream": (
        PROTOCOL_ERROR,
        lambda raw: frame(HEADERS, END_STREAM, 1, block(raw)) + frame(CONTINUATION, END_HEADERS, 3, b""),
    ),
    "a continuation of no stream": (
        PROTOCOL_ERROR,
        lambda raw: frame(HEADERS, END_STREAM, 1, block(raw)) + frame(CONTINUATION, END_HEADERS, 0, b""),
    ),
    "a continuation after data": (
        PROTOCOL_ERROR,
        lambda raw: post(raw) + frame(DATA, 0, 1, b"x") + frame(CONTINUATION, END_HEADERS, 1, b""),
    ),
    "another frame between fields": (
        PROTOCOL_ERROR,
        lambda raw: frame(HEADERS, END_STREAM, 1, block(raw)) + frame(PRIORITY, 0, 1, number(0) + b"\0"),
    ),
    "an unknown frame between fields": (
        PROTOCOL_ERROR,
        lambda raw: frame(HEADERS, END_STREAM, 1, block(raw)) + frame(0xEE, 0, 1),
    ),
    "other fields between fields": (
        PROTOCOL_ERROR,
        lambda raw: frame(HEADERS, END_STREAM, 1, block(raw)) + raw.request(3),
    ),
    "an even stream": (PROTOCOL_ERROR, lambda raw: raw.request(2)),
    "a smaller stream": (PROTOCOL_ERROR, lambda raw: raw.request(5) + raw.request(3)),
    "fields of a closed stream": (STREAM_CLOSED, lambda raw: settled(raw) + raw.request(1)),
    "data of no stream": (PROTOCOL_ERROR, lambda raw: frame(DATA, 0, 0, b"x")),
    "fields of no stream": (PROTOCOL_ERROR, lambda raw: raw.request(0)),
    "priority of no stream": (PROTOCOL_ERROR, lambda raw: frame(PRIORITY, 0, 0, number(1) + b"\0")),
    "a reset of no stream": (PROTOCOL_ERROR, lambda raw: frame(RST_STREAM, 0, 0, number(CANCEL))),
    "settings of a stream": (PROTOCOL_ERROR, lambda raw: frame(SETTINGS, 0, 1)),
    "a ping of a stream": (PROTOCOL_ERROR, lambda raw: frame(PING, 0, 1, bytes(8))),
    "a goodbye of a stream": (PROTOCOL_ERROR, lambda raw: frame(GOAWAY, 0, 1, bytes(8))),
    "a promise": (PROTOCOL_ERROR, lambda raw: frame(PUSH_PROMISE, END_HEADERS, 1, number(2) + block(raw))),
    "padding of a body": (PROTOCOL_ERROR, lambda raw: post(raw) + frame(DATA, PADDED, 1, b"\x04abc")),
    "padding of fields": (PROTOCOL_ERROR, lambda raw: frame(HEADERS, BOTH | PADDED, 1, b"\xff" + block(raw))),
    "a size of priority": (FRAME_SIZE_ERROR, lambda raw: frame(PRIORITY, 0, 1, number(0))),
    "a size of resets": (FRAME_SIZE_ERROR, lambda raw: raw.request(1) + frame(RST_STREAM, 0, 1, b"\0\0\0")),
    "a size of settings": (FRAME_SIZE_ERROR, lambda raw: frame(SETTINGS, 0, 0, b"\0\3\0")),
    "a size of acknowledged settings": (FRAME_SIZE_ERROR, lambda raw: frame(SETTINGS, ACK, 0, setting(4, 1))),
    "a size of pings": (FRAME_SIZE_ERROR, lambda raw: frame(PING, 0, 0, bytes(6))),
    "a size of windows": (FRAME_SIZE_ERROR, lambda raw: frame(WINDOW_UPDATE, 0, 0, b"\0\0\1")),
    "a frame too large": (FRAME_SIZE_ERROR, lambda raw: post(raw) + frame(DATA, END_STREAM, 1, bytes(16385))),
    "fields too large": (FRAME_SIZE_ERROR, lambda raw: frame(HEADERS, BOTH, 1, bytes(16385))),
    "push that is no switch": (PROTOCOL_ERROR, lambda raw: frame(SETTINGS, 0, 0, setting(2, 2))),
    "a first window too wide": (FLOW_CONTROL_ERROR, lambda raw: frame(SETTINGS, 0, 0, setting(4, 2**31))),
    "frames too small": (PROTOCOL_ERROR, lambda raw: frame(SETTINGS, 0, 0, setting(5, 16383))),
    "frames too large": (PROTOCOL_ERROR, lambda raw: frame(SETTINGS, 0, 0, setting(5, 2**24))),
    "a window of nothing for all": (PROTOCOL_ERROR, lambda raw: frame(WINDOW_UPDATE, 0, 0, number(0))),
    "a window too wide for all": (
        FLOW_CONTROL_ERROR,
        lambda raw: frame(WINDOW_UPDATE, 0, 0, number(2**31 - 1)) * 2,
    ),
    "windows too wide by a setting": (
        FLOW_CONTROL_ERROR,
        lambda raw: (
            raw.request(1, path=raw.held)
            + frame(WINDOW_UPDATE, 0, 1, number(2**31 - 1 - 65535))
            + frame(SETTINGS, 0, 0, setting(4, 2**31 - 1))
        ),
    ),
    "settings that were never sent are confirmed": (PROTOCOL_ERROR, lambda raw: 3 * frame(SETTINGS, ACK)),
    "fields that cannot be read": (COMPRESSION_ERROR, lambda raw: frame(HEADERS, BOTH, 1, b"\xff\xff\xff\xff\xff")),
    "index 0": (COMPRESSION_ERROR, lambda raw: literal(raw, b"\x80")),
    "an index of nothing": (COMPRESSION_ERROR, lambda raw: literal(raw, b"\xff\x00")),
    "a literal's index of nothing": (COMPRESSION_ERROR, lambda raw: literal(raw, b"\x7f\x80\x01\x011")),
    "a size of the table at the end": (COMPRESSION_ERROR, lambda raw: literal(raw, b"\x20")),
    "a table too large": (COMPRESSION_ERROR, lambda raw: frame(HEADERS, BOTH, 1, b"\x3f\xe2\x1f" + block(raw))),
    "Huffman padded too long": (COMPRESSION_ERROR, lambda raw: literal(raw, b"\x00\x03x-a\x82\x0f\xff")),
    "Huffman padded with zeros": (COMPRESSION_ERROR, lambda raw: literal(raw, b"\x00\x03x-a\x81\x08")),
    "Huffman with an end": (COMPRESSION_ERROR, lambda raw: literal(raw, b"\x00\x03x-a\x84\xff\xff\xff\xff")),
    "a string past the end": (COMPRESSION_ERROR, lambda raw: literal(raw, b"\x00\x03x-a\x7f\x011")),
}


def named(table):
    return [pytest.param(*case, id=name.replace(" ", "_")) for name, case in table.items()]


@pytest.mark.parametrize(("stream", "wire"), named(FINE))
def test_what_is_right_gets_a_response(echo, gate, stream, wire):
    with Raw(plain(echo.address)) as raw:
        raw.held = f"/gate?{gate.name}"
        send_read(raw.socket, wire(raw))
        gate.open()
        assert raw.verdict(stream) == ("response", stream)


@pytest.mark.parametrize(("code", "wire"), named(STREAM_ERRORS))
def test_what_is_wrong_with_a_stream_ends_it(echo, gate, code, wire):
    with Raw(plain(echo.address)) as raw:
        raw.held = f"/gate?{gate.name}"
        raw.send(wire(raw))
        what, said = raw.verdict(1)
        # A server may take any of them for an error of the connection (section 5.4.1), with a more general code.
        assert said in (code, PROTOCOL_ERROR)
        if what == "stream":
            raw.send(raw.request(3))
            assert raw.verdict(3) == ("response", 3)
        else:
            assert what == "connection"


@pytest.mark.parametrize(("code", "wire"), named(CONNECTION_ERRORS))
def test_what_is_wrong_with_a_connection_ends_it(echo, gate, code, wire):
    with Raw(plain(echo.address)) as raw:
        raw.held = f"/gate?{gate.name}"
        raw.try_send(wire(raw))
        assert raw.end() in (code, PROTOCOL_ERROR)
    with Raw(plain(echo.address)) as raw:
        raw.send(raw.request(1))
        assert raw.verdict(1) == ("response", 1)


def test_a_stream_that_depends_on_itself(echo):
    with Raw(plain(echo.address)) as raw:
        raw.send(frame(HEADERS, BOTH | PRIORITIZED, 1, number(1) + b"\x10" + block(raw)))
        assert raw.verdict(1) == ("stream", PROTOCOL_ERROR)


def test_a_window_that_becomes_negative(echo):
    with Raw(plain(echo.address)) as raw:
        raw.send(frame(SETTINGS, 0, 0, setting(4, 3)) + raw.request(1, path="/large?16"))
        assert raw.until(DATA)[3] == b"012"
        raw.send(frame(SETTINGS, 0, 0, setting(4, 2)) + frame(WINDOW_UPDATE, 0, 1, number(2)))
        assert raw.until(DATA)[3] == b"3"


def test_more_than_a_window_has(serve, gate):
    served = serve(APPS / "contract.py", "--stream-paths", "/gate")
    with Raw(plain(served.address)) as raw:
        raw.send(
            raw.request(1, end=False, method="POST", path=f"/gate?{gate.name}") + 17 * frame(DATA, 0, 1, bytes(16384))
        )
        assert raw.verdict(1)[1] == FLOW_CONTROL_ERROR


def test_pings_get_responses(echo):
    with Raw(plain(echo.address)) as raw:
        raw.send(frame(PING, ACK, 0, b"notasked") + frame(PING, 0, 0, b"12345678"))
        assert raw.until(PING) == (PING, ACK, 0, b"12345678")


def test_settings_are_confirmed(echo):
    with Raw(plain(echo.address)) as raw:
        assert raw.next()[0] == SETTINGS
        assert raw.until(SETTINGS) == (SETTINGS, ACK, 0, b"")


def test_no_preface_is_http_1(echo):
    with Raw(plain(echo.address), hello=False) as raw:
        raw.send(b"INVALID CONNECTION PREFACE\r\n\r\n")
        assert raw.socket.recv(100).startswith(b"HTTP/1.1 ")


def test_a_client_that_says_something_and_leaves_is_let_go(serve):
    served = serve(APPS / "contract.py", "--keepalive-timeout", "300", "--header-timeout", "300")
    (worker,) = served.workers()
    for first in (b"", PREFACE, PREFACE + frame(SETTINGS)):
        with Raw(plain(served.address), hello=False) as raw:
            if first:
                raw.send(first).until(SETTINGS)
            # Both are there when the server looks.
            stop(worker)
            try:
                raw.send((PREFACE + frame(SETTINGS))[len(first) :] + frame(SETTINGS, ACK))
                raw.socket.shutdown(socket.SHUT_WR)
            finally:
                os.kill(worker, signal.SIGCONT)
            raw.end()
