"""A response with an action at its end, for wrappers around an application.

Only where there is something to do: through it a server does not see that a response is a list, or a file of its own
``wsgi.file_wrapper``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from types import GeneratorType


def followed(response: Iterable[bytes], after: Callable[[], object]) -> Iterable[bytes]:
    """Return ``response`` with a call of ``after`` when it ends or is closed, whichever is first."""
    wrapped = _Followed(response, after)
    # fastwsgi crashes when start_response is called by the iterator of any object but a generator. One that is closed
    # before its first piece is no loss: nothing of the application ran.
    return iter(wrapped) if isinstance(response, GeneratorType) else wrapped


class _Followed:
    def __init__(self, response: Iterable[bytes], after: Callable[[], object]):
        self._response = response
        self._after: Callable[[], object] | None = after

    def __iter__(self) -> Iterator[bytes]:
        # Not only in close: pyruvate does not call that.
        try:
            yield from self._response
        finally:
            self._end()

    def close(self) -> None:
        try:
            close = getattr(self._response, "close", None)
            if close is not None:
                close()
        finally:
            self._end()

    def _end(self) -> None:
        after, self._after = self._after, None
        if after is not None:
            after()
