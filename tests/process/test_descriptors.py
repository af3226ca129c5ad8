"""Descriptors and temporary files are finite: clients do not take what the application and others need."""

import contextlib
import socket
import sys
from pathlib import Path

import pytest
from conftest import ANYGATE
from other_servers import process
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
        assert len(slow.response().body) == 20 << 20


@EACH_CONCURRENCY
def test_bodies_are_whole_where_the_folder_for_temporary_files_is_missing(serve, tmp_path, concurrency):
    (tmp_path / "app.py").write_text(APP)
    missing = tmp_path / "missing"
    served = serve("app.py", *concurrency, *SPOOLING, environment={"TMPDIR": str(missing)})
    served.wait_for_log(f"temporary files cannot be made in {missing} (TMPDIR)")
    exchange_large_bodies(served)


@EACH_CONCURRENCY
def test_bodies_are_whole_where_temporary_files_cannot_grow(launch, tmp_path, concurrency):
    (tmp_path / "app.py").write_text(APP)
    limited = ["sh", "-c", f'ulimit -f 256; exec "{ANYGATE}" "$@"', "sh"]
    served = launch("app.py", "--port", "0", *concurrency, *SPOOLING, command=limited).wait_ready()
    exchange_large_bodies(served)
    served.wait_for_log("cannot write a temporary file")


def processes_of(session):
    """The processes of a session that have not ended."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            state, _, _, its_session = path.read_text().rpartition(")")[2].split()[:4]
            if int(its_session) == session and state != "Z":
                found.append(int(path.parent.name))
    return found


@pytest.mark.parametrize("options", [(), ("--preload",), ("--admin", "127.0.0.1:0")], ids=" ".join)
@pytest.mark.parametrize("count", [8, 11, 12, 14, 16, 20, 24])
def test_a_process_that_cannot_begin_does_not_go_on_as_a_supervisor(tmp_path, count, options):
    """With so few descriptors some part of a start fails, each time another one."""
    (tmp_path / "app.py").write_text(APP)
    limited = ["/bin/sh", "-c", f'ulimit -n {count}; exec "$@"', "sh", str(ANYGATE), "app.py", "--port", "0", *options]
    with process(limited, tmp_path) as served:

        def has_tried():
            log = served.log()
            return served.process.poll() is not None or log.count("soon") > 3 or " serves " in log

        served.wait_until(has_tried, "several tries, a start or an end")
        # Supervisor, worker, template or assistant, and one that has just been forked.
        assert len(processes_of(served.pid)) <= 4


REFUSING = Path(__file__).parent.parent / "refusing.py"


@pytest.mark.parametrize("options", [("--uwsgi-module",), ("--uwsgi-module", "--preload"), ()], ids=" ".join)
def test_a_sandbox_that_refuses_files_in_memory_takes_nothing_away(launch, tmp_path, options):
    (tmp_path / "app.py").write_text(
        "def app(environ, start_response):\n"
        "    start_response('200 OK', [])\n"
        "    import uwsgi\n"
        "    uwsgi.cache_update('key', b'shared')\n"
        "    return [uwsgi.cache_get('key')]\n"
    )
    command = [sys.executable, REFUSING, "memfd_create", ANYGATE]
    served = launch("app:app", "--port", "0", "--admin", "unix:admin.sock", *options, command=command).wait_ready()
    if options:
        assert served.get().body == b"shared"
    with Connection(str(tmp_path / "admin.sock")) as connection:
        assert b"anygate_workers" in connection.ask("GET", "/metrics").body
