"""Front servers with other settings than those of deploy/."""

import socket
from pathlib import Path

import pytest
from fronts import Site
from waiting import PATIENCE

GUIDE = Path(__file__).parent.parent.parent / "docs" / "guide" / "front-servers.md"


@pytest.fixture
def edited():
    """Start a site behind an edited configuration."""
    sites = []

    def start(front, protocol, edit):
        sites.append(Site())
        sites[-1].start_back_ends(protocol)
        sites[-1].start_front(front, protocol, edit)
        return sites[-1]

    yield start
    for site in sites:
        site.stop()


def test_nginx_without_kept_connections(edited):
    site = edited(
        "nginx", "fastcgi", lambda text: text.replace("fastcgi_keep_conn on;", "").replace("keepalive 16;", "")
    )
    for _ in range(3):
        assert site.seen("POST", "/echo", b"a=b")["body"] == "a=b"


@pytest.mark.parametrize(("protocol", "name"), [("fastcgi", "fastcgi"), ("http", "proxy")])
def test_nginx_that_passes_bodies_on_as_they_come(edited, protocol, name):
    site = edited(
        "nginx",
        protocol,
        lambda text: text.replace(f"{name}_pass anygate;", f"{name}_pass anygate;\n{name}_request_buffering off;"),
    )
    chunks = (b"x" * 1000 for _ in range(500))
    response = site.ask("POST", "/count_input", chunks, {"Transfer-Encoding": "chunked"}, encode_chunked=True)
    assert (response[0], response[2]) == (200, b"500000 500000")
    # Bodies that are still on their way hold no thread of the three times eight.
    head = b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n"
    site.hold_slow_clients(40, head, b"0\r\n\r\n")


def test_a_client_that_gives_up_reaches_no_application(edited):
    site = edited(
        "nginx",
        "fastcgi",
        lambda text: text.replace("fastcgi_pass anygate;", "fastcgi_pass anygate;\nfastcgi_request_buffering off;"),
    )
    with socket.create_connection(("127.0.0.1", site.port), PATIENCE) as connection:
        connection.sendall(b"POST /closing?never HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n12345")
        assert site.ask("GET", "/pid")[0] == 200
    for _ in range(6):
        assert b"never" not in site.ask("GET", "/closed")[2]


def test_the_configuration_of_web2pys_scgihandler(edited):
    """Word for word as in the guide, and as web2py's own documentation has it."""
    theirs = GUIDE.read_text().partition("```lighttpd\n")[2].partition("```")[0]

    def edit(text):
        return text[: text.index("# web2py's static files")] + theirs

    site = edited("lighttpd", "scgi", edit)
    seen = site.seen("GET", "/welcome/default/index?a=b")
    assert (seen["SCRIPT_NAME"], seen["PATH_INFO"]) == ("", "/welcome/default/index")
    assert (seen["REQUEST_URI"], seen["QUERY_STRING"]) == ("/welcome/default/index?a=b", "a=b")
    assert site.ask("GET", "/welcome/static/hello.txt")[2] == b"a static file\n"


@pytest.mark.parametrize(
    ("front", "protocol"),
    [
        (front, protocol)
        for front in ("nginx", "lighttpd", "apache")
        for protocol in ("scgi", "fastcgi", "uwsgi", "http")
    ],
)
def test_responses_come_piece_by_piece_where_the_guide_says_so(edited, tmp_path, front, protocol):
    # Of all that deploy/ has, only this one waits for the end.
    flush = (front, protocol) == ("apache", "fastcgi")
    site = edited(front, protocol, lambda text: text.replace("retry=1", "retry=1 flushpackets=on") if flush else text)
    seen = tmp_path / "seen"
    with socket.create_connection(("127.0.0.1", site.port), PATIENCE) as connection:
        connection.sendall(f"GET /pieces?{seen} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
        response = connection.makefile("rb")
        came = b""
        while b"first" not in came:
            line = response.readline()
            assert line, came
            came += line
        seen.touch()
        assert b"second" in came + response.read()


def test_nginx_can_say_where_the_application_is(edited):
    def edit(text):
        return text.replace("scgi_pass anygate;", "scgi_pass anygate;\nscgi_param SCRIPT_NAME /echo;")

    seen = edited("nginx", "scgi", edit).seen("GET", "/echo/a")
    assert (seen["SCRIPT_NAME"], seen["PATH_INFO"]) == ("/echo", "/a")


def test_nginx_can_pass_on_what_it_has_rewritten(edited):
    def edit(text):
        rewrite = "rewrite ^/old/(.*)$ /echo/$1 break;\nscgi_param PATH_INFO $document_uri;"
        return text.replace("scgi_pass anygate;", f"{rewrite}\nscgi_pass anygate;")

    seen = edited("nginx", "scgi", edit).seen("GET", "/old/a?b=c")
    assert (seen["SCRIPT_NAME"], seen["PATH_INFO"], seen["REQUEST_URI"]) == ("", "/echo/a", "/old/a?b=c")
