"""Task of a server of another package, for this process and for those that the server starts."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any

from anygate import importer
from anygate._anygate import Site
from anygate.server import Application

#: Exit codes: a wrong option; a server or an application that cannot be loaded.
WRONG_USAGE, NOT_THERE = 2, 3


class CannotServe(Exception):
    """The server does not support this; the message says what, and what to do instead."""

    def __init__(self, message: str, code: int = WRONG_USAGE):
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Task:
    """Task of a server. ``None``: not set."""

    target: str
    host: str | None = None
    port: int | None = None
    #: Path of a unix socket, instead of host and port.
    unix: str | None = None
    #: Protocol of the address, if it is not HTTP.
    protocol: str | None = None
    workers: int | None = None
    threads: int | None = None
    certificate: str | None = None
    key: str | None = None
    #: A path, or ``-`` for standard output.
    access_log: str | None = None
    web2py_log: str | None = None
    log_level: str | None = None
    #: Module, or path of a file, with functions for events of the server.
    hooks: str | None = None
    profiler: str | None = None
    #: Host names that mean this machine, for the profiler's page.
    local_hosts: tuple[str, ...] = ()
    chdir: str | None = None
    pythonpath: tuple[str, ...] = ()
    virtualenv: str | None = None
    #: Variables of the environment, each with its value.
    env: tuple[tuple[str, str], ...] = ()
    server: str = ""
    #: Options that only that server knows, as texts.
    server_options: tuple[tuple[str, str], ...] = ()
    #: The address as ``host:port`` or ``unix:path``.
    bind: str = ""
    announcement: tuple[str, ...] = ()
    #: Jobs beside it: ``mode`` (hard or soft), and the ``arguments`` of the command line that has them.
    cron: dict[str, Any] | None = None
    #: Directory in which it was started, before ``chdir``.
    started_in: str = field(default_factory=os.getcwd)
    #: Options of the policies, as keywords for :func:`anygate.wsgihandler`.
    around: dict[str, Any] = field(default_factory=dict)
    #: Options that were set, each with the name that the user wrote.
    given: dict[str, str] = field(default_factory=dict)

    @classmethod
    def from_json(cls, text: str) -> Task:
        """Parse the output of :meth:`to_json`."""
        return cls(**json.loads(text))

    def to_json(self) -> str:
        """Return the task as text, for another process."""
        return json.dumps({f.name: getattr(self, f.name) for f in fields(self)})

    @property
    def address(self) -> tuple[str, int]:
        """Host and port of a server that listens there."""
        return self.host or "127.0.0.1", 8000 if self.port is None else self.port

    def cannot_have(self, reason: str) -> CannotServe:
        """Return the error for an option that only this server knows, which names it as the user wrote it."""
        return CannotServe(f"{self.given.get('server_option', 'server_option')}: {reason}")

    @property
    def options(self) -> dict[str, Any]:
        """Options that only this server knows, with their values: JSON, or text that is no JSON."""
        return {key: _value(text) for key, text in self.server_options}

    def keywords(self, **own: Any) -> dict[str, Any]:
        """Return ``own``, which are anygate's, with the options that only this server knows.

        Raises CannotServe for an option that anygate sets itself.
        """
        for key in self.options:
            if key in own:
                raise self.cannot_have(f"{key}: anygate sets it for {self.server}; see anygate servers {self.server}")
        return {**own, **self.options}

    def check_options(self, has: Callable[[str], bool]) -> None:
        """Raise CannotServe for an option that the server does not have."""
        for name in self.options:
            if not has(name):
                raise self.cannot_have(f"{self.server} has no setting {name!r}; see anygate servers {self.server}")

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
            option, colon, reason = str(error).partition(":")
            raise CannotServe(f"{self.given.get(option, option)}{colon}{reason}") from error

    @cached_property
    def application(self) -> Application:
        """The application, loaded when it is first asked for, with what was asked to be around it.

        Raises CannotServe when it cannot be loaded, and OSError when ``httpserver.log`` cannot be opened.
        """
        try:
            importer.prepare(self.env, self.virtualenv)
            application: Application = importer.load(self.target, self.pythonpath)
        except Exception as error:
            raise CannotServe(importer.explain(self.target, error), NOT_THERE) from error
        if self.profiler is not None:
            from anygate.profiler import Profiler

            try:
                application = Profiler(application, self.profiler, hosts=self.local_hosts)
            except ValueError as error:
                raise CannotServe(str(error), NOT_THERE) from error
        if self.site is not None:
            from anygate.middleware import Middleware

            try:
                application = Middleware(application, self.site)
            except ValueError as error:
                raise CannotServe(str(error), NOT_THERE) from error
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


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


#: What was exported, for processes that are forked from this one.
_exported: Task | None = None


def exported() -> Task:
    """Return what this process, or the one that started it, has exported."""
    return _exported or Task.from_json(os.environ["_ANYGATE_TASK"])
