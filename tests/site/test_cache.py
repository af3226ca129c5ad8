"""`cache*`: responses that are sent again."""

import contextlib
import itertools
import signal
import time
import zlib

import pytest
from conftest import APPS
from http2_frames import Client, plain
from planned import EVERYTHING, PROTOCOLS, planned
from waiting import in_time
from websocket_frames import TEXT, frame
from websocket_frames import Client as WebSocket

NUMBERS = itertools.count()
#: Seconds for which a request waits for another one with the same response.
WAIT_MAX = 5
HTML = ("Content-Type", "text/html")
HOUR = ("Cache-Control", "max-age=3600")
RULES = ["--cache", "/", "--cache", "/news 1h", "--cache", "!/account", "--cache-entry-max-bytes", "100K"]


def a_path(below=""):
    """One that no other test has."""
    return f"{below}/{next(NUMBERS)}"


@pytest.fixture(scope="module", params=["threads", "gevent"])
def site(request, tmp_path_factory):
    arguments = [*RULES, "--concurrency", request.param, *EVERYTHING]
    with planned(tmp_path_factory.mktemp("cache"), *arguments) as site:
        yield site


@pytest.fixture
def folders(tmp_path):
    """Makes a folder for each attempt of a test that has to be in time."""

    def make():
        folder = tmp_path / str(next(NUMBERS))
        folder.mkdir()
        return folder

    return make


@pytest.fixture(params=["threads", "gevent"])
def concurrency(request):
    return ["--concurrency", request.param]


def is_hit(response):
    return response["cache-status"].startswith("anygate; hit;")


def test_the_second_response_is_the_first(site):
    """Whatever the client speaks."""
    path = site.plan(a_path(), fields=[HTML, HOUR, ("X-Own", "1")], body="page")
    first = site.get(path)
    assert (first["cache-status"], first["age"]) == ("anygate; fwd=uri-miss; stored", None)
    for protocol in PROTOCOLS:
        response = site.speak(protocol, target=path)
        assert (response.status, response.text, response["x-own"], response["content-length"]) == (
            200,
            "page",
            "1",
            "4",
        )
        assert is_hit(response)
        assert 0 <= int(response["age"]) < 3600
        assert response.names().count("date") == 1
        head = site.speak(protocol, "HEAD", path)
        assert (head.status, head.body, is_hit(head)) == (200, b"", True)
        assert head["content-length"] in ("4", None)
    assert site.count(f"GET {path}") == 1
    assert site.count(f"HEAD {path}") == 0


def test_what_is_stored_has_no_length_or_all_of_it(site):
    for blocks, fields in [(["one", "two"], []), (["x"] * 100, [("Content-Length", "100")])]:
        path = site.plan(a_path(), fields=[HTML, HOUR, *fields], blocks=blocks)
        for _ in range(3):
            assert site.get(path).text == "".join(blocks)
        assert site.count(f"GET {path}") == 1


@pytest.mark.parametrize(
    "plan",
    [
        {"fields": [HTML]},
        {"fields": [HTML, ("Cache-Control", "no-store, max-age=60")]},
        {"fields": [HTML, ("Cache-Control", "private, max-age=60")]},
        {"fields": [HTML, HOUR, ("Set-Cookie", "a=b")]},
        {"fields": [HTML, HOUR, ("Vary", "*")]},
        {"fields": [HTML, HOUR], "times": 150_000},
        {"fields": [HTML, HOUR], "blocks": ["x" * 50_000] * 3},
        {"fields": [HTML, HOUR], "blocks": ["first"], "raises": True},
        {"fields": [HTML, HOUR, ("Content-Length", "10")], "blocks": ["first"]},
        {"fields": [HTML, HOUR], "status": "206 Partial Content"},
        {"raises": True},
    ],
    ids=lambda plan: str(plan)[:70],
)
def test_what_is_not_stored(site, plan):
    path = site.plan(a_path(), **{"body": "x", **plan} if "blocks" not in plan else plan)
    for count in (1, 2, 3):
        site.get(path)
        assert site.count(f"GET {path}") == count


@pytest.mark.parametrize("fields", [[("Authorization", "Basic x")], [("Range", "bytes=0-0")]])
def test_requests_whose_responses_are_not_stored(site, fields):
    path = site.plan(a_path(), fields=[HTML, HOUR], body="x")
    for count in (1, 2):
        site.get(path, fields)
        assert site.count(f"GET {path}") == count


