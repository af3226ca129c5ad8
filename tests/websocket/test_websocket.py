"""WebSockets over real sockets, with clients of other makers."""

import contextlib
import json
import select
import shutil
import signal
import socket
import ssl
import threading
import time
import zlib
from pathlib import Path

import pytest
from conftest import APPS
from other_servers import certificate
from waiting import PATIENCE, Gate, let_pass
from websocket_frames import BINARY, CLOSE, PING, PONG, TEXT, Client, frame, handshake
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory
from websockets.sync.client import connect
from wire import send_read

CORPUS = Path(__file__).parents[1] / "corpus" / "websocket"


@pytest.fixture(params=["threads", "gevent"])
def sockets(serve, request):
    return serve(APPS / "websocket.py", "--threads", "4", "--concurrency", request.param)


def dial(served, path="/echo", **options):
    times = {"open_timeout": PATIENCE, "close_timeout": PATIENCE, "ping_interval": None}
    return connect(served.url.replace("http", "ws") + path, **times, **options)


def raw(served, path="/echo", **options):
    return Client(served.address).open(path, **options)


def exchange(connection, data):
    """Send all and receive as much, in one thread: before Python 3.13 two may not use one TLS socket at once."""
    connection.setblocking(False)
    sent, got = 0, b""
    while len(got) < len(data):
        select.select([connection], [connection] if sent < len(data) else [], [], 10)
        with contextlib.suppress(ssl.SSLWantWriteError, ssl.SSLWantReadError):
            if sent < len(data):
                sent += connection.send(data[sent : sent + 10_000])
        with contextlib.suppress(ssl.SSLWantWriteError, ssl.SSLWantReadError):
            while piece := connection.recv(65536):
                got += piece
            break
    return got


# The handshake.


def test_a_client_of_another_maker_is_echoed(sockets):
    with dial(sockets) as ws:
        for message in ("", "hello", "é€😀", b"", bytes(range(256)), "x" * 300_000, b"\0" * 500_000):
            ws.send(message)
            assert ws.recv(20) == message
    assert (ws.close_code, ws.close_reason) == (1000, "")


def test_fragments_are_one_message_and_pings_may_stand_between(sockets):
    with raw(sockets) as ws:
        ws.send(frame(TEXT, b"a", final=False) + frame(PING, b"x") + frame(0, b"b"))
        assert ws.frame() == (PONG, b"x")
        assert ws.frame() == (TEXT, b"ab")


def test_frames_may_come_behind_the_handshake(sockets):
    with raw(sockets, behind=frame(TEXT, b"early") + frame(BINARY, b"bird")) as ws:
        assert ws.frame() == (TEXT, b"early")
        assert ws.frame() == (BINARY, b"bird")


def test_bytes_may_come_one_by_one(sockets):
    with raw(sockets) as ws:
        for byte in frame(TEXT, b"slow"):
            send_read(ws.socket, bytes([byte]))
        assert ws.frame() == (TEXT, b"slow")


def test_an_application_that_responds_normally_just_does(sockets):
    with sockets.connect() as connection:
        connection.send(handshake("/plain"))
        response = connection.response()
        assert (response.status, response.body) == (200, b"no WebSocket here")
        # The connection goes on as if nobody had asked.
        assert connection.ask("GET", "/plain").body == b"nobody asked"
        connection.send(handshake("/plain") + b"GET /plain HTTP/1.1\r\nHost: a\r\n\r\n")
        assert connection.response().body == b"no WebSocket here"
        assert connection.response().body == b"nobody asked"


def test_only_a_handshake_offers_a_websocket(sockets):
    offered = ["werkzeug.socket", "wsgi.websocket", "wsgi.websocket_version"]
    for request, expected in [
        (handshake("/keys"), offered),
        (handshake("/keys", Upgrade="h2c"), []),
        (handshake("/keys", Connection="close"), []),
        (handshake("/keys").replace(b"GET", b"POST"), []),
        (handshake("/keys").replace(b"HTTP/1.1", b"HTTP/1.0"), []),
        (handshake("/keys", Content_Length="2") + b"ab", []),
    ]:
        with sockets.connect() as connection:
            seen = connection.send(request).response().json
            assert [key for key in seen if not key.startswith("HTTP_")] == expected, request
    assert sockets.get("/without").body == b"this request asks for no WebSocket"


