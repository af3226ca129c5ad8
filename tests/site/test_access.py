"""`allow`, `deny` and `body_limits`: what is refused by where it comes from, where it goes and how long it is."""

import contextlib
import json
import threading

import gateways
import pytest
from http2_frames import Client, plain
from planned import ADMIN_SPELLINGS, EVERYTHING, PROTOCOLS, planned

LISTS = [
    *("--deny", "/admin 192.0.2.0/24", "--deny", "/admin unix", "--deny", "198.51.100.7"),
    *("--allow", "/inside 10.0.0.0/8", "--deny", "/inside 10.9.0.0/16", "--allow", "/inside fd00::/8"),
]
OTHERS = ["/", "/administrator", "/ADMIN", "/x/admin", "/admin/../public", "/adm%69n2", "/admin%20"]


@pytest.fixture(scope="module", params=["threads", "gevent"])
def site(request, tmp_path_factory):
    arguments = [*LISTS, "--trusted-proxies", "127.0.0.1", "--concurrency", request.param]
    with planned(tmp_path_factory.mktemp("access"), *arguments, *EVERYTHING) as site:
        yield site


def of(client):
    return [("X-Forwarded-For", client)]


@pytest.mark.parametrize("target", ADMIN_SPELLINGS)
@pytest.mark.parametrize("protocol", ["http", "http2"])
def test_a_path_is_denied_however_it_is_spelled(site, protocol, target):
    response = site.speak(protocol, "GET", target, of("192.0.2.1"))
    assert (response.status, response.body) == (403, b"403 Forbidden\n")
    assert site.speak(protocol, "GET", target, of("203.0.113.1")).status == 200


@pytest.mark.parametrize("target", OTHERS)
def test_other_paths_are_not(site, target):
    assert site.get(target, of("192.0.2.1")).status == 200


def test_what_is_denied_does_not_reach_the_application(tmp_path):
    with planned(tmp_path, "--deny", "127.0.0.1") as site:
        for method in ("GET", "HEAD", "POST", "OPTIONS", "DELETE"):
            assert site.get("/", method=method).status == 403
            assert site.count(f"{method} /") == 0


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    ("client", "path", "status"),
    [
        ("198.51.100.7", "/", 403),
        ("198.51.100.8", "/", 200),
        ("198.51.100.7", "/inside", 403),
        ("10.1.2.3", "/inside", 200),
        ("10.9.2.3", "/inside/x", 403),
        ("fd00::1", "/inside", 200),
        ("::ffff:10.1.2.3", "/inside", 200),
        ("::ffff:198.51.100.7", "/", 403),
        ("2001:db8::1", "/inside", 403),
    ],
)
def test_the_client_counts_and_not_the_proxy(site, protocol, client, path, status):
    fields = of(client) if protocol.startswith("http") else []
    assert site.speak(protocol, "GET", path, fields, client=client).status == status


def test_the_last_address_that_is_no_proxy_counts(site):
    assert site.get("/", of("198.51.100.7, 203.0.113.9")).status == 200
    assert site.get("/", of("203.0.113.9, 198.51.100.7, 127.0.0.1")).status == 403


def test_who_is_no_proxy_speaks_for_nobody(tmp_path):
    with planned(tmp_path, "--deny", "198.51.100.7", "--allow", "/inside 10.0.0.0/8") as site:
        assert site.get("/", of("198.51.100.7")).status == 200
        assert site.get("/inside", of("10.0.0.1")).status == 403


def test_clients_of_unix_sockets_are_unix(tmp_path):
    path = f"{tmp_path}/socket"
    with (
        planned(tmp_path, *LISTS, "--bind", f"unix:{path}", "--trusted-proxies", "unix") as site,
        site.connect() as near,
    ):
        assert near.ask("GET", "/admin").status == 403
        assert near.ask("GET", "/inside").status == 403
        assert near.ask("GET", "/").status == 200
        # Behind a proxy there they are whom it names.
        assert near.ask("GET", "/admin", of("203.0.113.1")).status == 200
        assert near.ask("GET", "/inside", of("10.0.0.1")).status == 200
        assert near.ask("GET", "/admin", of("192.0.2.1")).status == 403


def test_a_refusal_in_a_pipeline_keeps_its_place(site):
    """The connection stays for whatever follows."""
    with site.connect() as connection:
        connection.ask("GET", "/")
        fields = b"Host: test\r\nX-Forwarded-For: 192.0.2.1\r\n"
        connection.send(b"GET /admin HTTP/1.1\r\n" + fields + b"\r\nGET /public HTTP/1.1\r\n" + fields + b"\r\n")
        assert connection.response().status == 403
        assert connection.response().json["PATH_INFO"] == "/public"


def test_streams_are_refused_one_by_one(site):
    with Client(plain(site.address)) as client:
        denied = client.begin("POST", "/admin", [("x-forwarded-for", "192.0.2.1")], b"body")
        let_in = client.begin("POST", "/public", [("x-forwarded-for", "192.0.2.1")], b"body")
        assert client.wait(denied).status == 403
        assert client.wait(let_in).json["body_bytes"] == 4


@pytest.mark.parametrize("fields", [[], [("content-length", "1000000")]])
def test_who_is_denied_need_not_send_its_body(site, fields):
    with Client(plain(site.address)) as client:
        denied = client.begin("POST", "/admin", [*fields, ("x-forwarded-for", "192.0.2.1")], end=False)
        assert client.wait(denied).status == 403
        assert client.ask("GET", "/public").status == 200