def test_paths_have_rules_of_their_own(site):
    kept = site.plan(a_path("/news"), fields=[HTML], body="x")
    left_out = site.plan(a_path("/account"), fields=[HTML, HOUR], body="x")
    for _ in range(3):
        site.get(kept)
        assert site.get(left_out)["cache-status"] is None
    assert (site.count(f"GET {kept}"), site.count(f"GET {left_out}")) == (1, 3)
    # Nobody said that it is for those who have a name here.
    for count in (2, 3):
        assert not is_hit(site.get(kept, [("Cookie", "session=1")]))
        assert site.count(f"GET {kept}") == count
    assert is_hit(site.get(kept))


def test_responses_that_vary(site):
    path = site.plan(a_path(), fields=[HTML, HOUR, ("Vary", "Accept-Language")], body="hello")
    assert not is_hit(site.get(path, [("Accept-Language", "en")]))
    site.plan(path, fields=[HTML, HOUR, ("Vary", "Accept-Language")], body="hallo")
    assert not is_hit(site.get(path, [("Accept-Language", "de")]))
    assert not is_hit(site.get(path))
    for language, text in [("en", "hello"), ("de", "hallo")]:
        response = site.get(path, [("Accept-Language", language)])
        assert (is_hit(response), response.text) == (True, text)
    assert site.count(f"GET {path}") == 3


def test_hosts_and_queries_are_told_apart(site):
    path = site.plan(a_path(), fields=[HTML, HOUR], body="x")
    for target in (f"{path}?a", f"{path}?b", path, f"{path}?"):
        assert not is_hit(site.get(target))
    with site.connect() as connection:
        connection.send(f"GET {path} HTTP/1.1\r\nHost: other\r\n\r\n")
        assert not is_hit(connection.response())
        connection.send(f"GET {path} HTTP/1.1\r\nHost: TEST\r\n\r\n")
        assert is_hit(connection.response())


def test_who_has_it_is_told_so(site):
    path = site.plan(a_path(), fields=[HTML, HOUR], body="x", etag='"v1"')
    for protocol in PROTOCOLS:
        response = site.speak(protocol, "GET", path, [("If-None-Match", '"v0", "v1"')])
        assert (response.status, response["etag"], response.body) == (304, '"v1"', b"")
        assert site.speak(protocol, "GET", path, [("If-None-Match", '"v0"')]).text == "x"
    assert site.count(f"GET {path}") == 1


def test_clients_may_demand_a_fresh_one(site, tmp_path):
    path = site.plan(a_path(), fields=[HTML, HOUR], body="x")
    assert site.get(path, [("Cache-Control", "only-if-cached")]).status == 504
    site.get(path)
    assert is_hit(site.get(path, [("Cache-Control", "only-if-cached")]))
    for demand in ("no-cache", "max-age=0"):
        assert site.get(path, [("Cache-Control", demand)])["cache-status"] == "anygate; fwd=request; stored"
    assert site.count(f"GET {path}") == 3
    with planned(tmp_path, *RULES, "--no-cache-obey-clients") as other:
        other.plan(path, fields=[HTML, HOUR], body="x")
        assert [is_hit(other.get(path, [("Cache-Control", "no-cache")])) for _ in range(2)] == [False, True]


# Changes.


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_a_change_makes_it_forgotten(site, method):
    path = site.plan(a_path(), fields=[HTML, HOUR], body="old")
    other = site.plan(a_path(), fields=[HTML, HOUR], body="other")
    assert (site.get(path).text, site.get(other).text) == ("old", "other")
    site.plan(path, fields=[HTML, HOUR, ("Content-Location", other)], body="new")
    assert site.get(path).text == "old"
    site.get(path, method=method)
    assert not is_hit(site.get(other))
    assert (site.get(path).text, site.count(f"GET {path}")) == ("new", 2)
    # One that failed changed nothing.
    site.plan(path, status="500 Oh No", fields=[HTML], body="oh")
    site.get(path, method=method)
    assert is_hit(site.get(path))


def test_a_change_in_one_worker_is_one_in_all(tmp_path, concurrency):
    arguments = [*RULES, "--workers", "2", "--threads", "1", "--greenlets", "1", *concurrency]
    with planned(tmp_path, *arguments) as site, site.both_workers() as (one, two):
        path = site.plan("/page", fields=[HTML, HOUR], body="old")
        assert [connection.ask("GET", path).text for connection in (one, two, one, two)] == ["old"] * 4
        # Each has its own memory.
        assert site.count("GET /page") == 2
        site.plan("/page", fields=[HTML, HOUR], body="new")
        one.ask("POST", path)
        assert (one.ask("GET", path).text, two.ask("GET", path).text) == ("new", "new")