@pytest.mark.parametrize(
    ("replace", "status"),
    [
        ({"Sec_WebSocket_Version": "8"}, 426),
        ({"Sec_WebSocket_Version": None}, 426),
        ({"Sec_WebSocket_Key": None}, 400),
        ({"Sec_WebSocket_Key": "short"}, 400),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
    ],
)
def test_a_wrong_handshake_is_refused(sockets, replace, status):
    with sockets.connect() as connection:
        response = connection.send(handshake(**replace)).response()
        assert response.status == status
        assert connection.is_closed()
        if status == 426:
            assert (response["Sec-WebSocket-Version"], response["Upgrade"]) == ("13", "websocket")
            assert "Upgrade" in response["Connection"]


def test_origins_that_are_named_are_let_in(serve, sockets):
    with raw(sockets, Origin="http://test") as ws:
        ws.send(frame(TEXT, b"a"))
        assert ws.frame() == (TEXT, b"a")
    served = serve(APPS / "websocket.py", "--websocket-origins", "https://friend.example")
    raw(served, Origin="https://friend.example").close()
    with served.connect() as connection:
        assert connection.send(handshake(Origin="https://other.example")).response().status == 403
    served.wait_for_log("a page of https://other.example was refused")
    raw(serve(APPS / "websocket.py", "--websocket-origins", "*"), Origin="https://other.example").close()


def test_a_wrong_origin_is_told_at_the_start(run):
    ended = run("app:app", "--websocket-origins", "example.org")
    assert ended.returncode != 0
    assert "https://example.org" in ended.stderr


def test_subprotocol_facts_and_fields(sockets):
    with dial(sockets, "/facts?a=b", subprotocols=["superchat", "chat"], origin=sockets.url) as ws:
        seen = json.loads(ws.recv(10))
        assert ws.subprotocol == "chat"
        assert ws.response.headers["X-Own"] == "yes"
    assert seen == {
        "path": "/facts",
        "origin": sockets.url,
        "version": "13",
        "protocol": "chat",
        "closed": False,
        "same": True,
    }
    with pytest.raises(InvalidStatus) as refused:
        dial(sockets, "/unknown_protocol", subprotocols=["chat"])
    assert b"named no such subprotocol" in refused.value.response.body


# Acceptance without use.


@pytest.mark.parametrize("path", ["/only_sends", "/pops_and_sends"])
def test_a_websocket_that_only_sends_is_accepted_before_it_does(sockets, path):
    with Gate() as gate, raw(sockets, f"{path}?{gate.name}") as ws:
        gate.wait_for()
        gate.open()
        assert ws.frame() == (TEXT, b"news")
        assert ws.close_code() == 1000


def test_a_websocket_that_the_application_leaves_alone_is_not_accepted(sockets):
    with Gate() as gate, sockets.connect() as connection:
        connection.send(handshake(f"/takes_none?{gate.name}"))
        gate.wait_for()
        let_pass(1, "nothing tells that the server has looked and done nothing")
        gate.open()
        response = connection.response()
        assert (response.status, response.body) == (200, b"an ordinary response")


def test_a_client_that_is_refused_late_is_told_why_by_a_close(sockets):
    with Gate() as gate, raw(sockets, f"/refuses_late?{gate.name}") as ws:
        gate.open()
        assert ws.frame() == (CLOSE, (1008).to_bytes(2, "big") + b"403 Forbidden")
    sockets.wait_for_log("refused one that is closed: False")
    sockets.wait_for_log("websocket_accept_after")


