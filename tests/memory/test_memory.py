"""Large bodies pass through without staying in memory."""

import os
from pathlib import Path

import pytest

APP = """
def app(environ, start_response):
    path, count = environ["PATH_INFO"], int(environ["QUERY_STRING"] or 0)
    if path == "/upload":
        total = 0
        while block := environ["wsgi.input"].read(65536):
            total += len(block)
        start_response("200 OK", [])
        return [str(total).encode()]
    if path == "/file":
        start_response("200 OK", [])
        return environ["wsgi.file_wrapper"](open("large", "rb"))
    start_response("200 OK", [("Content-Length", str(count))])
    return (b"x" * 65536 for _ in range(count // 65536))
"""
MEGABYTE = 1 << 20
ALLOWED = 64 * MEGABYTE


@pytest.fixture
def site(serve, tmp_path):
    (tmp_path / "app.py").write_text(APP)
    served = serve("app:app")
    served.get("/upload")
    return served


class MemorySamples:
    """The most memory that the worker has had since the beginning."""

    def __init__(self, served):
        (self.pid,) = served.workers()
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")
        self.before = self.read("VmRSS")

    def read(self, name):
        status = Path(f"/proc/{self.pid}/status").read_text()
        return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith(name))

    def grown(self):
        return self.read("VmHWM") - self.before


def receive(connection, length):
    """Read a response of that length without keeping it."""
    response = connection.head()
    assert response["content-length"] == str(length)
    left = length - len(connection.buffer)
    buffer = memoryview(bytearray(MEGABYTE))
    while left > 0:
        count = connection.socket.recv_into(buffer)
        assert count, f"{left} bytes are missing"
        left -= count
    assert left == 0


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("bodies_max", [64, 1])
def test_an_upload_of_200_mb(serve, tmp_path, chunked, bodies_max):
    (tmp_path / "app.py").write_text(APP)
    served = serve("app:app", "--bodies-memory-max-bytes", f"{bodies_max}M")
    served.get("/upload")
    watch = MemorySamples(served)
    block = b"u" * MEGABYTE
    with served.connect() as connection:
        framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {200 * MEGABYTE}"
        connection.send(f"POST /upload HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n")
        for _ in range(200):
            connection.send(b"100000\r\n" + block + b"\r\n" if chunked else block)
        if chunked:
            connection.send("0\r\n\r\n")
        assert connection.response().body == str(200 * MEGABYTE).encode()
    # The body is in memory until it is larger than all bodies may be; the rest is what copies it to the file and back.
    assert watch.grown() < (bodies_max + 8) * MEGABYTE


def test_a_download_of_1_gb_from_an_iterable(site):
    watch = MemorySamples(site)
    with site.connect() as connection:
        connection.send(f"GET /iterable?{1 << 30} HTTP/1.1\r\nHost: a\r\n\r\n")
        receive(connection, 1 << 30)
    assert watch.grown() < ALLOWED


def test_a_download_of_1_gb_from_a_file(site, tmp_path):
    with (tmp_path / "large").open("wb") as file:
        file.truncate(1 << 30)
    watch = MemorySamples(site)
    with site.connect() as connection:
        connection.send("GET /file HTTP/1.1\r\nHost: a\r\n\r\n")
        receive(connection, 1 << 30)
    assert watch.grown() < ALLOWED


def test_a_client_that_reads_slowly_holds_neither_memory_nor_thread(serve, tmp_path):
    (tmp_path / "app.py").write_text(APP)
    served = serve("app:app", "--threads", "1")
    watch = MemorySamples(served)
    slow = [served.connect() for _ in range(4)]
    for connection in slow:
        connection.send(f"GET /iterable?{64 * MEGABYTE} HTTP/1.1\r\nHost: a\r\n\r\n")
    assert served.get("/upload").body == b"0"
    for connection in slow:
        receive(connection, 64 * MEGABYTE)
    assert watch.grown() < ALLOWED


def test_ten_thousand_idle_connections_cost_at_most_8_kib_each(serve, tmp_path):
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    count = min(10_000, hard - 200 if hard != resource.RLIM_INFINITY else 10_000)
    resource.setrlimit(resource.RLIMIT_NOFILE, (count + 100, hard))
    try:
        (tmp_path / "app.py").write_text(APP)
        served = serve("app:app", "--connections-max", "20000")
        (worker,) = served.workers()
        served.get("/upload")
        watch = MemorySamples(served)
        connections = []
        for _ in range(count):
            connection = served.connect()
            connection.send("GET /upload HTTP/1.1\r\nHost: a\r\n\r\n")
            connections.append(connection)
        for connection in connections:
            assert connection.response().status == 200
        assert len(os.listdir(f"/proc/{worker}/fd")) > count
        each = (watch.read("VmRSS") - watch.before) / count
        assert each <= 8192, f"{each:.0f} bytes each"
        for connection in connections:
            connection.close()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
