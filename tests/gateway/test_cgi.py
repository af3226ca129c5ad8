"""`anygate cgi`: one request in the environment and on standard input."""

import json
import os
import subprocess

import pytest
from conftest import ANYGATE, APPS
from fronts import Site
from gateways import cgi_response
from waiting import PATIENCE


def request(method="GET", path="/echo", query="", **more):
    """What a CGI server puts into the environment (RFC 3875)."""
    return {
        "GATEWAY_INTERFACE": "CGI/1.1",
        "REQUEST_METHOD": method,
        "SCRIPT_NAME": "/cgi-bin/app",
        "PATH_INFO": path,
        "QUERY_STRING": query,
        "REQUEST_URI": "/cgi-bin/app" + path + ("?" + query if query else ""),
        "SERVER_PROTOCOL": "HTTP/1.1",
        "SERVER_NAME": "example.org",
        "SERVER_PORT": "80",
        "REMOTE_ADDR": "192.0.2.7",
        "HTTP_HOST": "example.org",
        **more,
    }


@pytest.fixture
def cgi(tmp_path):
    """Run the program as a CGI server does; give the ended process."""

    def start(variables, body=b"", app=APPS / "contract.py", arguments=()):
        return subprocess.run(
            [ANYGATE, "cgi", app, *arguments],
            env={"PATH": os.environ["PATH"], "SECRET": "of the machine", **variables},
            input=body,
            capture_output=True,
            cwd=tmp_path,
            timeout=PATIENCE,
            check=False,
        )

    return start


@pytest.mark.parametrize("place", ["access.log", "-", "/dev/stdout"])
def test_requests_are_logged(cgi, tmp_path, place):
    arguments = ["--access-log", place, "--access-log-format", "%(h)s %(m)s %(U)s %(s)s %(B)s %({X-Own}o)s"]
    app = tmp_path / "app.py"
    app.write_text(
        "def app(environ, start_response):\n    start_response('201 Made', [('X-Own', 'mine')])\n    return [b'four']\n"
    )
    ended = cgi(request(path="/a"), app=app, arguments=arguments)
    assert ended.returncode == 0
    # Standard output is the response's.
    assert cgi_response(ended.stdout)[2] == b"four"
    log = (tmp_path / place).read_bytes() if place == "access.log" else ended.stderr
    assert log == b"192.0.2.7 GET /a 201 4 mine\n"
    refused = cgi(request("BAD METHOD", path="/a"), app=app, arguments=arguments)
    log = (tmp_path / place).read_bytes() if place == "access.log" else refused.stderr
    assert log.splitlines()[-1].split()[-3:] == [b"400", b"16", b"-"]


def test_a_page(cgi):
    ended = cgi(request(query="a=b"))
    assert ended.returncode == 0
    status, fields, body = cgi_response(ended.stdout)
    seen = json.loads(body)
    assert status == 200
    assert fields["content-length"] == [str(len(body))]
    assert (seen["SCRIPT_NAME"], seen["PATH_INFO"], seen["QUERY_STRING"]) == ("/cgi-bin/app", "/echo", "a=b")
    assert (seen["REMOTE_ADDR"], seen["SERVER_NAME"], seen["HTTP_HOST"]) == ("192.0.2.7", "example.org", "example.org")
    assert seen["wsgi.run_once"] is True
    assert seen["wsgi.multiprocess"] is True
    assert seen["wsgi.multithread"] is False


def test_nothing_of_the_machine_is_in_environ(cgi):
    seen = json.loads(cgi_response(cgi(request(HTTP_PROXY="http://evil")).stdout)[2])
    assert not {"SECRET", "PATH", "HTTP_PROXY", "GATEWAY_INTERFACE_"} & set(seen)


def test_the_program_itself_can_be_asked_for(cgi):
    variables = request(path="")
    del variables["PATH_INFO"]
    seen = json.loads(cgi_response(cgi(variables).stdout)[2])
    assert (seen["SCRIPT_NAME"], seen["PATH_INFO"]) == ("/cgi-bin/app", "")


def test_a_form(cgi):
    ended = cgi(request("POST", CONTENT_LENGTH="3", CONTENT_TYPE="text/x"), b"a=b and what is not of it")
    seen = json.loads(cgi_response(ended.stdout)[2])
    assert (seen["body"], seen["CONTENT_LENGTH"], seen["CONTENT_TYPE"]) == ("a=b", "3", "text/x")


