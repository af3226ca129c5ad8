"""The process tree: start, end, death and replacement, overload and loss of the supervisor."""

import contextlib
import itertools
import os
import pwd
import re
import select
import shutil
import signal
import socket
from pathlib import Path

import anygate
import pytest
from anygate.importer import LoadError, load
from conftest import ANYGATE, APPS
from waiting import Gate, let_pass, lives, stop

CONTRACT = APPS / "contract.py"
#: A second signal to end that comes sooner is the same.
SAME_SIGNAL = (1.5, "signals within half a second are one")
#: A connection that was used within a second before the end may have its next request on the way.
IDLE = (1.1, "a connection that was just used is kept for its next request")
GET = "GET /echo HTTP/1.1\r\nHost: a\r\n\r\n"
#: A worker that was ready for a second is replaced at once when it dies.
LIVED = (1.1, "a worker that dies within a second of its start is replaced later")


def held(served, gate, count=1, address=None):
    """A connection whose request waits inside of the application, as the ``count``-th of the gate."""
    connection = served.connect(address).send(f"GET /gate?{gate.name} HTTP/1.1\r\nHost: a\r\n\r\n")
    gate.wait_for(count)
    return connection


def test_the_terminal_says_what_is_served(serve):
    served = serve(CONTRACT, "--workers", "2", "--threads", "3")
    host, port = served.address
    served.wait_for_log(f"serves {CONTRACT} on http://{host}:{port} with 2 workers of 3 threads; Ctrl-C stops it")


def test_as_many_workers_as_asked_for_share_the_work(serve):
    served = serve(CONTRACT, "--workers", "3", "--threads", "1")
    workers = {str(pid) for pid in served.workers()}
    assert len(workers) == 3
    responded = set()

    def ask():
        with Gate() as gate:
            request = f"GET /gate?{gate.name} HTTP/1.1\r\nHost: a\r\n\r\n"
            connections = [served.connect().send_read(request) for _ in range(3)]
            gate.wait_for(1)
        responded.update(connection.response().text for connection in connections)
        return responded == workers

    served.wait_until(ask, "a response of each worker")
    assert served.get("/echo").json["wsgi.multiprocess"] is True


