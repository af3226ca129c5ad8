"""WebSockets for WSGI applications.

A request that asks for a WebSocket has in its environ

* ``wsgi.websocket``: a `WebSocket` with the interface of gevent-websocket. Its first use accepts.
* ``werkzeug.socket``: the connection itself, for libraries that speak WebSocket themselves, such as simple-websocket.

Whoever uses neither answers as usual.
"""

from __future__ import annotations

import socket
from contextvars import ContextVar
from typing import Any

from anygate._anygate import WebSocket, WebSocketError

__all__ = ["RawSocket", "WebSocket", "WebSocketError", "current"]

#: What the current thread's or greenlet's request has as ``wsgi.websocket``.
current: ContextVar[Any] = ContextVar("anygate.websocket.current", default=None)


class RawSocket:
    """A connection as a socket; its first use takes it over, and then the application answers nothing else."""

    def __init__(self, websocket: Any) -> None:
        self._websocket = websocket
        self._taken: socket.socket | None = None

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if self._taken is None:
            self._taken = socket.socket(fileno=self._websocket.detach())
        return getattr(self._taken, name)


def offer(environ: dict[str, Any], websocket: Any) -> None:
    """Put a WebSocket, or what stands for one, into the environ of its request."""
    environ["wsgi.websocket"] = websocket
    environ["wsgi.websocket_version"] = "13"
    if environ["SERVER_PROTOCOL"] == "HTTP/1.1":
        # Whoever takes the connection over answers as HTTP/1.1 does.
        environ["werkzeug.socket"] = RawSocket(websocket)
    current.set(websocket)


def withdraw() -> None:
    """Forget the WebSocket of a request that is over."""
    current.set(None)
