"""Signals: which of them are orders, and that no other one ends anything."""

import contextlib
import os
import signal
import socket
import sys
from pathlib import Path

import gateways
import pytest
from conftest import ANYGATE, APPS
from http2_frames import NO_ERROR, Client, plain
from waiting import let_pass
from wire import Datagrams

CONTRACT = APPS / "contract.py"
#: A second signal to end that comes sooner is the same.
SAME_SIGNAL = (1.5, "signals within half a second are one")


def tree(served):
    """All processes, the supervisor first."""
    return [served.pid, *served.processes()]


def held(served, gate, count=1):
    connection = served.connect().send(f"GET /gate?{gate.name} HTTP/1.1\r\nHost: a\r\n\r\n")
    gate.wait_for(count)
    return connection


@pytest.mark.parametrize("options", [(), ("--preload",), ("--concurrency", "gevent")])
class TestEndOfAllProcesses:
    """Service managers, terminals and ``timeout`` tell each process."""

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
    @pytest.mark.parametrize("order", [1, -1])
    def test_requests_in_flight_get_responses(self, serve, gate, options, number, order):
        served = serve(CONTRACT, "--workers", "2", *options)
        with held(served, gate) as connection:
            for pid in tree(served)[::order]:
                # An idle worker may have ended by the order of a supervisor that was told first.
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
            served.wait_refused()
            gate.open()
            assert connection.response().status == 200
        assert served.wait() == 0

    def test_the_same_signal_twice_in_a_moment_is_one(self, serve, gate, options):
        served = serve(CONTRACT, *options)
        with held(served, gate) as connection:
            served.send_signal(signal.SIGTERM)
            served.wait_for_log("stopping: workers finish")
            served.send_signal(signal.SIGTERM)
            served.wait_refused()
            gate.open()
            assert connection.response().status == 200
        assert served.wait() == 0
        assert "stopping at once" not in served.log()

    def test_a_signal_to_a_worker_has_it_replaced_and_cuts_nothing(self, serve, gate, options):
        served = serve(CONTRACT, *options)
        (worker,) = served.workers()
        with held(served, gate) as connection:
            os.kill(worker, signal.SIGTERM)
            served.wait_for_log(f"worker {worker} was told to end by a signal")
            served.wait_until(lambda: set(served.workers()) - {worker}, "another worker")
            gate.open()
            assert connection.response().status == 200
        served.wait_until(lambda: worker not in served.workers(), "the worker to leave")
        assert served.get("/pid").status == 200


@pytest.mark.parametrize("options", [(), ("--preload",)])
def test_the_end_does_not_wait_for_an_import(launch, tmp_path, options):
    os.mkfifo(tmp_path / "nobody-writes")
    (tmp_path / "app.py").write_text("import os\nos.close(os.open('imports', os.O_CREAT))\nopen('nobody-writes')\n")
    served = launch("app:app", "--port", "0", *options)
    served.wait_until((tmp_path / "imports").exists, "the import")
    assert served.terminate() == 0


@pytest.mark.parametrize("handler", ["signal.SIG_IGN", "lambda *_: None"])
@pytest.mark.parametrize("options", [(), ("--preload",), ("--concurrency", "gevent")])
def test_handlers_of_the_application_change_nothing_of_the_end(serve, tmp_path, handler, options):
    (tmp_path / "app.py").write_text(
        "import signal\n"
        f"signal.signal(signal.SIGTERM, {handler})\n"
        "def app(environ, start_response):\n    start_response('200 OK', [])\n    return [b'x']\n"
    )
    served = serve("app:app", *options)
    workers = served.workers()
    assert served.terminate() == 0
    for pid in workers:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


GOES_ON = """
def handle(number, frame):
    with open("told", "a") as told:
        told.write(f"{os.getpid()}\\n")
    if callable(before):
        before(number, frame)
    elif before is signal.SIG_DFL:
        signal.signal(number, before)
        os.kill(os.getpid(), number)
before = signal.signal(signal.SIGTERM, handle)
"""