def test_a_prefix_opens_nothing(site):
    """Proxies that set no X-Forwarded-Prefix pass on what their client says."""
    for prefix in ("/x", "/x/y", "/admin/.."):
        fields = [*of("192.0.2.1"), ("X-Forwarded-Prefix", prefix)]
        assert site.get("/admin", fields).status == 403
    assert site.get("/users", [*of("192.0.2.1"), ("X-Forwarded-Prefix", "/admin")]).status == 403


# Bodies.

LIMITS = ["--body-max-bytes", "1000", "--body-limits", "/upload 100K", "--body-limits", "/upload/small 10"]


@pytest.fixture(scope="module", params=["threads", "gevent"])
def sized(request, tmp_path_factory):
    arguments = [*LIMITS, "--concurrency", request.param, *EVERYTHING]
    with planned(tmp_path_factory.mktemp("sized"), *arguments) as site:
        yield site


def chunked(site, path, body):
    with site.connect() as connection:
        return connection.ask(
            "POST", path, [("Transfer-Encoding", "chunked")], b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
        )


def without_length(site, path, body):
    with Client(plain(site.address)) as client:
        return client.ask("POST", path, (), body)


def with_length(site, path, body):
    with Client(plain(site.address)) as client:
        return client.ask("POST", path, [("content-length", str(len(body)))], body)


def spoken(protocol):
    return lambda site, path, body: site.speak(protocol, "POST", path, (), body)


WAYS = {
    "length": spoken("http"),
    "chunked": chunked,
    "http2": without_length,
    "http2_length": with_length,
    **{protocol: spoken(protocol) for protocol in ("scgi", "uwsgi", "fastcgi")},
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_bodies_are_as_long_as_their_path_allows(sized, way):
    for path, longest in [
        ("/", 1000),
        ("/uploads", 1000),
        ("/upload", 102_400),
        ("/upload/large", 102_400),
        ("//upload", 102_400),
        ("/upload/small", 10),
        ("/upload/./small/x", 10),
        ("/upload/x/../small", 10),
    ]:
        response = way(sized, path, b"x" * longest)
        assert (response.status, response.json["body_bytes"]) == (200, longest), path
        before = sized.count(f"POST {path}")
        response = way(sized, path, b"x" * (longest + 1))
        assert (response.status, response.body) == (413, b"413 Content Too Large\n"), path
        assert sized.count(f"POST {path}") == before


def test_a_fastcgi_body_that_is_longer_than_announced(sized):
    variables = gateways.variables("POST", "/upload/small", 10)
    with sized.connect(sized.addresses[3]) as connection:
        connection.send(gateways.fastcgi(variables, b"x" * 11))
        assert gateways.cgi_response(gateways.stdout(connection.rest())[0])[0] in (400, 413)


def send_as_long_as_possible(connection, piece, ended):
    with contextlib.suppress(OSError):
        while not ended.is_set():
            connection.socket.sendall(piece)


@pytest.mark.parametrize("framing", ["Content-Length: 99999999999", "Transfer-Encoding: chunked"])
def test_who_is_refused_while_it_sends_can_read_why(sized, framing):
    piece = b"x" * 60_000 if "Length" in framing else b"%x\r\n%b\r\n" % (60_000, b"x" * 60_000)
    for _ in range(5):
        with sized.connect() as connection:
            connection.send(f"POST / HTTP/1.1\r\nHost: test\r\n{framing}\r\n\r\n")
            ended = threading.Event()
            sender = threading.Thread(target=send_as_long_as_possible, args=(connection, piece, ended))
            sender.start()
            try:
                response = connection.response()
                assert (response.status, response.whole, response["connection"]) == (413, True, "close")
                # An orderly end: whoever sends on is reset, but only later.
                assert connection.is_closed()
            finally:
                ended.set()
                sender.join()


@pytest.mark.parametrize(
    ("path", "framing", "status"),
    [
        ("/upload/small", "Content-Length: 11", 413),
        ("/", "Content-Length: 1001", 413),
        ("/denied", "Content-Length: 5", 403),
        ("/denied", "Transfer-Encoding: chunked", 403),
    ],
)
def test_a_refusal_comes_in_place_of_100_continue(tmp_path, path, framing, status):
    with planned(tmp_path, *LIMITS, "--deny", "/denied 127.0.0.1") as site, site.connect() as connection:
        connection.send(f"POST {path} HTTP/1.1\r\nHost: test\r\nExpect: 100-continue\r\n{framing}\r\n\r\n")
        assert connection.response().status == status
        assert connection.is_closed()


def test_who_may_go_on_is_told_so(sized):
    head = "POST /upload HTTP/1.1\r\nHost: test\r\nExpect: 100-continue\r\n"
    with sized.connect() as connection:
        connection.send(head + "Content-Length: 50000\r\n\r\n")
        assert connection.head().status == 100
        assert connection.send(b"x" * 50_000).response().json["body_bytes"] == 50_000
        # What has no length is refused when it is too long.
        connection.send(head.replace("upload", "upload/small") + "Transfer-Encoding: chunked\r\n\r\n")
        assert connection.head().status == 100
        assert connection.send(b"b\r\nhello world\r\n").response().status == 413


def test_paths_whose_bodies_are_streamed_have_limits_too(tmp_path):
    with planned(tmp_path, *LIMITS, "--stream-paths", "/upload") as site:
        assert site.get("/upload", (), "POST", b"x" * 100_000).json["body_bytes"] == 100_000
        assert site.get("/upload", (), "POST", b"x" * 102_401).status == 413
        with Client(plain(site.address)) as client:
            response = client.ask("POST", "/upload", (), b"x" * 50_000)
            assert json.loads(response.body)["body_bytes"] == 50_000
