"""The minimum rate of request bodies (`body_rate_min_bytes`), over every protocol."""

import select

import pytest
from conftest import APPS, Served
from gateways import PARAMS, STDIN, begin, cgi_response, params, record, scgi, stdout, stream, uwsgi, variables
from http2_frames import Client, plain, secure
from other_servers import certificate
from secure import Secure
from waiting import PATIENCE, in_time
from wire import Connection

#: Bytes that are announced, of which few come.
LENGTH = 100_000
HEAD = f"POST {{}} HTTP/1.1\r\nHost: a\r\nContent-Length: {LENGTH}\r\n\r\n".encode()
CHUNKED = b"POST /count_input HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
ANNOUNCED = variables("POST", "/count_input", LENGTH)
#: Seconds between two bytes: far fewer than any pause that is too long.
PAUSE = 0.05
#: Pieces that come in far more time than there is.
MANY = int(PATIENCE / PAUSE)


@pytest.fixture(scope="module", params=["threads", "gevent"])
def served(request, tmp_path_factory):
    """One server for everything; a body has a second, and one more for each 1000 bytes."""
    folder = tmp_path_factory.mktemp("pace")
    trusted, key = certificate(folder)
    binds = ["http", "scgi", "uwsgi", "fastcgi", "https"]
    arguments = [part for scheme in binds for part in ("--bind", f"{scheme}://127.0.0.1:0")]
    pace = ["--body-timeout", "1s", "--body-rate-min-bytes", "1000", "--stream-paths", "/streamed"]
    keys = ["--ssl-certificate", trusted, "--ssl-private-key", key]
    served = Served([APPS / "contract.py", *arguments, *pace, *keys, "--concurrency", request.param], folder)
    served.trusted = trusted
    yield served.wait_ready()
    served.kill()


def address(served, scheme):
    return served.addresses[["http", "scgi", "uwsgi", "fastcgi", "https"].index(scheme)]


def has_response(connection):
    return bool(select.select([connection.socket], [], [], PAUSE)[0])


def trickle(connection, piece):
    """Send a little again and again until there is a response."""
    for _ in range(MANY):
        if has_response(connection):
            return
        connection.send(piece)
    pytest.fail("a body may trickle for ever")


def trickle_over_http_2(client, path):
    """The response to a body of which a byte comes now and then."""
    slow = client.begin("POST", path, end=False)
    for _ in range(MANY):
        client.send(slow, b"x", end=False)
        if has_response(client):
            assert client.pump()
        if slow in client.ended:
            return client.wait(slow)
    pytest.fail("a body may trickle for ever")


@pytest.mark.parametrize(
    ("head", "piece"),
    [(HEAD.replace(b"{}", b"/count_input"), b"x"), (CHUNKED, b"1\r\nx\r\n")],
    ids=["length", "chunked"],
)
def test_a_body_that_trickles_gets_408(served, head, piece):
    with Connection(address(served, "http")) as connection:
        connection.send(head)
        trickle(connection, piece)
        assert connection.response().status == 408
        assert connection.is_closed()


def test_a_body_that_trickles_over_tls_gets_408(served):
    with Secure(address(served, "https"), served.trusted) as connection:
        connection.send(HEAD.replace(b"{}", b"/count_input"))
        trickle(connection, b"x")
        assert connection.response().status == 408


@pytest.mark.parametrize("protocol", ["scgi", "uwsgi", "fastcgi"])
def test_a_body_that_trickles_over_a_gateway_gets_408(served, protocol):
    packed = {
        "scgi": (scgi(ANNOUNCED), b"x"),
        "uwsgi": (uwsgi(ANNOUNCED), b"x"),
        "fastcgi": (begin() + stream(PARAMS, 1, params(ANNOUNCED)), record(STDIN, 1, b"x")),
    }
    head, piece = packed[protocol]
    with Connection(address(served, protocol)) as connection:
        connection.send(head)
        trickle(connection, piece)
        response = connection.rest()
    assert cgi_response(stdout(response)[0] if protocol == "fastcgi" else response)[0] == 408


@pytest.mark.parametrize("is_secure", [False, True], ids=["plain", "tls"])
def test_a_body_that_trickles_over_http_2_gets_408_and_others_go_on(served, is_secure):
    made = secure(address(served, "https"), served.trusted) if is_secure else plain(address(served, "http"))
    with Client(made) as client:
        assert trickle_over_http_2(client, "/count_input").status == 408
        assert client.ask("POST", "/count_input", body=b"hello").body == b"5 5"


@pytest.mark.parametrize("version", ["http1", "http2"])
def test_reading_a_streamed_body_that_trickles_raises_timeouterror(served, version):
    before = served.get("/closed").json
    if version == "http1":
        with Connection(address(served, "http")) as connection:
            connection.send(HEAD.replace(b"{}", b"/streamed"))
            trickle(connection, b"x")
            assert connection.response().status == 408
    else:
        with Client(plain(address(served, "http"))) as client:
            assert trickle_over_http_2(client, "/streamed").status == 408
    (noted,) = served.wait_until(lambda: served.get("/closed").json[len(before) :], "what the application read")
    assert "TimeoutError" in noted


def test_a_body_that_is_slow_and_steady_is_received(served):
    """It takes longer than the time that is not counted."""
    pieces = [b"x" * 500] * 40

    def receive(step):
        with Connection(address(served, "http")) as connection:
            length = sum(map(len, pieces))
            connection.send(HEAD.replace(b"{}", b"/count_input").replace(b"100000", b"%d" % length))
            for piece in pieces:
                assert not has_response(connection)
                connection.send(piece)
                step()
            assert connection.response().body == b"%d %d" % (length, length)

    # Each piece brings half a second.
    in_time(0.5, receive)
