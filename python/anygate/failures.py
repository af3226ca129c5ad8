"""What is done about requests that fail."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any, TypeVar

T = TypeVar("T")

#: ``on_error`` of a site.
Hook = Callable[[dict[str, Any], tuple[type[BaseException], BaseException, "TracebackType | None"]], object]


def handle(error: BaseException, handler: Callable[[], T]) -> T:
    """Call ``handler`` as an ``except`` clause of ``error`` does, so that ``sys.exc_info()`` has it."""
    where = error.__traceback__
    try:
        raise error
    except BaseException:
        # It was raised elsewhere.
        error.__traceback__ = where
        return handler()


def tell(error: BaseException, on_error: Hook, environ: dict[str, Any]) -> None:
    """Tell a site of ``error``."""
    where = error.__traceback__
    handle(error, lambda: on_error(environ, (type(error), error, where)))
