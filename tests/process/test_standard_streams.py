"""Standard streams: what is printed there, and descriptors 0 to 2 where a daemon manager leaves them closed."""

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

    def responses():
        try:
            return served.connect(("127.0.0.1", port))
        except ConnectionRefusedError:
            return None

    with served.wait_until(responses, "a response") as connection:
        found = connection.ask().text.splitlines()
    given = {"<&-": [0], ">&-": [1], "2>&-": [2]}.get(closed, [0, 1, 2])
    assert [found[number] for number in given] == [os.devnull] * len(given)


PRINTS = """
import os

print("import")

def app(environ, start_response):
    print("request")
    child = os.fork()
    if child == 0:
        raise SystemExit
    os.waitpid(child, 0)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"ok"]
"""
PRINTS_FIRST = """
import anygate
from app import app
print("program")
anygate.serve(app, port=0, workers=2)
"""
BUFFERED = {"PYTHONUNBUFFERED": ""}


@pytest.mark.parametrize(
    ("options", "imports"),
    [
        ([], 2),
        (["--preload"], 1),
        (["--concurrency", "gevent"], 2),
        (["--preload", "--concurrency", "gevent"], 1),
    ],
)
def test_what_is_printed_is_seen_at_once_and_once(serve, tmp_path, options, imports):
    (tmp_path / "app.py").write_text(PRINTS)
    served = serve("app:app", "--workers", "2", *options, environment=BUFFERED)
    assert served.stdout().splitlines() == ["import"] * imports
    served.get()
    assert served.stdout().splitlines() == ["import"] * imports + ["request"]
    assert served.terminate() == 0
    assert served.stdout().splitlines() == ["import"] * imports + ["request"]


def test_what_a_program_has_printed_is_not_printed_by_its_workers(launch, tmp_path):
    (tmp_path / "app.py").write_text(PRINTS)
    (tmp_path / "program.py").write_text(PRINTS_FIRST)
    served = launch("program.py", command=[sys.executable], environment=BUFFERED).wait_ready()
    assert served.terminate() == 0
    assert served.stdout().splitlines() == ["import", "program"]
