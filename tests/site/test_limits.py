"""`rate_limit`, `requests_per_client_max`, `connections_per_client_max` and `queue_max`."""

import contextlib
import itertools
import re

import pytest
from http2_frames import Client, plain
from planned import EVERYTHING, PROTOCOLS, planned
from wire import Connection

TRUSTED = ["--trusted-proxies", "127.0.0.1"]
ADDRESSES = (f"10.{number >> 8}.{number & 255}.1" for number in itertools.count())


def of(client, *fields):
    return [("X-Forwarded-For", client), *fields]


def anybody():
    """A client that nobody has seen yet."""
    return next(ADDRESSES)


RATES = [
    *("--rate-limit", "/ 3/1h", "--rate-limit", "/login 5/1h burst 2", "--rate-limit", "/api 2/1h by X-Api-Key"),
    *("--rate-limit", "/both 2/1h", "--rate-limit", "/both 100/1m"),
]


@pytest.fixture(scope="module", params=["threads", "gevent"])
def site(request, tmp_path_factory):
    arguments = [*RATES, *TRUSTED, "--concurrency", request.param, *EVERYTHING]
    with planned(tmp_path_factory.mktemp("rates"), *arguments) as site:
        yield site


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_client_hears_how_much_is_left_and_when_to_come_back(site, protocol):
    client = anybody()
    fields = of(client) if protocol.startswith("http") else []
    for left in (2, 1, 0):
        response = site.speak(protocol, "GET", "/rated", fields, client=client)
        assert (response.status, response["ratelimit-policy"]) == (200, '"default";q=3;w=3600')
        assert re.fullmatch(rf'"default";r={left};t=\d+', response["ratelimit"])
    before = site.count("GET /rated")
    response = site.speak(protocol, "GET", "/rated", fields, client=client)
    assert (response.status, response.body) == (429, b"429 Too Many Requests\n")
    assert response["ratelimit-policy"] == '"default";q=3;w=3600'
    assert re.fullmatch(r'"default";r=0;t=\d+', response["ratelimit"])
    # Three an hour: the next one is paid for in 20 minutes.
    assert 1000 < int(response["retry-after"]) <= 1200
    assert site.count("GET /rated") == before
    assert site.get("/rated", of(anybody())).status == 200


def test_each_path_has_its_own_rate(site):
    client = anybody()
    assert [site.get("/login/x", of(client)).status for _ in range(3)] == [200, 200, 429]
    assert [site.get("/login", of(client)).status, site.get("/", of(client)).status] == [429, 200]
    assert site.get("/%6cogin", of(client)).status == site.get("//login", of(client)).status == 429
    assert site.get("/login", of(anybody()))["ratelimit-policy"] == '"rate-1";q=5;w=3600;anygate-burst=2'


def test_a_prefix_is_no_way_around_a_rate(site):
    client = anybody()
    prefixes = [("X-Forwarded-Prefix", f"/{letter}") for letter in "abcde"]
    assert [site.get("/login", of(client, prefix)).status for prefix in prefixes] == [200] * 2 + [429] * 3


def test_an_address_of_ipv6_stands_for_its_network(site):
    assert [site.get("/", of(f"2001:db8::{host}")).status for host in range(4)] == [200, 200, 200, 429]
    assert site.get("/", of("2001:db8:0:1::1")).status == 200


def test_a_field_tells_clients_apart(site):
    client = anybody()
    for key in ("a", "b"):
        statuses = [site.get("/api", of(client, ("X-Api-Key", key))).status for _ in range(3)]
        assert statuses == [200, 200, 429]
    assert site.get("/api", of(anybody(), ("X-Api-Key", "a"))).status == 429
    # Without it, the address counts.
    assert [site.get("/api", of(client)).status for _ in range(3)] == [200, 200, 429]


def test_all_rates_of_a_path_hold(site):
    client = anybody()
    response = site.get("/both", of(client))
    assert response["ratelimit-policy"] == '"rate-3";q=2;w=3600, "rate-4";q=100;w=60'
    assert re.fullmatch(r'"rate-3";r=1;t=\d+, "rate-4";r=99;t=\d+', response["ratelimit"])
    assert [site.get("/both", of(client)).status for _ in range(2)] == [200, 429]


def test_refusals_in_a_pipeline_keep_their_place(site):
    """And the connection stays: whoever comes back in time need not connect again."""
    client = anybody()
    with site.connect() as connection:
        # From here on the connection is known to both sides.
        assert connection.ask("GET", "/login", of(client)).status == 200
        request = f"GET /login HTTP/1.1\r\nHost: test\r\nX-Forwarded-For: {client}\r\n\r\n"
        connection.send(request * 2)
        assert [connection.response().status for _ in range(2)] == [200, 429]
        assert connection.ask("POST", "/login", of(client), b"body").status == 429


def test_a_refused_body_ends_its_connection(site):
    client = anybody()
    for _ in range(3):
        site.get("/", of(client))
    with site.connect() as connection:
        response = connection.ask("POST", "/", of(client), b"x" * 100_000)
        assert (response.status, response["connection"]) == (429, "close")
        assert connection.is_closed()


