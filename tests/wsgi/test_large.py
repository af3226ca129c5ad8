"""Large bytes that an application gives: kept as they are until their client has taken them, where that is safe. The
application is tests/apps/large.py."""

import contextlib
import socket

import pytest
from conftest import APPS, Served
from gateways import cgi_response, fastcgi, scgi, stdout, uwsgi, variables
from http2_frames import Client, plain
from other_servers import certificate
from secure import Secure
from wire import wait_stuck

APP = APPS / "large.py"
LENGTH = 10 << 20
KINDS = {"threads": ["--threads", "4"], "greenlets": ["--concurrency", "gevent"]}


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    return certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture(scope="module", params=KINDS)
def served(request, tmp_path_factory, pair):
    """One server that speaks everything."""
    schemes = ["http", "https", "scgi", "uwsgi", "fastcgi"]
    binds = [part for scheme in schemes for part in ("--bind", f"{scheme}://127.0.0.1:0")]
    # On a busy machine it may take long until all clients wait.
    patient = ("--write-timeout", "10m")
    arguments = [APP, *binds, "-c", pair[0], "-k", pair[1], *patient, *KINDS[request.param]]
    served = Served(arguments, tmp_path_factory.mktemp("served"))
    try:
        yield served.wait_ready()
    finally:
        served.kill()


def is_right(body, length=LENGTH):
    """Whether it is the body, which has the same megabyte again and again."""
    first = body[: 1 << 20]
    return len(set(first)) == 256 and body == (first * 10)[:length]


def download(served, protocol, pair, target):
    place = {"http": 0, "http2": 0, "https": 1, "scgi": 2, "uwsgi": 3, "fastcgi": 4}[protocol]
    address = served.addresses[place]
    if protocol == "http2":
        with Client(plain(address)) as client:
            return client.ask("GET", target).body
    if protocol in ("http", "https"):
        with Secure(address, pair[0]) if protocol == "https" else served.connect(address) as connection:
            return connection.ask("GET", target).body
    pack = {"scgi": scgi, "uwsgi": uwsgi, "fastcgi": fastcgi}[protocol]
    with served.connect(address) as connection:
        connection.send(pack(variables("GET", target)))
        response = connection.take(2 * LENGTH)
    return cgi_response(stdout(response)[0] if protocol == "fastcgi" else response)[2]


@pytest.mark.parametrize("protocol", ["http", "https", "http2", "scgi", "uwsgi", "fastcgi"])
@pytest.mark.parametrize("target", ["/", "/blocks", "/fragile", "/?less=5"])
def test_a_large_body_arrives_whole(served, pair, protocol, target):
    assert is_right(download(served, protocol, pair, target), LENGTH - (5 if "less" in target else 0))


def references(served):
    return int(served.get("/references").body)


def test_bytes_that_wait_are_kept_without_a_copy_and_let_go_of(served):
    before = references(served)
    with contextlib.ExitStack() as stack:
        waiting = [stack.enter_context(served.connect()) for _ in range(3)]
        for connection in waiting:
            connection.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n")
            wait_stuck(connection.socket, served)
        assert references(served) == before + 3
        assert served.get("/files").body == b"0"
        # One is sent, one is cut off.
        assert is_right(waiting[0].response().body)
        waiting[1].reset()
        served.wait_until(lambda: references(served) == before + 1, "one reference less for each that is over")
    served.wait_until(lambda: references(served) == before, "no reference")


@pytest.mark.parametrize("target", ["/fragile"])
def test_what_is_more_than_bytes_is_copied(served, target):
    with served.connect() as connection:
        connection.send(f"GET {target} HTTP/1.1\r\nHost: test\r\n\r\n")
        wait_stuck(connection.socket, served)
        assert served.get("/files").body == b"1"
        assert is_right(connection.response().body)


def test_more_than_the_memory_for_them_goes_to_files(served):
    with contextlib.ExitStack() as stack:
        waiting = []
        for _ in range(24):
            # One after the other: a connection that waits long without a request is closed.
            connection = stack.enter_context(served.connect())
            waiting.append(connection)
            # The kernel holds little for it, so that nearly all of it waits in the server.
            connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 18)
            connection.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n")
            wait_stuck(connection.socket, served)
        assert int(served.get("/files").body) >= 1
        assert all(is_right(connection.response().body) for connection in waiting)


def test_the_limit_for_what_waits_holds_for_them(serve):
    served = serve(APP, "--threads", "1", "--response-spool-max-bytes", "1M")
    with served.connect() as slow, served.connect() as other:
        slow.send("GET /blocks HTTP/1.1\r\nHost: test\r\n\r\n")
        wait_stuck(slow.socket, served)
        # The only thread waits for the client.
        other.send("GET /files HTTP/1.1\r\nHost: test\r\n\r\n")
        assert is_right(slow.response().body)
        assert other.response().body == b"0"