class TestEnd:
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
    def test_signals_end_it_with_code_0(self, serve, number):
        served = serve(CONTRACT, "--workers", "2")
        workers = served.workers()
        assert served.terminate(number) == 0
        assert not any(lives(pid) for pid in workers)

    @pytest.mark.parametrize("options", [[], ["--preload"], ["--bind", "unix:a.sock"]], ids=["tcp", "preload", "unix"])
    @pytest.mark.parametrize("workers", [1, 2])
    def test_connections_that_wait_to_be_accepted_get_responses(self, serve, options, workers):
        served = serve(CONTRACT, "--workers", str(workers), *options)
        pids = served.workers()
        for pid in pids:
            stop(pid)
        waiting = [served.connect().send(GET) for _ in range(8)]
        served.send_signal(signal.SIGTERM)
        served.wait_for_log("stopping: workers finish their requests")
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
        assert [connection.response().status for connection in waiting] == [200] * 8
        assert served.wait() == 0

    @pytest.mark.parametrize("concurrency", ["threads", "gevent"])
    def test_connections_over_the_limit_that_wait_get_responses(self, serve, gate, concurrency):
        served = serve(CONTRACT, "--connections-max", "3", "--threads", "4", "--concurrency", concurrency)
        busy = [held(served, gate, count) for count in range(1, 4)]
        waiting = [served.connect().send(GET) for _ in range(3)]
        served.send_signal(signal.SIGTERM)
        served.wait_until(lambda: all(connection.is_read() for connection in waiting), "that all are accepted")
        gate.open()
        assert [connection.response().status for connection in busy + waiting] == [200] * 6
        assert served.wait() == 0

    @pytest.mark.parametrize("concurrency", ["threads", "gevent"])
    def test_requests_that_came_on_idle_connections_get_responses(self, serve, concurrency):
        if concurrency == "gevent":
            pytest.importorskip("gevent")
        served = serve(CONTRACT, "--workers", "1", "--concurrency", concurrency)
        connections = [served.connect() for _ in range(8)]
        for connection in connections:
            assert connection.send(GET).response().status == 200
        [pid] = served.workers()
        let_pass(*IDLE)
        stop(pid)
        served.send_signal(signal.SIGTERM)
        served.wait_for_log("stopping: workers finish their requests")
        for connection in connections:
            connection.send(GET)
        os.kill(pid, signal.SIGCONT)
        assert [connection.response().status for connection in connections] == [200] * 8
        assert served.wait() == 0

    def test_requests_in_flight_get_responses_first(self, serve, gate):
        served = serve(CONTRACT)
        with held(served, gate) as connection:
            served.send_signal(signal.SIGTERM)
            served.wait_refused()
            gate.open()
            response = connection.response()
            assert response.status == 200
            assert response["connection"] == "close"
        assert served.wait() == 0

    def test_a_request_that_is_half_sent_may_be_finished(self, serve):
        served = serve(CONTRACT)
        with served.connect() as connection:
            connection.send_read("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nha")
            served.send_signal(signal.SIGTERM)
            served.wait_refused()
            connection.send("lf")
            assert connection.response().json["body"] == "half"
        assert served.wait() == 0

    def test_idle_connections_do_not_delay_the_end(self, serve):
        served = serve(CONTRACT, "--graceful-timeout", "1h", "--keepalive-timeout", "1h")
        connections = [served.connect() for _ in range(20)]
        for connection in connections:
            connection.ask("GET", "/pid")
        assert served.terminate() == 0

    def test_no_new_connection_is_taken(self, serve, gate):
        served = serve(CONTRACT)
        with held(served, gate) as connection:
            served.send_signal(signal.SIGTERM)
            served.wait_refused()
            gate.open()
            assert connection.response().status == 200
        assert served.wait() == 0
        with pytest.raises(ConnectionRefusedError):
            served.connect()

    @pytest.mark.parametrize("workers", ["1", "3"])
    def test_who_waits_gets_a_response_and_who_comes_later_is_refused(self, serve, gate, workers):
        served = serve(CONTRACT, "--workers", workers, "--threads", "1")
        request = f"GET /gate?{gate.name} HTTP/1.1\r\nHost: a\r\n\r\n"
        busy = [served.connect().send_read(request) for _ in range(int(workers))]
        gate.wait_for(1)
        waiting = [served.connect().send("GET /pid HTTP/1.1\r\nHost: a\r\n\r\n") for _ in range(20)]
        served.send_signal(signal.SIGTERM)
        served.wait_refused()
        # Long before the end: whoever is refused can ask another server.
        assert lives(served.pid)
        gate.open()
        for connection in (*busy, *waiting):
            assert connection.response().status == 200
        assert served.wait() == 0

    def test_a_unix_socket_goes_when_the_end_begins(self, serve, gate, tmp_path):
        path = tmp_path / "app.sock"
        served = serve(CONTRACT, "--bind", f"unix:{path}", "--threads", "1")
        busy = held(served, gate, address=str(path))
        served.send_signal(signal.SIGTERM)
        served.wait_until(lambda: not path.exists(), "the end of the socket's file")
        # Another server may begin there while this one finishes.
        other = serve(CONTRACT, "--bind", f"unix:{path}")
        gate.open()
        assert busy.response().status == 200
        assert served.wait() == 0
        assert other.get("/pid").status == 200

    def test_a_second_signal_ends_it_at_once(self, serve, gate):
        served = serve(CONTRACT, "--graceful-timeout", "1h")
        with held(served, gate):
            served.send_signal(signal.SIGTERM)
            served.wait_for_log("stopping: workers finish")
            let_pass(*SAME_SIGNAL)
            served.send_signal(signal.SIGTERM)
            assert served.wait() == 0

    def test_graceful_timeout_ends_what_does_not_finish(self, serve, gate):
        served = serve(CONTRACT, "--graceful-timeout", "1s")
        workers = served.workers()
        with held(served, gate):
            assert served.terminate() == 0
        assert not any(lives(pid) for pid in workers)

    def test_functions_registered_with_atexit_run_in_workers(self, serve, tmp_path):
        (tmp_path / "app.py").write_text(
            "import atexit, pathlib\n"
            "atexit.register(lambda: pathlib.Path('ended').write_text('yes'))\n"
            "print('not flushed', end='')\n"
            "def app(environ, start_response):\n    start_response('200 OK', [])\n    return [b'x']\n"
        )
        served = serve("app:app", environment={"PYTHONUNBUFFERED": ""})
        assert served.terminate() == 0
        assert (tmp_path / "ended").read_text() == "yes"
        assert "not flushed" in served.stdout()


