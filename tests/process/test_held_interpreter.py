"""The interpreter of a worker: handlers of signals run in it, and a worker in which nothing can run is replaced."""

import os
import signal

import pytest
from admin_address import watch
from conftest import APPS

APPLICATION = f"{APPS / 'held.py'}:application"


@pytest.mark.parametrize("more", [[], ["--preload"]])
@pytest.mark.parametrize("concurrency", ["threads", "gevent"])
def test_handlers_of_the_application_run(serve, concurrency, more):
    served = serve(APPLICATION, "--concurrency", concurrency, *more)
    (worker,) = served.workers()
    served.get("/arm")
    os.kill(worker, signal.SIGRTMIN + 3)
    os.kill(worker, signal.SIGUSR2)
    served.wait_until(lambda: served.get("/").body == b"asked timer user", "all handlers")
    assert served.workers() == [worker]


@pytest.mark.parametrize("more", [[], ["--preload"]])
@pytest.mark.parametrize("concurrency", ["threads", "gevent"])
def test_a_request_hears_of_the_end_of_its_children_at_once(serve, tmp_path, concurrency, more):
    """The system tells the thread that has forked, and handlers run on another."""
    (tmp_path / "app.py").write_text(
        "import os, queue, signal\n\n"
        "ended = queue.SimpleQueue()\n"
        "signal.signal(signal.SIGCHLD, lambda *_: ended.put(None))\n\n"
        "def app(environ, start_response):\n"
        "    for _ in range(40):\n"
        "        if not os.fork():\n"
        "            os._exit(0)\n"
        "        ended.get()\n"
        "    start_response('200 OK', [])\n"
        "    return [b'heard']\n"
    )
    served = serve("app:app", "--concurrency", concurrency, *more)
    # If each were heard of with the second, it would take longer than anybody waits for a response.
    assert served.get("/").body == b"heard"


@pytest.mark.parametrize("more", [[], ["--preload"]])
def test_greenlets_wait_for_programs(serve, more):
    served = serve(APPLICATION, "--concurrency", "gevent", *more)
    assert served.get("/run").body == b"7"


@pytest.mark.parametrize("more", [[], ["--preload"]])
def test_greenlets_hear_of_a_program_that_ends_at_once(serve, tmp_path, more):
    """Before its parent could run on: the first one that the worker starts."""
    (tmp_path / "app.py").write_text(
        "import os, subprocess\n"
        "def app(environ, start_response):\n"
        "    ended = lambda: os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)\n"
        "    os.register_at_fork(after_in_parent=ended)\n"
        "    code = subprocess.run(['sh', '-c', 'exit 7'], preexec_fn=int).returncode\n"
        "    start_response('200 OK', [])\n    return [str(code).encode()]\n"
    )
    assert serve("app:app", "--concurrency", "gevent", *more).get().text == "7"


@pytest.mark.parametrize(
    ("concurrency", "path", "where"),
    [("threads", "/hold", "hold"), ("gevent", "/hold", "hold"), ("gevent", "/stand", "stand_still")],
)
def test_a_worker_in_which_nothing_can_run_is_replaced(serve, concurrency, path, where):
    served = serve(APPLICATION, "--concurrency", concurrency, "--worker-timeout", "4s")
    (worker,) = served.workers()
    with served.connect() as held, served.connect() as waiting:
        held.send(f"GET {path} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
        served.wait_for_log("nothing else runs")
        waiting.send(b"GET /pid HTTP/1.1\r\nHost: test\r\n\r\n")
        served.wait_until(lambda: worker not in served.workers(), "the end of the worker")
    served.wait_until(lambda: served.get("/pid").body.isdigit(), "another worker")
    served.wait_for_log(f" in {where}\n")


@pytest.mark.parametrize("path", ["/hold", "/stand"])
def test_who_waits_for_a_hub_that_is_held_is_told_to_come_again(serve, path):
    served = serve(APPLICATION, "--concurrency", "gevent", "--queue-timeout", "1s")
    with served.connect() as held, served.connect() as waiting:
        held.send(f"GET {path} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
        served.wait_for_log("nothing else runs")
        waiting.send(b"GET /pid HTTP/1.1\r\nHost: test\r\n\r\n")
        assert waiting.response().status == 503


@pytest.mark.parametrize("concurrency", ["threads", "gevent"])
def test_stacks_of_a_held_interpreter_are_taken_from_outside(serve, concurrency):
    admin = watch(serve, "--concurrency", concurrency, app=APPLICATION)
    with admin.served.connect() as held:
        held.send(b"GET /hold HTTP/1.1\r\nHost: test\r\n\r\n")
        admin.served.wait_until(lambda: " in hold\n" in str(stacks(admin)), "the call in the stacks")


def stacks(admin):
    return "".join(worker["stacks"] for worker in admin.post("/api/stacks").json["workers"])