# While the application is busy, or fails.


def test_the_application_is_asked_once_for_all(folders):
    def ask(step):
        with planned(folders(), *RULES, "--threads", "4", "--health-path", "/health") as site:
            path = site.plan("/page", gate="end", fields=[HTML, HOUR], body="page")
            first = site.connect().send(f"GET {path} HTTP/1.1\r\nHost: test\r\n\r\n")
            site.wait_for("wait end")
            step()
            others = [site.connect().send(f"GET {path} HTTP/1.1\r\nHost: test\r\n\r\n") for _ in range(10)]
            with Client(plain(site.address)) as client:
                streams = [client.begin("GET", path) for _ in range(10)]
                # They have been read by now.
                assert client.ask("GET", "/health").status == 200
                site.open("end")
                responses = [connection.response() for connection in [first, *others]]
                responses += [client.wait(stream) for stream in streams]
            step()
            assert {(response.status, response.text) for response in responses} == {(200, "page")}
            assert site.count("GET /page") == 1

    in_time(WAIT_MAX, ask)


PAGE = b"GET /page HTTP/1.1\r\nHost: test\r\n\r\n"


@pytest.fixture
def greenlets(folders):
    """A server whose application is asked for /page, and requests that wait for the same response."""

    @contextlib.contextmanager
    def begin(*arguments, count=10, **plan):
        with planned(folders(), *RULES, "--concurrency", "gevent", *arguments) as site, contextlib.ExitStack() as all:
            site.plan("/page", gate="end", **plan)
            first = all.enter_context(site.connect()).send(PAGE)
            site.wait_for("wait end")
            others = [all.enter_context(site.connect()).send(PAGE) for _ in range(count)]
            # It is read behind them, and the application responds to it at once.
            assert site.get("/").status == 200
            yield site, first, others

    return begin


PAGE_PLAN = {"fields": [HTML, HOUR], "body": "page"}


def test_greenlets_wait_for_one_call_and_hold_nobody_up(greenlets):
    def ask(_):
        with greenlets(**PAGE_PLAN) as (site, first, others), Client(plain(site.address)) as client:
            streams = [client.begin("GET", "/page") for _ in range(10)]
            assert {site.get(f"/{number}").status for number in range(5)} == {200}
            assert client.ask("GET", "/other").status == 200
            assert site.count("GET /page") == 1
            site.open("end")
            responses = [connection.response() for connection in [first, *others]]
            responses += [client.wait(stream) for stream in streams]
            assert {(response.status, response.text) for response in responses} == {(200, "page")}
            assert site.count("GET /page") == 1
            assert all(is_hit(response) for response in responses[1:])

    in_time(WAIT_MAX, ask)


def test_greenlets_that_have_waited_in_vain_ask(greenlets):
    with greenlets(raises=True) as (site, first, others):
        site.open("end")
        assert {connection.response().status for connection in [first, *others]} == {500}
        assert site.count("GET /page") == 11


def test_greenlets_do_not_wait_for_ever(greenlets):
    with greenlets(**PAGE_PLAN) as (site, first, others):
        site.wait_for("GET /page", 11)
        site.open("end")
        assert {connection.response().text for connection in [first, *others]} == {"page"}


def test_greenlets_that_wait_may_be_left_or_broken_off(greenlets):
    with greenlets("--request-timeout", "2s", **PAGE_PLAN) as (site, first, others):
        for connection in others[:5]:
            connection.reset()
        assert {connection.response().status for connection in [first, *others[5:]]} == {504}
        site.open("end")
        site.wait_until(lambda: site.get("/page").text == "page", "a response")
        assert is_hit(site.get("/page"))


def test_greenlets_that_wait_get_responses_by_a_worker_that_ends(greenlets):
    def ask(_):
        with greenlets(**PAGE_PLAN) as (site, first, others):
            site.send_signal(signal.SIGTERM)
            site.wait_for_log("workers finish their requests")
            site.wait_refused()
            site.open("end")
            assert {connection.response().text for connection in [first, *others]} == {"page"}
            assert site.count("GET /page") == 1
            assert site.wait() == 0

    in_time(WAIT_MAX, ask)


