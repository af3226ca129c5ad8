"""Cron jobs of several servers that share a Redis: one of them runs them, and another one when it is gone.

`make soak` goes on for SOAK_SECONDS: each minute a server is killed and started again, or cut off from Redis.
"""

import itertools
import os
import selectors
import signal
import socket
import threading
import time
from collections import Counter

import pytest
from conftest import ANYGATE
from machines import Cable, Machine, need_machines
from redis_server import Redis
from waiting import let_pass, wait_until
from wire import Connection

SOAK = float(os.environ.get("SOAK_SECONDS", 0))
APPLICATION = """
import os, time

def application(environ, start_response):
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]

def job():
    with open("../ran", "a") as file:
        file.write("%d\\n" % (time.time() // 60))
"""
JOB = '[[cron]]\nname = "job"\nschedule = "* * * * *"\nfunction = "app:job"\n'
LEADS = "this server runs the cron jobs"
FOLLOWS = "another server runs the cron jobs"
LOST = "no cron jobs run until it can"


class Way:
    """A way to Redis that can be cut: nothing passes and nobody is told, as in a network that is partitioned."""

    command = None

    def __init__(self, port):
        self.target = ("127.0.0.1", port)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"redis://127.0.0.1:{self.listener.getsockname()[1]}"
        self.is_cut = threading.Event()
        self.is_over = threading.Event()
        self.thread = threading.Thread(target=self.carry)
        self.thread.start()

    def carry(self):
        with selectors.DefaultSelector() as ready:
            ready.register(self.listener, selectors.EVENT_READ)
            while not self.is_over.is_set():
                for key, _ in ready.select(0.05):
                    if key.fileobj is self.listener:
                        ends = self.listener.accept()[0], socket.create_connection(self.target)
                        for one, other in (ends, ends[::-1]):
                            ready.register(one, selectors.EVENT_READ, other)
                        continue
                    data = key.fileobj.recv(65536)
                    if not data:
                        for one in (key.fileobj, key.data):
                            ready.unregister(one)
                            one.close()
                        break
                    if not self.is_cut.is_set():
                        key.data.sendall(data)
            for key in list(ready.get_map().values()):
                key.fileobj.close()

    def cut(self):
        self.is_cut.set()

    def mend(self):
        self.is_cut.clear()

    def end(self):
        self.is_over.set()
        self.thread.join()


class CableToRedis(Cable):
    """The way of a server on a machine of its own, whose only cable leads to that of Redis."""

    def __init__(self, far, number, port):
        self.home = Machine()
        super().__init__(far, self.home, number)
        self.url = f"redis://{self.far}:{port}"
        self.command = self.home.command(ANYGATE)

    def end(self):
        self.home.end()


