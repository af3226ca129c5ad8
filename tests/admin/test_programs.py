"""Programs that watch and steer: anygate top, anygate ctl, uwsgitop, StatsD."""

import json
import os
import pty
import re
import select
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from admin_address import CONTRACT, watch
from conftest import ANYGATE, PATIENCE


@pytest.fixture
def admin(serve):
    return lambda *arguments, **options: watch(serve, *arguments, **options)


class Terminal:
    """A program in a terminal."""

    def __init__(self, *command):
        self.pid, self.terminal = pty.fork()
        if self.pid == 0:
            os.environ.update(TERM="xterm", COLUMNS="120", LINES="40")
            os.execv(command[0], [str(word) for word in command])
        self.seen = ""

    def wait_for(self, pattern):
        until = time.monotonic() + PATIENCE
        while not re.search(pattern, self.seen):
            assert select.select([self.terminal], [], [], max(0, until - time.monotonic()))[0], self.seen
            self.seen += os.read(self.terminal, 65536).decode(errors="replace")

    def press(self, key):
        os.write(self.terminal, key.encode())

    def wait(self):
        try:
            while data := os.read(self.terminal, 65536):
                self.seen += data.decode(errors="replace")
        except OSError:
            pass  # The terminal of a program that has ended.
        os.close(self.terminal)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


class TestTop:
    def test_a_pipe_gets_it_once(self, admin, run):
        at = admin("--workers", "2")
        at.served.get("/pid")
        ended = run("top", "--admin", at.address)
        assert (ended.returncode, ended.stderr) == (0, "")
        assert "total 1 " in ended.stdout
        assert "/s " in ended.stdout
        assert "2 serve" in ended.stdout
        assert "\x1b" not in ended.stdout
        for worker in at.status()["workers"]:
            assert re.search(rf"^ *{worker['pid']}  serving", ended.stdout, re.MULTILINE)

    def test_a_terminal_is_refreshed_until_q(self, admin):
        at = admin()
        shown = Terminal(ANYGATE, "top", "--admin", at.address)
        shown.wait_for("total 0 ")
        at.served.get("/pid")
        shown.wait_for("total 1 ")
        shown.press("q")
        assert shown.wait() == 0
        assert shown.seen.endswith("\x1b[?25h\x1b[?1049l")

    def test_a_server_that_ends_ends_it(self, admin):
        at = admin()
        shown = Terminal(ANYGATE, "top", "--admin", at.address)
        shown.wait_for("total 0 ")
        at.served.terminate()
        assert shown.wait() == 1
        assert "no server responds at" in shown.seen

    def test_what_clients_send_does_not_steer_the_terminal(self):
        from anygate.control import render

        names = "requests requests_5xx requests_queued listen_queue memory_bytes worker_starts worker_deaths reloads"
        totals = {"workers": 0} | dict.fromkeys(names.split(" "), 0)
        worker = {"pid": 1, "stage": "serving", "requests": 0, "memory_bytes": 0, "age": 0, "since": 0}
        worker["in_flight"] = [{"request": "GET /\x1b]0;x\x07\n\x9b2J" + "y" * 500, "age": 4000}]
        status = {"version": "1", "pid": 1, "uptime": 100000, "time": 0, "log_level": "info", "totals": totals}
        status |= {
            "waiting": {"queue": None, "lock": 0.003},
            "workers": [worker],
            "latency": {"p50": None, "p90": 0.002, "p99": 12.0},
        }
        status["messages"] = [{"time": 0, "level": "warn", "text": "\x1b[31m", "pid": None}]
        text = render(status, None, 80)
        assert "\x1b" not in text
        assert "\x9b" not in text
        assert max(map(len, text.splitlines())) <= 100
        assert "p90 2 ms" in text
        assert "up 1 d 3 h" in text
        assert "p99 for a thread -   p99 for Python's lock 3 ms" in text
        assert "not yet" in text

    def test_what_nobody_has_measured_is_told_and_full_queues_have_a_colour(self):
        from anygate.control import render

        names = "requests requests_5xx requests_queued memory_bytes worker_starts worker_deaths reloads workers"
        totals = dict.fromkeys(names.split(" "), 0)
        status = {"version": "1", "pid": 1, "uptime": 1, "time": 0, "log_level": "info", "workers": [], "messages": []}
        status |= {"waiting": {"queue": None, "lock": None}, "latency": {"p50": None, "p90": None, "p99": None}}
        for share, colour in [(0.1, ""), (0.5, "\x1b[33m"), (0.51, "\x1b[31m")]:
            status["totals"] = totals | {"listen_queue": 6, "listen_queue_share": share}
            text = render(status, None, 80, colours=True)
            assert f"not accepted {colour}6\x1b" in text
        assert text.count("no response so far") == 2

    def test_the_last_hour_is_a_line_of_minutes(self):
        from anygate.control import _hour

        minute = [{"rate": 1.0, "high": None, "reloads": 0}] * 6
        busy = [{"rate": 8.0, "high": 0.02, "reloads": 1}, *minute[1:]]
        assert _hour(minute, "", "") == []
        # Steps that make no whole minute yet are left out, the oldest first.
        requests, slowest, reloads = _hour(minute[:2] + minute + busy + minute, "", "")
        assert requests.rstrip() == f"last hour  {'▁█▁':<60} requests up to 8.0/s"
        assert slowest.rstrip() == f"last hour  {' █ ':<60} p99 up to 20 ms"
        assert reloads == f"           {' ^ ':<60} reloads"


