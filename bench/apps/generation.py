"""An application that says which import of it responds."""

import os
import time

IMPORTED = f"{os.getpid()} {time.monotonic_ns()}".encode()


def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(IMPORTED)))])
    return [IMPORTED]
