"""What hooks are called with: small objects with the names of gunicorn's, as far as hooks use them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cached_property
from types import ModuleType
from typing import Any


class Settings:
    """``cfg``: what a ``gunicorn.conf.py`` sets, and the settings of this server under gunicorn's names."""

    def __init__(self, module: ModuleType, settings: dict[str, Any]):
        self._module = module
        self.settings = settings

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("_"):
            for source in (vars(self._module), self.settings):
                if name in source:
                    return source[name]
        raise AttributeError(f"the settings have no {name!r}")


class Server:
    """``server``: the whole of supervisor and workers."""

    def __init__(self, pid: int, cfg: Settings, log: logging.Logger):
        self.pid = pid
        self.cfg = cfg
        self.log = log
        self.num_workers: int | None = None
        self.worker_age = 0
        #: Workers by their process numbers.
        self.WORKERS: dict[int, Worker] = {}
        self.LISTENERS = list(cfg.settings["bind"])
        self.address = self.LISTENERS
        self.proc_name = cfg.settings["proc_name"]
        self.timeout = cfg.settings["timeout"]


class Worker:
    """``worker``: one worker. What a hook before the fork adds to it is there after the fork, too."""

    def __init__(self, age: int, server: Server):
        self.age = age
        self.pid: int | None = None
        self.ppid = server.pid
        self.cfg = server.cfg
        self.log = server.log
        self.timeout = server.timeout
        #: Requests that it has begun.
        self.nr = 0
        self.alive = True
        self.booted = False
        self.aborted = False
        #: The application, from ``post_worker_init`` on.
        self.wsgi: Callable[..., Any] | None = None

    def __str__(self) -> str:
        return f"<Worker {self.pid}>"


class Request:
    """``req``: the head of a request."""

    def __init__(self, environ: dict[str, Any]):
        self._environ = environ
        self._original: list[tuple[str, str]] = []
        self.method = environ["REQUEST_METHOD"]
        self.uri = environ.get("RAW_URI") or environ.get("REQUEST_URI", "")
        self.path = self.uri.partition("?")[0]
        self.query = environ.get("QUERY_STRING", "")
        self.fragment = ""
        self.scheme = environ["wsgi.url_scheme"]
        self.body = environ["wsgi.input"]
        self.remote_addr = (environ.get("REMOTE_ADDR", ""), environ.get("REMOTE_PORT", ""))
        self.peer_addr = self.remote_addr
        self.proxy_protocol_info = None

    @cached_property
    def version(self) -> tuple[int, int]:
        """The version of HTTP, as two numbers."""
        major, _, minor = self._environ["SERVER_PROTOCOL"].partition("/")[2].partition(".")
        return int(major), int(minor or 0)

    @cached_property
    def headers(self) -> list[tuple[str, str]]:
        """The fields, with their names in capitals. A field that a hook appends is seen by the application."""
        names = [(name[5:], name) for name in self._environ if name.startswith("HTTP_")]
        names += [(name, name) for name in ("CONTENT_TYPE", "CONTENT_LENGTH") if self._environ.get(name)]
        self._original = [(shown.replace("_", "-"), self._environ[name]) for shown, name in names]
        return list(self._original)

    def apply(self) -> None:
        """Let the application see fields that a hook has added."""
        if "headers" in self.__dict__:
            for name, value in self.headers:
                if (name, value) not in self._original:
                    self._environ["HTTP_" + name.upper().replace("-", "_")] = value


class Response:
    """``resp``: what has become of a request."""

    def __init__(self, request: Request):
        self.req = request
        self.status: str | None = None
        self.headers: list[tuple[str, str]] = []
        self.headers_sent = False
        #: Bytes of the body.
        self.sent = 0
        self.response_length: int | None = None

    @property
    def status_code(self) -> int | None:
        """The number of the status; None without a response."""
        return int(self.status.split()[0]) if self.status else None
