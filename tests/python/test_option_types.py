"""Options as keyword arguments, as a type checker sees them."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

HEAD = """\
from pathlib import Path

import anygate
from anygate.options import Options
from anygate.web2py import wsgihandler as web2py

def app(environ: dict[str, object], start_response: object) -> list[bytes]:
    return []

"""

RIGHT = [
    "anygate.serve(app, workers=2, body_max_bytes='10M', keepalive_timeout=7.5, chdir=Path('.'), temp_dir=None)",
    "anygate.serve('myapp:app', bind=['127.0.0.1:0', 'unix:x'], umask='022', log_level='debug')",
    "anygate.Server(app, port=0, bind='unix:x', preload=False).start()",
    "anygate.wsgihandler(app, config='anygate.toml', cors_origins=('*',), security_headers='strict')",
    "web2py(__file__, logging=True, trusted_proxies=['unix'])",
    "options: Options = {'threads': 4}; anygate.serve(app, **options)",
]

WRONG = [
    "anygate.serve(app, workerz=2)",
    "anygate.serve(app, workers='two')",
    "anygate.serve(app, umask=22)",
    "anygate.serve(app, log_level='loud')",
    "anygate.serve(app, config='anygate.toml')",
    "anygate.Server(app, prt=0)",
    "anygate.wsgihandler(app, workers=2)",
    "web2py(__file__, workers=2)",
]


@pytest.fixture(scope="module")
def refused(tmp_path_factory):
    """The lines that mypy refuses."""
    pytest.importorskip("mypy")
    folder = tmp_path_factory.mktemp("mypy")
    (folder / "site.py").write_text(HEAD + "\n".join(RIGHT + WRONG) + "\n")
    command = [sys.executable, "-m", "mypy", "--no-error-summary", "--show-absolute-path"]
    command += [
        "--cache-dir",
        str(folder / "cache"),
        "--config-file",
        str(ROOT / "pyproject.toml"),
        str(folder / "site.py"),
    ]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT / "python")
    assert ended.returncode in (0, 1), ended.stdout + ended.stderr
    lines = (folder / "site.py").read_text().splitlines()
    return {lines[int(line.split(":")[1]) - 1] for line in ended.stdout.splitlines() if ": error: " in line}


@pytest.mark.parametrize("line", RIGHT)
def test_type_checkers_accept_options(refused, line):
    assert line not in refused


@pytest.mark.parametrize("line", WRONG)
def test_type_checkers_refuse_what_is_no_option(refused, line):
    assert line in refused
