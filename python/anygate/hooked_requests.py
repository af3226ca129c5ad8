"""Hooks around requests: ``pre_request`` and ``post_request``."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from anygate._anygate import FileWrapper
from anygate.hook_objects import Request, Response, Worker


class HookedApplication:
    """An application with hooks before and after each of its requests."""

    def __init__(
        self, application: Callable[..., Any], call: Callable[..., None], worker: Worker, has_post_request: bool
    ):
        self._application = application
        self._call = call
        self._worker = worker
        self._has_post_request = has_post_request

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Call the application (PEP 3333)."""
        self._worker.nr += 1
        request = Request(environ)
        self._call("pre_request", self._worker, request)
        request.apply()
        if not self._has_post_request:
            return self._application(environ, start_response)  # type: ignore[no-any-return]
        response = Response(request)

        def start(
            status: str, response_headers: Any = None, exc_info: Any = None, *, headers: Any = None
        ) -> Callable[[bytes], object]:
            fields = headers if response_headers is None else response_headers
            write: Callable[[bytes], object] = start_response(status, fields, exc_info)
            response.status, response.headers, response.headers_sent = status, fields, True
            length = next((value for name, value in fields if name.lower() == "content-length"), "")
            response.response_length = int(length) if length.isdigit() else None

            def counted(data: bytes) -> object:
                response.sent += len(data)
                return write(data)

            return counted

        def after() -> None:
            self._call("post_request", self._worker, request, environ, response)

        try:
            iterable = self._application(environ, start)
        except BaseException:
            after()
            raise
        if type(iterable) is FileWrapper:
            response.sent = _rest(iterable.filelike) if response.response_length is None else response.response_length
            return FileWrapper(iterable.filelike, iterable.blksize, after=after)
        return _Counted(iterable, response, after)


def _rest(file: Any) -> int:
    """Return the number of bytes behind the current position of a file; 0 where that is not known."""
    try:
        return os.fstat(file.fileno()).st_size - int(file.tell())
    except (AttributeError, OSError):
        return 0


class _Counted:
    """The blocks of a response, with an action at its end. The server always closes it."""

    def __init__(self, iterable: Iterable[bytes], response: Response, after: Callable[[], None]):
        self._iterable, self._response, self._after = iterable, response, after

    def __len__(self) -> int:
        # It raises TypeError for iterators, as it does for objects without a length.
        return len(self._iterable)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[bytes]:
        for block in self._iterable:
            self._response.sent += len(block)
            yield block

    def close(self) -> None:
        """Close the response of the application, and then run the action."""
        try:
            close = getattr(self._iterable, "close", None)
            if close is not None:
                close()
        finally:
            self._after()
