"""Several places for one log, formats of one's own, names of rotated files, Python's logging, and what workers use."""

import json
import os
import re
import signal
import subprocess
import sys

import pytest
from admin_address import watch
from conftest import APPS
from waiting import PATIENCE

CONTRACT = APPS / "contract.py"


def test_a_log_goes_to_several_places_in_their_forms(serve, tmp_path):
    settings = {"error_log": ["a.log", "-", "b.log"], "access_log": ["one.log", "-"]}
    (tmp_path / "anygate.json").write_text(json.dumps(settings))
    served = serve(CONTRACT)
    served.get("/errors")
    served.get("/raises")
    served.wait_for_log("ValueError: before start_response")
    assert served.terminate() == 0
    for name in ("a.log", "b.log"):
        # The order of lines of several processes is that of each log.
        assert sorted((tmp_path / name).read_text().splitlines()) == sorted(served.log().splitlines())
    for text in (" INFO anygate ", "ERROR the application failed: GET /raises", "a line for the log"):
        served.wait_for_log(text)
    assert (tmp_path / "one.log").read_text() in served.stdout()
    assert served.stdout().count('HTTP/1.1" ') == 2


def test_one_place_that_is_full_does_not_keep_lines_from_others(serve, tmp_path):
    served = serve(CONTRACT, "--access-log", "/dev/full", "--access-log", "access.log", "--error-log", "-")
    for _ in range(3):
        assert served.get("/pid").status == 200
    served.wait_for_log("cannot write the access log to /dev/full; lines are lost: No space left on device")
    served.wait_until(lambda: len((tmp_path / "access.log").read_text().splitlines()) == 3, "all lines")


def test_usr1_goes_on_in_fresh_files_of_all_places(serve, tmp_path):
    served = serve(CONTRACT, *(f"--access-log={name}" for name in ("a.log", "b.log")), "--error-log", "-")
    served.get("/pid")
    for name in ("a.log", "b.log"):
        served.wait_until((tmp_path / name).read_text, "a line")
        (tmp_path / name).rename(tmp_path / f"old-{name}")
    served.send_signal(signal.SIGUSR1)

    def fresh():
        served.get("/pid")
        return all((tmp_path / name).exists() and (tmp_path / name).read_text() for name in ("a.log", "b.log"))

    served.wait_until(fresh, "lines in both fresh files")


def test_the_same_place_twice_is_refused(run):
    refused = run(CONTRACT, "--port", "0", "--error-log", "a.log", "--error-log", "./a.log")
    assert refused.returncode == 2
    assert 'error: --error-log: has "./a.log" twice' in refused.stderr


FORMAT = "%(level)s|%(pid)s|%(time)s|%(message)s"
FORGING = """
def app(environ, start_response):
    environ["wsgi.errors"].write("own\\nERROR|1|now|forged\\n")
    raise ValueError("told\\nERROR|1|now|forged")
"""


def test_messages_have_a_format_of_ones_own_and_none_is_forged(serve, tmp_path):
    (tmp_path / "app.py").write_text(FORGING)
    served = serve("app:app", "--error-log-format", FORMAT)
    assert served.get().status == 500
    served.wait_for_log("ValueError: told")
    assert served.terminate() == 0
    log = served.log()
    (worker,) = {line.split("|")[1] for line in log.splitlines() if line.startswith("NOTICE")}
    time = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z"
    assert re.search(rf"^INFO\|{served.pid}\|{time}\|anygate .* serves ", log, re.M)
    assert re.search(rf"^ERROR\|{worker}\|{time}\|the application failed: GET / failed\n  Traceback", log, re.M)
    for line in ("own", r"ERROR\|1\|now\|forged"):
        assert re.search(rf"^NOTICE\|{worker}\|{time}\|{line}$", log, re.M)
    assert not re.search(r"^ERROR\|1\|", log, re.M)


