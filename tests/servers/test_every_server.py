"""Every server that can be installed, started by name: the same six requests, the same responses."""

import pytest
from anygate.adapters import SERVERS
from other_servers import Packed, started

NAMES = [name for name, server in SERVERS.items() if server.run and server.protocols]
BODY = bytes(range(256)) * 4000


@pytest.fixture(scope="module", params=NAMES)
def server(request, tmp_path_factory):
    with started(request.param, tmp_path_factory.mktemp(request.param)) as served:
        yield served


def get(client):
    status, _, body = client.ask("GET", "/caf%C3%A9?a=b%20c", [("X-Test", "yes")])
    expected = (
        b'{"REQUEST_METHOD": "GET", "SCRIPT_NAME": "", "PATH_INFO": "/caf\\u00c3\\u00a9", "QUERY_STRING": "a=b%20c", '
        b'"REMOTE_ADDR": "127.0.0.1", "HTTP_X_TEST": "yes", "wsgi.url_scheme": "http"}'
    )
    return (status, body) == (200, expected), (status, body)


def post(client):
    status, _, body = client.ask("POST", "/body", [("Content-Type", "x/y")], BODY)
    return (status, body) == (200, b"x/y %d %d" % (len(BODY), sum(BODY))), (status, body)


def head(client):
    status, _, body = client.ask("HEAD", "/")
    return (status, body) == (200, b""), (status, body)


def pieces(client):
    status, _, body = client.ask("GET", "/pieces")
    return (status, body) == (200, b"".join(b"%d " % number for number in range(1000))), (status, body[:100])


def fields(client):
    response = client.ask("GET", "/fields")
    return response == (418, ["a=1; Path=/", "b=2"], b"tea\n"), response


def chunked(client):
    if isinstance(client, Packed):
        # Chunks are between a client and its front server.
        return True, None
    body = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (b"hello", b"world" * 1000)) + b"0\r\n\r\n"
    status, _, response = client.ask("POST", "/body", [("Content-Type", "x/y"), ("Transfer-Encoding", "chunked")], body)
    whole = b"hello" + b"world" * 1000
    return (status, response) == (200, b"x/y %d %d" % (len(whole), sum(whole))), (status, response)


REQUESTS = {function.__name__: function for function in (get, post, head, pieces, fields, chunked)}


@pytest.mark.parametrize("request_name", REQUESTS)
def test_the_response_is_the_same(server, request_name):
    """Or the table says that it is not: no more and no less."""
    try:
        same, response = REQUESTS[request_name](server.client)
    except (OSError, ValueError, AssertionError) as error:
        same, response = False, repr(error)
    assert same == (request_name not in server.known.breaks), (response, server.log(), server.stdout())


def test_it_says_what_it_starts(server):
    assert server.stdout().startswith(f"starting {server.known.name} on 127.0.0.1:{server.port}...\n")