class Nodes:
    """Two servers, each with its way to one Redis."""

    def __init__(self, folder, launch, machine):
        self.launch, self.folder, self.machine = launch, folder, machine
        if machine:
            everywhere = ("--protected-mode", "no", "--bind", "*")
            self.redis = Redis(folder, *everywhere, before=machine.command())
            self.ways = [CableToRedis(machine, number, self.redis.port) for number in range(2)]
        else:
            self.redis = Redis(folder)
            self.ways = [Way(self.redis.port) for _ in range(2)]
        self.servers = [None, None]
        self.begun = int(time.time() // 60)
        for place in range(2):
            site = folder / f"node-{place}"
            site.mkdir()
            (site / "app.py").write_text(APPLICATION)
            # One that is cut off has to notice it.
            shared = f'shared = "{self.ways[place].url}"\nshared_timeout = "2s"\n'
            (site / "anygate.toml").write_text(f'app = "app"\nport = 0\n{shared}{JOB}')

    def start(self, place):
        command = self.ways[place].command
        self.servers[place] = self.launch(folder=self.folder / f"node-{place}", command=command).wait_ready()
        return self.servers[place]

    def leader(self):
        """What Redis says."""
        with Connection(self.redis.path) as connection:
            return connection.send(b"EXISTS anygate:cron:leader\r\nGET anygate:cron:leader\r\nQUIT\r\n").rest()

    def ran(self):
        """How often the job was run in each minute."""
        path = self.folder / "ran"
        return Counter(path.read_text().split()) if path.exists() else Counter()

    def each_minute_was_run_once(self):
        """Whether there were no more runs than minutes: one that begins late in its minute may write in the next."""
        return 0 < self.ran().total() <= int(time.time() // 60) - self.begun + 1

    def end(self):
        for server in self.servers:
            if server:
                server.kill()
        for way in self.ways:
            way.end()
        self.redis.kill()
        if self.machine:
            self.machine.end()


@pytest.fixture(params=["proxies", "machines"])
def nodes(request, tmp_path, launch):
    if request.param == "machines":
        need_machines()
    nodes = Nodes(tmp_path, launch, Machine() if request.param == "machines" else None)
    yield nodes
    nodes.end()


def leader_and_follower(nodes):
    leader = nodes.start(0)
    leader.wait_for_log(LEADS)
    follower = nodes.start(1)
    follower.wait_for_log(FOLLOWS)
    return leader, follower


def test_one_runs_the_jobs_and_the_other_when_it_is_killed(nodes):
    leader, follower = leader_and_follower(nodes)
    wait_until(nodes.ran, "a run")
    leader.kill()
    follower.wait_for_log(LEADS)
    assert nodes.each_minute_was_run_once()


def test_one_that_ends_leaves_them_to_the_other_at_once(nodes):
    leader, follower = leader_and_follower(nodes)
    name = nodes.leader()
    assert leader.terminate() == 0
    # Its lease would have gone on for ten seconds.
    assert nodes.leader() != name
    follower.wait_for_log(LEADS)
    assert nodes.each_minute_was_run_once()


def test_one_that_is_cut_off_runs_none_until_it_is_connected_again(nodes):
    leader, follower = leader_and_follower(nodes)
    nodes.ways[0].cut()
    leader.wait_for_log(LOST)
    follower.wait_for_log(LEADS)
    nodes.ways[0].mend()
    leader.wait_for_log("cron jobs run")
    leader.wait_for_log(FOLLOWS)
    assert nodes.each_minute_was_run_once()


def test_shared_is_for_jobs_alone_too(run, tmp_path):
    (tmp_path / "anygate.toml").write_text('app = "app"\nshared = "redis://127.0.0.1:1"\n')
    assert "cron jobs" in run("config", "--check").stderr
    (tmp_path / "anygate.toml").write_text(f'app = "app"\nshared = "redis://127.0.0.1:1"\n{JOB}')
    assert run("config", "--check").returncode == 0


@pytest.mark.skipif(not SOAK, reason="minutes have to pass: make soak")
@pytest.mark.timeout(SOAK + 1800)
def test_each_minute_is_run_once_whatever_happens(nodes):
    leader_and_follower(nodes)
    begun, until = int(time.time() // 60), time.monotonic() + max(SOAK, 180)
    longest = 0
    for number in itertools.count():
        if time.monotonic() > until:
            break
        leads, follows = number % 2, 1 - number % 2
        # Within a minute, so that another server has taken over before the next one.
        let_pass(62 - time.time() % 60, "jobs run by the clock")
        before, since = nodes.servers[follows].log().count(LEADS), time.monotonic()
        if number % 4 < 2:
            os.kill(nodes.servers[leads].pid, signal.SIGKILL)
            nodes.servers[leads].process.wait()
            nodes.servers[follows].wait_for_log(LEADS, before + 1)
        else:
            nodes.ways[leads].cut()
            nodes.servers[follows].wait_for_log(LEADS, before + 1)
        longest = max(longest, time.monotonic() - since)
        if number % 4 < 2:
            nodes.start(leads)
        else:
            nodes.ways[leads].mend()
    print(f"another server took over within {longest:.1f} s")
    minutes = [str(minute) for minute in range(begun, int(time.time() // 60))]
    assert {minute: nodes.ran()[minute] for minute in minutes} == dict.fromkeys(minutes, 1)
