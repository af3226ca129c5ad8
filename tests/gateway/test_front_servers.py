"""Real nginx, lighttpd and Apache in front, with the configurations of deploy/."""

import contextlib
import http.client
import json
import os
import signal
import socket

import pytest
from fronts import Site
from waiting import PATIENCE, wait_until

PAIRS = [
    *(
        (front, protocol)
        for front in ("nginx", "lighttpd", "apache")
        for protocol in ("scgi", "fastcgi", "uwsgi", "http")
    ),
    ("caddy", "http"),
]


@pytest.fixture(scope="module", params=PAIRS, ids="-".join)
def site(request):
    front, protocol = request.param
    site = Site()
    try:
        site.start_back_ends(protocol)
        site.start_front(front, protocol)
        site.name, site.protocol = front, protocol
        yield site
    finally:
        site.stop()


def test_dynamic_pages(site):
    seen = site.seen("GET", "/echo/caf%C3%A9?a=b&c", fields={"Accept": "x/y", "Cookie": "a=b", "Host": "example.org"})
    assert seen["PATH_INFO"] == "/echo/caf\xc3\xa9"
    assert (seen["SCRIPT_NAME"], seen["QUERY_STRING"], seen["REQUEST_METHOD"]) == ("", "a=b&c", "GET")
    assert seen["REQUEST_URI"] == "/echo/caf%C3%A9?a=b&c"
    assert (seen["HTTP_ACCEPT"], seen["HTTP_COOKIE"], seen["HTTP_HOST"]) == ("x/y", "a=b", "example.org")
    assert (seen["REMOTE_ADDR"], seen["wsgi.url_scheme"]) == ("127.0.0.1", "http")
    assert seen["SERVER_PORT"] in (str(site.port), "80")
    assert "HTTP_CONTENT_TYPE" not in seen
    assert "HTTP_CONTENT_LENGTH" not in seen


def test_a_client_cannot_say_who_it_is(site):
    fields = {"X-Forwarded-For": "203.0.113.9", "X-Forwarded-Proto": "https", "Forwarded": "for=203.0.113.9"}
    seen = site.seen(fields={**fields, "X_Forwarded_For": "203.0.113.9", "Proxy": "evil"})
    assert (seen["REMOTE_ADDR"], seen["wsgi.url_scheme"]) == ("127.0.0.1", "http")
    assert "203.0.113.9" not in json.dumps(seen)
    assert "HTTP_PROXY" not in seen


def test_forms_and_missing_pages(site):
    seen = site.seen("POST", "/echo", b"a=b", {"Content-Type": "application/x-www-form-urlencoded"})
    assert (seen["CONTENT_LENGTH"], seen["CONTENT_TYPE"]) == ("3", "application/x-www-form-urlencoded")
    assert seen["body"] == "a=b"
    assert site.ask("GET", "/raises")[0] == 500
    status, _, body = site.ask("HEAD", "/large?16000")
    assert (status, body) == (200, b"")


def test_static_files_are_the_front_servers(site):
    status, fields, body = site.ask("GET", "/welcome/static/hello.txt")
    assert (status, body) == (200, b"a static file\n")
    assert fields["Content-Type"].startswith("text/plain")
    assert "anygate" not in fields.get("Server", "")
    # web2py's versioned names; a browser may keep what it has under one for ever.
    assert site.ask("GET", "/welcome/static/_2.14.6/hello.txt")[::2] == (200, b"a static file\n")
    for target in ("/welcome/static/missing.txt", "/welcome/static/../secret.txt", "/applications/welcome/secret.txt"):
        assert b"not for the world" not in site.ask("GET", target)[2]


def test_paths_come_as_the_client_wrote_them(site):
    """Or as its front server cleans them; never with a mount point that nobody asked for."""
    for asked, cleaned in (
        ("/echo//a/b", "/echo/a/b"),
        ("//echo/a/b", "/echo/a/b"),
        ("/x/../echo/b", "/echo/b"),
        ("/echo/./a%2Fb", "/echo/a/b"),
    ):
        if "%" in asked and (site.name, site.protocol) == ("apache", "uwsgi"):
            # mod_proxy_uwsgi cannot pass it on.
            continue
        seen = site.seen("GET", asked)
        assert seen["SCRIPT_NAME"] == ""
        assert seen["PATH_INFO"] in (asked.replace("%2F", "/"), cleaned)


