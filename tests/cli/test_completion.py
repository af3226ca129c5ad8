"""Completion of command lines, in the shells themselves: a key of a terminal, and what the shell makes of it."""

import contextlib
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import time

import pytest
from anygate.importer import COMMANDS
from conftest import ANYGATE
from waiting import PATIENCE

TAB, ERASE = "\t", "\x15"

#: How each shell is started without settings of the user, and what it reads first.
SHELLS = {
    "bash": (["bash", "--norc", "--noprofile", "-i"], 'eval "$(anygate completions bash)"'),
    "zsh": (["zsh", "-f", "-i"], 'autoload -U compinit; compinit -u -D; eval "$(anygate completions zsh)"'),
}

#: What is typed before the key, and what it becomes: commands, options, choices, servers, applications, paths.
LINES = {
    "anygate comple": "anygate completions ",
    "anygate --worker-start": "anygate --worker-start-timeout ",
    "anygate site:application --log-level w": "anygate site:application --log-level warn ",
    "anygate --log-level=w": "anygate --log-level=warn ",
    "anygate -s waitr": "anygate -s waitress ",
    "anygate shop.wsgi:app": "anygate shop.wsgi:application ",
    "anygate import uws": "anygate import uwsgi.ini ",
    "anygate --config=uws": "anygate --config=uwsgi.ini ",
    "anygate --chdir two": "anygate --chdir two\\ words/",
    "anygate cron li": "anygate cron list ",
    "anygate ctl scal": "anygate ctl scale ",
    "anygate web2py ini": "anygate web2py init ",
}


@pytest.fixture
def site(tmp_path):
    folder = tmp_path / "site"
    (folder / "shop").mkdir(parents=True)
    (folder / "two words").mkdir()
    (folder / "shop" / "wsgi.py").write_text("application = print\n")
    (folder / "uwsgi.ini").write_text("[uwsgi]\n")
    return folder


def environment(site):
    path = os.pathsep.join([str(ANYGATE.parent), os.environ["PATH"]])
    home = {"HOME": str(site), "XDG_CONFIG_HOME": str(site / ".config"), "XDG_DATA_HOME": str(site / ".data")}
    return {"PATH": path, "TERM": "dumb", "LC_ALL": "C.UTF-8", **home}


class Terminal:
    """A shell in a terminal of its own."""

    def __init__(self, command, folder):
        self.child, self.screen = pty.fork()
        if self.child == 0:
            os.chdir(folder)
            os.execvpe(command[0], command, environment(folder))
        self.shown = ""

    def type(self, text):
        os.write(self.screen, text.encode())

    def wait_for(self, text):
        """Wait until a text is shown, without what moves a cursor; forget all up to it."""
        deadline = time.monotonic() + PATIENCE
        while text not in self.shown:
            if not select.select([self.screen], [], [], max(deadline - time.monotonic(), 0))[0]:
                pytest.fail(f"{text!r} is not in {self.shown!r}")
            self.shown += os.read(self.screen, 4096).decode(errors="replace")
            self.shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]|\x07|[^\n]\x08", "", self.shown)
        self.shown = self.shown.partition(text)[2]

    def end(self):
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.child, signal.SIGKILL)
        os.waitpid(self.child, 0)
        os.close(self.screen)


@pytest.mark.parametrize("shell", SHELLS)
def test_a_key_completes_what_has_begun(shell, site):
    command, setup = SHELLS[shell]
    terminal = Terminal(command, site)
    try:
        terminal.type(f"{setup}; PS1=; echo re''ady\n")
        terminal.wait_for("ready")
        for line, completed in LINES.items():
            terminal.type(line + TAB)
            terminal.wait_for(completed)
            terminal.type(ERASE)
    finally:
        terminal.end()


def test_fish_completes_what_has_begun(site):
    folder = site / ".config" / "fish" / "completions"
    folder.mkdir(parents=True)
    script = subprocess.run([ANYGATE, "completions", "fish"], capture_output=True, timeout=PATIENCE, check=True).stdout
    (folder / "anygate.fish").write_bytes(script)
    fish = shutil.which("fish")
    for line, completed in LINES.items():
        asked = ["-c", "complete -C $argv[1]", "--", line]
        shown = subprocess.run(
            [fish, *asked],
            cwd=site,
            env=environment(site),
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=True,
        ).stdout
        # fish quotes what it inserts, not what it lists.
        expected = completed.strip().replace("\\ ", " ").removeprefix(line.rpartition(" ")[0] + " ")
        assert expected in [row.split("\t")[0] for row in shown.splitlines()], f"{line}: {shown}"


def test_candidates_have_their_help(run, site):
    lines = run("completions", "--", "--prel", folder=site).stdout
    assert lines == "--preload\timport the application once, before workers are forked\n"


def test_another_shell_is_refused(run):
    ended = run("completions", "csh")
    assert (ended.returncode, ended.stderr) == (2, "anygate: error: completions: name the shell: bash, fish or zsh\n")


def test_commands_that_may_have_been_meant_are_those_that_there_are(run):
    offered = [line.split("\t")[0] for line in run("completions", "--", "").stdout.splitlines()]
    assert {word for word in offered if not word.startswith("-")} == {*COMMANDS}
