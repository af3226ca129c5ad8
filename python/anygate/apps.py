"""Several applications with workers, users and virtual environments of their own: the ``[[app]]`` tables of a file.

A router accepts, ends TLS and passes each request on; it has no code of an application. It and each application are
``anygate`` processes of their own, which this one starts, starts again when they end, reloads, and ends. It serves
nothing and imports nothing of the site.

What keeps the applications apart: all processes of one run as its user; only the router's user may connect to its
socket, which it inherits already open; its settings are in a folder that only it may enter. As root, this process
writes only in folders of its own, so that no link that another user has made leads it elsewhere.
"""

from __future__ import annotations

import grp
import logging
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from anygate.server_processes import HOPELESS, SETTLED, NotedSignals, next_pause

T = TypeVar("T")

LOG = logging.getLogger("anygate.apps")

#: Maximum number of connections that wait for an application.
BACKLOG = 2048


@dataclass(frozen=True, kw_only=True)
class App:
    """One application, as its table says."""

    name: str
    host: str
    path: str
    user: str | None
    group: str | None
    python: os.PathLike[str] | None
    #: Text of a TOML file.
    settings: str


@dataclass(frozen=True)
class Site:
    """All applications, and the settings of the router."""

    router: str
    user: str | None
    group: str | None
    apps: list[App]


@dataclass(frozen=True)
class Identity:
    """Whom processes run as."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    name: str
    home: str

    @classmethod
    def of(cls, whose: str, user: str | None, group: str | None) -> Identity:
        """Look a user up, who is the present one if none is named; a ValueError says what is wrong."""
        is_known = user is not None or group is not None
        try:
            found = pwd.getpwuid(os.geteuid() if user is None else int(user))
        except ValueError:
            found = _named(pwd.getpwnam, whose, "user", str(user))
        except KeyError:
            if user is None:
                return cls(os.geteuid(), os.getegid(), tuple(os.getgroups()), "", os.environ.get("HOME", "/"))
            raise ValueError(f"{whose}: user: there is no user {user!r}") from None
        gid = found.pw_gid if user is not None else os.getegid()
        if group is not None:
            gid = int(group) if group.isdigit() else _named(grp.getgrnam, whose, "group", group).gr_gid
        if is_known and os.geteuid() != 0 and (found.pw_uid, gid) != (os.geteuid(), os.getegid()):
            raise ValueError(f"{whose}: user: only root can run processes as another user; start anygate as root")
        groups = os.getgrouplist(found.pw_name, gid) if user is not None else os.getgroups()
        return cls(found.pw_uid, gid, tuple(groups), found.pw_name, found.pw_dir)


def _named(look_up: Callable[[str], T], whose: str, kind: str, name: str) -> T:
    try:
        return look_up(name)
    except KeyError:
        raise ValueError(f"{whose}: {kind}: there is no {kind} {name!r}") from None


def run(site: Site, read: Callable[[], Site]) -> int:
    """Serve ``site`` until told to end; ``read`` reads it anew. Returns the exit code."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    if os.environ.get("LISTEN_PID") == str(os.getpid()):
        raise ValueError("sockets of a service manager (LISTEN_FDS) cannot be combined with [[app]]: set bind")
    identities = _identities(site)
    folder = tempfile.mkdtemp(prefix="anygate-apps-")
    try:
        # Names in it are no secret; what is below is.
        os.chmod(folder, 0o711)
        return _Apps(site, identities, folder, read).run()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


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


@dataclass
class Server:
    """A process: the router, whose name is empty, or an application's."""

    name: str
    identity: Identity
    folder: str
    command: list[str]
    #: Path of the socket on which it is to serve.
    path: str | None = None
    #: Whom that socket belongs to.
    owner: Identity | None = None
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    start_at: float = 0.0
    pause: float = 0.0
    is_ready: bool = False
    #: It was ready, or has failed to become so.
    was_judged: bool = False
    #: It has been told to end.
    is_leaving: bool = False
    notices: socket.socket = field(init=False)

    def __post_init__(self) -> None:
        os.mkdir(self.folder, 0o700)
        self.notices = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.notices.setblocking(False)
        self.notices.bind(os.path.join(self.folder, "notices"))
        if os.geteuid() == 0 and self.command_user is not None:
            os.chown(os.path.join(self.folder, "notices"), self.identity.uid, self.identity.gid)
            os.chown(self.folder, self.identity.uid, self.identity.gid)

    @property
    def title(self) -> str:
        """What messages call it."""
        return f"application {self.name!r}" if self.name else "the router"

    @property
    def command_user(self) -> Identity | None:
        """Who runs the whole process; the router's own supervisor may have to open low ports."""
        return self.identity if self.name else None

    def write(self, settings: str) -> None:
        """Write its settings, which only it can read, and move them into its folder, where it may have made links."""
        new = self.folder + ".new"
        try:
            with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
                file.write(settings)
                if os.geteuid() == 0 and self.command_user is not None:
                    os.fchown(file.fileno(), self.identity.uid, self.identity.gid)
            os.replace(new, os.path.join(self.folder, "settings.toml"))
        except OSError as error:
            LOG.error("the settings of %s cannot be written: %s", self.title, error)

    def start(self, now: float) -> None:
        """Start its process."""
        self.started, self.is_ready = now, False
        arguments = [*self.command, "--config", os.path.join(self.folder, "settings.toml")]
        listener, descriptors = None, []
        user = self.command_user if os.geteuid() == 0 else None
        try:
            listener = self._listen()
            if listener is not None:
                # Only its own processes have it, so that it refuses connections when they are gone.
                descriptors.append(listener.fileno())
                arguments += ["--bind", f"routed+fd://{listener.fileno()}"]
            self.process = subprocess.Popen(
                arguments,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                pass_fds=descriptors,
                # Ctrl-C is for this process, which ends the others in order.
                start_new_session=True,
                user=user.uid if user else None,
                group=user.gid if user else None,
                extra_groups=user.groups if user else None,
            )
        except OSError as error:
            LOG.error("%s cannot be started: %s", self.title, error)
            self.wait_before_start(now)
        finally:
            if listener is not None:
                listener.close()

    def _listen(self) -> socket.socket | None:
        if self.path is None or self.owner is None:
            return None
        if os.path.lexists(self.path):
            os.unlink(self.path)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        mask = os.umask(0o177)
        try:
            listener.bind(self.path)
        finally:
            os.umask(mask)
        if os.geteuid() == 0:
            os.chown(self.path, self.owner.uid, self.owner.gid)
        listener.listen(BACKLOG)
        return listener

    def _environment(self) -> dict[str, str]:
        own = ("ANYGATE_", "LISTEN_", "NOTIFY_SOCKET", "WATCHDOG_")
        environment = {name: value for name, value in os.environ.items() if not name.startswith(own)}
        environment["_ANYGATE_WITH_PARENT"] = "1"
        environment["NOTIFY_SOCKET"] = os.path.join(self.folder, "notices")
        if not self.name:
            # The folder where anygate was started may hold modules of an application.
            environment["PYTHONSAFEPATH"] = "1"
        elif os.geteuid() == 0 and self.identity.name:
            environment |= {
                "HOME": self.identity.home,
                "USER": self.identity.name,
                "LOGNAME": self.identity.name,
            }
        return environment

    def wait_before_start(self, now: float) -> None:
        """Pause before the next start, longer each time it ends soon."""
        self.pause = next_pause(self.pause, now - self.started)
        self.start_at = now + self.pause
        self.was_judged = True

    def signal(self, number: int) -> None:
        """Send a signal to its process, if it has one."""
        if self.process is not None:
            self.process.send_signal(number)

    def close(self) -> None:
        """Remove what it had."""
        self.notices.close()
        shutil.rmtree(self.folder, ignore_errors=True)


class _Apps:
    def __init__(self, site: Site, identities: dict[str, Identity], folder: str, read: Callable[[], Site]):
        self.folder, self.read = folder, read
        self.numbers = 0
        self.code = 0
        self.ending = False
        self.reloading = False
        self.is_told = False
        self.manager = os.environ.get("NOTIFY_SOCKET")
        self.site = site
        self.sockets = os.path.join(folder, "sockets")
        os.mkdir(self.sockets)
        os.chmod(self.sockets, 0o711)
        self.router = Server("", identities[""], self._place(), [sys.executable, "-m", "anygate"])
        self.apps: dict[str, Server] = {}
        for app in site.apps:
            self.apps[app.name] = self._new(app, identities[app.name])
        self._write(site)

    def _place(self) -> str:
        self.numbers += 1
        return os.path.join(self.folder, str(self.numbers))

    def _new(self, app: App, identity: Identity) -> Server:
        place = self._place()
        command = [str(app.python or sys.executable), "-m", "anygate"]
        path = os.path.join(self.sockets, os.path.basename(place))
        return Server(app.name, identity, place, command, path, self.router.identity)

    def _write(self, site: Site) -> None:
        for app in site.apps:
            self.apps[app.name].write(app.settings)
        text = site.router
        for app in site.apps:
            pairs = {"name": app.name, "host": app.host, "path": app.path, "socket": self.apps[app.name].path}
            text += "\n[[route]]\n" + "".join(f"{key} = {_quoted(str(value))}\n" for key, value in pairs.items())
        self.router.write(text)

    @property
    def servers(self) -> list[Server]:
        return [self.router, *self.apps.values()]

    def run(self) -> int:
        signals = NotedSignals()
        while True:
            now = time.monotonic()
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
            site = self.read()
            identities = _identities(site)
        except ValueError as error:
            LOG.error("not reloaded: %s", error)
            return
        if (site.user, site.group) != (self.site.user, self.site.group):
            LOG.error("not reloaded: user and group of the router cannot change without a restart")
            return
        self._notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
        self.reloading = True
        before = {app.name: app for app in self.site.apps}
        for app in site.apps:
            server, old = self.apps.get(app.name), before.get(app.name)
            if server is not None and old is not None and not server.is_leaving:
                if (old.user, old.group, old.python) == (app.user, app.group, app.python):
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
                server.was_judged = False
                server.signal(signal.SIGHUP)
            else:
                server.start_at = 0.0


def _quoted(text: str) -> str:
    """Write a string of TOML."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
