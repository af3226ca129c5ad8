"""Measures rows (rows.py) over all servers: first whether the responses are right, then how many and at what cost."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import shutil
import statistics
import subprocess
import time

import rows
from load import load, load_http2, load_plain, undisturbed
from peers import Cannot, Wanted
from report import comparison_table
from running import Alone, Failed, Running, Secure
from servers import CACHE, FLOOR_HTTP, FOLDER, LOAD_CORE, LOG, SERVER_CORE, Server

WEB2PY_SITE = FOLDER.parent / "tests" / "web2py" / "site"
BOTH = f"{SERVER_CORE},{LOAD_CORE}"


def probe(row, running):
    """Ask once, with curl. Returns the body of a right response, or None if there is no listener yet."""
    out = CACHE / "response"
    command = ["curl", "--silent", "--insecure", "--max-time", "20", "--output", str(out)]
    command += ["--write-out", "%{http_code} %{http_version}", "--http2" if row.streams else "--http1.1"]
    command += itertools.chain.from_iterable(("--header", f"{name}: {value}") for name, value in row.fields.items())
    if row.body:
        command += ["--header", "Expect:", "--data-binary", f"@{row.body_file()}"]
    if row.chunk_bytes:
        command += ["--header", "Transfer-Encoding: chunked"]
    out.write_bytes(b"")
    ended = subprocess.run([*command, url(row, running)], capture_output=True, text=True, check=False)
    if ended.returncode == 7:
        return None
    status, _, version = ended.stdout.partition(" ")
    body = out.read_bytes()
    if ended.returncode:
        raise Failed(f"curl ended with {ended.returncode} and status {status}")
    if status != "200" or version != ("2" if row.streams else "1.1"):
        raise Failed(f"status {status} over HTTP/{version}")
    if not row.is_right(body):
        raise Failed(f"a wrong body of {len(body)} bytes")
    return body


def url(row, running):
    return f"{running.scheme}://127.0.0.1:{running.port}{row.path}"


def first_response(row, running):
    """Wait until the server responds; the first response must be right. Returns its body."""
    until = time.perf_counter() + 60
    while time.perf_counter() < until and running.process.poll() is None:
        body = probe(row, running)
        if body is not None:
            return body
        time.sleep(0.02)
    raise Failed(f"did not start: {running.last_line()}")


def loaded(row, running, length, duration):
    """The figures of a time under load; responses that are not right end it."""
    core = BOTH if row.both_cores else LOAD_CORE
    if row.streams:
        body = row.body_file() if row.body else None
        figure = load_http2(running, row.connections, row.streams, row.path, duration, row.fields, body)
    elif running.scheme == "http":
        figure = load_plain(running, row, duration, core)
    else:
        script, arguments = None, ()
        if row.body:
            script = FOLDER / "upload.lua"
            arguments = (row.body_file(), row.chunk_bytes) if row.chunk_bytes else (row.body_file(),)
        figure = load(running, row.connections, row.path, duration, script, arguments, row.fields, core)
    if not figure["requests"]:
        raise Failed(f"no response under load ({figure['errors'] or 'none came in time'})")
    # Figures of wrk are rounded.
    if figure["received"] < 0.97 * length * figure["requests"]:
        raise Failed(f"responses of {figure['received'] / figure['requests']:.0f} bytes under load, not {length}")
    if figure["wrong"]:
        raise Failed(f"{figure['wrong']} responses with another status or body under load")
    return figure


def one(row, title, make, options):
    """The figures of one server in one round, or a failure in words."""
    module, name = row.application.split(":")
    kind = Secure if row.wanted.tls or row.wanted.http2 else Running
    LOG.unlink(missing_ok=True)
    server = Server(lambda *target: make(*target[:3], row.wanted), 1)
    try:
        with kind(server, module, name, cores=BOTH if row.both_cores else SERVER_CORE) as running:
            body = first_response(row, running)
            duration = max(options.seconds, row.seconds_min)
            if options.warm_up:
                loaded(row, running, len(body), options.warm_up)
            figure = undisturbed(options, lambda: loaded(row, running, len(body), duration), running)
            probe(row, running)
    except OSError as error:
        figure = f"did not start: {error}"
    except Failed as failure:
        figure = str(failure)
    if isinstance(figure, str):
        print(f"  {title}: {figure}", flush=True)
    else:
        print(f"  {title}: {figure['rps']:.0f}/s, {figure['cpu']:.1f} us", flush=True)
        figure["length"] = len(body)
    return figure


def floor_http(module, name, port, wanted, row, length):
    """The program that only moves the bytes."""
    return [FLOOR_HTTP, port, length, len(row.body), *(["close"] if row.closes else [])]


def alone(row):
    """Microseconds of the processor for a call of the application without a server."""
    if row.wanted.static:
        return 0.0
    module, name = row.application.split(":")
    content_type = row.fields.get("Content-Type", "application/octet-stream")
    upload = (row.body_file(), content_type) if row.body else ()
    with Alone(module, name, row.path, upload, ("taskset", "-c", SERVER_CORE)) as application:
        application.call(20)
        first = application.call(20)
        count = max(20, int(0.3 / max(first / 20, 1e-6)))
        return application.call(count) / count * 1e6


def floor(row, length, options):
    """The figures of the floor: bytes moved over plain HTTP/1.1, and the application alone."""
    changed = {"streams": 0, "chunk_bytes": 0, "wanted": Wanted(), "expected": lambda body: len(body) == length}
    plain = dataclasses.replace(row, **changed)
    make = functools.partial(floor_http, row=row, length=length)
    figure = one(plain, "floor", make, options)
    if isinstance(figure, str):
        return figure
    figure["alone"] = alone(row)
    return figure


def prepare_site():
    """A copy of the tests' web2py site, which keeps sessions and a database."""
    folder = CACHE / "web2py"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(WEB2PY_SITE, folder)


