"""Load on a server, and the figures that come of it."""

from __future__ import annotations

import re
import subprocess
import time
from pathlib import Path

from servers import ECHO, LOAD_CORE


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
