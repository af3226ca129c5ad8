"""Waits for a state: the one place of the tests that sleeps (tests/test_guards.py sees to it)."""

from __future__ import annotations

import contextlib
import itertools
import os
import pathlib
import signal
import socket
import time

import pytest

#: Seconds. On a machine that is busy with other things a worker with gevent may need a minute to start.
PATIENCE = 300


def wait_until(condition, what, told=lambda: ""):
    """The first true value of a condition. Fails with what was waited for and with what `told` returns."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        value = condition()
        if value:
            return value
        time.sleep(0.01)
    pytest.fail(f"not within {PATIENCE} s: {what}\n{told()}")


def in_time(seconds, attempt):
    """What `attempt(step)` returns, for a test whose steps have to follow each other within the time of a limit.

    An attempt that fails after this machine took longer for a step says nothing about the server, and is repeated.
    """
    moments = []

    def step():
        moments.append(time.monotonic())

    until = time.monotonic() + PATIENCE
    while True:
        moments.clear()
        step()
        try:
            return attempt(step)
        except (Exception, pytest.fail.Exception):
            step()
            if max(after - before for before, after in itertools.pairwise(moments)) < seconds or moments[-1] > until:
                raise


def let_pass(seconds, reason):
    """Let time pass where time itself is what a test is about. `reason`: why no state can be waited for."""
    assert reason
    time.sleep(seconds)


def lives(pid):
    """Whether a process runs: one that has ended and that nobody has waited for does not."""
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def are_all(pid, state):
    """Whether each thread of a process is in that state: T has stopped, S waits for something (proc_pid_stat(5))."""
    tasks = pathlib.Path("/proc", str(pid), "task").glob("*/stat")
    try:
        return all(task.read_text().rpartition(")")[2].split()[0] == state for task in tasks)
    except (FileNotFoundError, ProcessLookupError):  # a thread that ended meanwhile
        return False


def stop(pid):
    """Stop a process, unless it has ended, and wait until no thread runs: the signal alone returns before that."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGSTOP)
    wait_until(lambda: are_all(pid, "T") or not lives(pid), f"that process {pid} stands still")


class Gate:
    """Where an application waits (`wait_at` of tests/apps/gates.py) until the test opens it."""

    def __init__(self):
        self.name = f"anygate-test-{os.urandom(8).hex()}"
        self.door = socket.socket(socket.AF_UNIX)
        self.door.bind("\0" + self.name)
        self.door.listen(1024)
        self.door.settimeout(PATIENCE)
        self.waiting = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.open()

    def wait_for(self, count=1):
        """Wait until so many have come to it since it was made."""
        while len(self.waiting) < count:
            try:
                self.waiting.append(self.door.accept()[0])
            except TimeoutError:
                pytest.fail(f"not within {PATIENCE} s: {count} at the gate; there are {len(self.waiting)}")

    def let_one_go(self):
        """Let the last one that has come go on; the gate stays shut for others."""
        self.waiting[-1].close()

    def open(self):
        """Let go on who waits and who comes later."""
        self.door.close()
        for connection in self.waiting:
            connection.close()
