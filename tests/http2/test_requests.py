"""Requests and responses over HTTP/2 (RFC 9113), seen by the application and by the client."""

import contextlib
import hashlib
import os
import re
import select
import shutil
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import http2_frames
import pytest
from conftest import APPS
from http2_frames import Client, Raw, Reset, frame, plain, secure
from other_servers import certificate
from waiting import in_time, let_pass
from wire import is_read, send_read, wait_closing, wait_stuck

CONTRACT = APPS / "contract.py"
SITE = Path(__file__).parents[1] / "web2py" / "site"
MB = 1_000_000


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    return certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture
def over_tls(serve, pair):
    return serve(CONTRACT, "-c", pair[0], "-k", pair[1])


@pytest.fixture
def client(echo):
    with Client(plain(echo.address)) as client:
        yield client


def seen_by_both(echo, client, method, target, fields=(), body=b""):
    older = echo.get(target, [(name.title(), value) for name, value in fields], method, body).json
    newer = client.ask(method, target, fields, body or None).json
    for seen in (older, newer):
        seen.pop("REMOTE_PORT")
    return older, newer


# What the application sees.


@pytest.mark.parametrize(
    ("method", "target", "fields", "body"),
    [
        ("GET", "/echo", [], b""),
        ("GET", "/echo/caf%C3%A9%20x;y=1?a=%31&b", [("x-a", "1"), ("x-a", "2"), ("accept", "*/*")], b""),
        ("POST", "/echo", [("content-type", "text/plain"), ("content-length", "5")], b"hello"),
        ("PUT", "/echo?", [("x-under_score", "1"), ("proxy", "x"), ("content-length", "0")], b""),
        ("DELETE", "//echo//x", [("user-agent", "tester"), ("authorization", "Basic x")], b""),
        ("PROPFIND", "/echo", [("x-latin", "caf\xe9"), ("x-empty", "")], b""),
        ("OPTIONS", "*", [], b""),
    ],
)
def test_the_environ_is_that_of_http_1(echo, client, method, target, fields, body):
    older, newer = seen_by_both(echo, client, method, target, fields, body)
    assert newer.pop("SERVER_PROTOCOL") == "HTTP/2.0"
    assert older.pop("SERVER_PROTOCOL") == "HTTP/1.1"
    assert newer == older


def test_over_tls_it_says_so(over_tls, pair):
    with Client(secure(over_tls.address, pair[0])) as client:
        assert client.socket.selected_alpn_protocol() == "h2"
        seen = client.ask("POST", "/echo", scheme="https", body=b"hello").json
    assert (seen["wsgi.url_scheme"], seen["HTTPS"], seen["SERVER_PROTOCOL"]) == ("https", "on", "HTTP/2.0")
    assert (seen["body"], seen["CONTENT_LENGTH"]) == ("hello", "5")


def test_cookies_in_crumbs_are_one(client):
    seen = client.ask("GET", "/echo", [("cookie", "a=1"), ("x", "y"), ("cookie", "b=2"), ("cookie", "c=3")]).json
    assert seen["HTTP_COOKIE"] == "a=1; b=2; c=3"


def test_a_length_that_nobody_said_is_true(client):
    for body in (b"x", b"y" * 100_000):
        assert client.ask("POST", "/count_input", body=body).text == f"{len(body)} {len(body)}"
    assert "CONTENT_LENGTH" not in client.ask("GET", "/echo").json


def test_trailers_go_nowhere(client):
    stream = client.begin("POST", "/echo", end=False)
    client.send(stream, b"hello", end=False)
    client.state.send_headers(stream, [("x-trailer", "1")], end_stream=True)
    client.flush()
    seen = client.wait(stream).json
    assert seen["body"] == "hello"
    assert "HTTP_X_TRAILER" not in seen


