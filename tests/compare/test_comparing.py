"""`anygate compare` with real servers, from the command to the page."""

import contextlib
import json
import os
import pty
import re
import select
import signal
import subprocess
from pathlib import Path

import pytest
from anygate import comparing
from anygate.adapters import SERVERS
from anygate.measured_server import family
from browser import CHROMIUM, Browser
from conftest import ANYGATE, children
from waiting import PATIENCE

#: As short as it goes: nothing here is about figures.
QUICK = ("--duration", "100ms", "--rounds", "1", "--connections", "4")

#: Several servers start several times in one test, beside other tests.
pytestmark = pytest.mark.timeout(1800)

APP = """\
def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"hello"]
"""


@pytest.fixture
def site(tmp_path):
    def make(text=APP):
        (tmp_path / "myapp.py").write_text(text)
        return tmp_path

    return make


def compare(folder, *arguments):
    clean = {key: value for key, value in os.environ.items() if not key.startswith("ANYGATE_")}
    command = [str(ANYGATE), "compare", *map(str, arguments)]
    return subprocess.run(command, cwd=folder, env=clean, capture_output=True, text=True, timeout=1700, check=False)


def test_other_methods_and_bodies_are_sent(site, tmp_path):
    """The application fails unless each request is as it is wanted."""
    text = """\
def app(environ, start_response):
    body = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"] or 0))
    assert (environ["REQUEST_METHOD"], environ["CONTENT_TYPE"], body) == ("POST", "application/json", b'{"a": 1}')
    start_response("201 Created", [("Content-Type", "text/plain")])
    return [b"made"]
"""
    (tmp_path / "order.json").write_text('{"a": 1}')
    names = ("native", "gunicorn")
    arguments = ["--servers", ",".join(names), "--method", "POST", "--body", "order.json", "--json"]
    ended = compare(site(text), *arguments, *QUICK, "myapp:app")
    assert ended.returncode == 0, ended.stderr
    figures = json.loads(ended.stdout)
    assert {one["name"]: one["failure"] for one in figures["servers"]} == dict.fromkeys(names)
    assert figures["paths"] == {"/": 201}


def test_a_body_that_cannot_be_read_is_named(site):
    ended = compare(site(), "--body", "missing.json", "myapp:app")
    assert (ended.returncode, ended.stderr) == (
        2,
        "anygate: error: compare: --body: missing.json: No such file or directory\n",
    )


def test_what_the_system_does_not_tell_is_unknown(monkeypatch, tmp_path):
    monkeypatch.setattr(comparing, "STAT", tmp_path / "stat")
    assert comparing.Processors.now() is None
    monkeypatch.setattr(comparing, "STAT", Path("/proc/stat"))
    now = comparing.Processors.now()
    assert now is not None
    assert now.of_others_since(None) is None
    assert now.of_others_since(now) == 0


def test_real_servers_are_compared(site, tmp_path):
    names = ("native", "gunicorn", "waitress", "gevent")
    page = tmp_path / "report.html"
    arguments = ["--servers", ",".join(names), "--path", "/", "--path", "/a?b=c", "--slow-path", "/slow"]
    ended = compare(site(), *arguments, *QUICK, "--json", "--html", page, "--threads", "3", "myapp:app")
    assert (ended.returncode, ended.stderr) == (0, "")
    figures = json.loads(ended.stdout)
    assert {one["name"]: one["failure"] for one in figures["servers"]} == dict.fromkeys(names)
    assert figures["paths"] == {"/": 200, "/a?b=c": 200, "/slow": 200}
    for one in figures["servers"]:
        assert one["version"] == SERVERS[one["name"]].version
        assert one["start_seconds"] > 0
        assert one["memory_bytes"] > 1_000_000
        assert one["requests_per_second"] > 0
        for load in ("free", "constant", "beside_slow_path"):
            assert one[load]["errors"] == {}, one
            if one[load]["p50"] is not None:
                assert 0 < one[load]["p50"] <= one[load]["p99"] <= one[load]["max"]
    started = {one["name"]: one["started_with"] for one in figures["servers"]}
    assert started["gunicorn"] == "1 worker, 3 threads"
    assert started["waitress"] == "3 threads"
    text = page.read_text()
    for name in names:
        assert f">{name}</" in text


def test_a_server_that_fails_is_a_row_that_says_why(site):
    app = 'import sys\nif "waitress" in sys.modules:\n    raise RuntimeError("not under this server")\n' + APP.replace(
        'b"hello"', 'environ.get("SERVER_SOFTWARE", "").encode()'
    )
    ended = compare(site(app), "--servers", "native,waitress,wsgiref", *QUICK, "myapp:app")
    assert ended.returncode == 0, ended.stderr
    assert re.search(r"^  native +\d", ended.stdout, re.MULTILINE)
    assert re.search(r"^  waitress: .*not under this server", ended.stdout, re.MULTILINE)
    assert "  wsgiref: responds to / with another body than native" in ended.stdout
    assert "add --varying /" in ended.stdout
    assert "Recommendation: native" in ended.stdout


def test_bodies_that_differ_on_purpose_are_declared(site):
    folder = site("import itertools\nnumbers = itertools.count()\n" + APP.replace('b"hello"', 'b"%d" % next(numbers)'))
    ended = compare(folder, "--servers", "native", *QUICK, "myapp:app")
    assert ended.returncode == 1
    assert (
        "native: two responses to / have different bodies; if they differ on purpose, add --varying /" in ended.stdout
    )
    assert "No server could be measured" in ended.stdout
    ended = compare(folder, "--servers", "native", *QUICK, "--varying", "/", "myapp:app")
    assert ended.returncode == 0
    assert "/ (200);" in ended.stdout


