"""Frames of a client, and a raw connection that is a WebSocket."""

import base64
import os
import struct

from wire import Connection

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


def frame(opcode, payload=b"", final=True, reserved=0, mask=b"\1\2\3\4"):
    head = bytes([final << 7 | reserved << 4 | opcode])
    if len(payload) < 126:
        head += bytes([0x80 | len(payload)])
    elif len(payload) < 65536:
        head += b"\xfe" + struct.pack(">H", len(payload))
    else:
        head += b"\xff" + struct.pack(">Q", len(payload))
    # As numbers, because a loop over the bytes of large messages takes longer than the server does.
    repeated = (mask * (len(payload) // 4 + 1))[: len(payload)]
    masked = int.from_bytes(payload, "big") ^ int.from_bytes(repeated, "big")
    return head + mask + masked.to_bytes(len(payload), "big")


def handshake(path="/", fields=(), **replace):
    given = {
        "Host": "test",
        "Upgrade": "websocket",
        "Connection": "keep-alive, Upgrade",
        "Sec-WebSocket-Key": base64.b64encode(os.urandom(16)).decode(),
        "Sec-WebSocket-Version": "13",
        **{name.replace("_", "-"): value for name, value in replace.items()},
    }
    lines = [f"GET {path} HTTP/1.1", *(f"{name}: {value}" for name, value in given.items() if value is not None)]
    return "\r\n".join([*lines, *(f"{name}: {value}" for name, value in fields), "", ""]).encode()


class Client(Connection):
    """A client that does just what it is told."""

    def open(self, path="/", fields=(), behind=b"", **replace):
        self.send(handshake(path, fields, **replace) + behind)
        self.opened = self.head()
        assert self.opened.status == 101, self.opened
        return self

    def frame(self):
        """The next frame as (opcode, payload), or None at the end."""
        head = self.take(2)
        if len(head) < 2:
            return None
        assert head[0] & 0x80, "a server need not fragment"
        assert not head[1] & 0x80, "a server must not mask"
        length = head[1]
        if length >= 126:
            length = int.from_bytes(self.take(2 if length == 126 else 8), "big")
        return head[0] & 0x4F, self.take(length)

    def close_code(self):
        """The code of the close that comes next."""
        opcode, payload = self.frame()
        assert opcode == CLOSE, (opcode, payload)
        return int.from_bytes(payload[:2], "big") if payload else None
