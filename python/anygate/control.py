"""``anygate top`` and ``anygate ctl``: show and control a running server through its admin address."""

from __future__ import annotations

import contextlib
import difflib
import http.client
import json
import math
import os
import select
import shutil
import socket
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

USAGE = """\
commands:
  anygate ctl status             show the state of the server
  anygate ctl reload             start new workers with the current application
  anygate ctl scale N            set the number of workers
  anygate ctl recycle PID        replace one worker
  anygate ctl purge URL          purge the cache of http://host/page, http://host/news/* or all
  anygate ctl stacks             show the stacks of all threads of all workers
  anygate ctl log-level LEVEL    set the log level: error, warn, info or debug
  anygate ctl end                finish requests in flight and stop"""
COMMANDS = [line.split()[2] for line in USAGE.splitlines()[1:]]
PAUSE = 1.0
LINES_MAX = 15
#: Heights of a line of the last hour, and the steps of it that one letter shows.
BARS = " ▁▂▃▄▅▆▇█"
STEPS = 6


class NoResponse(Exception):
    """The server did not do what was requested; the message says why."""

    code = 1


class NoAddress(NoResponse):
    """There is nobody to ask."""

    code = 2


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self.path))


@dataclass(frozen=True)
class AdminAddress:
    """Admin address of a server."""

    host: str = ""
    port: int = 0
    unix: Path | None = None
    token_file: Path | None = None

    def __str__(self) -> str:
        if self.unix is not None:
            return f"unix:{self.unix}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def ask(self, path: str, method: str = "GET") -> Any:
        """Send a request; return its response, parsed as JSON."""
        if not self.host and self.unix is None:
            raise NoAddress(
                "the address of the server is unknown. Give the one it was started with: --admin ADDRESS, "
                "ANYGATE_ADMIN, or admin in the settings file"
            )
        fields = {"X-Anygate": "1"}
        token = self._token()
        if token:
            fields["Authorization"] = f"Bearer {token}"
        # An address that stands for all interfaces is reached at the loopback address.
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)
        connection = (
            _UnixConnection(self.unix, 30) if self.unix is not None else http.client.HTTPConnection(host, self.port, 30)
        )
        try:
            connection.request(method, path, headers=fields)
            response = connection.getresponse()
            body = response.read()
        except PermissionError as error:
            raise NoResponse(f"{self}: {error.strerror}: only the user who started the server may use it") from None
        except (ConnectionRefusedError, FileNotFoundError):
            raise NoResponse(f"no server responds at {self}: is anygate running with that admin address?") from None
        except (OSError, http.client.HTTPException) as error:
            raise NoResponse(f"{self}: {error or type(error).__name__}") from None
        finally:
            connection.close()
        try:
            said = json.loads(body)
        except ValueError:
            raise NoResponse(f"{self}: the server there is not anygate's admin address") from None
        if response.status == 401:
            raise NoResponse(f"{self} requires a token: name the file with --admin-token-file")
        if response.status >= 300:
            raise NoResponse(f"{self}: {said.get('error', response.status)}")
        return said

    def _token(self) -> str | None:
        if self.token_file is None:
            return None
        try:
            with open(self.token_file, encoding="utf-8-sig") as file:
                return file.readline().strip()
        except OSError as error:
            raise NoResponse(f"admin_token_file: {self.token_file}: {error.strerror}") from None


def _what(url: str) -> str:
    if url == "all":
        return url
    return f"prefix={quote(url[:-1])}" if url.endswith("*") else f"url={quote(url)}"


def ctl(words: list[str], **place: Any) -> int:
    """Run the command that ``words`` contains; return the exit code."""
    at = AdminAddress(**place)
    try:
        match words:
            case ["status"]:
                print(render(at.ask("/api/status"), None, _width()))
            case ["reload"]:
                at.ask("/api/reload", "POST")
                print("the supervisor was told to reload; its error log shows the result")
            case ["scale", count] if count.isascii() and count.isdigit():
                at.ask(f"/api/scale?workers={count}", "POST")
                print(f"the supervisor was told to run {int(count)} workers")
            case ["scale", *_]:
                return _refuse("ctl: scale needs a number of workers: anygate ctl scale 4", 2)
            case ["recycle", pid] if pid.isascii() and pid.isdigit():
                at.ask(f"/api/recycle?pid={pid}", "POST")
                print(f"the supervisor was told to replace worker {pid}")
            case ["recycle", *_]:
                return _refuse("ctl: recycle needs the process ID of a worker: anygate ctl recycle 4711", 2)
            case ["purge", url]:
                at.ask(f"/api/purge?{_what(url)}", "POST")
                print("the cached responses are out of date from now on")
            case ["log-level", level]:
                at.ask(f"/api/log-level?level={quote(level)}", "POST")
                print(f"the log level is {level}")
            case ["end"]:
                at.ask("/api/end", "POST")
                print("the supervisor was told to stop")
            case ["stacks"]:
                for worker in at.ask("/api/stacks", "POST")["workers"]:
                    print(f"worker {worker['pid']}:\n{_printable(worker['stacks']) or 'It did not respond.'}")
            case _:
                return _refuse(f"ctl: {_unknown(words)}{USAGE}", 2)
    except NoResponse as error:
        return _refuse(f"ctl: {error}", error.code)
    return 0


