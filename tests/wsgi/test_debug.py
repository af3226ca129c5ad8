"""`--debug`: clients on this machine see the traceback of a request that fails."""

import os
import subprocess
import sys

import gateways
import pytest
from browser import CHROMIUM, Browser
from conftest import ANYGATE, APPS
from waiting import PATIENCE
from wire import Connection

KINDS = {"threads": (), "gevent": ("--concurrency", "gevent")}
PLAIN = b"500 Internal Server Error\n"
HTML = [("Accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8")]


@pytest.fixture(params=KINDS)
def kind(request):
    return KINDS[request.param]


@pytest.fixture
def failing(serve, kind):
    return lambda *more: serve("failing:application", "--pythonpath", APPS, "--local-hosts", "test", *kind, *more)


def shows(response):
    """Whether a response to /call shows why there is no other."""
    assert response.status == 500
    if response.body == PLAIN:
        return False
    assert "ValueError: in the call" in response.text
    return True


def test_without_it_nobody_sees_anything(failing):
    served = failing()
    response = served.get("/call", HTML)
    assert (response.status, response.body, response["content-type"]) == (500, PLAIN, "text/plain; charset=utf-8")
    assert "debug is on" not in served.log()


def test_a_warning_says_once_that_it_is_on(failing):
    served = failing("--debug", "--workers", "2")
    assert served.log().count("debug is on: clients on this machine see the tracebacks") == 1
    assert "WARN" in next(line for line in served.log().splitlines() if "debug is on" in line)


def test_a_program_sees_the_traceback_as_text(failing):
    served = failing("--debug")
    with served.connect() as connection:
        response = connection.ask("GET", "/call", [("Accept", "*/*")])
        assert (response.status, response["content-type"]) == (500, "text/plain; charset=utf-8")
        head, _, text = response.text.partition("\n\n")
        assert head == "500 Internal Server Error"
        assert text.startswith("Traceback (most recent call last):\n")
        assert text.endswith('    raise ValueError("in the call")\nValueError: in the call\n')
        # The log has it as well, and the connection stays.
        served.wait_for_log(text)
        assert connection.ask("GET", "/fine").body == b"fine"


def test_a_browser_sees_it_as_a_page(failing):
    served = failing("--debug")
    response = served.get("/call?a=<script>", HTML)
    assert (response.status, response["content-type"]) == (500, "text/html; charset=utf-8")
    assert response["content-length"] == str(len(response.body))
    assert (response["cache-control"], response["vary"]) == ("no-store", "Accept")
    assert response["x-content-type-options"] == "nosniff"
    assert response["content-security-policy"].startswith("default-src 'none'; style-src 'unsafe-inline'")
    assert response.text.startswith("<!doctype html>")
    assert "<h1>ValueError: in the call</h1>" in response.text
    assert "<p>GET /call?a=&lt;script&gt;</p>" in response.text
    assert "raise ValueError(&quot;in the call&quot;)" in response.text
    assert "<script" not in response.text


def test_a_response_to_head_has_no_body(failing):
    served = failing("--debug")
    with served.connect() as connection:
        assert connection.ask("HEAD", "/call").status == 500
        assert connection.ask("GET", "/fine").body == b"fine"


@pytest.mark.skipif(sys.version_info < (3, 11), reason="there are no groups")
def test_causes_and_groups_are_shown(failing):
    served = failing("--debug")
    text = served.get("/groups").text
    assert text.index("KeyError: '<the cause>'") < text.index("was the direct cause of") < text.index("ExceptionGroup")
    assert "    | ValueError: one & two\n" in text
    assert "    | TypeError: three\n" in text
    page = served.get("/groups", HTML).text
    assert "KeyError: &#39;&lt;the cause&gt;&#39;" in page
    assert "| ValueError: one &amp; two\n" in page


@pytest.mark.parametrize("path", ["/blocks", "/first_block", "/leaves", "/both"])
def test_it_is_shown_as_long_as_nothing_was_sent(failing, path):
    served = failing("--debug")
    response = served.get(path)
    assert response.status == 500
    assert response.text.startswith("500 Internal Server Error\n\nTraceback") or path == "/blocks"
    assert response.body != PLAIN


def test_a_response_that_has_begun_is_broken_off_as_ever(failing):
    served = failing("--debug")
    response = served.get("/later_block")
    assert (response.status, response.body, response.whole) == (200, b"some of it", False)


def test_a_response_stands_although_closing_it_fails(failing):
    assert failing("--debug").get("/closing").body == b"all"


def test_what_cannot_be_written_is_shown_with_question_marks(failing):
    served = failing("--debug")
    assert "ValueError: lone \ufffd" in served.get("/odd").text
    served.wait_for_log("ValueError: lone \ufffd")


def test_long_ones_arrive_whole(failing):
    response = failing("--debug", "--response-memory-max-bytes", "4K").get("/long", HTML)
    assert response.whole
    assert response.text.count("word word") > 1000
    assert response.text.endswith("</html>\n")


