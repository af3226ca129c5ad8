"""What a worker may use: address space, processor time, files, core dumps, priority, processors, privileges."""

import os
import signal
import socket
from pathlib import Path

import pytest

APP = """
import json, os, resource, threading
def limit(name):
    return resource.getrlimit(getattr(resource, "RLIMIT_" + name))[0]
def app(environ, start_response):
    start_response("200 OK", [])
    if environ["PATH_INFO"] == "/burn":
        while True: pass
    if environ["PATH_INFO"] == "/allocate":
        try:
            bytearray(4 << 30)
        except MemoryError:
            return [b"MemoryError"]
    status = open("/proc/thread-self/status").read()
    return [json.dumps({
        "limits": {name: limit(name) for name in ("AS", "CPU", "NOFILE", "CORE")},
        "nice": os.getpriority(os.PRIO_PROCESS, 0),
        "processors": sorted(os.sched_getaffinity(threading.get_native_id())),
        "no_new_privs": "NoNewPrivs:\\t1" in status,
        "uid": os.getuid(),
    }).encode()]
"""
KINDS = pytest.mark.parametrize(
    "kind",
    [(), ("--preload",), ("--concurrency", "gevent"), ("--preload", "--concurrency", "gevent")],
    ids=["threads", "preload", "greenlets", "preload-greenlets"],
)


@pytest.fixture
def site(tmp_path):
    (tmp_path / "app.py").write_text(APP)
    return tmp_path


@pytest.mark.linux("cpu_affinity and no_new_privs")
@KINDS
def test_workers_are_limited_as_they_are_told(serve, site, kind):
    served = serve(
        *("app:app", "--worker-address-space-max", "3G", "--worker-cpu-time-max", "90500ms", "--open-files-max", "200"),
        *("--core-size-max", "0", "--nice", "3", "--cpu-affinity", "1", "--no-new-privs", *kind),
    )
    is_so = served.get().json
    assert is_so["limits"] == {"AS": 3 << 30, "CPU": 91, "NOFILE": 200, "CORE": 0}
    assert is_so["nice"] == os.getpriority(os.PRIO_PROCESS, 0) + 3
    assert is_so["processors"] == sorted(os.sched_getaffinity(0))[:1]
    assert is_so["no_new_privs"]
    assert served.get("/allocate").text == "MemoryError"


@KINDS
def test_without_options_workers_may_use_what_anygate_may(serve, site, kind):
    is_so = serve("app:app", *kind).get().json
    assert is_so["nice"] == os.getpriority(os.PRIO_PROCESS, 0)
    assert is_so["processors"] == sorted(os.sched_getaffinity(0))
    assert not is_so["no_new_privs"]
    assert is_so["limits"]["AS"] == -1


@pytest.mark.linux("cpu_affinity")
def test_workers_take_turns_on_processors(serve, site):
    served = serve("app:app", "--workers", "3", "--cpu-affinity", "1")
    allowed = sorted(os.sched_getaffinity(0))
    bound = sorted(next(iter(os.sched_getaffinity(worker))) for worker in served.workers())
    assert bound == sorted((allowed * 3)[:3])


def test_a_worker_that_has_used_its_processor_time_is_replaced(serve, site):
    served = serve("app:app", "--worker-cpu-time-max", "1")
    (first,) = served.workers()
    with served.connect() as connection:
        connection.send("GET /burn HTTP/1.1\r\nHost: a\r\n\r\n")
        served.wait_for_log(f"worker {first} ended with signal XCPU (processor time limit); replacing it")
    assert served.get().status == 200


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may bind low ports and become somebody else")
def test_low_ports_are_bound_before_workers_are_somebody_else(serve, site):
    site.chmod(0o755)
    port = free_low_port()
    served = serve("app:app", "--bind", f"127.0.0.1:{port}", "--user", "65534", "--preload")
    assert served.get().json["uid"] == 65534
    first = served.workers()
    served.send_signal(signal.SIGHUP)
    served.wait_for_log("reloaded")
    served.wait_until(lambda: not set(first) & set(served.workers()), "the end of the old workers")
    assert served.get().json["uid"] == 65534


def free_low_port():
    for port in range(1023, 600, -1):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    return pytest.fail("no low port is free")


def test_what_the_system_does_not_allow_is_named(run, site):
    limit = int(Path("/proc/sys/fs/nr_open").read_text()) + 1
    ended = run("app:app", "--port", "0", "--open-files-max", str(limit))
    assert ended.returncode == 1
    assert "--open-files-max: " in ended.stderr


@pytest.mark.parametrize("kind", [(), ("--preload",)], ids=["threads", "preload"])
def test_a_limit_that_leaves_no_room_for_threads_is_named_and_tried_again_more_and_more_rarely(launch, tmp_path, kind):
    (tmp_path / "app.py").write_text(
        "def app(environ, start_response):\n    start_response('200 OK', [])\n    return []\n"
    )
    served = launch("app:app", "--port", "0", "--worker-address-space-max", "50M", *kind)
    served.wait_for_log("a thread needs more address space, memory or processes than are allowed", 3)
    served.wait_for_log("the next one starts in 200ms")
