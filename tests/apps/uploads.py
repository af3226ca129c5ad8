"""What a request's body is, for tests of how it is kept until it is read."""

import hashlib
import os
from urllib.parse import parse_qs

from gates import wait_at


def spooled():
    """How many temporary files this process has open."""
    found = 0
    for number in os.listdir("/proc/self/fd"):
        try:
            found += os.readlink(f"/proc/self/fd/{number}").endswith(" (deleted)")
        except OSError:  # that of the listing itself
            continue
    return found


def read_all(stream, pieces):
    """The body, read whole or in pieces of these sizes and then whole."""
    return b"".join([*(stream.read(size) for size in pieces), stream.read()])


def application(environ, start_response):
    """Length and digest of the body, and how many bodies are in files."""
    asked = {name: values[0] for name, values in parse_qs(environ["QUERY_STRING"]).items()}
    if "gate" in asked:
        wait_at(asked["gate"])
    files = spooled()
    pieces = [int(size) for size in asked.get("pieces", "").split(",") if size]
    body = read_all(environ["wsgi.input"], pieces)
    assert environ["wsgi.input"].read() == b""
    assert environ["wsgi.input"].tell() == len(body)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{len(body)} {hashlib.sha256(body).hexdigest()} {files}".encode()]
