"""From HTTP to HTTPS."""

import pytest
from authority import Authority
from conftest import APPS
from secure import Secure

CONTRACT = APPS / "contract.py"


@pytest.fixture
def pair(tmp_path):
    return Authority(tmp_path / "authority").issue("127.0.0.1")


@pytest.fixture
def redirecting(serve, pair, tmp_path):
    return serve(
        CONTRACT, "-c", pair[0], "-k", pair[1], "-b", "127.0.0.1:0", "--redirect-https", "0",
        "--access-log", tmp_path / "access.log",
    )  # fmt: skip


def response(served, text):
    with served.connect(served.addresses[-1]) as connection:
        found = connection.send(text.replace("\n", "\r\n")).response(head_request=text.startswith("HEAD"))
        assert connection.is_closed()
        return found.status, found["location"]


def test_every_request_is_sent_to_https(redirecting, tmp_path):
    (_, port), _ = redirecting.addresses
    base = f"https://site.example:{port}"
    for text, status, place in (
        ("GET /a?b=%20c HTTP/1.1\nHost: site.example\n\n", 301, f"{base}/a?b=%20c"),
        ("HEAD / HTTP/1.1\nHost: site.example:80\n\n", 301, f"{base}/"),
        ("GET / HTTP/1.0\nHost: site.example\n\n", 301, f"{base}/"),
        ("POST /echo HTTP/1.1\nHost: site.example\nContent-Length: 5\n\nhello", 308, f"{base}/echo"),
        ("PUT /x HTTP/1.1\nHost: [::1]:8000\nTransfer-Encoding: chunked\n\n", 308, f"https://[::1]:{port}/x"),
        ("GET //evil.example/ HTTP/1.1\nHost: site.example\n\n", 301, f"{base}//evil.example/"),
        ("GET http://site.example/a HTTP/1.1\nHost: other.example\n\n", 301, f"{base}/a"),
    ):
        assert response(redirecting, text) == (status, place), text
    redirecting.terminate()
    assert '"GET /a?b=%20c HTTP/1.1" 301' in (tmp_path / "access.log").read_text()


def test_without_a_host_there_is_nowhere_to_go(redirecting):
    for text in (
        "GET / HTTP/1.0\n\n",
        "GET / HTTP/1.1\n\n",
        "GET / HTTP/1.1\nHost: \n\n",
        "GET / HTTP/1.1\nHost: site.example/@evil.example\n\n",
        "GET / HTTP/1.1\nHost: user@evil.example\n\n",
        "GET / HTTP/1.1\nHost: a\nHost: b\n\n",
        "GET / HTTP/1.1\nHost: a b\n\n",
        "GET http://user@evil.example/ HTTP/1.1\nHost: a\n\n",
        "OPTIONS * HTTP/1.1\nHost: a\n\n",
        "nonsense\n\n",
    ):
        assert response(redirecting, text) == (400, None), text


def test_a_large_body_does_not_hide_the_response(redirecting):
    with redirecting.connect(redirecting.addresses[-1]) as connection:
        connection.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 300_000)
        assert connection.response().status == 308


def test_an_address_of_its_own(serve, pair):
    served = serve(CONTRACT, "-c", pair[0], "-k", pair[1], "-p", 0, "--redirect-https", "localhost:0")
    (_, port), *others = served.addresses
    assert others
    with served.connect(others[0]) as connection:
        assert connection.ask("GET", "/x")["location"] == f"https://test:{port}/x"


def test_it_stays_after_a_reload(serve, pair, tmp_path):
    served = serve(CONTRACT, "-c", pair[0], "-k", pair[1], "-p", 0, "--redirect-https", "0", "--preload")
    addresses = served.addresses
    served.send_signal(1)
    served.wait_for_log("reloaded: ")
    with served.connect(addresses[1]) as connection:
        assert connection.ask("GET", "/x").status == 301
    with Secure(addresses[0], tmp_path / "authority" / "ca.pem") as connection:
        assert connection.ask("GET", "/pid").status == 200
