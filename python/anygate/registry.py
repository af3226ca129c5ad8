"""Registry of servers of other packages, which :mod:`anygate.adapters` fills."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from anygate.task import Task


@dataclass(frozen=True)
class Server:
    """Properties of one server."""

    name: str
    #: Function that starts it and returns when it has ended.
    run: Callable[[Task], object] | None
    #: Name on PyPI, and the module whose import shows whether it is installed.
    package: str = ""
    module: str = ""
    #: Another package that it needs for WSGI.
    needs: str = ""
    #: Kind of concurrency, in words.
    concurrency: str = "one request at a time"
    protocols: tuple[str, ...] = ("http",)
    #: Supported options: workers, threads, tls, unix, access_log, log_level, hooks.
    supports: frozenset[str] = frozenset()
    state: str = "alive"
    #: Deviations from PEP 3333 and RFC 9110, by the request of tests/servers that shows them.
    breaks: Mapping[str, str] = field(default_factory=dict)
    #: Replacement for a server that cannot be used any more.
    instead: str = ""
    #: Where ``server_option`` is passed; empty if it has none.
    options: str = ""
    #: What it is to be taken for.
    best_for: str = ""
    #: Its loop is not Python's, so a signal handler of Python would not run.
    loop_in_c: bool = False
    #: Whether policies can be put around the application that it serves.
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


#: All servers by name, in the order of the table.
SERVERS: dict[str, Server] = {}

Adapter = Callable[[Task], object]


def server(*names: str, supports: str = "", **known: Any) -> Callable[[Adapter], Adapter]:
    """Register an adapter under each of ``names``; the fields are those of :class:`Server`."""

    def register(run: Adapter) -> Adapter:
        for name in names:
            SERVERS[name] = Server(name, run, supports=frozenset(supports.split()), **known)
        return run

    return register


def program(name: str) -> str | None:
    """The path of a package's program: beside this interpreter's own, or on PATH."""
    beside = os.path.join(os.path.dirname(sys.executable), name)
    return beside if os.access(beside, os.X_OK) else shutil.which(name)