@pytest.mark.parametrize("options", [(), ("--preload",), ("--concurrency", "gevent")])
@pytest.mark.parametrize("to_all", [False, True])
def test_handlers_of_term_are_called_and_go_on_to_the_one_before(serve, tmp_path, gate, options, to_all):
    (tmp_path / "app.py").write_text(
        f"import os, signal, sys\n{GOES_ON}"
        f"sys.path.append({str(APPS)!r})\n"
        "from gates import wait_at\n"
        "def app(environ, start_response):\n"
        "    wait_at(environ['QUERY_STRING'])\n    start_response('200 OK', [])\n    return [b'whole']\n"
    )
    served = serve("app:app", *options)
    (worker,) = served.workers()
    with served.connect() as connection:
        connection.send(f"GET /?{gate.name} HTTP/1.1\r\nHost: a\r\n\r\n")
        gate.wait_for()
        for pid in (worker, served.pid) if to_all else (served.pid,):
            os.kill(pid, signal.SIGTERM)
        told = tmp_path / "told"
        served.wait_until(lambda: told.exists() and str(worker) in told.read_text(), "the handler's call")
        served.wait_refused()
        gate.open()
        assert connection.response().body == b"whole"
    assert served.wait() == 0


@pytest.mark.parametrize("handler", ["signal.default_int_handler", "lambda *_: sys.exit(1)"])
@pytest.mark.parametrize("options", [(), ("--preload",), ("--concurrency", "gevent")])
def test_handlers_that_raise_cut_nothing_off(serve, tmp_path, gate, handler, options):
    """Neither a request nor the work that goes on after it, though the signal comes to all processes, and again."""
    (tmp_path / "app.py").write_text(
        "import signal, sys, threading\n"
        f"sys.path.append({str(APPS)!r})\n"
        "from gates import wait_at\n"
        f"signal.signal(signal.SIGINT, {handler})\n"
        "def work(gate):\n    wait_at(gate)\n    open('done', 'w').close()\n"
        "def app(environ, start_response):\n"
        "    gate = environ['QUERY_STRING']\n"
        "    threading.Thread(target=work, args=(gate,)).start()\n"
        "    wait_at(gate)\n    start_response('200 OK', [])\n    return [b'whole']\n"
    )
    served = serve("app:app", *options)
    workers = served.workers()
    with served.connect() as connection:
        connection.send(f"GET /?{gate.name} HTTP/1.1\r\nHost: a\r\n\r\n")
        gate.wait_for(2)
        for pid in (*workers, served.pid):
            os.kill(pid, signal.SIGINT)
        served.wait_refused()
        for pid in workers:
            os.kill(pid, signal.SIGINT)
        gate.open()
        assert connection.response().body == b"whole"
    assert served.wait() == 0
    assert (tmp_path / "done").exists()


@pytest.mark.parametrize("options", [(), ("--preload",), ("--admin", "unix:admin.sock")])
def test_nothing_ends_by_a_signal_without_a_meaning(serve, options):
    served = serve(CONTRACT, *options)
    numbers = [signal.SIGUSR2, signal.SIGWINCH, signal.SIGIO, signal.SIGPWR, signal.SIGRTMIN, signal.SIGRTMAX]
    before = tree(served)
    for number in numbers:
        for pid in before:
            os.kill(pid, number)
    for number in (signal.SIGALRM, signal.SIGVTALRM, signal.SIGPROF):
        served.send_signal(number)
    for number in (signal.SIGHUP, signal.SIGTTIN, signal.SIGTTOU):
        for pid in before[1:]:
            os.kill(pid, number)
    # It takes notice of signals in turn.
    served.send_signal(signal.SIGTTIN)
    served.wait_until(lambda: len(served.processes()) == len(before), "a second worker")
    assert set(before) < set(tree(served))
    assert served.get("/pid").status == 200


