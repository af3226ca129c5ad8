"""`health_path` and `ready_path`: served by the server, whatever the application does."""

import signal

import gateways
import pytest
from http2_frames import Client, plain
from planned import EVERYTHING, PROTOCOLS, planned

HEALTH = ["--health-path", "/health", "--ready-path", "/ready"]
ONE = ["--threads", "1", "--greenlets", "1"]


@pytest.fixture(params=["threads", "gevent"])
def concurrency(request):
    return ["--concurrency", request.param]


@pytest.fixture
def busy(tmp_path, concurrency):
    """A server whose only thread or greenlet is busy until the test ends."""
    with planned(tmp_path, *HEALTH, *ONE, *EVERYTHING, *concurrency) as site, site.hold("/held", "end"):
        yield site
        site.open("end")


def is_well(response, words=(b"OK", b"READY")):
    return response.body in words and (response.status, response["content-type"], response["cache-control"]) == (
        200,
        "text/plain; charset=utf-8",
        "no-store",
    )


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_busy_application_is_not_asked(busy, protocol):
    for target, word in (("/health", b"OK"), ("/ready", b"READY"), ("/health?x=1", b"OK")):
        assert is_well(busy.speak(protocol, "GET", target), [word]), target
    head = busy.speak(protocol, "HEAD", "/health")
    assert (head.status, head.body) == (200, b"")
    assert busy.count("GET /health") == 0


def test_a_connection_may_ask_again(busy):
    with busy.connect() as connection:
        for _ in range(5):
            assert is_well(connection.ask("GET", "/health"))
            head = connection.ask("HEAD", "/health")
            assert (head.status, head["content-length"]) == (200, "2")
        assert is_well(connection.ask("GET", "/ready", [("Connection", "close")]))
        assert connection.is_closed()


def test_streams_of_one_connection_get_responses_beside_a_busy_one(busy):
    with Client(plain(busy.address)) as client:
        held = client.begin("GET", "/held")
        assert [client.ask("GET", "/health").body for _ in range(3)] == [b"OK"] * 3
        busy.open("end")
        assert client.wait(held).status == 200


@pytest.mark.parametrize("count", [2, 10, 500])
def test_many_in_one_packet(busy, count):
    for _ in range(5):
        with busy.connect() as connection:
            connection.send(b"GET /health HTTP/1.1\r\nHost: test\r\n\r\n" * count)
            assert [is_well(connection.response()) for _ in range(count)] == [True] * count
            assert is_well(connection.ask("GET", "/ready"))


def test_among_other_requests_each_response_has_its_place(tmp_path, concurrency):
    paths = ["/health", "/a", "/health", "/health", "/b", "/c", *["/health"] * 7, "/d", "/e", "/health"]
    with planned(tmp_path, *HEALTH, *concurrency) as site:
        for _ in range(20):
            with site.connect() as connection:
                connection.send("".join(f"GET {path} HTTP/1.1\r\nHost: test\r\n\r\n" for path in paths))
                responses = [connection.response() for _ in paths]
            assert ["/health" if is_well(response) else response.json["PATH_INFO"] for response in responses] == paths


@pytest.mark.parametrize("count", range(1, 6))
def test_a_request_that_is_half_there_waits_for_its_other_half(tmp_path, concurrency, count):
    half = "POST /last?x=1 HTTP/1.1\r\nHost: test\r\nX-First: 1\r\n"
    with planned(tmp_path, *HEALTH, *concurrency) as site:
        for _ in range(20):
            with site.connect() as connection:
                connection.send("GET /health HTTP/1.1\r\nHost: test\r\n\r\n" * count + half)
                assert [is_well(connection.response()) for _ in range(count)] == [True] * count
                seen = connection.send("X-Second: 2\r\nContent-Length: 0\r\n\r\n").response().json
                assert (seen["REQUEST_METHOD"], seen["PATH_INFO"], seen["QUERY_STRING"]) == ("POST", "/last", "x=1")
                assert (seen["HTTP_X_FIRST"], seen["HTTP_X_SECOND"]) == ("1", "2")


def test_other_methods_and_paths_are_the_applications(tmp_path):
    with planned(tmp_path, *HEALTH) as site, site.connect() as connection:
        asked = [
            ("POST", "/health"),
            ("OPTIONS", "/health"),
            ("GET", "/health/"),
            ("GET", "/healthy"),
            ("GET", "//health"),
            ("GET", "/Ready"),
        ]
        for method, path in asked:
            assert connection.ask(method, path).status == 200
            assert site.count(f"{method} {path}") == 1
        assert is_well(connection.ask("GET", "/%68ealth"))


