"""HTTP/2 with the clients that people have: curl, nghttp, h2load."""

import hashlib
import json
import os
import re
import signal
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor

import http2_frames
import pytest
from conftest import APPS
from http2_frames import Client, plain
from other_servers import certificate
from waiting import PATIENCE

APPLICATION = APPS / "http2.py"


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    return certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture(params=["h2c", "tls"])
def place(request, serve, pair):
    """A server, its URL and how curl comes to it."""
    tls = request.param == "tls"
    served = serve(APPLICATION, "--threads", "4", *(["-c", pair[0], "-k", pair[1]] if tls else []))
    host, port = served.address
    url = f"{'https' if tls else 'http'}://{host}:{port}"
    return served, url, ["--http2", "--cacert", pair[0]] if tls else ["--http2-prior-knowledge"]


def run(*command, stdin=subprocess.DEVNULL):
    return subprocess.run(
        list(map(str, command)), stdin=stdin, stdout=subprocess.PIPE, timeout=PATIENCE, check=True
    ).stdout


def curl(place, path, *arguments, **options):
    _, url, how = place
    return run("curl", "--silent", "--show-error", "--fail", *how, *arguments, url + path, **options)


def test_curl(place, tmp_path):
    seen = json.loads(curl(place, "/echo?a=b", "-d", "hello"))
    assert (seen["SERVER_PROTOCOL"], seen["body"], seen["QUERY_STRING"]) == ("HTTP/2.0", "hello", "a=b")
    content = os.urandom(8_000_000)
    (tmp_path / "body").write_bytes(content)
    # With and without a length.
    assert curl(place, "/mirror", "-T", tmp_path / "body") == content
    with (tmp_path / "body").open("rb") as body:
        assert curl(place, "/digest", "-T", "-", stdin=body).decode() == hashlib.sha256(content).hexdigest()
    assert b"HTTP/2 200" in curl(place, "/large?100", "--head")


def test_curl_with_many_at_once(place, gate, tmp_path):
    _, url, how = place
    urls = [f"{url}/gate?{gate.name}" for _ in range(4)]
    out = [argument for number in range(4) for argument in ("-o", tmp_path / str(number))]
    how = ["--silent", "--parallel", "--parallel-immediate", "-w", "%{http_version}\n", *how]
    with ThreadPoolExecutor(1) as pool:
        told = pool.submit(run, "curl", *how, *out, *urls)
        gate.wait_for(4)
        gate.open()
        assert told.result().split() == [b"2"] * 4


def test_nghttp(place, tmp_path):
    _, url, _ = place
    (tmp_path / "body").write_bytes(b"x" * 300_000)
    assert run("nghttp", "-d", tmp_path / "body", f"{url}/count_input") == b"300000 300000"
    assert run("nghttp", "--trailer", "x: y", "-d", tmp_path / "body", f"{url}/count_input") == b"300000 300000"
    # It gives priorities, continues fields and pads.
    said = run("nghttp", "-nv", "-m", "50", "--continuation", "-b", "100", f"{url}/pid").decode()
    assert len(re.findall(r":status: 200", re.sub(r"\x1b\[[0-9;]*m", "", said))) == 50
    assert run("nghttp", "-w", "10", "-W", "12", f"{url}/large?100000") == b"0123456789abcdef" * 6250


def test_h2load(place):
    _, url, _ = place
    said = run("h2load", "-n", "5000", "-c", "10", "-m", "20", f"{url}/pid").decode()
    assert "5000 succeeded, 0 failed, 0 errored, 0 timeout" in said


def test_early_hints_arrive_at_nghttp(place):
    _, url, _ = place
    said = run("nghttp", "-v", "--no-dep", f"{url}/hints").decode()
    assert ":status: 103" in re.sub(r"\x1b\[[0-9;]*m", "", said)


def test_no_request_fails_while_workers_change(serve):
    """Clients that heed a goodbye lose nothing."""
    served = serve(APPLICATION, "--workers", "2", "--threads", "2")
    ended = threading.Event()
    responded = [0] * 4

    def work(number):
        while not ended.is_set():
            with Client(plain(served.address)) as client:
                while client.goaway is None and not ended.is_set():
                    streams = [client.begin("GET", "/sleep?0.002") for _ in range(5)]
                    for stream in streams:
                        while stream not in client.ended and stream not in client.resets:
                            if client.goaway and stream > client.goaway.last_stream:
                                break
                            assert client.pump(), f"closed before the response of {stream}; {client.goaway}"
                        if stream in client.ended:
                            assert client.take(stream).status == 200
                            responded[number] += 1
                        else:
                            # It was not begun, and may be tried again.
                            assert client.goaway
                            assert client.resets.get(stream, http2_frames.REFUSED_STREAM) == http2_frames.REFUSED_STREAM

    with ThreadPoolExecutor(4) as pool:
        work_done = [pool.submit(work, number) for number in range(4)]
        try:
            for count in range(1, 5):
                served.wait_until(lambda least=30 * count: min(responded) > least, f"{responded} responses to be more")
                if count < 4:
                    served.send_signal(signal.SIGHUP)
                    served.wait_for_log("reloaded: ", count)
        finally:
            ended.set()
        for done in work_done:
            done.result()
        assert min(responded) > 100
    assert "Traceback" not in served.log()