@pytest.mark.parametrize(
    ("changed", "status"),
    [
        ({"authority": None, "fields": [("host", "h:8")]}, 200),
        ({"authority": "H:8", "fields": [("host", "h:8")]}, 200),
        ({"authority": None}, 400),
        ({"scheme": "ftp"}, 400),
        ({"scheme": "HTTPS"}, 200),
        ({"authority": "a", "fields": [("host", "b")]}, 400),
        ({"authority": None, "fields": [("host", "a"), ("host", "b")]}, 400),
        ({"authority": None, "fields": [("host", "a b")]}, 400),
        ({"fields": [("host", "test"), ("host", "test")]}, 400),
        ({"path": "/a%00b"}, 400),
        ({"path": "/" + "x" * 9000}, 414),
        ({"fields": [("expect", "tea")]}, 417),
        ({"fields": [("x" + str(number), "1") for number in range(150)]}, 431),
        ({"method": "CONNECT", "path": None, "scheme": None, "authority": "a:80"}, 501),
    ],
)
def test_what_is_refused_leaves_the_others_alone(client, changed, status):
    assert client.ask(**{"path": "/echo", **changed}).status == status
    assert client.ask("GET", "/pid").status == 200


def test_a_list_of_fields_over_the_limit(client):
    response = client.ask("GET", "/echo", [(f"x-{number}", "y" * 1000) for number in range(70)])
    assert response.status == 431
    assert client.ask("GET", "/pid").status == 200


# Bodies.


@pytest.mark.parametrize("tls", [False, True])
def test_large_bodies_arrive_byte_by_byte(serve, pair, tmp_path, tls):
    served = serve(APPS / "http2.py", *(["-c", pair[0], "-k", pair[1]] if tls else []))
    body = os.urandom(20 * MB)
    with Client(secure(served.address, pair[0]) if tls else plain(served.address)) as client:
        assert client.ask("POST", "/digest", body=body).text == hashlib.sha256(body).hexdigest()
        response = client.ask("POST", "/mirror", body=body)
        assert response["content-length"] == str(len(body))
        assert response.body == body
        (tmp_path / "file").write_bytes(body)
        assert client.ask("GET", f"/file?{tmp_path}/file,1000").body == body[1000:]


def test_many_bodies_at_once(serve):
    served = serve(APPS / "http2.py", "--threads", "4")
    bodies = [os.urandom(300_000 + number) for number in range(30)]
    with Client(plain(served.address)) as client:
        streams = [client.begin("POST", "/mirror", end=False) for _ in bodies]
        # A frame of each in turn.
        for at in range(0, 310_000, 10_000):
            for stream, body in zip(streams, bodies, strict=True):
                if at < len(body):
                    client.send(stream, body[at : at + 10_000], end=at + 10_000 >= len(body))
        for stream, body in zip(streams, bodies, strict=True):
            assert client.wait(stream).body == body


def test_a_body_that_is_too_large_is_refused(serve):
    served = serve(CONTRACT, "--body-max-bytes", "100K")
    with Client(plain(served.address)) as client:
        stream = client.begin("POST", "/echo", [("content-length", "200000")], end=False)
        assert client.wait(stream).status == 413
        for _ in range(150):
            stream = client.begin("POST", "/echo", end=False)
            client.send(stream, b"x" * 110_000, end=False)
            assert client.wait(stream).status == 413
        assert client.ask("POST", "/count_input", body=b"x" * 100_000).text == "100000 100000"


@pytest.mark.parametrize(("length", "body"), [("3", b"hello"), ("9", b"hello"), ("5", None), ("-1", b"x"), ("x", b"x")])
def test_a_length_that_is_wrong_is_nobodys_request(serve, length, body):
    served = serve(CONTRACT)
    with Client(plain(served.address)) as client:
        stream = client.begin("POST", "/closing?wrong", [("content-length", length)], body=body)
        with contextlib.suppress(Reset):
            assert client.wait(stream).status == 400
        assert client.ask("GET", "/closed").json == []


def test_expect_100_continue(client):
    stream = client.begin("POST", "/echo", [("expect", "100-continue"), ("content-length", "5")], end=False)
    while not client.interim[stream]:
        client.pump()
    assert client.interim[stream] == [[(":status", "100")]]
    client.send(stream, b"hello")
    assert client.wait(stream).json["body"] == "hello"


