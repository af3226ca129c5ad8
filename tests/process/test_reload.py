"""SIGHUP: new code without a failed request."""

import os
import shutil
import signal

import pytest
from conftest import APPS
from load import Load
from versions import UNCACHED, first_version, write
from waiting import let_pass, lives


@pytest.fixture
def site(tmp_path):
    return first_version(tmp_path)


GREENLETS = ["--concurrency", "gevent"]


@pytest.mark.parametrize("preload", [[], ["--preload"], GREENLETS, ["--preload", *GREENLETS]])
class TestReload:
    def test_new_code_is_served(self, serve, site, preload):
        served = serve("app:app", "--workers", "2", *preload)
        pid = served.pid
        old = served.workers()
        assert served.get().body == b"version 1"
        for version in (2, 3):
            write(site, version)
            served.send_signal(signal.SIGHUP)
            served.wait_for_log("reloaded: 2 new workers are serving", version - 1)
            served.wait_until(lambda: len(served.workers()) == 2, "the old workers to leave")
            assert served.get().text == f"version {version}"
        assert served.process.poll() is None
        assert served.pid == pid
        assert not set(old) & set(served.workers())
        assert served.terminate() == 0

    def test_a_request_in_flight_is_finished_by_the_old_worker(self, serve, site, gate, preload):
        served = serve("app:app", *preload)
        with served.connect() as connection:
            connection.send(f"GET /slow?{gate.name} HTTP/1.1\r\nHost: a\r\n\r\n")
            gate.wait_for()
            write(site, 2)
            served.send_signal(signal.SIGHUP)
            served.wait_for_log("reloaded")
            gate.open()
            assert connection.response().body == b"version 1"
        served.wait_until(lambda: len(served.workers()) == 1, "the old worker to leave")
        assert served.get().body == b"version 2"

    def test_code_that_does_not_import_leaves_the_old_running(self, serve, site, preload):
        served = serve("app:app", *preload)
        worker = served.workers()
        write(site, 2, extra="1 / 0")
        served.send_signal(signal.SIGHUP)
        served.wait_for_log("not reloaded, the old workers continue")
        served.wait_for_log("ZeroDivisionError")
        served.wait_until(lambda: served.workers() == worker, "the new worker to leave")
        assert served.get().body == b"version 1"
        write(site, 3)
        served.send_signal(signal.SIGHUP)
        served.wait_for_log("reloaded: 1 new worker is serving")
        served.wait_until(lambda: len(served.workers()) == 1, "the old worker to leave")
        assert served.get().body == b"version 3"
        assert served.terminate() == 0


def test_a_reload_during_a_reload_comes_after_it(serve, site):
    served = serve("app:app", "--workers", "2")
    for number in range(1, 4):
        served.send_signal(signal.SIGHUP)
        served.wait_for_log("reloading: starting", min(number, 2))
    served.wait_for_log("reloaded", 2)
    served.wait_until(lambda: len(served.workers()) == 2, "the old workers to leave")
    assert served.get().status == 200


def test_unix_sockets_survive_a_preloaded_reload(launch, site):
    served = launch("app:app", "--preload", "--bind", "unix:a.sock").wait_ready()
    write(site, 2)
    served.send_signal(signal.SIGHUP)
    served.wait_for_log("reloaded")
    served.wait_until(lambda: len(served.workers()) == 1, "the old worker to leave")
    with served.connect() as connection:
        assert connection.ask("GET", "/").body == b"version 2"
    assert served.terminate() == 0
    assert not (site / "a.sock").exists()


def test_the_contract_application_reloads(serve):
    served = serve(APPS / "contract.py")
    before = served.get("/pid").text
    served.send_signal(signal.SIGHUP)
    served.wait_for_log("reloaded")
    served.wait_until(lambda: len(served.workers()) == 1, "the old worker to leave")
    assert served.get("/pid").text != before


class TestSignalsDuringAReload:
    """The supervisor obeys them, whatever the new generation does."""

    @pytest.fixture
    def reloading(self, serve, site, gate):
        served = serve("app:app", "--preload")
        write(site, 2, f"import gates\ngates.wait_at({gate.name!r})")
        served.send_signal(signal.SIGHUP)
        gate.wait_for()
        return served

    @pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1, signal.SIGTTIN, signal.SIGTTOU])
    def test_they_do_not_end_it(self, reloading, gate, number):
        reloading.send_signal(number)
        gate.open()
        reloading.wait_for_log("reloaded: ")
        reloading.wait_until(lambda: reloading.get().text == "version 2", "the new code")
        if number == signal.SIGTTIN:
            reloading.wait_until(lambda: len(reloading.workers()) == 2, "another worker")
        assert reloading.process.poll() is None
        assert reloading.terminate() == 0

    def test_the_end_does_not_wait_for_the_import(self, reloading):
        reloading.send_signal(signal.SIGTERM)
        assert reloading.wait() == 0


