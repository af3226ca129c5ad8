"""Tools that run an application, or run beside it: a profiler, a test runner, and a shell."""

import pstats
import subprocess
import sys

import pytest
from waiting import PATIENCE

APP = """
import cProfile

def work():
    return b"worked"

def app(environ, start_response):
    profile = cProfile.Profile()
    body = profile.runcall(work)
    profile.dump_stats("of_request")
    start_response("200 OK", [])
    return [body]
"""
SERVED = """
import urllib.request

import anygate
from app import app


def ask():
    with anygate.Server(app, port=0) as server:
        return urllib.request.urlopen(server.url).read()
"""


@pytest.fixture
def site(tmp_path):
    (tmp_path / "app.py").write_text(APP)
    (tmp_path / "served.py").write_text(SERVED)
    return tmp_path


@pytest.mark.parametrize("options", [[], ["--preload"], ["--concurrency", "gevent"]])
def test_a_profiler_works_in_requests_and_around_the_server(serve, site, options):
    profiled = [sys.executable, "-m", "cProfile", "-o", "of_server", "-m", "anygate"]
    served = serve("app:app", *options, command=profiled)
    assert served.get().body == b"worked"
    assert served.terminate() == 0
    for name, function in [("of_request", "work"), ("of_server", "main")]:
        assert any(key[2] == function for key in pstats.Stats(str(site / name)).stats)


TOOLS = {
    "pytest": (
        "test_it.py",
        "from served import ask\n\ndef test_it(capfd, caplog, recwarn):\n    assert ask() == b'worked'\n",
        ["-q", "-p", "no:cacheprovider", "test_it.py"],
    ),
    "IPython": ("typed.py", "from served import ask\nprint('1 passed', ask())\n", ["typed.py"]),
}


@pytest.mark.parametrize("tool", TOOLS)
def test_a_server_of_a_program_works_inside_of_a_tool(site, tool):
    pytest.importorskip(tool)
    name, text, arguments = TOOLS[tool]
    (site / name).write_text(text)
    ended = subprocess.run(
        [sys.executable, "-m", tool, *arguments],
        cwd=site,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (ended.returncode, "1 passed" in ended.stdout) == (0, True), ended.stdout + ended.stderr
