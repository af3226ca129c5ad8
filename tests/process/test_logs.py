"""The access log and the error log."""

import json
import os
import re
import signal
import subprocess

from conftest import ANYGATE, APPS

CONTRACT = APPS / "contract.py"


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


def test_what_a_client_sends_cannot_break_a_line(serve, tmp_path):
    served = serve(CONTRACT, "--access-log", "access.log")
    served.get("/%0a%1b[31m", [("User-Agent", "\x80\xff caf\xe9\t")])
    with served.connect() as connection:
        connection.send("GET /\x1b[31m HTTP/1.1\r\nHost: a\r\n\r\n")
        assert connection.answer().status == 400
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
            assert connection.answer().status == 200
        assert served.terminate() == 0
    assert len(lines(tmp_path / "access.log")) == 500


def test_usr1_goes_on_in_fresh_files(launch, tmp_path):
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
    served.send_signal(signal.SIGUSR1)
    served.wait_until(lambda: (tmp_path / "access.log").exists() and (tmp_path / "error.log").exists(), "fresh files")

    def fresh():
        get()
        return lines(tmp_path / "access.log") and "a line for the log" in (tmp_path / "error.log").read_text()

    served.wait_until(fresh, "lines in the fresh files")
    assert len(lines(tmp_path / "access.log.1")) >= 1


def test_the_level_decides_how_much_is_said(launch):
    served = launch(CONTRACT, "--bind", "unix:a.sock", "--log-level", "error")
    served.wait_until(lambda: (served.errors.parent / "a.sock").exists(), "the socket")

    def answered():
        try:
            with served.connect(str(served.errors.parent / "a.sock")) as connection:
                return connection.ask("GET", "/raises").status == 500
        except ConnectionError:
            return False

    served.wait_until(answered, "an answer")
    assert "serves" not in served.log()
    assert "ValueError: before start_response" in served.log()


def test_closed_standard_streams_stop_nothing(tmp_path):
    """stdin, stdout and stderr closed: descriptors 0 to 2 must not be taken for sockets or logs."""
    command = f'exec "{ANYGATE}" "{CONTRACT}" --bind unix:a.sock --access-log - <&- >&- 2>&-'
    process = subprocess.Popen(["sh", "-c", command], cwd=tmp_path, env={**os.environ, "PYTHONPATH": ""})
    try:
        from conftest import Served

        waiting = Served.__new__(Served)
        waiting.process, waiting.pid, waiting.errors = process, process.pid, tmp_path / "none"
        (tmp_path / "none").touch()

        def answered():
            try:
                with waiting.connect(str(tmp_path / "a.sock")) as connection:
                    return (
                        connection.ask("GET", "/raises").status == 500 and connection.ask("GET", "/pid").status == 200
                    )
            except OSError:
                return False

        waiting.wait_until(answered, "an answer")
    finally:
        process.terminate()
        assert process.wait(30) == 0


def test_a_full_disk_stops_nothing(serve):
    served = serve(CONTRACT, "--access-log", "/dev/full")
    for _ in range(3):
        assert served.get("/pid").status == 200
    served.wait_for_log("cannot write the access log; lines are lost")
    assert served.log().count("cannot write the access log") == 1


def test_logging_of_the_application_goes_to_standard_error(serve, tmp_path):
    (tmp_path / "app.py").write_text(
        "import logging\nlogging.basicConfig(level='INFO')\n"
        "def app(environ, start_response):\n"
        "    logging.info('through logging')\n    start_response('200 OK', [])\n    return [b'']\n"
    )
    served = serve("app:app")
    served.get()
    served.wait_for_log("INFO:root:through logging")
