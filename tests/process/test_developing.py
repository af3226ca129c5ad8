"""--reload: what is saved is served."""

import contextlib
import os
import pty
import select
import signal
import sys
from pathlib import Path

import pytest
from conftest import ANYGATE, APPS
from load import Load
from waiting import stop, wait_until
from wire import Connection

APP = """
import helper
from package import inner

def app(environ, start_response):
    if environ["PATH_INFO"] == "/late":
        import late
        text = late.TEXT
    elif environ["PATH_INFO"] == "/template":
        text = open("templates/page.html").read()
    else:
        text = f"app {helper.TEXT} {inner.TEXT}"
    start_response("200 OK", [])
    return [text.encode()]
"""

SOAK = bool(os.environ.get("SOAK_SECONDS"))
GREENLETS = ["--concurrency", "gevent"]
KINDS = [[], ["--preload"], GREENLETS, ["--preload", *GREENLETS], ["--workers", "2"], ["--reload-mode", "rolling"]]


@pytest.fixture
def site(tmp_path):
    for name in ("package", "templates", "data"):
        (tmp_path / name).mkdir()
    (tmp_path / "app.py").write_text(APP)
    (tmp_path / "helper.py").write_text("TEXT = 'helper'\n")
    (tmp_path / "late.py").write_text("TEXT = 'late'\n")
    (tmp_path / "package/__init__.py").touch()
    (tmp_path / "package/inner.py").write_text("TEXT = 'inner'\n")
    (tmp_path / "templates/page.html").write_text("page")
    return tmp_path


def save(path, text):
    """Write a file as editors do: another one takes its place."""
    beside = path.with_name(f".{path.name}.new")
    beside.write_text(text)
    beside.replace(path)


def wait_for(served, text, target="/"):
    def is_served():
        with contextlib.suppress(ConnectionError):
            return served.get(target).text == text
        return False

    served.wait_until(is_served, text)


def wait_for_old(served, count=1):
    served.wait_until(lambda: len(served.workers()) == count, "the old workers to leave")


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: " ".join(kind) or "threads")
class TestSaves:
    def test_the_files_of_modules_are_watched(self, serve, site, kind):
        served = serve("app:app", "--reload", *kind)
        assert served.get().text == "app helper inner"
        save(site / "app.py", APP.replace('f"app', 'f"APP'))
        wait_for(served, "APP helper inner")
        (site / "helper.py").write_text("TEXT = 'HELPER'\n")
        wait_for(served, "APP HELPER inner")
        save(site / "package/inner.py", "TEXT = 'INNER'\n")
        wait_for(served, "APP HELPER INNER")
        assert served.terminate() == 0

    def test_modules_that_are_imported_later_are_watched_from_then_on(self, serve, site, kind):
        served = serve("app:app", "--reload", *kind)
        assert served.get("/late").text == "late"
        save(site / "late.py", "TEXT = 'LATE'\n")
        served.wait_for_log("late.py was changed")
        wait_for(served, "LATE", "/late")

    def test_an_import_that_fails_is_shown_until_a_save_mends_it(self, serve, site, kind):
        served = serve("app:app", "--reload", "--local-hosts", "test", *kind)
        save(site / "helper.py", "TEXT = 1 / 0\n")
        served.wait_until(lambda: "ZeroDivisionError" in served.get().text, "the failure")
        served.wait_for_log("ZeroDivisionError")
        assert served.get().status == 500
        save(site / "helper.py", "TEXT = \n")
        served.wait_until(lambda: "SyntaxError" in served.get().text, "the next failure")
        assert "anygate/sources.py" not in served.get().text
        save(site / "helper.py", "TEXT = 'mended'\n")
        wait_for(served, "app mended inner")

    def test_a_first_import_that_fails_is_shown_until_a_save_mends_it(self, serve, site, kind):
        (site / "helper.py").write_text("TEXT = 1 / 0\n")
        served = serve("app:app", "--reload", "--local-hosts", "test", *kind)
        served.wait_for_log("ZeroDivisionError")
        shown = served.get()
        assert shown.status == 500
        assert "helper.py" in shown.text
        assert "ZeroDivisionError" in shown.text
        elsewhere = served.get(fields=[("X-Forwarded-For", "192.0.2.1")])
        assert elsewhere.status == 500
        assert "ZeroDivisionError" not in elsewhere.text
        (site / "helper.py").write_text("TEXT = \n")
        served.wait_until(lambda: "SyntaxError" in served.get().text, "the next failure")
        save(site / "helper.py", "TEXT = 'mended'\n")
        wait_for(served, "app mended inner")


def test_a_module_that_is_missing_mends_the_import_when_it_appears(serve, site):
    (site / "helper.py").unlink()
    served = serve("app:app", "--reload", "--local-hosts", "test")
    assert "No module named 'helper'" in served.get().text
    save(site / "helper.py", "TEXT = 'new'\n")
    wait_for(served, "app new inner")


def test_templates_are_watched_and_other_files_are_not(serve, site):
    served = serve("app:app", "--reload")
    before = served.workers()
    (site / "data/notes").write_text("x")
    (site / "unused.py").write_text("x = 1\n")
    (site / "templates/.page.html.swp").write_text("x")
    save(site / "templates/page.html", "PAGE")
    served.wait_for_log("reloaded: ")
    assert served.log().count("was changed") == 1
    served.wait_for_log("page.html was changed")
    assert served.get("/template").text == "PAGE"
    wait_for_old(served)
    assert not set(before) & set(served.workers())


