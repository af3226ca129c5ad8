"""Serving with a server of another package: what it is to do, whether it can, and the table of all servers.

How each one is started is in :mod:`anygate.adapters`.
"""

from __future__ import annotations

import difflib
import importlib.metadata
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any, NoReturn

from anygate import importer
from anygate._anygate import Site
from anygate.server import Application

#: Exit codes: a wrong option; a server or an application that cannot be loaded.
WRONG_USAGE, NOT_THERE = 2, 3

#: Options that mean the same under every server: they concern the application or this module.
UNIVERSAL = frozenset({"app", "bind", "chdir", "config", "ip", "port", "pythonpath", "scgi", "server"}) | frozenset(
    {"cron_mode", "cron_state", "logging", "password", "profiler", "web2py"}
)

#: Those that ``tls`` in :attr:`Server.supports` stands for.
TLS_OPTIONS = frozenset({"ssl_certificate", "ssl_private_key"})

#: Options for which processes count together, and those of them that Redis can count (``shared``).
COUNTED = ("rate_limit", "requests_per_client_max", "cache")
SHARED = ("rate_limit", "cache")


class CannotServe(Exception):
    """The server cannot do this; the message says what and what to do instead."""

    def __init__(self, message: str, code: int = WRONG_USAGE):
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Server:
    """What is known about one server."""

    name: str
    #: Starts it and returns when it has ended.
    run: Callable[[Task], object] | None
    #: On PyPI, and what is imported to find out whether it is there.
    package: str = ""
    module: str = ""
    #: Another package without which it does not serve WSGI.
    needs: str = ""
    #: What may run at the same time, in words.
    concurrency: str = "one request at a time"
    protocols: tuple[str, ...] = ("http",)
    #: Of: workers, threads, tls, unix, access_log, log_level.
    supports: frozenset[str] = frozenset()
    state: str = "alive"
    #: Where its answers differ from what PEP 3333 and RFC 9110 ask for: by the request of tests/servers that shows it.
    breaks: Mapping[str, str] = field(default_factory=dict)
    #: For those that cannot run any more: which to take.
    instead: str = ""
    #: Its loop is not Python's, so a signal handler of Python would not run.
    loop_in_c: bool = False
    #: What is around an application can be put around the one that it serves.
    wraps: bool = True
    #: Several processes of it load the application each for themselves, so that they cannot count together.
    counts_apart: bool = False

    @property
    def version(self) -> str | None:
        """The installed version, ``None`` if it is not installed."""
        if self.name in ("native", "cgi"):
            return importlib.metadata.version("anygate")
        if not self.package:
            return sys.version.split()[0] if self.run else None
        if importlib.util.find_spec(self.module or self.package) is None and program(self.package) is None:
            return None
        try:
            return importlib.metadata.version(self.package)
        except importlib.metadata.PackageNotFoundError:
            return None


@dataclass(frozen=True)
class Task:
    """What a server is to do. ``None``: nobody said anything about it."""

    target: str
    host: str | None = None
    port: int | None = None
    #: A path, in place of host and port.
    unix: str | None = None
    #: Asked for with the address, if it is not HTTP.
    protocol: str | None = None
    workers: int | None = None
    threads: int | None = None
    certificate: str | None = None
    key: str | None = None
    #: A path, or ``-`` for standard output.
    access_log: str | None = None
    web2py_log: str | None = None
    log_level: str | None = None
    profiler: str | None = None
    chdir: str | None = None
    pythonpath: tuple[str, ...] = ()
    server: str = ""
    #: The address as ``host:port`` or ``unix:path``.
    bind: str = ""
    announcement: str = ""
    #: Jobs beside it: ``mode`` (hard or soft), and the ``arguments`` of the command line that has them.
    cron: dict[str, Any] | None = None
    #: Where it was started, before ``chdir``.
    started_in: str = field(default_factory=os.getcwd)
    #: What is around the application, as keywords for :func:`anygate.wsgihandler`.
    around: dict[str, Any] = field(default_factory=dict)
    #: Options that somebody set, and what they called them.
    given: dict[str, str] = field(default_factory=dict)

    @classmethod
    def from_json(cls, text: str) -> Task:
        """Read what :meth:`to_json` wrote."""
        return cls(**json.loads(text))

    def to_json(self) -> str:
        """Everything, for another process."""
        return json.dumps({f.name: getattr(self, f.name) for f in fields(self)})

    @property
    def address(self) -> tuple[str, int]:
        """Host and port of a server that listens there."""
        return self.host or "127.0.0.1", 8000 if self.port is None else self.port

    @cached_property
    def site(self) -> Site | None:
        """What is around the application, None if there is nothing. Processes that are forked later count together.

        Raises CannotServe when it cannot be made.
        """
        if not self.around:
            return None
        try:
            return Site(None, self.started_in, **self.around)
        except (OSError, ValueError) as error:
            raise CannotServe(str(error)) from error

    @cached_property
    def application(self) -> Application:
        """The application, loaded when it is first asked for, with what was asked to be around it.

        Raises CannotServe when it cannot be loaded, and OSError when ``httpserver.log`` cannot be opened.
        """
        try:
            application: Application = importer.load(self.target, self.pythonpath)
        except Exception as error:
            raise CannotServe(importer.explain(self.target, error), NOT_THERE) from error
        if self.profiler is not None:
            from anygate.profiler import Profiler

            try:
                application = Profiler(application, self.profiler)
            except ValueError as error:
                raise CannotServe(str(error), NOT_THERE) from error
        if self.site is not None:
            from anygate.middleware import Middleware

            application = Middleware(application, self.site)
        if self.web2py_log is not None:
            from anygate.request_log import RequestLog

            application = RequestLog(application, self.web2py_log)
        if self.cron is not None and self.cron["mode"] == "soft":
            from anygate.soft_cron import SoftCron

            application = SoftCron(application, self.cron["arguments"], self.started_in)
        return application

    def export(self) -> str:
        """Make the application importable by processes that this one starts; return ``module:name``."""
        global _exported
        _exported = self
        os.environ["_ANYGATE_TASK"] = self.to_json()
        return "anygate.hosted:application"


