"""Processes that a request or an import forks: they have no part in what it is for, and nothing of the worker's."""

import os
import signal
import socket

import pytest
from conftest import APPS, children

APPLICATION = f"{APPS / 'forks.py'}:application"


@pytest.mark.parametrize("log", [None, "error.log"])
def test_a_child_writes_to_the_log_whatever_other_threads_do(launch, tmp_path, log):
    served = launch(APPLICATION, "--threads", 2, "--bind", "unix:a.sock", *(["--error-log", log] if log else []))
    path = tmp_path / log if log else served.errors
    served.wait_until(lambda: path.exists() and " serves " in path.read_text(), "ready")
    with served.connect(str(tmp_path / "a.sock")) as connection:
        assert connection.ask("GET", "/logs").body == b"100"
    assert path.read_text().count("of a child\n") == 100


@pytest.fixture(params=["threads", "gevent"])
def served(request, serve):
    return serve(APPLICATION, "--threads", 2, "--concurrency", request.param)


@pytest.mark.parametrize(("path", "code"), [("return", 0), ("exit", 7), ("raise", 1), ("generate", 0)])
def test_a_child_ends_with_its_call(served, path, code):
    workers = served.workers()
    with served.connect() as connection:
        # Two responses on one connection would shift all further ones.
        assert connection.ask("GET", f"/{path}").body == b"%d" % code
        for _ in range(10):
            assert connection.ask("GET", "/pid").body == b"%d" % workers[0]
    assert [served.get("/pid").body for _ in range(10)] == [b"%d" % workers[0]] * 10
    assert served.workers() == workers
    assert served.terminate() == 0
    assert ('raise ValueError("of the child")' in served.log()) == (path == "raise")


def test_a_child_has_its_own_signals(served):
    workers = served.workers()
    assert served.get("/end").body == b"%d" % -signal.SIGTERM
    assert served.get("/pid").body == b"%d" % workers[0]
    assert served.workers() == workers


def test_a_child_that_stays_keeps_neither_connection_nor_port(served):
    with served.connect() as connection:
        response = connection.ask("GET", "/outlive", [("Connection", "close")])
        child = int(response.body)
        try:
            assert connection.is_closed()
            assert served.terminate() == 0
            bind_again(served)
        finally:
            os.kill(child, signal.SIGKILL)


def bind_again(served):
    with socket.socket() as another:
        another.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        another.bind(served.address)
        another.listen()


IMPORTS = """
import os, signal, sys
child = os.fork()
if child == 0:
    %s
def app(environ, start_response):
    start_response("200 OK", [])
    return [f"{os.getpid()} {child}".encode()]
"""
KINDS = pytest.mark.parametrize("options", [(), ("--preload",), ("--concurrency", "gevent")])


@KINDS
def test_a_child_of_an_import_that_stays_keeps_no_port(serve, tmp_path, options):
    (tmp_path / "app.py").write_text(IMPORTS % "signal.pause()")
    served = serve("app:app", *options)
    child = int(served.get().text.split()[1])
    try:
        assert served.terminate() == 0
        bind_again(served)
    finally:
        os.kill(child, signal.SIGKILL)


@KINDS
@pytest.mark.parametrize("what", ["pass", "sys.exit(0)", "sys.exit('bye')"])
def test_a_child_of_an_import_ends_with_it(serve, tmp_path, options, what):
    reaps = "if child: os.waitpid(child, 0)\n"
    (tmp_path / "app.py").write_text(IMPORTS % what + reaps)
    served = serve("app:app", *options)
    (worker,) = served.workers()
    assert {served.get().text.split()[0] for _ in range(5)} == {str(worker)}
    assert children(worker) == []
    assert "cannot load" not in served.log()
    assert served.terminate() == 0


SQUARES = "[0, 1, 4, 9]"
USES = {"pool": SQUARES, "executor": SQUARES, "process": "[True, 0]", "manager": "{'a': 1}"}


@pytest.mark.parametrize("options", [(), ("--preload",), ("--concurrency", "gevent")], ids=" ".join)
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_processes_of_the_standard_library_work_in_requests(serve, options, method):
    served = serve(f"{APPS / 'pools.py'}:application", *options)
    workers = served.workers()
    for kind, result in USES.items():
        # These two wait in pipes that gevent does not know of, under any server.
        if kind not in ("pool", "manager") or "gevent" not in options:
            assert served.get(f"/{kind}/{method}").text == result
    assert served.workers() == workers
    assert served.terminate() == 0


@pytest.mark.parametrize("options", [(), ("--preload",), ("--concurrency", "gevent")], ids=" ".join)
@pytest.mark.parametrize("log", ["-", "error.log"])
def test_an_import_that_closes_all_descriptors_is_named(launch, tmp_path, options, log):
    (tmp_path / "app.py").write_text("import os\nos.closerange(3, 4096)\ndef app(environ, start_response): pass\n")
    served = launch("app:app", "--port", "0", "--error-log", log, *options)
    assert served.wait() == 3
    text = (tmp_path / log).read_text() if log != "-" else served.log()
    assert text.count("the application closed descriptors that are the server's") == 1
    assert len(text.splitlines()) == 1
