"""Workers that are replaced although they serve: after a number of requests, at an age, above a limit of memory."""

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from admin_address import Admin
from conftest import APPS
from load import Load
from waiting import PATIENCE, let_pass, lives
from websocket_frames import TEXT, Client, frame

CONTRACT = APPS / "contract.py"
KINDS = {
    "threads": (),
    "greenlets": ("--concurrency", "gevent"),
    "preload": ("--preload",),
    "preload-greenlets": ("--preload", "--concurrency", "gevent"),
}
EACH_KIND = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
SECONDS = float(os.environ.get("SOAK_SECONDS", 0))
MEGABYTE = 1 << 20


def pid(served):
    return int(served.get("/pid").text)


@EACH_KIND
def test_a_worker_is_replaced_after_max_requests(serve, kind):
    served = serve(CONTRACT, "--max-requests", "3", *kind)
    first = pid(served)
    assert [pid(served) for _ in range(2)] == [first] * 2
    served.wait_until(lambda: pid(served) != first, "another worker")
    served.wait_until(lambda: first not in served.workers(), "the end of the first worker")
    served.wait_for_log(f"worker {first} had max_requests: starting another worker")
    assert served.terminate() == 0


@pytest.mark.timeout(1800 + 2 * SECONDS)
@EACH_KIND
def test_no_request_fails_while_workers_are_replaced_under_load(serve, kind):
    count, workers = (1000, 4) if SECONDS else (40, 2)
    options = ("--workers", str(workers), "--max-requests", str(count), "--max-requests-jitter", str(count // 2))
    served = serve(CONTRACT, *options, *kind)
    most = 0
    until = time.monotonic() + SECONDS
    with Load(served, "/pid") as load:

        def enough():
            nonlocal most
            # Those of the list that live when it is complete have lived at the same time.
            most = max(most, sum(map(lives, served.workers())))
            return time.monotonic() >= until and served.log().count("had max_requests") >= 3 * workers

        served.wait_until(enough, "workers that were replaced") if not SECONDS else soak(enough)
    print(f"{len(load.responses)} responses of {len(set(load.responses))} workers, {len(load.failures)} failures")
    assert load.failures == []
    assert len(set(load.responses)) >= 3 * workers
    # Never two at once.
    assert most <= workers + 1
    assert served.terminate() == 0


def soak(condition):
    while not condition():
        let_pass(0.01, "soaking takes as long as it is told to")


@EACH_KIND
def test_a_worker_that_has_served_for_its_time_is_replaced(serve, kind):
    served = serve(CONTRACT, "--workers", "2", "--worker-max-age", "500ms", *kind)
    first = served.workers()
    served.wait_until(lambda: not set(first) & set(served.workers()), "other workers")
    served.wait_for_log("(worker_max_age): starting another worker")
    assert served.get("/pid").status == 200


def test_a_long_request_is_finished_and_a_websocket_told_to_go(serve, gate, tmp_path):
    shutil.copy(APPS / "gates.py", tmp_path)
    (tmp_path / "app.py").write_text(
        "import os\nfrom gates import wait_at\n"
        "def app(environ, start_response):\n"
        "    if ws := environ.get('wsgi.websocket'):\n"
        "        while (message := ws.receive()) is not None: ws.send(message)\n"
        "        return []\n"
        "    if environ['QUERY_STRING']: wait_at(environ['QUERY_STRING'])\n"
        "    start_response('200 OK', [])\n    return [str(os.getpid()).encode()]\n"
    )
    served = serve("app:app", "--max-requests", "3")
    (first,) = served.workers()
    with served.connect() as long, Client(served.address) as websocket:
        long.send(f"GET /?{gate.name} HTTP/1.1\r\nHost: a\r\n\r\n")
        gate.wait_for(1)
        websocket.open().send(frame(TEXT, b"hello"))
        assert websocket.frame() == (TEXT, b"hello")
        served.wait_until(lambda: served.get().text != str(first), "another worker")
        assert websocket.close_code() == 1001
        assert first in served.workers()
        gate.open()
        assert long.response().text == str(first)
    served.wait_until(lambda: first not in served.workers(), "the end of the first worker")


LEAKING = """
import os
kept = []
def app(environ, start_response):
    kept.append(b"x" * int(environ["QUERY_STRING"]))
    start_response("200 OK", [])
    return [str(os.getpid()).encode()]
"""


def resident(worker):
    try:
        return int(Path(f"/proc/{worker}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (FileNotFoundError, ProcessLookupError):
        return 0


@pytest.mark.linux("the memory of workers")
@EACH_KIND
def test_a_worker_is_replaced_when_it_has_too_much_memory(serve, tmp_path, kind):
    (tmp_path / "app.py").write_text(LEAKING)
    served = serve("app:app", "--worker-memory-max", "200M", *kind)
    (first,) = served.workers()
    while resident(first) <= 200 * MEGABYTE:
        assert served.get("/?1000000").text == str(first)
    served.wait_until(lambda: served.get("/?0").text != str(first), "another worker")
    assert f"worker {first} has 20" in served.log()
    assert "MB in memory, more than worker_memory_max: starting another worker" in served.log()


@pytest.mark.linux("the memory of workers")
@pytest.mark.skipif(not SECONDS, reason="time has to pass: make soak")
@pytest.mark.timeout(1800 + 2 * SECONDS)
@EACH_KIND
def test_a_leaking_application_stays_below_its_limit_and_a_tenth(serve, tmp_path, kind):
    (tmp_path / "app.py").write_text(LEAKING)
    served = serve("app:app", "--worker-memory-max", "200M", *kind)
    largest, until = 0, time.monotonic() + SECONDS
    seen = set()
    while len(seen) < 4 or time.monotonic() < until:
        response = served.get("/?500000")
        assert response.status == 200
        seen.add(response.text)
        largest = max([largest, *map(resident, served.workers())])
        let_pass(0.05, "10 MB a second are leaked")
    print(f"{len(seen)} workers, at most {largest / MEGABYTE:.1f} MB")
    assert 180 * MEGABYTE < largest < 220 * MEGABYTE


@pytest.mark.linux("the memory of workers")
@EACH_KIND
def test_a_worker_above_its_limit_at_birth_is_reported_and_stays(serve, kind):
    served = serve(CONTRACT, "--worker-memory-max", "1M", "--workers", "2", *kind)
    first = served.workers()
    served.wait_for_log("when it has loaded the application, more than worker_memory_max (1 MB)", 2)
    with Load(served, "/pid") as load:
        load.wait_for(100)
    assert served.workers() == first
    assert "starting another worker" not in served.log()


def test_a_replacement_that_does_not_start_leaves_the_old_worker_serving(serve, tmp_path):
    app = tmp_path / "app.py"
    good = (
        "import os\ndef app(environ, start_response):\n"
        "    start_response('200 OK', [])\n    return [str(os.getpid()).encode()]\n"
    )
    app.write_text(good)
    served = serve("app:app", "--max-requests", "2")
    app.write_text("broken!\n")
    first = served.get().text
    assert served.get().status == 200
    served.wait_for_log("soon after its start", 2)
    assert served.get().text == first
    app.write_text(good)
    served.wait_until(lambda: served.get().text != first, "another worker")


def test_recycled_workers_are_counted(serve):
    served = serve(CONTRACT, "--max-requests", "2", "--admin", "127.0.0.1:0")
    admin = Admin(served)
    first = pid(served)
    served.wait_until(lambda: pid(served) != first, "another worker")
    line = re.search(r'anygate_worker_recycles_total\{reason="requests"\} (\d+)', admin.ask("/metrics").text)
    assert int(line[1]) >= 1


@pytest.mark.parametrize("option", ["max_requests=5", "worker_max_age=60", "worker_memory_max='1G'"])
def test_a_server_inside_a_program_cannot_be_recycled(option):
    code = f"import anygate; anygate.Server(print, {option})"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert "ValueError: max_requests, worker_max_age, worker_memory_max: a Server is one worker" in ended.stderr