def test_a_body_that_comes_with_the_question_is_not_taken_for_a_request(tmp_path):
    with planned(tmp_path, *HEALTH) as site, site.connect() as connection:
        smuggled = b"GET /smuggled HTTP/1.1\r\nHost: test\r\n\r\n"
        connection.send(b"GET /health HTTP/1.1\r\nHost: test\r\nContent-Length: %d\r\n\r\n" % len(smuggled) + smuggled)
        assert is_well(connection.response())
        assert connection.is_closed()
        assert site.count("GET /smuggled") == 0


def test_whom_lists_keep_out_may_ask(tmp_path):
    with planned(tmp_path, *HEALTH, "--deny", "127.0.0.0/8", "--rate-limit", "1/1h") as site:
        for _ in range(3):
            assert is_well(site.get("/health"))
            assert is_well(site.get("/ready"))
        assert site.get("/").status == 403


def test_a_server_that_ends_lives_but_is_not_ready(tmp_path, concurrency):
    with planned(tmp_path, *HEALTH, "--header-timeout", "60s", *concurrency) as site:
        held = site.hold("/held", "end")
        # A request whose head is on the way keeps its connection.
        half = b"GET /ready HTTP/1.1\r\nHost: test\r\n"
        asking = site.connect().send(half)
        living = site.connect().send(half.replace(b"ready", b"health"))
        assert is_well(site.connect().send(half + b"\r\n").response())
        with site.connect() as idle:
            site.send_signal(signal.SIGTERM)
            assert idle.is_closed()
        response = asking.send(b"\r\n").response()
        assert (response.status, response.body, response["connection"]) == (503, b"draining\n", "close")
        assert is_well(living.send(b"\r\n").response())
        site.open("end")
        assert held.response().status == 200
        assert site.wait() == 0


CHECK = """
import pathlib


def check():
    said = pathlib.Path("check").read_text()
    if said == "raises":
        raise RuntimeError("no database")
    return said == "yes"
"""


def test_a_server_is_ready_when_its_own_check_says_so(tmp_path, concurrency):
    (tmp_path / "checks.py").write_text(CHECK)
    (tmp_path / "check").write_text("no")
    rules = [*HEALTH, "--ready-check", "checks:check", "--ready-check-interval", "50ms"]
    with planned(tmp_path, *rules, "--pythonpath", tmp_path, *concurrency) as site:
        for said, status in [("no", 503), ("yes", 200), ("raises", 503), ("yes", 200)]:
            (tmp_path / "check.new").write_text(said)
            (tmp_path / "check.new").rename(tmp_path / "check")
            site.wait_until(lambda status=status: site.get("/ready").status == status, said)
            assert is_well(site.get("/health"))
        site.wait_for_log("ready check failed: ")
        site.wait_for_log("no database")
        site.wait_for_log("the ready check succeeds again")


def test_a_server_with_a_full_queue_is_not_ready(tmp_path, concurrency):
    with planned(tmp_path, *HEALTH, *ONE, "--queue-max", "1", *concurrency) as site, site.hold("/held", "end") as held:
        assert is_well(site.get("/ready"))
        with site.connect() as waiting:
            waiting.send(b"GET /waits HTTP/1.1\r\nHost: test\r\n\r\n")
            site.wait_until(lambda: site.get("/ready").status == 503, "a full queue")
            assert site.get("/ready").body == b"too many requests are waiting\n"
            assert is_well(site.get("/health"))
            site.open("end")
            assert (held.response().status, waiting.response().status) == (200, 200)
        site.wait_until(lambda: site.get("/ready").status == 200, "an empty queue")


def test_fastcgi_connections_that_stay(busy):
    with busy.connect(busy.addresses[3]) as connection:
        for number in (1, 2, 1):
            connection.send(gateways.fastcgi(gateways.variables(target="/health"), number=number, keep=True))
            response, ended = b"", None
            while ended is None:
                assert connection.more()
                response, ended = gateways.stdout(connection.buffer, number)
            connection.buffer = b""
            assert gateways.cgi_response(response)[2] == b"OK"


def test_fastcgi_requests_in_one_packet(busy):
    numbers = (1, 2, 3)
    requests = [gateways.fastcgi(gateways.variables(target="/health"), number=number, keep=True) for number in numbers]
    with busy.connect(busy.addresses[3]) as connection:
        connection.send(b"".join(requests))
        while gateways.stdout(connection.buffer, 3)[1] is None:
            assert connection.more()
        for number in numbers:
            assert gateways.cgi_response(gateways.stdout(connection.buffer, number)[0])[2] == b"OK"