def test_an_application_may_accept_what_is_accepted_but_add_no_field(sockets):
    with Gate() as gate, raw(sockets, f"/accepts_late?{gate.name}") as ws:
        gate.open()
        assert ws.frame() == (TEXT, b"accepted")
    sockets.wait_for_log("too late: the WebSocket was accepted already")


def test_a_client_that_offers_subprotocols_waits_for_the_application(sockets):
    with Gate() as gate, Client(sockets.address) as ws:
        ws.send(handshake(f"/accepts_late?{gate.name}", Sec_WebSocket_Protocol="chat"))
        gate.wait_for()
        let_pass(1, "nothing tells that the server has looked and done nothing")
        gate.open()
        head = ws.head()
        assert (head.status, head["X-Own"]) == (101, "yes")


def test_a_websocket_is_accepted_by_use_only_if_it_is_to_be(serve):
    served = serve(APPS / "websocket.py", "--websocket-accept-after", "0")
    with Gate() as gate, served.connect() as connection:
        connection.send(handshake(f"/refuses_late?{gate.name}"))
        gate.wait_for()
        let_pass(1, "nothing tells that the server has looked and done nothing")
        gate.open()
        assert connection.response().status == 403


# Limits and broken clients.


def cases(kind):
    return [pytest.param(case, id=case["name"]) for case in json.loads((CORPUS / f"{kind}.json").read_text())]


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    from conftest import Served

    folder = tmp_path_factory.mktemp("shared")
    served = Served([APPS / "websocket.py", "--threads", "4", "--port", "0"], folder)
    served.wait_ready()
    yield served
    served.kill()


def deflating(case):
    return [("Sec-WebSocket-Extensions", "permessage-deflate")] if case.get("deflate") else []


def follow(ws, events):
    """What an echo says to events, in any order of pongs and messages."""
    expected = []
    for kind, *rest in events:
        if kind in ("text", "binary"):
            expected.append((TEXT if kind == "text" else BINARY, rest[0].encode("latin-1")))
        elif kind == "ping":
            expected.append((PONG, rest[0].encode("latin-1")))
    seen = []
    for _ in expected:
        opcode, payload = ws.frame()
        if opcode & 0x40:
            opcode, payload = opcode & 0xF, zlib.decompressobj(-15).decompress(payload + b"\0\0\xff\xff")
        seen.append((opcode, payload))
    assert sorted(seen) == sorted(expected)


@pytest.mark.parametrize("case", cases("invalid"))
def test_what_is_invalid_closes_with_its_code(shared, case):
    with raw(shared, fields=deflating(case)) as ws:
        ws.send(case["wire"])
        pongs = [event for event in case["events"] if event[0] == "ping"]
        # A close overtakes the echo of messages before it.
        follow(ws, pongs)
        while (got := ws.frame())[0] != CLOSE:
            assert got[0] in (TEXT, BINARY)
        assert int.from_bytes(got[1][:2], "big") == case["code"]
        assert ws.is_closed()


@pytest.mark.parametrize("case", cases("valid"))
def test_what_is_valid_is_echoed(shared, case):
    with raw(shared, fields=deflating(case)) as ws:
        events = case["events"]
        closes = events[-1][0] == "close"
        if closes:
            ws.send(case["wire"])
            while (got := ws.frame())[0] != CLOSE:
                assert got[0] in (TEXT, BINARY)
            assert (int.from_bytes(got[1], "big") or None) == events[-1][1]
            assert ws.is_closed()
        else:
            ws.send(case["wire"])
            follow(ws, events)


def test_messages_up_to_the_limit_come_through(serve):
    served = serve(APPS / "websocket.py", "--websocket-message-max-bytes", "1000")
    with dial(served, max_size=None) as ws:
        for message in ("x" * 1000, b"x" * 1000, ["x" * 500, "y" * 500]):
            ws.send(message)
            assert len(ws.recv(10)) == 1000
        ws.send("x" * 1001)
        with pytest.raises(ConnectionClosed) as closed:
            ws.recv(10)
    assert closed.value.rcvd.code == 1009


# Closing.


