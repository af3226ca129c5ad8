"""WebSockets as streams of HTTP/2 (RFC 8441), seen by their client."""

import websocket_frames
from http2_frames import Client


def connect(sock):
    """A client that has been told that streams may be WebSockets."""
    client = Client(sock)
    while not client.state.remote_settings.enable_connect_protocol:
        assert client.pump(), "closed before the settings"
    return client


class Stream(websocket_frames.Client):
    """One WebSocket."""

    def __init__(self, client, path, protocol="websocket", **fields):
        given = {"sec-websocket-version": "13", **{name.replace("_", "-"): value for name, value in fields.items()}}
        self.client = client
        self.number = client.begin("CONNECT", path, [(":protocol", protocol), *given.items()], end=False)

    def status(self):
        return self.client.wait_head(self.number).status

    def send(self, data):
        self.client.send(self.number, data, end=False)

    def has_ended(self):
        return self.number in self.client.ended or self.number in self.client.resets

    def take(self, count):
        chunks = self.client.wait_head(self.number).chunks
        while sum(map(len, chunks)) < count and not self.has_ended():
            assert self.client.pump(), "the connection has ended"
        data = b"".join(chunks)
        chunks[:] = [data[count:]]
        return data[:count]
