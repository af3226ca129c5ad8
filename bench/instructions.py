"""Count the instructions of one request with callgrind; see README.md.

Unlike times, instructions are nearly the same on a busy machine, so a few percent more are seen. The server runs under
callgrind and gets N1 requests and N2 requests; the difference, divided by N2 - N1, is one request: the start of the
server and of the connection does not count.
"""

from __future__ import annotations

import argparse
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from installation import prepare
from running import Alone, environment, family, free_port
from servers import (
    ALL_POLICIES,
    CACHE,
    FOLDER,
    OTLP,
    POLICIES,
    anygate,
    anygate_static,
    anygate_tls,
    anygate_with,
    site_folder,
)

WARM, FEW, MANY = 100, 100, 600
OUTPUT = CACHE / "callgrind"
CALLGRIND = ["valgrind", "--tool=callgrind", "--quiet", "--trace-children=yes"]


@dataclass
class RequestKind:
    """One kind of request to one kind of server."""

    module: str
    application: str
    path: str
    expected: bytes  # the response's body
    make: object = anygate
    client: str = "http1"
    body: bytes = b""


HELLO = b"Hello, World!"
USER = b'{"active":true,"id":7,"name":"somebody","tags":["a","b","c"]}\n'


def rows():
    file = (site_folder() / "1k").read_bytes()
    policies = {**POLICIES, "all policies": ALL_POLICIES, "otlp": OTLP}
    return {
        "hello": RequestKind("plain", "hello", "/", HELLO),
        **{
            name: RequestKind("plain", "hello", "/", HELLO, make=anygate_with(*options))
            for name, options in policies.items()
        },
        "flask": RequestKind("flask_app", "app", "/users/7", USER),
        "http2": RequestKind("plain", "hello", "/", HELLO, client="http2"),
        "static": RequestKind("plain", "hello", "/static/1k", file, make=anygate_static),
        "tls": RequestKind("plain", "hello", "/", HELLO, make=anygate_tls("ecdsa"), client="tls"),
        "post 20 KB": RequestKind("plain", "post", "/", b"20000", body=b"x" * 20_000),
        "100 KB": RequestKind("plain", "large", "/", b"x" * 100_000),
    }


def connect(port, client):
    connection = socket.create_connection(("127.0.0.1", port), 300)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return ssl._create_unverified_context().wrap_socket(connection) if client == "tls" else connection


def response_body(file):
    """The body of the next response, which has a length."""
    head = file.readline()
    if not head.startswith(b"HTTP/1.1 200"):
        raise SystemExit(f"a response with the wrong status: {head!r}")
    length = None
    while (line := file.readline()) not in (b"\r\n", b""):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
    if length is None:
        raise SystemExit("a response without a length")
    return file.read(length)


def ask(row, port, count):
    """Send so many requests one after the other on one connection, and look at each response."""
    if row.client == "http2":
        command = ["h2load", "-c1", "-m1", f"-n{count}", f"http://127.0.0.1:{port}{row.path}"]
        ended = subprocess.run(command, capture_output=True, text=True, check=True)
        received = len(row.expected) * count
        if f" {count} 2xx" not in ended.stdout or f"({received}) data" not in ended.stdout:
            raise SystemExit(f"h2load saw wrong responses:\n{ended.stdout}")
        return
    method = "POST" if row.body else "GET"
    length = f"Content-Length: {len(row.body)}\r\n" if row.body else ""
    request = f"{method} {row.path} HTTP/1.1\r\nHost: localhost\r\n{length}\r\n".encode() + row.body
    with connect(port, row.client) as connection, connection.makefile("rb") as file:
        for _ in range(count):
            connection.sendall(request)
            if (body := response_body(file)) != row.expected:
                raise SystemExit(f"a response with the wrong body: {body[:200]!r}")


