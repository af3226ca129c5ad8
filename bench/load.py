"""Load on a server, and the figures that come of it."""

from __future__ import annotations

import itertools
import os
import re
import resource
import subprocess
import time
from pathlib import Path

from anygate import _anygate
from anygate.comparison import quantile
from anygate.measured_server import on_cores
from running import Failed
from servers import ECHO, LOAD_CORE


def seconds(text):
    value, unit = re.fullmatch(r"([\d.]+)(us|ms|s|m)", text).groups()
    return float(value) * {"us": 1e-6, "ms": 1e-3, "s": 1, "m": 60}[unit]


def client(command, duration):
    """Run a program that puts load on a server for so long; return what it prints."""
    try:
        ended = subprocess.run(
            list(map(str, command)), capture_output=True, text=True, check=True, timeout=duration + 30
        )
    except subprocess.TimeoutExpired:
        raise Failed(f"{command[3]} did not end") from None
    except subprocess.CalledProcessError as error:
        raise Failed(f"{command[3]} failed: {(error.stderr or error.stdout).strip()[-200:]}") from None
    return ended.stdout


def load(running, connections, path, duration, script=None, arguments=(), fields=None, core=LOAD_CORE):
    """Put load on a server with wrk; return its figures."""
    command = [
        "taskset",
        "-c",
        core,
        "wrk",
        "-t1",
        f"-c{connections}",
        f"-d{duration}s",
        "--latency",
        "--timeout",
        "10s",
    ]
    command += ["-s", str(script)] if script else []
    command += itertools.chain.from_iterable(("-H", f"{name}: {value}") for name, value in (fields or {}).items())
    command += [f"{running.scheme}://127.0.0.1:{running.port}{path}", *(["--", *arguments] if arguments else [])]
    user, system, exact = running.processor()
    text = client(command, duration)
    user_after, system_after, exact_after = running.processor()
    requests, read, unit = re.search(r"(\d+) requests in [^,]+, ([\d.]+)([KMGT]?)B read", text).groups()
    ticks = max(user_after - user + system_after - system, 1)
    spent = (exact_after - exact) / max(int(requests), 1) * 1e6
    errors = re.search(r"Socket errors: (.*)|Non-2xx or 3xx responses: (.*)", text)
    wrong = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    return {
        "requests": int(requests),
        "received": float(read) * 1024 ** " KMGT".index(unit or " "),
        "wrong": int(wrong[1]) if wrong else 0,
        "rps": float(re.search(r"Requests/sec:\s+([\d.]+)", text)[1]),
        "p50": seconds(re.search(r"^\s+50%\s+(\S+)", text, re.MULTILINE)[1]) * 1e3,
        "p99": seconds(re.search(r"^\s+99%\s+(\S+)", text, re.MULTILINE)[1]) * 1e3,
        "cpu": spent,
        "user": spent * (user_after - user) / ticks,
        "sys": spent * (system_after - system) / ticks,
        "memory": running.memory() / 1e6,
        "errors": errors[0] if errors else "",
    }


def request_of(row):
    """The bytes of a request, as wrk sends it."""
    head = [f"{'POST' if row.body else 'GET'} {row.path} HTTP/1.1", "Host: 127.0.0.1"]
    head += [f"{name}: {value}" for name, value in row.fields.items()]
    body = row.body
    if row.chunk_bytes:
        head.append("Transfer-Encoding: chunked")
        parts = [body[place : place + row.chunk_bytes] for place in range(0, len(body), row.chunk_bytes)]
        body = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in [*parts, b""])
    elif body:
        head.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*head, "", ""]).encode() + body


