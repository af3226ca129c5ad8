"""App threads: threads of Python's own that run requests.

So they have the stacks that ``threading.stack_size()`` asks for, a name, an entry in ``threading.enumerate()``, and the
functions of ``threading.settrace()`` and ``threading.setprofile()`` that coverage, debuggers and profilers set.
"""

from __future__ import annotations

import _thread
import sys
import threading
from collections.abc import Callable

from anygate.unpatched import unpatched


def start(name: str, work: Callable[[], None]) -> None:
    """Run ``work`` on a thread of its own, also where the application has replaced threads by greenlets.

    The program does not wait for such a thread at its end. Raises RuntimeError when there can be no more threads.
    """
    start_new_thread = unpatched("_thread", "start_new_thread")
    if start_new_thread is _thread.start_new_thread:
        threading.Thread(target=_run_as_main, args=(work,), name=name, daemon=True).start()
    else:
        start_new_thread(_run, (work,))


def _run_as_main(work: Callable[[], None]) -> None:
    """Have threads that the application starts be no daemons unless it wants that: they inherit it from this one."""
    threading.current_thread()._daemonic = False  # type: ignore[attr-defined]  # public only before the start
    work()


def _run(work: Callable[[], None]) -> None:
    """Do for a thread what ``threading`` does, except for its entry there: a greenlet would have that."""
    sys.settrace(threading.gettrace())
    sys.setprofile(threading.getprofile())
    work()