def test_the_application_says_why_it_closes(sockets):
    with raw(sockets, "/closes") as ws:
        assert ws.frame() == (CLOSE, (4001).to_bytes(2, "big") + b"enough")
        ws.send(frame(CLOSE, (4001).to_bytes(2, "big")))
        assert ws.is_closed()
    sockets.wait_for_log("closed=True the WebSocket is closed")
    # A loop that receives ends as it does when the client closes.
    sockets.wait_for_log("then None")
    sockets.wait_for_log("at last: the WebSocket is closed")


@pytest.mark.parametrize(("path", "code"), [("/responded_as_well", 1000), ("/raises", 1011)])
def test_the_end_of_the_call_closes(sockets, path, code):
    with raw(sockets, path) as ws:
        assert ws.frame()[0] == TEXT
        assert ws.close_code() == code
        ws.send(frame(CLOSE, code.to_bytes(2, "big")))
        assert ws.is_closed()
    if code == 1011:
        sockets.wait_for_log("broken application")
    else:
        assert "broken application" not in sockets.log()


def test_a_response_that_has_begun_is_no_websocket(sockets):
    with sockets.connect() as connection:
        response = connection.send(handshake("/responded_first")).response()
        assert response.body.startswith(b"first, then: ")


@pytest.mark.parametrize("code", [1000, 1001, 3000, 4999, None])
def test_the_client_says_why_it_closes(sockets, code):
    with raw(sockets, "/told") as ws:
        assert ws.frame() == (TEXT, b"begin")
        ws.send(frame(TEXT, b"last") + frame(CLOSE, code.to_bytes(2, "big") if code else b""))
        assert ws.close_code() == code
        assert ws.is_closed()
    sockets.wait_for_log("received 'last'")
    sockets.wait_for_log("ended: closed=True")


def test_a_client_that_is_gone_is_noticed(sockets):
    for end in ("close", "reset"):
        ws = raw(sockets, "/told")
        assert ws.frame() == (TEXT, b"begin")
        getattr(ws, end)()
    sockets.wait_for_log("ended: closed=True", 2)


def test_a_client_that_does_not_respond_to_a_close_is_not_waited_for_long(sockets):
    with raw(sockets, "/closes") as ws:
        assert ws.close_code() == 4001
        # Half the connection ends at once, all of it soon.
        assert ws.is_closed()


# While the application does something else.


def test_pings_get_responses_while_the_application_is_busy(sockets, gate):
    with raw(sockets, f"/busy?{gate.name}") as ws:
        assert ws.frame() == (TEXT, b"busy")
        for number in range(3):
            payload = b"%d" % number
            ws.send(frame(PING, payload))
            assert ws.frame() == (PONG, payload)
        gate.open()
        assert ws.frame() == (TEXT, b"done")
        assert ws.close_code() == 1000


def test_other_requests_get_responses_meanwhile(sockets):
    with raw(sockets) as first, raw(sockets) as second:
        for _ in range(20):
            assert sockets.get("/plain").status == 200
            for ws in (first, second):
                ws.send(frame(TEXT, b"a"))
                assert ws.frame() == (TEXT, b"a")


def test_a_client_is_asked_whether_it_lives(serve):
    served = serve(APPS / "websocket.py", "--websocket-ping-interval", "200ms", "--websocket-ping-timeout", "300ms")
    begun = time.monotonic()
    with raw(served, "/told") as ws:
        assert ws.frame() == (TEXT, b"begin")
        assert ws.frame() == (PING, b"")
        # It plays dead.
        with pytest.raises(ConnectionResetError):
            ws.socket.recv(1)
        assert time.monotonic() - begun > 0.5
    served.wait_for_log("ended: closed=True")


def test_a_client_that_responds_is_kept(serve):
    served = serve(APPS / "websocket.py", "--websocket-ping-interval", "50ms")
    with raw(served) as ws:
        for _ in range(5):
            # The next ping comes only when this one has had its response, and has its own time.
            assert ws.frame() == (PING, b"")
            ws.send(frame(PONG))
        ws.send(frame(TEXT, b"still here"))
        assert next(found for found in iter(ws.frame, None) if found[0] != PING) == (TEXT, b"still here")


