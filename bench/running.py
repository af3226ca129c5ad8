"""The processes of the servers that are measured."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import time
from pathlib import Path

from servers import ANYGATE, BIN, CACHE, FOLDER, LOAD_CORE, PYTHON, SERVER_CORE, wsgitools


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def tasks_of(pid):
    """The threads of a process, as folders; none if it has gone."""
    try:
        return list(Path(f"/proc/{pid}/task").iterdir())
    except FileNotFoundError:
        return []


def family(pid):
    """A process and all that come from it."""
    found, queue = [], [pid]
    while queue:
        pid = queue.pop()
        found.append(pid)
        for task in tasks_of(pid):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                queue += [int(child) for child in (task / "children").read_text().split()]
    return found


class Failed(Exception):
    """A server did not start, or its responses are not right."""


class Running:
    """A server process, pinned to its core."""

    scheme = "http"

    def __init__(self, server, module, name, place=None, cores=SERVER_CORE):
        self.port = place or free_port()
        made = server.make(module, name, self.port, server.threads)
        self.command = ["taskset", "-c", cores, *map(str, made)]
        self.log = (CACHE / "server.log").open("w+b")
        self.begun = time.perf_counter()
        self.process = subprocess.Popen(
            self.command,
            cwd=FOLDER / "apps",
            env=environment(made),
            stdout=self.log,
            stderr=self.log,
            stdin=subprocess.DEVNULL,
        )

    def wait(self, path):
        until = time.perf_counter() + 30
        while time.perf_counter() < until:
            try:
                with self.connect() as connection:
                    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
                    if connection.recv(100).startswith(b"HTTP/1.1 200"):
                        return time.perf_counter() - self.begun
            except OSError:
                pass
            if self.process.poll() is not None:
                break
            time.sleep(0.002)
        self.log.seek(0)
        raise SystemExit(f"{' '.join(self.command)}\ndid not respond:\n{self.log.read().decode(errors='replace')}")

    def last_line(self):
        """What the server said last."""
        self.log.seek(0)
        lines = [line for line in self.log.read().decode(errors="replace").splitlines() if line.strip()]
        # Where the measurements are on this machine is of no interest.
        return lines[-1].replace(f"{FOLDER.parent}/", "").strip()[:200] if lines else "it says nothing"

    def connect(self):
        """A connection as a client of HTTP/1.1 makes it."""
        return socket.create_connection(("127.0.0.1", self.port), 2)

    def processes(self):
        return family(self.process.pid)

    def processor(self):
        """Seconds on the processor (user, system), of all processes."""
        user = system = exact = 0
        for pid in self.processes():
            try:
                values = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            user, system = user + int(values[11]), system + int(values[12])
            for task in tasks_of(pid):
                # Threads come and go; the clock ticks of the process have those that have gone.
                with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                    exact += int((task / "schedstat").read_text().split()[0])
        return user, system, max(exact / 1e9, (user + system) / os.sysconf("SC_CLK_TCK"))

    def memory(self):
        """Bytes that the processes have to themselves or share among each other (PSS)."""
        total = 0
        for pid in self.processes():
            try:
                total += int(re.search(r"Pss:\s+(\d+)", Path(f"/proc/{pid}/smaps_rollup").read_text())[1]) * 1024
            except OSError:
                # It ended in the meantime, as a worker that its own master replaces.
                continue
        return total

    def __enter__(self):
        return self

    def __exit__(self, *_):
        processes = family(self.process.pid)
        self.process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(10)
        # Some do not end, or leave their workers behind.
        for pid in processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()
        self.log.close()


class Alone:
    """An application that is called without a server, by apps/alone.py."""

    def __init__(self, module, name, path, upload=(), before=()):
        command = [PYTHON, FOLDER / "apps" / "alone.py", module, name, path, *upload]
        self.process = subprocess.Popen(
            [*before, *map(str, command)],
            cwd=FOLDER / "apps",
            env={**environment(command), "PYTHONHASHSEED": "0"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def call(self, count):
        """Call it so often; return the seconds on the processor."""
        self.process.stdin.write(f"{count}\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line.startswith(f"{count} "):
            raise SystemExit("the application failed without a server")
        return float(line.split()[1])

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait(60)
        self.process.stdout.close()


def environment(command):
    """The environment of a server: it finds the applications.

    anygate runs in its own environment; Flask and gevent come from that of the others, so that all use the same.
    """
    own = Path(command[0]) == ANYGATE
    packages = [str(path) for path in (CACHE / "venv" / "lib").glob("python*/site-packages")] if own else []
    return {
        **os.environ,
        "PATH": os.environ["PATH"] if own else f"{BIN}:{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join([str(FOLDER / "apps"), *packages]),
    }


class Secure(Running):
    """A server that speaks TLS."""

    scheme = "https"

    def connect(self):
        """Connect without checking the certificate."""
        context = ssl._create_unverified_context()
        return context.wrap_socket(super().connect())


class PriorKnowledge(Running):
    """A server that speaks HTTP/2 and nothing else, without TLS."""

    def wait(self, path):
        until = time.perf_counter() + 30
        command = ["curl", "--silent", "--http2-prior-knowledge", f"http://127.0.0.1:{self.port}{path}"]
        while time.perf_counter() < until:
            if subprocess.run(command, capture_output=True, check=False).stdout:
                return time.perf_counter() - self.begun
            time.sleep(0.05)
        raise SystemExit(f"{' '.join(self.command)}\ndid not respond")


class Behind(Running):
    """A back end behind nginx, which shares the core of the load."""

    def __init__(self, server, module, name, protocol, keep):
        folder = CACHE / "front"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        place = free_port() if server.make is wsgitools else folder / "back-end.sock"
        super().__init__(server, module, name, place)
        self.port = free_port()
        upstream = f"127.0.0.1:{place}" if server.make is wsgitools else f"unix:{place}"
        (folder / "nginx.conf").write_text(
            FRONT.format(
                upstream=upstream,
                port=self.port,
                protocol=protocol,
                keep="keepalive 32;" if keep else "",
                kept=f"{protocol}_keep_conn on;" if keep else "",
            )
        )
        nginx = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
        self.front = subprocess.Popen(
            ["taskset", "-c", LOAD_CORE, nginx, "-p", folder, "-c", folder / "nginx.conf"],
            stdout=self.log,
            stderr=self.log,
        )

    def __exit__(self, *arguments):
        self.front.terminate()
        self.front.wait(10)
        super().__exit__(*arguments)


FRONT = """
daemon off;
user root;
pid nginx.pid;
error_log stderr error;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    fastcgi_temp_path tmp; scgi_temp_path tmp; uwsgi_temp_path tmp; proxy_temp_path tmp; client_body_temp_path tmp;
    fastcgi_buffers 16 16k; scgi_buffers 16 16k; uwsgi_buffers 16 16k;
    keepalive_requests 1000000;
    upstream back_end {{ server {upstream}; {keep} }}
    server {{
        listen 127.0.0.1:{port};
        location / {{ include /etc/nginx/{protocol}_params; {kept} {protocol}_pass back_end; }}
    }}
}}
"""
