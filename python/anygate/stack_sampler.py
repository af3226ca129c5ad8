"""Samples of the call stacks of one request, taken from a thread beside it, for the flame graph.

cProfile tells what a function cost per caller but knows no whole stacks, so under recursion its sums say nothing of who
waited for whom. Samples do. They are taken at random moments (a Poisson process), each standing for the mean time
between two, so that requests of any length are shown with their true share.
"""

from __future__ import annotations

import random
import sys
import time
from types import FrameType
from typing import Any

from anygate.profile_figures import Function, Stack
from anygate.unpatched import unpatched

# Deeper stacks are cut at their inner end, which bounds a file of samples.
DEPTH_MAX = 500


class StackSampler:
    """Samples what the frame that calls :meth:`start` calls, until :meth:`stop`.

    ``seconds`` then has the time for each stack, a tuple of functions from the outermost. Where a greenlet is switched
    out, its own stack is sampled, not that of the greenlet that runs on its thread.
    """

    def __init__(self, interval_seconds: float = 0.001) -> None:
        self.seconds: dict[Stack, float] = {}
        self._interval_seconds = interval_seconds
        self._root: FrameType | None = None
        self._greenlet: Any = None

    def start(self) -> None:
        """Start to sample."""
        # The number that the interpreter knows the thread by; gevent gives greenlets numbers of their own.
        self._thread = unpatched("_thread", "get_ident")()
        greenlet = sys.modules.get("greenlet")
        self._greenlet = greenlet.getcurrent() if greenlet is not None else None
        self._root = sys._getframe(1)
        # A real thread, also where gevent or eventlet have put greenlets in the place of threads.
        unpatched("_thread", "start_new_thread")(self._run, (unpatched("time", "sleep"),))

    def stop(self) -> None:
        """Stop; nothing holds the frames any more."""
        self._root = self._greenlet = None

    def _run(self, sleep: Any) -> None:
        # Randomness of its own: the application may have seeded the module's.
        chance = random.Random()
        while True:
            pause = chance.expovariate(1 / self._interval_seconds)
            began = time.perf_counter()
            sleep(pause)
            # A thread that computes holds the interpreter for some milliseconds: what the sample missed is its time.
            late = max(0.0, time.perf_counter() - began - pause)
            root, greenlet = self._root, self._greenlet
            if root is None:
                return
            stack = _below(sys._current_frames().get(self._thread), root)
            if not stack and greenlet is not None:
                stack = _below(greenlet.gr_frame, root)
            if stack:
                self.seconds[stack] = self.seconds.get(stack, 0.0) + self._interval_seconds + late


def _below(frame: FrameType | None, root: FrameType) -> Stack:
    """Return the functions from the one that ``root`` called to that of ``frame``; none if ``root`` is not below it."""
    functions: list[Function] = []
    while frame is not None and frame is not root:
        code = frame.f_code
        functions.append((code.co_filename, code.co_firstlineno, code.co_name))
        frame = frame.f_back
    return tuple(reversed(functions))[:DEPTH_MAX] if frame is root else ()
