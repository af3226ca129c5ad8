"""SCGI, uwsgi, FastCGI and PROXY over real sockets: what the application sees, and what peers cannot do."""

import contextlib
import json
import struct
import time

import gateways
import pytest
from conftest import APPS
from gateways import begin, cgi_response, fastcgi, params, record, records, scgi, stdout, stream, uwsgi, variables
from waiting import in_time, let_pass

PROTOCOLS = ("scgi", "uwsgi", "fastcgi")
#: Of the two seconds for a head: twice this is too long for one request, and not for two.
MOST_OF_THE_TIME = (1.3, "each request has a time for its head")


@contextlib.contextmanager
def everything(folder, *limits):
    """One server that listens for everything at once."""
    from conftest import Served

    binds = ["http://127.0.0.1:0", "scgi://127.0.0.1:0", "uwsgi://127.0.0.1:0", "fastcgi://127.0.0.1:0"]
    arguments = [APPS / "contract.py", *(part for bind in binds for part in ("--bind", bind))]
    served = Served([*arguments, *limits], folder)
    try:
        yield served.wait_ready()
    finally:
        served.kill()


@pytest.fixture(scope="module")
def gateway(tmp_path_factory):
    with everything(tmp_path_factory.mktemp("gateway")) as served:
        yield served


@pytest.fixture(scope="module")
def impatient(tmp_path_factory):
    limits = ("--header-timeout", "2s", "--body-timeout", "2s")
    with everything(tmp_path_factory.mktemp("impatient"), *limits) as served:
        yield served


def address(served, protocol):
    return served.addresses[("http", *PROTOCOLS).index(protocol)]


def send(served, protocol, wire):
    """Send bytes and read all that comes back."""
    with served.connect(address(served, protocol)) as connection:
        connection.send(wire)
        return connection.rest()


def ask(served, protocol, asked, body=b""):
    """A request over a gateway: status, fields, body."""
    response = send(served, protocol, getattr(gateways, protocol)(asked, body))
    if protocol == "fastcgi":
        response, ended = stdout(response)
        assert ended == (0, 0)
    return cgi_response(response)


