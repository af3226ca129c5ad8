"""`security_headers`, `cors_*` and `compression*`: what becomes of responses on their way."""

import itertools
import os
import zlib

import brotli
import gateways
import pytest
import zstandard
from conftest import APPS, Served
from http2_frames import Client, Reset, plain, secure
from other_servers import certificate
from planned import EVERYTHING, PROTOCOLS, planned
from secure import Secure
from websocket_frames import TEXT, frame
from websocket_frames import Client as WebSocket

NUMBERS = itertools.count()
HTML = ("Content-Type", "text/html; charset=utf-8")
TEXT_OF_MANY = "a line of text\n"


def a_path():
    """One that no other test has."""
    return f"/{next(NUMBERS)}"


@pytest.fixture(params=["threads", "gevent"])
def concurrency(request):
    return ["--concurrency", request.param]


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    return certificate(tmp_path_factory.mktemp("certificate"))


# Security headers.

DEFAULT = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "SAMEORIGIN",
    "referrer-policy": "strict-origin-when-cross-origin",
    "cross-origin-opener-policy": "same-origin-allow-popups",
}


def has(response, fields):
    return all(response[name] == value for name, value in fields.items())


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_responses_get_the_fields_of_the_profile(tmp_path, protocol):
    with planned(tmp_path, "--security-headers", "default", "--health-path", "/health", *EVERYTHING) as site:
        site.plan("/own", fields=[("x-frame-options", "DENY"), ("Referrer-Policy", "no-referrer")])
        site.plan("/fails", raises=True)
        assert has(site.speak(protocol), DEFAULT)
        own = site.speak(protocol, target="/own")
        assert has(own, {**DEFAULT, "x-frame-options": "DENY", "referrer-policy": "no-referrer"})
        assert own.names().count("x-frame-options") == 1
        failed = site.speak(protocol, target="/fails")
        assert failed.status == 500
        assert has(failed, DEFAULT)
        assert has(site.speak(protocol, "HEAD", "/health"), DEFAULT)


def test_the_servers_own_errors_have_them_too(tmp_path):
    with planned(tmp_path, "--security-headers", "strict", "--body-max-bytes", "10") as site:
        responses = [site.get(method="POST", body=b"x" * 11), site.get(fields=[("X-Long", "x" * 100_000)])]
        with site.connect() as connection:
            responses.append(connection.send("NONSENSE\r\n\r\n").response())
        assert [response.status for response in responses] == [413, 431, 400]
        for response in responses:
            assert has(response, {"x-frame-options": "DENY", "x-content-type-options": "nosniff"})
            assert response["content-security-policy"].startswith("default-src 'self';")


def test_fields_of_ones_own(tmp_path):
    own = ["--security-header", "X-Frame-Options: DENY", "--security-header", "Referrer-Policy:"]
    with planned(tmp_path, "--security-headers", "default", *own, "--security-header", "X-More: a, b") as site:
        response = site.get()
        expected = {**DEFAULT, "x-frame-options": "DENY", "referrer-policy": None, "x-more": "a, b"}
        assert has(response, expected)
    with planned(tmp_path, "--security-header", "X-Only: this") as site:
        response = site.get()
        assert (response["x-only"], response["x-content-type-options"]) == ("this", None)


def test_only_tls_is_told_to_stay_with_tls(tmp_path, pair, concurrency):
    binds = ["--bind", "http://127.0.0.1:0", "--bind", "127.0.0.1:0", "--bind", "scgi://127.0.0.1:0"]
    tls = ["-c", pair[0], "-k", pair[1], "--trusted-proxies", "127.0.0.1"]
    with planned(tmp_path, "--security-headers", "default", *binds, *tls, *concurrency) as site:
        http, https, scgi = site.addresses
        with site.connect(http) as connection:
            assert connection.ask()["strict-transport-security"] is None
            # The proxy speaks TLS with its client.
            forwarded = connection.ask(fields=[("X-Forwarded-Proto", "https")])
            assert forwarded["strict-transport-security"] == "max-age=31536000"
        with Secure(https, pair[0]) as connection:
            assert connection.ask()["strict-transport-security"] == "max-age=31536000"
            forwarded = connection.ask(fields=[("X-Forwarded-Proto", "http")])
            assert forwarded["strict-transport-security"] is None
        with Client(secure(https, pair[0])) as client:
            assert ("strict-transport-security", "max-age=31536000") in client.ask().fields
        for more, expected in [((), []), ((("HTTPS", "on"),), ["max-age=31536000"])]:
            with site.connect(scgi) as connection:
                connection.send(gateways.scgi(gateways.variables("GET", "/", 0, *more)))
                fields = gateways.cgi_response(connection.rest())[1]
                assert fields.get("strict-transport-security", []) == expected


