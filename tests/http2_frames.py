"""Clients of HTTP/2: one that behaves (the package h2 keeps its state), and one that sends any frame it is told to."""

from __future__ import annotations

import contextlib
import socket
import ssl
import time
from collections import defaultdict, namedtuple

import h2.config
import h2.connection
import h2.events
import h2.settings
import hpack
from waiting import PATIENCE
from wire import Response

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, END_HEADERS, PADDED, PRIORITIZED, ACK = 0x1, 0x4, 0x8, 0x20, 0x1
NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, FLOW_CONTROL_ERROR, SETTINGS_TIMEOUT, STREAM_CLOSED = range(6)
FRAME_SIZE_ERROR, REFUSED_STREAM, CANCEL, COMPRESSION_ERROR, CONNECT_ERROR, ENHANCE_YOUR_CALM = range(6, 12)


def plain(address, timeout=PATIENCE):
    """A socket."""
    if isinstance(address, str):
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        made.settimeout(timeout)
        made.connect(address)
        return made
    made = socket.create_connection(address, timeout)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return made


def secure(address, trusted, protocols=("h2",)):
    """A socket with TLS around it."""
    context = ssl.create_default_context(cafile=trusted)
    context.set_alpn_protocols(list(protocols))
    return context.wrap_socket(plain(address), server_hostname="127.0.0.1")


def head(method="GET", path="/pid", fields=(), scheme="http", authority="test"):
    """The fields of a request."""
    pseudo = [(":method", method), (":scheme", scheme), (":authority", authority), (":path", path)]
    pairs = [(name, value) for name, value in pseudo if value is not None] + list(fields)
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in pairs]


Goodbye = namedtuple("Goodbye", "last_stream error")


class Reset(Exception):
    """The server gave a stream up; `code` says why."""

    def __init__(self, code, response):
        super().__init__(f"reset with {code}")
        self.code = code
        self.response = response


class Client:
    """A client that keeps to the rules. `opens`: whether it opens its windows as it takes bodies."""

    def __init__(self, connected, opens=True, settings=None, first=b""):
        self.socket = connected
        self.opens = opens
        config = h2.config.H2Configuration(
            header_encoding="latin-1", validate_outbound_headers=False, normalize_outbound_headers=False
        )
        self.state = h2.connection.H2Connection(config)
        self.state.initiate_connection()
        if settings:
            self.state.update_settings(settings)
        self.responses = {}
        self.interim = defaultdict(list)
        self.ended = set()
        self.resets = {}
        self.goaway = None
        self.closed = False
        self.buffer = bytearray()
        self.socket.sendall(first)
        self.flush()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def flush(self):
        self.socket.sendall(self.state.data_to_send())

    def begin(self, method="GET", path="/pid", fields=(), body=None, end=None, **others):
        """Send a request's head, and a short body; give the stream's number."""
        stream = self.state.get_next_available_stream_id()
        end = (body is None or bool(body)) if end is None else end
        self.state.send_headers(stream, head(method, path, fields, **others), end_stream=end and not body)
        if body:
            self.state.send_data(stream, body, end_stream=end)
        self.flush()
        return stream

    def send(self, stream, body, end=True):
        """Send a body of any length, as the server's windows allow."""
        body = memoryview(body)
        while body:
            room = min(self.state.local_flow_control_window(stream), self.state.max_outbound_frame_size, len(body))
            if room > 0:
                self.state.send_data(stream, bytes(body[:room]), end_stream=end and room == len(body))
                body = body[room:]
                self.flush()
            elif not self.pump():
                raise ConnectionError("closed while a body was sent")
            if stream in self.resets or stream in self.ended:
                return

    def pump(self):
        """Take in what came; whether the connection is still there."""
        try:
            data = self.socket.recv(65536)
        except ConnectionResetError:
            data = b""
        if not data:
            self.closed = True
            return False
        self.buffer += data
        # The package takes a goodbye for the end, but streams in flight still get their responses.
        while len(self.buffer) >= 9 and len(self.buffer) >= 9 + (length := int.from_bytes(self.buffer[:3], "big")):
            one, self.buffer = self.buffer[: 9 + length], self.buffer[9 + length :]
            if one[3] == GOAWAY:
                self.goaway = Goodbye(int.from_bytes(one[9:13], "big"), int.from_bytes(one[13:17], "big"))
                continue
            for event in self.state.receive_data(bytes(one)):
                self.handle(event)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.flush()
        return True

    def handle(self, event):
        if isinstance(event, h2.events.ResponseReceived):
            fields = list(event.headers)
            self.responses[event.stream_id] = Response(int(fields[0][1]), "", "HTTP/2", fields[1:], whole=False)
        elif isinstance(event, h2.events.InformationalResponseReceived):
            self.interim[event.stream_id].append(list(event.headers))
        elif isinstance(event, h2.events.DataReceived):
            response = self.responses[event.stream_id]
            response.chunks.append(event.data)
            if self.opens:
                self.open(event.stream_id, event.flow_controlled_length)
        elif isinstance(event, h2.events.StreamEnded):
            self.ended.add(event.stream_id)
            self.responses[event.stream_id].whole = True
        elif isinstance(event, h2.events.StreamReset):
            self.resets[event.stream_id] = int(event.error_code)

    def open(self, stream, count):
        if count:
            self.state.acknowledge_received_data(count, stream)

    def wait(self, stream):
        """The response of a stream, when it is complete."""
        while stream not in self.ended:
            if stream in self.resets:
                raise Reset(self.resets[stream], self.take(stream))
            if not self.pump():
                raise ConnectionError(f"closed before the response; {self.goaway}")
        return self.take(stream)

    def take(self, stream):
        response = self.responses.pop(stream, None)
        if response:
            response.body = b"".join(response.chunks)
        return response

    def wait_head(self, stream):
        """The head of a stream's response."""
        while stream not in self.responses:
            assert self.pump(), "closed before the head"
        return self.responses[stream]

    def ask(self, method="GET", path="/pid", fields=(), body=None, **others):
        """One request and its response."""
        if body is None:
            return self.wait(self.begin(method, path, fields, **others))
        stream = self.begin(method, path, fields, end=False, **others)
        self.send(stream, body)
        return self.wait(stream)

    def reset(self, stream, code=CANCEL):
        self.state.reset_stream(stream, code)
        self.flush()

    def wait_closed(self):
        while self.pump():
            pass
        return self


