"""Hooks: functions of a site that the server calls, with gunicorn's names and arguments."""

import os
import re
import signal
import sys

import pytest

#: Writes a line for each hook: its name, what it is about, and the kind of process that it runs in.
CONF = """
import os, pathlib, sys

wsgi_app = "app:app"
workers = 2

def note(name, *words):
    # One write, since processes share the file.
    line = " ".join(str(word) for word in (name, *words, os.getpid())) + "\\n"
    with open("notes", "a", buffering=1) as file:
        file.write(line)

def on_starting(server):
    server.started = "from on_starting"
    note("on_starting", "app" in sys.modules, server.num_workers)
def on_reload(server): note("on_reload", server.num_workers)
def when_ready(server): note("when_ready", *server.address)
def nworkers_changed(server, new_value, old_value): note("nworkers_changed", new_value, old_value)
def pre_fork(server, worker):
    worker.name = f"number {worker.age}"
    note("pre_fork", worker.age, worker.pid)
def post_fork(server, worker): note("post_fork", worker.age, worker.pid, server.started, "app" in sys.modules)
def post_worker_init(worker): note("post_worker_init", worker.age, worker.name, callable(worker.wsgi))
def worker_int(worker): note("worker_int", worker.age)
def worker_exit(server, worker): note("worker_exit", worker.age, worker.pid)
def child_exit(server, worker): note("child_exit", worker.age, worker.pid)
def on_exit(server): note("on_exit", server.pid)
"""

APP = """
import os, sys

def app(environ, start_response):
    if environ["PATH_INFO"] == "/fail":
        raise ValueError("the application fails")
    start_response("200 OK", [("X-Added", environ.get("HTTP_X_ADDED", "")), ("Content-Type", "text/plain")])
    if environ["PATH_INFO"] == "/file":
        return environ["wsgi.file_wrapper"](open("app.py", "rb"))
    if environ["PATH_INFO"] == "/parts":
        return (part for part in [b"one", b"two"])
    return [str(os.getpid()).encode()]
"""

KINDS = pytest.mark.parametrize("kind", [[], ["--preload"], ["--concurrency", "gevent"]])


@pytest.fixture
def site(tmp_path):
    (tmp_path / "app.py").write_text(APP)
    (tmp_path / "notes").touch()
    return tmp_path


@pytest.fixture
def notes(site):
    """The lines of a hook, without the number of the process."""

    def lines(name):
        found = [line.split() for line in (site / "notes").read_text().splitlines()]
        return [" ".join(words[1:-1]) for words in found if words[0] == name]

    return lines


def processes(site, name):
    """The processes in which a hook ran."""
    found = [line.split() for line in (site / "notes").read_text().splitlines()]
    return [int(words[-1]) for words in found if words[0] == name]


@KINDS
def test_hooks_of_a_gunicorn_file_run_where_gunicorn_runs_them(serve, site, notes, kind):
    (site / "gunicorn.conf.py").write_text(CONF)
    served = serve("--config", "gunicorn.conf.py", *kind)
    assert "has no effect" not in served.log()
    served.wait_until(lambda: len(notes("post_worker_init")) == 2 and notes("when_ready"), "both workers")
    workers = served.workers()
    assert notes("nworkers_changed") == ["2 None"]
    assert notes("on_starting") == ["False 2"]
    assert notes("when_ready") == [served.url]
    assert notes("pre_fork") == ["1 None", "2 None"]
    assert sorted(processes(site, "post_fork")) == workers
    is_imported = "--preload" in kind
    ages = dict(line.split(" ", 1) for line in notes("post_fork"))
    assert ages.keys() == {"1", "2"}
    assert all(line.endswith(f"from on_starting {is_imported}") for line in ages.values())
    assert sorted(notes("post_worker_init")) == ["1 number 1 True", "2 number 2 True"]
    # The supervisor runs none of them: it never runs Python.
    masters = {pid for name in ("on_starting", "when_ready", "pre_fork") for pid in processes(site, name)}
    assert len(masters) == 1
    assert not masters & {served.pid, *workers}
    killed = workers[0]
    os.kill(killed, signal.SIGKILL)
    served.wait_until(lambda: notes("child_exit"), "the end of a worker")
    assert re.fullmatch(rf"[12] {killed}", notes("child_exit")[0])
    served.wait_until(lambda: len(notes("post_worker_init")) == 3, "another worker")
    served.send_signal(signal.SIGTTIN)
    served.wait_until(lambda: len(notes("post_worker_init")) == 4, "one more worker")
    assert notes("nworkers_changed")[1:] == ["3 2"]
    assert served.terminate() == 0
    assert notes("on_exit") == [str(served.pid)]
    # One that does not serve yet is ended at once.
    assert {workers[1]} <= set(processes(site, "worker_exit")) <= set(processes(site, "post_fork")) - {killed}
    assert len(notes("child_exit")) == 4
    assert set(processes(site, "child_exit") + processes(site, "on_exit")) == masters