@pytest.mark.parametrize(
    ("text", "reason"),
    [("xml", "must be text, json, or a format with %(message)s"), ("%(asctime)s %(message)s", "write %(time)s")],
)
def test_a_format_that_cannot_be_is_refused(run, text, reason):
    refused = run(CONTRACT, "--port", "0", "--error-log-format", text)
    assert refused.returncode == 2
    assert reason in refused.stderr


def test_only_what_is_critical_is_logged_at_that_level(serve, launch, tmp_path):
    served = launch(CONTRACT, "--bind", "unix:a.sock", "--log-level", "critical")
    served.wait_until((tmp_path / "a.sock").exists, "the socket")
    with served.connect(str(tmp_path / "a.sock")) as connection:
        assert connection.ask("GET", "/raises").status == 500
    assert served.terminate() == 0
    assert " serves " not in served.log()
    assert "Traceback" not in served.log()
    failing = launch("nowhere:app", "--port", "0", "--log-level", "critical")
    assert failing.wait() == 3
    assert re.search(r"\] CRITICAL .*nowhere", failing.log())


def test_rotated_files_have_the_name_that_is_wanted(serve, tmp_path):
    served = serve(
        *(CONTRACT, "--access-log", "access.log", "--log-rotate-size", "1", "--log-rotate-gzip"),
        *("--log-rotate-name", "{stem}-%Y{extension}", "--log-rotate-keep", "2"),
    )
    (tmp_path / "access-notes.log").touch()

    def two_of_more():
        served.get("/pid")
        names = {path.name for path in tmp_path.glob("access-2*")}
        return any(re.fullmatch(r"access-\d{4}\.log\.([3-9]|\d\d+)\.gz", name) for name in names)

    served.wait_until(two_of_more, "rotated files with numbers")
    assert served.terminate() == 0
    assert (tmp_path / "access-notes.log").exists()
    whole = {re.sub(r"\.gz(\.part)?$", "", path.name) for path in tmp_path.glob("access-2*")}
    assert len(whole) <= 2


LOGGED_BY_PYTHON = """
[loggers]
keys = root

[handlers]
keys = file

[formatters]
keys = plain

[logger_root]
level = DEBUG
handlers = file

[handler_file]
class = FileHandler
formatter = plain
args = ("python.log",)

[formatter_plain]
format = %(name)s %(levelname)s %(process)d %(message)s
"""


@pytest.mark.parametrize("kind", [(), ("--preload",), ("--concurrency", "gevent")], ids=str)
def test_python_has_messages_and_lines_of_all_processes(launch, tmp_path, kind):
    (tmp_path / "logging.ini").write_text(LOGGED_BY_PYTHON)
    served = launch(
        *(CONTRACT, "--bind", "unix:a.sock", "--python-logging", "--log-config", "logging.ini", *kind),
        *("--access-log", "access.log", "--error-log", "error.log"),
    )
    log = tmp_path / "python.log"
    served.wait_until(lambda: log.exists() and " serves " in log.read_text(), "ready")
    with served.connect(str(tmp_path / "a.sock")) as connection:
        assert connection.ask("GET", "/raises").status == 500
    served.wait_until(lambda: "anygate.access INFO" in log.read_text(), "its line")
    (worker,) = served.workers()
    assert served.terminate() == 0
    told = log.read_text()
    assert re.search(rf"^anygate INFO {served.pid} anygate .* serves ", told, re.M)
    assert re.search(rf"^anygate ERROR {worker} the application failed: GET /raises failed\nTraceback", told, re.M)
    assert re.search(rf'^anygate\.access INFO {worker} .*"GET /raises HTTP/1\.1" 500', told, re.M)
    assert '"GET /raises HTTP/1.1" 500' in (tmp_path / "access.log").read_text()
    assert "failed" not in (tmp_path / "error.log").read_text()


