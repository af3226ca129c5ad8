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
def test_greenlets_wait_for_programs(serve, more):
    served = serve(APPLICATION, "--concurrency", "gevent", *more)
    assert served.get("/run").body == b"7"


@pytest.mark.parametrize(
    ("concurrency", "path", "where"),
    [("threads", "/hold", "hold"), ("gevent", "/hold", "hold"), ("gevent", "/stand", "stand_still")],
)
def test_a_worker_in_which_nothing_can_run_is_replaced(serve, concurrency, path, where):
    served = serve(APPLICATION, "--concurrency", concurrency, "--worker-timeout", "4s", "--queue-timeout", "1s")
    (worker,) = served.workers()
    with served.connect() as held, served.connect() as waiting:
        held.send(f"GET {path} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
        served.wait_for_log("nothing else runs")
        if concurrency == "gevent":
            waiting.send(b"GET /pid HTTP/1.1\r\nHost: test\r\n\r\n")
            assert waiting.answer().status == 503
        served.wait_until(lambda: worker not in served.workers(), "the end of the worker")
    served.wait_until(lambda: served.get("/pid").body.isdigit(), "another worker")
    assert f" in {where}\n" in served.log()


@pytest.mark.parametrize("concurrency", ["threads", "gevent"])
def test_stacks_of_a_held_interpreter_are_taken_from_outside(serve, concurrency):
    admin = watch(serve, "--concurrency", concurrency, app=APPLICATION)
    with admin.served.connect() as held:
        held.send(b"GET /hold HTTP/1.1\r\nHost: test\r\n\r\n")
        admin.served.wait_until(lambda: " in hold\n" in str(stacks(admin)), "the call in the stacks")


def stacks(admin):
    return "".join(worker["stacks"] for worker in admin.post("/api/stacks").json["workers"])