class TestSameEnviron:
    """The same request over every gateway gives the same environ."""

    REQUESTS = (
        ("GET", "/echo", b"", ()),
        ("GET", "/echo/caf%C3%A9%20x?a=b&c=%20", b"", (("Accept", "text/html"), ("Cookie", "a=b; c=d"))),
        ("POST", "/echo", b"a=b", (("Content-Type", "application/x-www-form-urlencoded"),)),
        ("PUT", "/echo/big", b"x" * 300_000, (("Content-Type", "text/plain"),)),
        ("DELETE", "/", b"", (("X-Forwarded-For", "127.0.0.1"), ("Proxy", "evil"))),
        ("OPTIONS", "*", b"", ()),
    )
    OF_THE_CONNECTION = ("REMOTE_ADDR", "REMOTE_PORT", "SERVER_NAME", "SERVER_PORT", "pid", "anygate.hidden_client")

    def variables(self, method, target, body, fields):
        from urllib.parse import unquote_to_bytes

        path, _, query = target.partition("?")
        names = {"Content-Type": "CONTENT_TYPE"}
        return [
            ("CONTENT_LENGTH", str(len(body)) if body else ""),
            ("SCGI", "1"),
            ("REQUEST_METHOD", method),
            ("REQUEST_URI", target),
            ("PATH_INFO", unquote_to_bytes(path)),
            ("QUERY_STRING", query),
            ("SERVER_PROTOCOL", "HTTP/1.1"),
            ("HTTP_HOST", "test"),
            *((names.get(name, "HTTP_" + name.upper().replace("-", "_")), value) for name, value in fields),
        ]

    @pytest.mark.parametrize("protocol", PROTOCOLS)
    @pytest.mark.parametrize("request_", REQUESTS, ids=lambda request_: f"{request_[0]}-{request_[1]}")
    def test_as_over_http(self, gateway, protocol, request_):
        method, target, body, fields = request_
        expected = gateway.get(target, fields, method, body).json
        status, _, response = ask(gateway, protocol, self.variables(*request_), body)
        assert status == 200
        seen = json.loads(response)
        for name in self.OF_THE_CONNECTION:
            expected.pop(name, None), seen.pop(name, None)
        assert seen == expected

    @pytest.mark.parametrize("protocol", PROTOCOLS)
    def test_the_client_is_the_front_servers_client(self, gateway, protocol):
        _, _, response = ask(gateway, protocol, variables())
        seen = json.loads(response)
        assert seen["REMOTE_ADDR"] == "192.0.2.7"
        assert seen["REMOTE_PORT"] == "4711"
        assert seen["SERVER_NAME"] == "front.example"
        assert seen["SERVER_PORT"] == "80"

    @pytest.mark.parametrize("protocol", PROTOCOLS)
    @pytest.mark.parametrize(
        "said", [("HTTPS", "on"), ("HTTPS", "1"), ("REQUEST_SCHEME", "https"), ("UWSGI_SCHEME", "https")]
    )
    def test_https(self, gateway, protocol, said):
        seen = json.loads(ask(gateway, protocol, variables("GET", "/echo", 0, said))[2])
        assert (seen["wsgi.url_scheme"], seen["HTTPS"]) == ("https", "on")

    @pytest.mark.parametrize("protocol", PROTOCOLS)
    def test_odd_values_are_put_right(self, gateway, protocol):
        odd = [("REMOTE_ADDR", "unix:"), ("SERVER_NAME", ""), ("CONTENT_TYPE", ""), ("HTTP_CONTENT_TYPE", "x/y")]
        seen = json.loads(ask(gateway, protocol, variables("GET", "/echo", 0, *odd))[2])
        assert seen["REMOTE_ADDR"] == "127.0.0.1"
        assert seen["SERVER_NAME"] == "127.0.0.1"
        assert "CONTENT_TYPE" not in seen
        assert "HTTP_CONTENT_TYPE" not in seen
        assert "CONTENT_LENGTH" not in seen

    @pytest.mark.parametrize("protocol", PROTOCOLS)
    def test_a_front_server_may_add_variables_but_load_no_code(self, gateway, protocol):
        more = [("REMOTE_USER", "me"), ("UWSGI_FILE", "/tmp/x.py"), ("UWSGI_MODULE", "os"), ("UWSGI_HOME", "/")]
        seen = json.loads(ask(gateway, protocol, variables("GET", "/echo", 0, *more))[2])
        assert seen["REMOTE_USER"] == "me"
        assert not [name for name in seen if name.startswith("UWSGI_")]

    def test_the_path_can_be_mounted(self, serve):
        binds = ("--bind", "scgi://127.0.0.1:0", "--bind", "127.0.0.1:0")
        served = serve(APPS / "contract.py", *binds, "--script-name", "/app")
        wire = scgi([("CONTENT_LENGTH", "0"), ("SCGI", "1"), ("REQUEST_METHOD", "GET"), ("REQUEST_URI", "/app/echo")])
        with served.connect(served.addresses[0]) as connection:
            connection.send(wire)
            over_scgi = json.loads(cgi_response(connection.rest())[2])
        with served.connect(served.addresses[1]) as connection:
            over_http = connection.ask("GET", "/app/echo").json
            outside = connection.ask("GET", "/apple").json
        for seen in (over_scgi, over_http):
            assert (seen["SCRIPT_NAME"], seen["PATH_INFO"]) == ("/app", "/echo")
        assert (outside["SCRIPT_NAME"], outside["PATH_INFO"]) == ("", "/apple")


