"""``anygate cert``."""

import shlex
import stat
import subprocess

import pytest
from conftest import APPS
from other_servers import free_port
from secure import Secure
from waiting import PATIENCE

CONTRACT = APPS / "contract.py"


def test_what_it_says_is_true(run, serve, tmp_path):
    made = run("cert", "--self-signed")
    assert made.returncode == 0, made.stderr
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    (command,) = [line.partition("serve with it: ")[2] for line in made.stdout.splitlines() if "serve with" in line]
    port = str(free_port())
    words = shlex.split(command.replace("APP", str(CONTRACT)).replace("8443", port))
    assert words.pop(0) == "anygate"
    served = serve(*words)
    for name in ("localhost", "127.0.0.1", "::1"):
        with Secure(served.address, certificate, name) as connection:
            assert connection.ask("GET", "/pid").status == 200
    (command,) = [line.partition("ask it: ")[2] for line in made.stdout.splitlines() if "ask it" in line]
    words = shlex.split(command.replace("8443", port))
    subprocess.run([*words, "--silent", "--fail"], cwd=tmp_path, check=True, capture_output=True, timeout=PATIENCE)
    # Nothing is overwritten unasked.
    before = key.read_bytes()
    again = run("cert", "--self-signed")
    assert again.returncode == 2
    assert 'cert.pem" already exists; choose another directory with --out, or replace it with --force' in again.stderr
    assert key.read_bytes() == before
    assert run("cert", "--self-signed", "--force").returncode == 0
    assert key.read_bytes() != before
    assert stat.S_IMODE(key.stat().st_mode) == 0o600


def test_names_and_a_folder_of_ones_own(run, serve, tmp_path):
    made = run("cert", "--self-signed", "--host", "*.site.example", "--host", "192.0.2.1", "--out", "new/folder")
    assert made.returncode == 0, made.stderr
    folder = tmp_path / "new" / "folder"
    served = serve(CONTRACT, "-c", folder / "cert.pem", "-k", folder / "key.pem")
    for name in ("a.site.example", "192.0.2.1"):
        Secure(served.address, folder / "cert.pem", name).close()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "cert: needs --self-signed: anygate cert --self-signed"),
        (["--self-singed"], 'cert: unknown argument "--self-singed": anygate cert'),
        (["--self-signed", "--host"], "cert: --host needs a value"),
        (["--self-signed", "--host", "https://a"], 'cert: --host "https://a" is neither a host name nor an IP address'),
        (["--self-signed", "--out", "/proc/nothing"], 'cert: "/proc/nothing" cannot be written: '),
    ],
)
def test_wrong_use(run, arguments, message):
    ended = run("cert", *arguments)
    assert ended.returncode in (1, 2)
    assert message in ended.stderr
    assert len(ended.stderr.splitlines()) == 1