def test_a_streamed_body_is_read_as_it_comes(serve):
    served = serve(APPS / "http2.py", "--stream-paths", "/streamed", "--threads", "2")
    with Client(plain(served.address)) as client:
        stream = client.begin("POST", "/streamed", end=False)
        client.wait_head(stream)
        for piece in (b"one\n", b"two" * 30_000 + b"\n", b"three\n"):
            client.send(stream, piece, end=False)
            while not b"".join(client.responses[stream].chunks).endswith(piece):
                assert client.pump()
        client.send(stream, b"end")
        assert client.wait(stream).body == b">one\n" + b"two" * 30_000 + b"\nthree\nend"
        large = os.urandom(MB)
        assert client.ask("POST", "/streamed", body=large).body == b">" + large
        stream = client.begin("POST", "/streamed", end=False)
        client.wait_head(stream)
        client.reset(stream)
        served.wait_for_log("the client broke off")
        assert client.ask("GET", "/pid").status == 200


def test_a_streamed_body_that_stops_is_given_up(serve):
    served = serve(APPS / "http2.py", "--stream-paths", "/streamed", "--threads", "2", "--body-timeout", "1s")
    with Client(plain(served.address)) as client:
        stream = client.begin("POST", "/streamed", end=False)
        client.send(stream, b"some", end=False)
        with pytest.raises(Reset):
            client.wait(stream)
        assert client.ask("GET", "/pid").status == 200


def test_stream_paths_are_below_the_mount(serve):
    options = ("--script-name", "/app", "--stream-paths", "/streamed", "--threads", "2")
    with Client(plain(serve(APPS / "http2.py", *options).address)) as client:
        stream = client.begin("POST", "/app/streamed", end=False)
        client.wait_head(stream)
        client.send(stream, b"end")
        assert client.wait(stream).body == b">end"


def test_stream_paths_hold_for_a_path_in_disguise(serve, tmp_path):
    application = """
def application(environ, start_response):
    start_response("200 OK", [("Content-Length", "0")])
    return []
"""
    (tmp_path / "app.py").write_text(application)
    served = serve(tmp_path / "app.py", "--stream-paths", "/streamed", "--threads", "2")
    for path in ["/streamed", "//streamed", "/./streamed", "/x/../streamed"]:
        with Client(plain(served.address)) as client:
            stream = client.begin("POST", path, end=False)
            # The body is never complete.
            assert client.wait_head(stream).status == 200


def test_streamed_bodies_that_wait_leave_room_for_those_that_are_read(serve):
    served = serve(APPS / "http2.py", "--stream-paths", "/digest", "--threads", "2")
    body = os.urandom(MB)
    with Client(plain(served.address)) as client:
        streams = [client.begin("POST", "/digest", end=False) for _ in range(40)]
        left = {stream: memoryview(body) for stream in streams}
        while left:
            moved = False
            for stream, rest in list(left.items()):
                room = min(client.state.local_flow_control_window(stream), 16384, len(rest))
                if room > 0:
                    moved = True
                    client.state.send_data(stream, bytes(rest[:room]), end_stream=room == len(rest))
                    left[stream] = rest[room:]
                    if not left[stream]:
                        del left[stream]
            client.flush()
            if not moved:
                assert client.pump()
                assert not client.resets
        for stream in streams:
            assert client.wait(stream).text == hashlib.sha256(body).hexdigest()


# Responses.


def test_responses_without_a_body(client):
    head = client.ask("HEAD", "/large?4096")
    assert (head.status, head["content-length"], head.body) == (200, "4096", b"")
    for path in ("/no_content", "/not_modified"):
        response = client.ask("GET", path)
        assert (response.status, response.body) == (int("204" if path == "/no_content" else "304"), b"")
    assert client.ask("GET", "/nothing")["content-length"] == "0"


def test_fields_of_responses(client):
    response = client.ask("GET", "/fields")
    assert [value for name, value in response.fields if name == "set-cookie"] == ["a=1", "b=2"]
    assert response["x-caf"] == "caf\xe9"
    assert response["date"]
    assert all(name == name.lower() for name, _ in response.fields)
    response = client.ask("GET", "/hop_by_hop")
    assert response["x-a"] == "1"
    assert not {"connection", "transfer-encoding", "keep-alive", "upgrade"} & set(response.names())
    assert client.ask("GET", "/says_close").status == 200
    assert client.ask("GET", "/own_fields")["server"] == "mine"
    assert client.ask("GET", "/chunks").body == b"onetwo"


