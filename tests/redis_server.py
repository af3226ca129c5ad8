"""A real Redis for tests."""

import subprocess

from other_servers import free_port
from wire import Connection


class Redis:
    """A Redis that keeps nothing, at one address for as long as the test. `before`: what starts the program."""

    def __init__(self, folder, *options, before=()):
        self.port, self.folder, self.options, self.before = free_port(), folder, options, before
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
                [*self.before, "redis-server", *map(str, given), *self.options],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )
        while not self.responses():
            assert self.process.poll() is None, "it ended"

    def responses(self):
        try:
            with Connection(self.path) as connection:
                return connection.send(b"PING\r\n").line()
        except (ConnectionError, FileNotFoundError):
            return None

    def kill(self):
        self.process.kill()
        self.process.wait()

    @property
    def url(self):
        return f"redis://127.0.0.1:{self.port}"
