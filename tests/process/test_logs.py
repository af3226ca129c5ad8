"""The access log and the error log."""

import contextlib
import datetime
import gzip
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from pathlib import Path

import pytest
from admin_address import watch
from conftest import ANYGATE, APPS, Served
from waiting import PATIENCE
from wire import Datagrams

CONTRACT = APPS / "contract.py"
GUIDE = (Path(__file__).parents[2] / "docs" / "guide" / "logs.md").read_text()


def lines(path):
    return path.read_text().splitlines()


def test_combined_is_what_every_log_reader_knows(serve, tmp_path):
    served = serve(CONTRACT, "--access-log", "access.log")
    served.get(
        "/pid?x=1", [("User-Agent", 'a"b\\c'), ("Referer", "http://r/"), ("Authorization", "Basic YWxpY2U6cw==")]
    )
    served.get("/raises")
    served.wait_until(lambda: len(lines(tmp_path / "access.log")) == 2, "two lines")
    first, second = lines(tmp_path / "access.log")
    time = r"\[\d\d/\w{3}/\d{4}:\d\d:\d\d:\d\d \+0000\]"
    size = len(served.get("/pid?x=1").body)
    expected = rf'127\.0\.0\.1 - alice {time} "GET /pid\?x=1 HTTP/1\.1" 200 {size} "http://r/" "a\\"b\\\\c"'
    assert re.fullmatch(expected, first)
    assert '"GET /raises HTTP/1.1" 500 ' in second


#: An application that puts into exceptions and into `wsgi.errors` what its client sends, as many do.
FORGED = "2026-01-01T00:00:00.000000Z [1]  INFO forged"
FORGING = f"""
FORGED = {FORGED!r}
BREAKS = ["\\n", "\\r", "\\r\\n", "\\x0b", "\\x0c", "\\x85", "\\u2028", "\\u2029", "\\x1b[2K\\x1b[G"]

def app(environ, start_response):
    if environ["PATH_INFO"] == "/writes":
        for end in BREAKS:
            environ["wsgi.errors"].write(f"its own{{end}}{{FORGED}}\\n{{FORGED}}\\n")
        start_response("200 OK", [])
        return [b"written"]
    error = ValueError("told" + "".join(end + FORGED for end in BREAKS))
    if hasattr(error, "add_note"):
        error.add_note("a note\\n" + FORGED)
    raise error

def tell(environ, exc_info):
    raise exc_info[1]
"""


def assert_nothing_is_forged(log):
    """No line begins with it, whatever a reader takes for the end of one; nothing commands a terminal."""
    assert "forged" in log
    assert not [line for line in re.split(r"[\n\r\x0b\x0c\x85\u2028\u2029]", log) if line.startswith(FORGED)]


@pytest.mark.parametrize("kind", [(), ("--concurrency", "gevent"), ("--preload",)], ids=str)
def test_no_exception_writes_a_line_of_the_error_log(serve, tmp_path, kind):
    (tmp_path / "forging.py").write_text(FORGING)
    served = serve("forging:app", "--pythonpath", tmp_path, *kind, "--on-error", "forging:tell")
    assert served.get("/raises").status == 500
    served.wait_for_log("its on_error failed")
    assert served.get("/writes").status == 200
    served.wait_for_log("its own")
    served.terminate()
    log = served.errors.read_bytes().decode()
    assert_nothing_is_forged(log)
    message = log[log.index("the application failed: GET /raises") :].splitlines()
    # Text of an exception is indented.
    own = [line for line in message if line.startswith(("ValueError: told", "    2026"))]
    assert own[0].startswith("ValueError: told")
    assert len(own) > 1
    assert "\x1b" not in log[: log.index("its own")]


def test_common_is_the_same_without_referrer_and_user_agent(serve, tmp_path):
    served = serve(CONTRACT, "--access-log", "access.log", "--access-log-format", "common")
    served.get("/closed", [("User-Agent", "a"), ("Referer", "b")])
    served.terminate()
    (line,) = lines(tmp_path / "access.log")
    assert re.fullmatch(r'127\.0\.0\.1 - - \[.*\] "GET /closed HTTP/1\.1" 200 2', line)