def dumped(folder, processes):
    """Have callgrind write what was executed since the last time; return the instructions of these processes."""
    before = set(folder.glob("callgrind.*.*"))
    for process in processes:
        subprocess.run(["callgrind_control", "--dump", str(process)], capture_output=True, check=True)
    new = set(folder.glob("callgrind.*.*")) - before
    return sum(int(re.search(r"^totals: (\d+)", file.read_text(), re.MULTILINE)[1]) for file in new)


def workers_of(pid):
    """The processes that serve requests: what others do takes its time and not that of requests."""
    return [one for one in family(pid) if re.search(r"-w\d+$", Path(f"/proc/{one}/comm").read_text().strip())]


def wait_until_it_accepts(row, port, process):
    until = time.perf_counter() + 300
    while time.perf_counter() < until and process.poll() is None:
        try:
            with connect(port, row.client):
                return
        except OSError:
            time.sleep(0.2)
    raise SystemExit(f"no response from {' '.join(process.args)}; its messages are in {OUTPUT / 'log'}")


def with_a_server(row, folder):
    port = free_port()
    command = [str(part) for part in row.make(row.module, row.application, port, 1)]
    with (OUTPUT / "log").open("wb") as log:
        process = subprocess.Popen(
            [*CALLGRIND, f"--callgrind-out-file={folder}/callgrind.%p", *command],
            env={**environment(command), "PYTHONHASHSEED": "0"},
            cwd=FOLDER / "apps",
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
        )
        try:
            wait_until_it_accepts(row, port, process)
            ask(row, port, WARM)
            processes = workers_of(process.pid)
            dumped(folder, processes)
            ask(row, port, FEW)
            few = dumped(folder, processes)
            ask(row, port, MANY)
            many = dumped(folder, processes)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)
    return (many - few) / (MANY - FEW)


def without_a_server(row, folder):
    """What the application alone executes when it is called in a loop."""
    upload = []
    if row.body:
        upload = [folder / "body", "application/octet-stream"]
        upload[0].write_bytes(row.body)
    counts = []
    with Alone(
        row.module, row.application, row.path, upload, [*CALLGRIND, f"--callgrind-out-file={folder}/callgrind.%p"]
    ) as alone:
        for calls in (WARM, FEW, MANY):
            alone.call(calls)
            counts.append(dumped(folder, [alone.process.pid]))
    return (counts[2] - counts[1]) / (MANY - FEW)


def earlier(path):
    """What an earlier run printed, by row."""
    found = re.findall(r"^\| ([^|]+) \| (\d+) \|", path.read_text(), re.MULTILINE)
    return {name: int(count) for name, count in found}


def main():
    parser = argparse.ArgumentParser(description="Count the instructions of one request with callgrind.")
    parser.add_argument("--rows", default=",".join(rows()))
    parser.add_argument("--against", type=Path, help="what an earlier run printed, to compare with")
    options = parser.parse_args()
    before = earlier(options.against) if options.against else {}
    prepare()
    shutil.rmtree(OUTPUT, ignore_errors=True)
    print("| request | instructions | of the application alone | added |" + (" of earlier |" if before else ""))
    print("| --- | --: | --: | --: |" + (" --: |" if before else ""), flush=True)
    for name in options.rows.split(","):
        row = rows()[name]
        folder = OUTPUT / name.replace(" ", "-")
        (folder / "alone").mkdir(parents=True)
        (folder / "server").mkdir()
        whole = with_a_server(row, folder / "server")
        # A file is served without the application.
        alone = 0 if row.path.startswith("/static") else without_a_server(row, folder / "alone")
        ratio = f" {whole / before[name]:.3f} |" if name in before else " |" * bool(before)
        print(f"| {name} | {whole:.0f} | {alone:.0f} | {whole - alone:.0f} |{ratio}", flush=True)
    print(f"\ncallgrind's files, for callgrind_annotate, are in {OUTPUT}", file=sys.stderr)


if __name__ == "__main__":
    main()