def test_blocks_are_sent_as_they_come(client, tmp_path):
    stream = client.begin("GET", f"/pieces?{tmp_path}/arrived")
    while not client.wait_head(stream).chunks:
        assert client.pump()
    assert client.responses[stream].chunks == [b"first\n"]
    (tmp_path / "arrived").touch()
    assert client.wait(stream).body == b"first\nsecond\n"


def test_applications_that_fail(client):
    assert client.ask("GET", "/raises").status == 500
    assert client.ask("GET", "/bad/status_20").status == 500
    for path in ("/raises_between_blocks", "/raises_between_blocks?length", "/too_short"):
        stream = client.begin("GET", path)
        with pytest.raises(Reset) as reset:
            client.wait(stream)
        assert reset.value.code == http2_frames.INTERNAL_ERROR
        # What there was comes before the reset.
        assert (reset.value.response.status, reset.value.response.body) in [(200, b"some of it"), (200, b"hello")]
    assert client.ask("GET", "/too_long").body == b"hello"
    assert client.ask("GET", "/pid").status == 200


def test_files(client, tmp_path):
    (tmp_path / "file").write_bytes(b"0123456789" * 1000)
    assert client.ask("GET", f"/file_with_length?{tmp_path}/file,100").body == b"0123456789" * 10
    with pytest.raises(Reset):
        client.ask("GET", f"/file_with_length?{tmp_path}/file,20000")
    assert client.ask("GET", "/temporary_file").body == b"orary"
    assert client.ask("GET", "/file_like").body == b"y" * 100_000


# Streams.


def test_streams_run_on_threads_at_once(serve, gate):
    served = serve(CONTRACT, "--threads", "4")
    with Client(plain(served.address)) as client:
        streams = [client.begin("GET", f"/gate?{gate.name}") for _ in range(4)]
        quick = client.begin("GET", "/pid")
        gate.wait_for(4)
        gate.open()
        for stream in [*streams, quick]:
            assert client.wait(stream).status == 200


def test_a_response_overtakes_a_slow_one(serve, gate):
    served = serve(CONTRACT, "--threads", "2")
    with Client(plain(served.address)) as client:
        slow = client.begin("GET", f"/gate?{gate.name}")
        for _ in range(20):
            assert client.ask("GET", "/pid").status == 200
        gate.open()
        assert client.wait(slow).status == 200


def test_a_thousand_streams_of_one_connection(client):
    waiting = []
    for number in range(1000):
        waiting.append((number, client.begin("GET", f"/echo?{number}")))
        if len(waiting) == 100:
            for earlier, stream in waiting:
                assert client.wait(stream).json["QUERY_STRING"] == str(earlier)
            waiting = []


def test_too_many_streams_at_once_are_refused_so_that_they_can_be_tried_again(serve):
    served = serve(CONTRACT, "--threads", "1")
    with Raw(plain(served.address)) as raw:
        raw.send(b"".join(raw.request(2 * number + 1, path="/sleep?0.003") for number in range(250)))
        responded = refused = 0
        while responded + refused < 250:
            kind, _, _, payload = raw.next()
            assert kind != http2_frames.GOAWAY
            responded += kind == http2_frames.HEADERS
            refused += kind == http2_frames.RST_STREAM and payload[-1] == http2_frames.REFUSED_STREAM
        assert responded >= 100


# Flow control.


def rss(pid):
    return int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1]) * 1024


def test_a_client_that_takes_nothing_holds_nobody(serve):
    served = serve(CONTRACT, "--threads", "1", "--response-memory-max-bytes", "1M")
    worker = served.workers()[0]
    with Client(plain(served.address), opens=False) as client, Client(plain(served.address)) as other:
        assert other.ask("GET", "/pid").status == 200
        before = rss(worker)
        stuck = [client.begin("GET", "/large?30000000") for _ in range(5)]
        for stream in stuck:
            client.wait_head(stream)
        # Streams of the same connection that need no window go on, and so do other connections.
        assert client.ask("HEAD", "/large?100").status == 200
        assert client.ask("GET", "/no_content").status == 204
        assert other.ask("GET", "/pid").status == 200
        # 64 MiB of large bytes wait as the application gave them, and the allocator keeps what one more response had.
        assert rss(worker) - before < 64 * 1024 * 1024 + 30 * MB + 10 * MB
        # Then it takes all of one after all.
        for stream in stuck[1:]:
            client.reset(stream)
        client.opens = True
        taken = sum(map(len, client.responses[stuck[0]].chunks))
        client.state.increment_flow_control_window(40 * MB)
        client.state.increment_flow_control_window(40 * MB, stuck[0])
        client.flush()
        response = client.wait(stuck[0])
        assert len(response.body) == 30_000_000
        assert taken <= 65535


