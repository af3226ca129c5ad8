"""The server in the background."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ANYGATE, APPS, children
from waiting import PATIENCE, lives, wait_until
from wire import Connection

CONTRACT = APPS / "contract.py"
KINDS = pytest.mark.parametrize(
    "kind", [(), ("--preload",), ("--concurrency", "gevent")], ids=["threads", "preload", "greenlets"]
)


class Daemon:
    """A command that leaves a server in the background, of which only files tell."""

    def __init__(self, folder, *arguments, command=(ANYGATE,), pass_fds=()):
        self.folder = folder
        options = ("--daemon", "--pid-file", "pid", "--error-log", "log", "--bind", "unix:a.sock")
        clean = {key: value for key, value in os.environ.items() if not key.startswith("ANYGATE_")}
        self.ended = subprocess.run(
            [*command, *map(str, arguments), *options],
            cwd=folder,
            env=clean,
            pass_fds=pass_fds,
            capture_output=True,
            timeout=PATIENCE,
            check=False,
        )

    def __enter__(self):
        self.pid = int((self.folder / "pid").read_text())
        return self

    def __exit__(self, *_):
        if lives(self.pid):
            os.kill(self.pid, signal.SIGTERM)
        wait_until(lambda: not lives(self.pid), "the end of the daemon")

    def log(self):
        return (self.folder / "log").read_text()

    def children(self):
        return children(self.pid)

    def get(self, target):
        with Connection(str(self.folder / "a.sock")) as connection:
            return connection.ask("GET", target)


@KINDS
def test_the_command_returns_when_the_site_is_served(tmp_path, kind):
    with Daemon(tmp_path, CONTRACT, *kind) as daemon:
        assert daemon.ended.returncode == 0
        assert daemon.get("/pid").status == 200
        assert " serves " in daemon.log()
        session = int(Path(f"/proc/{daemon.pid}/stat").read_text().rpartition(")")[2].split()[3])
        # It is in a session of its own, without a terminal, and does not lead it.
        assert session not in (os.getsid(0), daemon.pid)
        for pid in (daemon.pid, *daemon.children()):
            for stream in range(3):
                assert os.readlink(f"/proc/{pid}/fd/{stream}") == "/dev/null"
    assert not (tmp_path / "pid").exists()
    assert not (tmp_path / "a.sock").exists()


def test_what_keeps_it_from_serving_is_shown_and_returned(tmp_path):
    (tmp_path / "app.py").write_text("broken!\n")
    ended = Daemon(tmp_path, "app:app").ended
    assert ended.returncode == 3
    assert b"SyntaxError" in ended.stderr
    assert not (tmp_path / "pid").exists()


def test_an_address_in_use_is_shown_and_returned(tmp_path):
    with Daemon(tmp_path, CONTRACT) as daemon:
        second = Daemon(tmp_path, CONTRACT).ended
        assert second.returncode == 1
        assert b"a.sock" in second.stderr
        assert daemon.get("/pid").status == 200


@KINDS
def test_sockets_of_a_service_manager_are_served_in_the_background(tmp_path, kind):
    code = (
        "import os, sys\n"
        "os.dup2(int(sys.argv[1]), 3)\n"
        "os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='1')\n"
        "os.execv(sys.argv[2], sys.argv[2:])\n"
    )
    with socket.create_server(("127.0.0.1", 0)) as listener:
        command = [sys.executable, "-c", code, str(listener.fileno()), ANYGATE]
        with Daemon(tmp_path, CONTRACT, *kind, command=command, pass_fds=[listener.fileno()]) as daemon:
            assert not (tmp_path / "a.sock").exists()
            for count in (1, 2):
                with Connection(listener.getsockname()) as connection:
                    assert connection.ask("GET", "/pid").status == 200
                if count == 1:
                    os.kill(daemon.pid, signal.SIGUSR2)
                    wait_until(lambda: daemon.log().count(" serves ") == 2, "the new program", daemon.log)


def test_without_a_log_it_is_refused(run):
    ended = run(CONTRACT, "--port", "0", "--daemon")
    assert ended.returncode == 2
    assert "anygate: error: --daemon: has no terminal for its logs: set --error-log (and" in ended.stderr


@KINDS
def test_it_is_upgraded_in_the_background(tmp_path, kind):
    with Daemon(tmp_path, CONTRACT, *kind) as daemon:
        old = daemon.get("/pid").text
        os.kill(daemon.pid, signal.SIGUSR2)
        wait_until(lambda: daemon.log().count(" serves ") == 2, "the new program", daemon.log)
        wait_until(lambda: daemon.get("/pid").text != old, "another worker", daemon.log)
        assert int((tmp_path / "pid").read_text()) == daemon.pid


@KINDS
def test_winch_stops_its_workers_and_hup_starts_new_ones(tmp_path, kind):
    with Daemon(tmp_path, CONTRACT, *kind) as daemon:
        worker = daemon.get("/pid").text
        os.kill(daemon.pid, signal.SIGWINCH)
        wait_until(lambda: int(worker) not in daemon.children(), "the end of the worker", daemon.log)
        assert "all workers finish (WINCH)" in daemon.log()
        os.kill(daemon.pid, signal.SIGHUP)
        wait_until(lambda: "reloaded: 1 new worker is serving" in daemon.log(), "a new worker", daemon.log)
        assert daemon.get("/pid").text != worker


def test_winch_of_a_terminal_stops_nothing(serve):
    served = serve(CONTRACT)
    workers = served.workers()
    for _ in range(3):
        served.send_signal(signal.SIGWINCH)
    assert served.get("/pid").text == str(workers[0])
    assert served.workers() == workers
