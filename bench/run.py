"""Measure anygate against other WSGI servers in one run; see README.md."""

from __future__ import annotations

import argparse
import contextlib
import datetime
import math
import os
import platform
import re
import resource
import shutil
import signal
import socket
import ssl
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
CACHE = FOLDER / ".cache"
PYTHON = CACHE / "venv" / "bin" / "python"
BIN = PYTHON.parent
ANYGATE = Path(sys.executable).parent / "anygate"
SERVER_CORE, LOAD_CORE = "0", "1"
ECHO = CACHE / "echo"
FLOOR = CACHE / "floor"


def started_by(name, line):
    """A server that a line of Python starts; it finds application() and place, a port or a path."""
    begin = (
        "import sys, importlib; module, name, place = sys.argv[1:]; "
        "application = lambda: getattr(importlib.import_module(module), name); "
    )

    def make(module, name, place, threads):
        return [PYTHON, "-c", begin + line, module, name, place]

    make.__name__ = name
    return make


def anygate(module, name, port, threads):
    return [
        ANYGATE,
        f"{module}:{name}",
        "--port",
        port,
        "--threads",
        threads,
        "--connections-max",
        20000,
        "--log-level",
        "error",
    ]


def anygate_gevent(module, name, port, threads):
    return [*anygate(module, name, port, threads), "--concurrency", "gevent"]


def gunicorn_gevent(module, name, port, threads):
    options = ["--worker-class", "gevent", "--workers", 1, "--keep-alive", 75, "--worker-connections", 20000]
    return [BIN / "gunicorn", f"{module}:{name}", "--bind", f"127.0.0.1:{port}", *options]


bjoern = started_by("bjoern", "import bjoern; bjoern.run(application(), '127.0.0.1', int(place))")
fastwsgi = started_by(
    "fastwsgi",
    "import fastwsgi; fastwsgi.run(wsgi_app=application(), host='127.0.0.1', port=int(place), loglevel=0)",
)


def granian(module, name, port, threads):
    target = [f"{module}:{name}", "--interface", "wsgi", "--port", port, "--workers", 1, "--blocking-threads", threads]
    return [BIN / "granian", *target, "--no-ws", "--log-level", "error", "--backlog", 16384]


def gunicorn(module, name, port, threads):
    options = ["--worker-class", "gthread", "--threads", threads, "--workers", 1, "--keep-alive", 75]
    return [
        BIN / "gunicorn",
        f"{module}:{name}",
        "--bind",
        f"127.0.0.1:{port}",
        *options,
        "--worker-connections",
        20000,
    ]


def uwsgi(module, name, port, threads):
    options = ["--http11-socket", f"127.0.0.1:{port}", "--module", f"{module}:{name}", "--master", "--processes", 1]
    more = ["--disable-logging", "--listen", 1024, "--virtualenv", CACHE / "venv", "--die-on-term", "--need-app"]
    return [BIN / "uwsgi", *options, *more, *(["--threads", threads] if threads > 1 else [])]


def waitress(module, name, port, threads):
    options = [f"--listen=127.0.0.1:{port}", f"--threads={threads}", "--connection-limit=20000", "--backlog=4096"]
    return [BIN / "waitress-serve", *options, f"{module}:{name}"]


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


# Back ends of a front server: the port is the path of a unix socket.


def anygate_gateway(protocol):
    def make(module, name, path, threads):
        return [
            ANYGATE,
            f"{module}:{name}",
            "--bind",
            f"{protocol}+unix:{path}",
            "--threads",
            threads,
            "--log-level",
            "error",
        ]

    return make


def uwsgi_gateway(option):
    def make(module, name, path, threads):
        options = [option, path, "--module", f"{module}:{name}", "--master", "--processes", 1, "--chmod-socket=666"]
        return [
            BIN / "uwsgi",
            *options,
            "--disable-logging",
            "--listen",
            1024,
            "--virtualenv",
            CACHE / "venv",
            "--die-on-term",
        ]

    return make


def floor(protocol):
    """A program that does nothing but what every back end must."""

    def make(module, name, path, threads):
        return [FLOOR, protocol, path, {"hello": 13, "large": 100_000}[name]]

    return make


