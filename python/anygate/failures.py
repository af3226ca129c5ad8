"""Handling of failed requests."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable
from types import TracebackType
from typing import Any, TypeVar

T = TypeVar("T")
#: What raises, at a request, the exception of an import that failed.
RAISES_AGAIN = os.path.join(os.path.dirname(__file__), "sources.py")

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
    """Call ``on_error`` with ``error``."""
    where = error.__traceback__
    handle(error, lambda: on_error(environ, (type(error), error, where)))


def formatted(error: BaseException) -> str:
    """Return ``error`` with its traceback; lines that its text has of its own are indented.

    That text may be a client's, and is not to pass for anything else in a log.
    """
    whole = traceback.TracebackException.from_exception(error)
    if any(frame.filename == RAISES_AGAIN for frame in whole.stack):
        kept = [frame for frame in whole.stack if not frame.filename.startswith((RAISES_AGAIN, "<frozen importlib"))]
        whole.stack = traceback.StackSummary.from_list(kept)
    indent_notes(whole)
    return "".join(indented(item) for item in whole.format())


def indented(item: str) -> str:
    """One item of a formatted exception: a frame, or a class with what it says."""
    first, *more = item.removesuffix("\n").split("\n")
    if first.startswith(" "):
        # A frame, whose lines Python has indented, or a member of a group.
        more = [line if line.startswith(" ") else f"    {line}" for line in more]
    elif first:
        more = [f"    {line}" for line in more]
    return "\n".join([first, *more]) + "\n"


def indent_notes(whole: traceback.TracebackException) -> None:
    """Each line of a note would be an item of its own."""
    seen = set()
    left = [whole]
    while left:
        one = left.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        notes = getattr(one, "__notes__", None)
        if isinstance(notes, (list, tuple)):
            one.__notes__ = ["    " + note.replace("\n", "\n    ") if isinstance(note, str) else note for note in notes]
        others = [one.__cause__, one.__context__, *(getattr(one, "exceptions", None) or ())]
        left += [other for other in others if other is not None]