def test_windows_opened_little_by_little(serve):
    served = serve(CONTRACT, "--threads", "2")
    with Client(plain(served.address), opens=False, settings={4: 1000}) as client:
        stream = client.begin("GET", "/large?160000")
        client.state.increment_flow_control_window(1_000_000)
        client.wait_head(stream)
        while stream not in client.ended:
            client.state.increment_flow_control_window(777, stream)
            client.flush()
            assert client.pump()
        assert client.take(stream).body == b"0123456789abcdef" * 10_000


def test_a_thread_waits_for_room_and_goes_on(serve):
    limits = ("--response-memory-max-bytes", "64K", "--response-spool-max-bytes", "128K")
    served = serve(APPS / "http2.py", "--threads", "1", *limits)
    with Client(plain(served.address), opens=False) as client:
        stream = client.begin("GET", "/in_blocks?4000000")
        client.wait_head(stream)
        taken = 0
        while stream not in client.ended:
            assert client.pump()
            now = sum(map(len, client.responses[stream].chunks))
            if now > taken and stream not in client.ended:
                client.state.increment_flow_control_window(now - taken)
                client.state.increment_flow_control_window(now - taken, stream)
                client.flush()
                taken = now
        assert len(client.take(stream).body) == 4_000_000


def test_a_client_that_takes_nothing_is_given_up(serve):
    served = serve(CONTRACT, "--write-timeout", "1s", "--threads", "1")
    with Client(plain(served.address), opens=False) as client:
        begun = time.monotonic()
        stream = client.begin("GET", "/large?1000000")
        with pytest.raises((Reset, ConnectionError)):
            client.wait(stream)
        assert time.monotonic() - begun > 0.8
        assert client.ask("GET", "/no_content").status == 204


def test_a_socket_that_nobody_reads(serve):
    served = serve(CONTRACT, "--write-timeout", "1s", "--threads", "1")
    with Raw(plain(served.address)) as raw:
        raw.send(frame(http2_frames.SETTINGS, payload=b"\0\4\x7f\xff\xff\xff"))
        raw.send(frame(http2_frames.WINDOW_UPDATE, 0, 0, b"\x7f\0\0\0"))
        raw.send(b"".join(raw.request(2 * number + 1, path="/large?9000000") for number in range(10)))
        wait_stuck(raw.socket, served)
        with Client(plain(served.address)) as other:
            assert other.ask("GET", "/pid").status == 200
        wait_closing(raw.socket)
        taken = 0
        while found := raw.next():
            taken += len(found[3])
        assert taken < 80 * MB


def test_fast_downloads_leave_others_their_turn(serve):
    served = serve(CONTRACT, "--threads", "2")
    with Client(plain(served.address), opens=False) as client, Client(plain(served.address)) as other:
        client.state.increment_flow_control_window(2**30)
        client.flush()
        streams = [client.begin("GET", "/large?100000000") for _ in range(4)]
        for stream in streams:
            client.state.increment_flow_control_window(2**30, stream)
        client.flush()
        stop = threading.Event()

        taken = 0

        def drain():
            nonlocal taken
            while not stop.is_set() and taken < 400_000_000:
                taken += len(client.socket.recv(1 << 20))

        with ThreadPoolExecutor(1) as pool:
            draining = pool.submit(drain)
            for _ in range(10):
                assert other.ask("GET", "/pid").status == 200
            # Long before the downloads are complete.
            assert taken < 400_000_000
            stop.set()
            draining.result()


# Resets.


def test_a_response_that_nobody_wants_stops(serve):
    served = serve(CONTRACT, "--threads", "2", "--response-memory-max-bytes", "64K", "--response-spool-max-bytes", "1M")
    with Client(plain(served.address)) as client:
        stream = client.begin("GET", "/endless?reset")
        client.wait_head(stream)
        client.reset(stream)
        served.wait_until(lambda: "reset" in client.ask("GET", "/closed").json, "the application is told")