class TestDeath:
    def test_a_killed_worker_is_replaced_at_once(self, serve):
        served = serve(CONTRACT)
        let_pass(*LIVED)
        (before,) = served.workers()
        os.kill(before, signal.SIGKILL)
        assert served.get("/pid").text != str(before)
        # Others, which may be broken, are replaced later.
        served.wait_until(
            lambda: re.search(rf"worker {before} ended with signal KILL.*; replacing it$", served.log(), re.MULTILINE),
            "a message",
        )

    def test_the_new_worker_is_asked_while_the_other_is_busy(self, serve, gate):
        served = serve(CONTRACT, "--workers", "2", "--threads", "1")
        with contextlib.ExitStack() as waiting:
            waiting.enter_context(held(served, gate))

            def responded():
                """While no other is there the busy one takes what comes."""
                asked = waiting.enter_context(served.connect()).send("GET /pid HTTP/1.1\r\nHost: a\r\n\r\n")
                return asked if select.select([asked.socket], [], [], 0.2)[0] else None

            idle = served.wait_until(responded, "the other worker").response().text
            os.kill(int(idle), signal.SIGKILL)
            served.wait_until(responded, "the new worker")
            # The busy one takes one that the other has left for long, because others had their turn.
            others = 0
            for _ in range(50):
                asked = waiting.enter_context(served.connect()).send("GET /pid HTTP/1.1\r\nHost: a\r\n\r\n")
                others += bool(select.select([asked.socket], [], [], 5)[0]) and asked.response().text != idle
            assert others >= 40
            served.process.kill()

    def test_other_workers_do_not_notice(self, serve):
        served = serve(CONTRACT, "--workers", "2")
        let_pass(*LIVED)
        connections = [served.connect() for _ in range(10)]
        pids = [connection.ask("GET", "/pid").text for connection in connections]
        victim, *_ = served.workers()
        os.kill(victim, signal.SIGKILL)
        for connection, pid in zip(connections, pids, strict=True):
            if pid != str(victim):
                assert connection.ask("GET", "/pid").text == pid
        served.wait_until(lambda: len(served.workers()) == 2, "the replacement")

    @pytest.mark.parametrize("how", ["os._exit(9)", "os.abort()", "ctypes.string_at(0)"])
    def test_a_crash_ends_only_its_own_request(self, serve, tmp_path, how):
        (tmp_path / "app.py").write_text(
            "import ctypes, os\n"
            "def app(environ, start_response):\n"
            f"    if environ['PATH_INFO'] == '/crash': {how}\n"
            "    start_response('200 OK', [])\n    return [b'alive']\n"
        )
        served = serve("app:app")
        with served.connect() as connection:
            connection.send("GET /crash HTTP/1.1\r\nHost: a\r\n\r\n")
            with pytest.raises(ConnectionError):
                connection.response()
        served.wait_until(lambda: served.workers(), "a new worker")
        assert served.get("/").body == b"alive"

    def test_a_crash_loop_slows_down_and_is_visible(self, launch, tmp_path):
        (tmp_path / "app.py").write_text(
            "import os, time\nopen('starts', 'a').write(f'{time.monotonic()}\\n')\nos._exit(1)\n"
        )
        served = launch("app:app", "--port", "0")
        served.wait_for_log("soon after its start; the next one starts in", 5)
        starts = [float(line) for line in (tmp_path / "starts").read_text().split()]
        assert len(starts) >= 5
        # Each pause is twice the one before, the first a tenth of a second.
        assert all(after - before >= 0.1 * 2**n for n, (before, after) in enumerate(itertools.pairwise(starts)))
        assert served.terminate() == 0

    def test_workers_finish_and_leave_when_the_supervisor_is_killed(self, serve, gate):
        served = serve(CONTRACT, "--workers", "2")
        address, workers = served.address, served.workers()
        with held(served, gate) as connection:
            served.process.kill()
            served.process.wait()
            served.wait_refused()
            gate.open()
            assert connection.response().status == 200
        served.wait_until(lambda: not any(lives(pid) for pid in workers), "the workers to leave")
        with socket.socket() as free:
            free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            free.bind(address)

    def test_a_worker_that_does_not_get_ready_is_replaced(self, launch, tmp_path):
        os.mkfifo(tmp_path / "nobody-writes")
        (tmp_path / "app.py").write_text("open('nobody-writes')\n")
        served = launch("app:app", "--port", "0", "--worker-start-timeout", "500ms", "--graceful-timeout", "1s")
        served.wait_for_log("was not ready within worker_start_timeout; it is killed")
        served.wait_for_log("ended with signal KILL")

    def test_a_stopped_worker_is_replaced(self, serve):
        served = serve(CONTRACT, "--worker-timeout", "2s")
        (before,) = served.workers()
        stop(before)
        served.wait_for_log("was silent for longer than worker_timeout; it is killed")
        served.wait_until(lambda: served.workers() not in ([], [before]), "the replacement")
        assert served.get("/pid").status == 200

    @pytest.mark.parametrize("preload", [(), ("--preload",)])
    def test_processes_that_stood_still_together_are_not_replaced(self, serve, preload):
        served = serve(CONTRACT, "--workers", "2", "--worker-timeout", "5s", *preload)
        workers = served.workers()
        for pid in (served.pid, *workers):
            stop(pid)
        let_pass(7, "longer than a worker may be silent")
        for pid in (served.pid, *workers):
            os.kill(pid, signal.SIGCONT)
        let_pass(7, "longer than a worker may be silent")
        assert served.workers() == workers
        assert "was silent" not in served.log()

    @pytest.mark.parametrize("options", [(), ("--preload",), ("--concurrency", "gevent")])
    def test_a_request_that_ends_its_worker_again_and_again_keeps_nobody_away(self, serve, tmp_path, options):
        (tmp_path / "app.py").write_text(
            "import ctypes\n"
            "def app(environ, start_response):\n"
            "    if environ['PATH_INFO'] == '/crash': ctypes.string_at(0)\n"
            "    start_response('200 OK', [])\n    return [b'alive']\n"
        )
        served = serve("app:app", *options)
        for count in range(1, 9):
            with served.connect() as connection, pytest.raises(ConnectionError):
                connection.ask("GET", "/crash")
            served.wait_for_log("replacing it", count)
            assert served.get().text == "alive"
        assert "the next one starts in" not in served.log()