def _unknown(words: list[str]) -> str:
    if not words:
        return "name a command; "
    near = difflib.get_close_matches(words[0], COMMANDS, n=1)
    # One of these, with a word too many or too few.
    said = f", did you mean {near[0]}?" if near and near[0] != words[0] else ""
    return f"unknown command {' '.join(words)!r}{said or ';'} "


def top(words: list[str], **place: Any) -> int:
    """Show the state of the server until q is pressed, or once without a terminal; return the exit code."""
    at = AdminAddress(**place)
    before = None
    try:
        if not (sys.stdout.isatty() and sys.stdin.isatty()):
            before = at.ask("/api/status")
            time.sleep(PAUSE)
            print(render(at.ask("/api/status"), before, _width(), past=at.ask("/api/history")["points"]))
            return 0
        before, past = at.ask("/api/status"), at.ask("/api/history")
        with _screen():
            now = before
            while True:
                size = shutil.get_terminal_size()
                shown = render(now, before, size.columns, colours=True, past=past["points"])
                lines = shown.split("\n")[: size.lines - 1]
                # Each line is cleared behind its end, so that nothing flickers.
                sys.stdout.write("\x1b[H" + "".join(f"{line}\x1b[K\r\n" for line in lines) + "\x1b[J")
                sys.stdout.flush()
                if _key(PAUSE) in ("q", "Q", "\x03", "\x04"):
                    return 0
                before, now = now, at.ask("/api/status")
                if now["time"] - past["time"] >= past["step"]:
                    past = at.ask("/api/history")
    except NoResponse as error:
        return _refuse(f"top: {error}", error.code)
    except KeyboardInterrupt:
        return 0


def render(now: Any, before: Any, width: int, colours: bool = False, past: Any = ()) -> str:
    """Return the figures as text: rates if there are figures from before, the last hour if ``past`` has its steps."""
    bold, faint, red, yellow, plain = (
        ("\x1b[1m", "\x1b[2m", "\x1b[31m", "\x1b[33m", "\x1b[0m") if colours else ("",) * 5
    )
    totals = now["totals"]
    seconds = max(now["time"] - before["time"], 1e-3) if before and before is not now else None
    earlier = {worker["pid"]: worker["requests"] for worker, _, _ in _workers(before)} if seconds else {}
    flights = [
        (seen["age"], worker["pid"], seen["request"]) for worker in now["workers"] for seen in worker["in_flight"]
    ]
    whose = "  APPLICATION" if now.get("apps") else ""
    rate = ""
    if seconds:
        rate = f"{max(0, totals['requests'] - before['totals']['requests']) / seconds:,.1f}/s   "
    failed = f"{red if totals['requests_5xx'] else ''}{totals['requests_5xx']:,}{plain}"
    # A server of an earlier version does not tell it.
    share = totals.get("listen_queue_share", 0)
    full = red if share > 0.5 else yellow if share > 0.1 else ""
    waits = _figures(now["waiting"], queue="p99 for a thread", lock="p99 for Python's lock")
    lines = [
        f"{bold}anygate {now['version']}{plain}   process {now['pid']}   up {_age(now['uptime'])}   "
        f"log level {now['log_level']}",
        f"{faint}requests{plain}   {rate}total {totals['requests']:,}   5xx {failed}   in flight {len(flights)}   "
        f"queued {totals['requests_queued']}   not accepted {full}{totals['listen_queue']}{plain}",
        f"{faint}latency{plain}    {_figures(now['latency'], p50='p50', p90='p90', p99='p99')}",
        f"{faint}waiting{plain}    {waits}",
        f"{faint}workers{plain}    {totals['workers']} serve   memory {_bytes(totals['memory_bytes'])}   "
        f"started {totals['worker_starts']}   died {totals['worker_deaths']}   reloads {totals['reloads']}",
        *_hour(past, faint, plain),
        "",
        f"{bold} PROCESS  STAGE       REQUESTS    REQ/S  IN FLIGHT     MEMORY        AGE{whose}{plain}",
    ]
    for worker, in_flight, app in _workers(now):
        speed = "-"
        if seconds and worker["pid"] in earlier:
            speed = f"{max(0, worker['requests'] - earlier[worker['pid']]) / seconds:,.1f}"
        memory = _bytes(worker["memory_bytes"]) if worker["memory_bytes"] else "not yet"
        lines.append(
            f"{worker['pid']:>8}  {worker['stage']:<9}{worker['requests']:>11,}{speed:>9}{in_flight:>11}"
            f"{memory:>11}{_age(worker['age']):>11}{app and '  ' + app}"
        )
    if now.get("routes"):
        lines += ["", f"{bold}   REQ/S        P50        P99      4XX      5XX     REQUESTS  ROUTE{plain}"]
        before_each = {one["route"]: one["requests"] for one in before["routes"]} if seconds else {}
        lines += _routes(now["routes"], before_each, seconds, width)
    if flights:
        lines += ["", f"{bold}REQUESTS IN FLIGHT{plain}"]
        for age, pid, request in sorted(flights, reverse=True)[:LINES_MAX]:
            mark = red if age > 30 else yellow if age > 3 else ""
            lines.append(f"{mark}{_duration(age):>10}{plain}  {pid:>8}  {_cut(request, width - 22)}")
    if now["messages"]:
        lines += ["", f"{bold}WARNINGS AND ERRORS{plain}"]
        for message in now["messages"][:LINES_MAX]:
            clock = time.strftime("%H:%M:%S", time.localtime(message["time"]))
            mark = red if message["level"] in ("critical", "error") else yellow
            lines.append(f"{clock:>10}  {mark}{message['level']:<8}{plain}  {_cut(message['text'], width - 22)}")
    return "\n".join(lines)