def test_errors_over_tls_are_told_to_stay_with_tls(tmp_path, pair, concurrency):
    tls = ["-c", pair[0], "-k", pair[1], "--body-max-bytes", "10"]
    with planned(tmp_path, "--security-headers", "default", *tls, *concurrency) as site:
        site.plan("/fails", raises=True)
        for asked, status in [(("GET", "/fails"), 500), (("POST", "/", (), b"x" * 11), 413)]:
            with Secure(site.address, pair[0]) as connection:
                response = connection.ask(*asked)
            assert (response.status, response["strict-transport-security"]) == (status, "max-age=31536000")


# CORS.

PAGE = ("Origin", "https://page.example")
CORS = [
    *("--cors-origins", "https://page.example", "--cors-origins", "https://*.below.example", "--cors-credentials"),
    *(
        "--cors-exposed-headers",
        "X-Total",
        "--cors-headers",
        "X-Token",
        "--cors-methods",
        "PUT",
        "--cors-max-age",
        "1h",
    ),
    *("--rate-limit", "/rated 1/1h", "--deny", "/denied 127.0.0.1", "--deny", "/denied 192.0.2.0/24"),
]


@pytest.fixture(scope="module", params=["threads", "gevent"])
def cors(request, tmp_path_factory):
    with planned(tmp_path_factory.mktemp("cors"), *CORS, *EVERYTHING, "--concurrency", request.param) as site:
        yield site


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_pages_of_friends_may_read_responses(cors, protocol):
    for origin in ("https://page.example", "https://a.below.example"):
        response = cors.speak(protocol, fields=[("Origin", origin)])
        assert response["access-control-allow-origin"] == origin
        assert response["access-control-allow-credentials"] == "true"
        assert response["access-control-expose-headers"] == "X-Total"
        assert response["vary"] == "Origin"
        assert response.json["HTTP_ORIGIN"] == origin
    for origin in ("https://other.example", "http://page.example", "https://below.example", "null"):
        response = cors.speak(protocol, fields=[("Origin", origin)])
        assert (response.status, response["access-control-allow-origin"], response["vary"]) == (200, None, "Origin")
    assert cors.speak(protocol)["vary"] == "Origin"


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_preflight_gets_a_response_of_the_server(cors, protocol):
    path = a_path()
    asks = [("Access-Control-Request-Method", "PUT"), ("Access-Control-Request-Headers", "x-token")]
    response = cors.speak(protocol, "OPTIONS", path, [PAGE, *asks])
    assert (response.status, response.body) == (204, b"")
    assert response["access-control-allow-origin"] == "https://page.example"
    assert response["access-control-allow-methods"] == "PUT"
    assert response["access-control-allow-headers"] == "X-Token"
    assert response["access-control-max-age"] == "3600"
    assert response.names().count("access-control-allow-origin") == 1
    stranger = cors.speak(protocol, "OPTIONS", path, [("Origin", "https://other.example"), *asks])
    assert (stranger.status, stranger["access-control-allow-origin"]) == (204, None)
    assert stranger["access-control-allow-methods"] is None
    assert cors.count(f"OPTIONS {path}") == 0
    # Without the question it is a request as any other.
    assert cors.speak(protocol, "OPTIONS", path, [PAGE]).status == 200
    assert cors.count(f"OPTIONS {path}") == 1


def test_what_the_application_says_stands(cors):
    own = [("Access-Control-Allow-Origin", "https://own.example"), ("Vary", "Cookie")]
    response = cors.get(cors.plan(a_path(), fields=own), [PAGE])
    assert (response["access-control-allow-origin"], response["vary"]) == ("https://own.example", "Cookie")
    assert response["access-control-allow-credentials"] is None