flup = started_by(
    "flup", "from flup.server.fcgi import WSGIServer; WSGIServer(application(), bindAddress=place, umask=0).run()"
)
# It listens on TCP only.
wsgitools = started_by(
    "wsgitools",
    "from wsgitools.scgi.forkpool import SCGIServer; "
    "SCGIServer(application(), int(place), interface='127.0.0.1', minworkers=1, maxworkers=1, maxrequests=10**9).run()",
)


@dataclass
class Server:
    """A server with a number of threads, and what it did."""

    make: object
    threads: int
    figures: list = field(default_factory=list)

    @property
    def name(self):
        alone = self.make in (bjoern, fastwsgi)
        return self.make.__name__ if alone else f"{self.make.__name__}, {self.threads} thread{'s' * (self.threads > 1)}"


ONE = [Server(make, 1) for make in (anygate, bjoern, fastwsgi, granian, uwsgi)]
EIGHT = [Server(make, 8) for make in (anygate, granian, uwsgi, gunicorn, waitress)]


class Running:
    """A server process, pinned to its core."""

    scheme = "http"

    def __init__(self, server, module, name, place=None):
        self.port = place or free_port()
        command = ["taskset", "-c", SERVER_CORE, *server.make(module, name, self.port, server.threads)]
        self.command = [str(part) for part in command]
        self.log = (CACHE / "server.log").open("w+b")
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(FOLDER / "apps"), *site_packages(server)])}
        self.begun = time.perf_counter()
        self.process = subprocess.Popen(
            self.command,
            cwd=FOLDER / "apps",
            env=environment,
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
        raise SystemExit(f"{' '.join(self.command)}\ndid not answer:\n{self.log.read().decode(errors='replace')}")

    def connect(self):
        """A connection as a client of HTTP/1.1 makes it."""
        return socket.create_connection(("127.0.0.1", self.port), 2)

    def processes(self):
        found, queue = [], [self.process.pid]
        while queue:
            pid = queue.pop()
            found.append(pid)
            for task in Path(f"/proc/{pid}/task").iterdir():
                with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                    queue += [int(child) for child in (task / "children").read_text().split()]
        return found

    def processor(self):
        """Seconds on the processor (user, system), of all processes."""
        user = system = exact = 0
        for pid in self.processes():
            values = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
            user, system = user + int(values[11]), system + int(values[12])
            for task in Path(f"/proc/{pid}/task").iterdir():
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
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            for pid in self.processes():
                os.kill(pid, signal.SIGKILL)
            self.process.wait()
        self.log.close()


def site_packages(server):
    """anygate runs in its own environment; Flask and gevent come from that of the others, so that all use the same."""
    own = server.make in (anygate, anygate_gevent, anygate_many)
    return [str(path) for path in (CACHE / "venv" / "lib").glob("python*/site-packages")] if own else []


class Secure(Running):
    """A server that speaks TLS."""

    scheme = "https"

    def connect(self):
        """It need not be anybody."""
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
        raise SystemExit(f"{' '.join(self.command)}\ndid not answer")


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


def seconds(text):
    value, unit = re.fullmatch(r"([\d.]+)(us|ms|s|m)", text).groups()
    return float(value) * {"us": 1e-6, "ms": 1e-3, "s": 1, "m": 60}[unit]


def load(running, connections, path, duration, script=None):
    """Put load on a server; give its figures."""
    command = ["taskset", "-c", LOAD_CORE, "wrk", "-t1", f"-c{connections}", f"-d{duration}s", "--latency"]
    command += ["-s", str(script)] if script else []
    user, system, exact = running.processor()
    ended = subprocess.run(
        [*command, f"{running.scheme}://127.0.0.1:{running.port}{path}"], capture_output=True, text=True, check=True
    )
    user_after, system_after, exact_after = running.processor()
    text = ended.stdout
    requests = int(re.search(r"(\d+) requests in", text)[1])
    ticks = max(user_after - user + system_after - system, 1)
    spent = (exact_after - exact) / max(requests, 1) * 1e6
    errors = re.search(r"Socket errors: (.*)|Non-2xx or 3xx responses: (.*)", text)
    return {
        "rps": float(re.search(r"Requests/sec:\s+([\d.]+)", text)[1]),
        "p50": seconds(re.search(r"^\s+50%\s+(\S+)", text, re.MULTILINE)[1]) * 1e3,
        "p99": seconds(re.search(r"^\s+99%\s+(\S+)", text, re.MULTILINE)[1]) * 1e3,
        "cpu": spent,
        "user": spent * (user_after - user) / ticks,
        "sys": spent * (system_after - system) / ticks,
        "memory": running.memory() / 1e6,
        "errors": errors[0] if errors else "",
    }


def stolen():
    """Ticks of all processors that the host gave to others, and all ticks."""
    values = [int(value) for value in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    return values[7], sum(values)


STOLEN = []


def undisturbed(options, measure):
    """Repeat a measurement while the host takes the processors away; keep the least disturbed one."""
    until = time.perf_counter() + options.patience
    best = None
    while True:
        stolen_before, all_before = stolen()
        figures = measure()
        stolen_after, all_after = stolen()
        share = (stolen_after - stolen_before) / max(all_after - all_before, 1)
        if best is None or share < best[0]:
            best = (share, figures)
        if best[0] <= options.stolen_max or time.perf_counter() > until:
            STOLEN.append(best[0])
            return best[1]
        time.sleep(2)


def one_round(running, title, path, connections, options, script=None):
    """One server's figures, after a second to warm up."""
    running.wait(path)
    load(running, connections, path, 1, script)
    figure = undisturbed(options, lambda: load(running, connections, path, options.seconds, script))
    print(f"  {title}: {figure['rps']:.0f}/s, {figure['cpu']:.1f} us, p50 {figure['p50']:.2f} ms", flush=True)
    return figure


def load_http2(running, connections, streams, path, duration):
    """Put load on a server of HTTP/2; give its figures."""
    _, _, before = running.processor()
    command = ["taskset", "-c", LOAD_CORE, "h2load", f"-c{connections}", f"-m{streams}", f"-D{duration}"]
    ended = subprocess.run(
        [*command, f"{running.scheme}://127.0.0.1:{running.port}{path}"], capture_output=True, text=True, check=True
    )
    _, _, after = running.processor()
    done, failed, errored = re.search(r"(\d+) succeeded, (\d+) failed, (\d+) errored", ended.stdout).groups()
    return {
        "rps": int(done) / duration,
        "cpu": (after - before) / int(done) * 1e6,
        "errors": "" if (failed, errored) == ("0", "0") else f"{failed} failed, {errored} errored",
    }


def throughput(servers, module, name, path, connections, options, script=None):
    """Rounds over all servers in turn, each a fresh process."""
    for server in servers:
        server.figures.clear()
    for number in range(options.rounds):
        # Every round begins with another server, so that none always has the machine at its best.
        for server in servers[number % len(servers) :] + servers[: number % len(servers)]:
            with Running(server, module, name) as running:
                server.figures.append(one_round(running, server.name, path, connections, options, script))
    return [(server.name, {key: middle(server, key) for key in server.figures[0]}) for server in servers]


def middle(server, key):
    values = [figure[key] for figure in server.figures]
    return statistics.median(values) if key != "errors" else "; ".join(sorted({value for value in values if value}))


def throughput_table(rows):
    best_rps = max(row["rps"] for name, row in rows if not name.startswith("anygate"))
    best_cpu = min(row["cpu"] for name, row in rows if not name.startswith("anygate"))
    lines = [
        "| server | requests/s | of the best peer | p50 ms | p99 ms "
        "| CPU µs/request | of the best peer | user | sys | memory MB |",
        "| --- | --: | --: | --: | --: | --: | --: | --: | --: | --: |",
    ]
    for name, row in rows:
        note = f" ({row['errors']})" if row["errors"] else ""
        lines.append(
            f"| {name}{note} | {row['rps']:.0f} | {row['rps'] / best_rps:.2f} | {row['p50']:.2f} | {row['p99']:.2f} "
            f"| {row['cpu']:.2f} | {row['cpu'] / best_cpu:.2f} | {row['user']:.2f} | {row['sys']:.2f} "
            f"| {row['memory']:.1f} |"
        )
    return lines


def hello(options):
    servers = [*ONE, EIGHT[0], *EIGHT[1:]]
    return throughput_table(throughput(servers, "plain", "hello", "/", 32, options))


def flask(options):
    servers = [*ONE, EIGHT[0], *EIGHT[1:]]
    return throughput_table(throughput(servers, "flask_app", "app", "/users/7", 32, options))


def mixed(options):
    servers = [*EIGHT, *(server for server in ONE if server.make in (bjoern, fastwsgi))]
    return throughput_table(throughput(servers, "plain", "mixed", "/fast", 16, options, FOLDER / "mixed.lua"))


def waiting(options):
    servers = [*EIGHT, *(server for server in ONE if server.make in (bjoern, fastwsgi))]
    return throughput_table(throughput(servers, "plain", "waiting", "/", 32, options))


def gateways(options):
    """Back ends behind the same nginx, over unix sockets."""
    pairs = [
        (
            "uwsgi",
            [
                ("anygate", anygate_gateway("uwsgi"), False),
                ("uwsgi", uwsgi_gateway("--uwsgi-socket"), False),
                ("floor.c", floor("uwsgi"), False),
            ],
        ),
        (
            "scgi",
            [
                ("anygate", anygate_gateway("scgi"), False),
                ("uwsgi", uwsgi_gateway("--scgi-socket"), False),
                ("wsgitools (TCP)", wsgitools, False),
                ("floor.c", floor("scgi"), False),
            ],
        ),
        (
            "fastcgi",
            [
                ("anygate", anygate_gateway("fastcgi"), False),
                ("anygate, connections kept", anygate_gateway("fastcgi"), True),
                ("uwsgi", uwsgi_gateway("--fastcgi-socket"), False),
                ("flup", flup, False),
                ("floor.c", floor("fastcgi"), False),
            ],
        ),
    ]
    lines = [
        "| protocol | answer | back end | requests/s | of uwsgi | CPU µs/request of the back end | of uwsgi | p99 ms |",
        "| --- | --- | --- | --: | --: | --: | --: | --: |",
    ]
    for protocol, back_ends in pairs:
        for answer, name in (("13 bytes", "hello"), ("100 KB", "large")):
            figures = {title: [] for title, _, _ in back_ends}
            for _ in range(options.rounds):
                for title, make, keep in back_ends:
                    with Behind(Server(make, 1), "plain", name, protocol, keep) as running:
                        label = f"{protocol}, {answer}, {title}"
                        figures[title].append(one_round(running, label, "/", 32, options))
            rows = {
                title: {key: statistics.median(figure[key] for figure in rounds) for key in ("rps", "cpu", "p99")}
                for title, rounds in figures.items()
            }
            peer = rows["uwsgi"]
            for title, row in rows.items():
                notes = "; ".join(sorted({figure["errors"] for figure in figures[title] if figure["errors"]}))
                lines.append(
                    f"| {protocol} | {answer} | {title}{f' ({notes})' if notes else ''} | {row['rps']:.0f} "
                    f"| {row['rps'] / peer['rps']:.2f} | {row['cpu']:.2f} | {row['cpu'] / peer['cpu']:.2f} "
                    f"| {row['p99']:.2f} |"
                )
    return lines


def granian_http2(module, name, port, threads):
    return [*granian(module, name, port, threads), "--http", "2"]


def hypercorn(module, name, port, threads):
    return [BIN / "hypercorn", "--bind", f"127.0.0.1:{port}", "--workers", 1, f"wsgi:{module}:{name}"]


def http2(options):
    """10 connections with 10 streams each."""
    rows = {}
    servers = [("anygate", anygate, 1), ("anygate, 8 threads", anygate, 8), ("granian", granian_http2, 1)]
    servers += [("hypercorn", hypercorn, 1)]
    for _ in range(options.rounds):
        for title, make, threads in servers:
            with PriorKnowledge(Server(make, threads), "plain", "hello") as running:
                running.wait("/")
                load_http2(running, 10, 10, "/", 1)
                figure = undisturbed(options, lambda: load_http2(running, 10, 10, "/", options.seconds))
                print(f"  {title}: {figure['rps']:.0f}/s, {figure['cpu']:.1f} us", flush=True)
                rows.setdefault(title, []).append(figure)
    return simple_table(rows, "granian", "request")


gevent_websocket = started_by(
    "gevent_websocket",
    "from gevent import monkey; monkey.patch_all(); from gevent.pywsgi import WSGIServer; "
    "from geventwebsocket.handler import WebSocketHandler; WSGIServer(('127.0.0.1', int(place)), application(), "
    "handler_class=WebSocketHandler, log=None, backlog=4096).serve_forever()",
)


def anygate_many(module, name, port, threads):
    return [*anygate_gevent(module, name, port, threads), "--greenlets", 20000, "--websocket-ping-interval", "1h"]


def load_websockets(running, connections, duration):
    """Have messages echoed; give the figures, with the share of its core that the load needed."""
    _, _, before = running.processor()
    command = ["taskset", "-c", LOAD_CORE, ECHO, str(running.port), str(connections), str(duration)]
    ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    _, _, after = running.processor()
    echoes, passed, busy = map(float, re.findall(r"[\d.]+", ended.stdout))
    return {"rps": echoes / passed, "cpu": (after - before) / echoes * 1e6, "load": busy / passed}


def open_websocket(running):
    """A WebSocket that does nothing."""
    connection = running.connect()
    connection.settimeout(10)
    connection.sendall(
        b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    answer = connection.recv(4096)
    if not answer.startswith(b"HTTP/1.1 101"):
        raise SystemExit(f"not a WebSocket: {answer!r}")
    return connection


def websocket(options):
    """Messages of 64 bytes that are echoed, and memory of WebSockets that do nothing."""
    count = 10_000
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(count + 500, resource.getrlimit(resource.RLIMIT_NOFILE)[0]),) * 2)
    rows = {}
    for _ in range(options.rounds):
        for title, make in (("anygate, greenlets", anygate_many), ("gevent-websocket", gevent_websocket)):
            with Running(Server(make, 1), "echo", "echo") as running:
                running.wait("/")
                load_websockets(running, 32, 1)
                figure = undisturbed(options, lambda: load_websockets(running, 32, options.seconds))
                empty = running.memory()
                opened = [open_websocket(running) for _ in range(count)]
                time.sleep(1)
                figure["each"] = (running.memory() - empty) / count / 1024
                for connection in opened:
                    connection.close()
            print(f"  {title}: {figure['rps']:.0f}/s, {figure['cpu']:.1f} us, {figure['each']:.1f} KiB", flush=True)
            rows.setdefault(title, []).append(figure)
    lines = [
        "| server | messages/s | of the other | CPU µs/message | of the other | load's core | KiB for each idle one |",
        "| --- | --: | --: | --: | --: | --: | --: |",
    ]
    figures = {
        title: {key: statistics.median(figure[key] for figure in rounds) for key in rounds[0]}
        for title, rounds in rows.items()
    }
    peer = figures["gevent-websocket"]
    for title, row in figures.items():
        lines.append(
            f"| {title} | {row['rps']:.0f} | {row['rps'] / peer['rps']:.2f} | {row['cpu']:.1f} "
            f"| {row['cpu'] / peer['cpu']:.2f} | {row['load']:.0%} | {row['each']:.1f} |"
        )
    return lines


def simple_table(rows, peer, what):
    """Requests a second and time on the processor, as ratios to those of one peer."""
    lines = [
        f"| server | {what}s/s | of {peer} | CPU µs/{what} | of {peer} |",
        "| --- | --: | --: | --: | --: |",
    ]
    figures = {
        title: {key: statistics.median(figure[key] for figure in rounds) for key in ("rps", "cpu")}
        for title, rounds in rows.items()
    }
    for title, row in figures.items():
        notes = "; ".join(sorted({figure["errors"] for figure in rows[title] if figure["errors"]}))
        lines.append(
            f"| {title}{f' ({notes})' if notes else ''} | {row['rps']:.0f} | {row['rps'] / figures[peer]['rps']:.2f} "
            f"| {row['cpu']:.2f} | {row['cpu'] / figures[peer]['cpu']:.2f} |"
        )
    return lines


def certificate(kind):
    """A certificate that nobody signed, and its key; made once."""
    paths = CACHE / f"{kind}.crt", CACHE / f"{kind}.key"
    if not paths[0].exists():
        algorithm = {"ecdsa": ["ec", "-pkeyopt", "ec_paramgen_curve:P-256"], "rsa": ["rsa:2048"]}[kind]
        command = [
            "openssl",
            "req",
            "-x509",
            "-nodes",
            "-days",
            "3650",
            "-subj",
            "/CN=localhost",
            "-newkey",
            *algorithm,
        ]
        subprocess.run([*command, "-out", paths[0], "-keyout", paths[1]], check=True, capture_output=True)
    return paths


def nginx(folder, port, options, site):
    """One worker of nginx with a server that has these lines."""
    folder.mkdir(exist_ok=True)
    (folder / "nginx.conf").write_text(NGINX.format(port=port, options=options, site=site))
    return [shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin"), "-p", folder, "-c", folder / "nginx.conf"]


NGINX = """
daemon off;
user root;
worker_processes 1;
pid nginx.pid;
error_log stderr error;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    client_body_temp_path tmp; fastcgi_temp_path tmp; scgi_temp_path tmp; uwsgi_temp_path tmp; proxy_temp_path tmp;
    keepalive_requests 1000000;
    sendfile on;
    tcp_nopush on;
    open_file_cache max=1000;
    server {{
        listen 127.0.0.1:{port}{options};
        {site}
    }}
}}
"""


def nginx_tls(kind):
    def make(module, name, port, threads):
        chain, key = certificate(kind)
        site = f"""ssl_certificate {chain};
        ssl_certificate_key {key};
        ssl_protocols TLSv1.2 TLSv1.3;
        location / {{ default_type text/plain; return 200 "Hello, World!"; }}"""
        return nginx(CACHE / "tls", port, " ssl", site)

    return make


def anygate_tls(kind):
    def make(module, name, port, threads):
        chain, key = certificate(kind)
        return [*anygate(module, name, port, threads), "-c", chain, "-k", key]

    return make


def granian_tls(kind):
    def make(module, name, port, threads):
        chain, key = certificate(kind)
        return [*granian(module, name, port, threads), "--ssl-certificate", chain, "--ssl-keyfile", key]

    return make


def tls(options):
    """Full handshakes of TLS 1.3, and requests on connections that stay."""
    lines = []
    for kind in ("ecdsa", "rsa"):
        for what, script in (("handshake", FOLDER / "close.lua"), ("request", None)):
            servers = [("anygate", anygate_tls(kind)), ("nginx", nginx_tls(kind)), ("granian", granian_tls(kind))]
            rows = {}
            for _ in range(options.rounds):
                for title, make in servers:
                    with Secure(Server(make, 1), "plain", "hello") as running:
                        label = f"{kind}, {what}s, {title}"
                        rows.setdefault(title, []).append(one_round(running, label, "/", 32, options, script))
            peer = "nginx" if what == "handshake" else "granian"
            lines += [f"{kind}, {what}s:", "", *simple_table(rows, peer, what), ""]
    return lines[:-1]


def site_folder():
    """A folder with files of two sizes; made once."""
    folder = CACHE / "static"
    folder.mkdir(exist_ok=True)
    for name, size in (("1k", 1024), ("1m", 1024 * 1024)):
        if not (folder / name).exists():
            (folder / name).write_bytes(os.urandom(size))
    return folder


def anygate_static(module, name, port, threads):
    return [*anygate(module, name, port, threads), "--static", f"/static={site_folder()}"]


def nginx_static(module, name, port, threads):
    return nginx(CACHE / "nginx-static", port, "", f"location /static/ {{ alias {site_folder()}/; }}")


def static(options):
    """Files of 1 KB and 1 MB."""
    lines = []
    for size in ("1k", "1m"):
        rows = {}
        for _ in range(options.rounds):
            for title, make in (("anygate", anygate_static), ("nginx", nginx_static)):
                with Running(Server(make, 1), "plain", "hello") as running:
                    label = f"{size}, {title}"
                    rows.setdefault(title, []).append(one_round(running, label, f"/static/{size}", 32, options))
        lines += [f"{size}:", "", *simple_table(rows, "nginx", "request"), ""]
    return lines[:-1]


def greenlets(options):
    """Calls that sleep for a second, a thousand at a time, and hello, under gevent."""
    servers = [Server(make, 1) for make in (anygate_gevent, gunicorn_gevent)]
    names = {server.name: server.make.__name__.replace("_", ", ") for server in servers}
    lines = [
        "| what | server | requests/s | of gunicorn | p50 ms | p99 ms | CPU µs/request | of gunicorn | memory MB |",
        "| --- | --- | --: | --: | --: | --: | --: | --: | --: |",
    ]
    for what, name, connections in (("hello", "hello", 32), ("sleeps 1 s", "sleeping", 1000)):
        # Answers of the last second do not count, so there must be many seconds.
        seconds = max(options.seconds, 30) if name == "sleeping" else options.seconds
        longer = argparse.Namespace(**{**vars(options), "seconds": seconds})
        rows = throughput(servers, "plain", name, "/", connections, longer)
        peer = rows[-1][1]
        for server, row in rows:
            note = f" ({row['errors']})" if row["errors"] else ""
            lines.append(
                f"| {what} | {names[server]}{note} | {row['rps']:.0f} | {row['rps'] / peer['rps']:.2f} "
                f"| {row['p50']:.2f} | {row['p99']:.2f} | {row['cpu']:.2f} | {row['cpu'] / peer['cpu']:.2f} "
                f"| {row['memory']:.1f} |"
            )
    return lines


def idle(options):
    """Memory of idle connections, and one active client before and among them."""
    count = 10_000
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(count + 500, resource.getrlimit(resource.RLIMIT_NOFILE)[0]),) * 2)
    lines = [
        "| server | connections held | KiB each | p99 ms of one client alone | p99 ms among them |",
        "| --- | --: | --: | --: | --: |",
    ]
    for server in [EIGHT[0], EIGHT[1], ONE[1], EIGHT[4]]:
        alone, among, each, held = [], [], [], 0
        for _ in range(options.rounds):
            with Running(server, "plain", "hello") as running:
                running.wait("/")
                alone.append(load(running, 1, "/", options.seconds)["p99"])
                before = running.memory()
                connections = []
                for _ in range(count):
                    try:
                        connection = socket.create_connection(("127.0.0.1", running.port), 5)
                        connection.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
                        connections.append(connection)
                    except OSError:
                        break
                held = sum(1 for connection in connections if answered(connection))
                each.append((running.memory() - before) / max(held, 1) / 1024)
                try:
                    among.append(load(running, 1, "/", options.seconds)["p99"])
                except subprocess.CalledProcessError:
                    # It takes no more connections.
                    among.append(math.inf)
                for connection in connections:
                    connection.close()
        print(f"  {server.name}: {held} held", flush=True)
        middle_of = statistics.median
        lines.append(
            f"| {server.name} | {held} | {middle_of(each):.2f} | {middle_of(alone):.3f} | {middle_of(among):.3f} |"
        )
    return lines