def test_a_request_that_takes_too_long_gets_a_response_as_ever(failing):
    served = failing("--debug", "--request-timeout", "2s")
    response = served.get("/sleeps", HTML)
    assert (response.status, response.body) == (504, b"504 Gateway Timeout\n")


# Who is on this machine.


def test_a_client_on_a_unix_socket_is(failing, tmp_path):
    served = failing("--debug", "--bind", f"unix:{tmp_path}/s")
    assert shows(served.get("/call"))
    # Unless it says that it asks for somebody else.
    assert not shows(served.get("/call", [("X-Forwarded-For", "192.0.2.1")]))


def test_a_client_of_ipv6_is(failing):
    assert shows(failing("--debug", "--bind", "[::1]:0").get("/call"))


@pytest.mark.parametrize("place", ["tcp", "unix"])
def test_whom_a_trusted_proxy_asks_for_is_if_it_says_so(failing, tmp_path, place):
    bind = f"unix:{tmp_path}/s" if place == "unix" else "127.0.0.1:0"
    served = failing("--debug", "--trusted-proxies", "127.0.0.1", "--trusted-proxies", "unix", "--bind", bind)
    assert shows(served.get("/call"))
    for field, expected in [
        (("X-Forwarded-For", "127.0.0.1"), True),
        (("X-Forwarded-For", "::1"), True),
        (("X-Forwarded-For", "192.0.2.1"), False),
        (("X-Forwarded-For", "127.0.0.1, 192.0.2.1"), False),
        (("X-Forwarded-For", "192.0.2.1, unknown"), False),
        (("X-Forwarded-Proto", "https"), False),
        (("Forwarded", "for=192.0.2.1"), False),
    ]:
        assert shows(served.get("/call", [field])) is expected, field


def test_whoever_comes_through_another_proxy_is_not(failing):
    """It may be a tunnel to the world that ends on this machine."""
    served = failing("--debug")
    with served.connect() as connection:
        for name in ("X-Forwarded-For", "X-Real-IP", "Forwarded"):
            assert not shows(connection.ask("GET", "/call", [(name, "127.0.0.1")]))
            # The next request on the connection is judged by itself.
            assert shows(connection.ask("GET", "/call"))


def test_other_hosts_may_be_names_of_another_site(failing):
    """A page of that site could have its name lead here (DNS rebinding)."""
    served = failing("--debug", "--local-hosts", "box.lan")
    with served.connect() as connection:
        for host in ("localhost:1", "app.localhost", "127.0.0.1", "Box.lan:80", "[::1]"):
            assert shows(connection.ask("GET", "/call", host=host)), host
        for host in ("site.example", "localhost.site.example", "192.0.2.1"):
            assert not shows(connection.ask("GET", "/call", host=host)), host


def test_a_proxy_that_says_nothing_of_its_client_shows_all_the_same(failing):
    served = failing("--debug")
    for name in ("Via", "CF-Ray", "X-Client-IP", "X-Original-Host"):
        with served.connect() as connection:
            assert not shows(connection.ask("GET", "/call", [(name, "1.1 a")])), name
    with served.connect() as connection:
        assert not shows(connection.ask("GET", "/call", version="HTTP/1.0"))


