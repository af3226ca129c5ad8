"""Several servers at once: the [[server]] tables of a file."""

import os
import shutil
import signal

import pytest
from conftest import ANYGATE, APPS
from other_servers import Http, free_port, process, wait_for
from waiting import lives


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
    children = pool.processes()
    assert len(children) == 3
    assert pool.terminate() == 0
    for pid in children:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_what_ends_by_itself_is_started_again(pool):
    before = pids(pool)
    for pid in pool.processes():
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
        assert lives(int(before))
        (tmp_path / "may-end").write_text("")
        wait_for(served, lambda: pid(slow) != before)
        assert "slow ended" not in served.log()
        assert served.log().count("quick ended") == 1


def test_none_is_left_when_the_first_process_is_killed(pool):
    children = pool.processes()
    pool.process.kill()
    pool.process.wait()

    def ended():
        return not [pid for pid in children if lives(pid)]

    pool.wait_until(ended, "the end of all")


@pytest.fixture
def pair(tmp_path):
    port = free_port()
    (tmp_path / "six.py").write_text((APPS / "six.py").read_text())
    (tmp_path / "anygate.toml").write_text(f"""
app = "six"

[[server]]
name = "first"
port = {port}

[[server]]
name = "reserve"
server = "waitress"
standby_for = "first"
""")
    with process([ANYGATE], tmp_path) as served:
        served.clients = [Http(port)]
        wait_for(served, lambda: served.clients[0].ask("GET", "/ready")[0] == 200)
        yield served


def test_a_server_that_stands_by_takes_over_when_the_other_has_died(pair):
    (first,) = pair.processes()
    os.kill(first, signal.SIGKILL)
    pair.wait_for_log("first ended with -9; reserve takes over its address")
    # waitress responds in the process that was started; our own server in a worker of it.
    reserve = wait_for(pair, lambda: int(pids(pair)[0]) in pair.processes() and int(pids(pair)[0]))
    os.kill(reserve, signal.SIGKILL)
    pair.wait_for_log("reserve ended with -9; first takes over its address")
    wait_for(pair, lambda: int(pids(pair)[0]) not in pair.processes())


def test_the_first_server_serves_again_after_hup(pair):
    (first,) = pair.processes()
    os.kill(first, signal.SIGKILL)
    wait_for(pair, lambda: int(pids(pair)[0]) in pair.processes())
    pair.send_signal(signal.SIGHUP)
    wait_for(pair, lambda: int(pids(pair)[0]) not in pair.processes())
    assert pair.terminate() == 0


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ([{"name": "a"}, {"standby_for": "b"}], 'there is no other server with name = "b"'),
        (
            [{"name": "a"}, {"standby_for": "a", "port": "1"}],
            "port: a server that stands by has the address of the other one",
        ),
        ([{"name": "a"}, {"standby_for": "a"}, {"standby_for": "a"}], "one other server may stand by"),
        ([{"name": "a", "standby_for": "a"}], "one other server may stand by"),
    ],
)
def test_who_can_stand_by(run, tmp_path, tables, message):
    lines = ["[[server]]\n" + "".join(f'{key} = "{value}"\n' for key, value in table.items()) for table in tables]
    (tmp_path / "anygate.toml").write_text('app = "six"\n' + "\n".join(lines))
    ended = run()
    assert ended.returncode == 2
    assert message in ended.stderr