class Raw:
    """A client that sends any frame. It says hello as others do."""

    def __init__(self, connected, hello=True):
        self.socket = connected
        self.encoder = hpack.Encoder()
        self.buffer = b""
        if hello:
            self.send(PREFACE + frame(SETTINGS))
            self.socket.settimeout(PATIENCE)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send(self, data):
        self.socket.sendall(data)
        return self

    def try_send(self, data):
        """Send what the server may refuse to hear the end of."""
        with contextlib.suppress(OSError):
            self.socket.sendall(data)
        return self

    def request(self, stream, end=True, **parts):
        """HEADERS of a request."""
        block = self.encoder.encode(head(**parts))
        return frame(HEADERS, END_HEADERS | (END_STREAM if end else 0), stream, block)

    def next(self):
        """The next frame as (kind, flags, stream, payload); None at the end."""
        while len(self.buffer) < 9 or len(self.buffer) < 9 + int.from_bytes(self.buffer[:3], "big"):
            try:
                data = self.socket.recv(65536)
            except ConnectionResetError:
                data = b""
            if not data:
                return None
            self.buffer += data
        length = int.from_bytes(self.buffer[:3], "big")
        kind, flags, stream = self.buffer[3], self.buffer[4], int.from_bytes(self.buffer[5:9], "big")
        payload, self.buffer = self.buffer[9 : 9 + length], self.buffer[9 + length :]
        return kind, flags, stream, payload

    def until(self, wanted):
        """The first frame of a kind; None if the connection ends before."""
        while (found := self.next()) is not None:
            if found[0] == wanted:
                return found
        return None

    def end(self):
        """What the server says at the end of the connection: the code of GOAWAY, or None."""
        code = None
        while (found := self.next()) is not None:
            if found[0] == GOAWAY:
                code = int.from_bytes(found[3][4:8], "big")
        return code

    def verdict(self, stream):
        """How the server takes what was sent: ("stream", code), ("connection", code), ("closed", None) or
        ("response", stream)."""
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            found = self.next()
            if found is None:
                return "closed", None
            kind, _, number, payload = found
            if kind == GOAWAY:
                return "connection", int.from_bytes(payload[4:8], "big")
            if kind == RST_STREAM and number == stream:
                return "stream", int.from_bytes(payload, "big")
            if kind == HEADERS and number == stream:
                return "response", number
        raise TimeoutError


def frame(kind, flags=0, stream=0, payload=b""):
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload
