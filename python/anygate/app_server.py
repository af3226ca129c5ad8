"""One of several applications, or their router: whom its process runs as, its folder, its sockets."""

from __future__ import annotations

import grp
import logging
import os
import pwd
import shutil
import socket
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from anygate.server_processes import next_pause

T = TypeVar("T")

LOG = logging.getLogger("anygate.apps")

#: Maximum number of connections that wait for an application.
BACKLOG = 2048


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


@dataclass
class Child:
    """A process that this one has not started as a ``Popen``."""

    pid: int
    code: int | None = None

    def poll(self) -> int | None:
        """Return its exit code, if it has ended."""
        if self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.code = os.waitstatus_to_exitcode(status) if pid else None
        return self.code

    def send_signal(self, number: int) -> None:
        """Send a signal, if it lives."""
        if self.poll() is None:
            os.kill(self.pid, number)


@dataclass
class Server:
    """A process: the router, whose name is empty, or an application's."""

    name: str
    identity: Identity
    folder: str
    command: list[str]
    #: What it says to its service manager.
    notices: socket.socket
    #: Path of the socket on which it is to serve.
    path: str | None = None
    #: Path of the socket of its admin address, if the router asks it.
    admin: str | None = None
    #: Whom those sockets belong to.
    owner: Identity | None = None
    process: subprocess.Popen[bytes] | Child | None = None
    started: float = 0.0
    start_at: float = 0.0
    pause: float = 0.0
    is_ready: bool = False
    #: It was ready, or has failed to become so.
    was_judged: bool = False
    #: It has been told to end.
    is_leaving: bool = False

    @classmethod
    def new(cls, name: str, identity: Identity, folder: str, command: list[str], **more: Any) -> Server:
        """Make its folder, and a socket for its notices there."""
        os.mkdir(folder, 0o700)
        notices = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        notices.setblocking(False)
        notices.bind(os.path.join(folder, "notices"))
        server = cls(name, identity, folder, command, notices, **more)
        if os.geteuid() == 0 and server.command_user is not None:
            os.chown(os.path.join(folder, "notices"), identity.uid, identity.gid)
            os.chown(folder, identity.uid, identity.gid)
        return server

    @classmethod
    def left(cls, what: dict[str, Any], identity: Identity, command: list[str], owner: Identity | None) -> Server:
        """Take over what the program before this one has left of it."""
        notices = socket.socket(fileno=what.pop("notices"))
        notices.set_inheritable(False)
        pid = what.pop("pid")
        server = cls(identity=identity, command=command, notices=notices, owner=owner, **what)
        server.process = Child(pid) if pid is not None else None
        for path in (server.path, server.admin):
            if path is not None and owner is not None and os.geteuid() == 0 and os.path.exists(path):
                os.chown(path, owner.uid, owner.gid)
        return server

    def leave(self) -> dict[str, Any]:
        """Return what the next program needs to take it over."""
        names = (
            "name",
            "folder",
            "path",
            "admin",
            "started",
            "start_at",
            "pause",
            "is_ready",
            "was_judged",
            "is_leaving",
        )
        what = {name: getattr(self, name) for name in names}
        return what | {"notices": self.notices.fileno(), "pid": self.process.pid if self.process else None}

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
        listeners = []
        user = self.command_user if os.geteuid() == 0 else None
        try:
            for path, option, protocol in ((self.path, "--bind", "routed+"), (self.admin, "--admin", "")):
                if path is not None:
                    # Only its own processes have it, so that it refuses connections when they are gone.
                    listeners.append(self._listen(path))
                    arguments += [option, f"{protocol}fd://{listeners[-1].fileno()}"]
            self.process = subprocess.Popen(
                arguments,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                pass_fds=[listener.fileno() for listener in listeners],
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
            for listener in listeners:
                listener.close()

    def _listen(self, path: str) -> socket.socket:
        if os.path.lexists(path):
            os.unlink(path)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        mask = os.umask(0o177)
        try:
            listener.bind(path)
        finally:
            os.umask(mask)
        if os.geteuid() == 0 and self.owner is not None:
            os.chown(path, self.owner.uid, self.owner.gid)
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