def test_what_a_client_sends_cannot_break_a_line(serve, tmp_path):
    served = serve(CONTRACT, "--access-log", "access.log")
    served.get("/%0a%1b[31m", [("User-Agent", "\x80\xff caf\xe9\t")])
    with served.connect() as connection:
        connection.send("GET /\x1b[31m HTTP/1.1\r\nHost: a\r\n\r\n")
        assert connection.response().status == 400
    served.terminate()
    raw = (tmp_path / "access.log").read_bytes()
    assert raw.count(b"\n") == 2
    assert re.fullmatch(rb"[ -~\n]*", raw)
    assert rb"\x80\xff caf\xe9" in raw


def test_json_is_one_object_a_line(serve, tmp_path):
    served = serve(CONTRACT, "--access-log", "access.log", "--access-log-format", "json")
    served.get("/sleep?0.05", [("User-Agent", 'x"\\\x85')])
    served.terminate()
    (line,) = lines(tmp_path / "access.log")
    entry = json.loads(line)
    assert entry["method"] == "GET"
    assert entry["target"] == "/sleep?0.05"
    assert entry["status"] == 200
    assert entry["remote_addr"] == "127.0.0.1"
    assert entry["user_agent"] == 'x"\\\\x85'
    assert 0.05 <= entry["duration"] < 5
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", entry["time"])


@pytest.mark.parametrize("options", [(), ("--concurrency", "gevent")])
def test_the_time_is_that_of_the_beginning(serve, tmp_path, options):
    served = serve(CONTRACT, "--access-log", "access.log", "--access-log-format", "json", *options)
    begun = datetime.datetime.now(datetime.timezone.utc)
    served.get("/sleep?0.5")
    ended = datetime.datetime.now(datetime.timezone.utc)
    served.terminate()
    (line,) = lines(tmp_path / "access.log")
    entry = json.loads(line)
    time = datetime.datetime.fromisoformat(entry["time"].replace("Z", "+00:00"))
    assert time >= begun - datetime.timedelta(milliseconds=1)
    assert time + datetime.timedelta(seconds=entry["duration"]) <= ended


def test_a_format_of_ones_own(serve, tmp_path):
    text = "%(m)s|%(U)s|%(q)s|%(s)s|%(B)s|%({x-id}i)s|%({X-One}o)s|%({None}o)s|100%%"
    served = serve(CONTRACT, "--access-log", "access.log", "--access-log-format", text)
    served.get("/fields?a=b", [("X-Id", "7")])
    served.terminate()
    assert lines(tmp_path / "access.log") == ["GET|/fields|a=b|200|2|7|1|-|100%"]


def test_dash_is_standard_output(serve):
    served = serve(CONTRACT, "--access-log", "-")
    served.get("/pid")
    served.terminate()
    assert '"GET /pid HTTP/1.1" 200' in served.stdout()


def test_no_line_is_lost_at_the_end(serve, tmp_path):
    served = serve(CONTRACT, "--access-log", "access.log", "--workers", "2")
    with served.connect() as connection:
        for _ in range(500):
            connection.send("GET /pid HTTP/1.1\r\nHost: a\r\n\r\n")
        for _ in range(500):
            assert connection.response().status == 200
        assert served.terminate() == 0
    assert len(lines(tmp_path / "access.log")) == 500


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGHUP])
def test_usr1_and_hup_go_on_in_fresh_files(launch, tmp_path, number):
    served = launch(CONTRACT, "--access-log", "access.log", "--error-log", "error.log", "--bind", "unix:a.sock")
    served.errors = tmp_path / "error.log"
    served.wait_until(lambda: served.errors.exists() and " serves " in served.log(), "ready")

    def get():
        with served.connect(str(tmp_path / "a.sock")) as connection:
            return connection.ask("GET", "/errors")

    get()
    served.wait_until(lambda: lines(tmp_path / "access.log"), "a line")
    (tmp_path / "access.log").rename(tmp_path / "access.log.1")
    (tmp_path / "error.log").rename(tmp_path / "error.log.1")
    served.send_signal(number)
    served.wait_until(lambda: (tmp_path / "access.log").exists() and (tmp_path / "error.log").exists(), "fresh files")

    def fresh():
        get()
        return lines(tmp_path / "access.log") and "a line for the log" in (tmp_path / "error.log").read_text()

    served.wait_until(fresh, "lines in the fresh files")
    assert len(lines(tmp_path / "access.log.1")) >= 1


