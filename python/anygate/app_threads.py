"""App threads: threads of Python's own that run requests.

So they have the stacks that ``threading.stack_size()`` asks for, a name, an entry in ``threading.enumerate()``, and the
functions of ``threading.settrace()`` and ``threading.setprofile()`` that coverage, debuggers and profilers set.
"""

from __future__ import annotations

import _thread
import contextlib
import sys
import threading
import time
from collections.abc import Callable
from weakref import WeakSet

from anygate._anygate import raise_in_thread
from anygate.timeouts import RequestTimeout
from anygate.unpatched import unpatched

#: Threads that run requests in this process.
_threads: WeakSet[threading.Thread] = WeakSet()

#: Seconds for which requests that the end of the program interrupts may clean up.
_CLEANING = 0.5


class _ProgramEnd(RequestTimeout, SystemExit):
    """Raised in a request that is not over when the program ends. It is not reported."""


def start(name: str, work: Callable[[], None]) -> None:
    """Run ``work`` on a thread of its own, also where the application has replaced threads by greenlets.

    The program does not wait for such a thread at its end. Raises RuntimeError when there can be no more threads.
    """
    start_new_thread = unpatched("_thread", "start_new_thread")
    if start_new_thread is _thread.start_new_thread:
        thread = threading.Thread(target=_run_as_main, args=(work,), name=name, daemon=True)
        thread.start()
        _threads.add(thread)
    else:
        start_new_thread(_run, (work,))


def interrupt() -> None:
    """Have the requests that still run leave Python, since the program ends.

    Python ends such a thread in the middle of what it does, native frames included, which is no orderly end for them.
    """
    until = time.monotonic() + _CLEANING
    while (running := [thread for thread in _threads if thread.is_alive()]) and time.monotonic() < until:
        for thread in running:
            raise_in_thread(thread.ident or 0, _ProgramEnd)
        running[0].join(_CLEANING / 5)


def _run_as_main(work: Callable[[], None]) -> None:
    """Have threads that the application starts be no daemons unless it wants that: they inherit it from this one."""
    threading.current_thread()._daemonic = False  # type: ignore[attr-defined]  # public only before the start
    with contextlib.suppress(_ProgramEnd):
        work()


def _run(work: Callable[[], None]) -> None:
    """Do for a thread what ``threading`` does, except for its entry there: a greenlet would have that."""
    sys.settrace(threading.gettrace())
    sys.setprofile(threading.getprofile())
    work()