@KINDS
def test_a_reload_has_hooks_of_its_own(serve, site, notes, kind):
    (site / "gunicorn.conf.py").write_text(CONF)
    served = serve("--config", "gunicorn.conf.py", *kind)
    first = processes(site, "on_starting")
    (site / "gunicorn.conf.py").write_text(CONF.replace("workers = 2", "workers = 1") + "\nwhen_read = 1\n")
    served.send_signal(signal.SIGHUP)
    served.wait_until(lambda: len(notes("child_exit")) == 2, "the end of the old workers")
    # What the former process has started for all is to be started again.
    served.wait_until(lambda: len(notes("when_ready")) == 2, "the end of the former process")
    assert notes("on_starting") == ["False 2"]
    assert notes("on_reload") == ["1"]
    assert notes("pre_fork") == ["1 None", "2 None", "3 None"]
    assert processes(site, "when_ready") == first + processes(site, "on_reload")
    assert served.terminate() == 0
    assert processes(site, "on_exit") == processes(site, "on_reload")


def test_a_program_that_is_tried_is_announced(serve, site, notes):
    (site / "gunicorn.conf.py").write_text(CONF + "\ndef pre_exec(server): note('pre_exec')\n")
    served = serve("--config", "gunicorn.conf.py")
    old = served.workers()
    served.send_signal(signal.SIGUSR2)
    served.wait_for_log(" serves ", 2)
    assert len(notes("pre_exec")) == 1
    # Of workers of the former program the hooks of the new one are told.
    served.wait_until(lambda: len(notes("child_exit")) == 2, "the end of the old workers")
    assert sorted(notes("child_exit")) == [f"0 {pid}" for pid in old]
    assert served.terminate() == 0
    assert len(notes("on_starting")) == 2
    assert len(notes("on_exit")) == 1


@KINDS
def test_workers_are_told_that_they_are_broken_off(serve, site, notes, kind):
    (site / "gunicorn.conf.py").write_text(CONF)
    served = serve("--config", "gunicorn.conf.py", *kind)
    served.wait_until(lambda: len(notes("post_worker_init")) == 2, "both workers")
    first = served.workers()[0]
    os.kill(first, signal.SIGQUIT)
    served.wait_until(lambda: notes("child_exit"), "the end of a worker")
    assert processes(site, "worker_int") == processes(site, "worker_exit") == [first]
    served.wait_until(lambda: len(notes("post_worker_init")) == 3, "another worker")
    workers = served.workers()
    served.send_signal(signal.SIGINT)
    assert served.wait() == 0
    assert sorted(processes(site, "worker_int")[1:]) == workers
    order = [
        line.split()[0] for line in (site / "notes").read_text().splitlines() if int(line.split()[-1]) == workers[0]
    ]
    assert order[-2:] == ["worker_int", "worker_exit"]


HOOKS = """
import time
from functools import wraps

def note(*words):
    with open("notes", "a", buffering=1) as file:
        file.write(" ".join(str(word) for word in (*words, 0)) + "\\n")

def logged(function):
    @wraps(function)
    def wrapper(*arguments):
        return function(*arguments)
    return wrapper

@logged
def pre_request(worker, req):
    req.begun = time.monotonic()
    req.headers.append(("X-Added", "by the hook"))
    worker.log.info("%s %s begins", req.method, req.path)

def post_request(worker, req, environ, resp):
    assert req.begun <= time.monotonic()
    fields = dict(resp.headers)
    note("post_request", req.method, req.uri, req.query, req.version, environ["PATH_INFO"], resp.status,
         resp.status_code, resp.sent, "Content-Type" in fields, dict(req.headers).get("USER-AGENT"))
"""


