"""Handling of failed requests."""

from __future__ import annotations

import traceback
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
    """Call ``on_error`` with ``error``."""
    where = error.__traceback__
    handle(error, lambda: on_error(environ, (type(error), error, where)))


def formatted(error: BaseException) -> str:
    """Return ``error`` with its traceback; lines that its text has of its own are indented.

    That text may be a client's, and is not to pass for anything else in a log.
    """
    whole = traceback.TracebackException.from_exception(error)
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
