"""A debugger that has started anygate: ``python -m debugpy -m anygate``, or PyCharm."""

from __future__ import annotations

import os
import sys
from typing import Any


def follow_fork(child: int) -> None:
    """Have the debugger follow a fork that has just been made; ``child`` is its number, or 0 in the child itself.

    The debugger replaces ``os.fork``, which anygate does not call. A child that it does not follow stands still at its
    first breakpoint.
    """
    debugger: Any = sys.modules.get("_pydev_bundle.pydev_monkey")
    make = getattr(debugger, "create_fork", None)
    if make is None:
        return
    name = "_anygate_forked"
    setattr(os, name, lambda: child)
    try:
        # It calls the function of that name for the fork, and does all that is to be done around it.
        make(name)()
    finally:
        delattr(os, name)
