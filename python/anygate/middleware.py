"""Request policies around an application, under a server of another package.

The native module decides, as it does for anygate's own server. The application is called from here and not from there:
under gevent and eventlet it may be switched away from, which must not happen below a frame of the native module.
"""

from __future__ import annotations

import errno
import os
import sys
import weakref
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from anygate import failures, importer, mounts
from anygate._anygate import Exchange, FileWrapper, Site, log_message
from anygate.failures import Hook, formatted
from anygate.input_lines import Lines
from anygate.server import Application

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from anygate.mounts import Mount
    from anygate.options import PolicyOptions

_END = object()


def wsgihandler(
    app: Application | str,
    config: str | os.PathLike[str] | None = None,
    *,
    mount: Iterable[Mount] = (),
    **options: Unpack[PolicyOptions],
) -> Middleware:
    """Return ``app`` with a site's policies around it, for any WSGI server.

    ``app`` is a WSGI callable, or a target such as ``"myapp:app"``. ``config`` is a settings file, of which only what
    is around the application counts; ``options`` are such settings, too, and outrank it. ``mount``: other applications,
    as for ``anygate.serve``. Made before a server forks its processes, they count together.

    Raises TypeError for an option that does not exist or is for anygate's own server, ValueError for a value that an
    option cannot have, and LoadError when there is no such application.
    """
    site = Site(config, **options)
    app = mounts.around(app, mount, site.pythonpath)
    if isinstance(app, str):
        app = importer.load(app, site.pythonpath)
    return Middleware(app, site)


class Middleware:
    """A WSGI application around another."""

    def __init__(self, application: Application, site: Site):
        if site.on_error is not None:
            hook = importer.hook("on_error", site.on_error, site.pythonpath, ("environ", "exc_info"))
            application = Reporting(application, hook)
        self.application = application
        self._site = site
        # It runs when a process ends, too.
        weakref.finalize(self, site.end)

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """Respond, or let the application respond."""
        exchange = self._site.ask(environ)
        if exchange is None:
            return self.application(environ, start_response)
        response = _Response(exchange, environ, start_response)
        if exchange.has_response:
            response.tell_head()
            if exchange.is_open:
                response.refresh = lambda: _refresh(self.application, exchange, environ)
            return response
        if exchange.is_upgrade:
            # What a server takes for the end of a WebSocket is its own affair.
            return _upgraded(self.application, exchange, environ, start_response)
        return response.of(self.application)

    def metrics(self) -> str:
        """Return the metrics of all processes in Prometheus' text format.

        Raises RuntimeError when nothing is counted: neither ``metrics_path`` nor ``statsd`` is set.
        """
        return self._site.metrics()


class Reporting:
    """An application whose exceptions a function is told of."""

    def __init__(self, application: Application, on_error: Hook):
        self._application = application
        self._on_error = on_error

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """Respond as the application does."""
        try:
            returned = self._application(environ, start_response)
        except Exception as error:
            self.tell(error, environ)
            raise
        # Their blocks raise nothing.
        passes_on = type(returned) in (list, tuple) or isinstance(returned, FileWrapper)
        return returned if passes_on else _Reported(returned, self, environ)

    def tell(self, error: Exception, environ: dict[str, Any]) -> None:
        """Tell the function of an exception; what it raises itself is logged."""
        if isinstance(error, BodyTooLong):
            # The client's fault.
            return
        try:
            failures.tell(error, self._on_error, environ)
        except Exception as failure:
            errors = environ["wsgi.errors"]
            errors.write(log_message("anygate: on_error failed\n" + formatted(failure)))
            errors.flush()


class _Reported:
    """What an application returned."""

    def __init__(self, returned: Iterable[bytes], reporting: Reporting, environ: dict[str, Any]):
        self._returned, self._reporting, self._environ = returned, reporting, environ
        self._blocks: Iterator[bytes] | None = None

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        try:
            if self._blocks is None:
                self._blocks = iter(self._returned)
            return next(self._blocks)
        except StopIteration:
            raise
        except Exception as error:
            self._reporting.tell(error, self._environ)
            raise

    def close(self) -> None:
        close = getattr(self._returned, "close", None)
        try:
            if close is not None:
                close()
        except Exception as error:
            self._reporting.tell(error, self._environ)
            raise


