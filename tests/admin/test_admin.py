"""The admin address: figures, metrics and orders."""

import contextlib
import os
import re
import select
import signal
import stat
import subprocess
import threading
import time

import pytest
from admin_address import CONTRACT, watch
from conftest import ANYGATE
from http2_frames import PREFACE, SETTINGS, frame
from prometheus_client.parser import text_string_to_metric_families
from waiting import PATIENCE, stop, wait_until
from wire import Connection


@pytest.fixture
def admin(serve):
    return lambda *arguments, **options: watch(serve, *arguments, **options)


def metrics(admin):
    """Name and labels of each sample, with its value."""
    found = {}
    for family in text_string_to_metric_families(admin.ask("/metrics").text):
        assert family.documentation
        for sample in family.samples:
            found[(sample.name, *sorted(sample.labels.items()))] = sample.value
    return found


def total(found, name):
    return sum(value for (own, *_), value in found.items() if own == name)


def metrics_of(admin, requests):
    """The metrics when so many requests have been counted: each is at its end, which a client may see sooner."""

    def look():
        found = metrics(admin)
        return found if total(found, "anygate_requests_total") >= requests else None

    return admin.served.wait_until(look, f"{requests} requests")


def test_the_figures_are_told_under_valgrind(admin):
    """It hides from a process what the system tells programs at their start."""
    at = admin(command=["valgrind", "--quiet", "--tool=none", "--trace-children=yes", ANYGATE])
    at.served.wait_until(lambda: total(metrics(at), "anygate_worker_memory_bytes") > 0, "the memory of a worker")


def serving(count):
    return lambda status: (
        status["totals"]["workers"] == count and [w["stage"] for w in status["workers"]] == ["serving"] * count
    )


