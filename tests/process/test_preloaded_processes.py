"""Processes that code preloaded with ``--preload`` has started: they serve all workers, and end after the last one."""

import os
import signal

import pytest
from waiting import lives, wait_until

HELPER = "import multiprocessing\nhelper = multiprocessing.Process(target=signal.pause, daemon=True)\nhelper.start()\n"
POOL = (
    "from concurrent.futures import ProcessPoolExecutor\n"
    "pool = ProcessPoolExecutor(1)\nhelper = next(iter([pool.submit(os.getpid).result()]))\n"
)
APP = """
import atexit, os, signal
%s
pid = getattr(helper, "pid", helper)
importer = os.getpid()
def note():
    with open("ends", "a") as ends:
        ends.write("template\\n" if os.getpid() == importer else "worker\\n")
atexit.register(note)
def app(environ, start_response):
    start_response("200 OK", [])
    return [f"{os.getpid()} {pid}".encode()]
"""


def ask(served):
    worker, helper = served.get().text.split()
    return int(worker), int(helper)


@pytest.fixture(params=[HELPER, POOL], ids=["process", "pool"])
def site(request, tmp_path):
    (tmp_path / "app.py").write_text(APP % request.param)
    return tmp_path


def test_they_outlive_a_worker_and_end_with_the_server(serve, site):
    served = serve("app:app", "--preload", "--max-requests", "2")
    first, helper = ask(served)
    served.wait_until(lambda: ask(served)[0] != first, "another worker")
    served.wait_until(lambda: first not in served.workers(), "the end of the first worker")
    assert lives(helper)
    assert served.terminate() == 0
    wait_until(lambda: not lives(helper), "its end")
    *workers, last = (site / "ends").read_text().splitlines()
    assert (set(workers), last) == ({"worker"}, "template")
    assert "AssertionError" not in served.log()


def test_they_end_when_a_reload_has_replaced_their_workers(serve, site):
    served = serve("app:app", "--preload")
    _, helper = ask(served)
    served.send_signal(signal.SIGHUP)
    served.wait_until(lambda: not lives(helper), "the end of the old ones")
    served.wait_until(lambda: lives(ask(served)[1]), "the new ones")


def test_one_that_does_not_end_is_waited_for_until_graceful_timeout(serve, tmp_path):
    (tmp_path / "app.py").write_text(APP % HELPER.replace(", daemon=True", ""))
    served = serve("app:app", "--preload", "--graceful-timeout", "1s")
    _, helper = ask(served)
    try:
        assert served.terminate() == 0
    finally:
        os.kill(helper, signal.SIGKILL)


def test_threads_of_the_template_are_not_waited_for(serve, tmp_path):
    helper = "import threading\nhelper = 0\nthreading.Thread(target=threading.Event().wait).start()\n"
    (tmp_path / "app.py").write_text(APP % helper)
    served = serve("app:app", "--preload", "--graceful-timeout", "1h")
    assert served.terminate() == 0
