"""`forward_auth`: another server says who may come in, and nobody else says who a user is."""

import contextlib
import http.server
import io
import socket
import socketserver
import sys
import threading

import anygate
import pytest
from conftest import APPS
from planned import EVERYTHING, PROTOCOLS, planned
from websocket_frames import handshake

#: What a client may send to pass for somebody.
SPOOFED = [("Remote-User", "root"), ("REMOTE_USER", "root"), ("remote-groups", "wheel"), ("Remote_Groups", "wheel")]


class Handler(http.server.BaseHTTPRequestHandler):
    """Lets pass whoever has the cookie `user`, and does what the cookie `says` says."""

    def do_GET(self):
        self.server.asked.append((self.path, dict(self.headers)))
        cookies = dict(part.split("=", 1) for part in self.headers.get("Cookie", "").split("; ") if part)
        if "hang" in cookies:
            self.server.gate.wait()
            self.close_connection = True
            return
        if "user" in cookies:
            fields = [("Remote-User", cookies["user"]), ("Remote-Groups", "a"), ("X-Other", "1")]
            fresh = [("Set-Cookie", "session=fresh; Path=/"), ("Set-Cookie", "seen=1")] if "renew" in cookies else []
            self.respond(200, fields + fresh, b"welcome")
        elif "status" in cookies:
            self.respond(int(cookies["status"]), [("Set-Cookie", "a=b"), ("WWW-Authenticate", "Basic realm=x")], b"no")
        else:
            self.respond(
                302, [("Location", "https://login.example/?to=x"), ("Set-Cookie", "a=b"), ("X-Other", "1")], b"go"
            )

    def respond(self, status, fields, body):
        self.send_response(status)
        for name, value in [*fields, ("Content-Length", str(len(body)))]:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class KeepingHandler(Handler):
    """Keeps connections open until one sends the cookie `leave`, and counts them."""

    protocol_version = "HTTP/1.1"
    # Head and body in one piece.
    wbufsize = -1

    def setup(self):
        self.server.connections += 1
        super().setup()

    def do_GET(self):
        super().do_GET()
        if "leave" in self.headers.get("Cookie", ""):
            self.close_connection = True