#: What was exported, for processes that are forked from this one.
_exported: Task | None = None


def exported() -> Task:
    """Return what this process, or the one that started it, has exported."""
    return _exported or Task.from_json(os.environ["_ANYGATE_TASK"])


def program(name: str) -> str | None:
    """The path of a package's program: beside this interpreter's own, or on PATH."""
    beside = os.path.join(os.path.dirname(sys.executable), name)
    return beside if os.access(beside, os.X_OK) else shutil.which(name)


def find(name: str) -> Server:
    """Return the server of that name.

    Raises CannotServe when there is none, when it cannot run any more, or when its package is missing.
    """
    from anygate.adapters import SERVERS

    server = SERVERS.get(name)
    if server is None:
        near = difflib.get_close_matches(name, SERVERS, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise CannotServe(f"server: there is no server {name!r}; {hint}anygate servers lists them")
    if server.run is None and server.name != "native":
        raise CannotServe(f"server: {name} cannot run today: {server.state}; take -s {server.instead}", NOT_THERE)
    if server.version is None:
        raise CannotServe(f"server: {name} is not installed: pip install {server.package}", NOT_THERE)
    if server.needs and importlib.util.find_spec(server.needs) is None:
        message = f"server: {name} needs {server.needs}, which is not installed: pip install {server.needs}"
        raise CannotServe(message, NOT_THERE)
    return server


def check(server: Server, task: Task) -> None:
    """Raise CannotServe if something was asked for that the server cannot do."""
    for option, called in task.given.items():
        known = option in UNIVERSAL or option in server.supports or (option in TLS_OPTIONS and "tls" in server.supports)
        if not known and not (server.wraps and option in task.around):
            can = ", ".join(sorted(server.supports)) or "none of its own"
            raise CannotServe(
                f"{called}: {server.name} has no such option (it has: {can}); leave it out or serve natively"
            )
    if task.unix is not None and "unix" not in server.supports:
        raise CannotServe(f"{task.bind}: {server.name} does not listen on unix sockets; give it a host and a port")
    if task.protocol is not None and task.protocol not in server.protocols:
        spoken = ", ".join(server.protocols)
        raise CannotServe(f"{task.protocol}: {server.name} does not speak it (it speaks {spoken}); serve natively")
    if not server.protocols and {"ip", "port", "bind"} & task.given.keys():
        raise CannotServe(f"{task.bind}: {server.name} listens nowhere: a CGI server starts it for each request")


def prepare(text: str) -> tuple[Server, Task]:
    """Return what :func:`launch` needs for the JSON of a :class:`Task`.

    Raises CannotServe when there is no such server, or it cannot do this.
    """
    task = Task.from_json(text)
    server = find(task.server)
    check(server, task)
    if task.site is not None and server.counts_apart and (task.workers or 1) > 1:
        warn_of_counting_apart(task)
    return server, task


def launch(server: Server, task: Task) -> int:
    """Serve; return the exit code."""
    try:
        assert server.run is not None
        if task.chdir is not None:
            os.chdir(task.chdir)
        if server.protocols:
            print(task.announcement, flush=True)
        if task.cron is not None and task.cron["mode"] == "hard":
            environment = {**os.environ, "_ANYGATE_WITH_PARENT": "1"}
            command = [sys.executable, "-m", "anygate", "cron", "beside", *task.cron["arguments"]]
            # It ends when this process does, whatever that becomes.
            subprocess.Popen(command, cwd=task.started_in, env=environment, stdin=subprocess.DEVNULL)
        if not server.loop_in_c:
            signal.signal(signal.SIGTERM, _end)
        server.run(task)
    except CannotServe as error:
        print(f"anygate: error: {error}", file=sys.stderr)
        return error.code
    except KeyboardInterrupt:
        return 0
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except OSError as error:
        # One about a file names it; any other is about the address.
        where = "" if error.filename is not None else f"{task.bind}: "
        print(f"anygate: error: {where}{error}", file=sys.stderr)
        return 1
    return 0


def warn_of_counting_apart(task: Task) -> None:
    """Say which limits hold for each process of a server, and not for all of them."""
    for option in COUNTED:
        if option in task.around and not (option in SHARED and "shared" in task.around):
            called = task.given.get(option, option)
            print(
                f"anygate: warning: {called}: each process of {task.server} counts for itself; take another server"
                f"{', set shared' if option in SHARED else ''} or leave it at one process",
                file=sys.stderr,
            )


def _end(_number: int, _frame: Any) -> NoReturn:
    raise SystemExit(0)


def table() -> str:
    """All servers, one a line: name, version or how to install it, concurrency, protocols, TLS, state."""
    from anygate.adapters import SERVERS

    rows = [("NAME", "VERSION", "CONCURRENCY", "PROTOCOLS", "TLS", "STATE")]
    for server in SERVERS.values():
        if server.run is None and server.name != "native":
            version = "-"
        else:
            version = server.version or f"pip install {server.package}"
        state = "; ".join([server.state, *(f"breaks: {what}" for what in server.breaks.values())])
        if server.instead:
            state += f"; take {server.instead}"
        tls = "yes" if "tls" in server.supports else "-"
        rows.append((server.name, version, server.concurrency, " ".join(server.protocols) or "-", tls, state))
    widths = [max(len(row[place]) for row in rows) for place in range(5)]
    return "".join(
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[5]]) + "\n"
        for row in rows
    )
