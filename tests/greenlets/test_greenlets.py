"""Requests in greenlets: each waits alone. What an application sees is tested with the WSGI contract."""

import contextlib
import itertools
import json
import os
import re
import shlex
import shutil
import signal
import ssl
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from conftest import APPS
from other_servers import certificate, free_port
from waiting import PATIENCE, in_time
from wire import wait_closing, wait_stuck

GEVENT = ("--concurrency", "gevent")
APP = APPS / "greenlets.py"
ROOT = Path(__file__).parents[2]
SITE = ROOT / "tests" / "web2py" / "site"


@pytest.fixture
def greenlets(serve):
    return lambda *arguments, **options: serve(APP, *GEVENT, *arguments, **options)


def ask(served, target, fields=""):
    return served.connect().send(f"GET {target} HTTP/1.1\r\nHost: a\r\n{fields}\r\n")


@contextlib.contextmanager
def busy(served, path):
    """A request that computes, and by that holds the hub, until there is a file of this path."""
    with ask(served, f"/busy?{path}"):
        served.wait_until(path.with_suffix(".begun").exists, "the request")
        yield


def goes_on(served):
    """Whatever waits at the moment, another request gets its response."""
    assert served.get("/ready").body == b"yes"


def test_the_terminal_says_what_requests_run_in(greenlets):
    assert "with 1 worker of 7 greenlets" in greenlets("--greenlets", "7").log()


def test_many_requests_wait_at_the_same_time(greenlets, gate):
    served = greenlets()
    waiting = [ask(served, f"/gate?{gate.name}") for _ in range(200)]
    gate.wait_for(200)
    goes_on(served)
    gate.open()
    assert {connection.response().body for connection in waiting} == {b"waited"}


def test_each_request_has_thread_local_objects_of_its_own(greenlets, gate):
    served = greenlets()
    waiting = [ask(served, f"/counted?{gate.name}") for _ in range(5)]
    gate.wait_for(5)
    gate.open()
    assert {connection.response().body for connection in waiting} == {b"1"}
    with served.connect() as connection:
        assert {connection.ask("GET", f"/counted?{gate.name}").body for _ in range(5)} == {b"1"}


def test_pipelined_requests_get_responses_in_order(greenlets, gate):
    served = greenlets()
    with served.connect() as connection:
        pair = f"GET /gate?{gate.name} HTTP/1.1\r\nHost: a\r\n\r\nGET /ready HTTP/1.1\r\nHost: a\r\n\r\n"
        connection.send(pair * 3)
        for count in (1, 2, 3):
            gate.wait_for(count)
            gate.let_one_go()
        assert [connection.response().body for _ in range(6)] == [b"waited", b"yes"] * 3

        def none_waits_for_the_next_heartbeat(_):
            begun = time.monotonic()
            connection.send("GET /ready HTTP/1.1\r\nHost: a\r\n\r\n" * 20)
            assert [connection.response().body for _ in range(20)] == [b"yes"] * 20
            assert time.monotonic() - begun < 10

        in_time(10, none_waits_for_the_next_heartbeat)


@pytest.mark.parametrize("arguments", [(*GEVENT, "--greenlets", "2"), ("--threads", "2")])
def test_what_waits_too_long_for_its_turn_is_told_to_come_again(serve, gate, arguments):
    served = serve(APP, *arguments, "--queue-timeout", "300ms")
    waiting = [ask(served, f"/gate?{gate.name}") for _ in range(2)]
    gate.wait_for(2)
    begun = time.monotonic()
    late = ask(served, "/ready").response()
    assert (late.status, late["retry-after"]) == (503, "10")
    assert time.monotonic() - begun > 0.2
    gate.open()
    assert [connection.response().status for connection in waiting] == [200, 200]
    served.wait_until(lambda: served.get("/ready").status == 200, "that nobody else waits")
    served.wait_for_log("queue_timeout")


def test_a_short_wait_for_ones_turn_is_no_failure(greenlets, gate):
    served = greenlets("--greenlets", "2")
    clients = [ask(served, f"/gate?{gate.name}") for _ in range(10)]
    for count in range(2, 11, 2):
        gate.wait_for(count)
        gate.waiting[-2].close()
        gate.let_one_go()
    assert [client.response().status for client in clients] == [200] * 10