def test_old_workers_go_on_for_as_long_as_preloaded_code_does_not_import(serve, site):
    served = serve("app:app", "--preload", "--worker-timeout", "5s")
    workers = served.workers()
    write(site, 2, "def broken(:")
    served.send_signal(signal.SIGHUP)
    served.wait_for_log("not reloaded, the old workers continue")
    let_pass(7, "longer than a worker may be silent")
    assert served.get().text == "version 1"
    assert served.workers() == workers
    write(site, 3)
    served.send_signal(signal.SIGHUP)
    served.wait_until(lambda: served.get().text == "version 3", "the new code")


@pytest.mark.parametrize("preload", [(), ("--preload",)])
def test_code_that_hangs_at_import_leaves_the_old_running(serve, site, gate, preload):
    served = serve("app:app", "--worker-start-timeout", "2s", *preload)
    write(site, 2, f"import gates\ngates.wait_at({gate.name!r})")
    served.send_signal(signal.SIGHUP)
    served.wait_for_log("not reloaded, the old workers continue")
    assert served.get().text == "version 1"
    write(site, 3)
    served.send_signal(signal.SIGHUP)
    served.wait_until(lambda: served.get().text == "version 3", "the new code")


def test_a_socket_without_its_file_survives_a_preloaded_reload(launch, site):
    served = launch("app:app", "--preload", "--bind", "unix:a.sock", "--bind", "127.0.0.1:0").wait_ready()
    (site / "a.sock").unlink()
    write(site, 2)
    served.send_signal(signal.SIGHUP)
    served.wait_for_log("reloaded: ")
    assert served.terminate() == 0


def test_programs_that_preloaded_code_starts_have_all_signals(serve, site):
    served = serve("app:app", "--preload")
    (site / "app.py").write_text(
        "import subprocess\n"
        "blocked = subprocess.run(['grep', 'SigBlk', '/proc/self/status'], capture_output=True).stdout\n"
        "def app(environ, start_response):\n"
        "    start_response('200 OK', [])\n    return [blocked]\n"
    )
    served.send_signal(signal.SIGHUP)
    served.wait_until(lambda: served.get().text.split() == ["SigBlk:", "0" * 16], "a program without held signals")