def test_a_file(cgi, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(bytes(range(256)) * 1000)
    _, fields, body = cgi_response(cgi(request(path="/file", query=str(path))).stdout)
    assert fields["content-length"] == ["256000"]
    assert body == path.read_bytes()


def test_an_application_that_never_ends_gives_no_more_than_is_asked_for(cgi):
    assert cgi_response(cgi(request("HEAD", "/never_ends", "a,200,")).stdout)[2] == b""
    assert cgi_response(cgi(request("GET", "/never_ends", "a,200,5")).stdout)[2] == b"block"


def test_head_has_no_body(cgi):
    assert cgi_response(cgi(request("HEAD", "/large", "1600")).stdout)[1:] == (
        {"content-type": ["text/plain"], "content-length": ["1600"]},
        b"",
    )


@pytest.mark.parametrize(
    ("variables", "status"),
    [
        (request(path="/raises"), 500),
        (request("G T"), 400),
        (request(CONTENT_LENGTH="-1"), 400),
        (request("POST", CONTENT_LENGTH="999999999999"), 413),
    ],
)
def test_failures_have_a_status(cgi, variables, status):
    assert cgi_response(cgi(variables).stdout)[0] == status


def test_a_body_in_chunks_is_read_to_its_end(cgi):
    # Apache takes the chunks apart and gives no length.
    ended = cgi(request("POST", HTTP_TRANSFER_ENCODING="chunked"), b"hello chunked world")
    seen = json.loads(cgi_response(ended.stdout)[2])
    assert (seen["body"], seen["CONTENT_LENGTH"]) == ("hello chunked world", "19")
    assert "HTTP_TRANSFER_ENCODING" not in seen
    large = request("POST", "/count_input", HTTP_TRANSFER_ENCODING="chunked")
    assert cgi_response(cgi(large, b"x" * 3_000_000).stdout)[2] == b"3000000 3000000"
    assert cgi_response(cgi(large, b"x" * 2000, arguments=["--body-max-bytes", "1K"]).stdout)[0] == 413
    assert "CONTENT_LENGTH" not in json.loads(cgi_response(cgi(request()).stdout)[2])


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["--body-limits", "/cgi-bin/app/echo 1000"], 413),
        (["--body-max-bytes", "1000", "--body-limits", "/cgi-bin/app/echo 1M"], 200),
        (["--body-max-bytes", "1000"], 413),
    ],
)
def test_limits_of_paths_hold(cgi, arguments, status):
    ended = cgi(request("POST", CONTENT_LENGTH="2000"), b"x" * 2000, arguments=arguments)
    assert cgi_response(ended.stdout)[0] == status


def test_only_trusted_proxies_say_who_the_client_is(cgi):
    said = {
        "HTTP_X_FORWARDED_FOR": "203.0.113.9",
        "HTTP_X_FORWARDED_PROTO": "https",
        "HTTP_X_REAL_IP": "203.0.113.9",
        "HTTP_FORWARDED": "for=203.0.113.9",
    }
    seen = json.loads(cgi_response(cgi(request(**said)).stdout)[2])
    assert not said.keys() & seen.keys()
    assert (seen["REMOTE_ADDR"], seen["wsgi.url_scheme"]) == ("192.0.2.7", "http")
    trusted = cgi(request(**said), arguments=["--trusted-proxies", "192.0.2.0/24"])
    seen = json.loads(cgi_response(trusted.stdout)[2])
    assert (seen["REMOTE_ADDR"], seen["wsgi.url_scheme"]) == ("203.0.113.9", "https")


def test_a_body_that_breaks_off_is_an_error_of_the_client(cgi):
    ended = cgi(request("POST", CONTENT_LENGTH="9"), b"abc")
    assert cgi_response(ended.stdout)[0] == 400
    assert b"closed the connection before the end of the body" in ended.stderr
    assert b"Traceback" not in ended.stderr


def test_without_a_request_it_says_who_starts_it(cgi):
    ended = cgi({})
    assert ended.returncode == 2
    assert b"REQUEST_METHOD" in ended.stderr
    assert ended.stdout == b""


def test_an_application_that_cannot_be_loaded_is_named(cgi):
    ended = cgi(request(), app="nowhere:app")
    assert ended.returncode == 3
    assert b"nowhere" in ended.stderr
    assert ended.stdout == b""


@pytest.mark.parametrize("front", ["apache", "lighttpd"])
def test_a_front_server_starts_it_for_each_request(front):
    site = Site()
    try:
        site.add_program("cgi-bin", f"{ANYGATE} cgi {APPS / 'contract.py'} --chdir ..")
        site.start_front(front, "cgi")
        seen = site.seen("GET", "/app/echo/x%20y?a=b")
        assert (seen["SCRIPT_NAME"], seen["PATH_INFO"], seen["QUERY_STRING"]) == ("/app", "/echo/x y", "a=b")
        assert seen["REMOTE_ADDR"] == "127.0.0.1"
        seen = site.seen("POST", "/app/echo", b"a=b")
        assert (seen["body"], seen["CONTENT_LENGTH"]) == ("a=b", "3")
        chunks = (b"x" * 1000 for _ in range(500))
        fields = {"Transfer-Encoding": "chunked"}
        status, _, response = site.ask("POST", "/app/count_input", chunks, fields, encode_chunked=True)
        assert (status, response) == (200, b"500000 500000")
        assert site.ask("GET", "/app/raises")[0] == 500
    finally:
        site.stop()
