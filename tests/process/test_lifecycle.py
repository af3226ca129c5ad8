"""The process tree: start, end, death and replacement, overload and loss of the supervisor."""

import contextlib
import os
import select
import signal
import socket
import threading
import time
from pathlib import Path

import pytest
from conftest import ANYGATE, APPS

CONTRACT = APPS / "contract.py"


def exists(pid):
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False
    return "State:\tZ" not in status


def test_the_terminal_says_what_is_served(serve):
    served = serve(CONTRACT, "--workers", "2", "--threads", "3")
    host, port = served.address
    assert f"serves {CONTRACT} on http://{host}:{port} with 2 workers of 3 threads; Ctrl-C ends it" in served.log()


def test_as_many_workers_as_asked_for_share_the_work(serve):
    served = serve(CONTRACT, "--workers", "3", "--threads", "1")
    workers = {str(pid) for pid in served.workers()}
    assert len(workers) == 3
    answered = set()

    def ask():
        sleepers = [served.connect().send("GET /sleep?0.2 HTTP/1.1\r\nHost: a\r\n\r\n") for _ in range(3)]
        answered.update(sleeper.answer().text for sleeper in sleepers)
        return answered == workers

    served.wait_until(ask, "an answer of each worker")
    assert served.get("/echo").json["wsgi.multiprocess"] is True


