"""WebSockets as streams of HTTP/2 (RFC 8441)."""

import signal
import socket

import h2.config
import h2.connection
import h2.events
import pytest
import websocket_frames
from conftest import APPS
from websocket_frames import BINARY, PING, PONG, TEXT, frame

GOAWAY = 7


class Connection:
    """A client of HTTP/2 whose streams are WebSockets."""

    def __init__(self, served):
        self.socket = socket.create_connection(served.address, 20)
        config = h2.config.H2Configuration(header_encoding="utf-8", validate_outbound_headers=False)
        self.state = h2.connection.H2Connection(config)
        self.state.initiate_connection()
        self.heads, self.data, self.ended = {}, {}, set()
        self.has_settings, self.received = False, b""
        self.flush()
        while not self.has_settings:
            self.turn()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def flush(self):
        self.socket.sendall(self.state.data_to_send())

    def turn(self):
        received = self.socket.recv(65536)
        assert received, "the connection has ended"
        self.received += received
        while len(self.received) >= 9 and len(self.received) >= (size := 9 + int.from_bytes(self.received[:3], "big")):
            taken, self.received = self.received[:size], self.received[size:]
            # After a goodbye the library takes no more, though streams go on.
            if taken[3] != GOAWAY:
                self.take_frame(taken)
        self.flush()

    def take_frame(self, taken):
        for event in self.state.receive_data(taken):
            if isinstance(event, h2.events.RemoteSettingsChanged):
                self.has_settings = True
            elif isinstance(event, h2.events.ResponseReceived):
                self.heads[event.stream_id] = dict(event.headers)
            elif isinstance(event, h2.events.DataReceived):
                self.data.setdefault(event.stream_id, bytearray()).extend(event.data)
                self.state.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, (h2.events.StreamEnded, h2.events.StreamReset)):
                self.ended.add(event.stream_id)

    def open(self, path, protocol="websocket", **fields):
        return Stream(self, path, protocol, fields)


class Stream(websocket_frames.Client):
    """One WebSocket."""

    def __init__(self, connection, path, protocol, fields):
        self.connection = connection
        self.number = connection.state.get_next_available_stream_id()
        given = {"sec-websocket-version": "13", **{name.replace("_", "-"): value for name, value in fields.items()}}
        pseudo = [(":method", "CONNECT"), (":protocol", protocol), (":scheme", "http"), (":path", path)]
        head = [*pseudo, (":authority", "test"), *((name, value) for name, value in given.items() if value)]
        connection.state.send_headers(self.number, head)
        connection.flush()

    def status(self):
        while self.number not in self.connection.heads:
            self.connection.turn()
        return self.connection.heads[self.number][":status"]

    def send(self, data):
        while data:
            room = min(self.connection.state.local_flow_control_window(self.number), 16384)
            if room == 0:
                self.connection.turn()
                continue
            self.connection.state.send_data(self.number, data[:room])
            self.connection.flush()
            data = data[room:]

    def take(self, count):
        data = self.connection.data.setdefault(self.number, bytearray())
        while len(data) < count and self.number not in self.connection.ended:
            self.connection.turn()
        taken = bytes(data[:count])
        del data[:count]
        return taken


@pytest.fixture(params=["threads", "gevent"])
def served(serve, request):
    return serve(APPS / "websocket.py", "--threads", "4", "--websocket-over-http2", "--concurrency", request.param)


def test_streams_are_websockets_side_by_side(served):
    with Connection(served) as connection:
        assert connection.state.remote_settings.enable_connect_protocol == 1
        streams = [connection.open("/echo") for _ in range(3)]
        for stream in streams:
            assert stream.status() == "200"
        for number, stream in enumerate(streams):
            stream.send(frame(TEXT, b"%d" % number) + frame(PING, b"x"))
        for number, stream in enumerate(streams):
            assert {stream.frame(), stream.frame()} == {(TEXT, b"%d" % number), (PONG, b"x")}


def test_large_messages_keep_to_the_windows(served):
    with Connection(served) as connection:
        stream = connection.open("/echo")
        message = bytes(range(256)) * 3000
        stream.send(frame(BINARY, message))
        assert stream.frame() == (BINARY, message)


def test_pings_and_closes(served):
    with Connection(served) as connection:
        stream = connection.open("/echo")
        stream.send(frame(PING, b"here"))
        assert stream.frame() == (PONG, b"here")
        stream.send(frame(8, b"\x0f\xa0"))
        assert stream.close_code() == 4000
        while stream.number not in connection.ended:
            connection.turn()
        # The connection goes on.
        assert connection.open("/echo").status() == "200"


def test_the_end_of_the_call_ends_the_stream(served):
    with Connection(served) as connection:
        stream = connection.open("/answered_as_well")
        while (taken := stream.frame()) and taken[0] != 8:
            pass
        assert taken[1][:2] == b"\x03\xe8"
        assert stream.frame() is None


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"sec_websocket_version": "8"}, "426"),
        ({"origin": "http://evil.example"}, "403"),
        ({"protocol": "something-else"}, "501"),
    ],
)
def test_what_is_refused(served, fields, status):
    with Connection(served) as connection:
        assert connection.open("/echo", **fields).status() == status


def test_a_worker_that_drains_says_that_it_goes(served):
    with Connection(served) as connection:
        stream = connection.open("/echo")
        stream.send(frame(TEXT, b"a"))
        assert stream.frame() == (TEXT, b"a")
        served.send_signal(signal.SIGTERM)
        assert stream.close_code() == 1001
    assert served.wait() == 0


def test_it_is_off_unless_asked_for(serve):
    with Connection(serve(APPS / "websocket.py")) as connection:
        assert connection.state.remote_settings.enable_connect_protocol != 1
