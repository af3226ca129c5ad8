"""deploy/docker: what the image starts works as PID 1, without root, without a file system that can be written.

Docker's own part (namespaces, a file system that is read only, a user) is played by unshare and setpriv.
"""

import contextlib
import json
import os
import re
import shlex
import signal
import subprocess
from pathlib import Path

import pytest
from conftest import ANYGATE, Served, children
from other_servers import free_port
from waiting import wait_until

DOCKERFILE = (Path(__file__).parents[2] / "deploy" / "docker" / "Dockerfile").read_text()
USER = re.search(r"^USER (\d+):\1$", DOCKERFILE, re.MULTILINE)[1]
#: What Docker does before it executes the entry point. The capability is for tests in the home of root only.
CONTAINER = (
    "mount --make-rprivate / && mount --options remount,bind,ro / && exec setpriv"
    f" --reuid {USER} --regid {USER} --clear-groups --no-new-privs"
    " --bounding-set=-all,+dac_read_search --inh-caps=-all,+dac_read_search --ambient-caps=-all,+dac_read_search"
    ' "$0" "$@"'
)
APP = """
import os, subprocess, sys
def app(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/orphan":
        # The shell ends at once; its child, whose parent is gone, is PID 1's.
        child = subprocess.check_output(["sh", "-c", "sleep 0.1 >&- & echo $!"])
        body = child.strip()
    elif path == "/upload":
        body = str(len(environ["wsgi.input"].read())).encode()
    else:
        body = f"{os.getppid()} {os.getuid()} {os.access('.', os.W_OK)}".encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
"""


def variables():
    """The image's settings."""
    joined = DOCKERFILE.replace("\\\n", " ")
    words = [shlex.split(line)[1:] for line in joined.splitlines() if line.startswith("ENV ANYGATE")]
    return dict(word.split("=", 1) for line in words for word in line)


@pytest.fixture
def container(tmp_path):
    if subprocess.run(["unshare", "--pid", "--mount", "--fork", "true"], check=False, capture_output=True).returncode:
        pytest.skip("this user may not make namespaces")
    (tmp_path / "app.py").write_text(APP)
    port = free_port()
    settings = {name: value.replace("0.0.0.0:8000", f"127.0.0.1:{port}") for name, value in variables().items()}
    unshare = ["unshare", "--pid", "--mount", "--fork", "--kill-child", "--mount-proc", "sh", "-c", CONTAINER]
    served = Container(["app:app"], tmp_path, settings, command=[*unshare, ANYGATE])
    served.port = port
    yield served.wait_ready()
    served.kill()


class Container(Served):
    def __init__(self, arguments, folder, settings, command):
        # Served keeps the variables of the tests apart from those of anygate.
        super().__init__(arguments, folder, environment=settings, command=command)

    @property
    def addresses(self):
        return [("127.0.0.1", self.port)]

    def first(self):
        """The supervisor, as it is seen from outside."""
        (pid,) = children(self.pid)
        return pid

    def states(self):
        """The states of all processes below PID 1."""
        found = []
        for pid in children(self.first()):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                found.append(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0])
        return found


def test_requests_are_served_by_a_user_who_can_write_nothing(container):
    assert container.get("/").text == f"1 {USER} False"
    assert container.get("/health").status == 200


def test_uploads_need_no_file(container):
    assert container.get("/upload", method="POST", body=bytes(5_000_000)).text == "5000000"


def test_orphans_are_reaped(container):
    before = len(container.states())
    assert container.get("/orphan").status == 200
    wait_until(lambda: container.states() == ["S"] * before, "that no process is left", lambda: container.states())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_in_order(container, number):
    os.kill(container.first(), number)
    assert container.wait() == 0


def test_a_reload_is_one(container):
    os.kill(container.first(), signal.SIGHUP)
    container.wait_for_log("reloaded: ")


def test_logs_are_json(container):
    assert container.get("/orphan?a=b").status == 200
    os.kill(container.first(), signal.SIGTERM)
    assert container.wait() == 0
    (request,) = [json.loads(line) for line in container.stdout().splitlines()]
    assert (request["target"], request["status"]) == ("/orphan?a=b", 200)
    messages = [json.loads(line) for line in container.log().splitlines()]
    assert any(message["pid"] == 1 and "stopping" in message["message"] for message in messages), messages


def test_the_image_is_checked_by_the_same_path(container):
    check = re.search(r"^HEALTHCHECK CMD (.*)$", DOCKERFILE, re.MULTILINE)[1]
    python, *rest = json.loads(check.replace(":8000", f":{container.port}"))
    done = subprocess.run([ANYGATE.parent / python, *rest], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