class TestScale:
    def test_ttin_and_ttou_change_the_number_of_workers(self, serve):
        served = serve(CONTRACT)
        served.send_signal(signal.SIGTTIN)
        served.wait_until(lambda: len(served.workers()) == 2, "a second worker")
        served.send_signal(signal.SIGTTIN)
        served.wait_until(lambda: len(served.workers()) == 3, "a third worker")
        served.send_signal(signal.SIGTTOU)
        served.wait_until(lambda: len(served.workers()) == 2, "one worker less")
        served.send_signal(signal.SIGTTOU)
        served.send_signal(signal.SIGTTOU)
        served.wait_until(lambda: len(served.workers()) == 1, "one worker")
        (last,) = served.workers()
        served.send_signal(signal.SIGTTOU)
        served.send_signal(signal.SIGHUP)
        served.wait_for_log("reloaded: 1 new worker is serving")
        served.wait_until(lambda: last not in served.workers(), "the old worker to leave")
        assert len(served.workers()) == 1
        assert served.get("/pid").status == 200


class TestRights:
    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
    @pytest.mark.parametrize("user", ["65534", "47123"])
    def test_workers_run_as_somebody_else(self, serve, tmp_path, user):
        (tmp_path / "app.py").write_text(
            "import os\n"
            "def app(environ, start_response):\n"
            "    start_response('200 OK', [])\n    return [f'{os.getuid()} {os.getgid()} {os.getgroups()}'.encode()]\n"
        )
        tmp_path.chmod(0o755)
        served = serve("app:app", "--user", user, "--group", "65533", "--preload")
        uid, gid, groups = served.get().text.split(" ", 2)
        assert (uid, gid) == (user, "65533")
        assert "0" not in groups.strip("[]").split(", ")

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
    def test_workers_have_the_home_of_their_user_unless_another_is_given(self, serve, tmp_path):
        (tmp_path / "app.py").write_text(
            "import os\n"
            "def app(environ, start_response):\n"
            "    start_response('200 OK', [])\n"
            "    return [' '.join(os.environ[name] for name in ('HOME', 'USER', 'LOGNAME')).encode()]\n"
        )
        tmp_path.chmod(0o755)
        root, user = pwd.getpwuid(0), pwd.getpwnam("nobody")
        environment = {"HOME": root.pw_dir, "USER": root.pw_name, "LOGNAME": "somebody"}
        # The application is imported before its process becomes the user's, who may not be able to read Python here.
        served = serve("app:app", "--user", "nobody", "--preload", environment=environment)
        assert served.get().text == f"{user.pw_dir} nobody somebody"

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
    @pytest.mark.parametrize("more", [[], ["--preload"], ["--concurrency", "gevent"]])
    def test_a_python_that_the_user_may_not_read_is_named(self, launch, tmp_path, more):
        (tmp_path / "home").mkdir(mode=0o700)
        (tmp_path / "home" / "anygate").symlink_to(Path(anygate.__file__).parent)
        environment = {"PYTHONPATH": str(tmp_path / "home")}
        served = launch(CONTRACT, "--port", "0", "--user", "nobody", *more, environment=environment)
        if "--preload" in more:
            served.wait_for_log(" serves ")
            served.wait_for_log("imports that are left to requests will fail")
        else:
            assert served.process.wait() == 3
            assert served.log().count("ERROR") == 1
        served.wait_for_log("nobody may not read /")

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
    @pytest.mark.parametrize("target", ["app:app", "app.py"])
    def test_a_folder_of_the_application_that_the_user_may_not_read_is_named(self, tmp_path, monkeypatch, target):
        tmp_path.chmod(0o700)
        (tmp_path / "app.py").write_text("def app(environ, start_response): ...\n")
        monkeypatch.chdir(tmp_path)
        os.seteuid(65534)
        try:
            with pytest.raises(LoadError, match=f"user 65534 may not read {tmp_path}"):
                load(target)
        finally:
            os.seteuid(0)

    def test_umask_holds_for_files_of_the_application(self, serve, tmp_path):
        (tmp_path / "app.py").write_text(
            "def app(environ, start_response):\n"
            "    open('made', 'w').close()\n    start_response('200 OK', [])\n    return [b'']\n"
        )
        serve("app:app", "--umask", "077").get()
        assert (tmp_path / "made").stat().st_mode & 0o777 == 0o600

    def test_a_pid_file_names_the_supervisor_and_goes_with_it(self, serve, run, tmp_path):
        served = serve(CONTRACT, "--pid-file", "pid")
        assert (tmp_path / "pid").read_text() == f"{served.pid}\n"
        second = run(CONTRACT, "--port", "0", "--pid-file", "pid")
        assert second.returncode == 1
        assert f"pid belongs to the running process {served.pid}; stop it or name another file" in second.stderr
        served.terminate()
        assert not (tmp_path / "pid").exists()

    @pytest.mark.parametrize("preload", [(), ("--preload",)])
    def test_a_pid_file_with_the_number_of_a_stranger_is_replaced(self, serve, run, tmp_path, preload):
        (tmp_path / "pid").write_text(f"{os.getpid()}\n")
        served = serve(CONTRACT, "--pid-file", "pid", *preload)
        assert (tmp_path / "pid").read_text() == f"{served.pid}\n"
        served.send_signal(signal.SIGHUP)
        served.wait_for_log("reloaded")
        assert (tmp_path / "pid").read_text() == f"{served.pid}\n"
        assert run(CONTRACT, "--port", "0", "--pid-file", "pid").returncode == 1
        served.kill()
        serve(CONTRACT, "--pid-file", "pid", *preload)


