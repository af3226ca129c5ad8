"""WebSockets as streams of HTTP/2 (RFC 8441)."""

import signal

import pytest
from conftest import APPS
from http2_frames import Client, plain
from http2_websockets import Stream, connect
from waiting import Gate
from websocket_frames import BINARY, PING, PONG, TEXT, frame


@pytest.fixture(params=["threads", "gevent"])
def served(serve, request):
    return serve(APPS / "websocket.py", "--threads", "4", "--websocket-over-http2", "--concurrency", request.param)


def test_streams_are_websockets_side_by_side(served):
    with connect(plain(served.address)) as client:
        streams = [Stream(client, "/echo") for _ in range(3)]
        for stream in streams:
            assert stream.status() == 200
        for number, stream in enumerate(streams):
            stream.send(frame(TEXT, b"%d" % number) + frame(PING, b"x"))
        for number, stream in enumerate(streams):
            assert {stream.frame(), stream.frame()} == {(TEXT, b"%d" % number), (PONG, b"x")}


def test_large_messages_keep_to_the_windows(served):
    with connect(plain(served.address)) as client:
        stream = Stream(client, "/echo")
        message = bytes(range(256)) * 3000
        stream.send(frame(BINARY, message))
        assert stream.frame() == (BINARY, message)


def test_pings_and_closes(served):
    with connect(plain(served.address)) as client:
        stream = Stream(client, "/echo")
        stream.send(frame(PING, b"here"))
        assert stream.frame() == (PONG, b"here")
        stream.send(frame(8, b"\x0f\xa0"))
        assert stream.close_code() == 4000
        while not stream.has_ended():
            assert client.pump()
        # The connection goes on.
        assert Stream(client, "/echo").status() == 200


def test_the_end_of_the_call_ends_the_stream(served):
    with connect(plain(served.address)) as client:
        stream = Stream(client, "/responded_as_well")
        while (taken := stream.frame()) and taken[0] != 8:
            pass
        assert taken[1][:2] == b"\x03\xe8"
        assert stream.frame() is None


def test_a_websocket_that_only_sends_is_accepted_before_it_does(served):
    with Gate() as gate, connect(plain(served.address)) as client:
        stream = Stream(client, f"/only_sends?{gate.name}")
        assert stream.status() == 200
        gate.open()
        assert stream.frame() == (TEXT, b"news")


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"sec_websocket_version": "8"}, 426),
        ({"origin": "http://evil.example"}, 403),
        ({"protocol": "something-else"}, 501),
    ],
)
def test_what_is_refused(served, fields, status):
    with connect(plain(served.address)) as client:
        assert Stream(client, "/echo", **fields).status() == status


def test_a_worker_that_drains_says_that_it_goes(served):
    with connect(plain(served.address)) as client:
        stream = Stream(client, "/echo")
        stream.send(frame(TEXT, b"a"))
        assert stream.frame() == (TEXT, b"a")
        served.send_signal(signal.SIGTERM)
        assert stream.close_code() == 1001
    assert served.wait() == 0


def test_it_is_off_unless_asked_for(serve):
    with Client(plain(serve(APPS / "websocket.py").address)) as client:
        client.ask()
        assert client.state.remote_settings.enable_connect_protocol != 1