@pytest.mark.parametrize("preload", [(), ("--preload",)])
class TestWhatGoesWrong:
    """The old generation goes on, as it was, and dead workers of it are replaced."""

    @pytest.mark.parametrize("code", ["import os; os._exit(1)", "import os; os.abort()", "raise SystemExit(4)"])
    def test_code_that_ends_its_process(self, serve, site, preload, code):
        served = serve("app:app", *preload)
        (worker,) = served.workers()
        write(site, 2, extra=code)
        served.send_signal(signal.SIGHUP)
        served.wait_for_log("not reloaded, the old workers continue")
        assert served.get().text == "version 1"
        assert worker in served.workers()

    @pytest.mark.parametrize("settings", ["workers = \n", "wrokers = 2\n", "chdir = 'nowhere'\n", None])
    def test_settings_that_are_refused(self, serve, site, preload, settings):
        (site / "anygate.toml").write_text("workers = 1\n")
        served = serve("app:app", *preload)
        if settings is None:
            (site / "anygate.toml").unlink()
        else:
            (site / "anygate.toml").write_text(settings)
        served.send_signal(signal.SIGHUP)
        served.wait_for_log("not reloaded, the old workers continue")
        assert served.get().text == "version 1"
        (site / "anygate.toml").write_text("workers = 2\n")
        write(site, 2)
        served.send_signal(signal.SIGHUP)
        served.wait_for_log("reloaded: 2 new workers are serving")
        served.wait_until(lambda: served.get().text == "version 2", "the new code")

    def test_what_needs_a_restart_is_named(self, serve, site, preload):
        (site / "anygate.toml").write_text("")
        served = serve("app:app", *preload)
        address = served.address
        (site / "anygate.toml").write_text("umask = '027'\nbacklog = 7\n")
        served.send_signal(signal.SIGHUP)
        served.wait_for_log("changed, but needs a restart: backlog, socket_mode or socket_owner, umask")
        served.wait_for_log("reloaded")
        assert served.address == address

    def test_logs_are_as_the_new_settings_say(self, serve, site, preload):
        (site / "anygate.toml").write_text("access_log = 'one.log'\n")
        served = serve("app:app", *preload)
        (before,) = served.workers()
        served.get("/first")
        new = ["access_log = 'two.log'", "access_log_format = 'asked %(U)s'", "log_level = 'debug'"]
        (site / "anygate.toml").write_text("\n".join([*new, "error_log_format = 'json'", ""]))
        served.send_signal(signal.SIGHUP)
        served.wait_for_log("reloaded: 1 new worker is serving")
        served.wait_until(lambda: before not in served.workers(), "the end of the old worker")
        served.wait_for_log("changed, but needs a restart: error_log_format\n")
        with served.connect() as connection:
            # What a debug message tells of.
            connection.send(b"GET / HTTP/9.9\r\n\r\n").rest()
        served.get("/second")
        served.wait_for_log("DEBUG")
        assert served.terminate() == 0
        assert "/first" in (site / "one.log").read_text()
        assert "/second" not in (site / "one.log").read_text()
        assert "asked /second\n" in (site / "two.log").read_text()

    def test_a_log_that_cannot_be_opened_changes_nothing(self, serve, site, preload):
        (site / "anygate.toml").write_text("access_log = 'one.log'\n")
        served = serve("app:app", *preload)
        (site / "anygate.toml").write_text("access_log = 'missing/two.log'\nlog_level = 'error'\n")
        served.send_signal(signal.SIGHUP)
        served.wait_for_log("not reloaded, the old workers continue")
        served.get("/still")
        assert served.terminate() == 0
        assert "/still" in (site / "one.log").read_text()
        served.wait_for_log("stopping")

    def test_the_former_settings_are_those_of_replaced_workers(self, serve, site, preload):
        (site / "anygate.toml").write_text("server_header = 'one'\n")
        served = serve("app:app", *preload)
        (worker,) = served.workers()
        (site / "anygate.toml").write_text("server_header = 'two'\n")
        write(site, 2, extra="import os; os._exit(1)")
        served.send_signal(signal.SIGHUP)
        served.wait_for_log("not reloaded, the old workers continue")
        write(site, 3)
        let_pass(1.1, "a worker that dies within a second of its start is replaced later")
        os.kill(worker, signal.SIGKILL)
        served.wait_until(lambda: set(served.workers()) - {worker}, "another worker")
        # A template has the code of its generation.
        response = served.get()
        assert response.text == ("version 1" if preload else "version 3")
        assert response["server"] == "one"


def test_what_drains_since_the_first_reload_is_not_cut_by_the_second(serve, site, gate):
    served = serve("app:app", "--preload")
    with served.connect() as connection:
        connection.send(f"GET /slow?{gate.name} HTTP/1.1\r\nHost: a\r\n\r\n")
        gate.wait_for()
        for count in (1, 2):
            served.send_signal(signal.SIGHUP)
            served.wait_for_log("reloaded: 1 new worker", count)
        gate.open()
        assert connection.response().text == "version 1"


def test_a_folder_is_entered_again_by_its_name(serve, site):
    for version in (1, 2):
        (site / str(version)).mkdir()
        shutil.copy(APPS / "gates.py", site / str(version))
        write(site / str(version), version)
    (site / "current").symlink_to("1")
    served = serve("app:app", "--chdir", "current")
    assert served.get().text == "version 1"
    (site / "next").symlink_to("2")
    (site / "next").rename(site / "current")
    served.send_signal(signal.SIGHUP)
    served.wait_until(lambda: served.get().text == "version 2", "the release that the link leads to")


@pytest.mark.parametrize("preload", [(), ("--preload",)])
def test_what_the_application_does_to_its_environment_is_not_inherited(serve, site, preload):
    (site / "app.py").write_text(
        "import os\nsecret = os.environ.pop('SECRET')\n"
        "def app(environ, start_response):\n"
        "    start_response('200 OK', [])\n    return [f'{secret} {os.getpid()}'.encode()]\n"
    )
    served = serve("app:app", *preload, environment={"SECRET": "s3"})
    before = served.get().text
    served.send_signal(signal.SIGHUP)
    served.wait_for_log("reloaded")
    served.wait_until(lambda: served.get().text != before, "the new worker")
    assert served.get().text.startswith("s3 ")