def test_a_tool_that_runs_it_keeps_its_signal_and_its_arguments(serve):
    tool = ["valgrind", "--quiet", "--tool=none", "--trace-children=yes"]
    served = serve(CONTRACT, command=[*tool, ANYGATE])
    assert served.get("/pid").status == 200
    assert Path(f"/proc/{served.pid}/cmdline").read_text().split("\0")[1:4] == tool[1:]


HOLDS_ALL = """
import os, signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
os.execv(sys.argv[1], sys.argv[1:])
"""


@pytest.mark.parametrize("options", [[], ["--preload"], ["--concurrency", "gevent"]])
@pytest.mark.parametrize("starter", [[], [sys.executable, "-c", HOLDS_ALL]])
def test_whatever_signals_the_starter_holds_all_end_programs_and_the_server(serve, tmp_path, starter, options):
    (tmp_path / "app.py").write_text(
        "import signal, subprocess\n"
        "def app(environ, start_response):\n"
        "    child = subprocess.Popen(['sleep', '1000'])\n"
        "    child.send_signal(signal.SIGUSR2)\n"
        "    start_response('200 OK', [])\n    return [str(child.wait()).encode()]\n"
    )
    served = serve("app:app", *options, command=[*starter, ANYGATE])
    assert served.get().text == str(-signal.SIGUSR2)
    assert served.terminate() == 0


class TestDrainDelay:
    """Between a signal to end and the end of accepting."""

    @pytest.fixture
    def leaving(self, serve):
        served = serve(CONTRACT, "--ready-path", "/ready", "--drain-delay", "1h")
        assert served.get("/ready").status == 200
        served.send_signal(signal.SIGTERM)
        served.wait_until(lambda: served.get("/ready").status == 503, "the news that it stops")
        return served

    def test_newcomers_are_served_and_told_to_go_elsewhere(self, leaving):
        response = leaving.get("/pid")
        assert (response.status, response["connection"]) == (200, "close")
        leaving.kill()

    def test_idle_connections_get_one_more_response(self, serve):
        served = serve(CONTRACT, "--ready-path", "/ready", "--drain-delay", "1h")
        with served.connect() as used, served.connect() as unused:
            assert used.ask("GET", "/pid")["connection"] != "close"
            served.send_signal(signal.SIGTERM)
            served.wait_until(lambda: served.get("/ready").status == 503, "the news that it stops")
            for connection in (used, unused):
                response = connection.ask("GET", "/pid")
                assert (response.status, response["connection"]) == (200, "close")
                assert connection.is_closed()
        served.kill()

    def test_clients_of_http2_are_told_to_go_elsewhere(self, serve, gate):
        served = serve(CONTRACT, "--drain-delay", "1h")
        with Client(plain(served.address)) as used, Client(plain(served.address)) as unused:
            waiting = used.begin("GET", f"/gate?{gate.name}")
            gate.wait_for()
            served.send_signal(signal.SIGTERM)
            while used.goaway is None:
                assert used.pump()
            # Streams in flight have all the time they need, and one that is new here is served.
            assert unused.ask("GET", "/pid").status == 200
            unused.wait_closed()
            gate.open()
            assert used.wait(waiting).status == 200
            used.wait_closed()
            assert (used.goaway.error, unused.goaway.error) == (NO_ERROR, NO_ERROR)
        served.kill()

    def test_kept_fastcgi_connections_are_kept(self, serve):
        """They cannot be told to go elsewhere, and a front server may have sent the next request already."""
        served = serve(
            CONTRACT, "--bind", "fastcgi://127.0.0.1:0", "--bind", "http://127.0.0.1:0", "--drain-delay", "1h"
        )
        front, client = served.addresses
        with served.connect(front) as connection:
            served.send_signal(signal.SIGTERM)
            served.wait_for_log("(drain_delay)")
            with served.connect(client) as other:
                other.ask("GET", "/pid")
            for number in (1, 2):
                connection.send(gateways.fastcgi(gateways.variables(target="/pid"), number=number, keep=True))
                while gateways.stdout(connection.buffer, number)[1] is None:
                    assert connection.more()
                assert gateways.cgi_response(gateways.stdout(connection.buffer, number)[0])[0] == 200
        served.kill()

    def test_a_second_signal_skips_it_and_cuts_nothing(self, leaving, gate):
        with held(leaving, gate) as connection:
            let_pass(*SAME_SIGNAL)
            leaving.send_signal(signal.SIGTERM)
            leaving.wait_refused()
            gate.open()
            assert connection.response().status == 200
        assert leaving.wait() == 0

    def test_a_third_cuts_off(self, leaving, gate):
        with held(leaving, gate):
            for _ in range(2):
                let_pass(*SAME_SIGNAL)
                leaving.send_signal(signal.SIGTERM)
            assert leaving.wait() == 0
        leaving.wait_for_log("stopping at once")

    def test_ctrl_c_skips_it(self, serve):
        served = serve(CONTRACT, "--drain-delay", "1h")
        assert served.terminate(signal.SIGINT) == 0

    def test_it_ends_of_itself(self, serve):
        served = serve(CONTRACT, "--drain-delay", "100ms")
        assert served.terminate() == 0
        served.wait_for_log("stopping in 100ms (drain_delay)")


