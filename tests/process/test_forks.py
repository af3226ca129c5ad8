"""Processes that a request forks: they have no part in its response, and nothing of the worker's."""

import os
import signal
import socket

import pytest
from conftest import APPS

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


def test_a_child_has_its_own_signals(served):
    workers = served.workers()
    assert served.get("/end").body == b"%d" % -signal.SIGTERM
    assert served.get("/pid").body == b"%d" % workers[0]
    assert served.workers() == workers


def test_a_child_that_stays_keeps_neither_connection_nor_port(served):
    with served.connect() as connection:
        answer = connection.ask("GET", "/outlive", [("Connection", "close")])
        child = int(answer.body)
        try:
            assert connection.is_closed()
            assert served.terminate() == 0
            with socket.socket() as another:
                another.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                another.bind(served.address)
                another.listen()
        finally:
            os.kill(child, signal.SIGKILL)
