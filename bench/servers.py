"""The servers that are measured: how each is started, and the processes that then run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
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
FLOOR_HTTP = CACHE / "floor_http"
LOG = CACHE / "access.log"
# What each policy of a site is turned on with.
POLICIES = {
    "security headers": ("--security-headers", "default"),
    "request id": ("--request-id",),
    "trace context": ("--trace-context",),
    "health": ("--health-path", "/up"),
    "compression": ("--compression",),
    "access log": ("--access-log", LOG),
    "admin": ("--admin", f"unix:{CACHE / 'admin.sock'}"),
}
# Each request is a span. There is no collector, which changes nothing for workers.
OTLP = ("--otlp", "http://127.0.0.1:9")
ALL_POLICIES = tuple(part for parts in POLICIES.values() for part in parts)


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


def anygate_with(*options):
    def make(module, name, port, threads):
        return [*anygate(module, name, port, threads), *options]

    return make


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
    """A self-signed certificate, and its key; made once."""
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
    """A folder with files of several sizes; made once."""
    folder = CACHE / "static"
    folder.mkdir(parents=True, exist_ok=True)
    for name, size in (("1k", 1 << 10), ("100k", 100 << 10), ("1m", 1 << 20), ("10m", 10 << 20), ("100m", 100 << 20)):
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
