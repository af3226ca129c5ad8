"""Requests that take longer than ``slow_request`` or ``request_timeout``."""

from __future__ import annotations

import sys
import traceback
from types import FrameType


class RequestTimeout(BaseException):
    """Raised in a request that takes longer than ``request_timeout``, wherever it is.

    The client has its answer already. It is no Exception, so that an application does not take it for one of its own.
    """


def stack_of_thread(thread: int) -> str:
    """Return the stack of a thread, as in a traceback; empty if there is no such thread."""
    return stack_of_frame(sys._current_frames().get(thread))


def stack_of_frame(frame: FrameType | None) -> str:
    """The same for a frame."""
    return "".join(traceback.format_stack(frame)) if frame is not None else ""