def test_an_application_that_does_not_receive_stops_its_client(sockets, gate):
    """Back pressure: what waits for the application is bounded."""
    with raw(sockets, f"/waits_first?{gate.name}") as ws:
        ws.socket.settimeout(0.3)
        message, sent = frame(BINARY, b"z" * 60_000), 0
        with contextlib.suppress(TimeoutError):
            while sent < 100_000_000:
                sent += ws.socket.send(message[sent % len(message) :])
        # The kernel's buffers and the inbox are all that took something.
        assert sent < 30_000_000
        gate.open()
        ws.socket.settimeout(PATIENCE)
        received = 0
        while received < sent // len(message) * 60_000:
            opcode, payload = ws.frame()
            assert opcode == BINARY, payload
            received += len(payload)


def test_many_messages_in_both_directions_at_once(sockets):
    with dial(sockets) as ws:
        count = 20_000
        sender = threading.Thread(target=lambda: [ws.send(f"message {n}") for n in range(count)])
        sender.start()
        assert [ws.recv(PATIENCE) for _ in range(count)] == [f"message {n}" for n in range(count)]
        sender.join()


def test_a_client_that_does_not_read_stops_the_application(serve):
    served = serve(APPS / "websocket.py", "--write-timeout", "1s")
    with raw(served, "/floods") as ws:
        served.wait_for_log("and was told")
        assert int(served.log().rpartition("sent ")[2].split()[0]) < 1000
        ws.close()
    assert served.get("/plain").status == 200


# Compression.


@pytest.mark.parametrize("bits", [None, 9, 12, 15])
@pytest.mark.parametrize("takeover", [True, False])
def test_compression_of_another_maker(shared, bits, takeover):
    extension = ClientPerMessageDeflateFactory(
        server_no_context_takeover=not takeover, server_max_window_bits=bits, client_max_window_bits=bits or True
    )
    words = (CORPUS / "valid.json").read_text()
    with dial(shared, extensions=[extension], compression=None, max_size=None) as ws:
        assert ws.protocol.extensions
        for size in (16, 64, 256, 1024, 4096, 8192, 16_384, 32_768, len(words)):
            for _ in range(10):
                ws.send(words[:size])
                assert ws.recv(10) == words[:size]


def test_compression_can_be_off(serve):
    served = serve(APPS / "websocket.py", "--no-websocket-compression")
    with dial(served) as ws:
        assert not ws.protocol.extensions
        ws.send("a" * 1000)
        assert ws.recv(10) == "a" * 1000


# Large messages (the cases of the Autobahn suite's section 9).


