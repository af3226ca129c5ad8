"""`request_timeout`: a request that takes too long is broken off, and only that one."""

import select
import shutil
import time
from pathlib import Path

import gateways
import pytest
from conftest import APPS
from waiting import in_time

APP = """
import ctypes, threading, time
import anygate
from gates import wait_for

ENDED = []

def application(environ, start_response):
    return globals()[environ["PATH_INFO"].strip("/")](environ, start_response)

def respond(start_response, text):
    body = str(text).encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]

def quick(environ, start_response):
    return respond(start_response, "yes")

def ended(environ, start_response):
    return respond(start_response, ENDED)

def noted(name, wait):
    try:
        wait()
    except Exception:
        ENDED.append(name + " swallowed")
    except anygate.RequestTimeout:
        ENDED.append(name)
        raise
    finally:
        ENDED.append(name + " finally")

def nap():
    wait_for("never")

def sleep(environ, start_response):
    noted("sleep", nap)
    return respond(start_response, "slept")

def busy(environ, start_response):
    def compute():
        until = time.monotonic() + 3600
        while time.monotonic() < until:
            pass
    noted("busy", compute)
    return respond(start_response, "computed")

def streams(environ, start_response):
    start_response("200 OK", [])
    def blocks():
        yield b"some of it"
        noted("streams", nap)
    return blocks()

def stubborn(environ, start_response):
    write = start_response("200 OK", [])
    try:
        nap()
    except BaseException:
        try:
            write(b"too late")
        except OSError as error:
            ENDED.append(f"stubborn {type(error).__name__}")
    return [b"too late as well"]

def stuck(environ, start_response):
    ctypes.CDLL(None).sleep(3600)
    return respond(start_response, "woke up")

def upload(environ, start_response):
    noted("upload", environ["wsgi.input"].read)
    return respond(start_response, "read")
"""
KINDS = {"threads": (), "gevent": ("--concurrency", "gevent")}
LIMIT = "2s"


@pytest.fixture(params=KINDS)
def limited(request, serve, tmp_path):
    shutil.copy(APPS / "gates.py", tmp_path)
    (tmp_path / "app.py").write_text(APP)
    return lambda *more: serve("app:application", *KINDS[request.param], "--request-timeout", LIMIT, *more)


