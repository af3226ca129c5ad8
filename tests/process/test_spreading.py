"""Connections are spread over workers: by who is free, and by how many each has."""

import collections
import contextlib
import os
import signal
import socket

import gateways
import pytest
from http2_frames import Client, plain
from planned import EVERYTHING, planned
from waiting import stop
from wire import Connection

CONCURRENCIES = {"threads": ("--threads", "1"), "gevent": ("--concurrency", "gevent", "--greenlets", "1")}
EACH_CONCURRENCY = pytest.mark.parametrize("concurrency", CONCURRENCIES.values(), ids=CONCURRENCIES)


def request(protocol, path):
    """A request of a protocol, as bytes."""
    if protocol == "http":
        return f"GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"
    return getattr(gateways, protocol)(gateways.variables("GET", path))


def spread(ask):
    """How many connections each worker gets. One that is late, as on a busy machine, gets those that follow."""
    workers = collections.Counter(ask() for _ in range(32))
    while not is_even(workers) and workers.total() < 128:
        workers[ask()] += 1
    return workers


def is_even(workers):
    """Whether two workers have about as many connections."""
    return len(workers) == 2 and max(workers.values()) - min(workers.values()) <= 16


@EACH_CONCURRENCY
def test_two_connections_of_the_same_moment_go_to_two_idle_workers(tmp_path, concurrency):
    with planned(tmp_path, "--workers", "2", *concurrency, *EVERYTHING) as served:
        for protocol, address in zip(("http", "scgi", "uwsgi", "fastcgi"), served.addresses, strict=True):
            for turn in range(5):
                gate = f"{protocol}{turn}"
                path = served.plan(f"/{gate}", gate=gate)
                with Connection(address) as one, Connection(address) as two:
                    one.send(request(protocol, path))
                    two.send(request(protocol, path))
                    # Each worker has room for one: both are inside the application before either ends.
                    served.wait_for(f"wait {gate}", 2)
                    served.open(gate)
                    assert one.rest()
                    assert two.rest()


@EACH_CONCURRENCY
def test_connections_that_are_kept_are_spread_evenly(tmp_path, concurrency):
    with planned(tmp_path, "--workers", "2", *concurrency) as served, contextlib.ExitStack() as kept:
        workers = spread(lambda: kept.enter_context(served.connect()).ask().json["pid"])
        assert is_even(workers), workers


def test_connections_of_http2_are_spread_evenly(tmp_path):
    with planned(tmp_path, "--workers", "2") as served, contextlib.ExitStack() as kept:
        workers = spread(lambda: kept.enter_context(Client(plain(served.address))).ask("GET", "/").json["pid"])
        assert is_even(workers), workers


class Http1Client:
    """A connection of HTTP/1.1 that its client keeps for as long as the server does."""

    def __init__(self, served):
        self.connection = served.connect()

    def ask(self):
        """The worker that responds, and whether the connection ends."""
        response = self.connection.ask()
        assert response.status == 200
        return response.json["pid"], response["connection"] == "close"

    def close(self):
        self.connection.close()


class Http2Client(Http1Client):
    def __init__(self, served):
        self.client = Client(plain(served.address))

    def ask(self):
        return self.client.ask("GET", "/").json["pid"], self.client.goaway is not None

    def close(self):
        self.client.socket.close()


@pytest.mark.parametrize("kind", [Http1Client, Http2Client])
@pytest.mark.parametrize("concurrency", [("--threads", "4"), ("--concurrency", "gevent")], ids=["threads", "gevent"])
def test_a_worker_that_is_added_gets_its_share_of_kept_connections(tmp_path, concurrency, kind):
    with planned(tmp_path, *concurrency) as served, served.hold("/held", "end") as held:
        kept = [kind(served) for _ in range(8)]
        (first,) = {connection.ask()[0] for connection in kept}
        served.send_signal(signal.SIGTTIN)

        def is_even():
            workers = collections.Counter()
            for place, connection in enumerate(kept):
                worker, ends = connection.ask()
                workers[worker] += 1
                if ends:
                    connection.close()
                    kept[place] = kind(served)
            return len(workers) == 2 and min(workers.values()) >= 3

        served.wait_until(is_even, "as many requests for one worker as for the other")
        served.open("end")
        assert held.response().json["pid"] == first
        for connection in kept:
            connection.close()


def test_the_idle_connections_of_a_worker_do_not_keep_it_from_being_asked(tmp_path):
    """Those that say nothing are nobody's requests; everybody is served all the same."""
    with planned(tmp_path, "--workers", "2", "--threads", "1") as served, contextlib.ExitStack() as kept:
        for _ in range(8):
            kept.enter_context(socket.create_connection(served.address))
        for _ in range(20):
            assert served.get("/").status == 200


def test_a_worker_that_stands_still_is_not_waited_for(tmp_path):
    with planned(tmp_path, "--workers", "2", "--threads", "1") as served, served.both_workers() as (one, two):
        stopped = one.ask().json["pid"]
        going = two.ask().json["pid"]
        stop(stopped)
        try:
            for _ in range(10):
                assert served.get("/").json["pid"] == going
        finally:
            os.kill(stopped, signal.SIGCONT)
