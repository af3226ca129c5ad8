"""[[daemon]]: programs beside the workers, which live as long as the site."""

import os
import pwd
import signal

import pytest
from conftest import APPS
from waiting import lives

CONTRACT = APPS / "contract.py"
PROGRAM = """
import os, signal, sys

def end(number, frame):
    print("told to end", flush=True)
    sys.exit(0)

signal.signal(signal.SIGTERM, end)
print("runs as", os.getpid(), os.environ.get("COLOUR"), os.getcwd(), flush=True)
while True:
    signal.pause()
"""


@pytest.fixture
def site(tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM)
    (tmp_path / "beside").mkdir()
    write(
        tmp_path, f'command = "python {tmp_path}/program.py"\nfolder = "beside"\nenvironment = {{ COLOUR = "blue" }}\n'
    )
    return tmp_path


def write(folder, text):
    (folder / "anygate.toml").write_text(f'app = "{CONTRACT}"\nport = 0\n\n[[daemon]]\nname = "helper"\n{text}')


def pids(served):
    return [int(line.split("runs as ")[1].split()[0]) for line in served.log().splitlines() if "runs as" in line]


@pytest.fixture
def served(launch, site):
    served = launch(folder=site).wait_ready()
    served.wait_for_log("runs as")
    return served


def test_it_runs_beside_the_workers_and_its_output_is_logged(served, site):
    (pid,) = pids(served)
    served.wait_for_log(f"helper: runs as {pid} blue {site}/beside")
    assert served.get("/pid").status == 200


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
@pytest.mark.parametrize(
    ("user", "who"), [("nobody", f"{pwd.getpwnam('nobody').pw_dir} nobody 65534"), ("47123", "/root root 47123")]
)
def test_it_has_home_and_groups_of_the_user(launch, tmp_path, user, who):
    write(tmp_path, """command = ["sh", "-c", 'echo "it is $HOME $USER" $(id -G)']\n""")
    tmp_path.chmod(0o755)
    environment = {"HOME": "/root", "USER": "root"}
    # The template imports the application before workers become the user, who may not be able to read Python here.
    launch("--preload", "--user", user, folder=tmp_path, environment=environment).wait_for_log(f"it is {who}\n")


def test_it_is_started_again_when_it_ends(served):
    os.kill(pids(served)[0], signal.SIGKILL)
    served.wait_for_log("helper: ended with signal KILL")
    served.wait_for_log("runs as", 2)
    served.wait_for_log("starting it again in 1s")


def test_one_that_fails_again_and_again_is_started_after_longer_pauses(launch, site):
    write(site, "command = 'sh -c \"echo cannot; exit 3\"'\n")
    served = launch(folder=site).wait_ready()
    for pause in ("1s", "2s"):
        served.wait_for_log(f"starting it again in {pause}")
    assert served.get("/pid").status == 200
    assert served.terminate() == 0


@pytest.mark.parametrize(
    ("program", "reason"), [("/nowhere/program", "No such file"), ("no-such-program", "no folder of PATH (")]
)
def test_a_program_that_is_not_there_is_tried_again(launch, site, program, reason):
    write(site, f'command = "{program}"\n')
    served = launch(folder=site).wait_ready()
    served.wait_for_log(f"helper: cannot start {program}: {reason}")
    assert served.get("/pid").status == 200
    assert served.terminate() == 0


def test_a_reload_starts_it_anew_with_the_new_settings(served, site):
    (old,) = pids(served)
    write(site, f'command = "python {site}/program.py"\nenvironment = {{ COLOUR = "green" }}\n')
    served.send_signal(signal.SIGHUP)
    served.wait_for_log("runs as", 2)
    served.wait_for_log(" green ")
    # Never two of them.
    assert served.log().index("told to end") < served.log().index(" green ")
    assert not lives(old)
    (site / "anygate.toml").write_text(f'app = "{CONTRACT}"\nport = 0\n')
    served.send_signal(signal.SIGHUP)
    served.wait_for_log("helper: ended with exit code 0", 2)
    assert not lives(pids(served)[1])


def test_a_new_program_starts_it_anew(served):
    (old,) = pids(served)
    served.send_signal(signal.SIGUSR2)
    served.wait_for_log("runs as", 2)
    assert served.log().index("told to end") < served.log().rindex("runs as")
    assert not lives(old)
    assert served.terminate() == 0
    assert not lives(pids(served)[1])