def test_the_level_decides_how_much_is_said(launch):
    served = launch(CONTRACT, "--bind", "unix:a.sock", "--log-level", "error")
    served.wait_until(lambda: (served.errors.parent / "a.sock").exists(), "the socket")

    def responded():
        try:
            with served.connect(str(served.errors.parent / "a.sock")) as connection:
                return connection.ask("GET", "/raises").status == 500
        except ConnectionError:
            return False

    served.wait_until(responded, "a response")
    assert "serves" not in served.log()
    served.wait_for_log("ValueError: before start_response")


def test_closed_standard_streams_stop_nothing(tmp_path):
    """stdin, stdout and stderr closed: descriptors 0 to 2 must not be taken for sockets or logs."""
    command = f'exec "{ANYGATE}" "{CONTRACT}" --bind unix:a.sock --access-log - <&- >&- 2>&-'
    process = subprocess.Popen(["sh", "-c", command], cwd=tmp_path, env={**os.environ, "PYTHONPATH": ""})
    try:
        waiting = Served.__new__(Served)
        waiting.process, waiting.pid, waiting.errors = process, process.pid, tmp_path / "none"
        (tmp_path / "none").touch()

        def responded():
            try:
                with waiting.connect(str(tmp_path / "a.sock")) as connection:
                    return (
                        connection.ask("GET", "/raises").status == 500 and connection.ask("GET", "/pid").status == 200
                    )
            except OSError:
                return False

        waiting.wait_until(responded, "a response")
    finally:
        process.terminate()
        assert process.wait(PATIENCE) == 0


@pytest.mark.parametrize("command", re.findall(r"```sh\nanygate (.*)\n```", GUIDE))
def test_the_commands_of_the_guide_work(serve, tmp_path, command):
    shutil.copy(APPS / "gates.py", tmp_path)
    (tmp_path / "myapp.py").write_text(CONTRACT.read_text() + "\napp = application\n")
    served = serve(*shlex.split(command), *([] if "--error-log" not in command else ["--error-log", "-"]))
    assert served.get("/pid").status == 200


@pytest.mark.parametrize("settings", re.findall(r"```toml\n(.*?)```", GUIDE, re.DOTALL))
def test_the_settings_of_the_guide_are_right(run, tmp_path, settings):
    (tmp_path / "logging.ini").touch()
    (tmp_path / "anygate.toml").write_text(settings)
    assert run("config", "--check").returncode == 0


def dropped(admin, log):
    found = re.search(rf'log_lines_dropped_total{{log="{log}"}} (\d+)', admin.ask("/metrics").text)
    return int(found[1])


def test_a_full_disk_stops_nothing(serve):
    admin = watch(serve, "--access-log", "/dev/full")
    for _ in range(3):
        assert admin.served.get("/pid").status == 200
    admin.served.wait_for_log("cannot write the access log to /dev/full; lines are lost: No space left on device")
    admin.served.wait_until(lambda: dropped(admin, "access") == 3, "the lines counted")
    assert admin.served.log().count("cannot write the access log") == 1


def test_a_full_disk_under_the_error_log_stops_nothing(launch, tmp_path):
    served = launch(CONTRACT, "--bind", "unix:a.sock", "--error-log", "/dev/full", "--admin", "unix:admin.sock")
    served.wait_until(lambda: (tmp_path / "admin.sock").exists(), "the sockets")
    for _ in range(3):
        assert served.connect(str(tmp_path / "a.sock")).ask("GET", "/errors").status == 200
    said = "anygate: cannot write the error log to /dev/full; lines are lost: No space left on device"
    served.wait_until(lambda: said in served.log(), "the complaint on standard error")
    with served.connect(str(tmp_path / "admin.sock")) as connection:
        served.wait_until(
            lambda: not re.search(rb'lines_dropped_total{log="error"} [0-3]\n', connection.ask("GET", "/metrics").body),
            "the lines counted",
        )
    assert served.terminate() == 0


