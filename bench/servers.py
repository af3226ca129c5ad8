"""The servers that are measured: how each is started, and the processes that then run."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import ssl
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


def granian_http2(module, name, port, threads):
    return [*granian(module, name, port, threads), "--http", "2"]


def hypercorn(module, name, port, threads):
    return [BIN / "hypercorn", "--bind", f"127.0.0.1:{port}", "--workers", 1, f"wsgi:{module}:{name}"]


gevent_websocket = started_by(
    "gevent_websocket",
    "from gevent import monkey; monkey.patch_all(); from gevent.pywsgi import WSGIServer; "
    "from geventwebsocket.handler import WebSocketHandler; WSGIServer(('127.0.0.1', int(place)), application(), "
    "handler_class=WebSocketHandler, log=None, backlog=4096).serve_forever()",
)


def anygate_many(module, name, port, threads):
    return [*anygate_gevent(module, name, port, threads), "--greenlets", 20000, "--websocket-ping-interval", "1h"]


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


def family(pid):
    """A process and all that come from it."""
    found, queue = [], [pid]
    while queue:
        pid = queue.pop()
        found.append(pid)
        for task in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                queue += [int(child) for child in (task / "children").read_text().split()]
    return found


class Running:
    """A server process, pinned to its core."""

    scheme = "http"

    def __init__(self, server, module, name, place=None):
        self.port = place or free_port()
        made = server.make(module, name, self.port, server.threads)
        self.command = ["taskset", "-c", SERVER_CORE, *map(str, made)]
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
        raise SystemExit(f"{' '.join(self.command)}\ndid not answer:\n{self.log.read().decode(errors='replace')}")

    def connect(self):
        """A connection as a client of HTTP/1.1 makes it."""
        return socket.create_connection(("127.0.0.1", self.port), 2)

    def processes(self):
        return family(self.process.pid)

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


def environment(command):
    """The environment of a server: it finds the applications.

    anygate runs in its own environment; Flask and gevent come from that of the others, so that all use the same.
    """
    own = Path(command[0]) == ANYGATE
    packages = [str(path) for path in (CACHE / "venv" / "lib").glob("python*/site-packages")] if own else []
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(FOLDER / "apps"), *packages])}


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