class TestResponses:
    @pytest.mark.parametrize("protocol", PROTOCOLS)
    def test_status_fields_and_body(self, gateway, protocol):
        status, fields, body = ask(gateway, protocol, variables("GET", "/fields"))
        assert status == 200
        assert fields["set-cookie"] == ["a=1", "b=2"]
        assert fields["content-length"] == [str(len(body))]
        assert not {"connection", "transfer-encoding", "date", "server"} & set(fields)

    @pytest.mark.parametrize("protocol", PROTOCOLS)
    def test_a_body_of_unknown_length(self, gateway, protocol):
        status, fields, body = ask(gateway, protocol, variables("GET", "/closing?blocks"))
        assert (status, body) == (200, b"ab")
        assert "content-length" not in fields

    @pytest.mark.parametrize("protocol", PROTOCOLS)
    def test_a_large_response(self, gateway, protocol):
        _, _, body = ask(gateway, protocol, variables("GET", "/large?5000000"))
        assert body == b"0123456789abcdef" * (5_000_000 // 16)

    @pytest.mark.parametrize("protocol", PROTOCOLS)
    def test_a_file(self, gateway, protocol, tmp_path):
        path = tmp_path / "file"
        path.write_bytes(bytes(range(256)) * 2000)
        _, fields, body = ask(gateway, protocol, variables("GET", f"/file?{path}"))
        assert fields["content-length"] == ["512000"]
        assert body == path.read_bytes()

    @pytest.mark.parametrize("protocol", PROTOCOLS)
    def test_head_has_no_body(self, gateway, protocol):
        status, fields, body = ask(gateway, protocol, variables("HEAD", "/large?1600"))
        assert (status, fields["content-length"], body) == (200, ["1600"], b"")

    @pytest.mark.parametrize("protocol", PROTOCOLS)
    def test_an_application_that_fails_is_a_500(self, gateway, protocol):
        assert ask(gateway, protocol, variables("GET", "/raises"))[0] == 500

    @pytest.mark.parametrize("protocol", PROTOCOLS)
    def test_a_broken_response_does_not_look_whole(self, gateway, protocol):
        with gateway.connect(address(gateway, protocol)) as connection:
            connection.send(getattr(gateways, protocol)(variables("GET", "/raises_between_blocks?chunked")))
            try:
                response = connection.rest()
            except ConnectionResetError:
                response = None
        # Only FastCGI has an end to miss; where the close is the end, it is a reset.
        assert response is None or (protocol == "fastcgi" and stdout(response)[1] is None)

    @pytest.mark.parametrize(
        ("path", "mounted"), [("/app/echo", ("/app", "/echo")), ("/apple/echo", ("", "/apple/echo"))]
    )
    def test_nginx_can_have_the_mount_point_taken_off_the_path(self, serve, path, mounted):
        served = serve(APPS / "contract.py", "--bind", "uwsgi://127.0.0.1:0")
        asked = variables("GET", path, 0, ("SCRIPT_NAME", "/app"), ("UWSGI_SCRIPT", "other"), ("UWSGI_CHDIR", "/"))
        with served.connect() as connection:
            _, _, body = cgi_response(connection.send(uwsgi(asked, modifier1=30)).rest())
        seen = json.loads(body)
        assert (seen["SCRIPT_NAME"], seen["PATH_INFO"]) == mounted
        assert not [name for name in seen if name.startswith("UWSGI")]
        served.wait_for_log("the front server sets UWSGI_SCRIPT, which is ignored")
        assert served.log().count("which is ignored") == 1

    @pytest.mark.parametrize("path", ["/too_short", "/raises_between_blocks?length"])
    @pytest.mark.parametrize("protocol", PROTOCOLS)
    def test_a_response_that_is_too_short_ends_with_a_reset(self, gateway, protocol, path):
        """Some front servers take an orderly end for that of the response."""
        with gateway.connect(address(gateway, protocol)) as connection:
            connection.send(getattr(gateways, protocol)(variables("GET", path)))
            with pytest.raises(ConnectionResetError):
                connection.rest()
            assert b"Content-Length: " in connection.buffer

    @pytest.mark.parametrize("protocol", PROTOCOLS)
    def test_a_body_too_large_is_a_413(self, serve, protocol):
        served = serve(APPS / "contract.py", "--bind", f"{protocol}://127.0.0.1:0", "--body-max-bytes", "1K")
        with served.connect() as connection:
            connection.send(getattr(gateways, protocol)(variables("POST", "/echo", 2000), b"x" * 2000))
            response = connection.rest()
        assert cgi_response(stdout(response)[0] if protocol == "fastcgi" else response)[0] == 413

    @pytest.mark.parametrize("protocol", PROTOCOLS)
    def test_unix_sockets(self, serve, tmp_path, protocol):
        path = tmp_path / "app.sock"
        served = serve(APPS / "contract.py", "--bind", f"{protocol}+unix:{path}")
        served.wait_for_log(f"{protocol}+unix:{path}")
        asked = [pair for pair in variables() if not pair[0].startswith("REMOTE_")]
        with served.connect(str(path)) as connection:
            connection.send(getattr(gateways, protocol)(asked))
            response = connection.rest()
        response = stdout(response)[0] if protocol == "fastcgi" else response
        assert json.loads(cgi_response(response)[2])["REMOTE_ADDR"] == "127.0.0.1"


def until_told(served, protocol, wire, reason):
    """Break the rules until a line says so: one line a second is written, and others are counted."""
    before = served.log().count(reason)

    def is_told():
        assert send(served, protocol, wire) == b""
        return served.log().count(reason) > before

    served.wait_until(is_told, f"{reason!r} in the log")


class TestBrokenPackets:
    @pytest.mark.parametrize(
        ("protocol", "wire", "reason"),
        [
            ("scgi", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "not SCGI"),
            ("scgi", b"24:SCGI\x001\x00CONTENT_LENGTH\x000\x00,", "not the first"),
            ("uwsgi", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "modifier1 71"),
            ("uwsgi", uwsgi([], b"print(1)", modifier1=22), "modifier1 22"),
            ("uwsgi", b"\0\4\0\0\xff\xffab", "longer than its packet"),
            ("fastcgi", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "not FastCGI"),
            ("fastcgi", begin() + begin(), "a number in use"),
        ],
    )
    def test_they_end_the_connection_with_a_reason(self, gateway, protocol, wire, reason):
        until_told(gateway, protocol, wire, reason)
        assert ask(gateway, protocol, variables("GET", "/pid"))[0] == 200

    @pytest.mark.parametrize(
        ("expected", "spoken"),
        [
            (expected, spoken)
            for expected in ("http", *PROTOCOLS)
            for spoken in ("http", "https", *PROTOCOLS)
            if spoken != expected
        ],
    )
    def test_who_speaks_another_protocol_is_told_apart(self, gateway, expected, spoken):
        hello = {"http": b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "https": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"}
        wire = hello.get(spoken) or getattr(gateways, spoken)(variables())
        name = {"http": "HTTP", "scgi": "SCGI", "fastcgi": "FastCGI", "uwsgi": "uwsgi"}[expected]
        # At once, not when the time for a head is over.
        until_told(gateway, expected, wire, f": bind {spoken}:// for it, or configure it to speak {name}")

    @pytest.mark.parametrize("protocol", PROTOCOLS)
    def test_too_many_variables_are_a_431_that_ends_like_any_response(self, gateway, protocol):
        many = [(f"HTTP_A{number}", "1") for number in range(300)]
        # Its front server would take this server for a broken one if it got no response.
        status, _, body = ask(gateway, protocol, variables("GET", "/echo", 0, *many))
        assert (status, body) == (431, b"431 Request Header Fields Too Large\n")
        if protocol != "uwsgi":
            assert ask(gateway, protocol, variables("GET", "/echo", 0, ("HTTP_A", "x" * 80_000)))[0] == 431
        if protocol == "scgi":
            assert cgi_response(send(gateway, protocol, b"999999999:"))[0] == 431
        assert ask(gateway, protocol, variables("GET", "/pid"))[0] == 200

    def test_a_second_host_is_explained(self, serve):
        served = serve(APPS / "contract.py", "--bind", "scgi://127.0.0.1:0")
        for _ in range(2):
            response = send_raw(served, scgi(variables("GET", "/echo", 0, ("HTTP_HOST", "other"))))
            assert cgi_response(response)[0] == 400
        assert served.log().count("the front server sets HTTP_HOST twice") == 1

    def test_complaints_are_not_a_flood(self, serve):
        served = serve(APPS / "contract.py", "--bind", "scgi://127.0.0.1:0")
        begun = time.monotonic()
        for _ in range(50):
            send_raw(served, b"x")
        served.wait_for_log("ended a connection")
        lines = served.log().count("ended a connection")
        assert lines <= time.monotonic() - begun + 1

    @pytest.mark.parametrize("protocol", PROTOCOLS)
    def test_what_could_be_read_twice_is_a_400(self, gateway, protocol):
        twice = variables("POST", "/echo", 0, ("CONTENT_LENGTH", "3"))
        response = send(gateway, protocol, getattr(gateways, protocol)(twice))
        assert cgi_response(stdout(response)[0] if protocol == "fastcgi" else response)[0] == 400

    @pytest.mark.parametrize("protocol", PROTOCOLS)
    def test_a_header_cannot_be_split(self, gateway, protocol):
        asked = variables("GET", "/echo", 0, ("HTTP_X", "a\r\nX-Evil: 1"))
        response = send(gateway, protocol, getattr(gateways, protocol)(asked))
        assert cgi_response(stdout(response)[0] if protocol == "fastcgi" else response)[0] == 400

    @pytest.mark.parametrize("protocol", PROTOCOLS)
    def test_half_a_request_is_ended_in_time(self, impatient, protocol):
        wire = getattr(gateways, protocol)(variables("POST", "/echo", 3), b"abc")
        begun = time.monotonic()
        for cut in (3, len(wire) // 2):
            response = in_time(2, lambda _, half=wire[:cut]: send(impatient, protocol, half))
            assert response == b"" or cgi_response(response)[0] == 408
        assert time.monotonic() - begun > 3

    @pytest.mark.parametrize("protocol", PROTOCOLS)
    def test_a_client_that_goes_away_inside_its_body_reaches_no_application(self, gateway, protocol):
        wire = getattr(gateways, protocol)(variables("POST", "/closing?never", 3), b"abc")
        with gateway.connect(address(gateway, protocol)) as connection:
            connection.send(wire[:-10] if protocol == "fastcgi" else wire[:-1])
        assert ask(gateway, protocol, variables("GET", "/pid"))[0] == 200
        assert "never" not in gateway.get("/closed").json


def send_raw(served, wire):
    with served.connect() as connection:
        connection.send(wire)
        return connection.rest()


class TestUwsgi:
    def test_a_ping_gets_a_response(self, gateway):
        assert send(gateway, "uwsgi", b"\x64\0\0\0") == b"\x64\0\0\1"

    def test_the_response_begins_with_an_http_status_line(self, gateway):
        assert send(gateway, "uwsgi", uwsgi(variables("GET", "/pid"))).startswith(b"HTTP/1.1 200 OK\r\n")


class TestFastCgi:
    def talk(self, gateway):
        return gateway.connect(address(gateway, "fastcgi"))

    def take(self, connection, count, what=gateways.END):
        """Read records until so many of a kind are there."""
        while sum(kind == what for kind, _, _ in records(connection.buffer)[0]) < count:
            assert connection.more(), connection.buffer
        found, connection.buffer = records(connection.buffer)
        return found

    def test_a_connection_is_kept_when_the_front_server_wants_it(self, gateway):
        with self.talk(gateway) as connection:
            for number in (1, 1, 2):
                connection.send(fastcgi(variables("GET", "/pid"), number=number, keep=True))
                found = self.take(connection, 1)
                assert {other for _, other, _ in found} == {number}
            connection.send(fastcgi(variables("GET", "/pid"), keep=False))
            self.take(connection, 1)
            assert connection.is_closed()

    def test_interleaved_requests_all_get_responses(self, gateway):
        asked = {number: params(variables("POST", f"/echo/{number}", 2)) for number in (1, 2, 3)}
        wire = b"".join(begin(number, True) for number in asked)
        for number, packed in asked.items():
            wire += record(4, number, packed[:50])
        for number, packed in reversed(asked.items()):
            wire += record(4, number, packed[50:], 7) + record(4, number)
        for number in asked:
            wire += record(5, number, b"%d" % number)
        for number in asked:
            wire += record(5, number, b"!") + record(5, number)
        with self.talk(gateway) as connection:
            connection.send(wire)
            while sum(kind == gateways.END for kind, _, _ in records(connection.buffer)[0]) < 3:
                assert connection.more()
            for number in asked:
                content, ended = stdout(connection.buffer, number)
                seen = json.loads(cgi_response(content)[2])
                assert ended == (0, 0)
                assert (seen["PATH_INFO"], seen["body"]) == (f"/echo/{number}", f"{number}!")

    def test_a_request_has_its_own_time_after_one_that_was_aborted(self, impatient):
        half = params(variables("GET", "/pid"))
        parts = (
            begin(1, True) + record(4, 1, half[:20]),
            record(2, 1) + begin(2, True) + record(4, 2, half[:20]),
            record(4, 2, half[20:]) + record(4, 2) + record(5, 2),
        )

        def ask(step):
            with self.talk(impatient) as connection:
                for place, part in enumerate(parts):
                    if place:
                        let_pass(*MOST_OF_THE_TIME)
                    connection.send(part)
                    step()
                assert {(kind, number) for kind, number, _ in self.take(connection, 2)} >= {(3, 1), (3, 2)}

        in_time(2, ask)

    def test_a_kept_connection_stays_after_an_aborted_request(self, impatient):
        def ask(_):
            with self.talk(impatient) as connection:
                connection.send(begin(1, True) + record(4, 1, b"\x01\x01AB") + record(2, 1))
                self.take(connection, 1)
                let_pass(2.5, "the time for a head, which is two seconds, is over")
                connection.send(fastcgi(variables("GET", "/pid"), keep=True))
                self.take(connection, 1)

        in_time(2, ask)

    @pytest.mark.parametrize("keep", [False, True])
    def test_a_role_that_nobody_has_ends_the_connection_if_it_is_not_kept(self, gateway, keep):
        with self.talk(gateway) as connection:
            connection.send(begin(1, keep, role=2))
            assert self.take(connection, 1) == [(3, 1, b"\0\0\0\0\3\0\0\0")]
            if keep:
                connection.send(fastcgi(variables("GET", "/pid")))
                self.take(connection, 1)
            assert connection.is_closed()

    def test_a_body_that_is_announced_too_large_is_refused_before_it_comes(self, gateway):
        asked = variables("POST", "/echo", 5_000_000_000_000)
        wire = begin(1, True) + stream(4, 1, params(asked)) + record(5, 1, b"abc")
        content, ended = stdout(send(gateway, "fastcgi", wire))
        assert (cgi_response(content)[0], ended) == (413, (0, 0))

    def test_byte_by_byte(self, gateway):
        wire = fastcgi(variables("POST", "/echo", 3), b"abc")
        with self.talk(gateway) as connection:
            for at in range(len(wire)):
                connection.send(wire[at : at + 1])
            content, ended = stdout(connection.rest())
        assert ended == (0, 0)
        assert json.loads(cgi_response(content)[2])["body"] == "abc"

    def test_a_body_without_content_length(self, gateway):
        asked = [pair for pair in variables("POST", "/echo") if pair[0] != "CONTENT_LENGTH"]
        seen = json.loads(ask(gateway, "fastcgi", asked, b"chunked by the client")[2])
        assert (seen["CONTENT_LENGTH"], seen["body"]) == ("21", "chunked by the client")

    @pytest.mark.parametrize("sent", [b"ab", b"abcd"])
    def test_a_body_of_another_length_than_announced_is_a_400(self, gateway, sent):
        response = send(gateway, "fastcgi", fastcgi(variables("POST", "/echo", 3), sent))
        assert cgi_response(stdout(response)[0])[0] == 400

    def test_management_records_get_responses(self, gateway):
        with self.talk(gateway) as connection:
            connection.send(record(9, 0, params([("FCGI_MPXS_CONNS", ""), ("FCGI_MAX_REQS", ""), ("NONE", "")]), 5))
            ((kind, number, content),) = self.take(connection, 1, gateways.GET_VALUES_RESULT)
            assert (kind, number) == (gateways.GET_VALUES_RESULT, 0)
            assert content == params([("FCGI_MPXS_CONNS", "1"), ("FCGI_MAX_REQS", "16")])
            connection.send(record(99, 0, b"?"))
            ((kind, _, content),) = self.take(connection, 1, gateways.UNKNOWN)
            assert (kind, content) == (gateways.UNKNOWN, b"\x63" + b"\0" * 7)
            connection.send(fastcgi(variables("GET", "/pid")))
            self.take(connection, 1)

    def test_other_roles_are_unknown(self, gateway):
        with self.talk(gateway) as connection:
            connection.send(begin(3, True, role=2))
            assert self.take(connection, 1) == [(gateways.END, 3, struct.pack(">IB3x", 0, 3))]
            connection.send(fastcgi(variables("GET", "/pid"), number=3))
            self.take(connection, 1)

    def test_an_abort_ends_the_request(self, gateway):
        with self.talk(gateway) as connection:
            connection.send(begin(1, True) + stream(4, 1, params(variables("POST", "/closing?aborted", 9))))
            connection.send(record(5, 1, b"part") + record(2, 1))
            found = self.take(connection, 1)
            assert found[-1][:2] == (gateways.END, 1)
            connection.send(fastcgi(variables("GET", "/closed"), keep=True))
            assert b"aborted" not in b"".join(content for _, _, content in self.take(connection, 1))

    def test_an_upload_in_large_records(self, gateway):
        body = bytes(range(256)) * 4000
        _, _, response = ask(gateway, "fastcgi", variables("POST", "/count_input", len(body)), body)
        assert response == b"%d %d" % (len(body), len(body))


class TestProxyProtocol:
    V1 = b"PROXY TCP4 192.0.2.9 192.0.2.1 4711 443\r\n"
    V2 = (
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x17"
        + bytes([192, 0, 2, 9, 192, 0, 2, 1])
        + struct.pack(">HH", 4711, 443)
        + b"\x20\0\x08\x01\0\0\0\0\x21\0\0"
    )

    V2_HEAD = b"\r\n\r\n\0\r\nQUIT\n"
    #: v1 UNKNOWN with and without addresses; v2 LOCAL, UNSPEC and unix sockets.
    UNNAMED = (
        b"PROXY UNKNOWN\r\n",
        b"PROXY UNKNOWN 192.0.2.9 192.0.2.1 4711 443\r\n",
        V2_HEAD + b"\x20\0\0\0",
        V2_HEAD + b"\x20\x11\0\x0c" + bytes(12),
        V2_HEAD + b"\x21\0\0\0",
        V2_HEAD + b"\x21\x31\0\xd8" + bytes(216),
    )

    @pytest.fixture
    def proxied(self, serve):
        binds = ("--bind", "http://127.0.0.1:0", "--bind", "scgi://127.0.0.1:0")
        return serve(APPS / "contract.py", *binds, "--proxy-protocol", "--trusted-proxies", "127.0.0.0/8")

    @pytest.mark.parametrize(("preface", "scheme"), [(V1, "http"), (V2, "https")])
    def test_the_preface_says_who_the_client_is(self, proxied, preface, scheme):
        with proxied.connect() as connection:
            connection.send(preface)
            for _ in range(2):
                seen = connection.ask("GET", "/echo").json
                assert (seen["REMOTE_ADDR"], seen["REMOTE_PORT"]) == ("192.0.2.9", "4711")
                assert (seen["SERVER_NAME"], seen["SERVER_PORT"]) == ("192.0.2.1", "443")
                assert seen["wsgi.url_scheme"] == scheme

    def test_it_may_come_in_pieces(self, proxied):
        with proxied.connect() as connection:
            for byte in self.V2:
                connection.send(bytes([byte]))
            assert connection.ask("GET", "/echo").json["REMOTE_ADDR"] == "192.0.2.9"

    def test_a_health_check_of_the_proxy_itself(self, proxied):
        with proxied.connect() as connection:
            connection.send(b"PROXY UNKNOWN\r\n")
            assert connection.ask("GET", "/echo").json["REMOTE_ADDR"] == "127.0.0.1"

    @pytest.mark.parametrize("preface", UNNAMED)
    def test_a_client_that_it_does_not_name_says_nothing_about_itself(self, serve, preface):
        """The forwarder passes on bytes, so fields are the client's own words."""
        served = serve(APPS / "contract.py", "--proxy-protocol", "--trusted-proxies", "127.0.0.1", "--request-id")
        said = [
            ("X-Forwarded-For", "203.0.113.9"),
            ("X-Forwarded-Proto", "https"),
            ("X-Forwarded-Host", "bank.example"),
            ("X-Forwarded-Prefix", "/evil"),
            ("X-Request-ID", "chosen"),
        ]
        with served.connect() as connection:
            connection.send(preface)
            for _ in range(2):
                seen = connection.ask("GET", "/echo", said).json
                assert (seen["REMOTE_ADDR"], seen["wsgi.url_scheme"]) == ("127.0.0.1", "http")
                assert (seen["HTTP_HOST"], seen["SCRIPT_NAME"]) == ("test", "")
                assert seen["HTTP_X_REQUEST_ID"] != "chosen"
                assert not [name for name in seen if name.startswith("HTTP_X_FORWARDED")]

    def test_a_front_server_behind_one_that_names_nobody(self, proxied):
        said = ("HTTP_X_FORWARDED_FOR", "203.0.113.9")
        with proxied.connect(proxied.addresses[1]) as connection:
            asked = [pair for pair in variables() if pair[0] != "REMOTE_ADDR"]
            connection.send(b"PROXY UNKNOWN\r\n" + scgi([*asked, ("REMOTE_ADDR", "127.0.0.1"), said]))
            seen = json.loads(cgi_response(connection.rest())[2])
        assert (seen["REMOTE_ADDR"], seen.get("HTTP_X_FORWARDED_FOR")) == ("127.0.0.1", None)

    def test_it_precedes_every_protocol(self, proxied):
        asked = [pair for pair in variables() if not pair[0].startswith(("REMOTE_", "SERVER_N"))]
        with proxied.connect(proxied.addresses[1]) as connection:
            connection.send(self.V1 + scgi(asked))
            seen = json.loads(cgi_response(connection.rest())[2])
        assert (seen["REMOTE_ADDR"], seen["SERVER_NAME"]) == ("192.0.2.9", "192.0.2.1")

    def test_a_trusted_peer_without_it_is_refused(self, proxied):
        with proxied.connect() as connection:
            connection.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert connection.is_closed()
        proxied.wait_for_log("does not begin with a PROXY preface")

    def test_nobody_else_is_believed(self, serve):
        served = serve(APPS / "contract.py", "--proxy-protocol", "--trusted-proxies", "192.0.2.0/24")
        with served.connect() as connection:
            assert connection.ask("GET", "/echo").json["REMOTE_ADDR"] == "127.0.0.1"
        with served.connect() as connection:
            connection.send(self.V1 + b"Host: a\r\n\r\n")
            assert connection.response().status == 400

    def test_it_needs_somebody_to_trust(self, run):
        ended = run(APPS / "contract.py", "--proxy-protocol")
        assert ended.returncode == 2
        assert "--proxy-protocol" in ended.stderr
        assert "--trusted-proxies" in ended.stderr


class TestForwarded:
    def seen(self, serve, fields, *options):
        served = serve(APPS / "contract.py", *options)
        return served.get("/echo", fields).json

    def test_nobody_is_believed_by_default_and_that_is_said_once(self, serve):
        served = serve(APPS / "contract.py")
        for _ in range(3):
            assert "HTTP_X_FORWARDED_FOR" not in served.get("/echo", [("X-Forwarded-For", "192.0.2.1")]).json
        served.wait_for_log("--trusted-proxies")
        assert served.log().count("--trusted-proxies") == 1

    def test_every_claim_is_removed(self, serve):
        fields = [("X-Forwarded-For", "192.0.2.1"), ("X-Forwarded-Proto", "https"), ("Forwarded", "for=192.0.2.1")]
        seen = self.seen(serve, [*fields, ("X-Real-IP", "192.0.2.1")])
        assert (seen["REMOTE_ADDR"], seen["wsgi.url_scheme"]) == ("127.0.0.1", "http")
        assert not [name for name in seen if "FORWARDED" in name or "REAL" in name]

    def test_a_trusted_proxy_is_believed_from_the_right(self, serve):
        fields = [
            ("X-Forwarded-For", "127.0.0.1, 192.0.2.1, 10.0.0.3"),
            ("X-Forwarded-Proto", "https"),
            ("X-Forwarded-Host", "example.org"),
            ("X-Forwarded-Prefix", "/app"),
            ("Forwarded", "for=127.0.0.1"),
        ]
        seen = self.seen(serve, fields, "--trusted-proxies", "127.0.0.1", "--trusted-proxies", "10.0.0.0/8")
        assert seen["REMOTE_ADDR"] == "192.0.2.1"
        assert (seen["wsgi.url_scheme"], seen["HTTPS"]) == ("https", "on")
        assert (seen["HTTP_HOST"], seen["SERVER_PORT"], seen["SCRIPT_NAME"]) == ("example.org", "443", "/app")
        # What the client may have made up is gone.
        assert seen["HTTP_X_FORWARDED_FOR"] == "192.0.2.1, 10.0.0.3"
        assert "HTTP_FORWARDED" not in seen

    def test_rfc_7239(self, serve):
        fields = [
            ("Forwarded", 'for=127.0.0.1, for="[2001:db8::1]:47";proto=https;host=h'),
            ("X-Forwarded-For", "1.1.1.1"),
        ]
        options = ("--trusted-proxies", "127.0.0.1", "--forwarded-header", "forwarded")
        seen = self.seen(serve, fields, *options)
        assert (seen["REMOTE_ADDR"], seen["REMOTE_PORT"]) == ("2001:db8::1", "47")
        assert (seen["wsgi.url_scheme"], seen["HTTP_HOST"]) == ("https", "h")
        assert "HTTP_X_FORWARDED_FOR" not in seen

    def test_unix_sockets_can_be_trusted(self, serve, tmp_path):
        path = tmp_path / "app.sock"
        served = serve(APPS / "contract.py", "--bind", f"unix:{path}", "--trusted-proxies", "unix")
        assert served.get("/echo", [("X-Forwarded-For", "192.0.2.1")]).json["REMOTE_ADDR"] == "192.0.2.1"

    def test_a_front_servers_client_must_itself_be_trusted(self, serve):
        served = serve(APPS / "contract.py", "--bind", "scgi://127.0.0.1:0", "--trusted-proxies", "192.0.2.0/24")
        for client, expected in (("192.0.2.7", "198.51.100.1"), ("203.0.113.5", "203.0.113.5")):
            asked = variables("GET", "/echo", 0, ("REMOTE_ADDR", client), ("HTTP_X_FORWARDED_FOR", "198.51.100.1"))
            seen = json.loads(cgi_response(send_raw(served, scgi(asked)))[2])
            assert seen["REMOTE_ADDR"] == expected

    @pytest.mark.parametrize("wrong", ["10.0.0.1/8", "localhost", "10.0.0.0/40"])
    def test_what_is_no_network_is_named(self, run, wrong):
        ended = run(APPS / "contract.py", "--trusted-proxies", wrong)
        assert ended.returncode == 2
        assert repr(wrong).replace("'", '"') in ended.stderr


class TestCommandLine:
    def test_scgi_listens_where_web2py_did(self, run):
        ended = run("config", "--print", "--scgi")
        assert ended.returncode == 0
        assert "scgi = true" in ended.stdout

    def test_scgi_with_a_port(self, serve):
        served = serve(APPS / "contract.py", "--scgi", "--port", "0")
        served.wait_for_log(" on scgi://127.0.0.1:")
        assert cgi_response(send_raw(served, scgi(variables("GET", "/pid"))))[0] == 200

    def test_an_unknown_protocol_is_named(self, run):
        ended = run(APPS / "contract.py", "--bind", "ajp://127.0.0.1:8009")
        assert ended.returncode == 2
        assert "ajp" in ended.stderr
        assert "fastcgi" in ended.stderr
