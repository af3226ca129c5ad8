"""One server of a comparison: its processes, from its start to its end, and what they take."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType

#: Seconds for which a server may take to start, to send one response, and to end.
START_MAX = 60.0
RESPONSE_MAX = 10.0
END_MAX = 5.0

#: Signals that end a program.
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

_TICKS = os.sysconf("SC_CLK_TCK")


class ServerFailed(Exception):
    """The server did not start, or its responses are not right; the message says why."""


class MeasuredServer:
    """Context manager: the server runs, and has responded to a request, inside of it."""

    def __init__(
        self, name: str, arguments: Iterable[str], request: bytes, cores: Iterable[int] | None, sets_port: bool = False
    ) -> None:
        """Start nothing yet.

        ``request``: the first one; ``cores``: the processor cores that it is kept to; ``sets_port``: the
        settings have an address in ``ip`` or ``port``.
        """
        self._sets_port = sets_port
        self.name = name
        self._request = request
        self._arguments = list(arguments)
        self._cores = cores
        self._process: subprocess.Popen[bytes] | None = None
        #: Seconds from its start to its first response.
        self.start_seconds = 0.0

    def __enter__(self) -> MeasuredServer:
        self._log = tempfile.TemporaryFile()
        # The port stays bound until the server listens, so that no other program is given it.
        with socket.socket() as held:
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            held.bind(("127.0.0.1", 0))
            self.address: tuple[str, int] = held.getsockname()
            try:
                self._start()
                self._wait()
            except BaseException:
                self._end()
                raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def _start(self) -> None:
        host, port = self.address
        # What stands twice is one address, and takes the place of those in files.
        again = ["--no-scgi", f"--ip={host}", f"--port={port}"] if self._sets_port else []
        address = [f"--bind=http://{host}:{port}", *again]
        command = [sys.executable, "-m", "anygate", "-s", self.name, *address, *self._arguments]
        with on_cores(self._cores):
            begun = time.perf_counter()
            # A session of its own: what is pressed in the terminal is for this program, which ends the server itself.
            # If this program is killed, the server ends by that.
            self._process = subprocess.Popen(
                command,
                env={**os.environ, "_ANYGATE_WITH_PARENT": "1"},
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=self._log,
                start_new_session=True,
            )
        self._begun = begun

    def _wait(self) -> None:
        assert self._process is not None
        while True:
            try:
                self.ask(self._request)
            except OSError as error:
                code = self._process.poll()
                if code is not None:
                    raise ServerFailed(self.last_words() or f"ended with exit code {code}") from None
                if time.perf_counter() - self._begun > START_MAX:
                    raise ServerFailed(f"sent no response within {START_MAX:.0f} s of its start ({error})") from None
                time.sleep(0.005)
            except http.client.HTTPException as error:
                raise ServerFailed(f"sent no response of HTTP: {error!r}") from None
            else:
                self.start_seconds = time.perf_counter() - self._begun
                return

    def last_words(self) -> str:
        """Return what it said last: the message that is meant for people, and the last line."""
        self._log.seek(0)
        lines = [line.strip() for line in self._log.read().decode(errors="replace").splitlines() if line.strip()]
        messages = [line.partition("anygate: error: ")[2] for line in lines if "anygate: error: " in line]
        last = "" if not lines or "anygate: error: " in lines[-1] else lines[-1]
        return ": ".join(filter(None, [*messages[-1:], last]))

    def ask(self, request: bytes) -> tuple[int, bytes]:
        """Send a request on a connection of its own; return status and body."""
        with socket.create_connection(self.address, RESPONSE_MAX) as connection:
            connection.sendall(request)
            response = http.client.HTTPResponse(connection)
            response.begin()
            return response.status, response.read()

    def processor_seconds(self) -> float:
        """Time on processors that all its processes have taken so far."""
        return sum(process.ticks for process in self._processes()) / _TICKS

    def memory_bytes(self) -> int:
        """Memory of all its processes; what several of them share counts once (PSS)."""
        return sum(_memory(process.pid) for process in self._processes())

    def _processes(self) -> list[_Process]:
        return family(self._process.pid) if self._process is not None else []

    def _end(self) -> None:
        """End it as an administrator would, then whatever is left of it."""
        if self._process is None:
            return
        # A signal that ends this program waits until it has ended.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
        try:
            left = self._processes()
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(END_MAX)
            left = [process for process in left if process.is_alive()] + self._processes()
            for process in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGKILL)
            self._process.wait()
            until = time.monotonic() + END_MAX
            while any(process.is_alive() for process in left) and time.monotonic() < until:
                time.sleep(0.005)
            self._log.close()
            self._process = None
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _Process:
    """What the kernel tells of a process (proc_pid_stat(5))."""

    def __init__(self, pid: int) -> None:
        stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        self.pid, self.state, self.parent, self.session = pid, stat[0], int(stat[1]), int(stat[3])
        #: User and kernel mode, of itself and of its children that it has waited for.
        self.ticks = sum(map(int, stat[11:15]))
        self.started = stat[19]

    def is_alive(self) -> bool:
        """Return whether it has not ended; its number may be another's by now."""
        with contextlib.suppress(OSError):
            now = _Process(self.pid)
            return now.started == self.started and now.state != "Z"
        return False


def family(root: int) -> list[_Process]:
    """Return a process, those that come from it, and those of its session."""
    seen = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            # It may have ended since.
            with contextlib.suppress(OSError):
                seen.append(_Process(int(name)))
    found = {process.pid for process in seen if process.pid == root or process.session == root}
    size = 0
    while size != len(found):
        size = len(found)
        found |= {process.pid for process in seen if process.parent in found}
    return [process for process in seen if process.pid in found]


def _memory(pid: int) -> int:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0


def request_of(path: str, method: str = "GET", body: bytes | None = None, kind: str = "") -> bytes:
    """Return a request without anything that differs from run to run; ``kind``: the media type of its body."""
    fields = "Host: localhost\r\nUser-Agent: anygate-compare\r\nAccept: */*\r\nConnection: keep-alive\r\n"
    if body is not None:
        fields += f"Content-Type: {kind}\r\n"
    if body is not None or method not in ("GET", "OPTIONS"):
        fields += f"Content-Length: {len(body or b'')}\r\n"
    return f"{method} {path} HTTP/1.1\r\n{fields}\r\n".encode() + (body or b"")


@contextlib.contextmanager
def on_cores(cores: Iterable[int] | None) -> Iterator[None]:
    """Keep this thread, and what it starts, to some processor cores; ``None``: all that it has."""
    if cores is None:
        yield
        return
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, cores)
        yield
    finally:
        os.sched_setaffinity(0, before)
