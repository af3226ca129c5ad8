"""anygate.health: a site's own check, asked again and again. Each test is a program, since nobody ends a check."""

import json
import subprocess
import sys

import pytest
from anygate import health
from waiting import PATIENCE

PROGRAM = """
import json, os, sys, threading, time
from anygate import health

REPORTS = []
CALLS = []

def report(ready, problem):
    REPORTS.append([ready, problem])

def next_report():
    while not REPORTS:
        time.sleep(0.001)
    return REPORTS.pop(0)

def until_ready():
    # Ends with the first good one.
    reports = [next_report()]
    while not reports[-1][0]:
        reports.append(next_report())
    return reports

def show(*values):
    print(json.dumps(values), flush=True)
    # Other threads would go on.
    os._exit(0)

sys.modules["checks"] = sys.modules["__main__"]
"""


def run(code, timeout=PATIENCE):
    """What the program shows."""
    command = [sys.executable, "-c", code]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("pass", [True, None]),
        ("return True", [True, None]),
        ("return 0", [True, None]),
        ("return False", [False, "it returned False"]),
        ("raise ValueError('no database')", [False, "it raised ValueError: no database"]),
        ("sys.exit(3)", [False, "it raised SystemExit: 3"]),
        ("raise Unprintable", [False, "it raised Unprintable"]),
    ],
)
def test_the_first_response_is_there_before_anything_else(body, expected):
    code = f"""{PROGRAM}
class Unprintable(Exception):
    def __str__(self):
        raise ValueError
def check():
    {body}
health.watch("checks:check", 3600, 30, report)
show(*REPORTS)
"""
    assert run(code) == [expected]


def test_it_is_asked_again_and_again_always_in_the_same_thread():
    code = f"""{PROGRAM}
def check():
    CALLS.append(threading.get_ident())
    return len(CALLS) != 2
health.watch("checks:check", 0.01, 30, report)
reports = [next_report() for _ in range(4)]
show(reports, len(set(CALLS)), threading.get_ident() in CALLS)
"""
    expected = [[True, None], [False, "it returned False"], [True, None], [True, None]]
    assert run(code) == [expected, 1, False]


def test_one_that_does_not_return_in_time_is_not_ready_and_not_called_again_before_it_has():
    code = f"""{PROGRAM}
GO_ON = threading.Event()
def check():
    CALLS.append("begun")
    if len(CALLS) == 1:
        GO_ON.wait()
        CALLS.append("back")
        raise ValueError("late")
health.watch("checks:check", 0.01, 0.05, report)
first, before = next_report(), list(CALLS)
GO_ON.set()
show(first, before, until_ready(), CALLS[:3])
"""
    first, before, reports, calls = run(code)
    assert first == [False, "it has not returned within 0.05 s"]
    assert before == ["begun"]
    # What it said when it came back counts no more.
    assert "late" not in str(reports)
    assert calls == ["begun", "back", "begun"]


GEVENT = (
    """
from gevent import monkey

monkey.patch_all()
import gevent, socket
real_lock = monkey.get_original("_thread", "allocate_lock")
real_ident = monkey.get_original("_thread", "get_ident")
"""
    + PROGRAM
)


def test_under_gevent_a_check_that_waits_in_c_holds_nobody():
    code = f"""{GEVENT}
lock = real_lock()
lock.acquire()
def check():
    CALLS.append(real_ident())
    if len(CALLS) == 1:
        lock.acquire()
health.watch("checks:check", 0.01, 0.05, report)
turns = []
other = gevent.spawn(lambda: [turns.append(gevent.sleep(0)) for _ in range(100)])
other.join()
first = next_report()
lock.release()
until_ready()
show(len(turns), first, real_ident() in CALLS)
"""
    assert run(code) == [100, [False, "it has not returned within 0.05 s"], False]


def test_under_gevent_a_check_may_use_what_is_patched():
    """It asks a server that is a greenlet of the other thread, which waits for the first response before it serves."""
    code = f"""{GEVENT}
listener = socket.create_server(("127.0.0.1", 0))
def serve():
    while True:
        connection, _ = listener.accept()
        connection.sendall(b"fine")
        connection.close()
server = gevent.spawn(serve)
def check():
    assert socket.socket.__module__.startswith("gevent")
    time.sleep(0.001)
    with socket.create_connection(listener.getsockname()) as connection:
        return connection.recv(10) == b"fine"
health.watch("checks:check", 0.01, 0.2, report)
show(*until_ready())
"""
    first, *_, last = run(code)
    assert first == [False, "it has not returned within 0.2 s"]
    assert last == [True, None]


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (
            "json:dump_it",
            "cannot load ready_check json:dump_it: 'json' has no attribute 'dump_it'; did you mean 'dump'",
        ),
        ("json:dumps", "cannot load ready_check json:dumps: it is called with no arguments, which it does not accept"),
        ("no_such_module:check", "cannot load ready_check no_such_module:check: there is no module 'no_such_module'"),
        ("json", "cannot load ready_check json: it names no function; write it as module:function"),
    ],
)
def test_a_wrong_name_is_said(target, message):
    with pytest.raises(ValueError) as raised:  # noqa: PT011
        health.watch(target, 1, 1, print)
    assert message in str(raised.value)


def test_an_asynchronous_one_is_refused(monkeypatch):
    async def check():
        return True

    monkeypatch.setattr(health, "check", check, raising=False)
    with pytest.raises(ValueError, match="it is asynchronous, and nothing would await it"):
        health.watch("anygate.health:check", 1, 1, print)
