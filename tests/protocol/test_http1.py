"""HTTP/1.1 on the wire: RFC 9110 and RFC 9112."""

import os
import re
import select
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from conftest import APPS
from http2_frames import Client, plain
from waiting import in_time, stop
from wire import other_end, wait_closing, wait_stuck

GET = b"GET /pid HTTP/1.1\r\nHost: a\r\n\r\n"


def test_a_connection_serves_many_requests(echo):
    with echo.connect() as connection:
        for number in range(50):
            assert connection.ask("GET", f"/echo?{number}").json["QUERY_STRING"] == str(number)


def test_pipelined_responses_keep_the_order_of_their_requests(echo, gate):
    with echo.connect() as connection:
        wires = [f"GET /echo?{number} HTTP/1.1\r\nHost: a\r\n\r\n" for number in range(40)]
        wires[3] = f"GET /gate?{gate.name} HTTP/1.1\r\nHost: a\r\n\r\n"
        body = "GET / HTTP/1.1\r\nHost: smuggled\r\n\r\n"
        wires[7] = f"POST /echo?7 HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\n\r\n{body}"
        connection.send("".join(wires))
        gate.wait_for()
        assert echo.get("/pid").status == 200
        gate.open()
        for number in range(40):
            response = connection.response()
            if number != 3:
                assert response.json["QUERY_STRING"] == str(number)


def test_a_pipeline_of_large_responses_leaves_a_turn_to_others(serve, tmp_path):
    (tmp_path / "app.py").write_text(
        "import itertools, time\n"
        "numbers = itertools.count()\n"
        "def app(environ, start_response):\n"
        "    until = time.perf_counter() + 0.0005\n"
        "    while time.perf_counter() < until: pass\n"
        "    start_response('200 OK', [])\n"
        "    return [b'%100000d' % next(numbers)]\n"
    )
    served = serve("app:app", "--threads", "1")
    with served.connect() as greedy, served.connect() as other, ThreadPoolExecutor(1) as reading:
        assert int(other.ask("GET", "/").body) == 0
        greedy.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 2000)
        greedy.response()
        responses = reading.submit(lambda: [int(greedy.response().body) for _ in range(1999)])
        assert int(other.ask("GET", "/").body) < 600
        assert responses.result()[-1] == 2001


def test_head_has_the_fields_of_get_and_no_body(echo):
    with echo.connect() as connection:
        head = connection.ask("HEAD", "/large?4096")
        assert head["content-length"] == "4096"
        assert connection.ask("GET", "/pid").status == 200


@pytest.mark.parametrize("path", ["/no_content", "/not_modified"])
def test_204_and_304_have_no_body(echo, path):
    with echo.connect() as connection:
        response = connection.ask("GET", path)
        assert response.status in (204, 304)
        assert response["transfer-encoding"] is None
        if response.status == 204:
            assert response["content-length"] is None
        assert connection.ask("GET", "/pid").status == 200


def test_a_response_without_length_is_chunked(echo):
    response = echo.get("/chunks")
    assert response["transfer-encoding"] == "chunked"
    assert response["content-length"] is None
    assert response.chunks == [b"one", b"two"]


def test_an_http_1_0_client_gets_no_chunks_and_a_close(echo):
    with echo.connect() as connection:
        connection.send("GET /chunks HTTP/1.0\r\n\r\n")
        response = connection.response()
        assert response["transfer-encoding"] is None
        assert response.body == b"onetwo"
        assert connection.is_closed()