@pytest.mark.parametrize("size", [1 << 16, 1 << 18, 1 << 20, 1 << 22, 1 << 24])
@pytest.mark.parametrize("fragment", [None, 64, 1024, 65_536])
def test_large_messages(serve, size, fragment):
    if fragment == 64 and size > 1 << 22:
        pytest.skip("a quarter of a million fragments are more than fragments may be")
    served = serve(APPS / "websocket.py", "--websocket-message-max-bytes", "16M", "--no-websocket-compression")
    data = b"\0" * size
    with raw(served) as ws:
        if fragment is None:
            wire = frame(BINARY, data, mask=b"\0\0\0\0")
        else:
            piece = frame(0, b"\0" * fragment, final=False, mask=b"\0\0\0\0")
            wire = frame(BINARY, b"", final=False) + piece * (size // fragment) + frame(0)
        sender = threading.Thread(target=ws.send, args=(wire,))
        sender.start()
        assert ws.frame() == (BINARY, data)
        sender.join()


# The end of a worker.


@pytest.mark.parametrize("path", ["/told", "/echo"])
def test_a_worker_that_drains_says_that_it_goes(sockets, path):
    with raw(sockets, path) as ws, raw(sockets, path) as other:
        if path == "/told":
            assert ws.frame() == other.frame() == (TEXT, b"begin")
        else:
            for client in (ws, other):
                client.send(frame(TEXT, b"a"))
                assert client.frame() == (TEXT, b"a")
        sockets.send_signal(signal.SIGTERM)
        for client in (ws, other):
            assert client.close_code() == 1001
            client.send(frame(CLOSE, (1001).to_bytes(2, "big")))
            assert client.is_closed()
    assert sockets.wait() == 0
    if path == "/told":
        assert sockets.log().count("ended: closed=True") == 2


def test_a_reload_moves_clients_on(sockets):
    with raw(sockets) as ws:
        ws.send(frame(TEXT, b"a"))
        assert ws.frame() == (TEXT, b"a")
        sockets.send_signal(signal.SIGHUP)
        assert ws.close_code() == 1001
    with raw(sockets) as ws:
        ws.send(frame(TEXT, b"b"))
        assert ws.frame() == (TEXT, b"b")


# Other faces.


def test_frames_and_kinds_of_gevent_websocket(sockets):
    with raw(sockets, "/frames") as ws:
        assert [ws.frame() for _ in range(11)] == [
            (TEXT, b"text"),
            (BINARY, b"binary"),
            (PING, b"are you there"),
            (BINARY, b"array"),
            (BINARY, b"view"),
            (TEXT, b"text in bytes"),
            (BINARY, b"bytes in text"),
            (TEXT, b"ValueError"),
            (TEXT, b"TypeError"),
            (TEXT, b"WebSocketError"),
            (TEXT, b"nothing came"),
        ]


def test_the_descriptor_tells_of_messages(sockets):
    with raw(sockets, "/selects") as ws:
        assert ws.frame() == (TEXT, b"ready")
        for number in range(50):
            # Two at once are told of once, and both are there.
            ws.send(frame(TEXT, b"a%d" % number) + frame(TEXT, b"b%d" % number))
            assert ws.frame() == (TEXT, b"a%d" % number)
            assert ws.frame() == (TEXT, b"b%d" % number)
        ws.send(frame(CLOSE))
        assert ws.close_code() is None
    sockets.wait_for_log("ended")


def test_the_functions_of_uwsgi(sockets):
    with raw(sockets, "/in_uwsgi") as ws:
        assert ws.frame() == (TEXT, b"ready")
        ws.send(frame(TEXT, b"text") + frame(BINARY, b"binary"))
        assert ws.frame() == (TEXT, b"text")
        assert ws.frame() == (BINARY, b"binary")
        ws.send(frame(CLOSE))
        assert ws.close_code() is None
    sockets.wait_for_log("ended: unable to receive websocket message")


def test_a_connection_can_be_taken_over(sockets):
    with sockets.connect() as connection:
        connection.send(handshake("/raw") + b"early")
        assert connection.head()["Upgrade"] == "shouting"
        assert connection.take(5) == b"EARLY"
        data = b"abcdefgh" * 100_000
        sender = threading.Thread(target=connection.send, args=(data,))
        sender.start()
        assert connection.take(len(data)) == data.upper()
        sender.join()
        connection.socket.shutdown(1)
        assert connection.is_closed()
    sockets.wait_for_log("raw ended")
    assert "Traceback" not in sockets.log()


def test_a_connection_that_was_taken_over_ends_with_the_worker(sockets):
    with sockets.connect() as connection:
        connection.send(handshake("/raw") + b"a")
        connection.head()
        assert connection.take(1) == b"A"
        sockets.send_signal(signal.SIGTERM)
        assert connection.is_closed()
    assert sockets.wait() == 0


def test_an_end_in_the_same_packet_as_a_message_is_noticed(sockets):
    for _ in range(5):
        with raw(sockets) as connection:
            connection.send(frame(TEXT, b"one"))
            assert connection.frame() == (TEXT, b"one")
            connection.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
            connection.send(frame(TEXT, b"two"))
            connection.socket.shutdown(socket.SHUT_WR)
            # The response may still be sent or not.
            with contextlib.suppress(ConnectionResetError):
                connection.rest()


# With TLS, in the log, at rest.


def test_all_of_it_over_tls(serve, tmp_path):
    pair = certificate(tmp_path)
    served = serve(APPS / "websocket.py", "-c", pair[0], "-k", pair[1])
    context = ssl.create_default_context(cafile=pair[0])
    address = served.address
    with Client(address) as connection:
        connection.socket = context.wrap_socket(connection.socket, server_hostname="127.0.0.1")
        connection.open("/echo")
        for kind, message in ((TEXT, b"hello"), (BINARY, b"\0" * 500_000), (TEXT, b"x" * 70_000)):
            connection.send(frame(kind, message))
            assert connection.frame() == (kind, message)
        connection.send(frame(TEXT, b"in one record"))
        assert connection.socket.recv(100) == b"\x81\x0din one record"
    with Client(address) as connection:
        connection.socket = context.wrap_socket(connection.socket, server_hostname="127.0.0.1")
        connection.send(handshake("/raw"))
        assert connection.head().status == 101
        data = b"abcdefgh" * 50_000
        assert exchange(connection.socket, data) == data.upper()


def test_a_websocket_may_last_and_is_no_slow_request(serve, tmp_path):
    shutil.copy(APPS / "gates.py", tmp_path)
    (tmp_path / "app.py").write_text("""
from gates import wait_for
def app(environ, start_response):
    if ws := environ.get("wsgi.websocket"):
        while (message := ws.receive()) is not None:
            ws.send(message)
        return []
    wait_for("released")
    start_response("200 OK", [])
    return [b""]
""")
    served = serve("app:app", "--slow-request", "100ms")
    with raw(served) as ws, served.connect() as slow:
        ws.send(frame(TEXT, b"hello"))
        assert ws.frame() == (TEXT, b"hello")
        # One that began later is slow before anybody can take this one for slow.
        slow.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
        served.wait_for_log("GET /slow from 127.0.0.1 has taken")
        (tmp_path / "released").touch()
        assert slow.response().status == 200
    assert "/echo" not in served.log()


def test_the_access_log_has_a_line_for_each(serve, tmp_path):
    log = tmp_path / "access.log"
    served = serve(APPS / "websocket.py", "--access-log", log)
    with raw(served) as ws:
        ws.send(frame(TEXT, b"12345"))
        assert ws.frame() == (TEXT, b"12345")
        ws.send(frame(CLOSE))
        assert ws.close_code() is None
        assert ws.is_closed()
    served.wait_until(lambda: log.exists() and log.read_text(), "a line")
    served.terminate()
    (line,) = log.read_text().splitlines()
    assert '"GET /echo HTTP/1.1" 101 7' in line


def test_idle_websockets_cost_little(serve):
    """What a message needed is gone after it."""
    count = 200
    served = serve(APPS / "websocket.py", "--threads", str(count + 5))
    (worker,) = served.workers()

    def memory():
        status = Path(f"/proc/{worker}/smaps_rollup").read_text()
        return int(next(line for line in status.splitlines() if line.startswith("Private_Dirty")).split()[1])

    message = zlib.compress(b"a" * 1000, wbits=-15)

    def once(ws):
        ws.send(frame(TEXT, message, reserved=4))
        assert ws.frame()[0] == TEXT | 0x40

    first = [raw(served, fields=[("Sec-WebSocket-Extensions", "permessage-deflate")]) for _ in range(count)]
    for ws in first:
        once(ws)
    before = memory()
    for ws in first:
        once(ws)
    after = memory()
    # Compression alone would keep more than 200 KiB for each.
    assert after - before < 8 * count, (before, after)
    for ws in first:
        ws.close()


def test_the_example_echoes(launch):
    folder = Path(__file__).parents[2] / "examples" / "websocket"
    served = launch("app:application", "--port", "0", folder=folder).wait_ready()
    with dial(served, "/") as ws:
        ws.send("hello")
        assert ws.recv(10) == "hello"
    assert served.get("/").status == 426
