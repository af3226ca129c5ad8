"""The application's side of a gate: waits until the test lets it go on."""

import contextlib
import os
import socket
import time

#: Seconds: longer than any test.
PATIENCE = 3600


def wait_at(gate):
    """Wait at a `Gate` of tests/waiting.py, by its name; greenlets beside this one go on."""
    with socket.socket(socket.AF_UNIX) as place, contextlib.suppress(ConnectionError):
        # Refused: it is open. Reset: it was opened before this one was let in.
        place.connect("\0" + gate)
        place.recv(1)


def wait_for(path):
    """Wait for a file that the test makes."""
    until = time.monotonic() + PATIENCE
    while not os.path.exists(path):
        if time.monotonic() > until:
            raise TimeoutError(path)
        time.sleep(0.002)