def test_streams_are_counted(site):
    client = anybody()
    with Client(plain(site.address)) as connection:
        streams = [connection.begin("GET", "/", [("x-forwarded-for", client)]) for _ in range(6)]
        assert [connection.wait(stream).status for stream in streams] == [200] * 3 + [429] * 3


@pytest.mark.parametrize("concurrency", ["threads", "gevent"])
def test_workers_count_together(tmp_path, concurrency):
    arguments = ["--workers", "2", "--threads", "1", "--greenlets", "1", "--concurrency", concurrency]
    with planned(tmp_path, *arguments, "--rate-limit", "/rated 25/1h") as site, site.both_workers() as connections:
        responses = [connection.ask("GET", "/rated") for _ in range(20) for connection in connections]
        assert [response.status for response in responses] == [200] * 25 + [429] * 15
        assert len({response.json["pid"] for response in responses[:25]}) == 2


def test_a_new_generation_goes_on_counting(tmp_path):
    with planned(tmp_path, "--rate-limit", "/rated 3/1h") as site:
        first = site.get("/rated").json["pid"]
        site.send_signal(1)
        site.wait_until(lambda: site.workers() and str(first) not in map(str, site.workers()), "a new generation")
        assert [site.get("/rated").status for _ in range(3)] == [200, 200, 429]


def test_many_refusals_in_a_pipeline(site):
    client = anybody()
    request = f"GET /login HTTP/1.1\r\nHost: test\r\nX-Forwarded-For: {client}\r\n\r\n"
    with site.connect() as connection:
        connection.send(request * 100)
        assert [connection.response().status for _ in range(100)] == [200] * 2 + [429] * 98


# Requests at once.


@pytest.fixture(params=["threads", "gevent"])
def concurrency(request):
    return ["--concurrency", request.param]


def test_a_client_has_so_many_requests_at_once(tmp_path, concurrency):
    limits = ["--requests-per-client-max", "/ 2", "--requests-per-client-max", "/keyed 1 by X-Api-Key"]
    with planned(tmp_path, *limits, *TRUSTED, *concurrency) as site:
        one, other = anybody(), anybody()
        held = [site.hold("/held", gate, of(one)) for gate in ("first", "second")]
        response = site.get("/", of(one))
        assert (response.status, response["retry-after"], response.body) == (429, "1", b"429 Too Many Requests\n")
        assert site.get("/", of(other)).status == 200
        site.hold("/keyed", "second", of(one, ("X-Api-Key", "a")))
        assert site.get("/keyed", of(other, ("X-Api-Key", "a"))).status == 429
        site.plan("/keyed")
        assert site.get("/keyed", of(other, ("X-Api-Key", "b"))).status == 200
        site.open("first")
        assert held[0].response().status == 200
        site.wait_until(lambda: site.get("/", of(one)).status == 200, "a place")
        site.open("second")
        assert held[1].response().status == 200


def test_one_request_after_the_other_is_one_at_once(tmp_path, concurrency):
    with planned(tmp_path, "--requests-per-client-max", "1", *concurrency) as site:
        with site.connect() as connection:
            assert {connection.ask("GET", "/").status for _ in range(500)} == {200}
        with Client(plain(site.address)) as client:
            assert {client.ask("GET", "/").status for _ in range(500)} == {200}


def test_workers_count_requests_at_once_together(tmp_path):
    arguments = ["--workers", "2", "--threads", "1", "--requests-per-client-max", "/slow 1"]
    with planned(tmp_path, *arguments) as site, site.both_workers() as (one, other):
        site.plan("/slow", gate="slow")
        one.send(b"GET /slow HTTP/1.1\r\nHost: test\r\n\r\n")
        site.wait_for("wait slow")
        assert other.ask("GET", "/slow").status == 429
        site.open("slow")
        assert one.response().status == 200
        site.wait_until(lambda: other.ask("GET", "/slow").status == 200, "a place")


def test_requests_whose_client_goes_away_count_no_longer(tmp_path, concurrency):
    with planned(tmp_path, "--requests-per-client-max", "1", *concurrency) as site:
        with site.connect() as connection:
            connection.send(b"POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 100\r\n\r\nhalf")
            site.wait_until(lambda: site.get("/").status == 429, "the request that is on its way")
        site.wait_until(lambda: site.get("/").status == 200, "a place")
        with Client(plain(site.address)) as client:
            site.plan("/held", gate="end")
            held = client.begin("GET", "/held")
            site.wait_for("wait end")
            assert client.ask("GET", "/").status == 429
            site.open("end")
            assert client.wait(held).status == 200


# Connections at once.


