"""What is measured; README.md says it in a table."""

from __future__ import annotations

import argparse
import math
import os
import resource
import socket
import statistics
import subprocess
import time

from load import load, load_http2, load_websockets, one_round, open_websocket, undisturbed
from report import simple_table, throughput_table
from running import Behind, PriorKnowledge, Running, Secure
from servers import (
    EIGHT,
    FOLDER,
    ONE,
    PYTHON,
    SERVER_CORE,
    Server,
    anygate,
    anygate_gateway,
    anygate_gevent,
    anygate_many,
    anygate_static,
    anygate_tls,
    bjoern,
    fastwsgi,
    floor,
    flup,
    gevent_websocket,
    granian_http2,
    granian_tls,
    gunicorn_gevent,
    hypercorn,
    nginx_static,
    nginx_tls,
    uwsgi_gateway,
    wsgitools,
)


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
        "| protocol | body | back end | requests/s | of uwsgi | CPU µs/request of the back end | of uwsgi | p99 ms |",
        "| --- | --- | --- | --: | --: | --: | --: | --: |",
    ]
    for protocol, back_ends in pairs:
        for body, name in (("13 bytes", "hello"), ("100 KB", "large")):
            figures = {title: [] for title, _, _ in back_ends}
            for _ in range(options.rounds):
                for title, make, keep in back_ends:
                    with Behind(Server(make, 1), "plain", name, protocol, keep) as running:
                        label = f"{protocol}, {body}, {title}"
                        figures[title].append(one_round(running, label, "/", 32, options))
            rows = {
                title: {key: statistics.median(figure[key] for figure in rounds) for key in ("rps", "cpu", "p99")}
                for title, rounds in figures.items()
            }
            peer = rows["uwsgi"]
            for title, row in rows.items():
                notes = "; ".join(sorted({figure["errors"] for figure in figures[title] if figure["errors"]}))
                lines.append(
                    f"| {protocol} | {body} | {title}{f' ({notes})' if notes else ''} | {row['rps']:.0f} "
                    f"| {row['rps'] / peer['rps']:.2f} | {row['cpu']:.2f} | {row['cpu'] / peer['cpu']:.2f} "
                    f"| {row['p99']:.2f} |"
                )
    return lines


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
                figure = undisturbed(options, lambda: load_http2(running, 10, 10, "/", options.seconds), running)
                print(f"  {title}: {figure['rps']:.0f}/s, {figure['cpu']:.1f} us", flush=True)
                rows.setdefault(title, []).append(figure)
    return simple_table(rows, "granian", "request")


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
                figure = undisturbed(options, lambda: load_websockets(running, 32, options.seconds), running)
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
        # Responses of the last second do not count, so there must be many seconds.
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
                held = sum(1 for connection in connections if responded(connection))
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


def responded(connection):
    try:
        connection.settimeout(5)
        return connection.recv(4096).startswith(b"HTTP/1.1 200")
    except OSError:
        return False


def start(options):
    lines = [
        "| server | start to first response, ms | importing the application alone, ms | over it, ms |",
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
    "flask": ("flask: a route that responds with JSON, 32 connections", flask),
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
    "start": ("start: from the command to the first response of the Flask application", start),
}