@pytest.mark.parametrize(
    ("app", "reason"),
    [
        (APP.replace("200 OK", "500 Oh"), "native: responds to / with 500"),
        ("import nothing_of_that_name\n", "native: .*nothing_of_that_name"),
    ],
)
def test_an_application_that_fails_is_no_measurement(site, app, reason):
    ended = compare(site(app), "--servers", "native", *QUICK, "myapp:app")
    assert ended.returncode == 1
    assert re.search(reason, ended.stdout), ended.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--servers", "native,gunicron"],
            "compare: --servers: there is no server 'gunicron'; did you mean 'gunicorn'?",
        ),
        (["--html", "missing/report.html"], "compare: --html: missing/report.html: No such file or directory"),
        (["--path", "login"], 'compare: --path: "login" is not a path'),
        (["--workers", "none"], "--workers"),
    ],
)
def test_what_is_wrong_is_said_before_anything_starts(site, arguments, message):
    ended = compare(site(), *arguments, "myapp:app")
    assert ended.returncode == 2
    assert ended.stderr.startswith(f"anygate: error: {message}")
    assert ended.stdout == ""


def serving_child(process):
    """The processes of the server that it has started, once it has responded and load is on it."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # a thread that has ended meanwhile
        tasks = Path(f"/proc/{process.pid}/task").glob("*/comm")
        if "load\n" in [task.read_text() for task in tasks]:
            return [one for child in children(process.pid) for one in family(child)]
    return []


@pytest.mark.parametrize(
    "lines", ['bind = ["127.0.0.1:1"]', "port = 1", 'ip = "127.0.0.1"\nscgi = true\nbind = ["127.0.0.1:2"]']
)
def test_the_settings_of_the_folder_hold_except_for_addresses(site, lines):
    folder = site(APP.replace('b"hello"', "__import__('os').environ['GREETING'].encode()"))
    (folder / "anygate.toml").write_text(f'app = "myapp:app"\nworkers = 2\nenv = ["GREETING=good morning"]\n{lines}\n')
    ended = compare(folder, "--servers", "native,wsgiref", *QUICK, "--json")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    servers = {one["name"]: one for one in json.loads(ended.stdout)["servers"]}
    assert servers["native"]["failure"] is None
    assert servers["native"]["started_with"] == "2 workers, 8 threads"
    assert "workers" in servers["wsgiref"]["failure"]


def test_an_application_that_is_slower_than_a_measurement_is_measured(site):
    app = "from waiting import let_pass\n" + APP.replace(
        "    return", '    let_pass(0.3, "each request takes longer than a measurement")\n    return'
    )
    folder = site(app)
    ended = compare(
        folder, "--servers", "native", *QUICK, "--pythonpath", Path(__file__).parents[1], "--json", "myapp:app"
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    (one,) = json.loads(ended.stdout)["servers"]
    assert one["free"]["responses"] > 0
    assert one["free"]["p50"] >= 0.3


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_whatever_ends_it_ends_the_servers(site, launch, number):
    # A server whose processes are several.
    arguments = ["--servers", "gunicorn", "--duration", "1h", "myapp:app"]
    launched = launch("compare", *arguments, folder=site())
    family_of_server = launched.wait_until(lambda: serving_child(launched.process), "a load on a server")
    assert len(family_of_server) > 1
    launched.send_signal(number)
    code = launched.wait()
    assert code == (-signal.SIGKILL if number == signal.SIGKILL else 130)
    if number != signal.SIGKILL:
        assert "interrupted; the servers have ended" in launched.log()
    launched.wait_until(lambda: not any(process.is_alive() for process in family_of_server), "the end of the server")


def test_a_terminal_shows_the_progress(site):
    ours, theirs = pty.openpty()
    command = [str(ANYGATE), "compare", "--servers", "native", *QUICK, "myapp:app"]
    process = subprocess.Popen(command, cwd=site(), stdout=subprocess.PIPE, stderr=theirs)
    os.close(theirs)
    seen = b""
    try:
        while select.select([ours], [], [], PATIENCE)[0]:
            try:
                seen += os.read(ours, 4096)
            except OSError:  # everybody else has closed it
                break
    finally:
        shown, _ = process.communicate(timeout=PATIENCE)
        os.close(ours)
    assert process.returncode == 0, (shown, seen)
    assert b"first look: native" in seen
    assert b"[############............]  50%" in seen
    assert b"round 1 of 1: native" in seen
    assert seen.endswith(b"\r\x1b[K")


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_the_page_fits_a_telephone_and_asks_for_nothing(site, tmp_path):
    page = tmp_path / "report.html"
    ended = compare(site(), "--servers", "native,wsgiref", *QUICK, "--html", page, "myapp:app")
    assert ended.returncode == 0, ended.stderr
    browser = Browser(tmp_path / "browser")
    try:
        for width, is_dark in ((375, True), (1200, False)):
            browser.size(width, 900)
            browser.dark(is_dark)
            browser.open(page.as_uri())
            browser.wait_for(f"document.querySelectorAll('polyline').length == 4 && innerWidth == {width}")
            assert browser.run("document.documentElement.scrollWidth <= innerWidth")
            ground = browser.run("getComputedStyle(document.body).backgroundColor")
            assert (ground != "rgb(255, 255, 255)") == is_dark
            assert browser.run("[...document.querySelectorAll('.bar i')].every(bar => bar.offsetWidth > 0)")
        assert browser.complaints() == []
        assert set(browser.addresses()) == {page.as_uri()}
    finally:
        browser.close()