def test_whom_a_preface_names_is_if_it_says_so(failing):
    served = failing("--debug", "--proxy-protocol", "--trusted-proxies", "127.0.0.1")
    for address, expected in (("192.0.2.1", False), ("127.0.0.1", True)):
        with served.connect() as connection:
            connection.send(f"PROXY TCP4 {address} 192.0.2.2 4711 80\r\n")
            assert shows(connection.ask("GET", "/call")) is expected
    for preface in (b"PROXY UNKNOWN\r\n", b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"):
        with served.connect() as connection:
            connection.send(preface)
            assert not shows(connection.ask("GET", "/call", [("X-Forwarded-For", "127.0.0.1")]))
            assert not shows(connection.ask("GET", "/call"))


@pytest.mark.parametrize("protocol", ["scgi", "uwsgi", "fastcgi"])
def test_whom_a_front_server_asks_for_is_if_it_says_so(failing, protocol):
    served = failing("--debug", "--bind", f"{protocol}://127.0.0.1:0")
    variables = [("CONTENT_LENGTH", "0"), ("SCGI", "1"), ("REQUEST_METHOD", "GET"), ("REQUEST_URI", "/call")]
    for address, expected in (("192.0.2.1", False), ("127.0.0.1", True)):
        with served.connect() as connection:
            connection.send(getattr(gateways, protocol)([*variables, ("REMOTE_ADDR", address)]))
            wire = connection.rest()
        if protocol == "fastcgi":
            wire, end = gateways.stdout(wire)
            assert end == (0, 0)
        status, _, body = gateways.cgi_response(wire)
        assert status == 500
        assert (b"ValueError: in the call" in body) is expected
        assert (body == PLAIN) is not expected


# CGI, where the application is imported for each request.


def cgi(folder, target, *arguments, **variables):
    environment = {
        "PATH": os.environ["PATH"],
        "REQUEST_METHOD": "GET",
        "REQUEST_URI": "/call",
        "SCRIPT_NAME": "",
        "PATH_INFO": "/call",
        "REMOTE_ADDR": "127.0.0.1",
        **variables,
    }
    command = [ANYGATE, "cgi", target, "--pythonpath", APPS, *arguments]
    ended = subprocess.run(command, env=environment, cwd=folder, capture_output=True, timeout=PATIENCE, check=False)
    return ended, gateways.cgi_response(ended.stdout) if ended.stdout else None


def test_a_failure_is_shown_by_cgi(tmp_path):
    ended, (status, fields, body) = cgi(tmp_path, "failing:application", "--debug", HTTP_ACCEPT="text/html")
    assert (ended.returncode, status) == (0, 500)
    assert fields["content-type"] == ["text/html; charset=utf-8"]
    assert b"<h1>ValueError: in the call</h1>" in body
    for hidden in ({"REMOTE_ADDR": "192.0.2.1"}, {"HTTP_X_FORWARDED_FOR": "127.0.0.1"}):
        assert cgi(tmp_path, "failing:application", "--debug", **hidden)[1][2] == PLAIN


@pytest.mark.parametrize("arguments", [(), ("--on-error", "broken:tell")])
def test_an_application_that_cannot_be_imported_is_shown_by_cgi(tmp_path, arguments):
    (tmp_path / "broken.py").write_text("from failing import nothing_like_it\n")
    ended, (status, _, body) = cgi(tmp_path, "broken:application", "--debug", *arguments)
    assert (ended.returncode, status) == (3, 500)
    assert b"ImportError: cannot import name 'nothing_like_it'" in body
    assert b"ImportError: cannot import name 'nothing_like_it'" in ended.stderr
    assert cgi(tmp_path, "missing:application", "--debug")[1][2].count(b"there is no module 'missing'") == 1
    ended, (status, _, body) = cgi(tmp_path, "broken:application", "--debug", REMOTE_ADDR="192.0.2.1")
    assert (ended.returncode, status, body) == (3, 500, PLAIN)


def test_without_it_cgi_ends_without_a_response_as_ever(tmp_path):
    ended, response = cgi(tmp_path, "missing:application")
    assert (ended.returncode, response) == (3, None)


PROGRAM = """
import sys

import anygate
import failing

with anygate.Server(failing.application, port=0, debug=True) as server:
    print(server.url, flush=True)
    sys.stdin.read()
"""


def test_a_program_shows_it_too():
    command = [sys.executable, "-c", PROGRAM]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=APPS, **pipes) as program:
        host, port = program.stdout.readline().strip().removeprefix("http://").split(":")
        with Connection((host, int(port))) as connection:
            assert shows(connection.ask("GET", "/call", host=f"{host}:{port}"))
        _, errors = program.communicate(timeout=PATIENCE)
    assert errors.count("debug is on") == 1


# Libraries that show exceptions themselves.

WERKZEUG = """
from werkzeug.debug import DebuggedApplication
import failing

application = DebuggedApplication(failing.application, evalex=False, pin_security=False)
"""

FLASK = """
from flask import Flask

app = Flask(__name__)
app.debug = True

@app.get("/")
def index():
    raise LookupError("in a view")
"""


@pytest.mark.parametrize("debug", [(), ("--debug",)])
def test_the_page_of_werkzeug_arrives(serve, kind, tmp_path, debug):
    (tmp_path / "debugged.py").write_text(WERKZEUG)
    served = serve("debugged:application", "--pythonpath", APPS, "--local-hosts", "test", *kind, *debug)
    response = served.get("/call", HTML)
    assert response.status == 500
    assert "Werkzeug Debugger" in response.text
    served.wait_for_log("ValueError: in the call")


def test_flask_raises_when_it_is_debugged_and_then_it_is_shown(serve, kind, tmp_path):
    (tmp_path / "site_of_flask.py").write_text(FLASK)
    served = serve("site_of_flask:app", *kind, "--debug", "--local-hosts", "test")
    assert "LookupError: in a view" in served.get("/").text


# In a browser.


@pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium")
def test_a_page_fits_a_telephone_and_is_light_or_dark(serve, tmp_path):
    served = serve("failing:application", "--pythonpath", APPS, "--debug")
    browser = Browser(tmp_path / "profile")
    try:
        for path in ("/call", "/long"):
            browser.size(375, 800)
            browser.open(served.url + path)
            browser.wait_for("document.querySelector('pre')?.textContent.includes('ValueError')")
            assert browser.run("document.documentElement.scrollWidth") <= 375
            assert browser.run("parseFloat(getComputedStyle(document.querySelector('pre')).fontSize)") >= 12
        colors = []
        for dark in (False, True):
            browser.dark(dark)
            colors.append(browser.run("getComputedStyle(document.querySelector('pre')).color"))
        assert colors == ["rgb(0, 0, 0)", "rgb(255, 255, 255)"]
        outside = [url for url in browser.addresses() if not url.startswith(served.url)]
        assert outside == []
        assert [text for text in browser.complaints() if "500 (Internal" not in str(text)] == []
    finally:
        browser.close()