def test_a_request_that_was_reset_while_it_waited_is_not_run(serve, gate):
    served = serve(CONTRACT, "--threads", "1")
    with Client(plain(served.address)) as client:
        slow = client.begin("GET", f"/gate?{gate.name}")
        gate.wait_for()
        unwanted = [client.begin("GET", "/closing?unwanted") for _ in range(50)]
        wanted = client.begin("GET", "/closing?wanted")
        served.wait_until(lambda: is_read(client.socket), "that the requests are read")
        for stream in unwanted:
            client.reset(stream)
        served.wait_until(lambda: is_read(client.socket), "that the resets are read")
        gate.open()
        assert client.wait(slow).status == 200
        assert client.wait(wanted).body == b"ab"
        assert client.ask("GET", "/closed").json == ["wanted"]


def test_an_upload_that_was_reset_is_nobodys_request(serve):
    served = serve(CONTRACT)
    with Client(plain(served.address)) as client:
        stream = client.begin("POST", "/closing?half", end=False)
        client.send(stream, b"half", end=False)
        client.reset(stream)
        assert client.ask("GET", "/closed").json == []


# What the server's options say.


def test_the_access_log(serve, tmp_path):
    served = serve(CONTRACT, "--access-log", tmp_path / "access")
    with Client(plain(served.address)) as client:
        client.ask("GET", "/large?160", [("user-agent", "tester")])
        client.ask("CONNECT", None, scheme=None, authority="a:80")

    def lines():
        text = (tmp_path / "access").read_text()
        return text if text.count("\n") == 2 else None

    lines = served.wait_until(lines, "two lines").splitlines()
    assert '"GET /large?160 HTTP/2.0" 200 160 ' in lines[0]
    assert lines[0].endswith('"tester"')
    assert '"-" 501 ' in lines[1]


def test_forwarded_fields_of_a_trusted_proxy(serve):
    served = serve(CONTRACT, "--trusted-proxies", "127.0.0.1")
    with Client(plain(served.address)) as client:
        fields = [("x-forwarded-for", "192.0.2.7"), ("x-forwarded-proto", "https")]
        seen = client.ask("GET", "/echo", fields).json
        assert (seen["REMOTE_ADDR"], seen["wsgi.url_scheme"]) == ("192.0.2.7", "https")
        assert client.ask("GET", "/echo").json["REMOTE_ADDR"] == "127.0.0.1"


def test_forwarded_fields_of_anybody(client):
    seen = client.ask("GET", "/echo", [("x-forwarded-for", "192.0.2.7")]).json
    assert seen["REMOTE_ADDR"] == "127.0.0.1"
    assert "HTTP_X_FORWARDED_FOR" not in seen


def test_a_mount_point(serve):
    served = serve(CONTRACT, "--script-name", "/app")
    with Client(plain(served.address)) as client:
        seen = client.ask("GET", "/app/x%20y").json
        assert (seen["SCRIPT_NAME"], seen["PATH_INFO"]) == ("/app", "/x y")


def test_static_files_of_web2py(serve, tmp_path):
    shutil.copytree(SITE, tmp_path / "site")
    served = serve("--web2py", tmp_path / "site")
    with Client(plain(served.address)) as client:
        found = next((tmp_path / "site" / "applications").glob("*/static/**/*.css"))
        path = "/" + str(found.relative_to(tmp_path / "site" / "applications"))
        response = client.ask("GET", path)
        assert response.body == found.read_bytes()
        again = client.ask("GET", path, [("if-modified-since", response["last-modified"])])
        assert (again.status, again.body) == (304, b"")
        assert client.ask("HEAD", path)["content-length"] == str(len(response.body))
        part = client.ask("GET", path, [("range", "bytes=0-3")])
        assert (part.status, part.body) == (206, response.body[:4])


def test_a_connection_ends_after_so_many_requests(serve):
    served = serve(CONTRACT, "--requests-per-connection-max", "10")
    with Client(plain(served.address)) as client:
        for _ in range(10):
            assert client.ask("GET", "/pid").status == 200
        assert client.wait_closed().goaway.error == http2_frames.NO_ERROR


