"""deploy/systemd: valid, hardened, and its command serves on systemd's socket."""

import configparser
import shlex
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ANYGATE
from wire import Datagrams

UNITS = Path(__file__).parents[2] / "deploy" / "systemd"
#: In tenths, as systemd-analyze has it.
EXPOSURE_MAX = 20
INSTALLED = "/srv/myapp/venv/bin/anygate"


@pytest.fixture
def units(tmp_path):
    """The units, for an anygate that is here."""
    for unit in UNITS.iterdir():
        (tmp_path / unit.name).write_text(unit.read_text().replace(INSTALLED, str(ANYGATE)))
    return tmp_path


def analyze(*arguments):
    command = ["systemd-analyze", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def command(units):
    parser = configparser.RawConfigParser(strict=False)
    parser.optionxform = str
    parser.read(units / "anygate.service")
    return shlex.split(parser["Service"]["ExecStart"])


def test_the_units_are_valid(units):
    result = analyze("verify", *units.iterdir())
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_a_service_that_is_broken_into_can_do_little():
    result = analyze("security", "--offline=yes", f"--threshold={EXPOSURE_MAX}", UNITS / "anygate.service")
    assert result.returncode == 0, result.stdout


def test_its_command_serves_on_the_socket_of_systemd(units, launch):
    (units / "myapp.py").write_text(
        "def app(environ, start_response):\n    start_response('200 OK', [])\n    return [b'myapp']\n"
    )
    code = (
        "import os, sys\n"
        "os.dup2(int(sys.argv[1]), 3)\n"
        "os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='1', LISTEN_FDNAMES='http')\n"
        "os.execv(sys.argv[2], sys.argv[2:])\n"
    )
    program, *arguments = command(units)
    manager = Datagrams(units / "notify")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        served = launch(
            *arguments,
            folder=units,
            command=[sys.executable, "-c", code, str(listener.fileno()), program],
            environment={"NOTIFY_SOCKET": str(units / "notify")},
            pass_fds=[listener.fileno()],
        )
        manager.wait_for(rb"(?m)^READY=1$")
        with served.connect(listener.getsockname()) as connection:
            assert connection.ask("GET", "/").text == "myapp"
