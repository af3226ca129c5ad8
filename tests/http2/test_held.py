"""What a client may make the server hold: descriptors do not grow with the number of its streams."""

import os

import pytest
from conftest import APPS
from http2_frames import Client, plain
from wire import is_read

CONTRACT = APPS / "contract.py"
STREAMS = 90


def descriptors(served):
    (worker,) = served.workers()
    return len(os.listdir(f"/proc/{worker}/fd"))


def assert_held_cheaply(served, target, more=20):
    """Ask for a megabyte often without taking any, and then take all. ``target`` is one, or one for each number."""
    before = descriptors(served)
    with Client(plain(served.address), opens=False, settings={4: 0}) as client:
        streams = [client.begin("GET", target.format(number)) for number in range(STREAMS)]
        for stream in streams:
            client.wait_head(stream)
        assert served.get("/pid").status == 200
        assert descriptors(served) < before + more
        # They are whole all the same.
        client.state.increment_flow_control_window(2**31 - 2**20)
        for stream in streams:
            client.state.increment_flow_control_window(1_000_000, stream)
        client.flush()
        for stream in streams:
            assert client.wait(stream).body == b"0123456789abcdef" * 62_500


@pytest.mark.parametrize("concurrency", ["threads", "gevent"])
def test_responses_that_nobody_takes_share_descriptors(serve, concurrency):
    served = serve(CONTRACT, "--concurrency", concurrency, "--response-memory-max-bytes", "64K")
    assert_held_cheaply(served, "/large?1000000")


@pytest.mark.parametrize("concurrency", ["threads", "gevent"])
def test_uploads_that_are_not_whole_share_descriptors(serve, concurrency):
    served = serve(CONTRACT, "--concurrency", concurrency, "--bodies-memory-max-bytes", "0")
    before = descriptors(served)
    with Client(plain(served.address)) as client:
        streams = [client.begin("POST", "/echo", end=False) for _ in range(STREAMS)]
        for number, stream in enumerate(streams):
            client.send(stream, b"%3d" % number * 4000, end=False)
        served.wait_until(lambda: is_read(client.socket), "that the uploads are read")
        assert served.get("/pid").status == 200
        assert descriptors(served) < before + 20
        for number, stream in enumerate(streams):
            client.send(stream, b"end")
            assert client.wait(stream).json["body"] == f"{number:3}" * 4000 + "end"


def test_files_that_nobody_takes_are_held_once(serve, tmp_path):
    (tmp_path / "large").write_bytes(b"0123456789abcdef" * 62_500)
    served = serve(CONTRACT, "--static", f"/static={tmp_path}")
    assert_held_cheaply(served, "/static/large")


@pytest.mark.parametrize("concurrency", ["threads", "gevent"])
def test_files_that_nobody_takes_leave_descriptors_to_others(serve, tmp_path, concurrency):
    for number in range(STREAMS):
        (tmp_path / f"{number}").write_bytes(b"0123456789abcdef" * 62_500)
    served = serve(CONTRACT, "--concurrency", concurrency, "--open-files-max", "320")
    # One in eight may be such a file.
    assert_held_cheaply(served, f"/file?{tmp_path}/{{}}", more=40 + 20)
