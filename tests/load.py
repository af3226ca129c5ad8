"""Clients that ask without a pause, half of them on connections that they keep, and note what fails."""

from __future__ import annotations

import threading
import time

#: A connection that was not used for so long is not used again.
IDLE = 0.5


class Load:
    """Asks a server for `target` as long as the block runs, from so many threads."""

    def __init__(self, served, target="/", clients=6):
        self.served, self.target = served, target
        self.responses, self.failures = [], []
        self.over = threading.Event()
        self.threads = [threading.Thread(target=self.run, args=(number % 2 == 0,)) for number in range(clients)]

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        for thread in self.threads:
            thread.join()

    def run(self, keep):
        connection, used = None, 0
        while not self.over.is_set():
            # A worker that ends closes what was idle for a second, as any server may; this machine may be busy.
            if connection and time.monotonic() - used > IDLE:
                connection.close()
                connection = None
            kept, sent = connection is not None, None
            try:
                connection = connection or self.served.connect()
                connection.send(f"GET {self.target} HTTP/1.1\r\nHost: test\r\n\r\n")
                sent = time.monotonic()
                response = connection.response()
                assert response.status == 200, response
                self.responses.append(response.text)
                if response["connection"] == "close" or not keep:
                    connection.close()
                    connection = None
            except Exception as error:
                # Between the request before and this one others may have had their turn on this machine.
                idle = (sent or time.monotonic()) - used
                if not (kept and isinstance(error, ConnectionError) and idle > IDLE):
                    self.failures.append(repr(error))
                connection = None
            used = sent or 0

    def wait_for(self, count, text=None):
        """Wait for so many more responses, with that text if one is given."""
        have = len(self.responses)
        self.served.wait_until(
            lambda: len([one for one in self.responses[have:] if text in (None, one)]) >= count,
            f"{count} responses of {text or 'any kind'}",
        )
