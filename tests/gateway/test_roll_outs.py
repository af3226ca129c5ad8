"""Rolling restarts behind real front servers, under load: not one request fails.

Here there are few; `make soak` makes 20 of them behind each front server, and HAProxy hears of each end 10 s late.
"""

import http.client
import itertools
import os
import signal
import threading
from collections import Counter

import pytest
from fronts import Site
from waiting import PATIENCE, wait_until

SOAK = float(os.environ.get("SOAK_SECONDS", 0)) > 0
ROLL_OUTS = 20 if SOAK else 2
REQUESTS = 100_000 if SOAK else 500
CLIENTS = 6
pytestmark = pytest.mark.timeout(3600 if SOAK else 1800)
PAIRS = [("haproxy", "http"), ("haproxy", "http2"), ("haproxy", "fastcgi"), ("nginx", "scgi"), ("nginx", "uwsgi")]


def hears_late(text):
    return text.replace("inter 1s", "inter 5s")


def hears_soon(text):
    return text.replace("inter 1s", "inter 100ms").replace("fail_timeout=5s", "fail_timeout=1s")


class Load:
    """Clients that keep their connections and ask again and again: GET and POST, each with its own response."""

    def __init__(self, site):
        self.port = site.port
        # A connection of FastCGI may end in the moment in which a request comes, and only what is safe is sent again.
        self.posts = site.protocol != "fastcgi"
        self.results = Counter()
        self.workers = set()
        self.ended = threading.Event()
        self.clients = [threading.Thread(target=self.ask_on, args=(number,)) for number in range(CLIENTS)]

    def __enter__(self):
        for client in self.clients:
            client.start()
        return self

    def __exit__(self, *_):
        self.ended.set()
        for client in self.clients:
            client.join()

    def ask_on(self, client):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        for number in itertools.count():
            if self.ended.is_set():
                break
            try:
                self.results[self.ask(connection, f"{client} {number}".encode(), self.posts and number % 4 == 3)] += 1
            except (OSError, http.client.HTTPException) as error:
                self.results[repr(error)] += 1
                connection.close()
        connection.close()

    def ask(self, connection, text, posts):
        if not posts:
            connection.request("GET", "/pid")
            response = connection.getresponse()
            body = response.read()
            if response.status == 200:
                self.workers.add(int(body))
            return response.status
        connection.request("POST", "/count_input", text)
        response = connection.getresponse()
        right = response.read().startswith(b"%d " % len(text))
        return response.status if right else "another body"

    def count(self):
        return sum(self.results.values())


def wait_for_new(load, site, back_end, old=()):
    """Wait until each back end's new workers have responded."""
    wait_until(
        lambda: load.workers.intersection(back_end.workers()).difference(old),
        "responses of the new workers",
        lambda: f"{load.results}\n{site.log.read_text()}",
    )


def wait_for_enough(load):
    """Wait for all responses, however slow this machine is: a few more of them come in time, again and again."""
    for count in range(500, REQUESTS + 1, 500):
        wait_until(lambda count=count: load.count() >= count, f"{count} responses", lambda: str(load.results))


@pytest.fixture(params=PAIRS, ids="-".join)
def site(request):
    front, protocol = request.param
    site = Site()
    try:
        site.protocol = protocol
        site.options = ("--ready-path", "/ready", "--workers", "2", "--drain-delay", "15s" if SOAK else "8s")
        site.start_back_ends(protocol, *site.options)
        site.start_front(front, protocol, hears_late if SOAK else hears_soon)
        yield site
    finally:
        site.stop()


def test_a_rolling_restart_fails_no_request(site):
    with Load(site) as load:
        wait_until(lambda: len(load.workers) > 1, "responses of several workers", lambda: str(load.results))
        for roll_out in range(ROLL_OUTS):
            # HAProxy knows of two.
            place = roll_out % 2
            old = site.back_ends[place]
            assert old.terminate() == 0
            site.back_ends[place] = site.back_end(site.protocol, old.address[1], *site.options).wait_ready()
            wait_for_new(load, site, site.back_ends[place])
        wait_for_enough(load)
    assert set(load.results) == {200}, (load.results, site.log.read_text())


def test_a_reload_fails_no_request(site):
    with Load(site) as load:
        wait_until(lambda: len(load.workers) > 1, "responses of several workers", lambda: str(load.results))
        for number in range(ROLL_OUTS):
            back_end = site.back_ends[number % 2]
            old = back_end.workers()
            back_end.send_signal(signal.SIGHUP)
            back_end.wait_until(lambda b=back_end, o=old: not set(o) & set(b.workers()), "the old workers to leave")
            wait_for_new(load, site, back_end, old)
        wait_for_enough(load)
    assert set(load.results) == {200}, (load.results, site.log.read_text())
