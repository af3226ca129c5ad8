"""Jobs driven by requests, around an application under any server: the first response of a minute starts its jobs.

anygate's own server needs none of this: there the supervisor knows of traffic. Processes that meet in the same minute
each start ``anygate cron --once``, and only one of those finds the minute free.
"""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Iterable
from typing import Any

from anygate.importer import python
from anygate.response_end import followed
from anygate.server import Application


class SoftCron:
    """A WSGI application around another. ``arguments`` are those of an ``anygate`` that has the jobs."""

    def __init__(self, application: Application, arguments: list[str], folder: str):
        self.application = application
        self._command = [python(), "-m", "anygate", "cron", "--once", *arguments]
        self._folder = folder
        self._minute = 0

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """Call the application; in a new minute the jobs start when the response has been taken."""
        minute = int(time.time() // 60)
        response = self.application(environ, start_response)
        if minute == self._minute:
            return response
        self._minute = minute
        return followed(response, self._start)

    def _start(self) -> None:
        # A thread, so that a server that reuses its own for the next request is not held up, and so that the process
        # is waited for when it ends.
        threading.Thread(target=self._run, name="soft-cron", daemon=True).start()

    def _run(self) -> None:
        subprocess.run(self._command, cwd=self._folder, stdin=subprocess.DEVNULL, check=False)