def test_fastcgi_requests_that_wait_behind_another_get_responses(serve, gate):
    served = serve(CONTRACT, "--bind", "fastcgi://127.0.0.1:0")
    with served.connect() as connection:
        for number, target in ((1, f"/gate?{gate.name}"), (2, "/pid")):
            connection.send(gateways.fastcgi(gateways.variables(target=target), number=number, keep=True))
        gate.wait_for()
        served.send_signal(signal.SIGTERM)
        served.wait_refused()
        gate.open()
        while gateways.stdout(connection.buffer, 2)[1] is None:
            assert connection.more(), connection.buffer
        assert not connection.more()
    assert served.wait() == 0


@pytest.mark.parametrize("options", [(), ("--preload",), ("--concurrency", "gevent")])
@pytest.mark.parametrize("begin", ["threading.Thread(target=work).start()", "pool.submit(work)"])
def test_work_that_goes_on_after_a_response_is_finished(serve, tmp_path, gate, options, begin):
    (tmp_path / "app.py").write_text(
        "import sys, threading\n"
        f"sys.path.append({str(APPS)!r})\n"
        "from concurrent.futures import ThreadPoolExecutor\n"
        "from gates import wait_at\n"
        "pool = ThreadPoolExecutor(2)\n"
        "def work():\n"
        f"    wait_at({gate.name!r})\n    open('done', 'w').close()\n"
        "def app(environ, start_response):\n"
        f"    {begin}\n    start_response('202 Accepted', [])\n    return [b'later']\n"
    )
    served = serve("app:app", *options)
    assert served.get().status == 202
    gate.wait_for()
    served.send_signal(signal.SIGTERM)
    served.wait_refused()
    gate.open()
    assert served.wait() == 0
    assert (tmp_path / "done").exists()


def test_work_that_does_not_end_is_waited_for_until_graceful_timeout(serve, tmp_path):
    (tmp_path / "app.py").write_text(
        "import threading\n"
        "def app(environ, start_response):\n"
        "    threading.Thread(target=threading.Event().wait).start()\n"
        "    start_response('202 Accepted', [])\n    return [b'later']\n"
    )
    served = serve("app:app", "--graceful-timeout", "1s")
    assert served.get().status == 202
    assert served.terminate() == 0


def test_the_assistant_does_not_miss_a_supervisor_that_ends(serve, tmp_path):
    served = serve(CONTRACT, "--admin", f"unix:{tmp_path / 'admin.sock'}")
    assert served.terminate() == 0
    served.wait_for_log("stopping: workers finish")
    assert "the supervisor is gone" not in served.log()