class TestLocks:
    """web2py locks a session's file for as long as a request of it lasts."""

    @pytest.mark.parametrize("kind", ["flock"])
    def test_requests_of_one_session_come_one_after_another_and_others_go_on(self, greenlets, gate, tmp_path, kind):
        (tmp_path / "session").touch()
        served = greenlets()
        requests = [ask(served, f"/locked?{kind},{tmp_path}/session,{gate.name}") for _ in range(3)]
        for count in (1, 2, 3):
            gate.wait_for(count)
            goes_on(served)
            gate.let_one_go()
        times = sorted(tuple(map(float, request.response().text.split())) for request in requests)
        assert all(before[1] <= after[0] for before, after in itertools.pairwise(times))

    @pytest.mark.parametrize("kind", ["flock", "lockf"])
    def test_a_lock_of_another_process_is_waited_for_in_the_hub(self, greenlets, tmp_path, kind):
        (tmp_path / "session").touch()
        served = greenlets()
        hold = f"import fcntl, sys; f = open({str(tmp_path / 'session')!r}, 'r+b'); fcntl.{kind}(f, fcntl.LOCK_EX)"
        hold += "; print('held', flush=True); sys.stdin.read()"
        with subprocess.Popen(
            [sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as holder:
            assert holder.stdout.readline() == "held\n"
            waiting = ask(served, f"/locked?{kind},{tmp_path}/session,open")
            served.wait_until(waiting.is_read, "that the request is read")
            goes_on(served)
            holder.stdin.close()
            assert waiting.response().status == 200


class TestSlowClients:
    LIMITS = ("--response-memory-max-bytes", "64K", "--response-spool-max-bytes", "1M")

    @pytest.fixture(params=["plain", "tls"])
    def transport(self, request, tmp_path):
        """Options of the server, and how to connect to it."""
        if request.param == "plain":
            return (), lambda served: served.connect()
        cert, key = certificate(tmp_path)
        context = ssl.create_default_context(cafile=cert)

        def connect(served):
            connection = served.connect()
            connection.socket = context.wrap_socket(connection.socket, server_hostname="127.0.0.1")
            return connection

        return ("-c", cert, "-k", key), connect

    @pytest.mark.parametrize("kind", ["generator", "list", "write"])
    @pytest.mark.parametrize("streamed", [False, True])
    def test_a_client_that_does_not_read_holds_only_its_own_greenlet(self, greenlets, transport, kind, streamed):
        options, connect = transport
        options = (*options, *self.LIMITS, *(("--stream-paths", "/blocks") if streamed else ()))
        served = greenlets(*options)
        with connect(served) as slow, connect(served) as quick:
            slow.send(f"GET /blocks?{kind},250 HTTP/1.1\r\nHost: a\r\n\r\n")
            wait_stuck(slow.socket, served)
            assert quick.ask("GET", "/ready").body == b"yes"
            assert kind == "list" or b"taken" not in quick.ask("GET", "/events").body
            body = slow.response().body
            assert body == b"".join(bytes([place % 256]) * 65536 for place in range(250))
            assert quick.ask("GET", "/ready").body == b"yes"

    def test_a_client_that_goes_away_while_its_greenlet_waits_ends_it(self, greenlets):
        served = greenlets(*self.LIMITS)
        slow = ask(served, "/blocks?generator,250")
        wait_stuck(slow.socket, served)
        slow.reset()
        goes_on(served)
        assert served.terminate() == 0
        assert "failed" not in served.log()

    def test_a_client_that_never_reads_is_given_up(self, greenlets):
        served = greenlets(*self.LIMITS, "--write-timeout", "500ms")
        slow = ask(served, "/blocks?generator,250")
        wait_closing(slow.socket)
        with contextlib.suppress(ConnectionError):
            assert not slow.response().whole
        goes_on(served)
        assert served.terminate() == 0

    def test_an_upload_that_is_read_while_it_comes_holds_only_its_own_greenlet(self, greenlets, transport):
        options, connect = transport
        served = greenlets(*options, "--stream-paths", "/upload", "--stream-paths", "/lines")
        with connect(served) as slow, connect(served) as lines, connect(served) as quick:
            slow.send("POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 300000\r\n\r\n")
            lines.send("POST /lines HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\none\n\r\n")
            for _ in range(3):
                slow.send_read(b"x" * 100_000)
                lines.send_read("3\r\nmor\r\n2\r\ne\n\r\n")
                assert quick.ask("GET", "/ready").body == b"yes"
            lines.send("0\r\n\r\n")
            assert slow.response().body == b"300000"
            assert lines.response().text == str(["one\n", *["more\n"] * 3])

    def test_only_the_time_counts_in_which_a_greenlet_waits_for_its_body(self, greenlets, transport, tmp_path):
        options, connect = transport
        limits = ("--body-timeout", "1s", "--body-rate-min-bytes", "0")
        served = greenlets(*options, *limits, "--stream-paths", "/gives_up")
        with connect(served) as slow:
            slow.send(f"POST /gives_up?{tmp_path}/given_up HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n")
            served.wait_until((tmp_path / "given_up").exists, "that the greenlet has given up")
            slow.send(b"late")
            assert slow.response().body == b"late"


class TestProcesses:
    def test_requests_in_flight_get_responses_before_the_end(self, greenlets, gate):
        served = greenlets()
        waiting = [ask(served, f"/gate?{gate.name}") for _ in range(20)]
        gate.wait_for(20)
        served.send_signal(signal.SIGTERM)
        served.wait_refused()
        gate.open()
        assert [connection.response()["connection"] for connection in waiting] == ["close"] * 20
        assert served.wait() == 0
        assert "WARN" not in served.log()

    def test_graceful_timeout_ends_what_does_not_finish(self, greenlets, gate):
        served = greenlets("--graceful-timeout", "1s")
        with ask(served, f"/gate?{gate.name}"):
            gate.wait_for()
            assert served.terminate() == 0
        served.wait_for_log("did not finish within graceful_timeout")

    def test_a_busy_hub_stops_neither_the_reactor_nor_the_end(self, greenlets, tmp_path):
        served = greenlets("--graceful-timeout", "1s", "--header-timeout", "500ms")
        with busy(served, tmp_path / "never"):

            def ask_half(step):
                with served.connect() as connection:
                    connection.send("GET / HTTP/1.1\r\n")
                    step()
                    assert connection.response().status == 408

            in_time(0.5, ask_half)
            assert served.terminate() == 0

    def test_responses_do_not_wait_for_the_neighbour_that_computes(self, greenlets, tmp_path):
        """Both come in one batch."""
        served = greenlets()
        with served.connect() as quick, served.connect() as slow:
            quick.ask("GET", "/ready")
            slow.ask("GET", "/ready")
            with busy(served, tmp_path / "first"):
                quick.send_read("GET /ready HTTP/1.1\r\nHost: a\r\n\r\n")
                slow.send_read(f"GET /busy?{tmp_path}/second HTTP/1.1\r\nHost: a\r\n\r\n")
                (tmp_path / "first").touch()
                assert quick.response().body == b"yes"
                (tmp_path / "second").touch()
                assert slow.response().status == 200

    def test_a_line_for_each_request(self, greenlets, tmp_path):
        served = greenlets("--access-log", "access.log", "--access-log-format", "%(m)s %(U)s %(s)s %(B)s")
        served.get("/ready")
        served.get("/nowhere")
        assert served.terminate() == 0
        assert (tmp_path / "access.log").read_text().splitlines() == ["GET /ready 200 3", "GET /nowhere 500 26"]

    def test_requests_are_profiled_one_at_a_time(self, greenlets, gate, tmp_path):
        served = greenlets("--profiler", "profiles", "--local-hosts", "test")
        clients = [ask(served, f"/gate?{gate.name}") for _ in range(5)]
        gate.wait_for(1)
        for client in clients:
            served.wait_until(client.is_read, "that the request is read")
        gate.open()
        assert {client.response().body for client in clients} == {b"waited"}
        assert served.get("/__profile__").status == 200
        assert len(list((tmp_path / "profiles").glob("req_*.prof"))) == 5


class TestRefusals:
    def test_without_gevent_nothing_starts(self, run, tmp_path):
        (tmp_path / "sitecustomize.py").write_text(
            "import importlib.util as util\nfind = util.find_spec\n"
            "util.find_spec = lambda name, *more: None if name == 'gevent' else find(name, *more)\n"
        )
        ended = run(APP, *GEVENT, "--port", "0", environment={"PYTHONPATH": str(tmp_path)})
        assert ended.returncode == 3
        assert ended.stderr == "anygate: error: --concurrency: gevent is not installed: pip install gevent\n"

    def python(self, code, **options):
        command = [sys.executable, "-c", code]
        return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False, **options)

    def test_a_server_inside_a_program_has_threads(self):
        ended = self.python("import anygate; anygate.Server(print, concurrency='gevent')")
        assert "ValueError: concurrency: a Server runs requests in threads" in ended.stderr

    def test_an_application_that_was_imported_unpatched_is_refused(self):
        ended = self.python("import anygate; anygate.serve(print, port=0, concurrency='gevent')")
        assert "ValueError: concurrency: gevent patches the standard library before" in ended.stderr

    def test_a_program_that_was_patched_at_its_beginning_is_served(self, launch, gate):
        code = (
            "from gevent import monkey; monkey.patch_all()\n"
            "import sys; sys.path.insert(0, sys.argv[1])\n"
            "import anygate, greenlets\n"
            "anygate.serve(greenlets.application, port=0, concurrency='gevent')\n"
        )
        served = launch(command=[sys.executable, "-c", code, APPS]).wait_ready()
        waiting = [ask(served, f"/gate?{gate.name}") for _ in range(50)]
        gate.wait_for(50)
        goes_on(served)
        gate.open()
        assert {connection.response().body for connection in waiting} == {b"waited"}


def test_hubs_that_are_there_before_the_fork_work_after_it(serve, tmp_path):
    """The application uses gevent while it is imported, in the supervisor."""
    (tmp_path / "app.py").write_text(
        "import gevent, threading\n"
        "ticks = []\n"
        "def tick():\n"
        "    while True:\n        ticks.append(1)\n        gevent.sleep(0.01)\n"
        "gevent.spawn(tick)\ngevent.sleep(0.05)\n"
        "def app(environ, start_response):\n"
        "    before = len(ticks)\n    while len(ticks) <= before + 5: gevent.sleep(0.01)\n"
        "    start_response('200 OK', [])\n    return [b'it goes on']\n"
    )
    served = serve("app:app", "--preload", "--workers", "2", *GEVENT)
    assert served.get().text == "it goes on"


class TestWeb2py:
    def test_a_site_is_served_with_its_static_files(self, serve, tmp_path):
        site = tmp_path / "site"
        shutil.copytree(SITE, site)
        (site / "applications/guestbook/static").mkdir(exist_ok=True)
        (site / "applications/guestbook/static/a.txt").write_text("static")
        served = serve("--web2py", site, *GEVENT)
        assert served.get("/guestbook/default/client").status == 200
        with served.connect() as connection:
            assert connection.ask("GET", "/guestbook/static/a.txt").body == b"static"
            assert connection.ask("GET", "/guestbook/static/a.txt").body == b"static"

    def test_a_session_that_is_in_use_stops_nobody_else(self, serve, gate, tmp_path):
        shutil.copytree(SITE, tmp_path / "site")
        served = serve("--web2py", tmp_path / "site", *GEVENT)
        first = served.get("/guestbook/default/counter")
        cookies = "; ".join(value.split(";")[0] for name, value in first.fields if name.lower() == "set-cookie")
        naps = [ask(served, f"/guestbook/default/nap?gate={gate.name}", f"Cookie: {cookies}\r\n") for _ in range(3)]
        for count in (1, 2, 3):
            gate.wait_for(count)
            assert served.get("/guestbook/default/client").status == 200
            gate.let_one_go()
        responses = [nap.response() for nap in naps]
        assert {response.status for response in responses} == {200}
        took = sorted(tuple(map(float, response.text.split())) for response in responses)
        assert [number for number, _, _ in took] == [1, 2, 3]
        assert all(before[2] <= after[1] for before, after in itertools.pairwise(took))

    def test_environment_of_the_worker_is_patched_before_the_application_is_imported(self, serve, tmp_path):
        (tmp_path / "app.py").write_text(
            "import json, socket, ssl, threading, time\n"
            "names = {m.__name__: type(getattr(m, n)).__module__ + ' ' + getattr(m, n).__module__\n"
            "    for m, n in [(socket, 'socket'), (time, 'sleep'), (ssl, 'SSLContext')]}\n"
            "def app(environ, start_response):\n"
            "    start_response('200 OK', [])\n    return [json.dumps(names).encode()]\n"
        )
        served = serve("app:app", *GEVENT)
        assert all("gevent" in module for module in json.loads(served.get().body).values())
        assert "Warning" not in served.log()


def test_descriptors_of_connections_are_closed(greenlets):
    """Descriptors are not used up, whatever comes and goes."""
    served = greenlets()
    (worker,) = served.workers()
    goes_on(served)
    before = len(os.listdir(f"/proc/{worker}/fd"))

    def client():
        for _ in range(20):
            served.get("/ready")

    clients = [threading.Thread(target=client) for _ in range(5)]
    for thread in clients:
        thread.start()
    for thread in clients:
        thread.join()
    served.wait_until(lambda: len(os.listdir(f"/proc/{worker}/fd")) <= before + 1, "descriptors to be closed")


PATCHED = """
from gevent import monkey, get_hub

def application(environ, start_response):
    start_response("200 OK", [])
    hub = get_hub()
    parts = [part for part in ("socket", "ssl", "select", "threading", "time") if monkey.is_module_patched(part)]
    return [" ".join([*parts, type(hub.loop).__module__, type(hub.resolver).__module__]).encode()]
"""


@pytest.mark.parametrize("preload", [[], ["--preload"]], ids=str)
def test_parts_of_the_library_are_patched_as_the_option_says(serve, tmp_path, preload):
    (tmp_path / "app.py").write_text(PATCHED)
    chosen = ("--gevent-patch", "socket", "--gevent-patch", "select")
    served = serve("--concurrency", "gevent", *chosen, *preload, "app", folder=tmp_path)
    assert served.get().text.split()[:-2] == ["socket", "select"]
    served.kill()
    served = serve("--concurrency", "gevent", *preload, "app", folder=tmp_path)
    assert served.get().text.split()[:-2] == ["socket", "ssl", "select", "threading", "time"]


def test_a_part_that_gevent_does_not_know_is_refused(run):
    ended = run("--concurrency", "gevent", "--gevent-patch", "sockets", "app")
    assert ended.returncode == 2
    assert "--gevent-patch: " in ended.stderr


def test_variables_of_gevent_choose_loop_and_resolver(serve, tmp_path):
    (tmp_path / "app.py").write_text(PATCHED)
    variables = {"GEVENT_LOOP": "libuv-cffi", "GEVENT_RESOLVER": "ares"}
    served = serve("--concurrency", "gevent", "app", folder=tmp_path, environment=variables)
    assert served.get().text.split()[-2:] == ["gevent.libuv.loop", "gevent.resolver.ares"]


class TestGuide:
    """docs/guide/greenlets.md, word for word."""

    TEXT = (ROOT / "docs" / "guide" / "greenlets.md").read_text()

    # Variables that stand before a command are tried above.
    @pytest.mark.parametrize("line", re.findall(r"^anygate .*", TEXT, re.MULTILINE))
    def test_its_commands_work(self, launch, tmp_path, line):
        shutil.copytree(SITE, tmp_path / "web2py")
        body = "def app(environ, start_response):\n    start_response('200 OK', [])\n    return [b'myapp']\n"
        (tmp_path / "myapp.py").write_text(body)
        words = [word for word in shlex.split(line) if word not in ("-p", "8000")]
        folder = tmp_path if "myapp:app" in line else tmp_path / "web2py"
        served = launch(*words[1:], "-p", free_port(), folder=folder).wait_ready()
        target = "/" if "myapp:app" in line else "/guestbook/default/client"
        assert served.get(target).status == 200
        if "-l" in words:
            served.wait_until(lambda: (folder / "httpserver.log").read_text(), "a line")

    def test_the_lines_for_a_program_of_ones_own_come_before_everything_else(self):
        (lines,) = re.findall(r"```python\n(.*?)```", self.TEXT, re.DOTALL)
        assert lines == "from gevent import monkey\n\nmonkey.patch_all()\n"
