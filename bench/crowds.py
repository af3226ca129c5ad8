"""Workloads with many clients: kept connections of which few are active, and streams of events."""

from __future__ import annotations

import os
import re
import resource
import selectors
import socket
import statistics
import time

import peers
from comparison import first_response, median
from load import load, undisturbed
from peers import Cannot, Wanted
from report import best_of, median_table, noted, ratio
from rows import HELLO, RequestKind
from running import Failed, Running
from servers import LOAD_CORE, Server

KEPT, ACTIVE, LISTENERS = 10_000, 100, 1000
PATIENCE = 60  # seconds for connections to be taken
GET = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


def allow_connections(count):
    """This program and those that it starts may have so many connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(count, soft), hard))


def kept(options):
    """The load of 100 connections, alone and beside 9900 that have had a response and do nothing."""
    allow_connections(KEPT + 500)
    row = RequestKind("kept", "plain:hello", HELLO)

    def measure(running):
        first_response(row, running)
        alone = load(running, ACTIVE, "/", options.seconds)
        idle = []
        try:
            until = time.monotonic() + PATIENCE
            for _ in range(KEPT - ACTIVE):
                if time.monotonic() > until:
                    raise Failed(f"took {len(idle)} connections in {PATIENCE} s")
                connection = socket.create_connection(("127.0.0.1", running.port), 10)
                idle.append(connection)
                connection.sendall(GET)
                if not connection.recv(4096).startswith(b"HTTP/1.1 200"):
                    raise Failed(f"refused connection {len(idle)}")
            figure = undisturbed(options, lambda: load(running, ACTIVE, "/", options.seconds), running)
        except OSError as error:
            raise Failed(f"took {len(idle)} connections: {error}") from error
        finally:
            for connection in idle:
                connection.close()
        return {**figure, "alone": alone["cpu"], "length": len(HELLO)}

    medians, unable = measured(row, peers.ALL, measure, options)
    best, most = best_of(medians, "cpu"), best_of(medians, "rps", max)

    def cells(title, row):
        yield noted(title, row)
        yield f"{row['rps']:.0f}"
        yield ratio(row["rps"], most)
        yield f"{row['cpu']:.2f}"
        yield ratio(row["cpu"], best)
        yield from (f"{row['alone']:.2f}", f"{row['p99']:.2f}", f"{row['memory']:.1f}")

    columns = ("server", "requests/s", "of the best peer", "CPU µs/request", "of the best peer")
    columns += ("the same without idle ones", "p99 ms", "memory MB")
    return [*median_table(columns, medians, cells), *unable]


class Listener:
    """A client of events; it knows how late each came."""

    def __init__(self, port):
        self.connection = socket.create_connection(("127.0.0.1", port), 30)
        self.connection.sendall(GET)
        self.connection.setblocking(False)
        self.rest = b""
        self.delays = []

    def take(self):
        data = self.connection.recv(65536)
        if not data:
            raise Failed("a stream of events ended")
        now = time.monotonic()
        *events, self.rest = re.split(rb"(?<=\n\n)", self.rest + data)
        if not self.delays and not events and not self.rest.startswith(b"HTTP/1.1 200"):
            raise Failed(f"not a stream of events: {self.rest[:100]!r}")
        for event in events:
            if made := re.search(rb"data: ([\d.]+)\n\n", event):
                self.delays.append(now - float(made[1]))


def listen(listeners, duration):
    """Take events for so long."""
    with selectors.DefaultSelector() as selector:
        for listener in listeners:
            selector.register(listener.connection, selectors.EVENT_READ, listener)
        until = time.monotonic() + duration
        while (left := until - time.monotonic()) > 0:
            for key, _ in selector.select(left):
                key.data.take()


def events(options):
    """1000 clients under gevent, each with an event a second."""
    allow_connections(LISTENERS + 500)
    row = RequestKind("events", "events:events", lambda body: True, wanted=Wanted(gevent=True))
    duration = max(options.seconds, 4)

    def heard(running, listeners):
        _, _, before = running.processor()
        for listener in listeners:
            listener.delays.clear()
        listen(listeners, duration)
        _, _, after = running.processor()
        delays = sorted(delay * 1e3 for listener in listeners for delay in listener.delays)
        # An event a second; what is under way at the beginning and at the end does not count.
        if len(delays) < LISTENERS * (duration - 1) * 0.9:
            raise Failed(f"{len(delays)} events came in {duration} s")
        return {
            "rps": len(delays) / duration,
            "cpu": (after - before) / len(delays) * 1e6,
            "p50": statistics.median(delays),
            "p99": delays[len(delays) * 99 // 100],
            "memory": running.memory() / 1e6,
            "errors": "",
            "length": 0,
        }

    def measure(running):
        until = time.monotonic() + 30
        while True:
            try:
                listeners = [Listener(running.port)]
                break
            except OSError:
                if time.monotonic() > until or running.process.poll() is not None:
                    raise Failed(f"did not start: {running.last_line()}") from None
                time.sleep(0.05)
        affinity = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {int(LOAD_CORE)})
        try:
            listeners += [Listener(running.port) for _ in range(LISTENERS - 1)]
            listen(listeners, 2)
            return undisturbed(options, lambda: heard(running, listeners), running)
        except OSError as error:
            raise Failed(f"took {len(listeners)} clients: {error}") from error
        finally:
            os.sched_setaffinity(0, affinity)
            for listener in listeners:
                listener.connection.close()

    servers = {name: peers.ALL[name] for name in ("anygate", "gunicorn", "uWSGI")}
    medians, unable = measured(row, servers, measure, options, ("rps", "cpu", "p50", "p99", "memory", "length"))
    best = best_of(medians, "cpu")

    def cells(title, row):
        yield title
        yield f"{row['rps']:.0f}"
        yield f"{row['cpu']:.1f}"
        yield ratio(row["cpu"], best)
        yield from (f"{row['p50']:.2f}", f"{row['p99']:.2f}", f"{row['memory']:.1f}")

    columns = ("server", "events/s", "CPU µs/event", "of the best peer", "p50 of the delay, ms", "p99", "memory MB")
    return [*median_table(columns, medians, cells), *unable]


def measured(row, servers, measure, options, keys=("rps", "cpu", "p99", "memory", "alone", "length")):
    """The medians of each server, or failures in words; and a line with those that cannot."""
    module, name = row.application.split(":")
    figures, unable = {}, []
    for number in range(options.rounds):
        order = list(servers)
        for title in order[number % len(order) :] + order[: number % len(order)]:
            if options.servers and not title.startswith(tuple(options.servers.split(","))):
                continue
            server = Server(lambda *target, make=servers[title]: make(*target[:3], row.wanted), 1)
            try:
                with Running(server, module, name) as running:
                    figure = measure(running)
            except Cannot as reason:
                unable += [] if str(reason) in unable else [str(reason)]
                continue
            except (Failed, OSError) as failure:
                figure = str(failure)
            said = figure if isinstance(figure, str) else f"{figure['rps']:.0f}/s, {figure['cpu']:.1f} us"
            print(f"  {title}: {said}", flush=True)
            figures.setdefault(title, []).append(figure)
    medians = {title: median(rounds, keys) for title, rounds in figures.items()}
    return medians, ["", "; ".join(unable) + "."] if unable else []


WORKLOADS = {
    "kept": ("kept: 10 000 connections that are kept, of which 100 are active", kept),
    "events": ("events: 1000 clients of server-sent events, one a second, greenlets", events),
}
