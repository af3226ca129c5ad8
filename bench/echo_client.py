"""A client of WebSockets that is quick enough to measure a server: each connection answers an echo with a message."""

from __future__ import annotations

import select
import socket
import time

UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
MASK = b"\1\2\3\4"
MESSAGE = b"x" * 64
FRAME = bytes([0x81, 0x80 | len(MESSAGE)]) + MASK + bytes(byte ^ MASK[at % 4] for at, byte in enumerate(MESSAGE))
ECHO = bytes([0x81, len(MESSAGE)]) + MESSAGE


def open_one(port: int) -> socket.socket:
    """Open a WebSocket."""
    connection = socket.create_connection(("127.0.0.1", port), 10)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.sendall(UPGRADE)
    answer = b""
    while b"\r\n\r\n" not in answer:
        received = connection.recv(4096)
        if not received:
            raise OSError("the server closed the connection")
        answer += received
    if not answer.startswith(b"HTTP/1.1 101"):
        raise OSError(answer.split(b"\r\n")[0].decode())
    return connection


def echo(port: int, connections: int, seconds: float) -> float:
    """Return how many messages a second came back."""
    opened = {made.fileno(): made for made in (open_one(port) for _ in range(connections))}
    poll = select.epoll()
    missing = {}
    for number, connection in opened.items():
        poll.register(number, select.EPOLLIN)
        connection.sendall(FRAME)
        missing[number] = len(ECHO)
    count, begun = 0, time.perf_counter()
    until = begun + seconds
    while time.perf_counter() < until:
        for number, _ in poll.poll(1):
            connection = opened[number]
            received = connection.recv(256)
            if not received:
                raise OSError("the server closed a WebSocket")
            missing[number] -= len(received)
            if missing[number] == 0:
                count += 1
                missing[number] = len(ECHO)
                connection.sendall(FRAME)
    rate = count / (time.perf_counter() - begun)
    for connection in opened.values():
        connection.close()
    return rate
