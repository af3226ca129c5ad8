"""Several applications as one: each at a path, at a host, or both (``[[mount]]``).

What is made here is an ordinary WSGI application, so it is loaded, preloaded and reloaded as one, by every server.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from anygate import importer

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


def application(mounts: Iterable[tuple[str, str, str]]) -> Mounts:
    """Load the applications of ``mounts``: host (``*.example.org`` for all below, empty for all), path, target.

    Raises LoadError, which names the mount, when one cannot be loaded.
    """
    loaded = []
    for host, path, target in mounts:
        try:
            # As PATH_INFO is written (PEP 3333, "Unicode Issues").
            loaded.append((host, path.encode().decode("latin-1"), importer.load(target)))
        except Exception as error:
            place = f"{host}{path}" if host or path else "/"
            raise importer.LoadError(f"at {place}: {importer.explain(target, error)}") from error
    return Mounts(loaded)


class Mounts:
    """Calls the application whose host and path fit: first those of the host, then the longest path."""

    def __init__(self, mounts: Iterable[tuple[str, str, Application]]) -> None:
        def rank(mount: tuple[str, str, Application]) -> tuple[bool, bool, int, int]:
            host, path, _ = mount
            return bool(host), not host.startswith("*"), len(host), len(path)

        self.mounts = sorted(mounts, key=rank, reverse=True)

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Respond as the application that fits, or with 404."""
        host, path = _host(environ.get("HTTP_HOST", "")), environ.get("PATH_INFO", "")
        for pattern, prefix, app in self.mounts:
            if _is_of(pattern, host) and (path == prefix or path.startswith(prefix + "/") or not prefix):
                # Only whole segments are taken off: /shop is not for /shopping.
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