class TestServiceManager:
    @pytest.fixture
    def manager(self, tmp_path):
        return Datagrams(tmp_path / "notify")

    def test_it_is_told_of_readiness_reload_and_end(self, serve, manager, tmp_path):
        environment = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "100000"}
        limits = ("--worker-start-timeout", "60s", "--graceful-timeout", "30s", "--drain-delay", "1h")
        served = serve(CONTRACT, *limits, environment=environment)

        def wait_for(word):
            while word not in (told := manager.receive().decode()).split("\n"):
                pass
            return told

        assert "EXTEND_TIMEOUT_USEC=70000000" in wait_for("STATUS=Starting workers")
        assert "STATUS=Serving with 1 workers" in wait_for("READY=1")
        wait_for("WATCHDOG=1")
        wait_for("WATCHDOG=1")
        served.send_signal(signal.SIGHUP)
        told = wait_for("RELOADING=1")
        assert "MONOTONIC_USEC=" in told
        assert "EXTEND_TIMEOUT_USEC=70000000" in told
        wait_for("READY=1")
        served.send_signal(signal.SIGTERM)
        # drain_delay and graceful_timeout are the site's: a service manager with less patience cuts nothing off.
        assert "EXTEND_TIMEOUT_USEC=3640000000" in wait_for("STOPPING=1")
        let_pass(*SAME_SIGNAL)
        served.send_signal(signal.SIGTERM)
        assert "EXTEND_TIMEOUT_USEC=40000000" in wait_for("STATUS=Finishing requests")
        assert served.wait() == 0

    def test_a_reload_that_fails_ends(self, serve, manager, tmp_path):
        (tmp_path / "app.py").write_text(
            "def app(environ, start_response):\n    start_response('200 OK', [])\n    return []\n"
        )
        served = serve("app:app", environment={"NOTIFY_SOCKET": str(tmp_path / "notify")})
        (tmp_path / "app.py").write_text("no code")
        served.send_signal(signal.SIGHUP)
        told = []
        while not told or not told[-1].startswith("RELOADING=1"):
            told.append(manager.receive().decode())
        assert manager.receive().decode().startswith("READY=1\n")

    @pytest.mark.parametrize("preload", [(), ("--preload",)])
    def test_its_variables_are_for_nobody_else(self, serve, manager, tmp_path, preload):
        (tmp_path / "app.py").write_text(
            "import os, subprocess\n"
            "def app(environ, start_response):\n"
            "    start_response('200 OK', [])\n    return [subprocess.run(['env'], capture_output=True).stdout]\n"
        )
        own = {
            "NOTIFY_SOCKET": str(tmp_path / "notify"),
            "LISTEN_PID": "1",
            "LISTEN_FDS": "2",
            "LISTEN_FDNAMES": "http",
        }
        own |= {"WATCHDOG_USEC": "10000000", "WATCHDOG_PID": "1"}
        names = [line.partition("=")[0] for line in serve("app:app", *preload, environment=own).get().text.split("\n")]
        assert "PATH" in names
        assert not own.keys() & set(names)

    def test_its_sockets_are_served(self, launch):
        with contextlib.ExitStack() as stack:
            sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(2)]
            code = (
                "import fcntl, os, sys\n"
                "copies = [fcntl.fcntl(int(number), fcntl.F_DUPFD, 10) for number in sys.argv[1:3]]\n"
                "for number, copy in enumerate(copies, 3):\n    os.dup2(copy, number)\n"
                "os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='2', LISTEN_FDNAMES='http:scgi')\n"
                "os.execv(sys.argv[3], sys.argv[3:])\n"
            )
            numbers = [str(one.fileno()) for one in sockets]
            served = launch(
                CONTRACT,
                command=[sys.executable, "-c", code, *numbers, ANYGATE],
                pass_fds=[one.fileno() for one in sockets],
            )
            served.wait_for_log(" serves ")
            addresses = [one.getsockname() for one in sockets]
            with served.connect(addresses[0]) as connection:
                assert connection.ask("GET", "/pid").status == 200
            port = addresses[1][1]
            served.wait_for_log(f"scgi://127.0.0.1:{port}")
            assert served.terminate() == 0