def answered(connection):
    try:
        connection.settimeout(5)
        return connection.recv(4096).startswith(b"HTTP/1.1 200")
    except OSError:
        return False


def start(options):
    lines = [
        "| server | start to first answer, ms | importing the application alone, ms | over it, ms |",
        "| --- | --: | --: | --: |",
    ]
    imports = []
    environment = {**os.environ, "PYTHONPATH": str(FOLDER / "apps")}
    for _ in range(options.rounds + 2):
        begun = time.perf_counter()
        subprocess.run(["taskset", "-c", SERVER_CORE, PYTHON, "-c", "import flask_app"], env=environment, check=True)
        imports.append(time.perf_counter() - begun)
    alone = statistics.median(imports)
    for server in [EIGHT[0], *ONE[1:], *EIGHT[3:]]:
        times = []
        for _ in range(options.rounds + 2):
            with Running(server, "flask_app", "app") as running:
                times.append(running.wait("/users/7"))
        whole = statistics.median(times)
        print(f"  {server.name}: {whole * 1e3:.0f} ms", flush=True)
        lines.append(f"| {server.name} | {whole * 1e3:.0f} | {alone * 1e3:.0f} | {(whole - alone) * 1e3:.0f} |")
    return lines


WORKLOADS = {
    "hello": ("hello: 13 bytes, 32 connections", hello),
    "flask": ("flask: a route that answers JSON, 32 connections", flask),
    "mixed": ("mixed: 1 % sleeps 100 ms, 16 connections", mixed),
    "waiting": ("waiting: every request sleeps 0.5 ms, 32 connections", waiting),
    "gateways": ("gateways: behind nginx over unix sockets, 32 connections, 1 thread", gateways),
    "http2": ("http2: hello without TLS, 10 connections with 10 streams each", http2),
    "websocket": ("websocket: 64 bytes echoed on 32 connections, and 10 000 that do nothing", websocket),
    "tls": ("tls: TLS 1.3, a handshake for each request, and hello on connections that stay; 32 connections", tls),
    "static": ("static: files of 1 KB and 1 MB, 32 connections", static),
    "greenlets": (
        "greenlets: hello on 32 connections, and 1000 calls of one worker that sleep a second each",
        greenlets,
    ),
    "idle": ("idle: 10 000 connections that do nothing", idle),
    "start": ("start: from the command to the first answer of the Flask application", start),
}


