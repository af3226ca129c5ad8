"""Several servers side by side over the same application: the ``[[server]]`` tables of a file.

Each is an ``anygate`` process of its own with a file of settings. This one starts them, starts again what ends by
itself, passes signals on, and ends them together. It serves nothing.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass

from anygate.server_processes import HOPELESS, SETTLED, NotedSignals, log_to_standard_error, next_pause

LOG = logging.getLogger("anygate.pool")

#: Servers that reload on HUP and reopen their logs on USR1; others are restarted.
RELOADING = ("native", "gunicorn", "uwsgi")


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
    #: The server whose address it takes over when that one has died.
    standby_for: str | None = None
    #: Whether it is the one that serves its address.
    is_active: bool = True

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


def run(servers: list[tuple[str, str, str, str | None]]) -> int:
    """Serve with ``servers``: names, servers as for ``-s``, settings (TOML), and whose address each is to take over.

    Returns the exit code.
    """
    log_to_standard_error()
    with tempfile.TemporaryDirectory(prefix="anygate-servers-") as folder:
        members = []
        for number, (name, server, settings, standby_for) in enumerate(servers):
            path = os.path.join(folder, f"{number}.toml")
            with open(path, "w") as file:
                file.write(settings)
            reloads = server in RELOADING
            members.append(Member(name, path, reloads, standby_for=standby_for, is_active=standby_for is None))
        return _Pool(members).run()


class _Pool:
    def __init__(self, members: list[Member]):
        self.members = members
        self.ending = False
        self.code = 0

    def run(self) -> int:
        signals = NotedSignals()
        while True:
            now = time.monotonic()
            for member in self.members:
                self._look(member, now)
            if self.ending and not any(member.process for member in self.members):
                return self.code
            waiting = [member for member in self.members if member.process is None and member.is_active]
            waits = [] if self.ending else [member.start_at - now for member in waiting]
            signals.wait(min([*waits, SETTLED]))
            for number in signals.take():
                self._obey(number)

    def _look(self, member: Member, now: float) -> None:
        """Notice that the server has ended, and start it again if it is due."""
        if member.process is not None:
            member.settled |= now - member.started > SETTLED
            code = member.process.poll()
            if code is None:
                return
            member.process = None
            if not self.ending and member.is_active and not member.restarting:
                self._judge(member, code, now)
        other = self._partner(member)
        is_free = other is None or other.process is None
        if not self.ending and member.is_active and is_free and member.start_at <= now:
            member.start(now)

    def _judge(self, member: Member, code: int, now: float) -> None:
        """Log when a server that ended unexpectedly is restarted; stop the others if a restart is useless."""
        if code in HOPELESS and not member.settled:
            LOG.error("%s cannot serve (exit code %d): stopping the other servers", member.name, code)
            self._end(code)
            return
        member.pause = next_pause(member.pause, now - member.started)
        member.start_at = now + member.pause
        other = self._partner(member)
        if other is not None:
            self._hand_over(member, other, now)
            LOG.warning("%s ended with %d; %s takes over its address", member.name, code, other.name)
            return
        LOG.warning("%s ended with %d; restarting it in %.1f s", member.name, code, member.pause)

    def _partner(self, member: Member) -> Member | None:
        """The server that takes over the address when ``member`` dies, if there is one."""
        if member.standby_for is not None:
            return next(other for other in self.members if other.name == member.standby_for)
        return next((other for other in self.members if other.standby_for == member.name), None)

    def _hand_over(self, member: Member, other: Member, now: float) -> None:
        """Let ``other`` serve the address from now on, though not before the pause after its own last end."""
        member.is_active, other.is_active = False, True
        other.start_at = max(now, other.start_at)

    def _obey(self, number: int) -> None:
        if number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
            if self.ending:
                # A second one cuts off, there too.
                for member in self.members:
                    member.signal(number)
            self._end(self.code)
        elif number == signal.SIGHUP:
            for member in self.members:
                if member.standby_for is not None and member.is_active:
                    self._return(member)
                elif member.is_active:
                    member.reload()
        elif number == signal.SIGUSR1:
            for member in self.members:
                if member.reloads:
                    member.signal(signal.SIGUSR1)
        elif number == signal.SIGUSR2:
            LOG.error("not upgraded: USR2 is for one server; with [[server]] start anygate anew")

    def _return(self, standby: Member) -> None:
        """Stop a standby; the server that it stands by for is started when it has ended."""
        standby.end()
        first = self._partner(standby)
        assert first is not None
        self._hand_over(standby, first, time.monotonic())

    def _end(self, code: int) -> None:
        if not self.ending:
            self.ending, self.code = True, code
            for member in self.members:
                member.end()