class AuthServer(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True

    def __init__(self, address, handler=Handler):
        self.asked, self.gate, self.connections = [], threading.Event(), 0
        super().__init__(address, handler)

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/verify?x=1"


class UnixAuthServer(AuthServer):
    address_family = socket.AF_UNIX

    def server_bind(self):
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = "auth", 0

    def get_request(self):
        return self.socket.accept()[0], ("unix", 0)


@contextlib.contextmanager
def running(server):
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.gate.set()
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture(scope="module")
def auth():
    with running(AuthServer(("127.0.0.1", 0))) as server:
        yield server


@pytest.fixture(scope="module", params=["threads", "gevent"])
def site(request, auth, tmp_path_factory):
    folder = tmp_path_factory.mktemp("forward")
    (folder / "files").mkdir()
    (folder / "files" / "a.txt").write_text("a file")
    arguments = [
        *("--forward-auth", f"/in={auth.url}", "--forward-auth-fields", "Remote-User"),
        *("--forward-auth-fields", "Remote-Groups", "--static", "/in/static=files", "--cache", "/ 60s"),
        *("--health-path", "/in/health", "--concurrency", request.param),
    ]
    with planned(folder, *arguments, *EVERYTHING) as site:
        yield site


def cookie(**values):
    return ("Cookie", "; ".join(f"{name}={value}" for name, value in values.items()))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_application_is_told_who_it_is(site, protocol):
    seen = site.speak(protocol, "POST", "/in/x?y=z", [cookie(user="joe"), *SPOOFED], b"body").json
    assert (seen["HTTP_REMOTE_USER"], seen["HTTP_REMOTE_GROUPS"], seen["REMOTE_USER"]) == ("joe", "a", "joe")
    assert seen["AUTH_TYPE"] == "forward"
    assert seen["body_bytes"] == 4
    assert "HTTP_X_OTHER" not in seen


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_nobody_says_who_it_is_at_open_paths(site, protocol):
    seen = site.speak(protocol, "GET", "/open", SPOOFED).json
    assert not {"HTTP_REMOTE_USER", "HTTP_REMOTE_GROUPS", "REMOTE_USER", "AUTH_TYPE"} & set(seen)


@pytest.mark.parametrize("protocol", ["http", "http2"])
@pytest.mark.parametrize("target", ["/in", "//in", "/in/x", "/in/../open", "/%69n", "/x/..%2fin", "/in/static/a.txt"])
def test_others_are_sent_where_that_server_says(site, protocol, target):
    for fields in ([], SPOOFED, [cookie(users="joe")]):
        response = site.speak(protocol, "GET", target, fields)
        assert (response.status, response.body) == (302, b"go")
        assert (response["location"], response["set-cookie"]) == ("https://login.example/?to=x", "a=b")
        assert response["x-other"] is None
    assert site.count("GET " + target) == 0


def given(response):
    return [value for name, value in response.fields if name.lower() == "set-cookie"]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_cookies_that_it_sets_reach_the_client(site, protocol):
    site.plan("/in/page", body="a page", fields=[("Cache-Control", "public, max-age=600"), ("Set-Cookie", "own=1")])
    for target in ("/in/page", "/in/static/a.txt"):
        # The second of each is a stored one, if it can be.
        for _ in range(2):
            cookies = given(site.speak(protocol, "GET", target, [cookie(user="joe", renew=1)]))
            assert cookies[-2:] == ["session=fresh; Path=/", "seen=1"]
            cookies = given(site.speak(protocol, "GET", target, [cookie(user="joe")]))
            assert not [text for text in cookies if not text.startswith("own=")]


@pytest.mark.parametrize("concurrency", ["threads", "gevent"])
def test_cookies_come_with_websockets(serve, auth, concurrency):
    served = serve(APPS / "websocket.py", "--forward-auth", f"/={auth.url}", "--concurrency", concurrency)
    with served.connect() as connection:
        connection.send(handshake("/echo", [cookie(user="joe", renew=1)]))
        head = connection.head()
        assert (head.status, given(head)) == (101, ["session=fresh; Path=/", "seen=1"])


def test_connections_to_it_are_kept(tmp_path):
    with (
        running(AuthServer(("127.0.0.1", 0), KeepingHandler)) as auth,
        planned(tmp_path, "--forward-auth", f"/={auth.url}", "--workers", "1") as site,
    ):
        for fields, status in [([cookie(user="joe")], 200), ([cookie(status=403)], 403), ([], 302)] * 3:
            assert site.get("/", fields).status == status
        assert auth.connections == 1
        # One that the server has closed is none, and no failure.
        assert site.get("/", [cookie(user="joe", leave=1)]).status == 200
        assert site.get("/", [cookie(user="joe")]).status == 200
        assert auth.connections == 2
        assert "nobody gets in" not in site.log()


@pytest.mark.parametrize(("status", "expected"), [(401, 401), (403, 403), (404, 404), (500, 502), (503, 502)])
def test_its_refusals_are_those_of_the_site(site, status, expected):
    response = site.get("/in", [cookie(status=status)])
    assert response.status == expected
    assert (response["www-authenticate"] == "Basic realm=x") == (status < 500)
    assert site.log().count(f"it responded with {status}; nobody gets in meanwhile") == int(status >= 500)


def test_it_is_told_of_the_request_as_it_is(site, auth):
    fields = [
        *(cookie(user="joe"), ("X-Forwarded-Uri", "/open"), ("X_Forwarded_Method", "GET"), ("X-Original-URL", "/open")),
        *(("Accept-Encoding", "gzip"), ("Connection", "close, X-Hop"), ("X-Hop", "1"), ("X-Mine", "1"), *SPOOFED),
    ]
    del auth.asked[:]
    assert site.get("/in/%61?b=c", fields, method="PUT", body=b"body").status == 200
    [(path, told)] = auth.asked
    assert path == "/verify?x=1"
    expected = {
        "X-Forwarded-Method": "PUT",
        "X-Forwarded-Proto": "http",
        "X-Forwarded-Host": "test",
        "X-Forwarded-Uri": "/in/%61?b=c",
        "X-Original-URL": "http://test/in/%61?b=c",
        "X-Original-Method": "PUT",
        "X-Forwarded-For": "127.0.0.1",
        "Cookie": "user=joe",
        "X-Mine": "1",
        "Connection": None,
    }
    assert {name: told.get(name) for name in expected} == expected
    assert not {"Content-Length", "Accept-Encoding", "X-Hop", "Remote-User", "remote-groups"} & set(told)
    assert not [name for name in told if "_" in name]


def test_neither_files_nor_stored_responses_come_first(site):
    site.plan("/in/page", body="a page", fields=[("Cache-Control", "public, max-age=600"), ("ETag", '"1"')])
    for target in ("/in/page", "/in/static/a.txt"):
        stored = [site.get(target, [cookie(user="joe")]) for _ in range(2)][1]
        assert stored.status == 200
        for fields in ([], [("If-None-Match", stored["etag"])], [("Range", "bytes=0-1")], SPOOFED):
            for method in ("GET", "HEAD"):
                assert site.get(target, fields, method=method).status == 302
    assert site.get("/in/health").status == 200


@pytest.mark.parametrize("concurrency", ["threads", "gevent"])
def test_websockets_are_authenticated(serve, auth, concurrency):
    served = serve(APPS / "websocket.py", "--forward-auth", f"/={auth.url}", "--concurrency", concurrency)
    for fields, status in [([], 302), (SPOOFED, 302), ([cookie(user="joe")], 101)]:
        with served.connect() as connection:
            connection.send(handshake("/echo", fields))
            assert connection.head().status == status


@pytest.mark.parametrize("concurrency", ["threads", "gevent"])
def test_while_it_does_not_respond_others_are_served(tmp_path, auth, concurrency):
    arguments = ["--forward-auth", f"/in={auth.url}", "--forward-auth-timeout", "1s", "--concurrency", concurrency]
    with planned(tmp_path, *arguments, "--workers", "1", "--threads", "3") as site:
        hanging = [site.connect() for _ in range(2)]
        try:
            for connection in hanging:
                connection.send("GET /in HTTP/1.1\r\nHost: test\r\nCookie: hang=1\r\n\r\n")
            assert site.get("/open").status == 200
            assert [connection.response().status for connection in hanging] == [503, 503]
        finally:
            for connection in hanging:
                connection.close()
        assert site.log().count("it does not respond in time; nobody gets in meanwhile") == 1
        site.wait_until(lambda: site.get("/in", [cookie(user="joe")]).status == 200, "who gets in")
        site.wait_for_log("responds again")


def test_a_server_that_is_gone_lets_nobody_in(tmp_path):
    with running(AuthServer(("127.0.0.1", 0))) as auth, planned(tmp_path, "--forward-auth", f"/={auth.url}") as site:
        assert site.get("/", [cookie(user="joe")]).status == 200
        auth.shutdown()
        auth.server_close()
        assert [site.get("/", [cookie(user="joe")]).status for _ in range(3)] == [503] * 3
        assert site.log().count("nobody gets in meanwhile") == 1
        assert site.get("/x").status == 503


@pytest.mark.parametrize(
    "response",
    [
        b"",
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 200 OK\r\nRemote-User: a\0b\r\n\r\n",
        b"HTTP/1.1 302 X\r\nLocation: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"HTTP/1.1 403 No\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 1_000_000,
    ],
    ids=["nothing", "no HTTP", "half a head", "a control character", "half a body", "another protocol", "much"],
)
def test_what_is_no_response_lets_nobody_in(tmp_path, response):
    class Broken(socketserver.BaseRequestHandler):
        def handle(self):
            data = b""
            while b"\r\n\r\n" not in data:
                data += self.request.recv(65536)
            with contextlib.suppress(ConnectionError):
                self.request.sendall(response)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Broken) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{server.server_address[1]}/"
        with planned(tmp_path, "--forward-auth", f"/={url}") as site:
            assert site.get("/").status in (502, 503)
            assert site.count("GET /") == 0
        server.shutdown()
        thread.join()


