"""Serving with a server of another package: whether it can do its task, its start, and the list of all servers.

How each one is started is in :mod:`anygate.adapters`.
"""

from __future__ import annotations

import difflib
import importlib.util
import os
import signal
import subprocess
import sys
from typing import Any, NoReturn

from anygate.adapters import SERVERS
from anygate.registry import Server
from anygate.task import NOT_THERE, CannotServe, Task

#: Options that mean the same under every server: they concern the application or this module.
UNIVERSAL = frozenset({"app", "bind", "chdir", "config", "ip", "port", "pythonpath", "scgi", "server"}) | frozenset(
    {"cron_mode", "cron_state", "env", "local_hosts", "logging", "password", "profiler", "virtualenv", "web2py"}
)

#: Options that ``tls`` in :attr:`Server.supports` stands for.
TLS_OPTIONS = frozenset({"ssl_certificate", "ssl_private_key"})

#: Options for which processes count together, and those of them that Redis can count (``shared``).
COUNTED = ("rate_limit", "requests_per_client_max", "cache")
SHARED = ("rate_limit", "cache")


def find(name: str) -> Server:
    """Return the server of that name.

    Raises CannotServe when there is none, when it cannot run any more, or when its package is missing.
    """
    server = SERVERS.get(name)
    if server is None:
        near = difflib.get_close_matches(name, SERVERS, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise CannotServe(f"server: there is no server {name!r}; {hint}anygate servers lists them")
    if server.run is None and server.name != "native":
        raise CannotServe(f"server: {name} cannot be used: {server.state}; use -s {server.instead}", NOT_THERE)
    if server.version is None:
        raise CannotServe(f"server: {name} is not installed: pip install {server.package}", NOT_THERE)
    if server.needs and importlib.util.find_spec(server.needs) is None:
        message = f"server: {name} needs {server.needs}, which is not installed: pip install {server.needs}"
        raise CannotServe(message, NOT_THERE)
    return server


def check(server: Server, task: Task) -> None:
    """Raise CannotServe if an option is set that the server does not support."""
    for option, called in task.given.items():
        known = option in UNIVERSAL or option in server.supports or (option in TLS_OPTIONS and "tls" in server.supports)
        if not known and not (server.wraps and option in task.around):
            can = ", ".join(sorted(server.supports)) or "none of its own"
            raise CannotServe(
                f"{called}: {server.name} does not support this option (it supports: {can}); "
                "remove it or use the native server"
            )
    if task.unix is not None and "unix" not in server.supports:
        raise CannotServe(f"{task.bind}: {server.name} does not listen on unix sockets; give it a host and a port")
    if task.protocol is not None and task.protocol not in server.protocols:
        spoken = ", ".join(server.protocols)
        raise CannotServe(
            f"{task.protocol}: {server.name} does not speak this protocol (it speaks {spoken}); use the native server"
        )
    if not server.protocols and {"ip", "port", "bind"} & task.given.keys():
        raise CannotServe(f"{task.bind}: {server.name} does not listen: a CGI server starts it for each request")


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
    """Warn of limits that apply to each process of a server, not to all of them together."""
    for option in COUNTED:
        if option in task.around and not (option in SHARED and "shared" in task.around):
            called = task.given.get(option, option)
            print(
                f"anygate: warning: {called}: each process of {task.server} counts separately; use another server"
                f"{', set shared' if option in SHARED else ''} or keep one process",
                file=sys.stderr,
            )


def _end(_number: int, _frame: Any) -> NoReturn:
    raise SystemExit(0)


def table() -> str:
    """Return all servers, one per line: name, version or how to install it, concurrency, protocols, TLS, state."""
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