@KINDS
def test_hooks_are_called_around_requests(serve, site, notes, kind):
    (site / "hooks.py").write_text(HOOKS)
    served = serve("app:app", "--hooks", "hooks", *kind)
    for target in ("/?a=b", "/parts", "/file", "/fail"):
        response = served.get(target, [("User-Agent", "test")])
        assert response["x-added"] == ("by the hook" if target != "/fail" else None)
    served.wait_until(lambda: len(notes("post_request")) == 4, "the ends of all requests")
    served.wait_for_log("GET /parts begins")
    pid = str(served.workers()[0])
    size = len((site / "app.py").read_bytes())
    # A file is closed when its client may have it all.
    assert sorted(notes("post_request")) == [
        f"GET /?a=b a=b (1, 1) / 200 OK 200 {len(pid)} True test",
        "GET /fail (1, 1) /fail None None 0 False test",
        f"GET /file (1, 1) /file 200 OK 200 {size} True test",
        "GET /parts (1, 1) /parts 200 OK 200 6 True test",
    ]


OLD = """
def post_request(worker, req): print("the request", req.path, "has ended", flush=True)
def pre_request(worker, req): raise RuntimeError("the hook fails")
def post_fork(server, worker): raise SystemExit("it exits")
"""


@KINDS
def test_a_hook_that_fails_is_logged_and_passed_over(serve, site, kind):
    (site / "hooks.py").write_text(OLD)
    served = serve("app:app", "--hooks", "hooks.py", *kind)
    served.wait_for_log("the hook post_fork failed, and is passed over")
    served.wait_for_log("it exits")
    assert served.get().status == 200
    served.wait_for_log("the hook pre_request failed, and is passed over")
    served.wait_for_log("RuntimeError: the hook fails")
    served.wait_until(lambda: "the request / has ended" in served.stdout(), "the end of the request")


LONG = """
import select, time
from anygate import hook_limits
hook_limits.SECONDS = 1

def on_starting(server): select.select([], [], [], 60)
def post_worker_init(worker): select.select([], [], [], 60)
def pre_request(worker, req):
    for _ in range(600): select.select([], [], [], 0.1)
"""


@KINDS
def test_a_hook_that_takes_long_is_logged_and_passed_over(serve, site, kind):
    (site / "hooks.py").write_text(LONG)
    served = serve("app:app", "--hooks", "hooks.py", "--threads", "2", *kind)
    for name in ("on_starting", "post_worker_init"):
        served.wait_for_log(f"the hook {name} has taken 1 s: it was interrupted, and is passed over")
    assert served.get().status == 200
    served.wait_for_log("the hook pre_request has taken 1 s")


ABORT = """
def worker_abort(worker): print("aborted", worker.pid, flush=True)
"""


@KINDS
def test_requests_that_take_too_long_abort(serve, site, kind):
    (site / "hooks.py").write_text(ABORT)
    (site / "app.py").write_text(
        APP.replace("    start_response", "    import select; select.select([], [], [], 30)\n    start_response", 1)
    )
    served = serve("app:app", "--hooks", "hooks.py", "--request-timeout", "0.5", *kind)
    pid = served.workers()[0]
    with served.connect() as connection:
        connection.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        served.wait_until(lambda: f"aborted {pid}" in served.stdout(), "the hook")
    os.kill(pid, signal.SIGABRT)
    served.wait_until(lambda: served.stdout().count(f"aborted {pid}") == 2, "the hook")
    served.wait_until(lambda: served.workers() and pid not in served.workers(), "another worker")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("def post_fork(worker): pass", "post_fork in it is called with (server, worker), which it does not accept"),
        ("when_ready = 3", "when_ready in it is a int, not a function"),
        ("1 / 0", "ZeroDivisionError"),
        ("", "it has none of the functions"),
    ],
)
def test_hooks_that_cannot_be_called_end_the_start(run, site, text, reason):
    (site / "hooks.py").write_text(text)
    ended = run("app:app", "--port", "0", "--hooks", "hooks.py")
    assert ended.returncode == 3
    assert "cannot load hooks " in ended.stderr
    assert reason in ended.stderr


def test_programs_that_embed_the_server_have_no_hooks(run, site):
    program = "import anygate\nanygate.serve('app:app', port=0, hooks='hooks')"
    ended = run(command=[sys.executable, "-c", program], folder=site)
    assert "hooks: only the command anygate calls them" in ended.stderr