def test_a_full_disk_under_everything_that_is_said_stops_nothing(launch, tmp_path):
    command = ["sh", "-c", 'exec "$0" "$@" 2>/dev/full >/dev/full', ANYGATE]
    served = launch(CONTRACT, "-s", "native", "--bind", "unix:a.sock", "--error-log", "/dev/full", command=command)
    served.wait_until(lambda: (tmp_path / "a.sock").exists(), "the socket")
    (first,) = served.wait_until(served.workers, "a worker")
    served.send_signal(signal.SIGHUP)
    served.wait_until(lambda: first not in served.workers(), "a reload")
    assert served.connect(str(tmp_path / "a.sock")).ask("GET", "/pid").status == 200
    assert served.terminate() == 0


LONG = "x" * 4000


def ask_until(served, condition, address=None):
    """Ask for something with a long line in the access log until the condition is true; give the numbers."""
    number = 0
    with served.connect(address) as connection:
        while not condition():
            for _ in range(50):
                number += 1
                connection.send(f"GET /pid?{number}.{LONG} HTTP/1.1\r\nHost: a\r\n\r\n")
                assert connection.response().status == 200
    return number


def test_a_fifo_that_nobody_reads_stops_nothing(serve, tmp_path):
    os.mkfifo(tmp_path / "fifo")
    admin = watch(serve, "--access-log", "fifo", "--access-log-format", "%(q)s")
    served = admin.served
    count = ask_until(served, lambda: dropped(admin, "access") > 0)
    served.wait_for_log(f"cannot write the access log to {tmp_path}/fifo; lines are lost: its reader does not keep up")
    # A reader gets what waits, in order and whole.
    seen, buffer = [], b""
    with open(tmp_path / "fifo", "rb", buffering=0) as fifo:
        os.set_blocking(fifo.fileno(), False)

        def all_are_here_or_counted():
            nonlocal buffer
            while some := fifo.read(1 << 16):
                *lines, buffer = (buffer + some).split(b"\n")
                for line in lines:
                    number, _, rest = line.decode().partition(".")
                    assert rest == LONG
                    seen.append(int(number))
            return len(seen) + dropped(admin, "access") == count

        served.wait_until(all_are_here_or_counted, "all lines")
    assert seen == sorted(set(seen))
    assert served.log().count("cannot write the access log") == 1
    # And what comes from now on.
    with open(tmp_path / "fifo", "rb", buffering=0) as fifo:
        assert served.get("/pid?now").status == 200
        assert fifo.read(1 << 16) == b"now\n"
    assert served.terminate() == 0