def test_pages_may_read_why_they_were_refused(cors):
    assert cors.get("/rated", [PAGE])["access-control-allow-origin"] == "https://page.example"
    for path, status in [("/rated", 429), ("/denied", 403)]:
        response = cors.get(path, [PAGE])
        assert (response.status, response["access-control-allow-origin"]) == (status, "https://page.example")
    asks = [PAGE, ("Access-Control-Request-Method", "PUT")]
    # Asking costs nothing of a rate, but lists hold for all.
    assert cors.get("/rated", asks, "OPTIONS").status == 204
    assert cors.get("/denied", asks, "OPTIONS").status == 403


def test_pages_may_read_what_went_wrong(tmp_path, concurrency):
    with planned(tmp_path, "--cors-origins", PAGE[1], "--body-max-bytes", "10", *concurrency) as site:
        site.plan("/fails", raises=True)
        for response in (site.get("/fails", [PAGE]), site.get("/", [PAGE], "POST", b"x" * 11)):
            assert (response.status, response["access-control-allow-origin"]) in [(500, PAGE[1]), (413, PAGE[1])]


def test_all_pages_may(tmp_path):
    with planned(tmp_path, "--cors-origins", "*", "--cors-headers", "*") as site:
        response = site.get("/", [("Origin", "null")])
        assert (response["access-control-allow-origin"], response["vary"]) == ("*", None)
        asks = [PAGE, ("Access-Control-Request-Method", "PUT"), ("Access-Control-Request-Headers", "x-a, x-b")]
        assert site.get("/", asks, "OPTIONS")["access-control-allow-headers"] == "x-a, x-b"


# Compression.


@pytest.fixture(scope="module", params=["threads", "gevent"])
def site(request, tmp_path_factory):
    arguments = ["--compression", "--compression-excluded-paths", "/secret", *EVERYTHING]
    with planned(tmp_path_factory.mktemp("compression"), *arguments, "--concurrency", request.param) as site:
        yield site


def decoder(coding):
    """Something that decodes bytes as they come."""
    if coding == "gzip":
        return zlib.decompressobj(31).decompress
    if coding == "br":
        return brotli.Decompressor().process
    if coding == "zstd":
        return zstandard.ZstdDecompressor().decompressobj().decompress
    return bytes


def decoded(response):
    return decoder(response["content-encoding"])(response.body).decode()


def wants(accept):
    return [] if accept is None else [("Accept-Encoding", accept)]


@pytest.mark.parametrize(
    ("accept", "coding"),
    [
        ("gzip", "gzip"),
        ("br", "br"),
        ("zstd", "zstd"),
        ("GZip", "gzip"),
        ("x-gzip", "gzip"),
        ("gzip, br, zstd", "zstd"),
        ("gzip, deflate, br", "br"),
        ("gzip;q=1.0, br;q=0.9, zstd;q=0.001", "gzip"),
        ("br;q=0, gzip;q=0.5", "gzip"),
        ("*", "gzip"),
        ("*;q=0.1, zstd;q=0", "gzip"),
        ("gzip;q=0.5, identity;q=0.6", None),
        ("gzip;q=0, *;q=0", None),
        ("identity", None),
        ("deflate", None),
        ("gzip;q=nonsense", None),
        ("", None),
        (None, None),
    ],
)
def test_clients_get_what_they_like_best(site, accept, coding):
    path = site.plan(a_path(), fields=[HTML], body=TEXT_OF_MANY, times=500)
    response = site.get(path, wants(accept))
    assert (response["content-encoding"], response["vary"]) == (coding, "Accept-Encoding")
    assert decoded(response) == TEXT_OF_MANY * 500
    assert response["content-length"] == str(len(response.body))
    assert (len(response.body) < 500) == (coding is not None)


@pytest.mark.parametrize("coding", ["gzip", "br", "zstd"])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_protocol_carries_every_coding(site, protocol, coding):
    noise = os.urandom(300_000).hex()
    for what in ({"body": noise}, {"blocks": [noise[:1000], "", noise[1000:300_000], noise[300_000:]]}):
        path = site.plan(a_path(), fields=[HTML], **what)
        response = site.speak(protocol, "GET", path, wants(coding))
        assert response["content-encoding"] == coding
        assert decoded(response) == noise


