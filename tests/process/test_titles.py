"""What `ps` and `top` call the processes."""

import signal
import sys
from pathlib import Path

import pytest
from conftest import APPS, children, name

CONTRACT = APPS / "contract.py"
pytestmark = pytest.mark.linux("titles of processes")


def title(pid):
    """What `ps` shows, and the short name that `top` shows."""
    return Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").decode(), name(pid)


@pytest.mark.parametrize("command", [None, [sys.executable, "-m", "anygate"]], ids=["script", "module"])
@pytest.mark.parametrize("kind", [(), ("--concurrency", "gevent")], ids=["threads", "greenlets"])
def test_processes_are_told_apart(launch, command, kind):
    options = ("--workers", "2", "--preload", "--admin", "127.0.0.1:0", *kind)
    served = launch(CONTRACT, "--port", "0", *options, command=command).wait_ready()
    own, short = title(served.pid)
    assert own.startswith(f"anygate: supervisor {CONTRACT}")
    assert short == "anygate"
    # The assistant has its name a moment after it was forked.
    titles = [
        ("anygate: assistant", "anyga-assistant"),
        ("anygate: template", "anygat-template"),
        ("anygate: worker 1", "anygate-w1"),
        ("anygate: worker 2", "anygate-w2"),
    ]
    served.wait_until(lambda: sorted(title(pid) for pid in children(served.pid)) == titles, "the names of all")


def test_a_site_has_a_name_of_its_own(serve):
    served = serve(CONTRACT, "--proc-name", "shop")
    (worker,) = served.workers()
    assert title(worker) == ("shop: worker 1", "shop-w1")
    assert title(served.pid)[1] == "shop"
    served.send_signal(signal.SIGHUP)
    served.wait_until(lambda: worker not in served.workers(), "the end of the old worker")
    assert title(served.workers()[0]) == ("shop: worker 2", "shop-w2")


@pytest.mark.parametrize("named", ["x" * 500, "é" * 100], ids=["long", "not-ascii"])
def test_a_name_that_is_too_long_is_cut(serve, named):
    served = serve(CONTRACT, "--proc-name", named)
    assert Path(f"/proc/{served.pid}/cmdline").read_bytes().startswith(named.encode()[:40])
    (worker,) = served.workers()
    assert name(worker).endswith("-w1")
    assert served.get("/pid").text == str(worker)


def test_arguments_and_environment_are_as_they_were(serve, tmp_path):
    (tmp_path / "app.py").write_text(
        "import os, subprocess, sys\n"
        "def app(environ, start_response):\n"
        "    start_response('200 OK', [])\n"
        "    child = subprocess.run(['env'], capture_output=True, text=True).stdout\n"
        "    return [repr((sys.argv[1:], sys.orig_argv[1:], os.environ['MARK'], 'MARK=a b c' in child)).encode()]\n"
    )
    served = serve("app:app", environment={"MARK": "a b c"})
    arguments, original, mark, inherited = eval(served.get().text)
    assert arguments[0] == "app:app"
    assert original[-len(arguments) :] == arguments
    assert mark == "a b c"
    assert inherited


def test_a_program_that_serves_keeps_its_own_title(launch, tmp_path):
    (tmp_path / "program.py").write_text(
        "import anygate\n"
        "def app(environ, start_response):\n    start_response('200 OK', [])\n    return [b'']\n"
        "anygate.serve(app, port=0, workers=1)\n"
    )
    served = launch("program.py", command=[sys.executable]).wait_ready()
    own = Path(f"/proc/{served.pid}/cmdline").read_bytes().split(b"\0")
    assert own[1] == b"program.py"
    assert [title(worker) for worker in served.workers()] == [("anygate: worker 1", "anygate-w1")]


def test_jobs_are_told_apart(serve, gate, tmp_path):
    (tmp_path / "anygate.toml").write_text(
        'app = "app:app"\n[[cron]]\nname = "tidy"\nschedule = "@reboot"\nfunction = "app:tidy"\n'
    )
    (tmp_path / "gates.py").write_text((APPS / "gates.py").read_text())
    (tmp_path / "app.py").write_text(
        "import gates\n"
        f"def tidy(): gates.wait_at({gate.name!r})\n"
        "def app(environ, start_response):\n    start_response('200 OK', [])\n    return [b'']\n"
    )
    served = serve()
    gate.wait_for(1)
    titles = [title(pid) for pid in children(served.pid)]
    assert ("anygate: cron job app:tidy", "anygate-cron") in titles
    gate.open()
    served.wait_for_log("tidy: done")
