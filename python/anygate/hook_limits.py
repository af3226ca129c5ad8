"""Calls of hooks, which are interrupted when they take too long.

On the main thread a signal does that, also while a hook sleeps or waits for a socket. On other threads an exception is
raised at the next piece of Python that runs there, and in a greenlet at the next point at which it waits.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

from anygate._anygate import interrupt_while, stop_interrupting
from anygate.unpatched import unpatched

#: Seconds that a hook may take.
SECONDS = 10


class HookTimeout(BaseException):
    """Raised in a hook that takes too long, wherever it is.

    It is no Exception, so that a hook does not take it for one of its own.
    """


def call(function: Callable[..., Any], arguments: tuple[Any, ...]) -> bool:
    """Call ``function``; return whether it took no longer than it may. Raises whatever it raises in that time."""
    if _is_patched():
        return _in_greenlet(function, arguments)
    if threading.current_thread() is threading.main_thread():
        return _on_main_thread(function, arguments)
    return _on_other_thread(function, arguments)


def beside() -> Callable[[Callable[[], object]], object]:
    """Return a function that runs another one beside the requests of this process, whichever thread calls it."""
    if not _is_patched():
        return lambda work: threading.Thread(target=work, name="anygate-hook", daemon=True).start()
    import gevent

    # A thread that the interpreter knows for one call only cannot have greenlets.
    loop = gevent.get_hub().loop
    return lambda work: loop.run_callback_threadsafe(gevent.spawn, work)


def _is_patched() -> bool:
    monkey = sys.modules.get("gevent.monkey")
    return monkey is not None and bool(monkey.is_module_patched("threading"))


def _in_greenlet(function: Callable[..., Any], arguments: tuple[Any, ...]) -> bool:
    import gevent

    timeout = gevent.Timeout.start_new(SECONDS, HookTimeout)
    try:
        function(*arguments)
    except HookTimeout:
        return False
    finally:
        timeout.close()
    return True


def _on_main_thread(function: Callable[..., Any], arguments: tuple[Any, ...]) -> bool:
    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise HookTimeout

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, SECONDS)
        function(*arguments)
    except HookTimeout:
        return False
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before if before is not None else signal.SIG_DFL)
    return True


class _Threads:
    """The hooks that run on threads, and a thread that interrupts those that take too long."""

    def __init__(self) -> None:
        #: What is interrupted, by thread: when, and whether it was.
        self.running: dict[int, list[Any]] = {}
        self.is_started = False

    def start(self) -> None:
        if not self.is_started:
            self.is_started = True
            threading.Thread(target=self.interrupt_late, name="anygate-hooks", daemon=True).start()

    def interrupt_late(self) -> None:
        sleep, clock = unpatched("time", "sleep"), unpatched("time", "monotonic")
        while True:
            sleep(0.5)
            now = clock()
            for thread, entry in list(self.running.items()):
                if entry[0] <= now and not entry[1]:
                    interrupt_while(self.running, thread, entry, HookTimeout)


_threads = _Threads()


def _on_other_thread(function: Callable[..., Any], arguments: tuple[Any, ...]) -> bool:
    _threads.start()
    thread = threading.get_ident()
    entry = [unpatched("time", "monotonic")() + SECONDS, False]
    try:
        try:
            _threads.running[thread] = entry
            function(*arguments)
        finally:
            # In one step: from here on nothing is raised.
            stop_interrupting(_threads.running, thread)
    except HookTimeout:
        # It may have come at the last moment, before that step.
        stop_interrupting(_threads.running, thread)
        return False
    return not entry[1]