def test_workers_of_a_template_are_children_of_the_supervisor_and_are_replaced(serve, site):
    served = serve("app:app", "--preload", "--workers", "2")
    served.send_signal(signal.SIGTTIN)
    served.wait_until(lambda: len(served.workers()) == 3, "a third worker")
    victim = served.workers()[0]
    let_pass(1.1, "a worker that dies within a second of its start is replaced later")
    os.kill(victim, signal.SIGKILL)
    served.wait_until(lambda: len({*served.workers()} - {victim}) == 3, "the replacement")
    served.send_signal(signal.SIGHUP)
    served.wait_for_log("reloaded: 3 new workers are serving")
    assert served.terminate() == 0


ROLLING = ["--reload-mode", "rolling"]


@pytest.mark.parametrize("kind", [[], ["--preload"], GREENLETS, ["--preload", *GREENLETS]])
def test_rolling_replaces_one_worker_after_another_and_no_request_fails(serve, site, kind):
    served = serve("app:app", "--workers", "4", *ROLLING, *kind, environment=UNCACHED)
    first, most = set(served.workers()), 0
    write(site, 2)
    with Load(served) as load:
        load.wait_for(50)
        served.send_signal(signal.SIGHUP)

        def is_over():
            nonlocal most
            # Those of the list that live when it is complete have lived at the same time.
            most = max(most, sum(map(lives, served.workers())))
            return "reloaded: 4 new workers are serving" in served.log()

        served.wait_until(is_over, "the end of the reload")
        load.wait_for(50, "version 2")
    assert load.failures == []
    # Five workers' worth of memory, never more.
    assert most <= 5
    served.wait_until(lambda: len(served.workers()) == 4, "the end of the old workers")
    assert not first & set(served.workers())


@pytest.mark.parametrize("kind", [[], ["--preload"]])
def test_rolling_stops_at_code_that_does_not_import(serve, site, kind):
    served = serve("app:app", "--workers", "3", *ROLLING, *kind, environment=UNCACHED)
    first = served.workers()
    write(site, 2, "broken!")
    served.send_signal(signal.SIGHUP)
    served.wait_for_log("before it was ready: not reloaded, the old workers continue")
    served.wait_until(lambda: served.workers() == first, "the old workers alone")
    assert served.get().body == b"version 1"
    write(site, 2)
    served.send_signal(signal.SIGHUP)
    served.wait_for_log("reloaded: 3 new workers are serving")


def test_rolling_stops_at_the_first_worker_that_does_not_get_ready(serve, site):
    """The others serve until there are old ones again."""
    served = serve("app:app", "--workers", "3", *ROLLING, environment=UNCACHED)
    # The second one that imports it fails, and no other.
    write(site, 2, "import os\ntry: os.rmdir('first')\nexcept OSError: os.rmdir('second')")
    (site / "first").mkdir()
    with Load(served) as load:
        served.send_signal(signal.SIGHUP)
        served.wait_for_log("before it was ready: not reloaded, the old workers continue")
        load.wait_for(20, "version 2")
        write(site, 1)
        served.wait_until(lambda: len(served.workers()) == 3, "three workers")
        load.wait_for(20, "version 1")
    assert load.failures == []


def test_a_long_request_is_finished_while_others_roll(serve, site, gate):
    served = serve("app:app", "--workers", "2", *ROLLING, environment=UNCACHED)
    with served.connect() as connection:
        connection.send(f"GET /slow?{gate.name} HTTP/1.1\r\nHost: a\r\n\r\n")
        gate.wait_for(1)
        write(site, 2)
        served.send_signal(signal.SIGHUP)
        # The worker that is told to end first may be the one that cannot yet: then an old one serves beside a new one,
        # and single connections may always go to the old one.
        with Load(served) as load:
            load.wait_for(1, "version 2")
        assert load.failures == []
        gate.open()
        assert connection.response().text == "version 1"
    served.wait_for_log("reloaded: 2 new workers are serving")


@pytest.mark.parametrize("kind", [[], ["--preload"], GREENLETS])
def test_a_file_that_is_touched_triggers_a_reload(serve, site, kind):
    (site / "touched").write_text("")
    served = serve("app:app", "--touch-reload", "touched", "--touch-reload", "later", *kind, environment=UNCACHED)
    write(site, 2)
    os.utime(site / "touched")
    served.wait_for_log(f"{site / 'touched'} was touched")
    served.wait_for_log("reloaded: 1 new worker is serving")
    served.wait_until(lambda: served.get().text == "version 2", "new code")
    write(site, 3)
    (site / "later").write_text("")
    served.wait_for_log("reloaded: 1 new worker is serving", 2)
    served.wait_until(lambda: served.get().text == "version 3", "new code")
    assert served.log().count("was touched") == 2
