"""Several servers at once: the [[server]] tables of a file."""

import os
import shutil
import signal

import pytest
from conftest import ANYGATE, APPS
from other_servers import Http, free_port, process, wait_for


@pytest.fixture
def pool(tmp_path):
    ports = [free_port() for _ in range(3)]
    (tmp_path / "six.py").write_text((APPS / "six.py").read_text())
    (tmp_path / "anygate.toml").write_text(f"""
app = "six"
threads = 2

[[server]]
name = "ours"
port = {ports[0]}
workers = 2

[[server]]
server = "gunicorn"
port = {ports[1]}

[[server]]
name = "theirs"
server = "waitress"
port = {ports[2]}
""")
    with process([ANYGATE], tmp_path) as served:
        served.clients = [Http(port) for port in ports]
        for client in served.clients:
            wait_for(served, lambda client=client: client.ask("GET", "/ready")[0] == 200)
        yield served


def pids(served):
    return [client.ask("GET", "/pid")[2] for client in served.clients]


def gone(served, before):
    def look():
        now = pids(served)
        return all(one != other for one, other in zip(before, now, strict=True))

    return look


def test_all_serve_and_end_together(pool):
    assert len(set(pids(pool))) == 3
    children = pool.workers()
    assert len(children) == 3
    assert pool.terminate() == 0
    for pid in children:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_what_ends_by_itself_is_started_again(pool):
    before = pids(pool)
    for pid in pool.workers():
        os.kill(pid, signal.SIGKILL)
    wait_for(pool, gone(pool, before))
    pool.wait_for_log("theirs ended with -9; restarting it in 0.5 s")
    pool.wait_for_log("server-2 ended with -9")


def test_hup_reloads_all(pool):
    before = pids(pool)
    pool.send_signal(signal.SIGHUP)
    wait_for(pool, gone(pool, before))


def test_one_that_takes_long_to_end_holds_up_no_other(tmp_path):
    shutil.copy(APPS / "gates.py", tmp_path)
    (tmp_path / "quick.py").write_text((APPS / "six.py").read_text())
    (tmp_path / "slow.py").write_text("""
import atexit
from gates import wait_for
from quick import application

@atexit.register
def end():
    open("ending", "w").close()
    wait_for("may-end")
""")
    ports = [free_port() for _ in range(2)]
    (tmp_path / "anygate.toml").write_text(f"""
[[server]]
name = "slow"
server = "waitress"
app = "slow"
port = {ports[0]}

[[server]]
name = "quick"
server = "waitress"
app = "quick"
port = {ports[1]}
""")
    with process([ANYGATE], tmp_path) as served:
        slow, quick = (Http(port) for port in ports)

        def pid(client):
            return wait_for(served, lambda: client.ask("GET", "/pid")[2])

        before, dying = pid(slow), pid(quick)
        served.send_signal(signal.SIGHUP)
        served.wait_until((tmp_path / "ending").exists, "the end of the slow one to begin")
        # HUP reached the quick one as well: what is killed is what came after it.
        wait_for(served, lambda: pid(quick) != dying)
        os.kill(int(pid(quick)), signal.SIGKILL)
        served.wait_for_log("quick ended with -9; restarting it in 0.5 s")
        assert os.path.exists(f"/proc/{int(before)}")
        assert _lives(int(before))
        (tmp_path / "may-end").write_text("")
        wait_for(served, lambda: pid(slow) != before)
        assert "slow ended" not in served.log()
        assert served.log().count("quick ended") == 1


def test_none_is_left_when_the_first_process_is_killed(pool):
    children = pool.workers()
    pool.process.kill()
    pool.process.wait()

    def ended():
        return not [pid for pid in children if os.path.exists(f"/proc/{pid}") and _lives(pid)]

    pool.wait_until(ended, "the end of all")


def _lives(pid):
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0] != "Z"


def test_one_that_cannot_serve_ends_all(run, tmp_path):
    (tmp_path / "anygate.toml").write_text(f"""
[[server]]
app = "{APPS}/six.py"
port = {free_port()}

[[server]]
name = "broken"
app = "nothing_here"
port = {free_port()}
""")
    ended = run()
    assert ended.returncode == 3
    assert "cannot load nothing_here" in ended.stderr
    assert "broken cannot serve (exit code 3): stopping the other servers" in ended.stderr


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "[[server]]\nport = 1",
            "anygate.toml: [[server]] number 1: has no application, and none is set for all servers",
        ),
        ("app = 'x'\n[[server]]\nprot = 1", "prot: there is no such option; did you mean port?"),
        ("app = 'x'\n[[server]]\nport = 'x'", 'anygate.toml: port: "x" must be'),
        ("app = 'x'\n[[server]]\nname = 'a'\n[[server]]\nname = 'a'", 'name: "a" is used twice'),
        ("app = 'x'\nserver = [1]", "server: must be a list of tables: [[server]]"),
    ],
)
def test_wrong_tables(run, tmp_path, text, message):
    (tmp_path / "anygate.toml").write_text(text)
    ended = run()
    assert ended.returncode == 2
    assert message in ended.stderr
    assert len(ended.stderr.splitlines()) == 1
