"""Corrections of the environ and of headers, for servers that deviate from PEP 3333 where an application notices."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import unquote

from anygate.server import Application

Correction = Callable[[dict[str, Any]], None]


def corrected(application: Application, *corrections: Correction) -> Application:
    """Return ``application`` behind ``corrections`` of its environ."""

    def corrected_application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        for correct in corrections:
            correct(environ)
        return application(environ, start_response)

    return corrected_application


def decode_path(environ: dict[str, Any]) -> None:
    """Decode PATH_INFO, which some servers leave as it is in the URL."""
    environ["PATH_INFO"] = unquote(environ["PATH_INFO"], "latin-1")


def recode_path(environ: dict[str, Any]) -> None:
    """Write the bytes of PATH_INFO as Latin-1, where a server has read them as UTF-8."""
    environ["PATH_INFO"] = environ["PATH_INFO"].encode("utf-8", "surrogateescape").decode("latin-1")


def part_port(environ: dict[str, Any]) -> None:
    """Part REMOTE_ADDR from the port that some servers write behind it."""
    host, colon, port = environ.get("REMOTE_ADDR", "").rpartition(":")
    if colon and port.isdigit() and (host.startswith("[") or ":" not in host):
        environ["REMOTE_ADDR"], environ["REMOTE_PORT"] = host.strip("[]"), port


def drop_missing_file_wrapper(environ: dict[str, Any]) -> None:
    """Drop ``wsgi.file_wrapper`` where it is ``None``: applications ask whether there is such a key."""
    if environ.get("wsgi.file_wrapper", environ) is None:
        del environ["wsgi.file_wrapper"]


def trimmed(application: Application) -> Application:
    """Return ``application`` with white space around its header values removed, which some servers refuse.

    RFC 9110 section 5.5: it is no part of the value.
    """

    def trimmed_application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        def start(status: str, response_headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
            headers = [(name, value.strip(" \t")) for name, value in response_headers]
            return start_response(status, headers, exc_info) if exc_info else start_response(status, headers)

        return application(environ, start)

    return trimmed_application
