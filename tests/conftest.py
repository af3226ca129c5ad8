"""Fixtures: anygate as a process, and raw connections to it."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from waiting import PATIENCE, Gate, let_pass, lives, stop, wait_until
from wire import Connection

#: Tests that run web2py, by their names.
WEB2PY = re.compile("web2py|originals/|<recycle>|crontab|test_file_locks", re.IGNORECASE)

#: What a worker is called (crates/sys/src/title.rs).
WORKER = re.compile(r"-w\d+$")

#: Limits that a slow machine would meet in tests which are not about them. A test sets those that it is about.
PATIENT = {
    "BODY_RATE_MIN_BYTES": "0",
    **dict.fromkeys(("HEADER_TIMEOUT", "BODY_TIMEOUT", "KEEPALIVE_TIMEOUT", "WRITE_TIMEOUT", "QUEUE_TIMEOUT"), "1h"),
    **dict.fromkeys(("GRACEFUL_TIMEOUT", "WORKER_TIMEOUT", "WORKER_START_TIMEOUT", "READY_CHECK_TIMEOUT"), "1h"),
    **dict.fromkeys(("FORWARD_AUTH_TIMEOUT", "SHARED_TIMEOUT"), "1h"),
    **dict.fromkeys(("WEBSOCKET_PING_INTERVAL", "WEBSOCKET_PING_TIMEOUT"), "1h"),
}

APPS = Path(__file__).parent / "apps"
ANYGATE = Path(sys.executable).parent / "anygate"


#: The same of processes that no test has started itself (prctl(2)).
ADOPTED = re.compile(r"-(w\d+|template|assistant)$")
PR_SET_CHILD_SUBREAPER = 36
#: Whether anygate is built without what only Linux has, to be tried on Linux (make portable).
PORTABLE = Path(sys.prefix).name.endswith("-portable")


def pytest_sessionstart():
    """Have the workers of templates taken when they have ended."""
    if PORTABLE:
        adopt_orphans()


def pytest_collection_modifyitems(items):
    """Skip what only Linux has where that is turned off (docs/platforms.md), and what needs web2py where there is none.
    Its release on the package index needs Python 3.11 or older."""
    for item in items if PORTABLE else ():
        for mark in item.iter_markers("linux"):
            item.add_marker(pytest.mark.skip(reason=f"only on Linux: {mark.args[0]}"))
    if sys.version_info >= (3, 12):
        skip = pytest.mark.skip(reason="web2py 2.26 does not run on this Python")
        for item in items:
            if WEB2PY.search(item.nodeid) or "web2py_site" in getattr(item, "fixturenames", ()):
                item.add_marker(skip)


def name(pid):
    """A process's name; none of one that is gone."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def children(parent):
    """The processes that a process has forked. The kernel's own list may miss some while others end (proc(5))."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            pid, (_, ppid) = int(stat.parent.name), stat.read_text().rpartition(")")[2].split()[:2]
            if int(ppid) == parent:
                found.append(pid)
    return found


def family(first):
    """A process and all below it that live, each behind its parent."""
    found = [first] if lives(first) else []
    for pid in children(first):
        found += family(pid)
    return found


def patient(arguments, folder):
    """The variables of `PATIENT` for anygate's own server, without those of options that its file sets."""
    words = [str(argument) for argument in arguments]
    files = [folder / word for word in words] + [folder / f"anygate.{kind}" for kind in ("toml", "yaml", "yml", "json")]
    suffixes = (".toml", ".yaml", ".yml", ".json")
    text = "\n".join(path.read_text() for path in files if path.suffix in suffixes and path.is_file())
    if {"-s", "--server", "compare"} & set(words) or re.search(r"^\W*server\b", text, re.MULTILINE):
        return {}
    return {f"ANYGATE_{name}": value for name, value in PATIENT.items() if name.lower() not in text}