class TestEnd:
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
    def test_signals_end_it_with_code_0(self, serve, number):
        served = serve(CONTRACT, "--workers", "2")
        workers = served.workers()
        assert served.terminate(number) == 0
        assert not any(exists(pid) for pid in workers)

    def test_requests_in_flight_are_answered_first(self, serve):
        served = serve(CONTRACT)
        with served.connect() as connection:
            connection.send("GET /sleep?1 HTTP/1.1\r\nHost: a\r\n\r\n")
            time.sleep(0.3)
            served.send_signal(signal.SIGTERM)
            answer = connection.answer()
            assert answer.status == 200
            assert answer["connection"] == "close"
        assert served.wait() == 0

    def test_a_request_that_is_half_sent_may_be_finished(self, serve):
        served = serve(CONTRACT)
        with served.connect() as connection:
            connection.send("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nha")
            time.sleep(0.3)
            served.send_signal(signal.SIGTERM)
            time.sleep(0.3)
            connection.send("lf")
            assert connection.answer().json["body"] == "half"
        assert served.wait() == 0

    def test_idle_connections_do_not_delay_the_end(self, serve):
        served = serve(CONTRACT)
        connections = [served.connect() for _ in range(20)]
        for connection in connections:
            connection.ask("GET", "/pid")
        begun = time.monotonic()
        assert served.terminate() == 0
        assert time.monotonic() - begun < 5

    def test_no_new_connection_is_taken(self, serve):
        served = serve(CONTRACT)
        with served.connect() as connection:
            connection.send("GET /sleep?1 HTTP/1.1\r\nHost: a\r\n\r\n")
            time.sleep(0.3)
            served.send_signal(signal.SIGTERM)
            assert connection.answer().status == 200
        assert served.wait() == 0
        with pytest.raises(ConnectionRefusedError):
            served.connect()

    @pytest.mark.parametrize("workers", ["1", "3"])
    def test_who_waits_is_answered_and_who_comes_later_is_refused(self, serve, workers):
        served = serve(CONTRACT, "--workers", workers, "--threads", "1")
        busy = [served.connect().send("GET /sleep?2 HTTP/1.1\r\nHost: a\r\n\r\n") for _ in range(int(workers))]
        time.sleep(0.5)
        waiting = [served.connect().send("GET /pid HTTP/1.1\r\nHost: a\r\n\r\n") for _ in range(20)]
        served.send_signal(signal.SIGTERM)

        def is_refused():
            try:
                served.connect().close()
            except ConnectionRefusedError:
                return True
            return False

        served.wait_until(is_refused, "the end of the listening socket")
        # Long before the end: whoever is refused can ask another server.
        assert exists(served.pid)
        for connection in (*busy, *waiting):
            assert connection.answer().status == 200
        assert served.wait() == 0

    def test_a_unix_socket_goes_when_the_end_begins(self, serve, tmp_path):
        path = tmp_path / "app.sock"
        served = serve(CONTRACT, "--bind", f"unix:{path}", "--threads", "1")
        busy = served.connect(str(path)).send("GET /sleep?2 HTTP/1.1\r\nHost: a\r\n\r\n")
        time.sleep(0.5)
        served.send_signal(signal.SIGTERM)
        served.wait_until(lambda: not path.exists(), "the end of the socket's file")
        # Another server may begin there while this one finishes.
        other = serve(CONTRACT, "--bind", f"unix:{path}")
        assert busy.answer().status == 200
        assert served.wait() == 0
        assert other.get("/pid").status == 200

    def test_a_second_signal_ends_it_at_once(self, serve):
        served = serve(CONTRACT)
        with served.connect() as connection:
            connection.send("GET /sleep?60 HTTP/1.1\r\nHost: a\r\n\r\n")
            time.sleep(0.3)
            served.send_signal(signal.SIGTERM)
            served.wait_for_log("ending: workers finish")
            served.send_signal(signal.SIGTERM)
            begun = time.monotonic()
            assert served.wait() == 0
            assert time.monotonic() - begun < 10

    def test_graceful_timeout_ends_what_does_not_finish(self, serve):
        served = serve(CONTRACT, "--graceful-timeout", "1s")
        workers = served.workers()
        with served.connect() as connection:
            connection.send("GET /sleep?60 HTTP/1.1\r\nHost: a\r\n\r\n")
            time.sleep(0.3)
            assert served.terminate() == 0
        assert not any(exists(pid) for pid in workers)

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
    def test_a_killed_worker_is_replaced_within_a_second(self, serve):
        served = serve(CONTRACT)
        time.sleep(1.1)
        (before,) = served.workers()
        os.kill(before, signal.SIGKILL)
        begun = time.monotonic()
        with served.connect() as connection:
            after = connection.ask("GET", "/pid").text
        assert time.monotonic() - begun < 1
        assert after != str(before)
        served.wait_for_log(f"worker {before} ended with signal KILL")

    def test_the_new_worker_is_asked_while_the_other_is_busy(self, serve):
        served = serve(CONTRACT, "--workers", "2", "--threads", "1")
        with contextlib.ExitStack() as waiting:
            waiting.enter_context(served.connect()).send("GET /sleep?60 HTTP/1.1\r\nHost: a\r\n\r\n")
            # Connections that come together may be one worker's, before it knows that the first keeps it.
            time.sleep(1)
            idle = served.wait_until(lambda: served.get("/pid").text, "the other worker")
            os.kill(int(idle), signal.SIGKILL)

            def answered():
                """Until the new one is there the busy one takes what comes."""
                asked = waiting.enter_context(served.connect()).send("GET /pid HTTP/1.1\r\nHost: a\r\n\r\n")
                return select.select([asked.socket], [], [], 0.2)[0]

            served.wait_until(answered, "the new worker")
            for _ in range(50):
                with served.connect() as connection:
                    assert connection.ask("GET", "/pid").text != idle
            served.process.kill()

    def test_other_workers_do_not_notice(self, serve):
        served = serve(CONTRACT, "--workers", "2")
        time.sleep(1.1)
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
                connection.answer()
        served.wait_until(lambda: served.workers(), "a new worker")
        assert served.get("/").body == b"alive"

    def test_a_crash_loop_slows_down_and_is_visible(self, launch, tmp_path):
        (tmp_path / "app.py").write_text("import os\nopen('starts', 'a').write('x')\nos._exit(1)\n")
        served = launch("app:app", "--port", "0")
        time.sleep(3)
        starts = len((tmp_path / "starts").read_text())
        assert 3 <= starts <= 8
        assert "soon after its start; the next one starts in" in served.log()
        assert served.terminate() == 0

    def test_workers_finish_and_leave_when_the_supervisor_is_killed(self, serve):
        served = serve(CONTRACT, "--workers", "2")
        address, workers = served.address, served.workers()
        with served.connect() as connection:
            connection.send("GET /sleep?1 HTTP/1.1\r\nHost: a\r\n\r\n")
            time.sleep(0.3)
            served.process.kill()
            served.process.wait()
            assert connection.answer().status == 200
        served.wait_until(lambda: not any(exists(pid) for pid in workers), "the workers to leave")
        with socket.socket() as free:
            free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            free.bind(address)

    def test_a_worker_that_does_not_get_ready_is_replaced(self, launch, tmp_path):
        (tmp_path / "app.py").write_text("import time\ntime.sleep(60)\n")
        served = launch("app:app", "--port", "0", "--worker-start-timeout", "500ms", "--graceful-timeout", "1s")
        served.wait_for_log("did not get ready within worker_start_timeout; it is killed")
        served.wait_for_log("ended with signal KILL")

    def test_a_stopped_worker_is_replaced(self, serve):
        served = serve(CONTRACT, "--worker-timeout", "2s")
        (before,) = served.workers()
        os.kill(before, signal.SIGSTOP)
        served.wait_for_log("was silent for longer than worker_timeout; it is killed")
        served.wait_until(lambda: served.workers() not in ([], [before]), "the replacement")
        assert served.get("/pid").status == 200


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
        time.sleep(0.3)
        assert len(served.workers()) == 1
        assert served.get("/pid").status == 200


