"""A WSGI application around another one that finds out where its time goes.

Each request runs under cProfile and leaves a file ``req_<uuid>.prof`` in a folder that all worker processes share, with
its sampled call stacks beside it in ``stacks_<uuid>.json``. The accumulated figures are shown at ``/__profile__``, and
``wsgi.prof`` holds them when the processes have ended.
"""

from __future__ import annotations

import atexit
import contextlib
import cProfile
import fcntl
import ipaddress
import logging
import os
import sys
import tempfile
import threading
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import parse_qs, quote, urlsplit

from anygate import flame_graph, profile_page
from anygate._anygate import is_for_this_machine
from anygate.profile_figures import SORT_KEYS, Figures, Stack, dump_stacks, profile_names, stacks_beside
from anygate.stack_sampler import StackSampler

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

PAGE = "/__profile__"
TOTAL_NAME = "wsgi.prof"
LIMIT_DEFAULT = 100
# Enough for any program; a page with more rows would only make the browser slow.
LIMIT_MAX = 10_000

_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "form-action 'self'; frame-ancestors 'none'"
)

_log = logging.getLogger("anygate.profiler")


class Profiler:
    """Profiles each request to ``application`` and shows the figures to clients from ``trusted`` networks.

    Only the call of the application is profiled, not the streaming of the body that it returns; an application that
    is a generator function therefore shows next to nothing. Profiled requests run one after the other, because Python
    3.12 and later allow one profile at a time.

    ``trusted`` is compared with REMOTE_ADDR. The request must also come straight from there, or through a proxy that
    the server trusts, and be for ``localhost``, a loopback address or one of ``hosts``: a page of another site can make
    its own name lead here. If not, the response is 404; requests from other addresses go to the application.

    Raises ValueError when ``folder`` cannot be created or written to, or when an entry of ``trusted`` is no network.
    """

    wait_max_seconds = 30.0
    """A request that waits longer than this for its turn runs unprofiled.

    Without this bound an application that sends a request to itself would wait for its own end.
    """

    def __init__(
        self,
        application: WSGIApplication,
        folder: str | os.PathLike[str],
        trusted: Iterable[str] = ("127.0.0.0/8", "::1/128"),
        hosts: Iterable[str] = (),
    ) -> None:
        self.application = application
        self.folder = _writable(folder)
        self.write_failures = 0
        """How many profiles this process could not write."""
        self.unprofiled = 0
        """How many requests ran unprofiled in this process."""
        self._trusted = [_network(text) for text in trusted]
        self._hosts = list(hosts)
        self._turn = threading.Lock()
        self._profiled_thread: int | None = None
        self._figures = Figures(self.folder)
        self._figures_lock = threading.Lock()
        self._count_lock = threading.Lock()
        atexit.register(self._write_total_at_exit)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Respond with the profile page if it was requested, else with the profiled application."""
        path = environ.get("PATH_INFO", "")
        if (path == PAGE or path.startswith(PAGE + "/")) and self._trusts(environ.get("REMOTE_ADDR", "")):
            if is_for_this_machine(environ, self._hosts):
                response = self._respond(environ, path.removeprefix(PAGE))
            else:
                response = _plain("404 Not Found", "There is no such page")
            start_response(response.status, [*response.headers, *_fixed_headers(response)])
            return [b"" if environ["REQUEST_METHOD"] == "HEAD" else response.body]

        if self._profiled_thread == threading.get_ident():
            # The application calls itself: this call is part of the profile that is being made.
            return self.application(environ, start_response)
        if not self._turn.acquire(timeout=self.wait_max_seconds):
            self._count_unprofiled(f"it waited longer than {self.wait_max_seconds:g} s for the requests before it")
            return self.application(environ, start_response)
        # The profile is switched on in this very frame, so that the application is its root.
        profile, samples = cProfile.Profile(), StackSampler()
        try:
            if sys.getprofile() is not None:
                # Before Python 3.12 cProfile would silently push the other tool aside.
                raise ValueError("another profiling tool is already active")
            samples.start()
            profile.enable()
        except ValueError as error:
            samples.stop()
            self._turn.release()
            self._count_unprofiled(str(error))
            return self.application(environ, start_response)
        self._profiled_thread = threading.get_ident()
        try:
            return self.application(environ, start_response)
        finally:
            profile.disable()
            samples.stop()
            self._profiled_thread = None
            self._turn.release()
            self._write(profile, samples.seconds)

    def write_total(self) -> Path | None:
        """Merge all profiles of the folder into ``wsgi.prof`` there and return its path, or None when there are none.

        Called when the process ends. Several processes may do this at once: they take turns by a lock file, and the
        last one sees the profiles of all.

        Raises OSError when the file cannot be written.
        """
        try:
            if not profile_names(self.folder):
                return None
        except FileNotFoundError:
            return None
        lock = os.open(self.folder / ".lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            # These figures are read afresh: a lock that a thread held when this process was forked would never open.
            figures = Figures(self.folder)
            figures.refresh()
            if not figures.rows:
                return None
            total = self.folder / TOTAL_NAME
            with _new_content(total) as part:
                part.write_bytes(figures.dump())
            return total
        finally:
            os.close(lock)

    def _write_total_at_exit(self) -> None:
        try:
            self.write_total()
        except OSError as error:
            _log.warning("cannot write %s: %s", self.folder / TOTAL_NAME, error)

    def _write(self, profile: cProfile.Profile, stacks: dict[Stack, float]) -> None:
        path = self.folder / f"req_{uuid.uuid4()}.prof"
        try:
            # First, because readers of a profile read its stacks too.
            if stacks:
                with _new_content(stacks_beside(path)) as part:
                    part.write_bytes(dump_stacks(stacks))
            with _new_content(path) as part:
                profile.dump_stats(part)
        except Exception as error:
            # Whatever goes wrong, a full disk above all, the request is not to suffer.
            with self._count_lock:
                self.write_failures += 1
                first = self.write_failures == 1
            if first:
                _log.warning("cannot write the profile of a request to %s: %s; said only once", self.folder, error)

    def _count_unprofiled(self, reason: str) -> None:
        with self._count_lock:
            self.unprofiled += 1
            first = self.unprofiled == 1
        if first:
            _log.warning("a request ran unprofiled: %s; said only once", reason)

    def _trusts(self, remote: str) -> bool:
        try:
            address = ipaddress.ip_address(remote)
        except ValueError:
            return False
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
            # A socket that listens for both families sees IPv4 clients so.
            address = address.ipv4_mapped
        return any(address in network for network in self._trusted)

    def _respond(self, environ: WSGIEnvironment, path: str) -> _Response:
        base = quote(environ.get("SCRIPT_NAME", "").encode("latin-1")) + PAGE
        pages = {"": self._table, "/": self._table, "/flame": self._flame}
        allowed = ("POST",) if path == "/clear" else ("GET", "HEAD")
        if path != "/clear" and path not in pages:
            return _plain("404 Not Found", f"There is no such page; the figures are at {base}")
        if environ["REQUEST_METHOD"] not in allowed:
            allow = ", ".join(allowed)
            return _plain("405 Method Not Allowed", f"This page accepts {allow} only", ("Allow", allow))
        if path == "/clear":
            return self._clear(environ, base)
        try:
            view = _view(environ.get("QUERY_STRING", ""), base, self)
        except ValueError as error:
            return _plain("400 Bad Request", str(error))
        with self._figures_lock:
            self._figures.refresh()
            return pages[path](view, environ.get("QUERY_STRING", ""))

    def _table(self, view: profile_page.View, query: str) -> _Response:
        fields = parse_qs(query, keep_blank_values=True)
        if "download" in fields:
            if not self._figures.rows:
                return _plain("404 Not Found", "No request was profiled yet")
            return _Response(
                "200 OK",
                self._figures.dump(),
                [
                    ("Content-Type", "application/octet-stream"),
                    ("Content-Disposition", f'attachment; filename="{TOTAL_NAME}"'),
                ],
            )
        wanted = fields.get("format", ["html"])[-1]
        if wanted == "json":
            body = profile_page.as_json(self._figures, view)
            return _Response("200 OK", body, [("Content-Type", "application/json")])
        if wanted != "html":
            return _plain("400 Bad Request", f"format={wanted!r} is unknown; write format=html or format=json")
        return _html(profile_page.table(self._figures, view))

    def _flame(self, view: profile_page.View, query: str) -> _Response:
        return _html(flame_graph.page(self._figures, view))

    def _clear(self, environ: WSGIEnvironment, base: str) -> _Response:
        # Browsers send the origin with every POST; a program such as curl sends neither and is no other site's tool.
        source = environ.get("HTTP_ORIGIN") or environ.get("HTTP_REFERER")
        if source is not None and not _same_host(source, environ.get("HTTP_HOST", "")):
            return _plain("403 Forbidden", "The figures can only be cleared from their own page")
        with self._figures_lock:
            try:
                for name in profile_names(self.folder):
                    (self.folder / name).unlink(missing_ok=True)
                    stacks_beside(self.folder / name).unlink(missing_ok=True)
            except OSError as error:
                return _plain("500 Internal Server Error", f"cannot clear {self.folder}: {error.strerror}")
            finally:
                self._figures = Figures(self.folder)
        return _plain("303 See Other", f"The figures are cleared; see {base}", ("Location", base))


class _Response(NamedTuple):
    status: str
    body: bytes
    headers: list[tuple[str, str]]


def _plain(status: str, text: str, *headers: tuple[str, str]) -> _Response:
    body = (text + "\n").encode("utf-8", "replace")
    return _Response(status, body, [("Content-Type", "text/plain; charset=utf-8"), *headers])


def _html(page: str) -> _Response:
    return _Response("200 OK", page.encode(), [("Content-Type", "text/html; charset=utf-8")])


def _fixed_headers(response: _Response) -> list[tuple[str, str]]:
    return [
        ("Content-Length", str(len(response.body))),
        ("Cache-Control", "no-store"),
        ("Content-Security-Policy", _POLICY),
        ("X-Content-Type-Options", "nosniff"),
    ]


def _view(query: str, base: str, profiler: Profiler) -> profile_page.View:
    """Read what the query asks for; raises ValueError when it asks for what there is not."""
    fields = parse_qs(query, keep_blank_values=True)
    sort = fields.get("sort", ["cumulative"])[-1]
    if sort not in SORT_KEYS:
        raise ValueError(f"sort={sort!r} is unknown; write sort= and one of {', '.join(SORT_KEYS)}")
    text = fields.get("limit", [str(LIMIT_DEFAULT)])[-1]
    if not (text.isascii() and text.isdigit() and len(text) <= 9 and int(text) > 0):
        raise ValueError(f"limit={text!r} is no number of rows; write for example limit={LIMIT_DEFAULT}")
    return profile_page.View(
        base=base,
        folder=str(profiler.folder),
        sort=sort,
        limit=min(int(text), LIMIT_MAX),
        limit_max=LIMIT_MAX,
        write_failures=profiler.write_failures,
        unprofiled=profiler.unprofiled,
    )


def _same_host(source: str, host: str) -> bool:
    try:
        return bool(host) and urlsplit(source).netloc.lower() == host.lower()
    except ValueError:
        return False


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    try:
        return ipaddress.ip_network(text)
    except ValueError as error:
        raise ValueError(
            f"{text!r} in trusted is no network: {error}; write for example 10.0.0.0/8 or 10.1.2.3"
        ) from None


def _writable(folder: str | os.PathLike[str]) -> Path:
    # Made absolute, because the application may change the current folder.
    path = Path(folder).absolute()
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path) as probe:
            probe.write(b"anygate")
    except OSError as error:
        raise ValueError(
            f"the profiler cannot write to the folder {str(path)!r}: {error.strerror or error}; "
            "name a folder that the user of the server may write to"
        ) from None
    return path


@contextlib.contextmanager
def _new_content(path: Path) -> Iterator[Path]:
    """Give a file to write the new content of ``path`` to, so that others see the old one or all of the new one."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield part
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
