"""Responses that their clients take slowly, for tests of where they wait."""

import os
import sys
from urllib.parse import parse_qs

from uploads import spooled

BODY = os.urandom(1 << 20) * 10


class Fragile(bytes):
    """Bytes that are more than bytes."""


def application(environ, start_response):
    """What each path does is said by its name."""
    asked = {name: values[0] for name, values in parse_qs(environ["QUERY_STRING"]).items()}
    path = environ["PATH_INFO"]
    if path == "/references":
        body = str(sys.getrefcount(BODY)).encode()
    elif path == "/files":
        body = str(spooled()).encode()
    else:
        body = Fragile(BODY) if path == "/fragile" else BODY
    length = len(body) - int(asked.get("less", 0))
    fields = [("Content-Type", "application/octet-stream")]
    if path == "/blocks":
        start_response("200 OK", fields)
        return (body[at : at + 3_000_000] for at in range(0, len(body), 3_000_000))
    start_response("200 OK", [*fields, ("Content-Length", str(length))])
    return [body]
