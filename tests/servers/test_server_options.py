"""Options that only another server knows."""

import os
import re
import signal
import subprocess
import sys

import pytest
from anygate.adapters import SERVERS
from conftest import APPS
from other_servers import started, wait_for
from waiting import PATIENCE
from wire import Connection

SIX = APPS / "six.py"


def ask(served, fields=()):
    with Connection(("127.0.0.1", served.port)) as connection:
        return connection.ask("GET", "/ready", [("Connection", "close"), *fields])


@pytest.mark.parametrize(
    ("name", "option", "status"),
    [
        # A field of 5000 bytes is too large for these, and only for these.
        ("waitress", "max_request_header_size=4000", 431),
        ("gunicorn", "limit_request_field_size=4000", 431),
    ],
)
@pytest.mark.parametrize("form", ["command line", "file"])
def test_an_option_has_its_effect(name, option, status, form, tmp_path):
    key, _, value = option.partition("=")
    given = ["--server-option", option]
    if form == "file":
        (tmp_path / "anygate.toml").write_text(f"[server_options]\n{key} = {value}\n")
        given = []
    with started(name, tmp_path, *given) as served:
        assert wait_for(served, lambda: ask(served)).status == 200
        assert ask(served, [("X-Large", "x" * 5000)]).status == status


def test_gunicorn_replaces_a_worker_after_so_many_requests(tmp_path):
    with started("gunicorn", tmp_path, "--server-option", "max_requests=3") as served:
        wait_for(served, lambda: ask(served))

        def another():
            ask(served)
            return "Autorestarting worker after current request" in served.log()

        wait_for(served, another)


def test_uwsgi_ends_a_request_that_takes_too_long(tmp_path):
    (tmp_path / "app.py").write_text(
        "import threading\n"
        "def application(environ, start_response):\n"
        "    start_response('200 OK', [])\n"
        "    if environ['PATH_INFO'] == '/slow':\n        threading.Event().wait()\n"
        "    return [b'ready']\n"
    )
    with started("uwsgi", tmp_path, "--server-option", "harakiri=1", app="app:application") as served:
        wait_for(served, lambda: ask(served))
        with Connection(("127.0.0.1", served.port)) as connection:
            connection.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
            connection.rest()
        wait_for(served, lambda: "HARAKIRI" in served.log())


@pytest.mark.parametrize(
    ("name", "option", "message"),
    [
        ("waitress", "nowhere=1", "--server-option: waitress: ValueError: Unknown adjustment 'nowhere'"),
        ("waitress", "threads=1", "--server-option: threads: anygate sets it for waitress; see anygate servers"),
        ("gunicorn", "nowhere=1", "--server-option: gunicorn has no setting 'nowhere'"),
        ("gunicorn", "bind=0.0.0.0:1", "--server-option: bind: anygate sets it for gunicorn"),
        ("wsgiref", "a=1", "--server-option: wsgiref has no options beside those of anygate"),
        ("native", "a=1", "--server-option: is for servers of other packages"),
        ("waitress", "a", '--server-option: "a" must be NAME=VALUE'),
    ],
)
def test_an_option_that_is_not_there_is_refused(run, name, option, message):
    ended = run("-s", name, "-p", "0", "--server-option", option, SIX)
    assert ended.returncode == 2
    assert message in ended.stderr


def test_run_takes_a_dictionary(tmp_path):
    program = "import anygate\nanygate.run('waitress', port=0, app='x:y', softcron=False, options={'nowhere': [1]})"
    ended = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=PATIENCE
    )
    assert ended.returncode == 3, "the application comes first"
    (tmp_path / "x.py").write_text("def y(environ, start_response):\n    return []\n")
    ended = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=PATIENCE
    )
    assert "Unknown adjustment 'nowhere'" in ended.stderr


def test_a_server_is_described(run):
    told = run("servers", "waitress").stdout
    assert re.search(
        r"^its own options: +--server-option KEY=VALUE, passed as keyword arguments of waitress", told, re.M
    )
    assert re.search(r"^options: +--threads; --bind unix:PATH$", told, re.M)
    assert "take it for: " in told
    for name in SERVERS:
        assert run("servers", name).returncode == 0
    refused = run("servers", "watress")
    assert refused.returncode == 2
    assert "did you mean 'waitress'?" in refused.stderr
    assert "no WSGI applications" in run("servers", "robyn").stdout


HOOKS = """
def note(text):
    with open("notes", "a") as notes:
        notes.write(text + "\\n")

def when_ready(server):
    note("when_ready")

def post_fork(server, worker):
    note("post_fork")

def worker_int(worker):
    note("worker_int")

def post_request(worker, req, environ, resp):
    note("post_request " + environ["PATH_INFO"])
"""


def test_gunicorn_calls_the_hooks_of_the_site(tmp_path):
    (tmp_path / "hooks.py").write_text(HOOKS)
    with started("gunicorn", tmp_path, "--hooks", "hooks.py") as served:
        ask(served)

        def has(*notes):
            return set(notes) <= set((tmp_path / "notes").read_text().splitlines())

        served.wait_until(lambda: has("when_ready", "post_fork", "post_request /ready"), "the hooks")
        # The last process is a worker: the other one is gunicorn's own.
        os.kill(served.processes()[-1], signal.SIGINT)
        served.wait_until(lambda: has("worker_int"), "the hook of the signal")


def test_hooks_that_are_not_there_are_refused(run):
    ended = run("-s", "gunicorn", "--hooks", "nowhere", SIX)
    assert ended.returncode == 3
    assert "--hooks: cannot load nowhere" in ended.stderr
