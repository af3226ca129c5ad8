"""The measurements of a tool that has started anygate: ``coverage run -m anygate``."""

from __future__ import annotations

import sys


def save() -> None:
    """Save what coverage has measured in this process, a worker, which never returns to the code that would do so."""
    coverage = sys.modules.get("coverage")
    # It may be another module of that name.
    find = getattr(getattr(coverage, "Coverage", None), "current", None)
    current = find() if find is not None else None
    if current is not None:
        current.stop()
        current.save()