class TestControl:
    def test_orders(self, admin, run):
        at = admin()
        before = at.status()["workers"][0]["pid"]
        assert run("ctl", "scale", "2", "--admin", at.address).returncode == 0
        at.wait_until(lambda status: status["totals"]["workers"] == 2, "two")
        ended = run("ctl", "recycle", str(before), "--admin", at.address)
        assert ended.stdout == f"the supervisor was told to replace worker {before}\n"
        at.wait_until(lambda status: before not in [worker["pid"] for worker in status["workers"]], "another one")
        assert "no worker has the process ID 1" in run("ctl", "recycle", "1", "--admin", at.address).stderr
        before = at.status()["workers"][0]["pid"]
        assert run("ctl", "--admin", at.address, "reload").returncode == 0
        at.wait_until(lambda status: before not in [worker["pid"] for worker in status["workers"]], "others")
        status = run("ctl", "status", "--admin", at.address)
        assert "reloads 1" in status.stdout
        stacks = run("ctl", "stacks", "--admin", at.address)
        assert stacks.stdout.count("worker ") == 2
        assert "most recent call first" in stacks.stdout
        assert run("ctl", "log-level", "debug", "--admin", at.address).returncode == 0
        assert at.status()["log_level"] == "debug"
        assert run("ctl", "end", "--admin", at.address).returncode == 0
        assert at.served.wait() == 0

    def test_the_place_is_found_where_the_server_found_it(self, serve, run, tmp_path):
        (tmp_path / "anygate.toml").write_text('admin = "unix:admin.sock"\nport = 0\n')
        served = serve(CONTRACT)
        served.wait_for_log("status, metrics and orders: unix:")
        assert "1 serve " in run("ctl", "status").stdout
        assert "1 serve " in run("top").stdout
        (tmp_path / "anygate.toml").unlink()
        assert "1 serve " in run("ctl", "status", environment={"ANYGATE_ADMIN": "unix:admin.sock"}).stdout
        ended = run("ctl", "status")
        assert ended.returncode == 2
        assert "--admin ADDRESS" in ended.stderr

    def test_the_token_is_sent(self, admin, run, tmp_path):
        at = admin("--admin-token-file", "token")
        ended = run("ctl", "status", "--admin", at.address)
        assert ended.returncode == 1
        assert "--admin-token-file" in ended.stderr
        assert run("ctl", "status", "--admin", at.address, "--admin-token-file", "token").returncode == 0
        assert "No such file" in run("ctl", "status", "--admin", at.address, "--admin-token-file", "other").stderr

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            ([], "anygate ctl reload"),
            ([], "ctl: name a command"),
            (["fly"], "unknown command 'fly'; "),
            (["relaod"], "unknown command 'relaod', did you mean reload? "),
            (["scale"], "scale needs a number"),
            (["scale", "many"], "scale needs a number"),
            (["recycle", "all"], "recycle needs the process ID"),
            (["reload", "now"], "unknown command"),
            (["--nonsense"], "unknown option --nonsense"),
        ],
    )
    def test_wrong_words_are_explained(self, run, words, said):
        ended = run("ctl", *words, "--admin", "127.0.0.1:1")
        assert ended.returncode == 2
        assert said in ended.stderr
        assert "Traceback" not in ended.stderr

    @pytest.mark.parametrize("words", [[], ["relaod"], ["scale", "many"]])
    def test_wrong_words_are_explained_without_a_server(self, run, words):
        ended = run("ctl", *words)
        assert ended.returncode == 2
        assert "the address of the server is unknown" not in ended.stderr

    def test_who_does_not_respond_is_named(self, admin, run, tmp_path):
        at = admin()
        assert "no server responds at 127.0.0.1:1:" in run("ctl", "status", "--admin", "127.0.0.1:1").stderr
        assert "no server responds at unix:" in run("ctl", "status", "--admin", f"unix:{tmp_path}/none").stderr
        host, port = at.served.address
        ended = run("ctl", "status", "--admin", f"{host}:{port}")
        assert ended.returncode == 1
        assert "Traceback" not in ended.stderr
        assert run("ctl", "scale", "0", "--admin", at.address).returncode == 1


