"""The number of workers: by the processors, by the load, by signals and orders."""

import os
import signal
import sys

import pytest
from admin_address import Admin
from conftest import ANYGATE, APPS
from load import Load
from waiting import Gate, let_pass

CONTRACT = APPS / "contract.py"
KINDS = {
    "threads": ("--threads", "4"),
    "greenlets": ("--concurrency", "gevent", "--greenlets", "4"),
    "preload": ("--preload", "--threads", "4"),
}
SECONDS = float(os.environ.get("SOAK_SECONDS", 0))
#: Requests may wait for as long as workers take to start on a busy machine.
PATIENT = ("--queue-timeout", "10m", "--queue-max", "0")
EACH_KIND = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)


def wait_for(served, workers):
    served.wait_until(lambda: len(served.workers()) == workers, f"{workers} workers")


class Busy:
    """So many requests that stay inside of the application, each on a connection of its own."""

    def __init__(self, served, requests):
        self.gate = Gate()
        text = f"GET /gate?{self.gate.name} HTTP/1.1\r\nHost: a\r\n\r\n"
        self.connections = [served.connect().send(text) for _ in range(requests)]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.gate.open()
        assert {connection.response().status for connection in self.connections} == {200}
        for connection in self.connections:
            connection.close()


def test_auto_is_one_worker_per_processor_that_may_be_used(launch):
    for processors in {1, len(os.sched_getaffinity(0))}:
        allowed = sorted(os.sched_getaffinity(0))[:processors]
        code = f"import os, sys; os.sched_setaffinity(0, {allowed}); os.execv(sys.argv[1], sys.argv[1:])"
        command = [sys.executable, "-c", code, ANYGATE]
        served = launch(CONTRACT, "--workers", "auto", "--port", "0", command=command).wait_ready()
        assert len(served.workers()) == processors


def test_auto_is_at_least_the_minimum(serve):
    served = serve(CONTRACT, "--workers", "auto", "--workers-min", str(len(os.sched_getaffinity(0)) + 1))
    wait_for(served, len(os.sched_getaffinity(0)) + 1)


@EACH_KIND
def test_a_step_of_load_starts_workers_and_its_end_ends_them(serve, kind):
    served = serve(CONTRACT, "--workers-max", "8", "--workers-cool-down", "2s", *PATIENT, *kind)
    wait_for(served, 1)
    with Busy(served, 32):
        wait_for(served, 8)
    wait_for(served, 1)
    assert served.get("/pid").status == 200
    assert served.terminate() == 0


@pytest.mark.skipif(not SECONDS, reason="time has to pass: make soak")
@pytest.mark.timeout(SECONDS + 1800)
@EACH_KIND
def test_steady_load_changes_their_number_once_at_most(serve, kind):
    served = serve(CONTRACT, "--workers-max", "8", "--workers-cool-down", "10s", *PATIENT, *kind)
    with Load(served, "/pid", clients=3) as load:
        load.wait_for(1000)
        # The first seconds find the number.
        let_pass(10, "averages have to settle")
        before = served.log().count(" workers instead of ")
        let_pass(max(SECONDS, 60), "the load has to be steady for a while")
        changes = served.log().count(" workers instead of ") - before
    assert load.failures == []
    assert changes <= 1, served.log()


@EACH_KIND
def test_signals_and_orders_set_the_floor_which_survives_a_reload(serve, kind):
    options = ("--workers-min", "1", "--workers-max", "6", "--workers-cool-down", "500ms", "--admin", "127.0.0.1:0")
    served = serve(CONTRACT, *options, *kind)
    served.send_signal(signal.SIGTTIN)
    wait_for(served, 2)
    assert Admin(served).post("/api/scale?workers=3").status == 202
    wait_for(served, 3)
    served.send_signal(signal.SIGHUP)
    served.wait_for_log("reloaded: 3 new workers are serving")
    wait_for(served, 3)
    served.send_signal(signal.SIGTTOU)
    # The load needs none of them.
    wait_for(served, 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--workers", "2", "--workers-max", "1"), "--workers-max: 1 is less than --workers (2)"),
        (("--workers", "2", "--workers-min", "3"), "--workers-min: 3 is more than --workers (2)"),
        (("--workers-min", "4", "--workers-max", "2"), "--workers-min: 4 is more than --workers-max (2)"),
        (("--workers", "0"), "must be auto, or a whole number from 1 to 1024"),
    ],
)
def test_numbers_that_contradict_each_other_are_refused(run, arguments, message):
    ended = run(CONTRACT, "--port", "0", *arguments)
    assert ended.returncode == 2
    assert message in ended.stderr