class TestRights:
    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
    def test_workers_run_as_somebody_else(self, serve, tmp_path):
        (tmp_path / "app.py").write_text(
            "import os\n"
            "def app(environ, start_response):\n"
            "    start_response('200 OK', [])\n    return [f'{os.getuid()} {os.getgid()} {os.getgroups()}'.encode()]\n"
        )
        tmp_path.chmod(0o755)
        served = serve("app:app", "--user", "65534", "--group", "65533", "--preload")
        uid, gid, groups = served.get().text.split(" ", 2)
        assert (uid, gid) == ("65534", "65533")
        assert "0" not in groups.strip("[]").split(", ")

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
        assert f"pid names the running process {served.pid}; stop it or remove the file" in second.stderr
        served.terminate()
        assert not (tmp_path / "pid").exists()


class TestScarcity:
    def test_without_descriptors_nothing_spins_and_service_comes_back(self, serve):
        served = serve(CONTRACT, command=["sh", "-c", 'ulimit -n 64; exec "$0" "$@"', ANYGATE])
        (worker,) = served.workers()
        connections = [served.connect() for _ in range(120)]
        time.sleep(0.5)
        spent = processor_seconds(worker)
        time.sleep(1)
        assert processor_seconds(worker) - spent < 0.3
        assert connections[0].ask("GET", "/pid").status == 200
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
            late.socket.settimeout(0.3)
            with pytest.raises(TimeoutError):
                late.answer()
            connections.pop().close()
            late.socket.settimeout(20)
            assert late.answer().status == 200


def processor_seconds(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_the_reactor_is_not_held_by_slow_calls(serve):
    """Every thread sleeps, and still connections are accepted, read, refused and timed out."""
    served = serve(CONTRACT, "--threads", "2", "--header-timeout", "500ms")
    sleepers = [served.connect().send("GET /sleep?2 HTTP/1.1\r\nHost: a\r\n\r\n") for _ in range(2)]
    time.sleep(0.2)
    begun = time.monotonic()
    with served.connect() as connection:
        connection.send("GET / HTTP/1.1\r\n\r\n")
        assert connection.answer().status == 400
    with served.connect() as connection:
        connection.send("GET / HTTP/1.1\r\n")
        assert connection.answer().status == 408
    assert time.monotonic() - begun < 1.5
    for sleeper in sleepers:
        assert sleeper.answer().status == 200


def test_one_thread_never_runs_two_requests_at_once(serve, tmp_path):
    (tmp_path / "app.py").write_text(
        "import time\ninside = 0\nmost = 0\n"
        "def app(environ, start_response):\n"
        "    global inside, most\n"
        "    inside += 1\n    most = max(most, inside)\n    time.sleep(0.01)\n    inside -= 1\n"
        "    start_response('200 OK', [])\n    return [str(most).encode()]\n"
    )
    served = serve("app:app", "--threads", "1")
    answers = []
    clients = [threading.Thread(target=lambda: answers.append(served.get().text)) for _ in range(20)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    assert answers == ["1"] * 20