class _Response:
    """One response: the object that the server iterates over and closes."""

    def __init__(self, exchange: Exchange, environ: dict[str, Any], start_response: Any):
        #: Action after the server has taken everything.
        self.refresh: Callable[[], None] | None = None
        self._exchange = exchange
        self._name = exchange.name
        self._environ = environ
        self._errors = environ["wsgi.errors"]
        self._start_response = start_response
        self._is_told = False
        #: What the server's ``start_response`` returned.
        self._server_write: Any = None
        #: What the application returned, until it is closed.
        self._response: Any = None
        #: What is to come of that, until its end.
        self._blocks: Iterator[Any] | None = None
        self._is_first = True
        self._passes_on = False
        self._counts = exchange.counts

    def of(self, application: Application) -> Iterable[bytes]:
        """Call the application until its head is there, because not every server accepts a head later."""
        try:
            response = self._begin(application)
            while self._blocks is not None and not self._is_told:
                self._advance()
        except BaseException:
            try:
                self.close()
            except Exception as error:
                self.log(error)
            raise
        return response

    def _begin(self, application: Application) -> Iterable[bytes]:
        exchange = self._exchange
        file_wrapper = self._environ.get("wsgi.file_wrapper")
        if file_wrapper is not None:
            # So that a file is known as one. The server gets it in its own wrapper if no policy needs the bytes.
            self._environ["wsgi.file_wrapper"] = FileWrapper
        try:
            response = self._response = application(self._environ, self._start)
            self._name_route()
            if type(response) is list or type(response) is tuple:
                if not exchange.blocks(response):
                    return self._as_it_is(response)
                # What is kept is there for others when the client has its response.
                self._finish()
            elif type(response) is FileWrapper and file_wrapper is not None:
                if exchange.file(response):
                    return self._as_it_is(file_wrapper(response.filelike, response.blksize))
                self._blocks = iter(partial(response.filelike.read, response.blksize), b"")
            else:
                self._blocks = iter(response)
        except BaseException as error:
            self._name_route()
            if not self._covers(error):
                raise
        self.tell_head()
        return self

    def _name_route(self) -> None:
        """Tell the route that the application has named, if it is to be counted."""
        if self._exchange.wants_route:
            route = self._environ.get("anygate.route")
            if isinstance(route, str):
                self._exchange.set_route(route)

    def _as_it_is(self, response: Iterable[bytes]) -> Iterable[bytes]:
        self.tell_head()
        self._exchange.end()
        return response

    def _start(
        self,
        status: str,
        response_headers: list[tuple[str, str]] | None = None,
        exc_info: Any = None,
        *,
        headers: list[tuple[str, str]] | None = None,
    ) -> Callable[[bytes], None]:
        """Begin the response; the names are those of the native ``start_response``."""
        chosen = headers if response_headers is None else response_headers
        if chosen is None:
            raise TypeError("start_response() takes a status and a list of headers")
        self._exchange.start(status, chosen, exc_info)
        return self._write

    def _write(self, data: bytes) -> None:
        self._exchange.write(data)
        self.tell_head()
        while piece := self._exchange.take():
            self._server_write(piece)

    def tell_head(self) -> None:
        """Pass status and headers to the server, once they are there."""
        head = self._exchange.head()
        if head is not None:
            self._is_told = True
            self._server_write = self._start_response(*head)

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        while True:
            if piece := self._exchange.take():
                return piece
            if self._blocks is None:
                raise StopIteration
            if block := self._advance():
                return block

    def _advance(self) -> bytes | None:
        """Take a block of the application; return it if it goes on as it is."""
        assert self._blocks is not None
        exchange = self._exchange
        try:
            block: Any = next(self._blocks, _END)
            if block is _END:
                self._finish()
            elif self._passes_on:
                if self._counts and (length := _length(block)):
                    exchange.passed_on(length)
                return block  # type: ignore[no-any-return]
            elif block or type(block) is not bytes:
                exchange.block(block, self._is_first and _length(self._response) == 1)
                self._is_first = False
                self._passes_on = exchange.passes_on
        except BaseException as error:
            self._blocks = None
            if not self._covers(error):
                raise
        self.tell_head()
        return None

    def _finish(self) -> None:
        self._blocks = None
        self._name_route()
        self._exchange.end_of_blocks()
        if not self._exchange.finish(False):
            raise OSError("the response cannot be completed")

    def _covers(self, error: BaseException) -> bool:
        """Whether the client gets another response instead of the failed one; then the exception is only logged."""
        if isinstance(error, BodyTooLong):
            return self._exchange.refuse_body()
        if not isinstance(error, Exception) or not (self._exchange.show(error) or self._exchange.finish(True)):
            return False
        self.log(error)
        return True

    def log(self, error: Exception) -> None:
        """Write an exception to the server's log."""
        method, path = self._environ.get("REQUEST_METHOD", ""), self._environ.get("PATH_INFO", "")
        name = f"{self._name}: " if self._name else ""
        what = f"anygate: {name}the application failed: {method} {path!a}\n"
        self._errors.write(log_message(what + formatted(error)))
        self._errors.flush()

    def close(self) -> None:
        """Close the response, even before its end."""
        response, self._response = self._response, None
        refresh, self.refresh = self.refresh, None
        self._blocks = None
        try:
            close = getattr(response, "close", None)
            if close is not None:
                close()
        finally:
            if refresh is not None:
                refresh()
            self._exchange.end()


