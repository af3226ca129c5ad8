"""Descriptors and temporary files are finite: clients do not take what the application and others need."""

import contextlib
import socket

import pytest
from conftest import ANYGATE
from planned import planned
from wire import Connection

APP = """
import socket


def application(environ, start_response):
    if environ["PATH_INFO"] == "/work":
        files = [open("/dev/null") for _ in range(5)]
        socket.create_server(("127.0.0.1", 0)).close()
        [file.close() for file in files]
    if environ["PATH_INFO"] == "/large":
        start_response("200 OK", [("Content-Length", str(20 << 20))])
        # Larger blocks would wait in memory as they are.
        return (b"x" * (1 << 15) for _ in range(20 << 5))
    body = environ["wsgi.input"].read()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(len(body)).encode()]
"""
CONCURRENCIES = {"threads": (), "gevent": ("--concurrency", "gevent")}
#: Request bodies go to temporary files.
SPOOLING = ("--bodies-memory-max-bytes", "64K")
EACH_CONCURRENCY = pytest.mark.parametrize("concurrency", CONCURRENCIES.values(), ids=CONCURRENCIES)


@EACH_CONCURRENCY
def test_idle_clients_leave_descriptors_to_the_application_and_places_to_others(launch, tmp_path, concurrency):
    (tmp_path / "app.py").write_text(APP)
    limited = ["sh", "-c", f'ulimit -n 256; exec "{ANYGATE}" "$@"', "sh"]
    served = launch("app.py", "--port", "0", *concurrency, command=limited).wait_ready()
    with served.connect() as one, contextlib.ExitStack() as many:
        assert one.ask().status == 200
        for _ in range(400):
            many.enter_context(socket.create_connection(served.address))
        # They have waited longest, so they make room for those that come.
        assert served.get("/work").status == 200
        assert one.ask("GET", "/work").status == 200
    assert "cannot accept" not in served.log()


def test_connections_that_were_used_outlast_those_that_never_said_anything(tmp_path):
    with planned(tmp_path, "--connections-max", "8") as served, contextlib.ExitStack() as many:
        used = [many.enter_context(served.connect()) for _ in range(4)]
        assert {connection.ask().status for connection in used} == {200}
        for _ in range(20):
            many.enter_context(socket.create_connection(served.address))
        assert served.get("/").status == 200
        assert {connection.ask().status for connection in used} == {200}


def exchange_large_bodies(served):
    with Connection(served.address) as slow:
        slow.send("GET /large HTTP/1.1\r\nHost: test\r\n\r\n")
        # The client takes nothing until another one has been served.
        assert served.get("/", method="POST", body=b"y" * (1 << 20)).text == str(1 << 20)
        assert len(slow.answer().body) == 20 << 20


@EACH_CONCURRENCY
def test_bodies_are_whole_where_the_folder_for_temporary_files_is_missing(serve, tmp_path, concurrency):
    (tmp_path / "app.py").write_text(APP)
    missing = tmp_path / "missing"
    served = serve("app.py", *concurrency, *SPOOLING, environment={"TMPDIR": str(missing)})
    assert f"temporary files cannot be made in {missing} (TMPDIR)" in served.log()
    exchange_large_bodies(served)


@EACH_CONCURRENCY
def test_bodies_are_whole_where_temporary_files_cannot_grow(launch, tmp_path, concurrency):
    (tmp_path / "app.py").write_text(APP)
    limited = ["sh", "-c", f'ulimit -f 256; exec "{ANYGATE}" "$@"', "sh"]
    served = launch("app.py", "--port", "0", *concurrency, *SPOOLING, command=limited).wait_ready()
    exchange_large_bodies(served)
    assert "cannot write a temporary file" in served.log()
