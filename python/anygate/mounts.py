"""Several applications as one: each at a path, at a host, or both (``[[mount]]``, ``mount=``).

What is made here is an ordinary WSGI application, so it is loaded, preloaded and reloaded as one, by every server.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from typing import Any, TypedDict

from anygate import importer
from anygate._anygate import mount_places

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class _Position(TypedDict, total=False):
    host: str
    path: str
    #: The path stays in ``PATH_INFO``.
    keep_path: bool


class Mount(_Position):
    """An application, or the target of one, at a path, a host, or both."""

    app: Application | str


def around(
    app: Application | str, mounts: Iterable[Mount], pythonpath: Iterable[str | os.PathLike[str]] = ()
) -> Application | str:
    """Return one application of all; ``app`` is for everything else. If all are targets, it is one, too.

    Raises TypeError and ValueError for what is no mount, and LoadError, which names it, when one cannot be loaded.
    """
    mounts = list(mounts)
    if not mounts:
        return app
    for mount in mounts:
        if not isinstance(mount, dict) or "app" not in mount or mount.keys() - {"host", "path", "keep_path", "app"}:
            raise TypeError(f"mount: {mount!r} must be a dictionary with app and path, host or both, and keep_path")
    places = mount_places([(mount.get("host"), mount.get("path")) for mount in mounts])
    all_of_them = [
        (host, path, mount["app"], int(mount.get("keep_path", False)))
        for (host, path), mount in zip(places, mounts, strict=True)
    ]
    all_of_them.append(("", "", app, 0))
    if all(isinstance(target, str) for _, _, target, _ in all_of_them) and not pythonpath:
        # Lists of strings and numbers are the same in JSON and in Python.
        return f"anygate.mounts:application({json.dumps(all_of_them)})"
    return application(all_of_them, pythonpath)


def application(
    mounts: Iterable[tuple[str, str, Application | str] | tuple[str, str, Application | str, int]],
    pythonpath: Iterable[str | os.PathLike[str]] = (),
) -> Mounts:
    """Load the applications of ``mounts``: host (``*.example.org``: all below; empty: all), path, target, keep_path.

    Raises LoadError, which names the mount, when one cannot be loaded.
    """
    loaded = []
    for host, path, target, *more in mounts:
        try:
            app = importer.load(target, pythonpath) if isinstance(target, str) else target
            # As PATH_INFO is written (PEP 3333, "Unicode Issues").
            loaded.append((host, path.encode().decode("latin-1"), app, any(more)))
        except Exception as error:
            target = str(target)
            place = f"{host}{path}" if host or path else "/"
            raise importer.LoadError(f"at {place}: {importer.explain(target, error)}") from error
    return Mounts(loaded)


class Mounts:
    """Calls the application whose host and path fit: first those of the host, then the longest path."""

    def __init__(self, mounts: Iterable[tuple[str, str, Application, bool]]) -> None:
        def rank(mount: tuple[str, str, Application, bool]) -> tuple[bool, bool, int, int]:
            host, path, _, _ = mount
            return bool(host), not host.startswith("*"), len(host), len(path)

        self.mounts = sorted(mounts, key=rank, reverse=True)

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Respond as the application that fits, or with 404."""
        host, path = _host(environ.get("HTTP_HOST", "")), environ.get("PATH_INFO", "")
        for pattern, prefix, app, keep_path in self.mounts:
            if _is_of(pattern, host) and (path == prefix or path.startswith(prefix + "/") or not prefix):
                # Only whole segments count: /shop is not for /shopping.
                if not keep_path:
                    environ["SCRIPT_NAME"] = environ.get("SCRIPT_NAME", "") + prefix
                    environ["PATH_INFO"] = path[len(prefix) :]
                return app(environ, start_response)
        start_response("404 Not Found", [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", "14")])
        return [b"404 Not Found\n"]


def _host(authority: str) -> str:
    """Return the name of a host without its port and without the dot at its end, in lower case."""
    name, colon, port = authority.rpartition(":")
    # The colons of an IPv6 address are in brackets.
    host = name if colon and "]" not in port else authority
    return host.removesuffix(".").lower()


def _is_of(pattern: str, host: str) -> bool:
    """Whether a host is the one that ``pattern`` names, or one below it."""
    if pattern.startswith("*"):
        return host.endswith(pattern[1:]) and len(host) >= len(pattern)
    return not pattern or host == pattern