def test_those_that_wait_are_no_greenlets_yet(greenlets):
    def ask(_):
        with greenlets("--greenlets", "2", count=2, **PAGE_PLAN) as (site, first, others):
            site.open("end")
            assert {connection.response().text for connection in [first, *others]} == {"page"}
            assert site.count("GET /page") == 1

    in_time(WAIT_MAX, ask)


def test_a_stale_response_is_given_while_a_fresh_one_is_made(tmp_path, concurrency):
    fields = [HTML, ("Cache-Control", "max-age=0, stale-while-revalidate=600")]
    with planned(tmp_path, *RULES, "--threads", "4", *concurrency) as site:
        site.plan("/page", fields=fields, body="old")
        site.get("/page")
        site.plan("/page", gate="end", fields=fields, body="new")
        with site.connect() as connection:
            # The one whose request goes on to the application, and others, for whom it is not asked again.
            responses = [connection.ask("GET", "/page"), *(site.get("/page") for _ in range(3))]
            assert {(response.status, response.text) for response in responses} == {(200, "old")}
            site.wait_for("wait end")
            assert site.count("GET /page") == 2
            site.open("end")
            site.wait_until(lambda: site.get("/page").text == "new", "the fresh one")
            assert connection.ask("GET", "/page").text == "new"


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_who_gets_a_stale_response_gets_its_end(tmp_path, concurrency, protocol):
    """While the application is busy with a fresh one."""
    fields = [HTML, ("Cache-Control", "max-age=0, stale-while-revalidate=600")]
    with planned(tmp_path, *RULES, *EVERYTHING, *concurrency) as site:
        site.plan("/page", fields=fields, body="old")
        site.get("/page")
        site.plan("/page", gate="end", fields=fields, body="new")
        assert site.speak(protocol, target="/page").text == "old"
        site.wait_for("wait end")
        site.open("end")


def test_a_stale_response_is_given_when_the_application_fails(tmp_path, concurrency):
    stale = [HTML, ("Cache-Control", "max-age=0, stale-if-error=600"), ("ETag", '"v1"')]
    with planned(tmp_path, *RULES, "--error-pages", "on", *EVERYTHING, *concurrency) as site:
        site.plan("/page", fields=stale, body="once good")
        site.plan("/other", fields=[HTML, ("Cache-Control", "max-age=0"), ("ETag", '"v1"')], body="once good")
        assert [site.get(path).status for path in ("/page", "/other")] == [200, 200]
        for failure in (
            {"raises": True},
            {"raises": True, "fields": []},
            {"status": "503 Service Unavailable", "body": "bad"},
            {"status": "500 Internal Server Error", "fields": [HTML], "blocks": ["bad", "worse"]},
        ):
            site.plan("/page", **failure)
            site.plan("/other", **failure)
            for protocol in PROTOCOLS:
                response = site.speak(protocol, target="/page")
                assert (response.status, response.text) == (200, "once good")
                assert response["cache-status"].startswith("anygate; fwd=stale")
                assert site.speak(protocol, target="/other").status in (500, 503)
        assert site.speak("http", "GET", "/page", [("If-None-Match", '"v1"')]).status == 304
        site.plan("/page", fields=stale, body="good again")
        assert site.get("/page").text == "good again"


def test_the_application_is_asked_whether_it_is_still_right(site):
    path = site.plan(a_path(), fields=[HTML, ("Cache-Control", "max-age=0")], body="page", etag='"v1"')
    assert site.get(path).text == "page"
    site.plan(path, fields=[HTML, HOUR], body="it must not be asked for this", etag='"v1"')
    for protocol in PROTOCOLS:
        response = site.speak(protocol, target=path)
        assert (response.status, response.text) == (200, "page")
    assert site.count(f"GET {path}") == 2


# Clients that go away.