def test_what_python_does_not_take_is_in_the_error_log(serve, tmp_path):
    (tmp_path / "logging.json").write_text(
        json.dumps({"handlers": {"own": {"class": "own.Handler"}}, "root": {"handlers": ["own"], "level": "INFO"}})
    )
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "own.py").write_text(
        "import logging\n"
        "class Handler(logging.Handler):\n"
        "    def handle(self, record):\n"
        "        raise RuntimeError('the handler fails')\n"
    )
    served = serve(CONTRACT, "--python-logging", "--log-config", "logging.json", "--pythonpath", "site")
    # It has no code of the application.
    served.wait_for_log("messages of the supervisor go to the error log")
    assert served.get("/raises").status == 500
    served.wait_for_log("ValueError: before start_response")
    served.wait_for_log("python_logging: RuntimeError: the handler fails")
    assert served.terminate() == 0


def test_an_application_configures_what_has_the_messages_of_its_worker(serve, tmp_path):
    (tmp_path / "app.py").write_text(
        "import logging\nlogging.basicConfig(level='INFO', format='mine %(levelname)s %(message)s')\n"
        "def app(environ, start_response):\n    raise ValueError('here')\n"
    )
    served = serve("app:app", "--python-logging", "--error-log", "error.log", "--error-log", "-")
    assert served.get().status == 500
    served.wait_for_log("mine ERROR the application failed: GET / failed\nTraceback")
    assert served.terminate() == 0
    assert "failed" not in (tmp_path / "error.log").read_text()


def test_a_configuration_that_is_wrong_keeps_the_server_from_starting(launch, run, tmp_path):
    (tmp_path / "logging.json").write_text('{"handlers": {"a": {"class": "nowhere.Handler"}}}')
    failing = launch(CONTRACT, "--port", "0", "--log-config", "logging.json")
    assert failing.wait() == 3
    failing.wait_for_log("log_config: ")
    failing.wait_for_log("logging.json")
    missing = run(CONTRACT, "--port", "0", "--log-config", "missing.ini")
    assert missing.returncode == 2
    assert "--log-config: there is no file" in missing.stderr


def test_an_embedded_server_passes_its_messages_to_python(tmp_path):
    program = """
import anygate, logging, urllib.request, urllib.error
logging.basicConfig(level="INFO", format="mine %(name)s %(message)s")
def app(environ, start_response):
    raise ValueError("here")
with anygate.Server(app, port=0, python_logging=True) as server:
    try:
        urllib.request.urlopen(server.url)
    except urllib.error.HTTPError as error:
        assert error.code == 500
"""
    ended = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, check=True, timeout=PATIENCE, capture_output=True, text=True
    )
    assert "mine anygate the application failed: GET / failed" in ended.stderr


@pytest.mark.linux("the memory of workers")
def test_what_each_worker_uses_is_told(serve):
    admin = watch(serve, "--workers", "2")

    def used():
        text = admin.ask("/metrics").text
        return [
            {
                worker: float(value)
                for worker, value in re.findall(rf'^anygate_{name}{{worker="(\d+)"}} (\S+)$', text, re.M)
            }
            for name in ("worker_cpu_seconds_total", "worker_open_files", "worker_memory_bytes")
        ]

    admin.served.wait_until(lambda: all(len(one) == 2 and all(one.values()) for one in used()), "figures of both")
    workers = admin.status()["workers"]
    for worker in workers:
        assert worker["cpu_seconds"] > 0
        assert 0 < worker["open_files"] <= len(os.listdir(f"/proc/{worker['pid']}/fd")) + 20


@pytest.mark.linux("the memory of workers")
def test_what_each_worker_uses_is_logged_if_asked(serve):
    served = serve(CONTRACT, "--workers", "2", "--log-resources", "1s")
    line = r"\[(\d+)\]  INFO this worker: \d+\.\d\d s of processor time, \d+ open files, \d+ MB in memory\n"
    served.wait_until(
        lambda: set(re.findall(line, served.log())) == {str(pid) for pid in served.workers()}, "a line of each worker"
    )