def count_sockets(pid):
    folder = f"/proc/{pid}/fd"
    links = []
    for name in os.listdir(folder):
        with contextlib.suppress(FileNotFoundError):
            links.append(os.readlink(f"{folder}/{name}"))
    return sum(link.startswith("socket:") for link in links)


class TestScarcity:
    def test_without_descriptors_nothing_spins_and_service_comes_back(self, serve):
        served = serve(CONTRACT, command=["sh", "-c", 'ulimit -n 64; exec "$0" "$@"', ANYGATE])
        (worker,) = served.workers()
        connections = [served.connect() for _ in range(120)]
        # Half of the descriptors are for connections, and the rest for the application.
        served.wait_until(lambda: count_sockets(worker) >= 32, "as many connections as it may have")
        spent = processor_seconds(worker)
        let_pass(1, "the processor time of a second is measured")
        assert processor_seconds(worker) - spent < 0.3
        # Idle connections are closed for it.
        assert served.get("/pid").status == 200
        for connection in connections:
            connection.close()
        served.wait_until(lambda: served.get("/pid").status == 200, "service again")

    def test_connections_over_the_limit_wait(self, serve):
        served = serve(CONTRACT, "--connections-max", "5")
        connections = [served.connect() for _ in range(5)]
        for connection in connections:
            assert connection.ask("GET", "/pid").status == 200
        with served.connect() as late:
            late.send("GET /pid HTTP/1.1\r\nHost: a\r\n\r\n")
            for connection in connections * 20:
                assert connection.ask("GET", "/pid").status == 200
            assert not late.is_read()
            connections.pop().close()
            assert late.response().status == 200