def test_an_http_1_0_client_may_keep_the_connection(echo):
    with echo.connect() as connection:
        for _ in range(3):
            connection.send("GET /pid HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
            response = connection.response()
            assert response["connection"] == "keep-alive"
            assert response["content-length"]


def test_connection_close_is_obeyed_and_said(echo):
    with echo.connect() as connection:
        response = connection.ask("GET", "/pid", [("Connection", "close")])
        assert response["connection"] == "close"
        assert connection.is_closed()


def test_an_application_can_close_the_connection(echo):
    with echo.connect() as connection:
        response = connection.ask("GET", "/says_close")
        assert response["connection"] == "close"
        assert connection.is_closed()


def test_options_asterisk_reaches_the_application(echo):
    response = echo.get("*", method="OPTIONS")
    assert response.json["PATH_INFO"] == "*"


def test_expect_100_continue_gets_a_response_before_the_body(echo):
    with echo.connect() as connection:
        connection.send("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
        assert connection.head().status == 100
        connection.send("hello")
        assert connection.response().json["body"] == "hello"


def test_expect_100_continue_with_a_body_that_is_there_gets_no_interim_response(echo):
    with echo.connect() as connection:
        connection.send("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\nhello")
        assert connection.response().status == 200


def test_expect_100_continue_of_an_http_1_0_client_is_ignored(echo):
    with echo.connect() as connection:
        connection.send("POST /echo HTTP/1.0\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
        connection.send("hello")
        assert connection.response().json["body"] == "hello"


def test_an_expected_body_that_is_too_large_is_refused_before_it_is_sent(serve):
    served = serve(APPS / "contract.py", "--body-max-bytes", "100")
    with served.connect() as connection:
        connection.send("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 500\r\nExpect: 100-continue\r\n\r\n")
        assert connection.response().status == 413
        assert connection.is_closed()


def test_bytes_behind_a_refused_request_are_not_executed(echo):
    with echo.connect() as connection:
        connection.send(b"GET / HTTP/1.1\r\n\r\n" + GET)
        assert connection.response().status == 400
        assert connection.is_closed()


def test_an_unread_body_is_never_taken_for_a_request(echo):
    with echo.connect() as connection:
        assert connection.ask("POST", "/ignore_input", body=GET).body == b"ignored"
        assert connection.ask("GET", "/echo?next").json["QUERY_STRING"] == "next"


def test_responses_have_date_and_server(echo):
    response = echo.get("/pid")
    assert re.fullmatch(r"\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT", response["date"])
    assert response["server"] == "anygate"


def test_an_application_may_set_date_and_server_itself(echo):
    response = echo.get("/own_fields")
    assert response.names().count("date") == 1
    assert response["date"] == "Thu, 01 Jan 1970 00:00:00 GMT"
    assert response.names().count("server") == 1
    assert response["server"] == "mine"


def test_hop_by_hop_fields_of_an_application_are_the_servers(echo):
    with echo.connect() as connection:
        response = connection.ask("GET", "/hop_by_hop")
        assert response.body == b"ok"
        assert "keep-alive" not in response.names()
        assert "upgrade" not in response.names()
        assert not {"proxy-authenticate", "proxy-authorization"}.intersection(response.names())
        assert response["x-a"] == "1"
        assert connection.ask("GET", "/pid").status == 200


def test_a_response_that_is_too_long_is_cut_at_its_content_length(echo):
    with echo.connect() as connection:
        assert connection.ask("GET", "/too_long").body == b"hello"
        assert connection.ask("GET", "/echo?next").json["QUERY_STRING"] == "next"


@pytest.mark.parametrize("path", ["/too_short", "/raises_between_blocks?length"])
def test_a_response_that_is_too_short_ends_with_a_reset(echo, path):
    with echo.connect() as connection:
        connection.send(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")
        with pytest.raises(ConnectionResetError):
            connection.rest()
        assert connection.head().status == 200
        assert connection.buffer
    if path == "/too_short":
        echo.wait_for_log("announced 50 bytes in Content-Length and sent 5")


def test_a_205_has_no_content(echo):
    with echo.connect() as connection:
        response = connection.ask("GET", "/reset_content")
        assert (response.status, response["content-length"], response.body) == (205, "0", b"")
        assert connection.ask("GET", "/pid").status == 200


class TestUnreadBodies:
    @pytest.fixture(params=["threads", "gevent"])
    def unread(self, request, serve, tmp_path):
        (tmp_path / "app.py").write_text(
            "def app(environ, start_response):\n"
            "    start_response('200 OK', [('Content-Length', '2')])\n"
            "    return [b'ok']\n"
        )
        return serve("app:app", "--stream-paths", "/", "--concurrency", request.param)

    @pytest.mark.parametrize(
        ("framing", "body"),
        [("Content-Length: 2000", b"x" * 2000), ("Transfer-Encoding: chunked", b"3\r\nabc\r\n0\r\n\r\n")],
    )
    def test_a_body_that_has_come_to_its_end_is_dropped(self, unread, framing, body):
        with unread.connect() as connection:
            for _ in range(3):
                connection.send(f"POST / HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n".encode() + body)
                response = connection.response()
                assert (response.status, response["connection"], response.body) == (200, None, b"ok")

    @pytest.mark.parametrize("expect", ["", "Expect: 100-continue\r\n"])
    def test_the_response_says_that_the_connection_ends(self, unread, expect):
        with unread.connect() as connection:
            connection.send(f"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n{expect}\r\n")
            response = connection.response()
            assert (response.status, response["connection"], response.body) == (200, "close", b"ok")
            assert connection.is_closed()


@pytest.mark.parametrize("concurrency", ["threads", "gevent"])
@pytest.mark.parametrize(
    ("chunks", "status"), [(b"2\r\nabX", 400), (b"9\r\n123456789\r\n2\r\n", 413)], ids=["broken", "too-long"]
)
def test_a_streamed_body_that_is_the_clients_fault_gets_its_status(serve, concurrency, chunks, status):
    options = ("--stream-paths", "/", "--body-max-bytes", "10", "--concurrency", concurrency)
    served = serve(APPS / "contract.py", *options)
    with served.connect() as connection:
        connection.send(b"POST /streamed HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks)
        assert connection.response().status == status
    if status == 413:
        with Client(plain(served.address)) as client:
            stream = client.begin("POST", "/streamed", end=False)
            client.send(stream, b"x" * 11, end=False)
            assert client.wait(stream).status == status
    assert "Traceback" not in served.log()


def test_error_pages_repeat_nothing_of_the_request(echo):
    with echo.connect() as connection:
        connection.send("GET /<script>alert(1)</script> HTTP/9.9\r\nHost: <b>\r\n\r\n")
        response = connection.response()
        assert response.status == 505
        assert b"script" not in response.body
        assert response["content-type"] == "text/plain; charset=utf-8"


def test_a_client_that_shuts_its_sending_side_still_gets_its_response(echo, gate):
    with echo.connect() as connection:
        connection.send(f"GET /gate?{gate.name} HTTP/1.1\r\nHost: a\r\n\r\n")
        gate.wait_for()
        connection.socket.shutdown(socket.SHUT_WR)
        assert echo.get("/pid").status == 200
        gate.open()
        assert connection.response().status == 200
        assert connection.is_closed()


def test_a_client_that_sends_on_after_its_last_request_still_gets_the_response(serve, gate):
    """A close with bytes unread is a reset, and a reset may take the response with it (RFC 9112 section 9.6)."""
    served = serve(APPS / "contract.py", "--threads", "1")
    (worker,) = served.workers()
    with served.connect() as slow:
        slow.send(f"GET /gate?{gate.name} HTTP/1.1\r\nHost: a\r\n\r\n")
        gate.wait_for()
        # The request is there when the connection is accepted, and waits for the only thread.
        stop(worker)
        eager = served.connect()
        eager.send("GET /large?160000 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        os.kill(worker, signal.SIGCONT)
        served.wait_until(eager.is_read, "that the request is read")
        eager.send(b"x" * 1000)
        gate.open()
        assert slow.response().status == 200
    with eager:
        assert eager.rest().endswith(b"0123456789abcdef")


def test_half_a_request_and_a_close_reach_no_application(echo):
    before = echo.get("/closed").json
    with echo.connect() as connection:
        connection.send("POST /streamed HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nonly this")
        connection.socket.shutdown(socket.SHUT_WR)
        assert connection.is_closed()
    assert echo.get("/closed").json == before


def test_a_large_response_arrives_whole_at_a_slow_reader(echo):
    with echo.connect() as connection:
        connection.send(b"GET /large?30000000 HTTP/1.1\r\nHost: a\r\n\r\n" + GET)
        wait_stuck(connection.socket, echo)
        response = connection.response()
        assert response.whole
        assert response.body == b"0123456789abcdef" * (30_000_000 // 16)
        assert connection.response().status == 200


class TestLimits:
    """Each limit by its name, small."""

    @pytest.fixture(scope="class")
    @classmethod
    def limited(cls, tmp_path_factory):
        from conftest import Served

        options = {
            "request-line-max-bytes": 64,
            "fields-max": 5,
            "fields-max-bytes": 256,
            "body-max-bytes": 1000,
            "chunk-extensions-max-bytes": 20,
            "requests-per-connection-max": 3,
        }
        arguments = [part for name, value in options.items() for part in (f"--{name}", str(value))]
        served = Served([APPS / "contract.py", "--port", "0", *arguments], tmp_path_factory.mktemp("limited"))
        yield served.wait_ready()
        served.kill()

    @pytest.fixture(scope="class")
    @classmethod
    def impatient(cls, tmp_path_factory):
        from conftest import Served

        times = [part for name in ("header", "body", "keepalive", "write") for part in (f"--{name}-timeout", "1s")]
        options = ["--threads", "1", "--response-memory-max-bytes", "64K", "--port", "0"]
        served = Served([APPS / "contract.py", *options, *times], tmp_path_factory.mktemp("impatient"))
        yield served.wait_ready()
        served.kill()

    @pytest.mark.parametrize(
        ("wire", "status"),
        [
            ("GET /" + "a" * 60 + " HTTP/1.1\r\nHost: a\r\n\r\n", 414),
            ("GET / HTTP/1.1\r\nHost: a\r\n" + "X: a\r\n" * 5 + "\r\n", 431),
            ("GET / HTTP/1.1\r\nHost: a\r\nX: " + "a" * 300 + "\r\n\r\n", 431),
            ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1001\r\n\r\n", 413),
            (
                "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + "64\r\n" + "a" * 100 + "\r\n" * 1,
                None,
            ),
            (
                "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1;" + "a" * 30 + "\r\nb\r\n0\r\n\r\n",
                400,
            ),
        ],
    )
    def test_sizes(self, limited, wire, status):
        with limited.connect() as connection:
            connection.send(wire)
            if status is None:
                # A hundred bytes at a time, for ever: the limit holds for chunked bodies too.
                for _ in range(20):
                    connection.send("64\r\n" + "a" * 100 + "\r\n")
                status = 413
            assert connection.response().status == status
            assert connection.is_closed()

    def test_a_body_of_exactly_the_limit_is_taken(self, limited):
        assert limited.get("/count_input", method="POST", body=b"a" * 1000).body == b"1000 1000"

    @pytest.mark.parametrize(
        "begun",
        ["GET / HTTP/1.1\r\n", "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\na"],
        ids=["head", "body"],
    )
    def test_a_slow_request_gets_408(self, impatient, begun):
        def slow(step):
            with impatient.connect() as connection:
                sent = time.monotonic()
                connection.send(begun)
                step()
                assert connection.response().status == 408
                assert connection.is_closed()
                assert time.monotonic() - sent > 0.8

        in_time(1, slow)

    def test_a_head_that_drips_gets_408_all_the_same(self, impatient):
        def drip(step):
            with impatient.connect() as connection:
                connection.send("GET / HTTP/1.1\r\nX: ")
                step()
                # It never pauses for as long as it may take altogether.
                while not select.select([connection.socket], [], [], 0.1)[0]:
                    connection.send("a")
                    step()
                assert connection.response().status == 408

        in_time(1, drip)

    def test_a_connection_without_a_request_is_closed(self, impatient):
        with impatient.connect() as connection:
            assert connection.is_closed()

    def test_an_idle_connection_is_closed(self, serve):
        with serve(APPS / "contract.py", "--keepalive-timeout", "1s").connect() as connection:
            assert connection.ask("GET", "/pid").status == 200
            assert connection.is_closed()

    def test_a_connection_ends_after_its_last_request(self, limited):
        with limited.connect() as connection:
            assert connection.ask("GET", "/pid")["connection"] is None
            assert connection.ask("GET", "/pid")["connection"] is None
            assert connection.ask("GET", "/pid")["connection"] == "close"
            assert connection.is_closed()

    def test_slow_clients_hold_no_thread(self, serve):
        """One thread, and four kinds of clients that take their time: others are served before one of them is done."""
        patient = serve(APPS / "contract.py", "--threads", "1", "--response-memory-max-bytes", "64K")
        slow = [patient.connect() for _ in range(40)]
        try:
            for number, connection in enumerate(slow):
                if number % 4 == 1:
                    connection.send("GET / HTTP/1.1\r\n")
                elif number % 4 == 2:
                    connection.send("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\na")
                elif number % 4 == 3:
                    connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                    connection.send("GET /large?8000000 HTTP/1.1\r\nHost: a\r\n\r\n")
            assert patient.get("/pid").status == 200
            assert all(other_end(connection.socket) for connection in slow)
        finally:
            for connection in slow:
                connection.close()

    def test_a_client_that_takes_nothing_is_cut_off(self, impatient):
        with impatient.connect() as connection:
            connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.send("GET /large?64000000 HTTP/1.1\r\nHost: a\r\n\r\n")
            wait_closing(connection.socket)
            try:
                received = connection.rest()
            except ConnectionError:
                received = connection.buffer
            assert len(received) < 64_000_000