def prepare():
    """Install the other servers and what puts load on them."""
    if not all(map(shutil.which, ("wrk", "h2load", "curl", "cc"))) or not Path("/usr/include/ev.h").exists():
        packages = ["wrk", "nghttp2-client", "curl", "libev-dev", "gcc", "libc6-dev"]
        subprocess.run(["apt-get", "install", "--yes", "--quiet", *packages], check=True)
    subprocess.run([sys.executable, FOLDER.parent / "scripts" / "packages.py"], check=True)
    stamp = CACHE / "requirements.txt"
    wanted = (FOLDER / "requirements.txt").read_text()
    if not stamp.exists() or stamp.read_text() != wanted:
        CACHE.mkdir(exist_ok=True)
        subprocess.run([sys.executable, "-m", "venv", CACHE / "venv"], check=True)
        subprocess.run([PYTHON, "-m", "pip", "install", "--quiet", "-r", FOLDER / "requirements.txt"], check=True)
        stamp.write_text(wanted)
    for program in (ECHO, FLOOR):
        source = FOLDER / f"{program.name}.c"
        subprocess.run(["cc", "-O2", "-Wall", "-Wextra", "-Werror", "-o", program, source], check=True)


def heading(options):
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    version = subprocess.run([ANYGATE, "--version"], capture_output=True, text=True, check=True).stdout.strip()
    revision = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=FOLDER, capture_output=True, text=True, check=False
    )
    peers = ", ".join(line.replace("==", " ") for line in (FOLDER / "requirements.txt").read_text().split())
    return [
        f"# {datetime.date.today().isoformat()}",
        "",
        f"{version} ({revision.stdout.strip()}); {peers}; Python {platform.python_version()}.",
        f"{cpu[1] if cpu else platform.machine()}, {os.cpu_count()} cores, Linux {platform.release()}. Server on core "
        f"{SERVER_CORE}, wrk on core {LOAD_CORE}; {options.rounds} rounds of {options.seconds} s, medians.",
        "",
        f'Command: `make bench BENCH_ARGUMENTS="--rounds {options.rounds} --seconds {options.seconds} '
        f'--workloads {options.workloads}"`',
    ]


def main():
    """Measure, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workloads", default=",".join(WORKLOADS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--stolen-max", type=float, default=0.02, help="repeat while the host takes a larger share")
    parser.add_argument("--patience", type=float, default=30, help="seconds to repeat one measurement")
    options = parser.parse_args()
    prepare()
    lines = heading(options)
    results = FOLDER / "results" / f"{datetime.datetime.now(datetime.timezone.utc):%Y-%m-%d-%H%M}.md"
    results.parent.mkdir(exist_ok=True)
    for workload in options.workloads.split(","):
        title, measure = WORKLOADS[workload]
        print(title, flush=True)
        STOLEN.clear()
        lines += ["", f"## {title}", "", *measure(options)]
        if STOLEN:
            worst, middle_one = max(STOLEN), statistics.median(STOLEN)
            lines += ["", f"Processor time that the host gave to others: median {middle_one:.1%}, worst {worst:.1%}."]
        results.write_text("\n".join(lines) + "\n")
    print("\n".join(lines))
    print(f"\nwritten to {results.relative_to(FOLDER.parent)}")


if __name__ == "__main__":
    main()
