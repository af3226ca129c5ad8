"""`coverage run -m anygate` measures requests, in all workers."""

import subprocess
import sys

import pytest
from waiting import PATIENCE

pytest.importorskip("coverage")

APP = """
import os


def responded():
    return [str(os.getpid()).encode()]


def app(environ, start_response):
    start_response("200 OK", [])
    return responded()
"""


@pytest.mark.parametrize(
    ("concurrency", "options"),
    [("thread", ["--workers", "2"]), ("thread", ["--preload"]), ("gevent", ["--concurrency", "gevent"])],
)
def test_coverage_measures_requests(serve, tmp_path, concurrency, options):
    (tmp_path / "app.py").write_text(APP)
    (tmp_path / ".coveragerc").write_text(f"[run]\nparallel = true\nconcurrency = {concurrency}\n")
    coverage = [sys.executable, "-m", "coverage"]
    served = serve("app:app", *options, command=[*coverage, "run", "-m", "anygate"])
    served.get()
    assert served.terminate() == 0
    subprocess.run([*coverage, "combine", "-q"], cwd=tmp_path, check=True, timeout=PATIENCE)
    report = [*coverage, "report", "--include", "app.py", "--fail-under", "100"]
    subprocess.run(report, cwd=tmp_path, check=True, timeout=PATIENCE)