class TestUwsgi:
    @pytest.mark.parametrize("kind", ["tcp", "unix"])
    def test_whoever_connects_gets_the_json(self, serve, tmp_path, kind):
        address = "127.0.0.1:0" if kind == "tcp" else f"unix:{tmp_path}/stats.sock"
        served = serve(CONTRACT, "--uwsgi-stats", address, "--workers", "2")
        served.get("/pid")
        served.wait_for_log("uWSGI's statistics: ")
        where = re.search(r"statistics: (\S+)", served.log())[1]
        with socket.socket(socket.AF_INET if kind == "tcp" else socket.AF_UNIX) as client:
            host, _, port = where.rpartition(":")
            client.connect((host, int(port)) if kind == "tcp" else port)
            text = b"".join(iter(lambda: client.recv(4096), b""))
        stats = json.loads(text)
        assert stats["pid"] == served.pid
        assert sum(worker["requests"] for worker in stats["workers"]) == 1
        assert {worker["status"] for worker in stats["workers"]} == {"idle"}

    @pytest.mark.parametrize("form", ["socket", "http"])
    def test_uwsgitop_shows_it(self, admin, form):
        program = Path(sys.executable).with_name("uwsgitop")
        at = admin("--uwsgi-stats", "127.0.0.1:0")
        for _ in range(3):
            at.served.get("/pid")
        where = re.search(r"statistics: (\S+)", at.served.log())[1] if form == "socket" else f"{at.url}/stats"
        pid = at.status()["workers"][0]["pid"]
        shown = Terminal(sys.executable, program, where)
        shown.wait_for("uwsgi-anygate-")
        shown.wait_for(rf"{pid}")
        shown.wait_for("idle")
        shown.press("q")
        assert shown.wait() == 0
        assert "Traceback" not in shown.seen


class TestStatsd:
    def test_what_was_counted_is_sent(self, serve):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
            server.bind(("127.0.0.1", 0))
            server.settimeout(PATIENCE)
            options = ("--statsd", f"127.0.0.1:{server.getsockname()[1]}", "--statsd-prefix", "shop.")
            served = serve(CONTRACT, *options)
            for _ in range(3):
                served.get("/pid")
            first = server.recv(65536).decode()
            while "shop.cron_runs" not in first and "shop.reloads" not in first and "shop.workers:" not in first:
                first += "\n" + server.recv(65536).decode()
            lines = first.splitlines()
            assert "shop.requests_total.GET.2xx:3|c" in lines
            assert "shop.workers:1|g" in lines
            assert any(re.fullmatch(r"shop\.request_duration:[0-9.]+\|ms(\|@[0-9.]+)?", line) for line in lines)
            served.get("/pid")
            served.send_signal(signal.SIGTERM)
            last = server.recv(65536).decode()
            assert "shop.requests_total.GET.2xx:1|c" in last.splitlines()

    def test_labels_can_be_tags(self, serve):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
            server.bind(("127.0.0.1", 0))
            server.settimeout(PATIENCE)
            served = serve(CONTRACT, "--statsd", f"127.0.0.1:{server.getsockname()[1]}", "--statsd-tags")
            served.get("/pid")
            served.send_signal(signal.SIGTERM)
            assert "anygate.requests_total:1|c|#method:GET,status:2xx" in server.recv(65536).decode().splitlines()

    def test_a_server_that_is_not_there_hurts_nobody(self, serve):
        served = serve(CONTRACT, "--statsd", "127.0.0.1:9")
        assert served.get("/pid").status == 200
        assert served.terminate() == 0


def test_a_path_of_the_site_shows_the_metrics_of_all_workers(serve):
    served = serve(CONTRACT, "--metrics-path", "/metrics", "--workers", "2", "--threads", "1")
    served.get("/pid")

    def ask(*fields):
        with served.connect() as connection:
            return connection.ask("GET", "/metrics", fields, host="localhost")

    text = ask().text
    assert re.search(r"^anygate_workers 2$", text, re.MULTILINE)
    assert len(re.findall(r"^anygate_worker_memory_bytes\{", text, re.MULTILINE)) == 2
    assert re.search(r'^anygate_requests_total\{method="GET",status="2xx"\} [1-9]', text, re.MULTILINE)
    assert ask(("X-Forwarded-For", "127.0.0.1")).status == 403


def test_an_embedded_server_says_that_it_cannot(tmp_path):
    code = "import anygate\nanygate.Server(lambda e, s: [], port=0, admin='127.0.0.1:0')"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert "anygate.serve() has" in ended.stderr