def _workers(status: Any) -> list[tuple[Any, int, str]]:
    """Return each worker, the number of its requests in flight, and its application if that has its own processes."""
    own = [(worker, len(worker["in_flight"]), "") for worker in status["workers"]]
    return own + [
        (worker, worker["in_flight"], app["app"]) for app in status.get("apps", []) for worker in app["workers"]
    ]


def _routes(now: Any, before: dict[str, int], seconds: float | None, width: int) -> list[str]:
    """Return a line for each of the routes that have most to do."""
    rows = []
    for route in now:
        added = max(0, route["requests"] - before.get(route["route"], 0))
        rows.append((added / seconds if seconds else None, route))
    rows.sort(key=lambda row: (-(row[0] or 0), -row[1]["requests"]))
    return [
        f"{'-' if rate is None else format(rate, ',.1f'):>8}{_duration(route['p50']):>11}{_duration(route['p99']):>11}"
        f"{route['requests_4xx']:>9,}{route['requests_5xx']:>9,}{route['requests']:>13,}"
        f"  {_cut(route['route'], width - 64)}"
        for rate, route in rows[:LINES_MAX]
    ]


def _hour(past: Any, faint: str, plain: str) -> list[str]:
    """Return requests a second and slowest requests of each minute of the last hour, and where there were reloads."""
    minutes = [past[at : at + STEPS] for at in range(len(past) % STEPS, len(past), STEPS)]
    if len(minutes) < 2:
        return []
    lines = []
    for member, name, show in (("rate", "requests", lambda most: f"{most:,.1f}/s"), ("high", "p99", _duration)):
        values = [max((point[member] or 0.0) for point in minute) for minute in minutes]
        most = max(values)
        bars = "".join(BARS[math.ceil(value / most * (len(BARS) - 1)) if most else 0] for value in values)
        lines.append(f"{faint}last hour{plain}  {bars:<60} {name} up to {show(most)}")
    if any(point["reloads"] for minute in minutes for point in minute):
        marks = "".join("^" if any(point["reloads"] for point in minute) else " " for minute in minutes)
        lines.append(f"           {marks:<60} reloads")
    return lines


def _figures(durations: Any, **names: str) -> str:
    """Return durations with their names, or what there is to say as long as no request has ended."""
    if all(durations[name] is None for name in names):
        return "no response so far"
    return "   ".join(f"{what} {_duration(durations[name])}" for name, what in names.items())


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    return f"{seconds * 1000:.3g} ms" if seconds < 0.9995 else f"{seconds:.1f} s"


def _age(seconds: float) -> str:
    for size, unit, below, rest in ((86400, "d", 3600, "h"), (3600, "h", 60, "m"), (60, "m", 1, "s")):
        if seconds >= size:
            return f"{seconds // size:.0f} {unit} {seconds % size // below:.0f} {rest}"
    return f"{seconds:.0f} s"


def _bytes(count: int) -> str:
    for size, unit in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} B"


def _cut(text: str, width: int) -> str:
    """Return text that clients may have sent as one line that cannot control a terminal."""
    text = _printable(text).replace("\n", " ")
    return text if len(text) <= max(width, 10) else text[: max(width, 10) - 1] + "…"


def _printable(text: str) -> str:
    return "".join(letter if letter.isprintable() or letter == "\n" else "\N{REPLACEMENT CHARACTER}" for letter in text)


def _width() -> int:
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else 200


def _refuse(message: str, code: int) -> int:
    print(f"anygate: error: {message}", file=sys.stderr)
    return code


@contextlib.contextmanager
def _screen() -> Iterator[None]:
    """Use the whole terminal, without line buffering of keys and without a cursor."""
    import termios
    import tty

    before = termios.tcgetattr(sys.stdin)
    try:
        tty.setcbreak(sys.stdin)
        sys.stdout.write("\x1b[?1049h\x1b[?25l")
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)
        sys.stdout.write("\x1b[?25h\x1b[?1049l")
        sys.stdout.flush()


def _key(seconds: float) -> str:
    """Return the key that is pressed within the given time, or nothing; end of input is Ctrl-D."""
    if select.select([sys.stdin], [], [], seconds)[0]:
        return os.read(sys.stdin.fileno(), 1).decode("latin-1") or "\x04"
    return ""