@pytest.mark.parametrize("coding", ["gzip", "br", "zstd"])
@pytest.mark.parametrize("announced", [False, True])
def test_blocks_are_seen_as_they_are_given(site, coding, announced):
    one, two = f"one{announced}{coding}", f"two{announced}{coding}"
    blocks = ["first block", {"gate": one}, "second" * 500, {"gate": two}, "third"]
    length = [("Content-Length", str(11 + 3000 + 5))] if announced else []
    path = site.plan(a_path(), fields=[HTML, *length], blocks=blocks)
    for protocol in ("http", "http2"):
        decode = decoder(coding)
        with Chunks(site, protocol, path, coding) as chunks:
            assert chunks.until(decode, "first block")
            site.open(one)
            assert chunks.until(decode, "second" * 500)
            site.open(two)
            assert chunks.until(decode, "third")
        (site.folder / one).unlink()
        (site.folder / two).unlink()


class Chunks:
    """The pieces of a response as they come."""

    def __init__(self, site, protocol, path, coding):
        self.protocol = protocol
        if protocol == "http":
            self.connection = site.connect()
            self.connection.send(f"GET {path} HTTP/1.1\r\nHost: test\r\nAccept-Encoding: {coding}\r\n\r\n")
            response = self.connection.head()
        else:
            self.connection = Client(plain(site.address))
            self.stream = self.connection.begin("GET", path, [("accept-encoding", coding)])
            response = self.connection.wait_head(self.stream)
        assert response["content-encoding"] == coding
        assert response["content-length"] is None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.connection.__exit__()

    def next(self):
        if self.protocol == "http":
            size = int(self.connection.line(), 16)
            chunk = self.connection.take(size)
            assert self.connection.take(2) == b"\r\n"
            return chunk
        chunks = self.connection.responses[self.stream].chunks
        while not chunks:
            assert self.connection.pump()
        return chunks.pop(0)

    def until(self, decode, text):
        """Take what comes until it is this text."""
        seen = b""
        while len(seen) < len(text):
            seen += decode(self.next())
        return seen.decode() == text


@pytest.mark.parametrize(
    ("path", "plan"),
    [
        (None, {"fields": [HTML], "body": "short"}),
        (None, {"fields": [("Content-Type", "image/png")]}),
        (None, {"fields": [("Content-Type", "text/event-stream")]}),
        (None, {"fields": []}),
        (None, {"fields": [HTML, ("Content-Encoding", "identity")]}),
        (None, {"fields": [HTML, ("Cache-Control", "no-transform, max-age=60")]}),
        (None, {"fields": [HTML, ("Content-Range", "bytes 0-14999/90000")], "status": "206 Partial Content"}),
        ("/secret", {"fields": [HTML]}),
        ("/secret/page", {"fields": [HTML]}),
        ("/%73ecret", {"fields": [HTML]}),
    ],
)
def test_what_is_left_as_it_is(site, path, plan):
    plan = {"body": TEXT_OF_MANY, "times": 1000 if "body" not in plan else 1, **plan}
    path = path or a_path()
    site.plan(path.replace("%73", "s"), **plan)
    response = site.get(path, [*wants("gzip, br, zstd"), ("Range", "bytes=0-14999")])
    assert response["content-encoding"] in (None, "identity")
    assert response.body.decode() == plan["body"] * plan["times"]
    assert response["content-range"] == dict(plan["fields"]).get("Content-Range")
    # A part belongs to a whole that is compressed for those who want it (RFC 9110 section 15.3.7).
    assert response["vary"] == ("Accept-Encoding" if response.status == 206 else None)


def test_a_body_that_would_grow_is_left_as_it_is(site):
    path = site.plan(a_path(), fields=[("Content-Type", "text/plain")], file="noise")
    (site.folder / "noise").write_bytes(os.urandom(5000))
    path = site.plan(path, fields=[HTML], body=(site.folder / "noise").read_bytes().decode("latin-1")[:1200])
    response = site.get(path, wants("gzip"))
    assert response["vary"] == "Accept-Encoding"
    assert decoded(response) == site.plans[path]["body"]


def test_files_of_the_application_are_compressed(site):
    content = TEXT_OF_MANY * 100_000
    (site.folder / "file").write_text(content)
    for fields in ([HTML], [HTML, ("Content-Length", str(len(content)))]):
        path = site.plan(a_path(), fields=fields, file="file")
        for protocol in PROTOCOLS:
            response = site.speak(protocol, "GET", path, wants("gzip"))
            assert response["content-encoding"] == "gzip"
            assert decoded(response) == content
            assert site.speak(protocol, "GET", path).body.decode() == content


