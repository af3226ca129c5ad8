"""A client that sends the bytes it is given and shows the bytes that come back."""

from __future__ import annotations

import contextlib
import fcntl
import json
import queue
import re
import socket
import struct
import termios
import threading
from dataclasses import dataclass, field
from pathlib import Path

from waiting import PATIENCE, are_all, wait_until


class Datagrams:
    """A socket for datagrams, at a path or on a port. They are read at once: the kernel holds few of them."""

    def __init__(self, path=None):
        self.socket = socket.socket(socket.AF_UNIX if path else socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(str(path) if path else ("127.0.0.1", 0))
        self.told = queue.SimpleQueue()
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        while True:
            self.told.put(self.socket.recv(1 << 17))

    def receive(self):
        return self.told.get(timeout=PATIENCE)

    def wait_for(self, pattern):
        """The first message that has something of that form."""
        while not re.search(pattern, message := self.receive()):
            pass
        return message


def other_end(client):
    """What the kernel knows of the other end of a TCP socket on this machine, while that is connected: how many bytes
    it has sent that are not taken, and how many it has not read."""
    try:
        ours, theirs = client.getsockname()[1], client.getpeername()[1]
    except OSError:
        return None
    # Twice, because a table that changes while it is read may lack a row.
    for table in ("/proc/net/tcp", "/proc/net/tcp6") * 2:
        for row in Path(table).read_text().splitlines()[1:]:
            _, local, remote, state, queues, *_ = row.split()
            ports = int(local.rpartition(":")[2], 16), int(remote.rpartition(":")[2], 16)
            if ports == (theirs, ours) and state in ("01", "08"):
                sent, received = queues.split(":")
                return int(sent, 16), int(received, 16)
    return None


def is_read(client):
    """Whether the server has read all that a TCP socket has sent, or has closed the connection."""
    (unsent,) = struct.unpack("i", fcntl.ioctl(client, termios.TIOCOUTQ, b"\0" * 4))
    found = other_end(client)
    return found is None or (not unsent and found[1] == 0)


def wait_stuck(client, served):
    """Wait until the server cannot send more to a client that does not read, or has given it up."""
    seen = [0]

    def is_stuck():
        # A worker that has its turn later, because others have theirs, is not stuck: it wants to run.
        wait = all(are_all(worker, "S") for worker in served.workers())
        found = other_end(client)
        seen.append(found[0] if found else None)
        return found is None or (wait and seen[-1] == seen[-2] > 0)

    wait_until(is_stuck, "that the server cannot send more")


def send_read(client, data):
    """Send, and wait until the server has read it: what is sent after this comes later."""
    client.sendall(data)
    wait_until(lambda: is_read(client), f"that the server reads {data!r}")


def wait_closing(client):
    """Wait until the server has closed the connection, without reading what it sent before."""
    wait_until(lambda: other_end(client) is None, "that the server closes the connection")


@dataclass
class Response:
    """One response."""

    status: int
    reason: str
    version: str
    fields: list[tuple[str, str]]
    body: bytes = b""
    whole: bool = True
    chunks: list[bytes] = field(default_factory=list)

    def __getitem__(self, name):
        found = [value for key, value in self.fields if key.lower() == name.lower()]
        return ", ".join(found) if found else None

    def names(self):
        return [key.lower() for key, _ in self.fields]

    @property
    def text(self):
        return self.body.decode()

    @property
    def json(self):
        return json.loads(self.body)


class Connection:
    """A connection to (host, port), or to the path of a unix socket. ``source``: an address of ours to come from."""

    def __init__(self, address, timeout=PATIENCE, source=None):
        family = (
            socket.AF_UNIX if isinstance(address, str) else (socket.AF_INET6 if ":" in address[0] else socket.AF_INET)
        )
        self.socket = socket.socket(family, socket.SOCK_STREAM)
        self.socket.settimeout(timeout)
        if source:
            self.socket.bind((source, 0))
        self.socket.connect(address)
        if family != socket.AF_UNIX:
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.socket.close()

    def reset(self):
        """Close with RST."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.socket.close()

    def send(self, data):
        self.socket.sendall(data if isinstance(data, bytes) else data.encode("latin-1"))
        return self

    def send_read(self, data):
        """Send, and wait until the server has read it."""
        send_read(self.socket, data if isinstance(data, bytes) else data.encode("latin-1"))
        return self

    def is_read(self):
        """Whether the server has read all that was sent."""
        return is_read(self.socket)

    def ask(self, method="GET", target="/", fields=(), body=b"", version="HTTP/1.1", host="test"):
        lines = [f"{method} {target} {version}", f"Host: {host}", *(f"{name}: {value}" for name, value in fields)]
        if body and not any(name.lower() in ("content-length", "transfer-encoding") for name, _ in fields):
            lines.append(f"Content-Length: {len(body)}")
        self.send("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body)
        return self.response(head_request=method == "HEAD")

    def more(self):
        data = self.socket.recv(65536)
        self.buffer += data
        return bool(data)

    def line(self):
        while b"\r\n" not in self.buffer:
            if not self.more():
                raise ConnectionError(f"closed inside a line: {self.buffer!r}")
        line, _, self.buffer = self.buffer.partition(b"\r\n")
        return line.decode("latin-1")

    def take(self, count):
        """As many bytes, or fewer if the server closes or resets the connection."""
        data = bytearray(self.buffer)
        with contextlib.suppress(ConnectionResetError):
            while len(data) < count and (more := self.socket.recv(65536)):
                data += more
        self.buffer = bytes(data[count:])
        return bytes(data[:count])

    def rest(self):
        """Everything until the server closes."""
        while self.more():
            pass
        data, self.buffer = self.buffer, b""
        return data

    def is_closed(self):
        """Whether the server closes without sending more."""
        return self.rest() == b""

    def head(self):
        version, status, reason = self.line().split(" ", 2)
        fields = []
        while line := self.line():
            name, _, value = line.partition(":")
            fields.append((name, value.strip()))
        return Response(int(status), reason, version, fields)

    def response(self, head_request=False):
        """One response, framed as RFC 9112 section 6.3 says; `whole` tells whether its end came."""
        response = self.head()
        if head_request or response.status < 200 or response.status in (204, 304):
            return response
        if response["transfer-encoding"]:
            while True:
                try:
                    size = int(self.line().split(";")[0], 16)
                except ConnectionError:
                    response.whole = False
                    return response
                if size == 0:
                    assert self.line() == ""
                    return response
                chunk = self.take(size)
                response.chunks.append(chunk)
                response.body += chunk
                if len(chunk) < size or self.take(2) != b"\r\n":
                    response.whole = False
                    return response
        if response["content-length"] is not None:
            length = int(response["content-length"])
            response.body = self.take(length)
            response.whole = len(response.body) == length
            return response
        try:
            response.body = self.rest()
        except ConnectionError:
            response.body, self.buffer = self.buffer, b""
            response.whole = False
        return response
