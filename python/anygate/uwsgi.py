"""uWSGI's functions for WebSockets, for applications that were written for that server.

They are here as ``anygate.uwsgi``; with the option ``uwsgi_module`` they are ``import uwsgi`` as well, unless the real
one is there. They work on the WebSocket of the current thread's or greenlet's request.
"""

from __future__ import annotations

import os
import sys

from anygate.websocket import WebSocket, WebSocketError, current


def register() -> None:
    """Make this module importable as ``uwsgi``, unless there is another one."""
    sys.modules.setdefault("uwsgi", sys.modules[__name__])


def websocket_handshake(key: str | None = None, origin: str | None = None, proto: str | None = None) -> None:
    """Accept the WebSocket. The key and the origin are the server's affair; ``proto`` is the subprotocol."""
    _socket().accept(proto or None)


def websocket_recv() -> bytes:
    """Return the next message. Raises OSError when the WebSocket is closed."""
    message = _socket().receive()
    if message is None:
        raise WebSocketError("unable to receive websocket message")
    return _bytes(message)


def websocket_recv_nb() -> bytes:
    """Return the next message, or nothing when there is none yet. Raises OSError when the WebSocket is closed."""
    message = _socket().receive_nowait()
    return b"" if message is None else _bytes(message)


def websocket_send(message: str | bytes) -> None:
    """Send text. Raises OSError when the WebSocket is closed."""
    _socket().send(message, binary=False)


def websocket_send_binary(message: str | bytes) -> None:
    """Send bytes. Raises OSError when the WebSocket is closed."""
    _socket().send(message, binary=True)


def connection_fd() -> int:
    """Return a descriptor that is readable while there may be something to receive."""
    return _socket().fileno()


def disconnect() -> None:
    """Close the WebSocket."""
    _socket().close()


def worker_id() -> int:
    """Return a number that no other worker has now."""
    return os.getpid()


def _socket() -> WebSocket:
    websocket: WebSocket | None = current.get()
    if websocket is None:
        raise WebSocketError("this request asks for no WebSocket")
    return websocket


def _bytes(message: str | bytes) -> bytes:
    return message.encode() if isinstance(message, str) else message
