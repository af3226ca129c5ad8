"""WebSockets for WSGI applications.

A request that asks for a WebSocket has in its environ

* ``wsgi.websocket``: a `WebSocket` with the interface of gevent-websocket. Its first use accepts; one that the
  application holds and does not use is accepted after a while (``websocket_accept_after``).
* ``werkzeug.socket``: the connection itself, for libraries that speak WebSocket themselves, such as simple-websocket.

An application that uses neither responds as usual.
"""

from __future__ import annotations

import socket
from contextvars import ContextVar
from typing import Any

from anygate import unused_websockets
from anygate._anygate import WebSocket, WebSocketError

__all__ = ["RawSocket", "WebSocket", "WebSocketError", "current"]

#: ``wsgi.websocket`` of the request of the current thread or greenlet.
current: ContextVar[Any] = ContextVar("anygate.websocket.current", default=None)


class RawSocket:
    """A connection as a socket. Its first use takes it over; no other response is possible then."""

    def __init__(self, websocket: Any) -> None:
        self._websocket = websocket
        self._taken: socket.socket | None = None

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if self._taken is None:
            self._taken = socket.socket(fileno=self._websocket.detach())
        return getattr(self._taken, name)


def offer(environ: dict[str, Any], websocket: Any, accept_after: float) -> None:
    """Add the WebSocket, or its wrapper, to the environ of its request.

    It is accepted if the application holds it for ``accept_after`` seconds without using it, unless they are 0.
    """
    environ["wsgi.websocket"] = websocket
    environ["wsgi.websocket_version"] = "13"
    if environ["SERVER_PROTOCOL"] == "HTTP/1.1":
        # A library that takes over the connection responds as over HTTP/1.1.
        environ["werkzeug.socket"] = RawSocket(websocket)
    current.set(websocket)
    # To a client that offers subprotocols the application has something to say.
    if accept_after and "HTTP_SEC_WEBSOCKET_PROTOCOL" not in environ:
        unused_websockets.watch(websocket, accept_after)


def withdraw() -> None:
    """Forget the WebSocket of a request that is over."""
    current.set(None)
