"""The servers of the comparison (comparison.py), and their options for TLS, HTTP/2, workers, logs and files.

Each is a function of a target and of what is wanted, and returns a command. What a server does not offer raises Cannot,
and the table says so.
"""

from __future__ import annotations

from dataclasses import dataclass

import servers
from servers import BIN, CACHE, LOG, certificate, nginx, site_folder


class Cannot(Exception):
    """A server does not offer what is wanted."""


@dataclass(frozen=True)
class Wanted:
    """What a server shall do besides responding."""

    workers: int = 1
    tls: bool = False
    http2: bool = False
    access_log: bool = False
    static: bool = False
    preload: bool = False
    request_ids: bool = False  # also the W3C's traceparent
    gevent: bool = False

    def only(self, name, *offered):
        """Raise Cannot if anything else is wanted."""
        plain = Wanted()
        for wish in vars(self):
            if wish not in offered and getattr(self, wish) != getattr(plain, wish):
                raise Cannot(f"{name} does not offer {wish.replace('_', ' ')}")


def pair():
    return certificate("ecdsa")


def anygate(module, name, port, wanted, threads=8, extra=()):
    command = servers.anygate(module, name, port, threads)
    command += ["--workers", wanted.workers] if wanted.workers > 1 else []
    if wanted.tls or wanted.http2:
        chain, key = pair()
        command += ["-c", chain, "-k", key]
    command += ["--access-log", LOG] if wanted.access_log else []
    command += ["--static", f"/static={site_folder()}"] if wanted.static else []
    command += ["--preload"] if wanted.preload else []
    command += ["--request-id", "--trace-context"] if wanted.request_ids else []
    command += ["--concurrency", "gevent", "--greenlets", 20000] if wanted.gevent else []
    return [*command, *extra]


def granian(module, name, port, wanted):
    wanted.only("granian", "workers", "tls", "http2", "access_log", "static")
    command = [*servers.granian(module, name, port, 1), "--workers", wanted.workers]
    if wanted.tls or wanted.http2:
        chain, key = pair()
        command += ["--ssl-certificate", chain, "--ssl-keyfile", key]
    command += ["--access-log", "--log-level", "info"] if wanted.access_log else []
    command += ["--static-path-mount", site_folder()] if wanted.static else []
    return command


def peregrine(module, name, port, wanted):
    wanted.only("peregrine", "workers", "tls", "http2", "access_log", "static", "request_ids")
    command = [BIN / "peregrine", "--port", port, "--workers", wanted.workers, "--protocol", "wsgi"]
    command += ["--max-connections", 20000, "--keep-alive", 75000, "--max-body", 1 << 30]
    if wanted.tls or wanted.http2:
        chain, key = pair()
        command += ["--tls-cert", chain, "--tls-key", key]
    command += ["--access-log"] if wanted.access_log else ["--log-level", "error"]
    command += ["--static-dir", f"/static={site_folder()}"] if wanted.static else []
    command += ["--request-id", "--trace-context"] if wanted.request_ids else []
    return [*command, f"{module}:{name}"]


def m0serve(module, name, port, wanted):
    wanted.only("m0serve", "workers", "access_log", "static")
    command = [BIN / "m0serve", "--host", "127.0.0.1", "--port", port, "--workers", wanted.workers]
    command += ["--max-keepalive-requests", 0, "--max-body", "1g", "--protocol", "wsgi"]
    command += ["--access-log"] if wanted.access_log else []
    command += ["--static", f"/static={site_folder()}"] if wanted.static else []
    return [*command, f"{module}:{name}"]


def weft(module, name, port, wanted):
    wanted.only("weft-server", "workers")
    return [BIN / "weft", f"{module}:{name}", "--port", port, "--workers", wanted.workers]


def bjoern(module, name, port, wanted):
    wanted.only("bjoern", "workers")
    if wanted.workers == 1:
        return servers.bjoern(module, name, port, 1)
    line = (
        f"import bjoern, os; bjoern.listen(application(), '127.0.0.1', int(place)); "
        f"[os.fork() or bjoern.run() for _ in range({wanted.workers})]; os.wait()"
    )
    return servers.started_by("bjoern", line)(module, name, port, 1)


