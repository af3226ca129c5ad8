"""USR2: the program that is installed now, under the same process number, without a failed request."""

import os
import re
import signal
import sys
from pathlib import Path

import pytest
from admin_address import Admin
from versions import UNCACHED, first_version, write
from waiting import Gate

KINDS = {
    "threads": (),
    "greenlets": ("--concurrency", "gevent"),
    "preload": ("--preload",),
    "preload-greenlets": ("--preload", "--concurrency", "gevent"),
}
EACH_KIND = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)


@pytest.fixture
def site(tmp_path):
    return first_version(tmp_path)


def upgrade(served, count=1):
    """Have the program replaced, and wait until the new one serves."""
    served.send_signal(signal.SIGUSR2)
    served.wait_for_log(" serves ", count + 1)


@EACH_KIND
def test_the_program_is_replaced_and_the_process_stays(serve, site, gate, kind):
    (site / "anygate.toml").write_text('app = "app:app"\nthreads = 3\n')
    served = serve("--workers", "2", "--pid-file", "pid", "--admin", "127.0.0.1:0", *kind, environment=UNCACHED)
    admin, old = Admin(served), served.workers()
    with served.connect() as connection:
        connection.send(f"GET /slow?{gate.name} HTTP/1.1\r\nHost: a\r\n\r\n")
        gate.wait_for(1)
        write(site, 2)
        (site / "anygate.toml").write_text('app = "app:app"\nthreads = 5\nproc_name = "renewed"\n')
        upgrade(served)
        served.wait_until(lambda: served.get().text == "version 2", "new code")
        gate.open()
        assert connection.response().text == "version 1"
    served.wait_until(lambda: not set(old) & set(served.workers()), "the end of the old workers")
    assert "2 workers of " + ("1000 greenlets" if "gevent" in kind else "5 threads") in served.log()
    assert (site / "pid").read_text() == f"{served.pid}\n"
    assert Path(f"/proc/{served.pid}/comm").read_text() == "renewed\n"
    assert admin.status()["pid"] == served.pid
    assert served.terminate() == 0
    assert "the supervisor is gone" not in served.log()
    assert not (site / "pid").exists()


@pytest.mark.parametrize("kind", [(), ("--preload",)])
@pytest.mark.parametrize("broken", ["code", "settings", "certificate"])
def test_a_program_that_cannot_serve_changes_nothing(serve, site, kind, broken):
    (site / "anygate.toml").write_text('app = "app:app"\n')
    served = serve("--workers", "2", *kind, environment=UNCACHED)
    old = served.workers()
    if broken == "code":
        write(site, 2, "broken!")
    else:
        line = "threads = 0" if broken == "settings" else 'ssl_certificate = "missing.pem"'
        (site / "anygate.toml").write_text(f'app = "app:app"\n{line}\n')
    served.send_signal(signal.SIGUSR2)
    served.wait_for_log("when it was checked; all stays as it was")
    assert served.get().body == b"version 1"
    assert served.workers() == old
    write(site, 2)
    (site / "anygate.toml").write_text('app = "app:app"\n')
    upgrade(served)
    served.wait_until(lambda: served.get().text == "version 2", "new code")


@pytest.mark.parametrize("kind", [(), ("--preload",)])
def test_the_number_of_workers_that_signals_asked_for_is_kept(serve, site, kind):
    (site / "anygate.toml").write_text('app = "app:app"\nworkers = 1\n')
    served = serve(*kind, environment=UNCACHED)
    for count in (2, 3):
        served.send_signal(signal.SIGTTIN)
        served.wait_until(lambda count=count: len(served.workers()) == count, "one more worker")
    old = set(served.workers())
    upgrade(served)
    served.wait_until(lambda: len(served.workers()) == 3 and not old & set(served.workers()), "three other workers")
    # New settings come first.
    (site / "anygate.toml").write_text('app = "app:app"\nworkers = 2\n')
    old = set(served.workers())
    upgrade(served, 2)
    served.wait_until(lambda: len(served.workers()) == 2 and not old & set(served.workers()), "two other workers")


def test_the_lock_of_the_pid_file_is_kept(serve, run, site):
    served = serve("app:app", "--pid-file", "pid")
    for count in (1, 2):
        upgrade(served, count)
        second = run("app:app", "--port", "0", "--pid-file", "pid")
        assert second.returncode == 1
        assert f"pid belongs to the running process {served.pid}" in second.stderr


def test_unix_sockets_are_kept_and_go_at_the_end(launch, site):
    served = launch("app:app", "--bind", "unix:a.sock").wait_ready()
    upgrade(served)
    path = str(site / "a.sock")
    with served.connect(path) as connection:
        assert connection.ask("GET", "/").status == 200
    assert served.terminate() == 0
    assert not os.path.exists(path)


def test_an_upgrade_gives_nothing_of_its_own_to_the_application(serve, site):
    (site / "app.py").write_text(
        "import os, subprocess\n"
        "def app(environ, start_response):\n"
        "    start_response('200 OK', [])\n"
        "    return [subprocess.run(['env'], capture_output=True).stdout, str(os.listdir('/proc/self/fd')).encode()]\n"
    )
    served = serve("app:app")
    upgrade(served)
    assert not re.findall("^_ANYGATE.*", served.get().text, re.MULTILINE)


def test_jobs_of_the_start_run_once(serve, site):
    job = '[[cron]]\nname = "start"\nschedule = "@reboot"\ncommand = "sh -c \'echo started >> starts\'"\n'
    (site / "anygate.toml").write_text(f'app = "app:app"\n{job}')
    served = serve(environment=UNCACHED)
    served.wait_until((site / "starts").exists, "the job")
    upgrade(served)
    # It waits for jobs.
    assert served.terminate() == 0
    assert (site / "starts").read_text() == "started\n"


def test_a_signal_that_comes_before_the_new_program_is_obeyed_by_it(serve, site):
    (site / "daemon.py").write_text(
        "import signal, sys\n"
        "from gates import wait_at\n"
        "signal.signal(signal.SIGTERM, lambda number, frame: (wait_at(sys.argv[1]), sys.exit(0)))\n"
        "print('ready', flush=True)\n"
        "while True:\n    signal.pause()\n"
    )
    with Gate() as gate:
        command = f'"{sys.executable} daemon.py {gate.name}"'
        (site / "anygate.toml").write_text(f'app = "app:app"\n[[daemon]]\nname = "helper"\ncommand = {command}\n')
        served = serve(environment=UNCACHED)
        served.wait_for_log("helper: ready")
        served.send_signal(signal.SIGUSR2)
        # The supervisor waits for it, and becomes the new program then.
        gate.wait_for()
        served.send_signal(signal.SIGTERM)
        gate.open()
        assert served.wait() == 0
    served.wait_for_log("the new program takes over")


def test_a_program_that_serves_is_not_replaced(launch, site):
    (site / "program.py").write_text("import anygate, app\nanygate.serve(app.app, port=0)\n")
    served = launch("program.py", command=[sys.executable]).wait_ready()
    served.send_signal(signal.SIGUSR2)
    served.wait_for_log("not upgraded: only the command can be upgraded")
    assert served.get().status == 200