def is_turned_away(connection):
    with connection:
        try:
            connection.send(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")
            return connection.rest() == b""
        except ConnectionError:
            return True


@pytest.mark.parametrize("workers", [1, 2])
def test_an_address_has_so_many_connections(tmp_path, workers, concurrency):
    path = f"{tmp_path}/socket"
    arguments = ["--connections-per-client-max", "2", "--workers", workers, "--bind", "127.0.0.1:0"]
    trusted = ["--bind", f"unix:{path}", "--trusted-proxies", "127.0.0.9"]
    with planned(tmp_path, *map(str, arguments), *trusted, *concurrency) as site:
        with site.connect() as one, site.connect() as two:
            assert one.ask().status == two.ask().status == 200
            assert all(is_turned_away(site.connect()) for _ in range(5))
            assert one.ask().status == 200
            with Connection(site.address, source="127.0.0.2") as other:
                assert other.ask().status == 200
            with contextlib.ExitStack() as many:
                made = [many.enter_context(Connection(site.address, source="127.0.0.9")) for _ in range(5)]
                made += [many.enter_context(Connection(path)) for _ in range(5)]
                assert {connection.ask().status for connection in made} == {200}
        site.wait_until(lambda: not is_turned_away_at_all(site), "a place")


def is_turned_away_at_all(site):
    with site.connect() as connection, contextlib.suppress(ConnectionError):
        return connection.ask().status != 200
    return True


# The queue.

ONE = ["--threads", "1", "--greenlets", "1"]


def waiting(site, path="/waits"):
    """A request that waits for the only thread."""
    return site.connect().send(f"GET {path} HTTP/1.1\r\nHost: test\r\n\r\n")


def test_who_would_wait_too_far_behind_is_refused(tmp_path, concurrency):
    arguments = [*ONE, "--queue-max", "3", "--ready-path", "/ready", *concurrency]
    with planned(tmp_path, *arguments) as site, site.hold("/held", "end") as held:
        queued = [waiting(site) for _ in range(3)]
        site.wait_until(lambda: site.get("/ready").status == 503, "a full queue")
        for method in ("GET", "POST"):
            response = site.get("/more", method=method)
            assert (response.status, response["retry-after"]) == (503, "2")
        site.open("end")
        assert [connection.response().status for connection in [held, *queued]] == [200] * 4
        assert site.count("GET /more") == 0
        assert [site.get("/more").status for _ in range(3)] == [200] * 3


def test_requests_that_come_together_are_no_queue(tmp_path):
    """As long as there is somebody for them."""
    arguments = ["--concurrency", "gevent", "--greenlets", "100", "--queue-max", "1"]
    with planned(tmp_path, *arguments) as site, contextlib.ExitStack() as stack:
        for _ in range(5):
            connections = [stack.enter_context(site.connect()) for _ in range(30)]
            for connection in connections:
                connection.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n")
            assert {connection.response().status for connection in connections} == {200}


def test_streams_wait_and_are_refused(tmp_path, concurrency):
    arguments = [*ONE, "--queue-max", "2", *concurrency]
    with (
        planned(tmp_path, *arguments) as site,
        site.hold("/held", "end") as held,
        Client(plain(site.address)) as client,
    ):
        streams = [client.begin("GET", "/waits") for _ in range(5)]
        assert [client.wait(stream).status for stream in streams[2:]] == [503] * 3
        site.open("end")
        assert [client.wait(stream).status for stream in streams[:2]] == [200] * 2
        assert held.response().status == 200
        assert client.ask("GET", "/after").status == 200


def test_what_needs_no_thread_does_not_wait(tmp_path, concurrency):
    """A refusal by another rule comes at once."""
    arguments = [*ONE, *TRUSTED, "--deny", "/denied 127.0.0.1", "--rate-limit", "/rated 1/1h", *concurrency]
    with planned(tmp_path, *arguments) as site, site.hold("/held", "end") as held:
        queued = waiting(site, "/rated")
        site.wait_until(lambda: site.get("/rated").status == 429, "the one that waits")
        assert site.get("/denied").status == 403
        site.open("end")
        assert queued.response().status == held.response().status == 200


def test_who_waited_too_long_makes_room(tmp_path, concurrency):
    arguments = [*ONE, "--queue-max", "1", "--queue-timeout", "1s", "--ready-path", "/ready", *concurrency]
    with planned(tmp_path, *arguments) as site, site.hold("/held", "end") as held:
        for _ in range(2):
            # Both wait, and neither is refused at once: the place of the first is free again.
            response = waiting(site).response()
            assert (response.status, response["retry-after"]) == (503, "10")
            assert site.get("/ready").status == 200
        site.open("end")
        assert held.response().status == 200
        site.wait_until(lambda: [site.get("/after").status for _ in range(3)] == [200] * 3, "room")


def test_streams_that_were_reset_make_room(tmp_path, concurrency):
    arguments = [*ONE, "--queue-max", "2", "--ready-path", "/ready", *concurrency]
    with (
        planned(tmp_path, *arguments) as site,
        site.hold("/held", "end") as held,
        Client(plain(site.address)) as client,
    ):
        streams = [client.begin("GET", "/waits") for _ in range(2)]
        site.wait_until(lambda: site.get("/ready").status == 503, "a full queue")
        for stream in streams:
            client.reset(stream)
        site.wait_until(lambda: site.get("/ready").status == 200, "room")
        site.open("end")
        assert held.response().status == 200
