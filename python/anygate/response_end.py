"""A response with an action at its end, for wrappers around an application.

Only where there is something to do: through it a server does not see that an answer is a list, or a file of its own
``wsgi.file_wrapper``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from types import GeneratorType


def followed(answer: Iterable[bytes], after: Callable[[], object]) -> Iterable[bytes]:
    """Return ``answer`` with a call of ``after`` when it ends or is closed, whichever is first."""
    wrapped = _Followed(answer, after)
    # fastwsgi crashes when start_response is called by the iterator of any object but a generator. One that is closed
    # before its first piece is no loss: nothing of the application ran.
    return iter(wrapped) if isinstance(answer, GeneratorType) else wrapped


class _Followed:
    def __init__(self, answer: Iterable[bytes], after: Callable[[], object]):
        self._answer = answer
        self._after: Callable[[], object] | None = after

    def __iter__(self) -> Iterator[bytes]:
        # Not only in close: pyruvate does not call that.
        try:
            yield from self._answer
        finally:
            self._end()

    def close(self) -> None:
        try:
            close = getattr(self._answer, "close", None)
            if close is not None:
                close()
        finally:
            self._end()

    def _end(self) -> None:
        after, self._after = self._after, None
        if after is not None:
            after()
