"""Started without standard streams, as by daemon managers: descriptors 0 to 2 are /dev/null, no socket or log."""

import os
import socket
import sys

import pytest
from conftest import ANYGATE

APP = """
import os

def app(environ, start_response):
    found = [os.readlink(f"/proc/self/fd/{number}") for number in (0, 1, 2)]
    start_response("200 OK", [("Content-Type", "text/plain")])
    return ["\\n".join(found).encode()]
"""
PROGRAM = """
import anygate
from app import app
anygate.serve(app, port={port}, error_log="error.log")
"""


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize(
    "command",
    [
        "{anygate} app:app",
        "{anygate} app:app --preload",
        "{anygate} app:app --concurrency gevent",
        "{anygate} -s waitress app:app",
        "{python} program.py",
    ],
)
def test_a_closed_standard_stream_is_dev_null(launch, tmp_path, command, closed):
    (tmp_path / "app.py").write_text(APP)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    (tmp_path / "program.py").write_text(PROGRAM.format(port=port))
    command = command.format(anygate=ANYGATE, python=sys.executable)
    if "program" not in command:
        command += f" --port {port}"
    served = launch("-c", f"exec {command} {closed}", command=["sh"])

    def answers():
        try:
            return served.connect(("127.0.0.1", port))
        except ConnectionRefusedError:
            return None

    with served.wait_until(answers, "an answer") as connection:
        found = connection.ask().text.splitlines()
    given = {"<&-": [0], ">&-": [1], "2>&-": [2]}.get(closed, [0, 1, 2])
    assert [found[number] for number in given] == [os.devnull] * len(given)