def fastwsgi(module, name, port, wanted):
    wanted.only("fastwsgi", "workers")
    line = (
        "import fastwsgi; fastwsgi.run(wsgi_app=application(), host='127.0.0.1', port=int(place), loglevel=0, "
        f"workers={wanted.workers})"
    )
    return servers.started_by("fastwsgi", line)(module, name, port, 1)


def fastpysgi(module, name, port, wanted):
    wanted.only("fastpysgi", "workers", "tls")
    tls = f"[{tuple(map(str, pair()))!r}]" if wanted.tls else None
    line = (
        f"import fastpysgi; server = fastpysgi.server; server.max_content_length = 1 << 30; server.tls_list = {tls}; "
        "fastpysgi.run(wsgi_app=application(), host='127.0.0.1', port=int(place), loglevel=0, "
        f"workers={wanted.workers})"
    )
    return servers.started_by("fastpysgi", line)(module, name, port, 1)


def uwsgi(module, name, port, wanted):
    wanted.only("uWSGI", "workers", "tls", "access_log", "static", "preload", "gevent")
    command = servers.uwsgi(module, name, port, 1)
    if wanted.tls:
        # Without its router uWSGI's HTTPS closes each connection.
        chain, key = pair()
        at = command.index("--http11-socket")
        command[at : at + 2] = ["--https", f"127.0.0.1:{port},{chain},{key}", "--http-keepalive"]
    if wanted.access_log:
        command[command.index("--disable-logging")] = f"--logto={LOG}"
    command[command.index("--processes") + 1] = wanted.workers
    command += ["--static-map", f"/static={site_folder()}"] if wanted.static else []
    command += ["--gevent", 2000, "--gevent-monkey-patch"] if wanted.gevent else []
    return command


def gunicorn(module, name, port, wanted):
    wanted.only("gunicorn", "workers", "tls", "http2", "access_log", "preload", "gevent")
    make = servers.gunicorn_gevent if wanted.gevent else servers.gunicorn
    command = [*make(module, name, port, 8), "--http-parser", "fast", "--workers", wanted.workers]
    if wanted.tls or wanted.http2:
        chain, key = pair()
        command += ["--certfile", chain, "--keyfile", key]
    command += ["--http-protocols", "h2,h1"] if wanted.http2 else []
    command += ["--access-logfile", LOG] if wanted.access_log else []
    command += ["--preload"] if wanted.preload else []
    return command


def waitress(module, name, port, wanted):
    wanted.only("waitress")
    return servers.waitress(module, name, port, 8)


def hypercorn(module, name, port, wanted):
    """Only where HTTP/2 is wanted; elsewhere it is far behind."""
    if not wanted.http2:
        raise Cannot("hypercorn is compared over HTTP/2 only")
    wanted.only("hypercorn", "http2")
    chain, key = pair()
    return [*servers.hypercorn(module, name, port, 1), "--certfile", chain, "--keyfile", key]


def nginx_files(module, name, port, wanted):
    """Only where files are wanted: it runs no application."""
    if not wanted.static:
        raise Cannot("nginx is compared with files only")
    options, site = "", f"location /static/ {{ alias {site_folder()}/; }}"
    if wanted.tls or wanted.http2:
        chain, key = pair()
        options = " ssl http2" if wanted.http2 else " ssl"
        site += f" ssl_certificate {chain}; ssl_certificate_key {key}; ssl_protocols TLSv1.2 TLSv1.3;"
    return nginx(CACHE / "nginx-static", port, options, site)


PEERS = {
    "bjoern": bjoern,
    "fastwsgi": fastwsgi,
    "fastpysgi": fastpysgi,
    "peregrine": peregrine,
    "m0serve": m0serve,
    "weft-server": weft,
    "granian": granian,
    "uWSGI": uwsgi,
    "gunicorn": gunicorn,
    "waitress": waitress,
    "hypercorn": hypercorn,
    "nginx": nginx_files,
}
ALL = {"anygate": anygate, **PEERS}
