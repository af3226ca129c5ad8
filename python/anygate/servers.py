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
from dataclasses import replace
from typing import Any, NoReturn

from anygate.adapters import SERVERS
from anygate.registry import Server
from anygate.task import NOT_THERE, WRONG_USAGE, CannotServe, Task

#: Options that mean the same under every server: they concern the application or this module.
UNIVERSAL = frozenset({"app", "bind", "chdir", "config", "ip", "port", "pythonpath", "scgi", "server"}) | frozenset(
    {
        "server_option",
        "cron_mode",
        "cron_state",
        "env",
        "local_hosts",
        "logging",
        "password",
        "profiler",
        "virtualenv",
        "web2py",
    }
)

#: Options that ``tls`` in :attr:`Server.supports` stands for.
TLS_OPTIONS = frozenset({"ssl_certificate", "ssl_private_key"})

#: Options for which processes count together, and those of them that Redis can count (``shared``).
COUNTED = ("rate_limit", "requests_per_client_max", "cache", "metrics_path")
SHARED = ("rate_limit", "cache")


def named(name: str, option: str = "server") -> Server:
    """Return the entry of that name. Raises CannotServe when there is none. ``option``: where the user wrote it."""
    server = SERVERS.get(name)
    if server is None:
        near = difflib.get_close_matches(name, SERVERS, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise CannotServe(f"{option}: there is no server {name!r}; {hint}anygate servers lists them")
    return server


def find(name: str, option: str = "server") -> Server:
    """Return the server of that name, which the user wrote in an option.

    Raises CannotServe when there is none, when it cannot run any more, or when its package is missing.
    """
    server = named(name, option)
    if server.run is None and server.name != "native":
        raise CannotServe(f"{option}: {name} cannot be used: {server.state}; use -s {server.instead}", NOT_THERE)
    if server.version is None:
        raise CannotServe(f"{option}: {name} is not installed: pip install {server.package}", NOT_THERE)
    if server.needs and importlib.util.find_spec(server.needs) is None:
        message = f"{option}: {name} needs {server.needs}, which is not installed: pip install {server.needs}"
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
    if task.server_options and not server.options:
        raise task.cannot_have(f"{server.name} has no options beside those of anygate")
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
    server = find(task.server, task.given.get("server", "server"))
    check(server, task)
    task = with_one_access_log(server, task)
    if task.site is not None and server.counts_apart and (task.workers or 1) > 1:
        warn_of_counting_apart(task)
    return server, task


def with_one_access_log(server: Server, task: Task) -> Task:
    """Return the task with the server's own access log, or with ours where that one cannot be as it was asked for."""
    has_own = task.access_log is not None and "access_log" in server.supports
    if not has_own or "access_log_format" in task.given:
        return replace(task, access_log=None)
    ours = ("access_log", "access_log_format")
    return replace(task, around={name: value for name, value in task.around.items() if name not in ours})


def launch(server: Server, task: Task) -> int:
    """Serve; return the exit code."""
    try:
        assert server.run is not None
        if task.chdir is not None:
            os.chdir(task.chdir)
        if server.protocols:
            print(*task.announcement, sep="\n", flush=True)
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
    except (AttributeError, TypeError, ValueError) as error:
        # Most servers say in this way that they have no such option, or not with this value.
        if not task.server_options:
            raise
        print(f"anygate: error: {task.cannot_have(f'{task.server}: {type(error).__name__}: {error}')}", file=sys.stderr)
        return WRONG_USAGE
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


#: What each word of ``supports`` is on the command line.
FLAGS = {
    "workers": "--workers",
    "threads": "--threads",
    "tls": "--ssl-certificate, --ssl-private-key",
    "unix": "--bind unix:PATH",
    "access_log": "--access-log",
    "log_level": "--log-level",
    "hooks": "--hooks",
}


def about(name: str) -> str:
    """Return what is passed to a server, and how. Raises CannotServe when there is none of that name."""
    server = named(name)
    if server.run is None and server.name != "native":
        return f"{name} cannot be used: {server.state}; use -s {server.instead}\n"
    rows = [
        ("installed", server.version or f"no: pip install {server.package}"),
        ("concurrency", server.concurrency),
        ("protocols", ", ".join(server.protocols) or "-"),
        ("options", "; ".join(FLAGS[word] for word in FLAGS if word in server.supports) or "-"),
        ("its own options", server.options and f"--server-option KEY=VALUE, passed as {server.options}"),
        ("take it for", server.best_for),
        ("state", server.state),
        ("breaks", "; ".join(server.breaks.values())),
    ]
    return "".join(f"{label + ':':17}{text}\n" for label, text in rows if text)


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
        if server.best_for:
            state += f"; for {server.best_for}"
        tls = "yes" if "tls" in server.supports else "-"
        rows.append((server.name, version, server.concurrency, " ".join(server.protocols) or "-", tls, state))
    widths = [max(len(row[place]) for row in rows) for place in range(5)]
    return "".join(
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[5]]) + "\n"
        for row in rows
    )
