"""How the bodies of requests are kept until the application reads them: in memory that the worker's bodies share, else
in files; whole in any case. The application is tests/apps/uploads.py."""

import contextlib
import hashlib
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from conftest import APPS, Served
from gateways import cgi_response, fastcgi, scgi, stdout, uwsgi, variables
from http2_frames import Client, plain
from other_servers import certificate
from secure import Secure

APP = APPS / "uploads.py"
MEGABYTE = 1 << 20
PROTOCOLS = ["http", "https", "http2", "scgi", "uwsgi", "fastcgi"]
BODY = random.Random(18).randbytes(3 * MEGABYTE + 7)


def digest(body):
    return f"{len(body)} {hashlib.sha256(body).hexdigest()}"


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    return certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture(scope="module", params=["64M", "2M", "0"])
def served(request, tmp_path_factory, pair):
    """One server that speaks everything, with much memory for bodies, little, or none."""
    schemes = ["http", "https", "scgi", "uwsgi", "fastcgi"]
    binds = [part for scheme in schemes for part in ("--bind", f"{scheme}://127.0.0.1:0")]
    arguments = [APP, *binds, "-c", pair[0], "-k", pair[1], "--bodies-memory-max-bytes", request.param]
    served = Served(arguments, tmp_path_factory.mktemp("served"))
    served.memory = request.param
    try:
        yield served.wait_ready()
    finally:
        served.kill()


def upload(served, protocol, pair, target, body):
    """The body of the response to an upload."""
    place = {"http": 0, "http2": 0, "https": 1, "scgi": 2, "uwsgi": 3, "fastcgi": 4}[protocol]
    address = served.addresses[place]
    if protocol == "http2":
        with Client(plain(address)) as client:
            return client.ask("POST", target, body=body).body.decode()
    if protocol in ("http", "https"):
        with Secure(address, pair[0]) if protocol == "https" else served.connect(address) as connection:
            return connection.ask("POST", target, body=body).text
    pack = {"scgi": scgi, "uwsgi": uwsgi, "fastcgi": fastcgi}[protocol]
    with served.connect(address) as connection:
        connection.send(pack(variables("POST", target, len(body)), body))
        response = connection.rest()
    return cgi_response(stdout(response)[0] if protocol == "fastcgi" else response)[2].decode()


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("body", [b"a", BODY[:70_000], BODY], ids=["short", "middling", "long"])
def test_a_body_arrives_whole_whatever_memory_there_is(served, pair, protocol, body):
    length, found, files = upload(served, protocol, pair, "/", body).split()
    assert f"{length} {found}" == digest(body)
    is_in_memory = served.memory == "64M" or (served.memory == "2M" and len(body) < MEGABYTE)
    assert int(files) == (0 if is_in_memory else 1)


@pytest.mark.parametrize("pieces", ["1", "1,0,65536", "100000,1,3000000,1000000", f"{len(BODY)}", f"{len(BODY) + 1}"])
def test_a_body_can_be_read_in_pieces(served, pieces):
    with served.connect() as connection:
        response = connection.ask("POST", f"/?pieces={pieces}", body=BODY)
        assert response.text.startswith(digest(BODY))
        # Another one behind it, on the same connection.
        assert connection.ask("POST", "/", body=BODY[:1000]).text.startswith(digest(BODY[:1000]))


def test_requests_behind_a_body_are_not_taken_for_it(served):
    with served.connect() as connection:
        head = b"POST / HTTP/1.1\r\nHost: test\r\nContent-Length: %d\r\n\r\n"
        bodies = [BODY[:200_000], b"b", BODY[:100], BODY]
        connection.send(b"".join(head % len(body) + body for body in bodies))
        for body in bodies:
            assert connection.response().text.startswith(digest(body))


def test_a_body_in_chunks_arrives_whole(served):
    pieces = [BODY[at : at + 50_000] for at in range(0, len(BODY), 50_000)]
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
    with served.connect() as connection:
        response = connection.ask("POST", "/", [("Transfer-Encoding", "chunked")], chunks)
        assert response.text.startswith(digest(BODY))


@pytest.mark.parametrize("kind", [["--threads", "8"], ["--concurrency", "gevent"]], ids=["threads", "greenlets"])
def test_bodies_that_do_not_fit_together_go_to_files_and_none_waits(serve, gate, kind):
    served = serve(APP, "--bodies-memory-max-bytes", "4M", *kind)
    bodies = [bytes([65 + number]) * (MEGABYTE + number) for number in range(8)]

    def ask(body):
        with served.connect() as connection:
            return connection.ask("POST", f"/?gate={gate.name}", body=body).text

    with ThreadPoolExecutor(len(bodies)) as pool:
        asked = [pool.submit(ask, body) for body in bodies]
        # All are at the application at the same time.
        gate.wait_for(len(bodies))
        gate.open()
        responses = [one.result() for one in asked]
    assert [response.rpartition(" ")[0] for response in responses] == [digest(body) for body in bodies]
    # What was in memory is free again.
    assert served.get("/", method="POST", body=BODY).text == f"{digest(BODY)} 0"


def test_an_upload_that_breaks_off_gives_its_memory_back(serve):
    served = serve(APP, "--bodies-memory-max-bytes", "4M")
    begun = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5000000\r\n\r\n" + BODY[: 2 * MEGABYTE]
    for _ in range(5):
        with served.connect() as connection:
            connection.send_read(begun)
            connection.reset()
    served.wait_until(
        lambda: served.get("/", method="POST", body=BODY).text == f"{digest(BODY)} 0", "memory for a body"
    )


def test_an_announced_length_alone_costs_no_memory(serve):
    served = serve(APP)
    (worker,) = served.workers()

    def resident():
        return int(Path(f"/proc/{worker}/statm").read_text().split()[1]) * 4096

    served.get("/", method="POST", body=BODY)
    before = resident()
    with contextlib.ExitStack() as stack:
        for _ in range(100):
            connection = stack.enter_context(served.connect())
            connection.send_read(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 900000000\r\n\r\nx")
        assert resident() - before < 10 * MEGABYTE
