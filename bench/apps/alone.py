"""Calls an application without a server, as often as lines of the standard input say: what a server cannot go below.

alone.py MODULE NAME PATH BODY_BYTES
"""

import importlib
import io
import sys
import time
from pathlib import Path


def environ(path, body, content_type):
    """The environ of a small request, but for its body."""
    return {
        "REQUEST_METHOD": "POST" if body else "GET",
        "SCRIPT_NAME": "",
        "PATH_INFO": path,
        "QUERY_STRING": "",
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "HTTP_HOST": "localhost",
        **({"CONTENT_LENGTH": str(len(body)), "CONTENT_TYPE": content_type} if body else {}),
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": False,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }


def start_response(status, headers, exc_info=None):
    if not status.startswith("200"):
        raise SystemExit(status)
    return lambda data: None


def call(application, unchanged, body):
    blocks = application({**unchanged, "wsgi.input": io.BytesIO(body)}, start_response)
    for _ in blocks:
        pass
    if hasattr(blocks, "close"):
        blocks.close()


def main():
    module, name, path, *upload = sys.argv[1:]
    application = getattr(importlib.import_module(module), name)
    body = Path(upload[0]).read_bytes() if upload else b""
    unchanged = environ(path, body, upload[1] if upload else "")
    for line in iter(sys.stdin.readline, ""):
        begun = time.process_time()
        for _ in range(int(line)):
            call(application, unchanged, body)
        print(int(line), time.process_time() - begun, flush=True)


if __name__ == "__main__":
    main()
