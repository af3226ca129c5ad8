"""A real Redis for tests."""

import subprocess

from other_servers import free_port
from wire import Connection


class Redis:
    """A Redis that keeps nothing, at one address for as long as the test."""

    def __init__(self, folder, *options):
        self.port, self.folder, self.options = free_port(), folder, options
        self.path = f"{folder}/redis.sock"
        self.start()

    def start(self):
        given = [
            "--port",
            self.port,
            "--bind",
            "127.0.0.1",
            "--unixsocket",
            self.path,
            "--dir",
            self.folder,
            "--save",
            "",
        ]
        with open(f"{self.folder}/redis.log", "ab") as log:
            self.process = subprocess.Popen(
                ["redis-server", *map(str, given), *self.options], stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )
        while not self.answers():
            assert self.process.poll() is None, "it ended"

    def answers(self):
        try:
            with Connection(("127.0.0.1", self.port)) as connection:
                return connection.send(b"PING\r\n").line()
        except ConnectionError:
            return None

    def kill(self):
        self.process.kill()
        self.process.wait()

    @property
    def url(self):
        return f"redis://127.0.0.1:{self.port}"