def adopt_orphans():
    """Do for orphans what the first process of a system does; that of a container may leave them as they are."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)

    def is_orphan(pid):
        # Tests start processes in their own group, or as the first ones of a new group.
        return ADOPTED.search(name(pid)) or os.getpgid(pid) not in (pid, os.getpgrp())

    def take():
        while True:
            for pid in children(os.getpid()):
                with contextlib.suppress(ChildProcessError, ProcessLookupError):
                    if is_orphan(pid):
                        os.waitpid(pid, os.WNOHANG)
            let_pass(0.3, "the end of an orphan is told to nobody else")

    threading.Thread(target=take, daemon=True).start()


def marked(mark):
    """The processes that have a variable of the environment, whoever their parents are."""
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if mark.encode() in path.read_bytes().split(b"\0"):
                yield int(path.parent.name)


class Served:
    """A running anygate."""

    def __init__(self, arguments, folder, environment=None, pass_fds=(), command=None, logs=None):
        clean = {key: value for key, value in os.environ.items() if not key.startswith("ANYGATE_")}
        self.errors = (logs or folder) / f"stderr-{time.monotonic_ns()}"
        self.output = self.errors.with_name(self.errors.name.replace("stderr", "stdout"))
        patience = patient(arguments, folder) if ANYGATE in (command or [ANYGATE]) else {}
        self.mark = f"SERVED={os.urandom(8).hex()}"
        variables = dict([self.mark.split("=")]) if PORTABLE else {}
        with self.errors.open("wb") as errors, self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [str(part) for part in (command or [ANYGATE])] + [str(argument) for argument in arguments],
                cwd=folder,
                env={**clean, **patience, "PYTHONUNBUFFERED": "1", **variables, **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=errors,
                pass_fds=pass_fds,
            )
        self.pid = self.process.pid

    def log(self):
        return self.errors.read_text(errors="replace")

    def stdout(self):
        return self.output.read_text(errors="replace")

    def wait_until(self, condition, what):
        return wait_until(condition, what, self.log)

    def wait_for_log(self, text, count=1):
        self.wait_until(lambda: self.log().count(text) >= count, f"{text!r} in the log")

    def wait_ready(self):
        def ready():
            if self.process.poll() is not None:
                pytest.fail(f"anygate ended with {self.process.returncode} before it was ready\n{self.log()}")
            return " serves " in self.log()

        self.wait_until(ready, "ready")
        return self

    def wait_refused(self):
        """Wait until nobody listens any more: all workers have begun to end."""

        def refused():
            try:
                self.connect().close()
            except ConnectionRefusedError:
                return True
            except ConnectionError:
                # The moment in which the socket closes may lose a connection.
                return False
            return False

        self.wait_until(refused, "the end of the listening socket")

    @property
    def addresses(self):
        """Where it listens, as it says: (host, port) or a path."""
        banner = re.search(r" serves .* on (\S.*) with \d+ workers? of ", self.log())
        found = []
        for url in banner[1].split(" and "):
            if "unix:" in url:
                found.append(url.partition("unix:")[2])
            else:
                host, _, port = url.partition("://")[2].rpartition(":")
                found.append((host.strip("[]"), int(port)))
        return found

    @property
    def address(self):
        return self.addresses[0]

    @property
    def url(self):
        host, port = self.address
        return f"http://{host}:{port}"

    def connect(self, address=None):
        return Connection(address or self.address)

    def get(self, target="/", fields=(), method="GET", body=b""):
        with self.connect() as connection:
            return connection.ask(method, target, fields, body)

    def processes(self):
        """The processes below the first one, without the template that forks workers with ``--preload``."""
        found = {*children(self.pid), *self.orphans()}
        return sorted(pid for pid in found if not name(pid).endswith("-template"))

    def workers(self):
        """The workers. A process that has just been forked is none until it has its name."""
        found = {*children(self.pid), *self.orphans()}
        return sorted(pid for pid in found if WORKER.search(name(pid)))

    def orphans(self):
        """Workers that a template has forked, where they cannot become children of the first process."""
        return [pid for pid in marked(self.mark) if WORKER.search(name(pid))] if PORTABLE else []

    def send_signal(self, number):
        os.kill(self.pid, number)

    def terminate(self, number=signal.SIGTERM):
        """End it; give the exit code."""
        if self.process.poll() is None:
            self.send_signal(number)
        return self.wait()

    def wait(self):
        return self.process.wait(PATIENCE)

    def kill(self):
        """Clean up whatever is left; after this its ports are free."""
        if self.process.poll() is not None:
            return
        stopped = []
        # A process that stands still forks no more. Children of one that has just ended are found below the supervisor.
        while found := [pid for pid in family(self.pid) if pid not in stopped]:
            for pid in found:
                stop(pid)
            stopped += found
        for pid in stopped:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()
        for pid in stopped:
            wait_until(lambda pid=pid: not lives(pid), f"the end of {pid}")


@pytest.fixture
def gate():
    """A gate at which applications wait (tests/waiting.py)."""
    with Gate() as gate:
        yield gate


@pytest.fixture
def web2py_site(tmp_path):
    """A web2py site without handler files, which any user may run."""
    folder = tmp_path / "site"
    shutil.copytree(Path(__file__).parent / "web2py" / "site", folder)
    (folder / "wsgihandler.py").unlink()
    for path in [folder, *folder.rglob("*")]:
        if path.is_dir():
            # web2py makes its folders when it is first asked.
            path.chmod(0o777)
    return folder


@pytest.fixture
def launch(tmp_path):
    """Start anygate with arguments, in a temporary folder; does not wait."""
    running = []

    def start(*arguments, folder=tmp_path, **options):
        running.append(Served(arguments, folder, logs=tmp_path, **options))
        return running[-1]

    yield start
    for served in running:
        served.kill()


@pytest.fixture
def serve(launch):
    """Start anygate with arguments on a free port, and wait until it serves."""

    def start(*arguments, **options):
        bound = any(str(argument) in ("--bind", "-b", "--port", "-p") for argument in arguments)
        return launch(*arguments, *([] if bound else ["--port", "0"]), **options).wait_ready()

    return start


@pytest.fixture
def run(tmp_path):
    """Run anygate to its end; give code, output, errors."""

    def start(*arguments, environment=None, folder=tmp_path, command=None):
        clean = {key: value for key, value in os.environ.items() if not key.startswith("ANYGATE_")}
        return subprocess.run(
            [str(part) for part in (command or [ANYGATE])] + [str(argument) for argument in arguments],
            cwd=folder,
            env={**clean, **(environment or {})},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )

    return start


@pytest.fixture(scope="session", params=["threads", "gevent"])
def echo(request, tmp_path_factory):
    """One server for all tests that need nothing special: tests/apps/contract.py."""
    arguments = [APPS / "contract.py", "--port", "0", "--concurrency", request.param]
    served = Served(arguments, tmp_path_factory.mktemp("echo")).wait_ready()
    served.concurrency = request.param
    yield served
    served.kill()