class TestFigures:
    def test_the_log_says_where_it_is_and_the_banner_does_not_change(self, admin):
        at = admin()
        assert at.url.startswith("http://127.0.0.1:")
        assert len(at.served.addresses) == 1

    @pytest.mark.parametrize("how", [[], ["--concurrency", "gevent"], ["--user", "nobody", "--preload"]])
    def test_requests_and_workers_are_in_the_status(self, admin, how):
        if "--user" in how and os.geteuid() != 0:
            pytest.skip("only root can become someone else")
        at = admin("--workers", "2", *how)
        for _ in range(5):
            at.served.get("/pid")
        begun = time.time()
        status = at.wait_until(
            lambda status: all(w["memory_bytes"] for w in status["workers"]) and status["totals"]["requests"] >= 5,
            "memory and requests",
        )
        assert status["totals"]["requests"] == 5
        assert status["totals"]["requests_2xx"] == 5
        assert sum(worker["requests"] for worker in status["workers"]) == 5
        assert {worker["pid"] for worker in status["workers"]} == set(at.served.workers())
        assert all(worker["memory_bytes"] > 1 << 20 for worker in status["workers"])
        assert status["pid"] == at.served.pid
        assert status["latency"]["p50"] > 0
        assert sum(status["latency"]["counts"]) == 5
        assert begun - 1 <= status["time"] <= time.time() + 1
        assert status["totals"]["worker_starts"] == 2

    def test_a_request_in_flight_is_shown_with_its_age(self, admin, gate):
        at = admin()
        with at.served.connect() as connection:
            began = time.monotonic()
            connection.send(f"GET /gate?{gate.name} HTTP/1.1\r\nHost: a\r\n\r\n")
            status = at.wait_until(lambda status: status["workers"][0]["in_flight"], "the request")
            (seen,) = status["workers"][0]["in_flight"]
            assert seen["request"] == f"GET /gate?{gate.name}"
            at.wait_until(lambda status: status["workers"][0]["in_flight"][0]["age"] >= 0.5, "half a second")
            assert time.monotonic() - began >= 0.5
            gate.open()
            connection.response()
        at.wait_until(lambda status: not status["workers"][0]["in_flight"], "its end")

    def test_errors_of_the_application_are_among_the_messages(self, admin, tmp_path):
        (tmp_path / "broken.py").write_text(
            "def app(environ, start_response):\n    raise LookupError('what <b> it is')\n"
        )
        at = admin("--request-id", app="broken:app")
        response = at.served.get("/")
        assert response.status == 500
        status = at.wait_until(lambda status: status["totals"]["requests_5xx"], "the request")
        assert status["totals"]["requests_5xx"] == 1
        (message,) = status["messages"]
        assert message["level"] == "error"
        assert message["text"].startswith(f'request{{id="{response["x-request-id"]}"}}: ')
        assert message["text"].endswith("LookupError: what <b> it is")
        assert message["pid"] == status["workers"][0]["pid"]
        assert message["traceback"].startswith("Traceback (most recent call last):\n")
        assert message["traceback"].endswith("\nLookupError: what <b> it is")

    def test_the_last_hour_has_what_was_counted_and_reloads(self, admin):
        at = admin()

        def steps():
            return at.ask("/api/history").json["points"]

        at.served.get("/pid")
        at.served.wait_until(lambda: any(step["rate"] > 0 for step in steps()), "a step with requests")
        assert at.post("/api/reload").status == 202
        at.served.wait_until(lambda: sum(step["reloads"] for step in steps()) == 1, "a step with a reload")

    def test_a_killed_worker_leaves_its_counters_and_its_messages(self, admin, tmp_path):
        (tmp_path / "broken.py").write_text("def app(environ, start_response):\n    raise LookupError\n")
        at = admin("--workers", "2", app="broken:app")
        for _ in range(7):
            at.served.get("/")
        status = at.wait_until(lambda status: status["totals"]["requests"] == 7, "the requests")
        for worker in status["workers"]:
            os.kill(worker["pid"], signal.SIGKILL)
        status = at.wait_until(lambda status: status["totals"]["worker_deaths"] == 2 and serving(2)(status), "new ones")
        assert status["totals"]["requests"] == 7
        assert sum(worker["requests"] for worker in status["workers"]) == 0
        assert len([m for m in status["messages"] if m["text"].endswith("LookupError")]) == 7
        assert any("ended with signal KILL" in message["text"] for message in status["messages"])
        found = metrics(at)
        assert found[("anygate_worker_deaths_total", ("reason", "signal"))] == 2
        assert found[("anygate_requests_total", ("method", "GET"), ("status", "5xx"))] == 7

    def test_it_responds_when_every_thread_is_busy(self, admin, gate):
        at = admin("--threads", "1")
        with at.served.connect() as connection:
            connection.send(f"GET /gate?{gate.name} HTTP/1.1\r\nHost: a\r\n\r\n")
            at.wait_until(lambda status: status["workers"][0]["in_flight"], "the request")
            gate.wait_for()
            assert at.ask("/health").json == {"status": "ok"}

    def test_without_anybody_to_look_there_is_no_further_process(self, serve):
        served = serve("--workers", "2", CONTRACT)
        assert len(served.processes()) == 2


