"""PEP 3333, clause by clause, with the applications of tests/apps/contract.py."""

import gzip
import json
import re
import socket
from pathlib import Path

import pytest
from conftest import APPS
from http2_frames import Client, plain


def test_environ_has_what_pep_3333_names(echo):
    seen = echo.get(
        "/echo/a%20b?c=d&e", fields=[("X-Custom", "1"), ("Content-Type", "text/x")], method="POST", body=b"abc"
    ).json
    host, port = echo.address
    assert seen["REQUEST_METHOD"] == "POST"
    assert seen["SCRIPT_NAME"] == ""
    assert seen["PATH_INFO"] == "/echo/a b"
    assert seen["QUERY_STRING"] == "c=d&e"
    assert seen["CONTENT_TYPE"] == "text/x"
    assert seen["CONTENT_LENGTH"] == "3"
    assert seen["SERVER_NAME"] == host
    assert seen["SERVER_PORT"] == str(port)
    assert seen["SERVER_PROTOCOL"] == "HTTP/1.1"
    assert seen["HTTP_X_CUSTOM"] == "1"
    assert seen["HTTP_HOST"] == "test"
    assert seen["REMOTE_ADDR"] == "127.0.0.1"
    assert int(seen["REMOTE_PORT"]) > 0
    assert seen["REQUEST_URI"] == seen["RAW_URI"] == "/echo/a%20b?c=d&e"
    assert seen["GATEWAY_INTERFACE"] == "CGI/1.1"
    assert seen["SERVER_SOFTWARE"].startswith("anygate/")
    assert seen["wsgi.version"] == [1, 0]
    assert seen["wsgi.url_scheme"] == "http"
    assert seen["wsgi.multithread"] is (echo.concurrency == "threads")
    assert seen["wsgi.multiprocess"] is False
    assert seen["wsgi.run_once"] is False
    assert seen["wsgi.input_terminated"] is True


def test_nothing_of_the_process_environment_is_in_environ(serve):
    from conftest import APPS

    served = serve(APPS / "contract.py", environment={"SECRET_OF_THE_SHELL": "1"})
    seen = served.get("/echo").json
    assert "SECRET_OF_THE_SHELL" not in seen
    assert "PATH" not in seen


def test_a_path_is_latin_1_text_of_utf_8_bytes(echo):
    seen = echo.get("/caf%C3%A9").json
    assert seen["PATH_INFO"].encode("latin-1").decode() == "/café"


def test_names_with_underscores_and_proxy_are_dropped(echo):
    fields = [
        ("X_User", "spoofed"),
        ("X-User", "real"),
        ("Proxy", "http://evil"),
        ("Content_Length", "9"),
        ("X_user", "2"),
    ]
    seen = echo.get("/echo", fields=fields).json
    assert seen["HTTP_X_USER"] == "real"
    assert "HTTP_PROXY" not in seen
    assert "CONTENT_LENGTH" not in seen


def test_the_log_says_once_that_names_with_underscores_are_dropped(serve):
    served = serve(APPS / "contract.py")
    for _ in range(2):
        served.get("/echo", fields=[("access_token", "s3"), ("X_Api_Key", "k")])
    with Client(plain(served.address)) as client:
        client.ask("GET", "/echo", [("access_token", "s3")])
    served.wait_for_log('the field "access_token"')
    assert served.log().count("with _ in their names") == 1
    assert "s3" not in served.log()


def test_fields_of_the_server_are_dropped_and_each_is_told_of_once(serve):
    served = serve(APPS / "contract.py")
    for _ in range(2):
        response = served.get("/hop_by_hop")
        assert response["X-A"] == "1"
        assert not {"Transfer-Encoding", "Keep-Alive", "Upgrade", "Proxy-Authenticate"} & {
            name for name, _ in response.fields
        }
    for name in ("transfer-encoding", "keep-alive", "upgrade", "proxy-authenticate", "proxy-authorization"):
        served.wait_for_log(f"the field {name} of the application's response is not sent")
        assert served.log().count(f"the field {name} ") == 1
    assert "the field connection" not in served.log()


