"""Uploads over HTTP/2: those that are refused before they are complete, and those over long lines."""

import pytest
from conftest import APPS
from http2_frames import ACK, DATA, END_STREAM, GOAWAY, HEADERS, NO_ERROR, PING, RST_STREAM, SETTINGS, Raw, frame, plain

CONTRACT = APPS / "contract.py"
INITIAL_WINDOW_SIZE = 4


def wait_response(raw, stream):
    """Wait for the end of a response; the stream must not be reset before."""
    kinds = []
    while (found := raw.next()) is not None:
        kind, flags, number, _ = found
        if number == stream:
            kinds.append(kind)
            assert kind in (HEADERS, DATA)
            if flags & END_STREAM:
                return
    raise ConnectionError(f"closed after frames {kinds}")


def frames_until_pong(raw):
    raw.send(frame(PING, 0, 0, b"finished"))
    found = []
    while (one := raw.next()) is not None and one[3] != b"finished":
        found.append(one)
    return found


@pytest.mark.parametrize(
    ("path", "fields", "begin"),
    [
        ("/echo", [("content-length", "5000")], b""),
        ("/echo", [], b"x" * 2000),
        # The application responds without reading.
        ("/pid", [], b"x"),
    ],
    ids=["announced", "sent", "unread"],
)
class TestRefusedEarly:
    @pytest.fixture
    def raw(self, serve, path, fields, begin):
        served = serve(CONTRACT, "--body-max-bytes", "1000", "--stream-paths", "/pid")
        with Raw(plain(served.address)) as raw:
            raw.send(raw.request(1, end=False, method="POST", path=path, fields=fields))
            raw.send(frame(DATA, 0, 1, begin) if begin else b"")
            wait_response(raw, 1)
            yield raw

    def test_a_client_that_goes_on_has_its_stream_reset_without_an_error(self, raw):
        raw.send(frame(DATA, 0, 1, b"more"))
        kind, _, stream, payload = raw.until(RST_STREAM)
        assert (kind, stream, int.from_bytes(payload, "big")) == (RST_STREAM, 1, NO_ERROR)
        raw.send(raw.request(3))
        wait_response(raw, 3)

    def test_a_client_that_resets_its_stream_hears_no_more(self, raw):
        raw.send(frame(RST_STREAM, 0, 1, bytes(4)))
        assert not {RST_STREAM, GOAWAY}.intersection(kind for kind, *_ in frames_until_pong(raw))


def test_a_refused_client_may_send_its_body_to_the_end(serve):
    served = serve(CONTRACT, "--body-max-bytes", "1000")
    with Raw(plain(served.address)) as raw:
        raw.send(raw.request(1, end=False, method="POST", path="/echo") + frame(DATA, 0, 1, b"x" * 2000))
        wait_response(raw, 1)
        raw.send(frame(DATA, END_STREAM, 1, b"end"))
        assert not {RST_STREAM, GOAWAY}.intersection(kind for kind, *_ in frames_until_pong(raw))


def new_window(frames):
    for kind, flags, _, payload in frames:
        if kind == SETTINGS and not flags & ACK:
            for at in range(0, len(payload), 6):
                if int.from_bytes(payload[at : at + 2], "big") == INITIAL_WINDOW_SIZE:
                    return int.from_bytes(payload[at + 2 : at + 6], "big")
    return None


def test_windows_grow_when_a_client_fills_them_in_one_round_trip(serve):
    served = serve(CONTRACT)
    with Raw(plain(served.address)) as raw:
        window = new_window(frames_until_pong(raw))
        raw.send(frame(SETTINGS, ACK))
        raw.send(raw.request(1, end=False, method="POST", path="/count_input"))
        piece = window // 16
        first = -(-40_000 // piece)
        raw.send(frame(DATA, 0, 1, b"x" * piece) * first)
        ping = raw.until(PING)
        for _ in range(16 - first):
            raw.send(frame(DATA, 0, 1, b"x" * piece))
        raw.send(frame(PING, ACK, 0, ping[3]))
        found = []
        while (one := raw.next()) is not None:
            found.append(one)
            if new_window(found):
                break
        assert new_window(found) > window


def test_windows_stay_where_the_client_does_not_wait_for_them(serve):
    served = serve(CONTRACT)
    with Raw(plain(served.address)) as raw:
        frames_until_pong(raw)
        raw.send(frame(SETTINGS, ACK))
        raw.send(raw.request(1, end=False, method="POST", path="/count_input"))
        raw.send(frame(DATA, 0, 1, b"x" * 10_000) * 4)
        ping = raw.until(PING)
        raw.send(frame(PING, ACK, 0, ping[3]))
        assert new_window(frames_until_pong(raw)) is None
