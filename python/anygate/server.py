"""Serving from a Python program."""

from __future__ import annotations

import atexit
import json
import signal
import threading
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Any

from anygate import _anygate, app_threads, importer, mounts

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

    from anygate.mounts import Mount
    from anygate.options import Options

#: A WSGI application as PEP 3333 describes it; ``wsgiref.types.WSGIApplication`` is the precise type.
Application = Callable[[dict[str, Any], Any], Iterable[bytes]]

_SIGNALS = ("SIGTERM", "SIGINT", "SIGQUIT", "SIGHUP", "SIGUSR1", "SIGTTIN", "SIGTTOU", "SIGCHLD", "SIGPIPE")


def serve(app: Application | str, *, mount: Iterable[Mount] = (), **options: Unpack[Options]) -> None:
    """Serve ``app`` with a supervisor and worker processes until a signal ends it.

    ``app`` is a WSGI callable, or a target such as ``"myapp:app"``, which can be reloaded by SIGHUP. ``mount``: other
    applications, as in ``[{"path": "/shop", "app": shop}, {"host": "blog.example.org", "app": "blog:app"}]``.

    Raises TypeError for an option that does not exist, ValueError for a value that it cannot have, OSError when an
    address or a log cannot be opened, and SystemExit(3) when the application cannot be loaded. The process's signal
    handlers are put back at the end if this runs in the main thread.
    """
    before = {}
    if threading.current_thread() is threading.main_thread():
        before = {number: signal.getsignal(number) for number in (getattr(signal, name) for name in _SIGNALS)}
    try:
        _anygate.serve(mounts.around(app, mount), **options)
    finally:
        for number, handler in before.items():
            if handler is not None:
                signal.signal(number, handler)


def run(
    servername: str = "native",
    ip: str = "127.0.0.1",
    port: int | str = 8000,
    softcron: bool = True,
    logging: bool = False,
    profiler: str | None = None,
    options: Any = None,
    app: str | None = None,
) -> None:
    """Serve with a server by name, as ``run`` of web2py's ``anyserver.py`` did, until a signal ends it.

    What is served is ``app``, a target such as ``"myapp:app"``, or else the web2py site in the current folder.
    ``options.workers`` counts, if there is such an attribute. ``options`` may also be a dictionary of what only that
    server knows, such as ``{"connection_limit": 500}`` for waitress.

    Raises SystemExit with the exit code of the command line if it cannot be served.
    """
    arguments = ["-s", servername, "-i", str(ip), "-p", str(port)]
    arguments += ["--logging"] if logging else []
    arguments += ["--profiler", profiler] if profiler else []
    arguments += ["--cron-mode", "soft"] if softcron and app is None else []
    known = options if isinstance(options, dict) else {}
    arguments += [part for key, value in known.items() for part in ("--server-option", f"{key}={json.dumps(value)}")]
    workers = getattr(options, "workers", None)
    arguments += ["--workers", str(workers)] if workers else []
    arguments += [app] if app is not None else ["--web2py", "."]
    code = _anygate.main(arguments)
    if code != 0:
        raise SystemExit(code)


class Server(_anygate.Server):
    """A server inside this program: one worker, with threads of its own, until :meth:`stop`.

    ``Server(app, port=0)`` lets the system choose a port, which :attr:`url` tells. Options are those of the command
    line; ``workers`` must be 1. ``on_connection`` is called with the number of open connections each time that changes,
    in a thread of its own; what it raises is logged. ``mount`` is that of :func:`serve`. Raises as that does.
    """

    def __new__(
        cls,
        app: Application | str,
        *,
        mount: Iterable[Mount] = (),
        on_connection: Callable[[int], object] | None = None,
        **options: Unpack[Options],
    ) -> Self:
        """Make a server, which does not serve yet."""
        found = mounts.around(app, mount)
        found = importer.load(found) if isinstance(found, str) else found
        return super().__new__(cls, found, on_connection=on_connection, **options)

    @property
    def url(self) -> str:
        """The first address, such as ``http://127.0.0.1:8000``; ``""`` before the first :meth:`start`."""
        return self.urls[0] if self.urls else ""

    def start(self) -> None:
        """Start serving; at its end the program stops as :meth:`stop` does."""
        super().start()
        atexit.register(self._end)

    def stop(self) -> None:
        """Take no new connections, and wait for requests in flight, at most ``graceful_timeout``."""
        atexit.unregister(self._end)
        super().stop()

    def metrics(self) -> str:
        """Return the metrics in Prometheus' text format.

        Raises RuntimeError when ``metrics_path`` is not set, so that nothing is counted, and when it is not running.
        """
        return super().metrics()

    def _end(self) -> None:
        """Stop, because the program ends."""
        self.stop()
        app_threads.interrupt()

    def __enter__(self) -> Server:
        """Start serving."""
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop serving."""
        self.stop()
