"""`slow_request`: a request that takes long is told of while it runs, and nothing happens to it."""

import re
import shutil

import pytest
from admin_address import watch
from conftest import APPS

APP = """
import os
from gates import wait_for

def application(environ, start_response):
    return globals()[environ["PATH_INFO"].strip("/")](environ, start_response)

def respond(start_response, text):
    start_response("200 OK", [("Content-Length", str(len(text)))])
    return [text]

def quick(environ, start_response):
    return respond(start_response, b"yes")

def released(environ):
    return os.path.exists(environ["QUERY_STRING"])

def nap(environ):
    wait_for(environ["QUERY_STRING"])

def waits(environ, start_response):
    nap(environ)
    return respond(start_response, b"waited")

def compute(environ):
    while not released(environ):
        pass

def computes(environ, start_response):
    compute(environ)
    return respond(start_response, b"computed")

def streams(environ, start_response):
    start_response("200 OK", [])
    yield b"some of it"
    nap(environ)
    yield b", and the rest"
"""
KINDS = {"threads": (), "gevent": ("--concurrency", "gevent")}
WARNING = r" WARN GET {} from 127\.0\.0\.1 has taken \d+\.\d s, longer than slow_request, and is here:\n"


@pytest.fixture(params=KINDS)
def options(request, tmp_path):
    shutil.copy(APPS / "gates.py", tmp_path)
    (tmp_path / "app.py").write_text(APP)
    return ("app:application", *KINDS[request.param], "--slow-request", "1s")


def ask(served, target):
    return served.connect().send(f"GET {target} HTTP/1.1\r\nHost: a\r\n\r\n")


def wait_for(served, pattern):
    return served.wait_until(lambda: re.search(pattern, served.log()), pattern)


@pytest.mark.parametrize(("path", "function"), [("waits", "nap"), ("computes", "compute"), ("streams", "nap")])
def test_a_slow_request_is_told_of_once_while_it_runs(serve, options, tmp_path, path, function):
    served = serve(*options)
    with ask(served, f"/{path}?released") as connection:
        wait_for(served, WARNING.format(rf"/{path}\?released") + rf"(  .*\n)*  File .* line \d+, in {function}\n")
        (tmp_path / "released").touch()
        response = connection.response()
        assert (response.status, response.whole) == (200, True)
    assert served.get("/quick").body == b"yes"
    assert served.terminate() == 0
    assert len(re.findall(rf"/{path}\?released .* longer than slow_request", served.log())) == 1


def test_each_slow_request_is_told_of(serve, options, tmp_path):
    served = serve(*options)
    connections = [ask(served, target) for target in ("/waits?one", "/waits?two", "/streams?one")]
    for target in (r"/waits\?one", r"/waits\?two", r"/streams\?one"):
        wait_for(served, WARNING.format(target))
    for name in ("one", "two"):
        (tmp_path / name).touch()
    for connection in connections:
        assert connection.response().whole
    assert served.terminate() == 0
    told = re.findall(r"GET (\S+) .* longer than slow_request", served.log())
    assert sorted(told) == ["/streams?one", "/waits?one", "/waits?two"]


def test_a_request_may_become_slow_and_then_overdue(serve, options):
    served = serve(*options, "--request-timeout", "3s")
    assert ask(served, "/waits?never").response().status == 504
    served.wait_for_log("longer than request_timeout, and is interrupted:")
    levels = re.findall(r"(WARN|ERROR) GET /waits\?never .* longer than (\w+)", served.log())
    assert levels == [("WARN", "slow_request"), ("ERROR", "request_timeout")]


@pytest.mark.parametrize("path", ["waits", "computes", "streams"])
def test_it_has_the_name_of_the_request(serve, options, tmp_path, path):
    served = serve(*options, "--request-id", "--trace-context")
    with served.connect() as connection:
        trace = "4bf92f3577b34da6a3ce929d0e0e4736"
        given = f"Traceparent: 00-{trace}-00f067aa0ba902b7-01"
        connection.send(f"GET /{path}?released HTTP/1.1\r\nHost: a\r\n{given}\r\n\r\n")
        line = wait_for(served, rf'WARN request\{{id="(\w+)" trace="{trace}"\}}: GET /{path}\?released .* is here:\n')
        (tmp_path / "released").touch()
        assert connection.response()["x-request-id"] == line[1]


@pytest.mark.parametrize("path", ["waits", "computes"])
def test_one_that_is_broken_off_keeps_its_name(serve, options, path):
    served = serve(*options, "--request-timeout", "3s", "--request-id")
    response = ask(served, f"/{path}?never").response()
    assert (response.status, bool(response["x-request-id"])) == (504, True)
    name = rf' request\{{id="{response["x-request-id"]}"\}}: GET /{path}\?never '
    wait_for(served, rf"WARN{name}.* longer than slow_request")
    wait_for(served, rf"ERROR{name}.* longer than request_timeout, and is interrupted:\n")


def test_the_client_is_who_the_proxy_says(serve, options, tmp_path):
    served = serve(*options, "--trusted-proxies", "127.0.0.1")
    with served.connect() as connection:
        connection.send("GET /waits?released HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 203.0.113.9\r\n\r\n")
        served.wait_for_log("GET /waits?released from 203.0.113.9 has taken ")
        (tmp_path / "released").touch()
        assert connection.response().status == 200


def test_slow_requests_are_counted(serve, options, tmp_path):
    target, *options = options
    admin = watch(serve, *options, app=target)
    with ask(admin.served, "/waits?released") as connection:
        wait_for(admin.served, WARNING.format(r"/waits\?released"))
        (tmp_path / "released").touch()
        assert connection.response().status == 200
    assert "anygate_slow_requests_total 1\n" in admin.ask("/metrics").text


def test_a_greenlet_that_cannot_run_is_told_of_as_well(serve, tmp_path):
    """One waits, another one blocks the hub: what the first one does is known when the hub is free again."""
    shutil.copy(APPS / "gates.py", tmp_path)
    (tmp_path / "app.py").write_text(APP)
    served = serve("app:application", "--concurrency", "gevent", "--slow-request", "1s")
    waiting = ask(served, "/waits?released")
    blocking = ask(served, "/computes?released")
    wait_for(served, WARNING.format(r"/computes\?released") + r"(  .*\n)*  File .* in compute\n")
    (tmp_path / "released").touch()
    for connection in (waiting, blocking):
        assert connection.response().status == 200
    wait_for(served, r"WARN GET /waits\?released from 127\.0\.0\.1 has taken")
    assert served.terminate() == 0
    told = re.findall(r"GET (\S+) .* longer than slow_request", served.log())
    assert sorted(told) == ["/computes?released", "/waits?released"]