class TestMetrics:
    def test_prometheus_reads_them(self, admin):
        at = admin("--workers", "2")
        before = metrics(at)
        for _ in range(4):
            at.served.get("/pid")
        at.served.get("/pid", method="POST", body=b"x")
        found = metrics_of(at, 5)
        assert found[("anygate_requests_total", ("method", "GET"), ("status", "2xx"))] == 4
        assert found[("anygate_requests_total", ("method", "POST"), ("status", "2xx"))] == 1
        assert total(before, "anygate_requests_total") == 0
        assert found[("anygate_request_duration_seconds_count",)] == 5
        assert found[("anygate_request_duration_seconds_bucket", ("le", "+Inf"))] == 5
        assert 0 < found[("anygate_request_duration_seconds_sum",)] < 60
        assert found[("anygate_workers",)] == 2
        assert found[("anygate_worker_starts_total",)] == 2
        assert at.ask("/metrics")["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"

    def test_promtool_has_nothing_against_the_metrics(self, admin):
        at = admin("--workers", "2")
        at.served.get("/pid")
        text = at.ask("/metrics").text
        checked = subprocess.run(
            ["promtool", "check", "metrics"], input=text, text=True, capture_output=True, timeout=PATIENCE, check=False
        )
        assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")
        # In OpenMetrics, a family has one kind, and the names of counters end without "_total".
        families = re.findall("^# TYPE (\\S+) ", text, re.MULTILINE)
        assert len({family.removesuffix("_total") for family in families}) == len(families) > 20

    def test_buckets_never_fall(self, admin):
        at = admin()
        at.served.get("/pid")
        found = metrics(at)
        buckets = [value for (name, *_), value in found.items() if name == "anygate_request_duration_seconds_bucket"]
        assert buckets == sorted(buckets)
        assert len(buckets) == 17

    @pytest.mark.linux("connections that wait are counted")
    def test_connections_that_no_worker_accepts_are_counted_by_address(self, admin, tmp_path):
        # A worker that is stopped must not be replaced.
        binds = ("--bind", "127.0.0.1:0", "--bind", f"unix:{tmp_path}/site")
        at = admin(*binds, "--backlog", "100", "--worker-timeout", "1h")
        addresses = at.served.addresses
        pid = at.status()["workers"][0]["pid"]

        def queues(name="anygate_listen_queue"):
            return {dict(labels)["address"]: value for (own, *labels), value in metrics(at).items() if own == name}

        assert set(queues("anygate_listen_queue_max").values()) == {100}
        stop(pid)
        try:
            with contextlib.ExitStack() as clients:
                for address, count in zip(addresses, (2, 3), strict=True):
                    for _ in range(count):
                        clients.enter_context(Connection(address))
                at.served.wait_until(lambda: list(queues().values()) == [2, 3], "two clients and three")
                assert at.status()["totals"]["listen_queue"] == 5
                assert at.ask("/stats").json["listen_queue"] == 5
        finally:
            os.kill(pid, signal.SIGCONT)
        at.served.wait_until(lambda: list(queues().values()) == [0, 0], "nobody")

    def test_what_needs_no_thread_is_counted_too(self, admin):
        at = admin("--health-path", "/health", "--deny", "/closed 127.0.0.1")
        for path in ("/health", "/health", "/closed", "/pid"):
            at.served.get(path)
        found = metrics_of(at, 4)
        assert found[("anygate_requests_total", ("method", "GET"), ("status", "2xx"))] == 3
        assert found[("anygate_requests_total", ("method", "GET"), ("status", "4xx"))] == 1

    def test_jobs_and_workers_that_were_stuck_are_counted(self, admin, tmp_path):
        job = '[[cron]]\nname = "{0}"\nschedule = "@reboot"\ncommand = "{0}"\n'
        (tmp_path / "anygate.toml").write_text("request_timeout = 1\n" + job.format("true") + job.format("false"))
        (tmp_path / "stuck.py").write_text(
            "import select\n\n\n"
            "def app(environ, start_response):\n"
            "    while environ['PATH_INFO'] == '/stuck':\n"
            "        try:\n"
            "            select.select([], [], [], 60)\n"
            "        except BaseException:\n"
            "            pass\n"
            "    start_response('200 OK', [])\n"
            "    return []\n"
        )
        at = admin("--graceful-timeout", "1s", app="stuck:app")
        assert at.served.get("/stuck").status == 504
        at.wait_until(lambda status: status["totals"]["worker_starts"] == 2, "another worker")
        assert metrics(at)[("anygate_worker_recycles_total", ("reason", "stuck"))] == 1
        runs = [("anygate_cron_runs_total", ("outcome", outcome)) for outcome in ("ok", "failed")]
        at.served.wait_until(lambda: [metrics(at)[run] for run in runs] == [1, 1], "a run of each job")


class TestCache:
    def test_what_is_cached_is_forgotten_on_demand(self, admin, tmp_path):
        (tmp_path / "counting.py").write_text(
            "import itertools\n\ncalls = itertools.count()\n\n\n"
            "def app(environ, start_response):\n"
            "    start_response('200 OK', [('Content-Type', 'text/plain')])\n"
            "    return [str(next(calls)).encode()]\n"
        )
        at = admin("--cache", "/ 1h", app="counting:app")

        def body(path="/a"):
            return int(at.served.get(path).body)

        first = body()
        assert body() == first
        assert at.post("/api/purge?url=http://test/other").status == 202
        assert body() == first
        for what in ("url=http://test/a", "prefix=http://test/", "all"):
            before = body()
            assert at.post(f"/api/purge?{what}").status == 202
            assert body() == before + 1
        assert at.post("/api/purge").status == 400

    def test_without_a_cache_there_is_nothing_to_forget(self, admin):
        assert admin().post("/api/purge?all").status == 409


class TestOrders:
    def test_reload_starts_new_workers(self, admin):
        at = admin("--workers", "2")
        before = {worker["pid"] for worker in at.status()["workers"]}
        assert at.post("/api/reload").status == 202
        status = at.wait_until(
            lambda status: serving(2)(status) and not before & {worker["pid"] for worker in status["workers"]},
            "new ones",
        )
        assert status["totals"]["reloads"] == 1
        assert status["totals"]["worker_deaths"] == 0

    def test_a_reload_that_fails_is_counted_and_shown(self, admin, tmp_path):
        app = "def app(environ, start_response):\n    start_response('200 OK', [])\n    return [b'']\n"
        (tmp_path / "once.py").write_text(app)
        at = admin(app="once:app")
        (tmp_path / "once.py").write_text("broken")
        at.post("/api/reload")
        at.wait_until(lambda status: any("not reloaded" in message["text"] for message in status["messages"]), "it")
        failed = ("anygate_reloads_total", ("outcome", "failed"))
        at.served.wait_until(lambda: metrics(at)[failed] == 1, "its count")
        assert at.served.get("/").status == 200

    def test_a_worker_is_replaced_by_order(self, admin, gate):
        at = admin("--workers", "2", "--threads", "1")
        with at.served.connect() as connection:
            connection.send(f"GET /gate?{gate.name} HTTP/1.1\r\nHost: a\r\n\r\n")
            gate.wait_for()
            status = at.wait_until(lambda status: any(worker["in_flight"] for worker in status["workers"]), "a request")
            (pid,) = [worker["pid"] for worker in status["workers"] if worker["in_flight"]]
            assert at.post(f"/api/recycle?pid={pid}").status == 202
            at.wait_until(lambda status: len(status["workers"]) == 3, "one more, beside the one that is replaced")
            gate.open()
            assert connection.response().status == 200
        status = at.wait_until(lambda status: serving(2)(status), "two")
        assert pid not in [worker["pid"] for worker in status["workers"]]
        assert metrics(at)[("anygate_worker_recycles_total", ("reason", "order"))] == 1
        assert status["totals"]["worker_deaths"] == 0
        assert at.post(f"/api/recycle?pid={pid}").status == 404

    def test_scale_changes_the_number_of_workers(self, admin):
        at = admin()
        assert at.post("/api/scale?workers=3").status == 202
        at.wait_until(serving(3), "three")
        at.post("/api/scale?workers=1")
        at.wait_until(serving(1), "one")
        for wrong in ("", "?workers=0", "?workers=x", "?workers=1e9"):
            assert at.post(f"/api/scale{wrong}").status == 400
        assert at.status()["totals"]["workers"] == 1

    def test_an_added_worker_takes_what_a_busy_one_cannot_serve(self, admin, gate):
        at = admin("--threads", "1")
        with contextlib.ExitStack() as stack:
            connection = stack.enter_context(at.served.connect())
            connection.send(f"GET /gate?{gate.name} HTTP/1.1\r\nHost: a\r\n\r\n")
            at.wait_until(lambda status: status["workers"][0]["in_flight"], "the request")
            at.post("/api/scale?workers=2")
            at.wait_until(serving(2), "the other worker")
            # The busy one takes one that the other has left for long, because others had their turn.
            responded = 0
            for _ in range(50):
                asked = stack.enter_context(at.served.connect()).send("GET /pid HTTP/1.1\r\nHost: a\r\n\r\n")
                responded += bool(select.select([asked.socket], [], [], 5)[0])
            assert responded >= 40
            at.served.process.kill()

    def test_end_finishes_what_is_in_flight(self, admin, gate):
        at = admin()
        with at.served.connect() as connection:
            connection.send(f"GET /gate?{gate.name} HTTP/1.1\r\nHost: a\r\n\r\n")
            at.wait_until(lambda status: status["workers"][0]["in_flight"], "the request")
            assert at.post("/api/end").status == 202
            at.served.wait_refused()
            gate.open()
            assert connection.response().status == 200
        assert at.served.wait() == 0

    def test_the_level_of_messages_changes_in_all_processes(self, admin):
        at = admin()
        assert at.status()["log_level"] == "info"
        assert at.post("/api/log-level?level=error").status == 202
        assert at.status()["log_level"] == "error"

        def scales_with_lines():
            """How many lines there are of it."""
            before = at.served.log().count(" workers instead of ")
            for workers in (2, 1):
                at.post(f"/api/scale?workers={workers}")
                at.wait_until(serving(workers), f"{workers} workers")
            return at.served.log().count(" workers instead of ") - before

        at.served.wait_until(lambda: scales_with_lines() == 0, "the supervisor to be silent")
        assert scales_with_lines() == 0
        at.post("/api/log-level?level=info")
        at.served.wait_until(lambda: scales_with_lines() == 2, "the supervisor to speak")
        assert at.post("/api/log-level?level=loud").status == 400

    def test_stacks_are_shown_while_the_lock_is_held(self, admin, tmp_path):
        # A pattern that takes longer than this test, inside one call that holds the interpreter's lock.
        (tmp_path / "held.py").write_text(
            "import re\n"
            "def stuck_here():\n    re.match('(a*)*b', 'a' * 40)\n"
            "def app(environ, start_response):\n    stuck_here()\n"
        )
        at = admin("--graceful-timeout", "1s", app="held:app")
        with at.served.connect() as connection:
            connection.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            at.wait_until(lambda status: status["workers"][0]["in_flight"], "the request")

            def shown():
                (worker,) = at.post("/api/stacks").json["workers"]
                return "stuck_here" in worker["stacks"] and "threads run no Python" in worker["stacks"]

            at.served.wait_until(shown, "the stack of the call")

    def test_stacks_of_one_worker(self, admin):
        at = admin("--workers", "2")
        pid = at.status()["workers"][1]["pid"]
        (worker,) = at.post(f"/api/stacks?pid={pid}").json["workers"]
        assert worker["pid"] == pid
        assert "thread" in worker["stacks"]
        assert at.post("/api/stacks?pid=1").json == {"workers": []}


class TestLife:
    def test_the_end_of_the_server_ends_it(self, admin):
        at = admin("--workers", "2")
        processes = at.served.processes()
        assert len(processes) == 3
        assert at.served.terminate() == 0
        wait_until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in processes), "the end of all")

    def test_it_is_started_again_when_it_dies(self, admin):
        at = admin()
        (assistant,) = set(at.served.processes()) - {worker["pid"] for worker in at.status()["workers"]}
        os.kill(assistant, signal.SIGKILL)
        at.served.wait_for_log("; restarting it")
        assert at.ask("/health").status == 200
        assert at.served.get("/pid").status == 200

    def test_it_knows_the_new_workers_after_a_preloaded_application_was_reloaded(self, admin):
        at = admin("--preload", "--workers", "2")
        before = {worker["pid"] for worker in at.status()["workers"]}
        assert at.post("/api/reload").status == 202

        def renewed():
            try:
                status = at.status()
            except OSError:
                return False
            return serving(2)(status) and not before & {worker["pid"] for worker in status["workers"]}

        at.served.wait_until(renewed, "new workers")
        assert at.post("/api/scale?workers=1").status == 202
        at.wait_until(serving(1), "one")

    def test_many_ask_at_once(self, admin):
        at = admin()
        responses = []
        threads = [threading.Thread(target=lambda: responses.append(at.ask("/api/status").status)) for _ in range(30)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert responses == [200] * 30


class TestWhoMayAsk:
    def test_pages_of_other_sites_reach_nothing(self, admin):
        at = admin()
        assert at.ask("/api/status", host="evil.example").status == 421
        assert at.ask("/api/status", host="localhost:1").status == 200
        assert at.ask("/api/reload", "POST").status == 403
        assert at.ask("/api/reload", "POST", Content_Type="application/x-www-form-urlencoded").status == 403
        assert at.ask("/api/reload", "POST", X_Anygate="1", Origin="http://evil.example").status == 403
        assert at.ask("/api/reload", "POST", X_Anygate="1", host="evil.example").status == 421
        assert at.ask("/api/scale?workers=1", "POST", Content_Type="application/json").status == 202
        assert at.ask("/api/reload", "OPTIONS", X_Anygate="1").status == 405
        assert at.status()["totals"]["reloads"] == 0

    def test_a_token_that_does_not_exist_is_made_and_wanted(self, admin, tmp_path):
        at = admin("--admin-token-file", "token")
        token = (tmp_path / "token").read_text().strip()
        assert len(token) == 48
        assert stat.S_IMODE((tmp_path / "token").stat().st_mode) == 0o600
        assert at.served.log().count(token) == 1
        for path in ("/", "/health", "/metrics", "/api/status", "/nowhere"):
            refused = at.ask(path)
            assert refused.status == 401
            assert refused["WWW-Authenticate"].startswith("Bearer")
            assert token not in refused.text
        assert at.ask("/api/reload", "POST", X_Anygate="1").status == 401
        assert at.ask("/health", Authorization=f"Bearer {token}x").status == 401
        assert at.ask("/health", Authorization=f"Bearer {token}").status == 200
        assert at.ask("/health", Authorization=f"Bearer {token}", host="box.example").status == 200
        assert at.ask("/api/reload", "POST", Authorization=f"Bearer {token}").status == 403

    def test_a_token_that_exists_is_kept(self, admin, tmp_path):
        (tmp_path / "token").write_text("open-sesame-open-sesame\n")
        at = admin("--admin-token-file", "token")
        assert "open-sesame" not in at.served.log()
        assert at.ask("/health", Authorization="Bearer open-sesame-open-sesame").status == 200

    def test_no_start_without_a_token_where_others_can_reach_it(self, run, tmp_path):
        arguments = [CONTRACT, "--port", "0", "--admin"]
        ended = run(*arguments, "0.0.0.0:0")
        assert ended.returncode == 2
        assert "--admin-token-file" in ended.stderr
        (tmp_path / "empty").write_text("\n")
        ended = run(*arguments, "0.0.0.0:0", "--admin-token-file", "empty")
        assert ended.returncode == 2
        assert "shorter than 16" in ended.stderr

    def test_a_unix_socket_is_for_its_owner(self, admin, tmp_path):
        at = admin("--socket-mode", "666", "--admin-token-file", "token", address=f"unix:{tmp_path}/admin.sock")
        assert stat.S_IMODE((tmp_path / "admin.sock").stat().st_mode) == 0o600
        assert at.ask("/health").status == 200
        at.served.terminate()
        assert not (tmp_path / "admin.sock").exists()

    @pytest.mark.parametrize(
        "begun",
        [
            b"",
            b"GET /metrics HTTP/1.1\r\nHost: 127.",
            b"POST /api/reload HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9\r\n\r\nbegun",
            PREFACE + frame(SETTINGS),
        ],
        ids=["nothing", "head", "body", "http2"],
    )
    def test_clients_that_say_nothing_more_do_not_shut_out_the_administrator(self, admin, begun):
        at = admin("--header-timeout", "300", "--keepalive-timeout", "300", "--body-timeout", "300")
        host, _, port = at.address.rpartition(":")
        with contextlib.ExitStack() as many:
            for _ in range(400):
                many.enter_context(at.served.connect((host, int(port)))).send(begun)
            assert at.ask("/health").status == 200

    @pytest.mark.parametrize(
        ("option", "value", "said"),
        [
            ("--admin", "nonsense", "must be host:port"),
            ("--uwsgi-stats", "0.0.0.0:1717", "loopback"),
            ("--statsd", "unix:x", "must be host:port"),
        ],
    )
    def test_wrong_addresses_are_refused(self, run, option, value, said):
        ended = run("app:app", option, value)
        assert ended.returncode == 2
        assert said in ended.stderr
