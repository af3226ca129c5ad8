"""What programs that start servers and start them again have in common: signals, and pauses between starts."""

from __future__ import annotations

import logging
import os
import select
import signal
import socket
from collections.abc import Collection, Iterator
from datetime import datetime, timezone
from types import FrameType

#: Seconds after which a server counts as started.
SETTLED = 10.0
#: Maximum pause, in seconds, before a server is started again that ends soon after its start.
PAUSE_MAX = 30.0
#: Exit codes with which another start is no use: wrong usage, an application or a server that cannot be loaded.
HOPELESS = (2, 3)
#: Signals that tell such a program something, or that a server has ended.
NUMBERS = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGHUP,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGCHLD,
)


class _Layout(logging.Formatter):
    """Messages look as those of the servers do, between which they stand."""

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created, timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        level = {"WARNING": "WARN"}.get(record.levelname, record.levelname)
        return f"{time} [{record.process}] {level:>5} {super().format(record)}"


def log_to_standard_error() -> None:
    """Have messages of this process written."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Layout())
    logging.basicConfig(level=logging.INFO, handlers=[handler])


def next_pause(last: float, lived: float) -> float:
    """Return the pause, in seconds, before the next start of a server that lived so long after the ``last`` pause."""
    return min(max(last * 2, 0.5), PAUSE_MAX) if lived < SETTLED else 0.0


class NotedSignals:
    """Notes signals. Only the main thread can make one."""

    def __init__(self) -> None:
        # A signal that comes between two looks must not be missed: its handler writes into a pipe.
        self.pipe, write = os.pipe()
        os.set_blocking(self.pipe, False)
        os.set_blocking(write, False)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        self.numbers: list[int] = []
        for number in NUMBERS:
            signal.signal(number, self._note)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self.numbers.append(number)

    def wait(self, seconds: float, sockets: Collection[socket.socket] = ()) -> list[socket.socket]:
        """Wait for a signal, for one of ``sockets`` to be readable, or for ``seconds``; return those that are."""
        ready, _, _ = select.select([self.pipe, *sockets], [], [], max(0.0, seconds))
        while select.select([self.pipe], [], [], 0)[0] and os.read(self.pipe, 4096):
            pass
        return [one for one in sockets if one in ready]

    def take(self) -> Iterator[int]:
        """Yield the numbers of signals that have come, each once."""
        while self.numbers:
            yield self.numbers.pop(0)
