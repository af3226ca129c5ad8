"""WebSockets that an application has taken and not used: they are accepted after a while.

An application that only sends would keep its client waiting for the end of the handshake until it has something to
send. Whether it has taken the object out of its environ is seen from the number of references to it. One that it has
not taken stays as it is, since such a request gets an ordinary response.
"""

from __future__ import annotations

import _queue
import contextlib
import os
import sys
import time
from typing import Any
from weakref import ref

from anygate._anygate import WebSocketError
from anygate.unpatched import unpatched

#: What is watched: when it is looked at, how long it is before the next look, and the WebSocket.
_Watched = tuple[float, float, "ref[Any]"]

#: The queue of the thread that looks, by the number of its process, since threads do not outlive a fork.
_queues: dict[int, _queue.SimpleQueue[_Watched]] = {}


def watch(websocket: Any, accept_after: float) -> None:
    """Accept a WebSocket if the application holds it in ``accept_after`` seconds and has not decided about it."""
    queue = _queues.get(os.getpid())
    if queue is None:
        _queues.clear()
        queue = _queues.setdefault(os.getpid(), _queue.SimpleQueue())
        unpatched("_thread", "start_new_thread")(_run, (queue,))
    queue.put((time.monotonic() + accept_after, accept_after, ref(websocket)))


def _run(queue: _queue.SimpleQueue[_Watched]) -> None:
    sleep = unpatched("time", "sleep")
    while True:
        # All have the same time to wait, so that they are due in this order.
        due, accept_after, websocket = queue.get()
        wait = due - time.monotonic()
        if wait > 0:
            sleep(wait)
        if _is_to_be_watched(websocket):
            queue.put((time.monotonic() + accept_after, accept_after, websocket))


def _is_to_be_watched(reference: ref[Any]) -> bool:
    """Accept a WebSocket if it is time to; return whether it is to be looked at again."""
    websocket = reference()
    if websocket is None or not websocket.is_undecided():
        return False
    environ = websocket.environ or {}
    # The environ and the context variable have it, and what else the server itself needs.
    ours = 2 + ("werkzeug.socket" in environ) + (not hasattr(websocket, "_socket"))
    is_in_environ = environ.get("wsgi.websocket") is websocket
    del websocket
    if is_in_environ and _holders(reference) <= ours:
        return True
    websocket = reference()
    # The client is gone, or the call is over: the application is told when it uses the WebSocket.
    with contextlib.suppress(WebSocketError, RuntimeError):
        if websocket is not None:
            websocket.accept_unasked()
    return False


def _references(reference: ref[Any]) -> int:
    return sys.getrefcount(reference())


class _Probe:
    """Something that has one reference."""


_probe = _Probe()
#: References that only counting makes.
_COUNTING = _references(ref(_probe)) - 1


def _holders(reference: ref[Any]) -> int:
    return _references(reference) - _COUNTING