def test_it_may_be_on_a_unix_socket(tmp_path):
    with (
        running(UnixAuthServer(f"{tmp_path}/auth.sock")) as auth,
        planned(tmp_path, "--forward-auth", "/=http+unix:auth.sock:/verify") as site,
    ):
        assert site.get("/", [cookie(user="joe")]).json["REMOTE_USER"] == "joe"
        assert site.get("/").status == 302
        assert [path for path, _ in auth.asked] == ["/verify"] * 2


def test_under_any_server(auth):
    seen = []

    def application(environ, start_response):
        seen.append({name: value for name, value in environ.items() if "REMOTE_" in name and "ADDR" not in name})
        start_response("200 OK", [])
        return []

    wrapped = anygate.wsgihandler(application, forward_auth=[f"/in={auth.url}"])

    def status(path, **environ):
        statuses = []
        given = {"REQUEST_METHOD": "GET", "PATH_INFO": path, "SCRIPT_NAME": "", "REMOTE_ADDR": "192.0.2.1"}
        given |= {"wsgi.errors": sys.stderr, "wsgi.input": io.BytesIO(), "HTTP_REMOTE_USER": "root"}
        given |= {"SERVER_NAME": "a", "SERVER_PORT": "80", "wsgi.url_scheme": "http", **environ}
        iterable = wrapped(given, lambda status, headers, exc_info=None: statuses.append(status))
        list(iterable)
        getattr(iterable, "close", lambda: None)()
        return int(statuses[0][:3])

    assert [status("/in"), status("/in", HTTP_COOKIE="user=joe"), status("/open")] == [302, 200, 200]
    assert seen == [{"HTTP_REMOTE_USER": "joe", "REMOTE_USER": "joe"}, {}]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--forward-auth", "/=https://auth/"], '--forward-auth: "/=https://auth/" cannot ask over TLS'),
        (["--forward-auth", "http://auth/"], '--forward-auth: "http://auth/" must'),
        (["--forward-auth", "/=auth:9091"], '--forward-auth: "/=auth:9091" must be a path and an address'),
        (["--forward-auth-fields", "Cookie"], '--forward-auth-fields: "Cookie" is a field of the client\'s'),
        (["--forward-auth-fields", "X_User"], '--forward-auth-fields: "X_User" must be written with - in place of _'),
    ],
)
def test_what_is_wrong_is_said_at_the_start(run, arguments, reason):
    ended = run(APPS / "plan.py", *arguments, "--port", "0")
    assert (ended.returncode, reason in ended.stderr) == (2, True), ended.stderr