def load_plain(running, row, duration, core=LOAD_CORE):
    """Put the load of `anygate compare` on a server: each status is compared, and each body that is known."""
    expected = row.expected if isinstance(row.expected, bytes) else None
    before = running.processor()[2]
    with on_cores(map(int, core.split(","))):
        figures = _anygate.put_load(
            ("127.0.0.1", running.port),
            [(request_of(row), 200, expected)],
            [0],
            connections=row.connections,
            seconds=duration,
        )
    spent = running.processor()[2] - before
    (responses,) = figures["responses"]
    latencies = dict(figures["latencies"][0])
    wrong = figures["errors"].pop("status", 0) + figures["errors"].pop("body", 0)
    return {
        "requests": responses,
        "received": figures["received"],
        "wrong": wrong,
        "rps": responses / figures["seconds"],
        "p50": quantile(latencies, 0.5) * 1e3,
        "p99": quantile(latencies, 0.99) * 1e3,
        "cpu": spent / max(responses, 1) * 1e6,
        "memory": running.memory() / 1e6,
        "errors": ", ".join(f"{kind} {count}" for kind, count in figures["errors"].items()),
    }


def ticks():
    """Of all processors since the start of the machine: what the host gave to others, all, and what programs took."""
    user, nice, system, idle, waiting, hard, soft, stolen = map(
        int, Path("/proc/stat").read_text().splitlines()[0].split()[1:9]
    )
    busy = user + nice + system + hard + soft
    return stolen, busy + idle + waiting + stolen, busy


def ours(running):
    """Seconds on the processor of this program, of the programs that it has run, and of the server."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used) + running.processor()[2]


# Shares of the processors that the host gave to others, and that other programs took, in each measurement.
STOLEN, OTHERS = [], []


def undisturbed(options, measure, running):
    """Repeat a measurement while the host takes the processors away; keep the least disturbed one."""
    until = time.perf_counter() + options.patience
    best = None
    while True:
        stolen_before, all_before, busy_before = ticks()
        ours_before = ours(running)
        figures = measure()
        ours_after = ours(running)
        stolen_after, all_after, busy_after = ticks()
        passed = max(all_after - all_before, 1)
        share = (stolen_after - stolen_before) / passed
        own = (ours_after - ours_before) * os.sysconf("SC_CLK_TCK")
        others = max(busy_after - busy_before - own, 0) / passed
        if best is None or share < best[0]:
            best = (share, figures, others)
        if best[0] <= options.stolen_max or time.perf_counter() > until:
            STOLEN.append(best[0])
            OTHERS.append(best[2])
            return best[1]
        time.sleep(2)


def one_round(running, title, path, connections, options, script=None):
    """One server's figures, after a second to warm up."""
    running.wait(path)
    load(running, connections, path, 1, script)
    figure = undisturbed(options, lambda: load(running, connections, path, options.seconds, script), running)
    print(f"  {title}: {figure['rps']:.0f}/s, {figure['cpu']:.1f} us, p50 {figure['p50']:.2f} ms", flush=True)
    return figure


def load_http2(running, connections, streams, path, duration, fields=None, body=None):
    """Put load on a server of HTTP/2 with h2load; return its figures."""
    command = ["taskset", "-c", LOAD_CORE, "h2load", f"-c{connections}", f"-m{streams}", f"-D{duration}"]
    command += itertools.chain.from_iterable(("-H", f"{name}: {value}") for name, value in (fields or {}).items())
    command += ["-d", str(body)] if body else []
    _, _, before = running.processor()
    text = client([*command, f"{running.scheme}://127.0.0.1:{running.port}{path}"], duration)
    _, _, after = running.processor()
    done, failed, errored = map(int, re.search(r"(\d+) succeeded, (\d+) failed, (\d+) errored", text).groups())
    return {
        "requests": done,
        "received": int(re.search(r"\((\d+)\) data", text)[1]),
        "wrong": sum(map(int, re.search(r"(\d+) 3xx, (\d+) 4xx, (\d+) 5xx", text).groups())),
        "rps": done / duration,
        "p99": float("nan"),  # h2load does not say
        "cpu": (after - before) / max(done, 1) * 1e6,
        "memory": running.memory() / 1e6,
        "errors": f"{failed} failed, {errored} errored" if failed or errored else "",
    }


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
    response = connection.recv(4096)
    if not response.startswith(b"HTTP/1.1 101"):
        raise SystemExit(f"not a WebSocket: {response!r}")
    return connection
