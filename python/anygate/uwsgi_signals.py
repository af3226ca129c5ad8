"""Signals of uWSGI: functions by number, which one worker or all of them call, when told to or at given times.

They run on a thread beside the requests, or in a greenlet.
"""

from __future__ import annotations

import contextlib
import os
import select
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from anygate.failures import formatted
from anygate.uwsgi_memory import ROWS, SIGNALS, Memory

#: Five numbers of a cron: minute, hour, day of the month, month, day of the week; -1 for any, -N for each Nth.
Cron = tuple[int, int, int, int, int]

#: Where a bell is heard, and where it is rung: one counter of Linux, or the ends of a pipe.
Bell = tuple[int, int]

#: What rings it: 1 as a number of the machine.
RING = (1).to_bytes(8, sys.byteorder)


def make_bell() -> Bell:
    """Make a bell of this process."""
    if hasattr(os, "eventfd"):
        fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        return fd, fd
    heard, rung = os.pipe()
    os.set_blocking(heard, False)
    os.set_blocking(rung, False)
    return heard, rung


class Signals:
    """The signals of one process."""

    def __init__(self, memory: Memory, bells: list[Bell], say: Callable[[str], object]):
        self._memory = memory
        self._bells = bells
        self._say = say
        self._row = 0
        self._handlers: dict[int, tuple[str, Callable[[int], object]]] = {}
        #: Seconds between signals, and how many there are of them; 0 for no end.
        self._timers: dict[int, tuple[float, int]] = {}
        self._crons: dict[int, Cron] = {}

    def register(self, number: int, target: str, handler: Callable[[int], object]) -> None:
        """Have a function called for a signal, by the workers that ``target`` names."""
        self._handlers[_checked(number)] = target, handler

    def registered(self, number: int) -> bool:
        """Whether a function is called for a signal."""
        return number in self._handlers

    def add_timer(self, number: int, seconds: float, turns: int = 0) -> None:
        """Have a signal sent each time so many seconds have passed."""
        if seconds <= 0:
            raise ValueError(f"seconds must be more than 0, not {seconds}")
        self._timers[_checked(number)] = seconds, turns
        self._ring(self._row)

    def add_cron(self, number: int, cron: Cron) -> None:
        """Have a signal sent in the minutes that are named."""
        self._crons[_checked(number)] = cron
        self._ring(self._row)

    def send(self, number: int) -> None:
        """Send a signal."""
        target = self._handlers.get(_checked(number), ("", None))[0]
        rows = [row for row, *_ in self._memory.workers()] if target in ("workers", "active-workers") else [self._row]
        if target.startswith("worker") and target[6:].isdigit() and target[6:] != "0":
            rows = [int(target[6:]) - 1]
        for row in rows:
            if row < ROWS:
                self._memory.post(row, number)
            self._ring(row)

    def start(self, row: int) -> None:
        """Call functions from now on, as the worker of a row, which is this process."""
        if row >= ROWS:
            self._say(f"worker {row + 1} gets no signals of uwsgi: there are too many workers")
            return
        if row >= len(self._bells):
            # Its own signals ring it, and no other worker.
            self._bells += [(-1, -1)] * (row - len(self._bells))
            self._bells.append(make_bell())
        self._row = row
        threading.Thread(target=self._run, name="anygate-uwsgi", daemon=True).start()

    def _ring(self, row: int) -> None:
        _, rung = self._bells[row] if row < len(self._bells) else (-1, -1)
        if rung >= 0:
            # A pipe that is full rings already.
            with contextlib.suppress(BlockingIOError):
                os.write(rung, RING)

    def _run(self) -> None:
        bell, _ = self._bells[self._row]
        while True:
            due = self._send_due(time.time())
            select.select([bell], [], [], max(0, due - time.time()) if due is not None else None)
            with contextlib.suppress(BlockingIOError):
                os.read(bell, 4096)
            for number in self._memory.take_posted(self._row):
                self._handle(number)

    def _send_due(self, now: float) -> float | None:
        """Send the signals that are due and that no other worker has sent; return when there is to be another look."""
        looks = []
        for number, (seconds, turns) in list(self._timers.items()):
            is_due, following = self._memory.take_turn(number, now, seconds, turns)
            if is_due:
                self.send(number)
            looks.append(following)
        for number, cron in list(self._crons.items()):
            if _matches(cron, time.localtime(now)) and self._memory.take_minute(number, int(now // 60)):
                self.send(number)
            looks.append(now // 60 * 60 + 60)
        return min(looks, default=None)

    def _handle(self, number: int) -> None:
        _, handler = self._handlers.get(number, ("", None))
        if handler is None:
            return
        try:
            handler(number)
        except BaseException as error:
            self._say(f"the function of signal {number} failed\n{formatted(error).rstrip()}")


def _checked(number: int) -> int:
    if not 0 <= number < SIGNALS:
        raise ValueError(f"a signal has a number below {SIGNALS}, not {number}")
    return number


def _matches(cron: Cron, now: Any) -> bool:
    # Sunday is 0, and 7.
    values = (now.tm_min, now.tm_hour, now.tm_mday, now.tm_mon, (now.tm_wday + 1) % 7)
    return all(
        value == wanted
        or wanted == -1
        or (wanted < -1 and value % -wanted == 0)
        or (place == 4 and wanted == 7 and value == 0)
        for place, (value, wanted) in enumerate(zip(values, cron, strict=True))
    )