def _upgraded(
    application: Application, exchange: Exchange, environ: dict[str, Any], start_response: Any
) -> Iterable[bytes]:
    """Call an application that may make something else of its connection."""
    statuses: list[str] = []

    def start(status: str, *rest: Any) -> Any:
        statuses.append(status[:3])
        return start_response(status, *rest)

    try:
        return application(environ, start)
    except BaseException:
        statuses = statuses or ["500"]
        raise
    finally:
        exchange.end_upgrade(int(statuses[-1]) if statuses and statuses[-1].isdecimal() else None)


def _refresh(application: Application, exchange: Exchange, environ: dict[str, Any]) -> None:
    """Call the application once more, for the cache only."""
    response = _Response(exchange, environ, None)
    try:
        # No head comes, so this goes to the end.
        response.of(application)
        response.close()
    except Exception as error:
        response.log(error)


def _length(response: Any) -> int | None:
    try:
        return len(response)
    except Exception:
        return None


class BodyTooLong(OSError):
    """The request body is too large."""


class LimitedInput(Lines):
    """``wsgi.input`` of a body of unknown length. Reading beyond the limit raises :class:`BodyTooLong`."""

    def __init__(self, stream: Any, max_bytes: int):
        self._stream = stream
        self._left = max_bytes

    def read(self, size: int | None = None) -> bytes:
        """Read up to ``size`` bytes, or all."""
        return self._counted(self._stream.read, size)

    def readline(self, size: int | None = None) -> bytes:
        """Read a line, or ``size`` bytes of it."""
        return self._counted(self._stream.readline, size)

    def _counted(self, read: Callable[[int], bytes], size: int | None) -> bytes:
        # One byte more shows that there is one.
        most = self._left + 1
        data = read(most if size is None or size < 0 else min(size, most))
        self._left -= len(data)
        if self._left < 0:
            self._left = 0
            raise BodyTooLong(errno.EFBIG, "the request body is too large")
        return data


def has_greenlets() -> bool:
    """Whether requests are greenlets of one thread, so that none may keep the thread waiting."""
    if "gevent" in sys.modules:
        from gevent import hub, monkey

        if monkey.is_module_patched("threading") or hub._get_hub() is not None:
            return True
    if "eventlet" in sys.modules:
        from eventlet import patcher

        return bool(patcher.is_monkey_patched("thread"))
    return False
