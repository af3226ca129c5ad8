"""Processes that preloaded code has started: the template ends them, whose children they are, and workers do not."""

from __future__ import annotations

import sys


def disown() -> None:
    """Forget them, in a worker that was forked since: ``multiprocessing`` ends its children when a process ends."""
    process = sys.modules.get("multiprocessing.process")
    if process is not None:
        process._children.clear()


def end_pools() -> None:
    """Let pools finish, as the interpreter does before the functions of ``atexit``."""
    for name in ("process", "thread"):
        module = sys.modules.get(f"concurrent.futures.{name}")
        if module is not None:
            module._python_exit()
