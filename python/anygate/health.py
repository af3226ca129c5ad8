"""A site's own check whether a worker is ready: can it reach its database, has it read its data?

The function is called in a thread of its own, never by two at a time. It is healthy when it returns anything but
``False`` in time.

Under gevent that is a real thread too, so that a check that computes, or waits in C, holds no request. What gevent has
patched waits there in a hub of that thread: sockets, locks and ``time.sleep`` work as everywhere else. But objects that
are bound to the hub of the requests, such as an open connection out of their pool, cannot be used there: a check opens
its own.
"""

from __future__ import annotations

from collections.abc import Callable

from anygate import importer
from anygate.unpatched import unpatched

#: Callback with whether the worker is ready, and the reason if it is not.
Report = Callable[[bool, "str | None"], object]


def watch(target: str, interval: float, timeout: float, report: Report) -> None:
    """Ask the function that ``target`` (``module:function``) names: now, and ``interval`` seconds after each result.

    The first result was reported when this returns. A function that has not returned after ``timeout`` seconds is
    reported as not ready, and is not called again before it has come back.

    Raises ValueError, which says everything, when there is no such function.
    """
    check = _Check(importer.hook("ready_check", target), timeout, report)
    start, sleep = unpatched("_thread", "start_new_thread"), unpatched("time", "sleep")

    def always() -> None:
        while True:
            sleep(interval)
            check.ask()

    start(check.run_always, ())
    check.ask()
    start(always, ())


class _Check:
    """A function that one thread calls for another."""

    def __init__(self, function: Callable[[], object], timeout: float, report: Report) -> None:
        self.function, self.timeout, self.report = function, timeout, report
        self.problem: str | None = None
        self.is_late = False
        # A lock that is released is a message.
        allocate = unpatched("_thread", "allocate_lock")
        self.question, self.result = allocate(), allocate()
        self.question.acquire()
        self.result.acquire()

    def run_always(self) -> None:
        """Call the function for each request of another thread."""
        while True:
            self.question.acquire()
            self.problem = _problem(self.function)
            self.result.release()

    def ask(self) -> None:
        """Let the thread call the function, and return its result."""
        if self.is_late:
            # A result that comes this late is ignored.
            self.result.acquire()
        self.question.release()
        self.is_late = not self.result.acquire(timeout=self.timeout)
        problem = f"it has not returned within {self.timeout:g} s" if self.is_late else self.problem
        self.report(problem is None, problem)


def _problem(function: Callable[[], object]) -> str | None:
    """Return the problem that a check function reports, or None."""
    try:
        return "it returned False" if function() is False else None
    except BaseException as error:
        kind = type(error).__name__
        try:
            return f"it raised {kind}: {error}"
        except Exception:
            return f"it raised {kind}"
