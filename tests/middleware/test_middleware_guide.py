"""docs/guide/middleware.md, word for word but for ports."""

import gzip
import re
import shutil
import sys
from pathlib import Path

import pytest
from other_servers import free_port, process, wait_for
from wire import Connection

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs" / "guide" / "middleware.md").read_text()
BIN = Path(sys.executable).parent
APP = """
def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/html")])
    return [b"a page of some length\\n" * 100]
"""


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", GUIDE, re.DOTALL)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "myapp.py").write_text(APP)
    (tmp_path / "around.py").write_text(blocks("python")[0])
    (tmp_path / "anygate.toml").write_text(blocks("toml")[0])
    (tmp_path / "static").mkdir()
    (tmp_path / "static" / "a.txt").write_text("a file")
    return tmp_path


@pytest.mark.parametrize("command", blocks("sh")[0].splitlines())
def test_the_commands_work(folder, command):
    port = free_port()
    words = command.replace("8000", str(port)).split()
    words = [str(BIN / words[0]), *words[1:]]
    # Of an environment for tests; the first because it must not find another one's.
    words += {"gunicorn": ["--no-control-socket"], "uwsgi": [f"--virtualenv={sys.prefix}"]}.get(command.split()[0], [])
    with process(words, folder, environment={"PYTHONPATH": "."}) as served:

        def get(target, *fields):
            with Connection(("127.0.0.1", port)) as connection:
                return connection.ask("GET", target, [("Connection", "close"), *fields])

        assert wait_for(served, lambda: get("/health").body) == b"OK"
        response = get("/", ("Accept-Encoding", "gzip"))
        assert gzip.decompress(response.body) == b"a page of some length\n" * 100
        assert response["x-frame-options"]
        assert response["x-request-id"]
        assert get("/static/a.txt").body == b"a file"
        assert [get("/login").status for _ in range(6)] == [200] * 5 + [429]


def test_options_as_keywords(folder, run):
    program = "import anygate\n" + blocks("python")[1] + "print(application.application)"
    ended = run("-c", program, command=[sys.executable], folder=folder)
    assert ended.stdout.startswith("<function app at "), ended.stderr


def test_a_handler_of_web2py(folder, run):
    """`anygate web2py init` writes the rest of the file."""
    shutil.copytree(ROOT / "tests" / "web2py" / "site", folder, dirs_exist_ok=True)
    assert run("web2py", "init", "--force", folder, folder=folder).returncode == 0
    handler = folder / "wsgihandler.py"
    before = handler.read_text()
    (line,) = [line for line in before.splitlines() if line.startswith("application = ")]
    handler.write_text(before.replace(line, blocks("python")[2].strip()))
    program = "import wsgihandler\nprint(type(wsgihandler.application).__name__, wsgihandler.application.application)"
    ended = run("-c", program, command=[sys.executable], folder=folder, environment={"PYTHONPATH": "."})
    assert ended.stdout.startswith("Middleware <anygate.web2py._Web2py object at "), ended.stderr