# Who speaks first, and where.


def test_both_protocols_on_one_port(serve, pair):
    served = serve(CONTRACT, "-c", pair[0], "-k", pair[1])
    plain_too = serve(CONTRACT)
    for address, connect in (
        (served.address, lambda protocols: secure(served.address, pair[0], protocols)),
        (plain_too.address, lambda protocols: plain(plain_too.address)),
    ):
        assert address
        with Client(connect(["h2", "http/1.1"])) as client:
            assert client.ask("GET", "/echo").json["SERVER_PROTOCOL"] == "HTTP/2.0"
        with connect(["http/1.1"]) as older:
            older.sendall(b"GET /pid HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            assert older.recv(100).startswith(b"HTTP/1.1 200")


def test_who_agreed_on_it_must_speak_it(over_tls, pair):
    with secure(over_tls.address, pair[0]) as connection:
        connection.sendall(b"GET /pid HTTP/1.1\r\nHost: a\r\n\r\n")
        assert connection.recv(100) == b""


@pytest.mark.parametrize("concurrency", ["threads", "gevent"])
def test_a_preface_byte_by_byte(serve, concurrency):
    # On a busy machine many single bytes take long.
    served = serve(CONTRACT, "--concurrency", concurrency, "--header-timeout", "10m", "--keepalive-timeout", "10m")
    with Raw(plain(served.address), hello=False) as raw:
        for byte in http2_frames.PREFACE + frame(http2_frames.SETTINGS) + raw.request(1):
            send_read(raw.socket, bytes([byte]))
        assert raw.until(http2_frames.HEADERS)[2] == 1


def test_what_only_begins_like_the_preface_is_http_1(echo):
    with echo.connect() as connection:
        connection.send_read("PRI")
        connection.send("NT /echo HTTP/1.1\r\nHost: a\r\n\r\n")
        assert connection.response().json["REQUEST_METHOD"] == "PRINT"
        # Later it is nothing but a broken request.
        connection.send(http2_frames.PREFACE)
        assert connection.response().status in (400, 505)


def test_a_preface_of_a_proxy_comes_before_it(serve):
    served = serve(CONTRACT, "--proxy-protocol", "--trusted-proxies", "127.0.0.1")
    introduction = b"PROXY TCP4 192.0.2.7 192.0.2.8 5000 443\r\n"
    with Client(plain(served.address), first=introduction) as client:
        seen = client.ask("GET", "/echo").json
        assert (seen["REMOTE_ADDR"], seen["REMOTE_PORT"], seen["SERVER_PORT"]) == ("192.0.2.7", "5000", "443")
        assert seen["SERVER_PROTOCOL"] == "HTTP/2.0"


def test_a_preface_that_names_nobody_leaves_nobody_believed(serve):
    served = serve(CONTRACT, "--proxy-protocol", "--trusted-proxies", "127.0.0.1")
    with Client(plain(served.address), first=b"PROXY UNKNOWN\r\n") as client:
        seen = client.ask("GET", "/echo", [("x-forwarded-for", "203.0.113.9")]).json
        assert (seen["REMOTE_ADDR"], seen.get("HTTP_X_FORWARDED_FOR")) == ("127.0.0.1", None)


def test_a_unix_socket(serve, tmp_path):
    path = tmp_path / "socket"
    serve(CONTRACT, "--bind", f"unix:{path}")
    with Client(plain(str(path))) as client:
        seen = client.ask("POST", "/echo", body=b"x" * 1000).json
        assert (seen["SERVER_PROTOCOL"], len(seen["body"])) == ("HTTP/2.0", 1000)


# Time.


def test_silent_clients_are_let_go(serve):
    served = serve(CONTRACT, "--header-timeout", "1s", "--keepalive-timeout", "2s", "--body-timeout", "1s")
    for sent in (b"PRI * HT", http2_frames.PREFACE, http2_frames.PREFACE + frame(http2_frames.SETTINGS)):
        begun = time.monotonic()
        with Raw(plain(served.address), hello=False) as raw:
            raw.send(sent)
            assert raw.end() in (None, http2_frames.NO_ERROR)
            assert time.monotonic() - begun > 0.5

    def used(step):
        with Client(plain(served.address)) as client:
            step()
            begun = time.monotonic()
            assert client.ask("GET", "/pid").status == 200
            assert client.wait_closed().goaway.error == http2_frames.NO_ERROR
            assert time.monotonic() - begun > 1.5

    in_time(1, used)
    # A head that does not end.
    with Raw(plain(served.address)) as raw:
        raw.send(frame(http2_frames.HEADERS, 0, 1, raw.encoder.encode(http2_frames.head())))
        raw.end()
    # A body that stops, beside one that goes on.

    def beside(step):
        with Client(plain(served.address)) as client:
            stuck = client.begin("POST", "/echo", end=False)
            moving = client.begin("POST", "/echo", end=False)
            sent = 0
            while stuck not in client.ended:
                client.send(moving, b"x" * 500, end=False)
                sent += 500
                step()
                if select.select([client.socket], [], [], 0.3)[0]:
                    assert client.pump()
            client.send(moving, b"x")
            step()
            assert client.wait(stuck).status == 408
            assert client.wait(moving).json["body"] == "x" * (sent + 1)

    in_time(1, beside)


def test_a_slow_application_is_waited_for(serve):
    served = serve(CONTRACT, "--keepalive-timeout", "1s", "--header-timeout", "1s", "--write-timeout", "1s")

    def ask(step):
        with Client(plain(served.address)) as client:
            stream = client.begin("GET", "/sleep?2.5")
            step()
            assert client.wait(stream).status == 200

    in_time(1, ask)


def test_a_busy_connection_stays(serve):
    served = serve(CONTRACT, "--header-timeout", "2s", "--keepalive-timeout", "2s")

    def ask_often(step):
        with Client(plain(served.address)) as client:
            for number in range(60):
                # Refused ones count as well.
                expected = 200 if number < 30 else 400
                assert client.ask("GET", "/pid" if expected == 200 else "/%00").status == expected
                step()
                let_pass(0.05, "all together longer than keepalive_timeout, and each shorter")

    in_time(2, ask_often)


# Ends.


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_streams_in_flight_are_finished(serve, gate, number):
    served = serve(CONTRACT, "--threads", "3")
    old = served.workers()
    with Client(plain(served.address)) as client:
        slow = [client.begin("GET", f"/gate?{gate.name}") for _ in range(3)]
        upload = client.begin("POST", "/echo", end=False)
        gate.wait_for(3)
        served.wait_until(lambda: is_read(client.socket), "that the head of the upload is read")
        served.send_signal(number)
        client.send(upload, b"hel", end=False)
        while client.goaway is None:
            assert client.pump()
        client.send(upload, b"lo")
        assert client.goaway.error == http2_frames.NO_ERROR
        gate.open()
        assert client.wait(upload).json["body"] == "hello"
        for stream in slow:
            assert client.wait(stream).text == str(old[0])
        client.wait_closed()
        assert client.goaway.last_stream == upload
    if number == signal.SIGTERM:
        assert served.wait() == 0
    else:
        served.wait_for_log("reloaded: ")
        with Client(plain(served.address)) as client:
            assert client.ask("GET", "/pid").text not in map(str, old)


def test_a_deaf_client_does_not_hold_up_the_end(serve):
    served = serve(CONTRACT, "--graceful-timeout", "1h", "--keepalive-timeout", "1h")
    with Raw(plain(served.address)) as raw:
        raw.send(raw.request(1))
        raw.until(http2_frames.HEADERS)
        assert served.terminate() == 0
        assert raw.end() == http2_frames.NO_ERROR


# Early hints.


def test_early_hints(serve, gate):
    served = serve(APPS / "http2.py", "--threads", "1")
    with Client(plain(served.address)) as client:
        stream = client.begin("GET", f"/hints?{gate.name}")
        while not client.interim[stream]:
            assert client.pump()
        gate.open()
        response = client.wait(stream)
        first, second = client.interim[stream]
        assert first == [(":status", "103"), ("link", "</a.css>; rel=preload"), ("link", "</b.js>; rel=preload")]
        assert second[0] == (":status", "103")
        assert response.json == {"wrong": ["TypeError"] * 3 + ["ValueError"] * 2, "late": "RuntimeError"}
    older = served.get("/hints")
    assert older.json == {"offered": False}
