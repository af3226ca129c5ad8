"""How the interpreter of a worker is set up: garbage collection, recursion, stacks of threads."""

from __future__ import annotations

import gc
import sys
import threading
import time


def settle(threshold: list[int], recursion_limit: int | None, stack_size: int | None) -> None:
    """Set limits before the application is imported. Raises ValueError for one that the system does not have."""
    if threshold:
        gc.set_threshold(*threshold)
    if recursion_limit is not None:
        sys.setrecursionlimit(recursion_limit)
    if stack_size is not None:
        threading.stack_size(stack_size)


def freeze() -> None:
    """Exclude all objects that there are from garbage collection, but for garbage."""
    gc.collect()
    gc.freeze()


def collect_every(seconds: float) -> None:
    """Collect garbage at an interval from now on, in a thread, or in a greenlet where threads are greenlets."""

    def collect() -> None:
        while True:
            time.sleep(seconds)
            gc.collect()

    threading.Thread(target=collect, name="garbage", daemon=True).start()
