"""Requests that take longer than ``slow_request`` or ``request_timeout``."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable
from types import FrameType
from typing import Any


class RequestTimeout(BaseException):
    """Raised in a request that takes longer than ``request_timeout``, wherever it is.

    The client has its response already. It is no Exception, so that an application does not take it for one of its own.
    """


def stack_of_thread(thread: int) -> str:
    """Return the stack of a thread, as in a traceback; empty if there is no such thread."""
    return stack_of_frame(sys._current_frames().get(thread))


def stack_of_frame(frame: FrameType | None) -> str:
    """The same for a frame."""
    return "".join(traceback.format_stack(frame)) if frame is not None else ""


def current_greenlet() -> tuple[Any, Any]:
    """Return the running greenlet, and the hub of its thread that gevent has, None under eventlet."""
    import greenlet

    if "gevent" not in sys.modules:
        return greenlet.getcurrent(), None
    from gevent import hub

    return greenlet.getcurrent(), hub._get_hub()


def tell_stack_of_greenlet(place: tuple[Any, Any], tell: Callable[[str], object]) -> None:
    """Call ``tell`` with the stack of a greenlet, in the thread of its hub once its greenlets take turns.

    Without gevent's hub nobody else may look at it: the stack is empty.
    """
    running, hub = place
    if hub is None:
        tell("")
    else:
        # One that has ended has no frame.
        hub.loop.run_callback_threadsafe(lambda: tell(stack_of_frame(running.gr_frame)))