@pytest.mark.parametrize("announced", [True, False])
@pytest.mark.parametrize("way", ["closed", "reset", "http2"])
def test_what_a_client_left_in_the_middle_is_not_taken_for_whole(tmp_path, concurrency, announced, way):
    blocks = ["x" * 40_000, {"gate": "end"}, "y" * 40_000, "z"]
    length = [("Content-Length", "80001")] if announced else []
    with planned(tmp_path, *RULES, "--threads", "2", *concurrency) as site:
        site.plan("/page", fields=[HTML, HOUR, *length], blocks=blocks)
        if way == "http2":
            client = Client(plain(site.address))
            stream = client.begin("GET", "/page")
            client.wait_head(stream)
            client.reset(stream)
        else:
            connection = site.connect().send("GET /page HTTP/1.1\r\nHost: test\r\n\r\n")
            assert connection.head().status == 200
            assert len(connection.take(1000)) == 1000
            connection.close() if way == "closed" else connection.reset()
        site.open("end")
        site.wait_for("close /page")
        for _ in range(2):
            assert site.get("/page").text == "x" * 40_000 + "y" * 40_000 + "z"


# With the other policies.


def test_each_client_gets_it_coded_as_it_likes(tmp_path, concurrency):
    with planned(tmp_path, *RULES, "--compression", *concurrency) as site:
        site.plan("/page", fields=[HTML, HOUR], body="page " * 1000, etag='"v1"')
        for turn, coding in enumerate(["gzip", None, "br", "gzip", None]):
            wants = [("Accept-Encoding", coding or "identity")]
            response = site.get("/page", wants)
            assert (response["content-encoding"], response["vary"]) == (coding, "Accept-Encoding")
            assert is_hit(response) == (turn > 0)
            if coding != "br":
                assert (zlib.decompress(response.body, 31) if coding else response.body) == b"page " * 1000
            known = site.get("/page", [*wants, ("If-None-Match", response["etag"])])
            assert (known.status, known["etag"]) == (304, response["etag"])
        assert site.count("GET /page") == 1


def test_what_is_added_is_each_clients_own(tmp_path, concurrency):
    rules = ["--security-headers", "default", "--rate-limit", "10/1h", "--request-id", "--cors-credentials"]
    friends = ["--cors-origins", "https://one.example", "--cors-origins", "https://two.example"]
    with planned(tmp_path, *RULES, *rules, *friends, *concurrency) as site:
        site.plan("/page", fields=[HTML, HOUR, ("X-Frame-Options", "DENY")], body="page")
        ids = set()
        for turn, origin in enumerate(["https://one.example", "https://two.example", None, "https://other.example"]):
            response = site.get("/page", [("Origin", origin)] if origin else [])
            assert is_hit(response) == (turn > 0)
            expected = origin if origin in ("https://one.example", "https://two.example") else None
            assert (response["access-control-allow-origin"], response["vary"]) == (expected, "Origin")
            assert response["ratelimit"].startswith(f'"default";r={9 - turn};')
            assert response["x-frame-options"] == "DENY"
            assert len(set(response.names())) == len(response.names())
            ids.add(response["x-request-id"])
        assert len(ids) == 4
        assert site.count("GET /page") == 1


def test_what_a_cache_has_is_not_for_whom_lists_keep_out(tmp_path, concurrency):
    rules = ["--deny", "192.0.2.1", "--rate-limit", "3/1h", "--trusted-proxies", "127.0.0.1"]
    with planned(tmp_path, *RULES, *rules, *concurrency) as site:
        site.plan("/page", fields=[HTML, HOUR], body="page")
        one, denied = ([("X-Forwarded-For", client)] for client in ("192.0.2.2", "192.0.2.1"))
        assert site.get("/page", one).status == 200
        assert site.get("/page", denied).status == 403
        assert [site.get("/page", one).status for _ in range(3)] == [200, 200, 429]


def test_memory_has_an_end(tmp_path, concurrency):
    with planned(tmp_path, *RULES, "--cache-max-bytes", "64K", *concurrency) as site:
        for number in range(10):
            site.plan(f"/{number}", fields=[HTML, HOUR], body="x" * 10_000)
            site.get(f"/{number}")
        # The last ones are there, and the first made room for them.
        assert is_hit(site.get("/9"))
        assert not is_hit(site.get("/0"))


def test_websockets_do_not_wait_for_each_other(serve, concurrency):
    served = serve(APPS / "websocket.py", "--cache", "/", *concurrency)

    def open_many(step):
        with contextlib.ExitStack() as open_ones:
            for _ in range(3):
                begun = time.monotonic()
                client = open_ones.enter_context(WebSocket(served.address)).open("/echo")
                client.send(frame(TEXT, b"x"))
                assert client.frame() == (TEXT, b"x")
                # Requests would wait for one another.
                assert time.monotonic() - begun < WAIT_MAX
                step()

    in_time(WAIT_MAX, open_many)
