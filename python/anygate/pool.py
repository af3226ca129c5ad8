"""Several servers side by side over the same application: the ``[[server]]`` tables of a file.

Each is an ``anygate`` process of its own with a file of settings. This one starts them, starts again what ends by
itself, passes signals on, and ends them together. It serves nothing.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from types import FrameType

LOG = logging.getLogger("anygate.pool")

#: Servers that reload on HUP and reopen their logs on USR1; others are restarted.
RELOADING = ("native", "gunicorn", "uwsgi")
#: Maximum pause, in seconds, before a server is restarted that ends soon after its start.
PAUSE_MAX = 30.0
#: Seconds after which a server counts as started.
SETTLED = 10.0
#: Exit codes with which another start is no use: wrong usage, an application or a server that cannot be loaded.
HOPELESS = (2, 3)


@dataclass
class Member:
    """One server."""

    name: str
    path: str
    reloads: bool
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    start_at: float = 0.0
    pause: float = 0.0
    #: It has lived long enough once, so that its end does not end the others.
    settled: bool = False
    #: Whether it was stopped in order to be restarted.
    restarting: bool = False

    def start(self, now: float) -> None:
        """Start its process."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("ANYGATE_")}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "anygate", "--config", self.path],
            env={**environment, "_ANYGATE_WITH_PARENT": "1"},
            stdin=subprocess.DEVNULL,
        )
        self.started = now
        self.restarting = False

    def signal(self, number: int) -> None:
        """Send a signal to its process, if it has one."""
        if self.process is not None:
            self.process.send_signal(number)

    def reload(self) -> None:
        """Reload its application; a server that cannot is stopped, and started again when it has ended."""
        if self.reloads:
            self.signal(signal.SIGHUP)
        else:
            self.end()
            self.restarting = self.process is not None

    def end(self) -> None:
        """Stop it, with one TERM only, because a second one would abort its requests."""
        if not self.restarting:
            self.signal(signal.SIGTERM)


def run(servers: list[tuple[str, str, str]]) -> int:
    """Serve with ``servers``, each a name, a server as for ``-s``, and settings (TOML); return the exit code."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    with tempfile.TemporaryDirectory(prefix="anygate-servers-") as folder:
        members = []
        for number, (name, server, settings) in enumerate(servers):
            path = os.path.join(folder, f"{number}.toml")
            with open(path, "w") as file:
                file.write(settings)
            members.append(Member(name, path, server in RELOADING))
        return _Pool(members).run()


class _Pool:
    def __init__(self, members: list[Member]):
        self.members = members
        self.signals: list[int] = []
        self.ending = False
        self.code = 0

    def run(self) -> int:
        # A signal that comes between two looks must not be missed: its handler writes into a pipe.
        read, write = os.pipe()
        os.set_blocking(read, False)
        os.set_blocking(write, False)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGUSR1, signal.SIGCHLD):
            signal.signal(number, self._note)
        while True:
            now = time.monotonic()
            for member in self.members:
                self._look(member, now)
            if self.ending and not any(member.process for member in self.members):
                return self.code
            waits = [member.start_at - now for member in self.members if member.process is None and not self.ending]
            select.select([read], [], [], max(0.0, min([*waits, SETTLED])))
            while select.select([read], [], [], 0)[0] and os.read(read, 4096):
                pass
            while self.signals:
                self._obey(self.signals.pop(0))

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self.signals.append(number)

    def _look(self, member: Member, now: float) -> None:
        """Notice that the server has ended, and start it again if it is due."""
        if member.process is not None:
            member.settled |= now - member.started > SETTLED
            code = member.process.poll()
            if code is None:
                return
            member.process = None
            if not self.ending and not member.restarting:
                self._judge(member, code, now)
        if not self.ending and member.start_at <= now:
            member.start(now)

    def _judge(self, member: Member, code: int, now: float) -> None:
        """Log when a server that ended unexpectedly is restarted; stop the others if a restart is useless."""
        if code in HOPELESS and not member.settled:
            LOG.error("%s cannot serve (exit code %d): stopping the other servers", member.name, code)
            self._end(code)
            return
        soon = now - member.started < SETTLED
        member.pause = min(max(member.pause * 2, 0.5), PAUSE_MAX) if soon else 0.0
        member.start_at = now + member.pause
        LOG.warning("%s ended with %d; restarting it in %.1f s", member.name, code, member.pause)

    def _obey(self, number: int) -> None:
        if number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
            if self.ending:
                # A second one cuts off, there too.
                for member in self.members:
                    member.signal(number)
            self._end(self.code)
        elif number == signal.SIGHUP:
            for member in self.members:
                member.reload()
        elif number == signal.SIGUSR1:
            for member in self.members:
                if member.reloads:
                    member.signal(signal.SIGUSR1)

    def _end(self, code: int) -> None:
        if not self.ending:
            self.ending, self.code = True, code
            for member in self.members:
                member.end()
