"""File locks that wait in the hub of gevent or eventlet: the holder may be another greenlet of the same thread.

Neither library patches ``fcntl``, so a greenlet that waits there stops all others, the holder of the lock among them.
web2py locks the file of a session for as long as a request of it runs.
"""

from __future__ import annotations

import errno
import fcntl
from collections.abc import Callable
from typing import Any

#: Pauses between two attempts to lock a file, in seconds: the first, and the maximum.
_PAUSE_MIN, _PAUSE_MAX = 0.001, 0.05


def patch(sleep: Callable[[float], object], may_wait: Callable[[], bool]) -> None:
    """Make ``fcntl.flock`` and ``fcntl.lockf`` wait with ``sleep`` where ``may_wait`` returns true.

    ``sleep`` lets other greenlets run; ``may_wait`` is false in a hub itself, and in threads without one.
    """
    for name in ("flock", "lockf"):
        lock = getattr(fcntl, name)
        if not hasattr(lock, "waits_below"):
            setattr(fcntl, name, _patient(lock, sleep, may_wait))


def _patient(lock: Any, sleep: Callable[[float], object], may_wait: Callable[[], bool]) -> Any:
    def patient(fd: Any, operation: int, *more: Any) -> Any:
        if operation & (fcntl.LOCK_NB | fcntl.LOCK_UN) or not may_wait():
            return lock(fd, operation, *more)
        pause = _PAUSE_MIN
        while True:
            try:
                return lock(fd, operation | fcntl.LOCK_NB, *more)
            except OSError as error:
                if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                    raise
            sleep(pause)
            pause = min(pause * 2, _PAUSE_MAX)

    patient.__name__ = patient.__qualname__ = lock.__name__
    patient.__doc__ = lock.__doc__
    patient.waits_below = lock  # type: ignore[attr-defined]
    return patient


def patch_for_gevent() -> None:
    """Patch for greenlets of gevent."""
    import gevent
    from greenlet import getcurrent

    def may_wait() -> bool:
        hub = gevent.hub._get_hub()
        return hub is not None and getcurrent() is not hub

    patch(gevent.sleep, may_wait)


def patch_for_eventlet() -> None:
    """Patch for greenlets of eventlet."""
    import eventlet
    from eventlet import hubs
    from greenlet import getcurrent

    def may_wait() -> bool:
        # Asking for the hub would make one where there is none.
        hub = getattr(hubs._threadlocal, "hub", None)
        return hub is not None and getcurrent() is not hub.greenlet

    patch(eventlet.sleep, may_wait)