def ask(served, path):
    return served.connect().send(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")


def ended(served, *names):
    served.wait_until(lambda: all(name in served.get("/ended").text for name in names), f"{names} to have ended")


def test_a_request_that_waits_gets_504_and_is_interrupted(limited):
    served = limited("--access-log", "access.log", "--access-log-format", "%(U)s %(s)s")
    begun = time.monotonic()
    with ask(served, "/sleep?a=b") as connection:
        response = connection.response()
        assert (response.status, response["connection"]) == (504, "close")
        assert connection.is_closed()
    # The call alone takes longer than a client of these tests waits.
    assert time.monotonic() - begun > 1.9
    ended(served, "'sleep'", "'sleep finally'")
    assert "swallowed" not in served.get("/ended").text
    served.wait_for_log("GET /sleep?a=b has taken 2.0 s, longer than request_timeout, and is interrupted:")
    served.wait_for_log("in nap")
    assert "Traceback" not in served.log()
    assert served.terminate() == 0
    assert "/sleep 504" in (served.errors.parent / "access.log").read_text()


def test_a_request_that_computes_is_interrupted(limited):
    served = limited()
    assert ask(served, "/busy").response().status == 504
    ended(served, "'busy'")
    served.wait_for_log("in compute")
    assert served.get("/quick").body == b"yes"


def test_a_response_that_has_begun_is_broken_off(limited):
    served = limited()
    with ask(served, "/streams") as connection:
        response = connection.response()
        assert (response.status, response.body, response.whole) == (200, b"some of it", False)
    ended(served, "'streams'")


def test_others_are_not_interrupted(limited):
    def ask_many(step):
        served = limited()
        slow = ask(served, "/sleep")
        with served.connect() as connection:
            while not select.select([slow.socket], [], [], 0)[0]:
                step()
                assert connection.ask("GET", "/quick").body == b"yes"
        assert slow.response().status == 504
        served.wait_for_log("longer than request_timeout")
        assert served.log().count("longer than request_timeout") == 1
        assert "failed" not in served.log()

    in_time(2, ask_many)


def test_an_exception_that_comes_too_late_hits_nobody(limited):
    """Many requests end just when their time is over."""
    served = limited("--request-timeout", "20ms")
    connections = [served.connect() for _ in range(4)]
    for _ in range(20):
        for connection in connections:
            connection.send("GET /quick HTTP/1.1\r\nHost: a\r\n\r\n")
        slow = ask(served, "/sleep")
        assert slow.response().status == 504
        statuses = [connection.response().status for connection in connections]
        connections = [
            connection if status == 200 else served.connect()
            for connection, status in zip(connections, statuses, strict=True)
        ]
        assert set(statuses) <= {200, 504}
    assert "failed" not in served.log()


def test_what_a_request_sends_too_late_goes_nowhere(limited):
    served = limited()
    with ask(served, "/stubborn") as connection:
        assert connection.response().status == 504
        assert connection.is_closed()
    ended(served, "'stubborn BrokenPipeError'")


def test_a_client_that_is_slow_to_send_has_no_more_time(limited):
    served = limited("--stream-paths", "/upload")
    with served.connect() as connection:
        connection.send("POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf")
        assert connection.response().status == 504
    ended(served, "'upload finally'")


@pytest.mark.parametrize("protocol", ["scgi", "uwsgi", "fastcgi"])
def test_front_servers_get_504_as_well(limited, protocol):
    served = limited("--bind", f"{protocol}://127.0.0.1:0")
    variables = [("CONTENT_LENGTH", "0"), ("SCGI", "1"), ("REQUEST_METHOD", "GET"), ("REQUEST_URI", "/sleep")]
    with served.connect() as connection:
        connection.send(getattr(gateways, protocol)(variables))
        wire = connection.rest()
        if protocol == "fastcgi":
            wire, end = gateways.stdout(wire)
            assert end == (0, 0)
        status, _, body = gateways.cgi_response(wire)
        assert (status, body) == (504, b"504 Gateway Timeout\n")


def test_a_worker_with_a_thread_that_does_not_stop_is_replaced_first(limited):
    served = limited("--graceful-timeout", "3s", "--request-id")
    (before,) = served.workers()
    response = ask(served, "/stuck").response()
    assert response.status == 504
    name = f'request{{id="{response["x-request-id"]}"}}'
    served.wait_for_log(f"{name}: GET /stuck does not stop: another worker takes the place of this one")
    served.wait_for_log(f"worker {before} has a thread that cannot be stopped: starting another worker")
    served.wait_until(lambda: before not in served.workers() and len(served.workers()) == 1, "another worker")
    assert served.get("/quick").body == b"yes"
    assert served.terminate() == 0


def test_without_a_limit_nothing_watches(serve, gate):
    served = serve(APPS / "contract.py")
    (worker,) = served.workers()
    with ask(served, f"/gate?{gate.name}") as connection:
        gate.wait_for()
        names = [name.read_text().strip() for name in Path(f"/proc/{worker}/task").glob("*/comm")]
        gate.open()
        assert connection.response().status == 200
    assert "anygate-1" in names
    assert not {"watch", "interrupter"} & set(names)


@pytest.mark.parametrize(("text", "code"), [("0", 0), ("-1", 2), ("soon", 2)])
def test_zero_is_no_limit(run, text, code, tmp_path):
    (tmp_path / "anygate.toml").write_text(f"request_timeout = {text!r}\n")
    assert run("config", "--check").returncode == code