def test_it_ends_after_the_workers(served, gate):
    (pid,) = pids(served)
    with served.connect() as connection:
        connection.send(f"GET /gate?{gate.name} HTTP/1.1\r\nHost: a\r\n\r\n")
        gate.wait_for()
        served.send_signal(signal.SIGTERM)
        served.wait_refused()
        assert "told to end" not in served.log()
        assert lives(pid)
        gate.open()
        assert connection.response().status == 200
    assert served.wait() == 0
    served.wait_for_log("helper: told to end")
    assert not lives(pid)


FAMILY = """
import os, signal, sys

def end(number, frame):
    print(name, "ends", flush=True)
    if name == "parent" and sys.argv[1:] == ["waits"]:
        os.kill(child, signal.SIGUSR1)
        os.waitpid(child, 0)
    sys.exit(0)

def finish(number, frame):
    print("child finished its work", flush=True)
    sys.exit(0)

child = os.fork()
name = "parent" if child else "child"
signal.signal(signal.SIGTERM, end)
signal.signal(signal.SIGUSR1, finish)
print(name, "runs as", os.getpid(), flush=True)
while True:
    signal.pause()
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR2], ids=lambda number: number.name)
@pytest.mark.parametrize(
    ("argument", "expected"),
    [("waits", ["parent ends", "child finished its work"]), ("leaves", ["parent ends", "child ends"])],
)
def test_its_own_processes_are_its_own_to_end(launch, site, number, argument, expected):
    (site / "program.py").write_text(FAMILY)
    write(site, f'command = "python {site}/program.py {argument}"\n')
    served = launch(folder=site).wait_ready()
    served.wait_for_log("runs as", 2)
    family = pids(served)
    served.send_signal(number)
    served.wait_until(lambda: not any(lives(pid) for pid in family), "the end of all")
    if number == signal.SIGUSR2:
        # Nothing else is done meanwhile, so that it gets two seconds only, which may be too few on a busy machine.
        served.wait_for_log(" serves ", 2)
    else:
        served.wait_for_log(f"helper: {expected[-1]}")
    lines = [line.partition("helper: ")[2] for line in served.log().splitlines()]
    told = [line for line in lines if ("end" in line and "ended" not in line) or "finished" in line]
    assert told == (expected[: len(told)] if number == signal.SIGUSR2 else expected)
    assert served.terminate() == 0
    assert not any(lives(pid) for pid in pids(served))


def test_one_that_did_not_listen_is_told_again_at_the_end(launch, site):
    ends = 'print("told to end", flush=True)\n    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))\n'
    (site / "program.py").write_text(PROGRAM.replace('print("told to end", flush=True)\n    sys.exit(0)\n', ends))
    served = launch("--graceful-timeout", "1h", folder=site).wait_ready()
    served.wait_for_log("runs as")
    served.send_signal(signal.SIGHUP)
    served.wait_for_log("told to end")
    assert served.terminate() == 0
    served.wait_for_log("helper: ended with exit code 0")


def test_one_that_does_not_end_is_killed(launch, site):
    (site / "program.py").write_text(PROGRAM.replace("    sys.exit(0)\n", ""))
    served = launch("--graceful-timeout", "1s", folder=site).wait_ready()
    served.wait_for_log("runs as")
    assert served.terminate() == 0
    served.wait_for_log("helper: did not end in time; killing it")
    assert not lives(pids(served)[0])


@pytest.mark.linux("the end of a parent as a signal")
def test_it_does_not_outlive_a_supervisor_that_is_killed(served):
    (pid,) = pids(served)
    os.kill(served.pid, signal.SIGKILL)
    served.wait()
    served.wait_until(lambda: not lives(pid), "the end of the daemon")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "command is missing"),
        ("command = 3\n", "must be a string"),
        ('command = "true"\ncolour = "red"\n', "there is no key colour"),
        ('command = "true"\n\n[[daemon]]\nname = "helper"\ncommand = "true"\n', "two have this name"),
    ],
)
def test_tables_that_mean_nothing_are_refused(run, site, text, reason):
    write(site, text)
    ended = run("config", "--check")
    assert ended.returncode == 2
    assert 'daemon "helper"' in ended.stderr
    assert reason in ended.stderr


def test_other_servers_run_none(run, site):
    ended = run("-s", "waitress")
    assert ended.returncode == 2
    assert 'daemon "helper": only the native server runs daemons' in ended.stderr
