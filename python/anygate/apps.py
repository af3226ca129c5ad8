"""Several applications with workers, users and virtual environments of their own: the ``[[app]]`` tables of a file.

A router accepts, ends TLS and passes each request on; it has no code of an application. It and each application are
``anygate`` processes of their own, which this one starts, starts again when they end, reloads, and ends. It serves
nothing and imports nothing of the site.

What keeps the applications apart: all processes of one run as its user; only the router's user may connect to its
socket, which it inherits already open; its settings are in a folder that only it may enter. As root, this process
writes only in folders of its own, so that no link that another user has made leads it elsewhere.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from anygate.app_server import Child, Identity, Server
from anygate.server_processes import HOPELESS, SETTLED, NotedSignals, log_to_standard_error

LOG = logging.getLogger("anygate.apps")


@dataclass(frozen=True, kw_only=True)
class App:
    """One application, as its table says."""

    name: str
    #: Its hosts, each with a path; empty for all.
    positions: list[tuple[str, str]]
    keep_path: bool
    user: str | None
    group: str | None
    python: os.PathLike[str] | None
    #: Text of a TOML file.
    settings: str
    #: The router's admin address tells of it.
    is_watched: bool


@dataclass(frozen=True)
class Site:
    """All applications, and the settings of the router."""

    router: str
    user: str | None
    group: str | None
    apps: list[App]


@dataclass(frozen=True)
class Program:
    """What this program knows of itself."""

    #: Reads the settings anew; a ValueError says what is wrong.
    read: Callable[[], Site]
    #: Starts a process of the program that is installed now, which only checks the settings; returns its number.
    start_check: Callable[[], int]
    #: Becomes that program, which is left the text. Returns why it cannot.
    execute: Callable[[str], str]
    #: What the program before this one has left.
    left: str | None


def check(site: Site) -> dict[str, Identity]:
    """Return whom processes of ``site`` run as; a ValueError says why it cannot be served."""
    if os.environ.get("LISTEN_PID") == str(os.getpid()):
        raise ValueError("sockets of a service manager (LISTEN_FDS) cannot be combined with [[app]]: set bind")
    return _identities(site)


def run(site: Site, program: Program) -> int:
    """Serve ``site`` until told to end. Returns the exit code."""
    log_to_standard_error()
    identities = check(site)
    left = _left(program.left)
    folder: str = left["folder"] if left else tempfile.mkdtemp(prefix="anygate-apps-")
    try:
        # Names in it are no secret; what is below is.
        os.chmod(folder, 0o711)
        return _Apps(site, identities, folder, program, left).run()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _left(text: str | None) -> Any:
    """Return what the program before this one has left, if it was for this process."""
    left = json.loads(text) if text else None
    return left if left and left["pid"] == os.getpid() else None


def _identities(site: Site) -> dict[str, Identity]:
    """Whom each application runs as, and the router, whose name is empty; a ValueError says what is wrong."""
    router = Identity.of("the router", site.user, site.group)
    found = {"": router}
    for app in site.apps:
        whose = f"app {app.name!r}"
        identity = Identity.of(whose, app.user, app.group)
        if os.geteuid() == 0:
            if identity.uid == 0:
                LOG.warning("%s has no user of its own and runs as root", whose)
            elif identity.uid == router.uid:
                raise ValueError(f"{whose}: user: {app.user} is the router's, who may connect to all applications")
        found[app.name] = identity
    return found


class _Apps:
    def __init__(self, site: Site, identities: dict[str, Identity], folder: str, program: Program, left: Any):
        self.folder, self.program = folder, program
        self.numbers = 0
        self.code = 0
        self.ending = False
        self.reloading = False
        self.is_told = False
        #: Checks the program that is to take the place of this one.
        self.check: Child | None = None
        self.manager = os.environ.get("NOTIFY_SOCKET")
        self.site = site
        self.sockets = os.path.join(folder, "sockets")
        self.apps: dict[str, Server] = {}
        command = [sys.executable, "-m", "anygate"]
        if left is not None:
            self._take_over(left, identities, command)
            return
        os.mkdir(self.sockets)
        os.chmod(self.sockets, 0o711)
        self.router = Server.new("", identities[""], self._place(), command)
        for app in site.apps:
            self.apps[app.name] = self._new(app, identities[app.name])
        self._write(site)

    def _take_over(self, left: Any, identities: dict[str, Identity], command: list[str]) -> None:
        """Go on with the processes of the program before this one, which replace theirs, too."""
        self.numbers = left["numbers"]
        router, commands = identities[""], {app.name: _command(app) for app in self.site.apps}
        self.router = Server.left(left["router"], router, command, None)
        for key, what in left["apps"].items():
            # One that is not wanted any more is not started again.
            identity, of_app = identities.get(what["name"], router), commands.get(what["name"], command)
            self.apps[key] = Server.left(what, identity, of_app, router)
        self._renew(self.site, identities, left["needs"], signal.SIGUSR2)

    def _place(self) -> str:
        self.numbers += 1
        return os.path.join(self.folder, str(self.numbers))

    def _new(self, app: App, identity: Identity) -> Server:
        place = self._place()
        path = os.path.join(self.sockets, os.path.basename(place))
        admin = f"{path}.admin" if app.is_watched else None
        owner = self.router.identity
        return Server.new(app.name, identity, place, _command(app), path=path, admin=admin, owner=owner)

    def _write(self, site: Site) -> None:
        for app in site.apps:
            self.apps[app.name].write(app.settings)
        text = site.router
        for app in site.apps:
            server = self.apps[app.name]
            for host, path in app.positions:
                pairs = {"name": app.name, "host": host, "path": path, "socket": server.path, "admin": server.admin}
                lines = [f"{key} = {_quoted(value)}\n" for key, value in pairs.items() if value is not None]
                text += "\n[[route]]\n" + "".join(lines) + f"keep_path = {'true' if app.keep_path else 'false'}\n"
        self.router.write(text)

    @property
    def servers(self) -> list[Server]:
        return [self.router, *self.apps.values()]

    def run(self) -> int:
        signals = NotedSignals()
        # The program before this one may have held some.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, signal.valid_signals())
        while True:
            now = time.monotonic()
            self._look_at_check(signals)
            for server in self.servers:
                self._look(server, now)
            self.apps = {name: server for name, server in self.apps.items() if not self._is_gone(server)}
            if self.ending and not any(server.process for server in self.servers):
                return self.code
            waits = [
                server.start_at - now
                for server in self.servers
                if server.process is None and not self.ending and not server.is_leaving
            ]
            notices = {server.notices: server for server in self.servers}
            for ready in signals.wait(min([*waits, SETTLED]), notices):
                self._hear(notices[ready])
            for number in signals.take():
                self._obey(number)
            self._tell()

    def _is_gone(self, server: Server) -> bool:
        if server.is_leaving and server.process is None:
            server.close()
            return True
        return False

    def _look(self, server: Server, now: float) -> None:
        """Notice that a server has ended, and start it again if it is due."""
        if server.process is not None:
            code = server.process.poll()
            if code is None:
                return
            server.process = None
            was_ready, server.is_ready = server.is_ready, False
            if self.ending:
                if server is self.router:
                    # No request is on its way any more.
                    for app in self.apps.values():
                        app.signal(signal.SIGTERM)
                return
            if not server.is_leaving:
                self._judge(server, code, now, was_ready)
        if not self.ending and not server.is_leaving and server.start_at <= now:
            server.start(now)

    def _judge(self, server: Server, code: int, now: float, was_ready: bool) -> None:
        if server is self.router and code in HOPELESS and not server.was_judged:
            LOG.error("the router cannot serve (exit code %d): stopping", code)
            self._end(code)
            return
        server.wait_before_start(now)
        lost = "; its requests get 503" if server.name else ""
        how = "ended" if was_ready else "could not start and ended"
        LOG.error("%s %s with %d%s; starting it again in %.1f s", server.title, how, code, lost, server.pause)

    def _hear(self, server: Server) -> None:
        """Read what a server says to its service manager."""
        try:
            text = server.notices.recv(4096).decode(errors="replace")
        except BlockingIOError:
            return
        lines = text.splitlines()
        if "READY=1" in lines:
            if not server.is_ready:
                LOG.info("%s is ready", server.title)
            server.is_ready = server.was_judged = True
        for line in lines:
            if line.startswith("EXTEND_TIMEOUT_USEC="):
                self._notify(line)

    def _tell(self) -> None:
        """Tell the service manager when the router is ready and every application has started or failed to."""
        if self.ending:
            return
        down = [server.name for server in self.apps.values() if not server.is_ready]
        status = f"Serving {len(self.apps)} applications" + (f"; down: {', '.join(down)}" if down else "")
        is_due = self.reloading or not self.is_told
        if is_due and self.router.is_ready and all(server.was_judged for server in self.servers):
            self.reloading, self.is_told = False, True
            self._notify(f"READY=1\nSTATUS={status}")

    def _notify(self, text: str) -> None:
        if not self.manager:
            return
        address = "\0" + self.manager[1:] if self.manager.startswith("@") else self.manager
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
                manager.connect(address)
                manager.send(text.encode())
        except OSError as error:
            LOG.warning("cannot tell the service manager %r: %s", text, error)

    def _obey(self, number: int) -> None:
        if number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
            if self.ending:
                # A second one cuts off, there too.
                for server in self.servers:
                    server.signal(number)
            self._end(self.code)
        elif number == signal.SIGHUP and not self.ending:
            self._reload()
        elif number == signal.SIGUSR1:
            for server in self.servers:
                server.signal(signal.SIGUSR1)
        elif number == signal.SIGUSR2 and not self.ending and self.check is None:
            try:
                self.check = Child(self.program.start_check())
            except OSError as error:
                LOG.error("not upgraded: %s", error)

    def _look_at_check(self, signals: NotedSignals) -> None:
        """Become the new program if it was checked."""
        code = self.check.poll() if self.check is not None else None
        if code is None:
            return
        self.check = None
        if code != 0:
            LOG.error("not upgraded: the new program ended with %d when it was checked; all stays as it was", code)
        elif not self.ending:
            LOG.info("upgrading: the new program takes over")
            held = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
            # What came meanwhile is for the new program.
            for number in signals.take():
                os.kill(os.getpid(), number)
            for server in self.servers:
                server.notices.set_inheritable(True)
            failed = self.program.execute(self._left())
            LOG.error("not upgraded: cannot execute the new program: %s", failed)
            for server in self.servers:
                server.notices.set_inheritable(False)
            signal.pthread_sigmask(signal.SIG_SETMASK, held)

    def _left(self) -> str:
        """Return what the next program needs."""
        return json.dumps(
            {
                "pid": os.getpid(),
                "folder": self.folder,
                "numbers": self.numbers,
                "router": self.router.leave(),
                "apps": {key: server.leave() for key, server in self.apps.items()},
                "needs": {app.name: _needs(app) for app in self.site.apps},
            }
        )

    def _end(self, code: int) -> None:
        if self.ending:
            return
        self.ending, self.code = True, code
        self._notify("STOPPING=1")
        # The router finishes requests, for which it needs the applications.
        first = [self.router] if self.router.process is not None else self.apps.values()
        for server in first:
            server.signal(signal.SIGTERM)

    def _dismiss(self, server: Server) -> None:
        server.is_leaving = True
        server.signal(signal.SIGTERM)

    def _reload(self) -> None:
        """Read the settings anew; every application reloads, and only those that must start anew do."""
        try:
            site = self.program.read()
            identities = _identities(site)
        except ValueError as error:
            LOG.error("not reloaded: %s", error)
            return
        if (site.user, site.group) != (self.site.user, self.site.group):
            LOG.error("not reloaded: user and group of the router cannot change without a restart")
            return
        self._notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
        self.reloading = True
        self._renew(site, identities, {app.name: _needs(app) for app in self.site.apps}, signal.SIGHUP)

    def _renew(self, site: Site, identities: dict[str, Identity], before: dict[str, list[Any]], number: int) -> None:
        """Serve ``site``; ``before`` is what applications needed, and ``number`` the signal for those that go on."""
        for app in site.apps:
            server = self.apps.get(app.name)
            if server is not None and not server.is_leaving:
                if before.get(app.name) == _needs(app):
                    continue
                self._dismiss(server)
            if server is not None:
                # Its successor has another socket, and need not wait for its end.
                self.apps[os.path.basename(server.folder)] = server
            self.apps[app.name] = self._new(app, identities[app.name])
        wanted = {app.name for app in site.apps}
        for name, server in self.apps.items():
            if name not in wanted and not server.is_leaving:
                self._dismiss(server)
        self.site = site
        self._write(site)
        for server in self.servers:
            if server.process is not None and not server.is_leaving:
                # One that does not upgrade says nothing of that.
                server.was_judged = number == signal.SIGUSR2
                server.signal(number)
            else:
                server.start_at = 0.0


def _command(app: App) -> list[str]:
    return [str(app.python or sys.executable), "-m", "anygate"]


def _needs(app: App) -> list[str | None]:
    """Return what an application cannot change without another start."""
    return [app.user, app.group, None if app.python is None else str(app.python)]


def _quoted(text: str) -> str:
    """Write a string of TOML."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
