"""Requests that wait for a thread or greenlet: those whose clients have left are dropped, and not too many wait."""

import contextlib
import socket

import gateways
import pytest
from http2_frames import Client, plain
from planned import EVERYTHING, planned
from wire import Connection

ONE = ("--threads", "1", "--greenlets", "1")
CONCURRENCIES = {"threads": (), "gevent": ("--concurrency", "gevent")}
EACH_CONCURRENCY = pytest.mark.parametrize("concurrency", CONCURRENCIES.values(), ids=CONCURRENCIES)


def request(protocol, path):
    """A request of a protocol, as bytes."""
    if protocol == "http":
        return f"GET {path} HTTP/1.1\r\nHost: test\r\n\r\n"
    return getattr(gateways, protocol)(gateways.variables("GET", path))


@EACH_CONCURRENCY
@pytest.mark.parametrize("leave", ["close", "reset"])
def test_a_request_that_waits_is_dropped_when_its_client_leaves(tmp_path, concurrency, leave):
    arguments = [*ONE, "--queue-max", "1", "--ready-path", "/ready", *concurrency, *EVERYTHING]
    with planned(tmp_path, *arguments) as site:
        for protocol, address in zip(("http", "scgi", "uwsgi", "fastcgi"), site.addresses, strict=True):
            with site.hold(f"/held-{protocol}", protocol) as held:
                gone = Connection(address)
                gone.send(request(protocol, f"/gone-{protocol}"))
                site.wait_until(lambda: site.get("/ready").status == 503, "the request in the queue")
                getattr(gone, leave)()
                site.wait_until(lambda: site.get("/ready").status == 200, "its place in the queue")
                site.open(protocol)
                assert held.response().status == 200
            assert site.get("/after").status == 200
            assert site.count(f"GET /gone-{protocol}") == 0


@EACH_CONCURRENCY
@pytest.mark.parametrize("leave", ["close", "reset"])
def test_a_kept_connection_is_dropped_when_its_client_leaves(tmp_path, concurrency, leave):
    arguments = [*ONE, "--queue-max", "1", "--ready-path", "/ready", *concurrency]
    with planned(tmp_path, *arguments) as site:
        gone = site.connect()
        assert gone.ask().status == 200
        with site.hold("/held", "end") as held:
            gone.send(request("http", "/gone"))
            site.wait_until(lambda: site.get("/ready").status == 503, "the request in the queue")
            getattr(gone, leave)()
            site.wait_until(lambda: site.get("/ready").status == 200, "its place in the queue")
            site.open("end")
            assert held.response().status == 200
        assert site.get("/after").status == 200
        assert site.count("GET /gone") == 0


@EACH_CONCURRENCY
def test_streams_are_dropped_when_their_connection_is_closed(tmp_path, concurrency):
    arguments = [*ONE, "--queue-max", "2", "--ready-path", "/ready", *concurrency]
    with planned(tmp_path, *arguments) as site, site.hold("/held", "end") as held:
        with Client(plain(site.address)) as client:
            for _ in range(2):
                client.begin("GET", "/gone")
            site.wait_until(lambda: site.get("/ready").status == 503, "the streams in the queue")
        site.wait_until(lambda: site.get("/ready").status == 200, "their places in the queue")
        site.open("end")
        assert held.response().status == 200
        assert site.get("/after").status == 200
        assert site.count("GET /gone") == 0


@EACH_CONCURRENCY
def test_a_client_that_has_said_all_gets_the_response_to_what_has_begun(tmp_path, concurrency):
    with planned(tmp_path, *ONE, *concurrency) as site, site.hold("/held", "end") as held:
        held.socket.shutdown(socket.SHUT_WR)
        # The worker has seen the end when it has seen what came after it.
        site.wait_until(lambda: site.count("wait end") == 1, "the request")
        site.open("end")
        assert held.response().status == 200


SLOW = """
import select


def application(environ, start_response):
    select.select([], [], [], 0.02)
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]
"""


@EACH_CONCURRENCY
def test_the_excess_is_refused_at_once(serve, tmp_path, concurrency):
    (tmp_path / "slow.py").write_text(SLOW)
    arguments = [*ONE, "--queue-timeout", "500ms", "--ready-path", "/ready", "--port", "0", *concurrency]
    site = serve("slow.py", *arguments)

    def is_ready():
        return site.get("/ready").status == 200

    with contextlib.ExitStack() as many:
        clients = [many.enter_context(site.connect()) for _ in range(100)]

        def is_full():
            for client in clients:
                with contextlib.suppress(OSError):
                    client.send(request("http", "/"))
            return not is_ready()

        site.wait_until(is_full, "a queue that is longer than half a second")
    # Those that are gone wait no more.
    site.wait_until(lambda: is_ready() and site.get("/").status == 200, "room")


@EACH_CONCURRENCY
def test_zero_allows_any_number_to_wait(tmp_path, concurrency):
    arguments = [*ONE, "--queue-max", "0", "--ready-path", "/ready", *concurrency]
    with planned(tmp_path, *arguments) as site, site.hold("/held", "end") as held, contextlib.ExitStack() as many:
        waiting = [many.enter_context(site.connect()).send(request("http", "/waits")) for _ in range(50)]
        assert site.get("/ready").status == 200
        site.open("end")
        assert [connection.response().status for connection in [held, *waiting]] == [200] * 51
