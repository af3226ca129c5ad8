"""The standard library as it is without the patches of gevent or eventlet, for threads that must be real."""

from __future__ import annotations

import importlib
import sys
from typing import Any


def unpatched(module: str, name: str) -> Any:
    """Return ``name`` of a module of the standard library, also where greenlets have replaced it."""
    monkey = sys.modules.get("gevent.monkey")
    if monkey is not None:
        return monkey.get_original(module, name)
    patcher = sys.modules.get("eventlet.patcher")
    if patcher is not None:
        return getattr(patcher.original(module), name)
    return getattr(importlib.import_module(module), name)