def compare(row, options):
    """Measure one row; return the lines of its table."""
    print(row.title, flush=True)
    if row.application.startswith("web2py"):
        prepare_site()
    figures, unable = {}, []
    for title, make in row.servers.items():
        if options.servers and not title.startswith(tuple(options.servers.split(","))):
            continue
        try:
            make("module", "name", 1, row.wanted)
            figures[title] = []
        except Cannot as reason:
            unable.append(str(reason))
    for number in range(options.rounds):
        # Every round begins with another server, so that none always has the machine at its best.
        order = list(figures)
        for title in order[number % len(order) :] + order[: number % len(order)]:
            figures[title].append(one(row, title, row.servers[title], options))
    medians = {title: median(rounds) for title, rounds in figures.items()}
    lengths = [figure["length"] for figure in medians.values() if isinstance(figure, dict)]
    below = floor(row, lengths[0], options) if lengths else "no server gave a right response"
    return comparison_table(medians, below, unable)


def median(rounds, keys=("rps", "cpu", "p99", "memory", "length")):
    """The median of each figure; of failures, the first one."""
    failures = [figure for figure in rounds if isinstance(figure, str)]
    if failures:
        return failures[0]
    figures = {key: statistics.median(figure[key] for figure in rounds) for key in keys}
    figures["errors"] = "; ".join(sorted({figure["errors"] for figure in rounds if figure["errors"]}))
    return figures


def group(make, options):
    """The tables of several rows."""
    lines = []
    for row in make():
        if options.rows in row.title:
            lines += [f"### {row.title}", "", *compare(row, options), ""]
    return lines[:-1]


GROUPS = {
    "small": "13 bytes: over HTTP/1.1, TLS and HTTP/2, with a log, from a browser",
    "uploads": "bodies that come, read whole by the application",
    "downloads": "bodies that go",
    "frameworks": "Flask, Django and web2py",
    "policies": "what a site wants around its application, one by one and together",
    "files": "static files",
}
WORKLOADS = {name: (f"{name}: {title}", functools.partial(group, rows.GROUPS[name])) for name, title in GROUPS.items()}
