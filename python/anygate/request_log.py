"""The line that web2py's ``appfactory`` writes into ``httpserver.log``, around any application under any server."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable
from typing import Any

from anygate.response_end import followed
from anygate.server import Application


class RequestLog:
    """A WSGI application around another, which writes a line when a call has returned.

    ``127.0.0.1, 2026-08-21 11:16:36, GET, /welcome/default/index, HTTP/1.1, 200, 0.012345``: client, local time,
    method, path with ``,`` as ``%2C``, protocol, status, seconds.
    """

    def __init__(self, application: Application, path: str | os.PathLike[str]):
        self.application = application
        # Each line is one write to a file that is appended to, so that processes can share it.
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """Call the application, then log."""
        began = time.perf_counter()
        statuses: list[str] = []

        def start(status: str, headers: list[tuple[str, str]], *error: Any) -> Any:
            statuses.append(status[:3])
            return start_response(status, headers, *error)

        try:
            response = self.application(environ, start)
        except BaseException:
            self._log(environ, statuses, began)
            raise
        if not statuses:
            # A generator function calls start_response when its first piece is asked for.
            return followed(response, lambda: self._log(environ, statuses, began))
        self._log(environ, statuses, began)
        return response

    def _log(self, environ: dict[str, Any], statuses: list[str], began: float) -> None:
        line = "{}, {}, {}, {}, {}, {}, {:f}\n".format(
            _escaped(environ.get("REMOTE_ADDR", "")),
            time.strftime("%Y-%m-%d %H:%M:%S"),
            _escaped(environ.get("REQUEST_METHOD", "")),
            _escaped(environ.get("PATH_INFO", "")),
            _escaped(environ.get("SERVER_PROTOCOL", "")),
            _escaped(statuses[-1] if statuses else ""),
            time.perf_counter() - began,
        )
        # A full disk loses the line, not the response.
        with contextlib.suppress(OSError):
            os.write(self._file, line.encode("utf-8", "replace"))


def _escaped(text: str) -> str:
    """``text`` as one item of one line."""
    return text.replace(",", "%2C").encode("unicode_escape").decode("ascii")