def test_half_of_a_compressed_response_does_not_look_whole(site):
    path = site.plan(a_path(), fields=[HTML], blocks=["x" * 5000], raises=True)
    for coding in ("gzip", "br", "zstd"):
        response = site.get(path, wants(coding))
        assert (response.status, response["content-encoding"], response.whole) == (200, coding, False)
        with Client(plain(site.address)) as client, pytest.raises(Reset):
            client.ask("GET", path, [("accept-encoding", coding)])


def test_a_known_length_is_not_promised_for_what_fails(site):
    """Nothing of it was sent, so there can still be an error page."""
    path = site.plan(a_path(), fields=[HTML, ("Content-Length", "5000")], raises=True)
    response = site.get(path, wants("gzip"))
    assert (response.status, response.whole) == (500, True)


def test_too_little_for_what_was_announced(site):
    path = site.plan(a_path(), fields=[HTML, ("Content-Length", "5000")], body="x" * 4000)
    response = site.get(path, wants("gzip"))
    assert (response.status, response.whole) == (200, False)


@pytest.mark.parametrize("etag", ['"v1"', 'W/"v1"'])
def test_tags_of_compressed_responses_are_weak_and_known_again(site, etag):
    path = site.plan(a_path(), fields=[HTML], body="x" * 5000, etag=etag.removeprefix("W/") if etag[0] == '"' else etag)
    for protocol in ("http", "http2", "fastcgi"):
        response = site.speak(protocol, "GET", path, wants("gzip"))
        assert (response.status, response["etag"]) == (200, 'W/"v1"')
        known = [("If-None-Match", response["etag"])]
        again = site.speak(protocol, "GET", path, [*known, *wants("gzip")])
        assert (again.status, again["etag"], again.body) == (304, 'W/"v1"', b"")
        assert site.speak(protocol, "GET", path)["etag"] == etag


def test_head_has_the_head_of_get(site):
    for length in ([], [("Content-Length", "5000")]):
        path = site.plan(a_path(), fields=[HTML, *length], body="x" * 5000, etag='"v1"')
        for accept in ("gzip", "identity"):
            heads = []
            for method in ("GET", "HEAD"):
                fields = site.get(path, wants(accept), method).fields
                heads.append({name: value for name, value in fields if name not in ("Date", "Content-Length")})
            assert heads[0] == heads[1]
            assert heads[1].get("Content-Encoding") == (accept if accept == "gzip" else None)


@pytest.mark.parametrize("announced", [True, False])
def test_head_has_no_length_but_that_of_get(site, announced):
    length = [("Content-Length", "5000")] if announced else []
    path = site.plan(a_path(), fields=[HTML, *length], body="x" * 5000)
    for protocol in PROTOCOLS:
        for accept in ("gzip", "identity"):
            get = site.speak(protocol, "GET", path, wants(accept))
            head = site.speak(protocol, "HEAD", path, wants(accept))
            assert head["content-encoding"] == get["content-encoding"]
            assert head["content-length"] in (None, get["content-length"])


def test_other_rules(tmp_path):
    rules = ["--compression-codings", "gzip", "--compression-types", "+json", "--compression-min-bytes", "10"]
    with planned(tmp_path, "--compression", *rules) as site:
        for name, coding in [("application/problem+json", "gzip"), ("text/html", None)]:
            site.plan("/page", fields=[("Content-Type", name)], body="x" * 100)
            assert site.get("/page", wants("zstd, br, gzip"))["content-encoding"] == coding


def test_a_websocket_is_left_as_it_is(tmp_path, concurrency):
    arguments = ["--compression", "--security-headers", "strict", "--cors-origins", "*", "--request-id"]
    served = Served([APPS / "websocket.py", "--port", "0", *arguments, *concurrency], tmp_path)
    try:
        with WebSocket(served.wait_ready().address) as client:
            client.open(fields=[("Accept-Encoding", "gzip")])
            added = {"content-encoding", "content-security-policy", "access-control-allow-origin"}
            assert not added & set(client.opened.names())
            client.send(frame(TEXT, b"x" * 5000))
            assert client.frame() == (TEXT, b"x" * 5000)
        # Who does not ask for one gets what others get.
        assert served.get("/plain")["content-security-policy"] is not None
    finally:
        served.kill()