@pytest.mark.parametrize("concurrency", ["threads", "gevent"])
def test_an_application_that_frames_its_response_itself_fails_and_sends_no_chunks_as_data(serve, concurrency):
    served = serve(APPS / "contract.py", "--concurrency", concurrency)
    for how in ("list", "blocks", "write"):
        assert served.get(f"/frames_itself?{how}").status == 500
        with Client(plain(served.address)) as client:
            assert client.ask("GET", f"/frames_itself?{how}").status == 500
    served.wait_for_log("the application frames its response itself", 6)
    # Whoever only names the coding, as proxies do, has its data sent.
    assert served.get("/frames_itself?data").body == b"hello"


def test_repeated_fields_are_joined(echo):
    fields = [("X-A", "1"), ("x-a", "1"), ("Cookie", "a=1"), ("Cookie", "b=2"), ("Accept", "*/*"), ("X-A", "3")]
    seen = echo.get("/echo", fields=fields).json
    assert seen["HTTP_X_A"] == "1, 1, 3"
    assert seen["HTTP_COOKIE"] == "a=1; b=2"


def test_requests_of_one_connection_have_hosts_of_their_own(echo):
    with echo.connect() as connection:
        for host in ("one.test", "one.test", "other.test", "one.test:80"):
            assert connection.ask(target="/echo", host=host).json["HTTP_HOST"] == host
        connection.send(b"GET /echo HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        assert "HTTP_HOST" not in connection.response().json
        assert connection.ask(target="/echo", host="one.test").json["HTTP_HOST"] == "one.test"


def test_the_length_of_a_chunked_body_is_known(echo):
    wire = b"3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n"
    seen = echo.get("/echo", fields=[("Transfer-Encoding", "chunked")], method="POST", body=wire).json
    assert seen["body"] == "abcdefg"
    assert seen["CONTENT_LENGTH"] == "7"
    assert "HTTP_TRANSFER_ENCODING" not in seen


def test_an_announced_empty_body_has_length_zero(echo):
    assert echo.get("/echo", fields=[("Content-Length", "0")], method="POST").json["CONTENT_LENGTH"] == "0"
    assert "CONTENT_LENGTH" not in echo.get("/echo").json


@pytest.mark.parametrize(
    ("method", "fields", "body", "expected"),
    [
        ("GET", [], b"", b"valid "),
        ("POST", [("Content-Type", "text/plain")], b"body", b"valid body"),
        ("POST", [("Transfer-Encoding", "chunked")], b"4\r\nbody\r\n0\r\n\r\n", b"valid body"),
    ],
)
def test_the_validator_of_the_standard_library_is_content(echo, method, fields, body, expected):
    response = echo.get("/valid", fields=fields, method=method, body=body)
    assert (response.status, response.body) == (200, expected)


def test_the_validator_is_content_with_head(echo):
    assert echo.get("/valid", method="HEAD").status == 200


class TestInput:
    BODY = b"one\ntwo two\n\nlast without end"

    @pytest.mark.parametrize(
        ("calls", "expected"),
        [
            ("read", ["one\ntwo two\n\nlast without end"]),
            ("read(-1)", ["one\ntwo two\n\nlast without end"]),
            ("read(3);read(0);read(2);read(1000);read(1)", ["one", "", "\nt", "wo two\n\nlast without end", ""]),
            ("readline;readline;readline;readline;readline", ["one\n", "two two\n", "\n", "last without end", ""]),
            ("readline(2);readline(2);readline(0);readline(-1)", ["on", "e\n", "", "two two\n"]),
            ("readlines", [["one\n", "two two\n", "\n", "last without end"]]),
            ("readlines(5);readlines", [["one\n", "two two\n"], ["\n", "last without end"]]),
            ("iterate;read", [["one\n", "two two\n", "\n", "last without end"], ""]),
            ("readline;read(4);readline;read", ["one\n", "two ", "two\n", "\nlast without end"]),
        ],
    )
    def test_reads_like_a_file(self, echo, calls, expected):
        assert echo.get(f"/read_input?{calls}", method="POST", body=self.BODY).json == expected

    def test_the_standard_library_can_wrap_it(self, echo):
        lines = ["on", "e\n", "two two\n", "\n", "last without end"]
        assert echo.get("/wrapped_input", method="POST", body=self.BODY).json == lines

    def test_without_a_body_it_is_empty(self, echo):
        assert echo.get("/read_input?read;readline;readlines;iterate;read(5)").json == ["", "", [], [], ""]

    @pytest.mark.parametrize("size", [1, 65535, 65536, 262144, 262145, 5_000_000])
    def test_bodies_of_any_size_arrive_whole(self, echo, size):
        """The larger ones go through a temporary file."""
        assert echo.get("/count_input", method="POST", body=b"x" * size).body == f"{size} {size}".encode()

    def test_a_chunked_body_of_many_tiny_chunks_arrives(self, echo):
        wire = b"1\r\nx\r\n" * 50_000 + b"0\r\n\r\n"
        response = echo.get("/count_input", fields=[("Transfer-Encoding", "chunked")], method="POST", body=wire)
        assert response.body == b"50000 50000"


class TestStreamedInput:
    @pytest.fixture(scope="class", params=["threads", "gevent"])
    @classmethod
    def streaming(cls, request, tmp_path_factory):
        from conftest import Served

        arguments = [
            APPS / "contract.py",
            "--port",
            "0",
            "--stream-paths",
            "/streamed",
            "--stream-paths",
            "/read_input",
            "--stream-paths",
            "/wrapped_input",
            "--concurrency",
            request.param,
        ]
        served = Served(arguments, tmp_path_factory.mktemp("streaming"))
        yield served.wait_ready()
        served.kill()

    def outcome(self, served):
        served.wait_until(lambda: served.get("/closed").json, "the application to note what it read")
        return served.get("/closed").json[-1]

    def test_a_whole_body_is_read_and_the_connection_stays(self, streaming):
        with streaming.connect() as connection:
            assert connection.ask("POST", "/streamed", body=b"hello").body == b"hello"
            assert (
                connection.ask("POST", "/streamed", [("Transfer-Encoding", "chunked")], b"2\r\nhi\r\n0\r\n\r\n").body
                == b"hi"
            )
            assert connection.ask("GET", "/pid").status == 200

    def test_lines_can_be_read(self, streaming):
        response = streaming.get("/read_input?readline;readline;read", method="POST", body=b"a\nb\nc\nd")
        assert response.json == ["a\n", "b\n", "c\nd"]

    def test_the_standard_library_can_wrap_it(self, streaming):
        response = streaming.get("/wrapped_input", method="POST", body=b"one\ntwo")
        assert response.json == ["on", "e\n", "two"]

    def test_a_body_that_breaks_off_raises_oserror(self, streaming):
        with streaming.connect() as connection:
            connection.send("POST /streamed HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nonly this")
        streaming.wait_until(
            lambda: "closed the connection before the end of the body" in str(streaming.get("/closed").json),
            "an OSError",
        )

    def test_broken_chunks_raise_oserror(self, streaming):
        with streaming.connect() as connection:
            connection.send("POST /streamed HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhelloXX")
            assert connection.response().status == 400
        assert "broken request body" in self.outcome(streaming)

    @pytest.mark.parametrize("concurrency", ["threads", "gevent"])
    def test_a_body_that_is_too_slow_raises_timeouterror(self, serve, concurrency):
        options = ("--stream-paths", "/streamed", "--concurrency", concurrency, "--body-timeout", "500ms")
        impatient = serve(APPS / "contract.py", *options)
        with impatient.connect() as connection:
            connection.send("POST /streamed HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nonly this")
            assert connection.response().status == 408
        assert "TimeoutError" in self.outcome(impatient)

    def test_what_a_client_sends_is_no_failure_of_the_application(self, streaming):
        with streaming.connect() as connection:
            connection.send("POST /streamed?cut HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nonly this")
            connection.socket.shutdown(socket.SHUT_WR)
            assert connection.response().status == 400
        told = "a request ended early: the client closed the connection before the end of the body"
        streaming.wait_until(lambda: told in streaming.log(), "a line about it")
        assert "the application failed: POST /streamed" not in streaming.log()

    def test_expect_100_continue_is_sent_when_the_application_reads(self, streaming):
        with streaming.connect() as connection:
            connection.send("POST /streamed HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
            assert connection.head().status == 100
            connection.send("hi")
            assert connection.response().body == b"hi"


class TestResponses:
    @pytest.mark.parametrize("name", ["response_headers", "headers"])
    def test_arguments_may_be_given_by_name(self, echo, name):
        assert echo.get(f"/by_name?{name}").body == b"by name"

    @pytest.mark.parametrize("container", ["tuple", "items", "iterator", "lists"])
    def test_headers_may_come_in_any_container_of_pairs(self, echo, container):
        response = echo.get(f"/headers_as?{container}")
        assert (response.status, response["x-a"], response["x-b"]) == (200, "1", "2")

    def test_start_response_may_be_called_in_a_generator(self, echo):
        response = echo.get("/late_start")
        assert (response.status, response["x-late"], response.body) == (201, "yes", b"late")

    def test_an_empty_response_has_a_head(self, echo):
        response = echo.get("/nothing")
        assert (response.status, response["x-empty"], response["content-length"]) == (200, "yes", "0")

    def test_write_sends_at_once_and_before_what_is_returned(self, echo):
        assert echo.get("/writer").body == b"written first, returned last"

    def test_a_write_that_outlives_its_request_is_an_error(self, echo):
        assert echo.get("/kept_writer").body == b"kept"
        assert b"the request is over" in echo.get("/use_kept_writer").body

    def test_the_status_keeps_its_reason_and_fields_their_order(self, echo):
        response = echo.get("/fields")
        assert response.reason == "Fine & dandy"
        assert [pair for pair in response.fields if pair[0] not in ("Date", "Server", "Content-Length")] == [
            ("X-One", "1"),
            ("Set-Cookie", "a=1"),
            ("Set-Cookie", "b=2"),
            ("X-Caf", "caf\xe9"),
        ]

    def test_a_block_is_sent_before_the_next_is_made(self, echo, tmp_path):
        with echo.connect() as connection:
            connection.send(f"GET /pieces?{tmp_path}/arrived HTTP/1.1\r\nHost: a\r\n\r\n")
            connection.head()
            assert (connection.line(), connection.line()) == ("6", "first\n")
            (tmp_path / "arrived").touch()
            assert (connection.line(), connection.line()) == ("7", "second\n")

    def test_a_single_block_has_a_length(self, echo):
        response = echo.get("/one_block")
        assert response["content-length"] == "8"
        assert response.body == b"just one"


class TestClose:
    def closed(self, echo, name):
        return echo.get("/closed").json.count(name)

    def test_close_is_called_once(self, echo):
        assert echo.get("/closing?once").body == b"ab"
        assert self.closed(echo, "once") == 1

    def test_close_is_called_after_head(self, echo):
        echo.get("/closing?head", method="HEAD")
        assert self.closed(echo, "head") == 1

    def test_close_is_called_when_the_client_disconnects(self, echo):
        with echo.connect() as connection:
            connection.send("GET /endless?gone HTTP/1.1\r\nHost: a\r\n\r\n")
            connection.take(100_000)
            connection.reset()
        echo.wait_until(lambda: self.closed(echo, "gone") == 1, "close() after a disconnect")

    def test_close_is_called_when_the_client_of_empty_blocks_disconnects(self, echo):
        with echo.connect() as connection:
            connection.send("GET /never_gives?reset HTTP/1.1\r\nHost: a\r\n\r\n")
            echo.wait_until(lambda: self.closed(echo, "reset begun"), "the call")
            connection.reset()
        echo.wait_until(lambda: self.closed(echo, "reset") == 1, "close() after a disconnect")
        with Client(plain(echo.address)) as client:
            stream = client.begin("GET", "/never_gives?stream")
            echo.wait_until(lambda: self.closed(echo, "stream begun"), "the call")
            client.reset(stream)
            echo.wait_until(lambda: self.closed(echo, "stream") == 1, "close() after the reset of its stream")

    @pytest.mark.parametrize(
        ("method", "status", "length", "body"),
        [
            ("HEAD", 200, "", b""),
            ("GET", 204, "", b""),
            ("GET", 304, "", b""),
            ("GET", 200, "9", b"block blo"),
            ("GET", 200, "0", b""),
        ],
    )
    def test_an_application_that_never_ends_gives_no_more_than_its_client_gets(
        self, echo, method, status, length, body
    ):
        name = f"{method}-{status}-{length}"
        with echo.connect() as connection:
            response = connection.ask(method, f"/never_ends?{name},{status},{length}")
            assert (response.status, response.body) == (status, body)
            echo.wait_until(lambda: self.closed(echo, name) == 1, "close()")
            assert connection.ask("GET", "/pid").status == 200

    def test_it_gives_no_more_through_policies_either(self, serve):
        served = serve(APPS / "contract.py", "--compression", "--security-headers", "default", "--cache", "/cached")
        with served.connect() as connection:
            assert connection.ask("HEAD", "/never_ends?head,200,").status == 200
            assert connection.ask("GET", "/never_ends?length,200,5").body == b"block"
            assert connection.ask("GET", "/closed").json == ["head", "length"]

    def test_close_is_called_when_iterating_fails(self, echo):
        before = self.closed(echo, "raises_between_blocks")
        echo.get("/raises_between_blocks")
        assert self.closed(echo, "raises_between_blocks") == before + 1

    @pytest.mark.parametrize("threads", [1, 2])
    def test_a_whole_response_does_not_wait_for_close(self, serve, tmp_path, threads):
        served = serve(APPS / "contract.py", "--threads", threads)
        sign = tmp_path / "sign"
        with served.connect() as connection:
            assert connection.ask("GET", f"/closing_waits?{sign}").body == b"ab"
            sign.touch()
            assert connection.ask("GET", "/closed").json == [str(sign)]

    def test_whole_responses_of_a_batch_all_arrive(self, echo):
        with echo.connect() as first, echo.connect() as second:
            for connection in (first, second, first, second):
                connection.send("GET /one_block HTTP/1.1\r\nHost: a\r\nX-More: 1\r\n\r\n" * 3)
            assert [connection.response().body for connection in (first, second) * 6] == [b"just one"] * 12

    def test_a_close_that_fails_spoils_no_response(self, echo):
        with echo.connect() as connection:
            assert connection.ask("GET", "/closing_fails?failing").body == b"ab"
            assert connection.ask("GET", "/pid").status == 200
        assert self.closed(echo, "failing") == 1
        echo.wait_for_log("ValueError: close failed")


class TestFiles:
    @pytest.fixture
    def path(self, tmp_path):
        path = tmp_path / "file"
        path.write_bytes(bytes(range(256)) * 10_000)
        return path

    def test_a_file_is_sent_whole(self, echo, path):
        response = echo.get(f"/file?{path}")
        assert response["content-length"] == str(path.stat().st_size)
        assert response.body == path.read_bytes()

    def test_a_file_is_sent_from_its_position(self, echo, path):
        response = echo.get(f"/file?{path},2559000")
        assert response.body == path.read_bytes()[2559000:]

    def test_a_file_ends_at_the_announced_length(self, echo, path):
        with echo.connect() as connection:
            assert connection.ask("GET", f"/file_with_length?{path},1000").body == path.read_bytes()[:1000]
            assert connection.ask("GET", "/pid").status == 200

    def test_a_file_shorter_than_announced_breaks_the_response(self, echo, path):
        response = echo.get(f"/file_with_length?{path},9999999")
        # The reset may overtake the end of the file.
        assert response.body
        assert path.read_bytes().startswith(response.body)
        assert not response.whole

    def test_head_sends_no_file(self, echo, path):
        with echo.connect() as connection:
            assert connection.ask("HEAD", f"/file?{path}")["content-length"] == str(path.stat().st_size)
            assert connection.ask("GET", "/pid").status == 200

    def test_an_empty_file_is_an_empty_response(self, echo, tmp_path):
        (tmp_path / "empty").touch()
        assert echo.get(f"/file?{tmp_path / 'empty'}").body == b""

    def test_a_file_that_the_kernel_makes_when_it_is_read_arrives_whole(self, echo):
        # Its size is said to be 0.
        path = Path("/proc/version")
        assert echo.get(f"/file?{path}").body == path.read_bytes()
        # Its size is said to be 4096.
        path = next(Path("/sys/kernel/mm").glob("*/enabled"), None) or next(Path("/sys/class/net").glob("*/mtu"))
        response = echo.get(f"/file?{path}")
        assert (response.body, response.whole) == (path.read_bytes(), True)

    def test_the_names_of_wsgiref_can_be_used(self, echo, path):
        response = echo.get(f"/named_arguments_of_file?{path}")
        assert (response["x-size"], response.body) == ("3", path.read_bytes())

    def test_temporary_files_work(self, echo):
        assert echo.get("/temporary_file").body == b"orary"

    def test_the_end_of_a_large_file_is_sought_not_read(self, echo, tmp_path):
        with (tmp_path / "large").open("wb") as file:
            file.truncate((100 << 30) - 10)
            file.seek(0, 2)
            file.write(b"0123456789")
        response = echo.get(f"/end_of_file?{tmp_path / 'large'}")
        assert (response.body, response["x-place"]) == (b"0123456789", str((100 << 30) - 10))

    def test_what_only_looks_like_a_file_is_read_and_closed(self, echo):
        assert echo.get("/file_like").body == b"y" * 100_000
        assert "file_like" in echo.get("/closed").json

    def test_a_file_with_other_bytes_than_its_descriptor_is_read(self, echo, tmp_path):
        path = tmp_path / "file.gz"
        path.write_bytes(gzip.compress(b"unpacked"))
        assert echo.get(f"/compressed_file?{path}").body == b"unpacked"


class TestFailures:
    @pytest.mark.parametrize(
        ("path", "log"),
        [
            ("/raises", "ValueError: before start_response"),
            ("/raises_after_start", "ValueError: after start_response"),
            ("/raises_in_first_block", "ValueError: in the first block"),
            ("/SystemExit", "SystemExit: 3"),
            ("/KeyboardInterrupt", "KeyboardInterrupt"),
            ("/MemoryError", "MemoryError"),
            ("/GeneratorExit", "GeneratorExit"),
            ("/StopIteration", "StopIteration"),
            ("/RecursionError_", "RecursionError: maximum recursion depth exceeded"),
            ("/unprintable", "Unprintable"),
            ("/no_start", "without calling start_response()"),
            ("/starts_twice", "start_response() was called twice"),
        ],
    )
    def test_an_exception_is_a_500_with_a_traceback_in_the_log(self, echo, path, log):
        worker = echo.get("/pid").body
        with echo.connect() as connection:
            response = connection.ask("GET", path)
            assert response.status == 500
            assert b"Error\n" in response.body
            assert "x-gone" not in response.names()
            assert connection.ask("GET", "/pid").body == worker
        echo.wait_for_log(log)
        echo.wait_for_log(f"the application failed: GET {path} failed")

    def bad():
        return sorted(re.findall(r'^    "(\w+)": responding', (APPS / "contract.py").read_text(), re.MULTILINE))

    @pytest.mark.parametrize("name", bad())
    def test_a_response_that_breaks_the_rules_is_a_500_and_leaks_nothing(self, echo, name):
        worker = echo.get("/pid").body
        with echo.connect() as connection:
            response = connection.ask("GET", f"/bad/{name}")
            assert response.status == 500
            assert "x-injected" not in response.names()
            assert connection.ask("GET", "/pid").body == worker
        echo.wait_for_log(f"GET /bad/{name} failed")

    @pytest.mark.parametrize("query", ["chunked", "length"])
    def test_a_response_that_fails_on_the_way_is_visibly_broken(self, echo, query):
        with echo.connect() as connection:
            response = connection.ask("GET", f"/raises_between_blocks?{query}")
            assert response.body == b"some of it"
            assert not response.whole
            assert connection.is_closed()

    def test_an_http_1_0_response_that_fails_on_the_way_is_reset(self, echo):
        with echo.connect() as connection:
            connection.send("GET /raises_between_blocks HTTP/1.0\r\n\r\n")
            assert not connection.response().whole

    def test_exc_info_replaces_headers_that_were_not_sent(self, echo):
        response = echo.get("/replaces_headers")
        assert (response.status, response.reason, response.body) == (500, "Replaced", b"new")
        assert "x-old" not in response.names()
        assert response["x-new"] == "1"

    def test_exc_info_re_raises_when_headers_were_sent(self, echo):
        response = echo.get("/replaces_too_late")
        assert response.status == 200
        assert response.body == b"sent"
        assert not response.whole
        echo.wait_for_log("ValueError: too late")

    def test_wsgi_errors_goes_to_the_error_log(self, echo):
        assert echo.get("/errors").body == b"ok"
        echo.wait_for_log("a line for the log \u2713\ntwo parts\n")
        assert "printed\n" in echo.stdout()

    def test_wsgi_errors_is_a_text_file_that_is_no_terminal_and_stays_open(self, echo):
        expected = [False, False, True, False, False, None, "utf-8", "replace", "<wsgi.errors>", "w"]
        assert echo.get("/errors_as_file").json == expected
        echo.wait_for_log("still open\n")


def test_app_threads_are_named_and_at_most_as_many_as_asked_for(serve):
    served = serve(APPS / "contract.py")
    names = {served.get("/threads").text for _ in range(20)}
    assert json.dumps(sorted(names))
    assert len(names) <= 8