def test_named_files_folders_and_globs_are_watched(serve, site):
    (site / "texts").mkdir()
    named = ["--reload-files", "data", "--reload-files", "texts/*.po", "--reload-files", "later.json"]
    (site / "texts/de.po").write_text("x")
    served = serve("app:app", "--reload", *named)
    for count, name in enumerate(["data/new", "texts/de.po", "later.json"], 1):
        (site / name).write_text("y")
        served.wait_for_log(f"{name} was changed")
        served.wait_for_log("reloaded: ", count)


def test_the_file_behind_a_link_is_watched(serve, site):
    (site / "real").mkdir()
    (site / "helper.py").rename(site / "real/there.py")
    (site / "helper.py").symlink_to("real/there.py")
    served = serve("app:app", "--reload")
    save(site / "real/there.py", "TEXT = 'there'\n")
    wait_for(served, "app there inner")


def test_saves_that_follow_each_other_are_one_reload(serve, site):
    served = serve("app:app", "--reload", "--workers", "2")
    # They come within a moment, however busy the machine is.
    stop(served.pid)
    for name in ("helper.py", "package/inner.py", "app.py"):
        save(site / name, (site / name).read_text())
    served.send_signal(signal.SIGCONT)
    served.wait_for_log("reloaded: ")
    served.send_signal(signal.SIGHUP)
    served.wait_for_log("reloaded: ", 2)
    assert served.log().count("was changed") == 1


@pytest.mark.timeout(3600 if SOAK else 1800)
@pytest.mark.parametrize("kind", [[], GREENLETS, ["--preload"]], ids=lambda kind: " ".join(kind) or "threads")
def test_no_request_fails_while_files_are_saved(serve, site, kind):
    served = serve("app:app", "--reload", "--workers", "2", *kind)
    with Load(served) as load:
        for version in range(100 if SOAK else 8):
            save(site / "helper.py", f"TEXT = {version}\n")
            served.wait_for_log("reloaded: ", version + 1)
            load.wait_for(20, f"app {version} inner")
    assert load.failures == []


def descriptors(served):
    return [os.readlink(path) for path in Path(f"/proc/{served.pid}/fd").iterdir()]


@pytest.mark.linux("the kernel tells of saves")
def test_the_kernel_tells_the_supervisor_which_has_one_thread(serve, site):
    served = serve("app:app", "--reload")
    assert descriptors(served).count("anon_inode:inotify") == 1
    assert len(list(Path(f"/proc/{served.pid}/task").iterdir())) == 1


BREAKPOINT = """
def app(environ, start_response):
    number = 41
    breakpoint()
    start_response("200 OK", [])
    return [str(number).encode()]
"""


class Terminal:
    """The terminal of a program, as a user has it."""

    def __init__(self, *command, folder):
        self.pid, self.end = pty.fork()
        if self.pid == 0:
            os.chdir(folder)
            os.execv(command[0], [str(part) for part in command])
        self.text = ""

    def read(self):
        while select.select([self.end], [], [], 0)[0]:
            with contextlib.suppress(OSError):
                self.text += os.read(self.end, 4096).decode()
        return self.text

    def wait_for(self, text, count=1):
        wait_until(lambda: self.read().count(text) >= count, text, self.read)

    def type(self, text):
        os.write(self.end, text.encode())

    def close(self):
        os.kill(self.pid, signal.SIGTERM)
        os.waitpid(self.pid, 0)
        os.close(self.end)


@pytest.mark.parametrize("kind", [[], ["--preload"], GREENLETS], ids=lambda kind: " ".join(kind) or "threads")
def test_a_breakpoint_has_the_terminal_and_the_time_that_it_takes(site, kind):
    (site / "app.py").write_text(BREAKPOINT)
    command = [ANYGATE, "app:app", "--reload", "--bind", "unix:a.sock", "--request-timeout", "1ms", *kind]
    with contextlib.closing(Terminal(*command, folder=site)) as terminal:
        terminal.wait_for(" serves ")
        with Connection(str(site / "a.sock")) as connection:
            connection.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n")
            terminal.wait_for("(Pdb)")
            terminal.type("number += 1\n")
            terminal.wait_for("(Pdb)", 2)
            terminal.type("continue\n")
            response = connection.response()
        assert (response.status, response.text) == (200, "42")


def test_without_it_nothing_is_watched(serve, site):
    served = serve("app:app")
    save(site / "helper.py", "TEXT = 'new'\n")
    assert "anon_inode:inotify" not in descriptors(served)
    assert served.get().text == "app helper inner"


def test_an_application_that_cannot_be_imported_anew_is_refused(run, tmp_path):
    script = tmp_path / "serve.py"
    script.write_text("import anygate\nanygate.serve(lambda environ, start_response: [], port=0, reload=True)\n")
    ended = run(script, command=[sys.executable])
    assert "reload: workers import the application anew" in ended.stderr


def test_the_contract_application_reloads(serve, tmp_path):
    served = serve(APPS / "contract.py", "--reload", "--reload-files", tmp_path / "touched")
    before = served.get("/pid").text
    (tmp_path / "touched").touch()
    served.wait_for_log("reloaded")
    wait_for_old(served)
    assert served.get("/pid").text != before
