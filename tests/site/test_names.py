"""`request_id` and `trace_context`: what requests are called, wherever they are spoken of."""

import itertools
import re

import gateways
import pytest
from http2_frames import Client, plain
from planned import EVERYTHING, PROTOCOLS, planned

PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
NUMBERS = itertools.count()


@pytest.fixture(params=["threads", "gevent"])
def concurrency(request):
    return ["--concurrency", request.param]


@pytest.fixture(scope="module", params=["threads", "gevent"])
def site(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("names")
    logs = [
        "--access-log",
        folder / "access.log",
        "--access-log-format",
        "%({x-request-id}i)s %({x-request-id}o)s %(U)s",
    ]
    arguments = ["--request-id", "--trace-context", "--health-path", "/health", "--deny", "/denied 127.0.0.1", *logs]
    with planned(folder, *arguments, *EVERYTHING, "--concurrency", request.param) as site:
        yield site


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_request_has_a_name_for_the_application_and_for_its_client(site, protocol):
    seen = set()
    for given in ([], [("X-Request-Id", "of-a-stranger")], [("x-request-id", "a"), ("X-Request-ID", "b")]):
        response = site.speak(protocol, "GET", "/", given)
        assert re.fullmatch("[0-9a-f]{32}", response["x-request-id"])
        assert response.json["HTTP_X_REQUEST_ID"] == response["x-request-id"]
        seen.add(response["x-request-id"])
    assert len(seen) == 3


def test_a_name_of_the_applications_stands(site):
    site.plan("/own", fields=[("x-request-id", "my own")], body="x")
    assert site.get("/own")["x-request-id"] == "my own"


def test_responses_of_the_server_have_names_too(site):
    for target, status in [("/health", 200), ("/denied", 403)]:
        response = site.get(target, [("X-Request-Id", "of-a-stranger")])
        assert response.status == status
        assert re.fullmatch("[0-9a-f]{32}", response["x-request-id"])
    with site.connect() as connection:
        connection.send(
            "POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\nX-Request-Id: it\r\n\r\nnonsense\r\n"
        )
        response = connection.response()
        assert (response.status, response["x-request-id"] == "it") == (400, False)
    with site.connect() as connection:
        response = connection.send("GET / HTTP/1.1\r\nX-Request-Id: it\r\nHost: a\r\nHost: b\r\n\r\n").response()
        assert (response.status, response["x-request-id"]) == (400, None)


def a_path(site, **plan):
    return site.plan(f"/{next(NUMBERS)}", **plan)


def test_failures_are_logged_under_the_name(site):
    path = a_path(site, raises=True)
    with site.connect() as connection:
        names = [connection.ask("GET", path)["x-request-id"] for _ in range(2)]
        traces = [connection.ask("GET", path, [("Traceparent", PARENT)])["x-request-id"]]
    for name in names:
        line = next(line for line in site.log().splitlines() if name in line)
        assert re.search(rf'ERROR request\{{id="{name}" trace="[0-9a-f]{{32}}"\}}', line), line
        assert path in line
    line = next(line for line in site.log().splitlines() if traces[0] in line)
    assert f'request{{id="{traces[0]}" trace="{PARENT[3:35]}"}}' in line


def test_what_is_refused_on_the_way_is_logged_under_the_name(tmp_path, concurrency):
    with planned(tmp_path, "--request-id", "--log-level", "debug", *concurrency) as site:

        def logged(request, status, text):
            with site.connect() as connection:
                response = connection.send(request.replace("\n", "\r\n")).response()
                assert response.status == status
                site.wait_for_log(f'DEBUG request{{id="{response["x-request-id"]}"}}: {text}')

        body = "Host: test\nTransfer-Encoding: chunked\n\n"
        logged(f"POST / HTTP/1.1\n{body}nonsense\n", 400, "refused a body from 127.0.0.1: ")
        length = "Host: test\nContent-Length: 99999999999999\n\n"
        logged(f"POST / HTTP/1.1\n{length}", 413, "refused a body from 127.0.0.1: ")
        asks = "Host: test\nConnection: upgrade\nUpgrade: websocket\nSec-WebSocket-Version: 13\n"
        key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\nOrigin: https://other.example\n\n"
        logged(f"GET / HTTP/1.1\n{asks}{key}", 403, "refused a WebSocket of 127.0.0.1: ")


def test_what_one_response_is_blamed_for_is_not_said_of_the_next(site):
    with site.connect() as connection:
        first = connection.ask("GET", a_path(site, raises=True))["x-request-id"]
        path = a_path(site, fields=[["Content-Length", "50"]], body="short")
        second = connection.ask("GET", path)["x-request-id"]
    site.wait_for_log(f'id="{second}"')
    lines = [line for line in site.log().splitlines() if "Content-Length" in line and second in line]
    assert lines
    assert not any(first in line for line in lines)


@pytest.mark.parametrize("target", ["/logged", "/denied/logged", "/health"])
def test_the_access_log_has_it(site, target):
    name = site.get(target)["x-request-id"]
    line = f"{name} {name} {target}\n"
    site.wait_until(lambda: line in (site.folder / "access.log").read_text(), f"the line {line}")


def test_a_trace_goes_on_or_begins(site):
    for protocol in PROTOCOLS:
        seen = site.speak(protocol, "GET", "/", [("Traceparent", PARENT), ("Tracestate", "a=b")]).json
        assert (seen["HTTP_TRACEPARENT"], seen["HTTP_TRACESTATE"]) == (PARENT, "a=b")
        for given in ([], [("Traceparent", "00-nonsense"), ("Tracestate", "a=b")]):
            seen = site.speak(protocol, "GET", "/", given).json
            assert re.fullmatch("00-[0-9a-f]{32}-[0-9a-f]{16}-00", seen["HTTP_TRACEPARENT"])
            assert "HTTP_TRACESTATE" not in seen


def test_a_trusted_proxy_names_requests(tmp_path, concurrency):
    path = f"{tmp_path}/socket"
    binds = ["--bind", "http://127.0.0.1:0", "--bind", f"unix:{path}", "--bind", "fastcgi://127.0.0.1:0"]
    with planned(tmp_path, "--request-id", "--trusted-proxies", "127.0.0.1", *binds, *concurrency) as site:
        given = "Given-by.a:proxy_1/2+3="
        with site.connect() as connection:
            for name, is_kept in [(given, True), ("x" * 128, True), ("x" * 129, False), ("a b", False), ("<b>", False)]:
                response = connection.ask("GET", "/", [("X-Request-Id", name)])
                assert (response["x-request-id"] == name) == is_kept
                assert response.json["HTTP_X_REQUEST_ID"] == response["x-request-id"]
        with Client(plain(site.address)) as client:
            assert ("x-request-id", given) in client.ask("GET", "/", [("x-request-id", given)]).fields
        variables = gateways.variables("GET", "/", 0, ("HTTP_X_REQUEST_ID", given))
        with site.connect(site.addresses[2]) as connection:
            connection.send(gateways.fastcgi(variables))
            assert gateways.cgi_response(gateways.stdout(connection.rest())[0])[1]["x-request-id"] == [given]
        # Who comes over the unix socket is not among them.
        with site.connect(path) as connection:
            assert connection.ask("GET", "/", [("X-Request-Id", given)])["x-request-id"] != given


def test_what_a_stranger_calls_a_request_is_not_repeated(tmp_path, concurrency):
    arguments = ["--request-id", "--body-max-bytes", "10", *EVERYTHING, *concurrency]
    with planned(tmp_path, *arguments) as site:
        for protocol in PROTOCOLS:
            response = site.speak(protocol, "POST", "/", [("X-Request-Id", "of-a-stranger")], b"x" * 11)
            assert (response.status, response["x-request-id"] == "of-a-stranger") == (413, False), protocol


def test_pages_show_the_name(tmp_path, concurrency):
    with planned(tmp_path, "--request-id", "--error-pages", "on", *concurrency) as site:
        site.plan("/fails", raises=True)
        for accept in ("text/html", "application/json", "text/plain"):
            response = site.get("/fails", [("Accept", accept)])
            assert response["x-request-id"] in response.text


def test_without_them_nothing_is_named(tmp_path):
    with planned(tmp_path, "--security-headers", "default") as site:
        response = site.get("/", [("X-Request-Id", "mine"), ("Traceparent", "anything")])
        assert response["x-request-id"] is None
        assert (response.json["HTTP_X_REQUEST_ID"], response.json["HTTP_TRACEPARENT"]) == ("mine", "anything")