def test_a_client_of_http_1_0_need_not_name_a_host(site):
    with socket.create_connection(("127.0.0.1", site.port), PATIENCE) as client:
        client.sendall(b"GET /pid HTTP/1.0\r\n\r\n")
        assert client.makefile("rb").readline().split()[1] == b"200"


def test_a_response_that_breaks_off_does_not_look_whole(site):
    if site.name == "caddy":
        pytest.skip("Caddy 2.6 ends it as though it were complete (docs/guide/front-servers.md)")
    with pytest.raises((http.client.IncompleteRead, ConnectionError)):
        site.ask("GET", "/raises_between_blocks?slow")


def test_an_upload_of_100_mb(site):
    body = b"0123456789abcdef" * (100 * 1024 * 1024 // 16)
    status, _, response = site.ask("POST", "/count_input", body)
    assert (status, response) == (200, b"104857600 104857600")


def test_a_large_response(site):
    assert len(site.ask("GET", "/large?10000000")[2]) == 10_000_000


def test_a_client_that_sends_chunks(site):
    chunks = (b"x" * 1000 for _ in range(500))
    status, _, response = site.ask(
        "POST", "/count_input", chunks, {"Transfer-Encoding": "chunked"}, encode_chunked=True
    )
    if (site.name, site.protocol) in (("apache", "scgi"), ("apache", "uwsgi")):
        # Apache's own: these two modules want a length (docs/guide/front-servers.md).
        assert status == 411
    else:
        assert (status, response) == (200, b"500000 500000")


def test_slow_clients_hold_nothing(site):
    site.hold_slow_clients(40, b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n12345", b"67890")


def test_a_client_with_too_many_fields_takes_no_back_end_from_others(site):
    many = {f"X-{number}": "1" for number in range(300)}
    # Apache refuses them itself.
    assert site.ask(fields=many)[0] in (400, 431)
    assert {site.ask("GET", "/pid")[0] for _ in range(12)} == {200}


def test_a_reload_under_load_fails_nobody(site):
    before = {pid for back_end in site.back_ends for pid in back_end.workers()}

    def reload():
        for back_end in site.back_ends:
            back_end.send_signal(signal.SIGHUP)

    def are_new():
        return not before & {pid for back_end in site.back_ends for pid in back_end.workers()}

    statuses = site.under_load(reload, are_new)
    assert set(statuses) == {200}, {status: statuses.count(status) for status in set(statuses)}


def test_others_take_over_when_a_back_end_ends(site):
    """One back end is gone from here on."""
    ended = site.back_ends[2]
    statuses = site.under_load(lambda: ended.send_signal(signal.SIGTERM), lambda: ended.process.poll() is not None)
    assert len(statuses) > 20
    # A connection that is made between the last look at the queue and the close is reset, and Apache gives up.
    lost = [status for status in statuses if status != 200]
    assert len(lost) <= 4, f"more than one of each client: {lost}"


def test_others_take_over_when_a_back_end_dies(site):
    """The last test of each pair: another back end stays dead."""
    left = {pid for back_end in site.back_ends[:2] for pid in back_end.workers()}
    asked = set()

    def kill():
        # A front server leaves a back end out for a while when a kept connection to it was just closed, by a reload.
        wait_until(lambda: asked.add(int(site.ask("GET", "/pid")[2])) or left <= asked, "responses of both")
        victim = site.back_ends[1]
        for pid in [victim.pid, *victim.workers()]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    statuses = site.under_load(kill)
    # What was on its way to the back end in the moment of its death is lost; what comes after is not.
    assert len(statuses) > 20
    lost = [status for status in statuses if status != 200]
    assert len(lost) <= 8, lost
    assert {site.ask("GET", "/pid")[0] for _ in range(12)} == {200}
