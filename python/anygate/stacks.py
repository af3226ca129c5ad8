"""Stacks of all threads of this process, in the form of faulthandler."""

from __future__ import annotations

import sys
import threading
from types import FrameType

from anygate.unpatched import unpatched


def describe() -> str:
    """Return what all other threads do: a paragraph each, the latest call first."""
    own = unpatched("_thread", "get_ident")()
    # Its own lock may be held by a thread that waits.
    names = {ident: thread.name for ident, thread in list(getattr(threading, "_active", {}).items())}
    frames = sys._current_frames()
    return "\n".join(
        f"Thread 0x{ident:016x} {names.get(ident, '')} (most recent call first):\n{_calls(frame)}"
        for ident, frame in frames.items()
        if ident != own
    )


def _calls(frame: FrameType | None) -> str:
    lines = ""
    while frame is not None and frame.f_code is not threading.Thread.run.__code__:
        lines += f'  File "{frame.f_code.co_filename}", line {frame.f_lineno} in {frame.f_code.co_name}\n'
        frame = frame.f_back
    return lines or "  <no Python frame>\n"
