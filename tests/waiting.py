"""Waits for a state: the one place of the tests that sleeps (tests/test_guards.py sees to it)."""

from __future__ import annotations

import os
import pathlib
import signal
import socket
import time

import pytest

PATIENCE = 30


def wait_until(condition, what, told=lambda: ""):
    """The first true value of a condition. Fails with what was waited for and with what `told` returns."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        value = condition()
        if value:
            return value
        time.sleep(0.01)
    pytest.fail(f"not within {PATIENCE} s: {what}\n{told()}")


def let_pass(seconds, reason):
    """Let time pass where time itself is what a test is about. `reason`: why no state can be waited for."""
    assert reason
    time.sleep(seconds)


def stop(pid):
    """Stop a process, and wait until none of its threads runs: the signal alone returns before that."""

    def has_stopped():
        tasks = pathlib.Path("/proc", str(pid), "task").glob("*/stat")
        try:
            return all(task.read_text().rpartition(")")[2].split()[0] == "T" for task in tasks)
        except FileNotFoundError:  # a thread that ended meanwhile
            return False

    os.kill(pid, signal.SIGSTOP)
    wait_until(has_stopped, f"that process {pid} stands still")


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
