"""Signals to end, at any moment: before anything has begun, and after everything has ended."""

import contextlib
import os
import random
import signal
import sys
from pathlib import Path

import pytest
from conftest import ANYGATE, APPS, family
from waiting import in_time, let_pass, lives

CONTRACT = APPS / "contract.py"
ENDS = [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT]
OPTIONS = [(), ("--preload",), ("--admin", "127.0.0.1:0", "--pid-file", "server.pid")]


def catches(pid, number):
    """Whether a process has a handler for a signal (proc_pid_status(5))."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        lines = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        return bool(int(lines["SigCgt"], 16) >> (number - 1) & 1)
    return False


@pytest.mark.parametrize("options", OPTIONS, ids=" ".join)
def test_it_ends_well_whenever_it_is_told_to(launch, options):
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    for _ in range(10):
        served = launch(CONTRACT, "--port", "0", *options)
        let_pass(chance.random() * 0.4, "any moment of the start")
        # Python itself has a handler of INT, which may fail anywhere or go unnoticed until the command has been loaded.
        number = chance.choice([signal.SIGTERM, signal.SIGQUIT])
        is_ours, processes = catches(served.pid, number), family(served.pid)
        code = served.terminate(number)
        # Until then it is Python, which ends as any program does.
        assert code == 0 or (not is_ours and code == -number), served.log()
        served.wait_until(lambda processes=processes: not any(map(lives, processes)), "the end of all processes")


@pytest.fixture
def held_at_settings(launch, tmp_path):
    """Start anygate with arguments, and wait until it reads its settings, which never come."""
    path = tmp_path / "settings.toml"
    os.mkfifo(path)
    with contextlib.ExitStack() as held:

        def start(*arguments, **options):
            served = launch(*arguments, "--config", path, **options)
            held.enter_context(path.open("w"))
            return served

        yield start


@pytest.mark.parametrize("number", ENDS)
def test_it_ends_well_before_it_knows_what_to_serve(held_at_settings, number):
    assert held_at_settings("app:app").terminate(number) == 0


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2])
def test_orders_mean_nothing_before_anything_has_begun(held_at_settings, number):
    served = held_at_settings("app:app")
    served.send_signal(number)
    assert served.terminate() == 0


def test_what_whoever_starts_it_ignores_is_ignored_as_long_as_nothing_has_begun(held_at_settings):
    ignoring = [sys.executable, "-c", IGNORES_HUP]
    served = held_at_settings("app:app", command=[*ignoring, ANYGATE])
    served.send_signal(signal.SIGHUP)
    assert served.terminate() == 0


IGNORES_HUP = """
import os, signal, sys
signal.signal(signal.SIGHUP, signal.SIG_IGN)
os.execv(sys.argv[1], sys.argv[1:])
"""

#: Sends a signal when the interpreter takes modules apart, where it has taken back handlers of Python.
AT_THE_END = """
import os
class Last:
    def __init__(self):
        self.process, self.kill = os.getpid(), os.kill
    def __del__(self):
        self.kill(self.process, {number})
last = Last()
"""


@pytest.mark.parametrize("number", ENDS)
def test_it_ends_well_when_told_once_more_at_the_very_end(serve, tmp_path, number):
    (tmp_path / "sitecustomize.py").write_text(AT_THE_END.format(number=int(number)))
    served = serve(CONTRACT, environment={"PYTHONPATH": str(tmp_path)})
    assert served.terminate() == 0


def test_a_program_that_serves_is_not_ended_by_the_same_signal_after_its_server(launch, tmp_path):
    (tmp_path / "program.py").write_text(
        "import anygate\ndef app(environ, start_response): pass\nanygate.serve(app, bind='127.0.0.1:0')\n"
    )

    def attempt(step):
        served = launch("program.py", command=[sys.executable]).wait_ready()
        workers = served.workers()
        step()
        served.send_signal(signal.SIGTERM)
        served.wait_until(lambda: not any(map(lives, workers)), "the end of its workers")
        served.send_signal(signal.SIGTERM)
        step()
        assert served.wait() == 0

    in_time(0.4, attempt)