def test_standard_streams_that_nobody_reads_stop_nothing(tmp_path):
    options = ["--bind", "unix:a.sock", "--access-log", "-", "--access-log-format", "%(q)s", "--workers", "2"]
    process = subprocess.Popen(
        [ANYGATE, CONTRACT, *options], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    served = Served.__new__(Served)
    served.process, served.pid, served.errors = process, process.pid, tmp_path / "none"
    (tmp_path / "none").touch()
    try:
        banner = b""
        while b" serves " not in banner:
            banner += os.read(process.stderr.fileno(), 4096)
        address = str(tmp_path / "a.sock")
        # More than a pipe takes, and than waits in memory.
        with served.connect(address) as connection:
            for _ in range(700):
                connection.send(f"GET /pid?{LONG} HTTP/1.1\r\nHost: a\r\n\r\n")
                assert connection.response().status == 200
            for _ in range(400):
                assert connection.ask("GET", "/raises").status == 500
        # The pipe is others' as well, who may wait for it.
        assert os.get_blocking(process.stdout.fileno())
        process.terminate()
        assert process.wait(PATIENCE) == 0
        rest = process.stdout.read()
        assert set(rest.split(b"\n")) == {LONG.encode(), b""}
    finally:
        served.kill()


def test_syslog_of_this_machine_gets_lines_as_the_c_library_writes_them(launch, tmp_path):
    daemon = Datagrams(tmp_path / "log")
    place = f"syslog:{tmp_path}/log"
    served = launch(CONTRACT, "--bind", "unix:a.sock", "--error-log", place, "--access-log", place)
    time = rb"[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d"
    # daemon is 3, and the severity of information 6.
    assert re.fullmatch(rb"<30>%s anygate\[%d\]: anygate .* serves .*" % (time, served.pid), daemon.wait_for(b"serves"))
    (worker,) = served.workers()
    with served.connect(str(tmp_path / "a.sock")) as connection:
        connection.ask("GET", "/errors")
        assert daemon.wait_for(b"two ").endswith(b"]: two parts")
        line = daemon.wait_for(b"GET")
        assert re.fullmatch(rb'<30>%s anygate-access\[%d\]: 127.* "GET /errors .*' % (time, worker), line)
        connection.ask("GET", "/raises")
        assert daemon.wait_for(b"failed").startswith(b"<27>")
        assert daemon.wait_for(b"Error: ").endswith(b"]: ValueError: before start_response")
    assert served.terminate() == 0


def test_no_exception_writes_a_message_of_its_own_to_syslog(launch, tmp_path):
    (tmp_path / "forging.py").write_text(FORGING)
    daemon = Datagrams(tmp_path / "log")
    place = ("--bind", "unix:a.sock", "--error-log", f"syslog:{tmp_path}/log")
    served = launch("forging:app", "--pythonpath", tmp_path, *place)
    daemon.wait_for(b"serves")
    with served.connect(str(tmp_path / "a.sock")) as connection:
        connection.ask("GET", "/raises")
    daemon.wait_for(b"ValueError: told")
    assert daemon.wait_for(b"forged").partition(b"]: ")[2].startswith(b"    " + FORGED.encode())
    assert served.terminate() == 0


def test_syslog_across_the_network_gets_rfc_5424(serve):
    daemon = Datagrams()
    port = daemon.socket.getsockname()[1]
    served = serve(CONTRACT, "--access-log", f"syslog:127.0.0.1:{port}", "--syslog-facility", "local3")
    served.get("/pid")
    (worker,) = served.workers()
    line = daemon.wait_for(b"GET").decode()
    # local3 is 19.
    head = rf"<158>1 \d{{4}}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{{6}}Z \S+ anygate-access {worker} - - "
    assert re.match(head + '127.0.0.1 - - .* "GET /pid ', line), line


def test_the_journal_gets_fields(launch, tmp_path):
    daemon = Datagrams(tmp_path / "journal")
    place = f"journald:{tmp_path}/journal"
    served = launch(CONTRACT, "--bind", "unix:a.sock", "--error-log", place, "--access-log", place)
    daemon.wait_for(b"serves")
    with served.connect(str(tmp_path / "a.sock")) as connection:
        connection.ask("GET", "/raises")
    failed = daemon.wait_for(b"ValueError")
    assert b"PRIORITY=3\n" in failed
    assert b"SYSLOG_IDENTIFIER=anygate\n" in failed
    _, _, message = failed.partition(b"\nMESSAGE\n")
    assert int.from_bytes(message[:8], "little") == len(message) - 9
    assert message[8:].startswith(b"the application failed: GET /raises failed\nTraceback")
    line = daemon.wait_for(b"SYSLOG_IDENTIFIER=anygate-access\n")
    assert re.search(rb'\nMESSAGE=127\.0\.0\.1 - - .* "GET /raises HTTP/1\.1" 500 [^\n]*\n$', line)
    assert served.terminate() == 0


def test_the_names_of_standard_streams_are_these_streams_also_where_they_are_sockets(tmp_path):
    ours, theirs = socket.socketpair()
    options = ["--port", "0", "--access-log", "/dev/stdout", "--error-log", "/dev/stderr"]
    with ours, theirs:
        process = subprocess.Popen([ANYGATE, CONTRACT, *options], cwd=tmp_path, stdout=theirs, stderr=theirs)
        theirs.close()
        try:
            said = b""
            while not (found := re.search(rb" serves .* on http://127\.0\.0\.1:(\d+) ", said)):
                said += ours.recv(4096)
            urllib.request.urlopen(f"http://127.0.0.1:{int(found[1])}/pid").close()
            process.terminate()
            while more := ours.recv(4096):
                said += more
            assert process.wait(PATIENCE) == 0
        finally:
            process.kill()
            process.wait()
    assert b'"GET /pid HTTP/1.1" 200' in said


@pytest.mark.parametrize("place", ["syslog:/nowhere/log", "journald:/nowhere/log", "/nowhere/log", "syslog:a"])
def test_a_log_that_cannot_be_opened_is_refused(run, place):
    result = run(CONTRACT, "--port", "0", "--access-log", place)
    assert result.returncode in (1, 2)
    assert result.stderr.startswith("anygate: error: ")
    assert "access" in result.stderr
    assert place.removeprefix("syslog:").removeprefix("journald:") in result.stderr


def everything(folder, name):
    """What a log and its old files have, compressed or not."""
    text = b""
    for path in sorted(folder.glob(f"{name}*")):
        with contextlib.suppress(FileNotFoundError):
            text += gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return text.decode()


def old_files(folder, name):
    return sorted(path.name for path in folder.glob(f"{name}.*") if not path.name.endswith(".part"))


def test_large_files_are_rotated_under_load_and_no_line_is_lost_or_torn(launch, tmp_path):
    served = launch(
        *(CONTRACT, "--bind", "unix:a.sock", "--workers", "2", "--log-rotate-size", "10K", "--log-rotate-gzip"),
        *("--log-rotate-keep", "1000"),
        *("--access-log", "access.log", "--access-log-format", "%(q)s-", "--error-log", "error.log"),
    )
    address = str(tmp_path / "a.sock")
    served.errors = tmp_path / "error.log"
    served.wait_until(lambda: "serves" in everything(tmp_path, "error.log"), "ready")
    numbers = {"a": 0, "b": 0, "c": 0}

    def enough():
        return all(len(old_files(tmp_path, f"{name}.log")) >= 3 for name in ("access", "error"))

    def load(name):
        while not enough():
            with served.connect(address) as connection:
                for _ in range(20):
                    numbers[name] += 1
                    response = connection.ask("GET", f"/errors?{name}{numbers[name]}")
                    assert response.status == 200
                    if response["connection"] == "close":
                        # The other worker has fewer connections.
                        break

    threads = [threading.Thread(target=load, args=[name]) for name in numbers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    def packed():
        return all(name.endswith(".gz") for log in ("access.log", "error.log") for name in old_files(tmp_path, log))

    served.wait_until(packed, "all old files to be compressed")
    assert served.terminate() == 0
    total = sum(numbers.values())
    expected = {f"{name}{number}-" for name, count in numbers.items() for number in range(1, count + 1)}
    lines = everything(tmp_path, "access.log").splitlines()
    assert len(lines) == total
    assert set(lines) == expected
    written = everything(tmp_path, "error.log")
    for text in ("a line for the log \u2713\n", "two ", "parts\n"):
        assert written.count(text) == total


def test_files_are_rotated_by_the_clock_and_old_ones_deleted(serve, tmp_path):
    served = serve(
        *(CONTRACT, "--access-log", "access.log", "--log-rotate-interval", "1s", "--log-rotate-keep", "2"),
    )
    seen = set()

    def four_and_no_more_than_two():
        served.get("/pid")
        now = old_files(tmp_path, "access.log")
        seen.update(now)
        return len(seen) >= 4 and len(now) == 2

    served.wait_until(four_and_no_more_than_two, "four rotations, and two old files")
    assert all(re.fullmatch(r"access\.log\.\d{8}-\d{6}(\.\d+)?", name) for name in seen)


def test_an_embedded_server_rotates_its_log_itself(tmp_path):
    program = """
import anygate, os, urllib.request
def app(environ, start_response):
    start_response("200 OK", [])
    return [b""]
with anygate.Server(app, port=0, access_log="access.log", log_rotate_size=1) as server:
    while not any(name.startswith("access.log.") for name in os.listdir()):
        urllib.request.urlopen(server.url).read()
"""
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True, timeout=PATIENCE)
    assert "GET / HTTP/1.1" in everything(tmp_path, "access.log")


def test_workers_without_an_access_log_go_on_in_a_fresh_error_log(launch, tmp_path):
    served = launch(CONTRACT, "--bind", "unix:a.sock", "--error-log", "error.log", "--admin", "unix:admin.sock")
    log = served.errors = tmp_path / "error.log"
    served.wait_until(lambda: log.exists() and "orders: " in served.log(), "ready")
    log.rename(tmp_path / "old.log")
    served.send_signal(signal.SIGUSR1)

    def fresh():
        with served.connect(str(tmp_path / "a.sock")) as connection:
            connection.ask("GET", "/errors")
        return log.exists() and "a line for the log" in log.read_text()

    served.wait_until(fresh, "the worker's lines in the fresh file")
    # Nobody has the old one open.
    processes = [served.pid, *served.processes()]
    assert len(processes) == 3
    served.wait_until(
        lambda: (
            not any(
                Path(os.readlink(link)).name == "old.log"
                for process in processes
                for link in Path(f"/proc/{process}/fd").iterdir()
                if link.is_symlink()
            )
        ),
        "all of them to let go of the old file",
    )


def test_a_worker_that_starts_later_writes_into_the_fresh_file(launch, tmp_path):
    served = launch(CONTRACT, "--bind", "unix:a.sock", "--access-log", "access.log")
    served.wait_ready()
    (worker,) = served.workers()
    (tmp_path / "access.log").rename(tmp_path / "old.log")
    served.send_signal(signal.SIGUSR1)
    served.wait_until((tmp_path / "access.log").exists, "a fresh file")
    os.kill(worker, signal.SIGKILL)
    served.wait_until(lambda: served.workers() not in ([], [worker]), "another worker")
    with served.connect(str(tmp_path / "a.sock")) as connection:
        assert connection.ask("GET", "/pid").status == 200
    served.wait_until(lambda: lines(tmp_path / "access.log"), "its line")
    assert lines(tmp_path / "old.log") == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can run workers as somebody else")
def test_workers_of_another_user_can_open_their_logs_anew(launch, tmp_path_factory):
    folder = Path(os.path.realpath("/tmp")) / f"anygate-logs-{os.getpid()}"
    folder.mkdir(mode=0o755)
    try:
        options = ["--bind", "unix:a.sock", "--access-log", "access.log", "--user", "65534", "--preload"]
        served = launch(CONTRACT, *options, folder=folder).wait_ready()
        (folder / "access.log").rename(folder / "old.log")
        served.send_signal(signal.SIGUSR1)

        def fresh():
            with served.connect(str(folder / "a.sock")) as connection:
                connection.ask("GET", "/pid")
            return (folder / "access.log").exists() and lines(folder / "access.log")

        served.wait_until(fresh, "lines in the fresh file")
        assert (folder / "access.log").stat().st_uid == 65534
        assert "cannot open" not in served.log()
        assert served.terminate() == 0
    finally:
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()


def test_logging_of_the_application_goes_to_standard_error(serve, tmp_path):
    (tmp_path / "app.py").write_text(
        "import logging\nlogging.basicConfig(level='INFO')\n"
        "def app(environ, start_response):\n"
        "    logging.info('through logging')\n    start_response('200 OK', [])\n    return [b'']\n"
    )
    served = serve("app:app")
    served.get()
    served.wait_for_log("INFO:root:through logging")


def test_messages_can_be_json_objects(serve, tmp_path):
    (tmp_path / "app.py").write_text(
        "def app(environ, start_response):\n"
        "    environ['wsgi.errors'].write('to the {0}log{0}{1}again{1}'.format(chr(34), chr(10)))\n"
        "    raise ValueError('line 1{}line 2'.format(chr(10)))\n"
    )
    served = serve("app:app", "--error-log-format", "json")
    assert served.get().status == 500
    served.wait_until(lambda: "ValueError" in served.log(), "the traceback")
    objects = [json.loads(line) for line in served.log().splitlines()]
    assert all(set(one) == {"time", "level", "pid", "message"} for one in objects)
    told = {one["message"]: one["level"] for one in objects if one["pid"] != served.pid}
    assert (told['to the "log"'], told["again"]) == ("notice", "notice")
    (failure,) = [text for text in told if "Traceback" in text]
    assert told[failure] == "error"
    assert "ValueError: line 1\n" in failure