def processor_seconds(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_the_reactor_is_not_held_by_slow_calls(serve, gate):
    """Every thread waits, and still connections are accepted, read, refused and timed out."""
    served = serve(CONTRACT, "--threads", "2", "--health-path", "/health", "--keepalive-timeout", "500ms")
    waiting = [held(served, gate, count) for count in (1, 2)]
    with served.connect() as connection:
        connection.send("GET / HTTP/1.1\r\n\r\n")
        assert connection.response().status == 400
    with served.connect() as connection:
        assert connection.ask("GET", "/health").status == 200
        assert connection.is_closed()
    gate.open()
    for connection in waiting:
        assert connection.response().status == 200


def test_one_thread_never_runs_two_requests_at_once(serve, gate, tmp_path):
    shutil.copy(APPS / "gates.py", tmp_path)
    (tmp_path / "app.py").write_text(
        "from gates import wait_at\ninside = 0\nmost = 0\n"
        "def app(environ, start_response):\n"
        "    global inside, most\n"
        f"    inside += 1\n    most = max(most, inside)\n    wait_at({gate.name!r})\n    inside -= 1\n"
        "    start_response('200 OK', [])\n    return [str(most).encode()]\n"
    )
    # On a busy machine nobody is to be told to come later.
    served = serve("app:app", "--threads", "1", "--queue-max", "0", "--queue-timeout", "10m")
    clients = [served.connect().send_read("GET / HTTP/1.1\r\nHost: a\r\n\r\n") for _ in range(20)]
    gate.wait_for(1)
    gate.open()
    assert [client.response().text for client in clients] == ["1"] * 20
