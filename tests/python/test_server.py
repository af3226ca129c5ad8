"""anygate.Server and anygate.serve: serving from a Python program."""

import socket
import subprocess
import sys
import threading
import urllib.parse
import urllib.request
import warnings

import anygate
import pytest
from waiting import PATIENCE, wait_until


def hello(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"hello from here"]


def get(url):
    with urllib.request.urlopen(url, timeout=PATIENCE) as response:
        return response.read()


def test_a_server_serves_inside_a_with_block():
    with anygate.Server(hello, port=0) as server:
        assert server.url.startswith("http://127.0.0.1:")
        assert get(server.url) == b"hello from here"
        url = server.url
    with pytest.raises(OSError, match="refused"):
        get(url)


def test_a_function_is_told_how_many_connections_there_are():
    counts = []
    with anygate.Server(hello, port=0, on_connection=counts.append) as server:
        place = urllib.parse.urlsplit(server.url)
        with socket.create_connection((place.hostname, place.port)):
            wait_until(lambda: counts[-1:] == [1], f"one connection: {counts}")
            with socket.create_connection((place.hostname, place.port)):
                wait_until(lambda: counts[-1:] == [2], f"two connections: {counts}")
            wait_until(lambda: counts[-1:] == [1], f"one connection again: {counts}")
        wait_until(lambda: counts == [1, 2, 1, 0], f"none: {counts}")
        held = socket.create_connection((place.hostname, place.port))
        wait_until(lambda: counts[-1:] == [1], f"one connection: {counts}")
    # The end of the server is the end of its connections.
    assert counts == [1, 2, 1, 0, 1, 0]
    held.close()


def test_a_function_that_fails_stops_nothing():
    with anygate.Server(hello, port=0, on_connection=lambda count: 1 / 0) as server:
        for _ in range(2):
            assert get(server.url) == b"hello from here"


def test_a_server_tells_its_metrics():
    with anygate.Server(hello, port=0, metrics_path="/metrics") as server:
        get(server.url)
        for text in (get(f"{server.url}/metrics").decode(), server.metrics()):
            assert 'anygate_requests_total{method="GET",status="2xx"} ' in text
            assert 'anygate_worker_memory_bytes{worker="1"} ' in text
            if sys.platform == "linux":
                assert f'anygate_listen_queue{{address="{server.url}"}} 0' in text
    with pytest.raises(RuntimeError, match="not running"):
        server.metrics()
    with anygate.Server(hello, port=0) as silent, pytest.raises(RuntimeError, match="metrics_path"):
        silent.metrics()


def test_a_server_can_be_started_again():
    server = anygate.Server(hello, port=0)
    assert server.url == ""
    for _ in range(2):
        server.start()
        assert get(server.url) == b"hello from here"
        server.stop()
    server.stop()


def test_starting_twice_is_an_error():
    with anygate.Server(hello, port=0) as server, pytest.raises(RuntimeError, match="running already"):
        server.start()


def test_the_application_is_the_very_object_with_its_state():
    calls = []

    def app(environ, start_response):
        calls.append(environ["PATH_INFO"])
        return hello(environ, start_response)

    with anygate.Server(app, port=0) as server:
        get(server.url + "/one")
        get(server.url + "/two")
    assert calls == ["/one", "/two"]


def test_two_servers_live_side_by_side():
    with anygate.Server(hello, port=0) as one, anygate.Server(hello, port=0, threads=2) as two:
        assert get(one.url) == get(two.url) == b"hello from here"
        assert one.url != two.url


def test_stop_waits_for_requests_in_flight():
    entered, go = threading.Event(), threading.Event()

    def slow(environ, start_response):
        entered.set()
        go.wait(PATIENCE)
        return hello(environ, start_response)

    def is_refused():
        try:
            socket.create_connection(place).close()
        except ConnectionRefusedError:
            return True
        except ConnectionError:
            return False
        return False

    server = anygate.Server(slow, port=0)
    server.start()
    place = ("127.0.0.1", urllib.parse.urlsplit(server.url).port)
    responses = []
    client = threading.Thread(target=lambda: responses.append(get(server.url)))
    client.start()
    assert entered.wait(PATIENCE)
    end = threading.Thread(target=server.stop)
    end.start()
    wait_until(is_refused, "the end of the listening socket")
    go.set()
    end.join()
    client.join()
    assert responses == [b"hello from here"]


def test_a_unix_socket_is_removed(tmp_path):
    path = tmp_path / "a.sock"
    with anygate.Server(hello, bind=[f"unix:{path}"]) as server:
        assert server.url == f"unix:{path}"
        assert path.exists()
    assert not path.exists()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"prot": 1}, TypeError, "there is no option prot; did you mean port"),
        ({"app": "x"}, TypeError, "app"),
        ({"port": "http"}, ValueError, 'port: "http" must be a whole number from 0 to 65535'),
        ({"port": 70000}, ValueError, "port: 70000 must be"),
        ({"threads": 0}, ValueError, "threads: 0 must be"),
        ({"port": object()}, TypeError, "port: a <class 'object'> is no value of an option"),
        ({"workers": 2}, ValueError, r"anygate\.serve\(\) starts more"),
        ({"bind": "ajp://x:1"}, ValueError, "asks for ajp"),
    ],
)
def test_wrong_options_are_named(options, error, message):
    with pytest.raises(error, match=message):
        anygate.Server(hello, **options)


def test_a_port_in_use_is_an_oserror():
    with anygate.Server(hello, port=0) as server:
        port = int(server.url.rpartition(":")[2])
        with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1:{port}: the address is in use"):
            anygate.Server(hello, port=port).start()


def test_options_may_be_paths_numbers_and_lists(tmp_path):
    log = tmp_path / "access.log"
    options = {"bind": ("127.0.0.1:0",), "access_log": log, "keepalive_timeout": 1.5, "preload": False, "user": None}
    with anygate.Server(hello, **options) as server:
        get(server.url)
    assert '"GET / HTTP/1.1" 200 15' in log.read_text()


ENDING = """
import atexit, os, sys, threading
import anygate

entered, ending = threading.Event(), threading.Event()

def app(environ, start_response):
    entered.set()
    while environ["PATH_INFO"] == "/endless":
        pass
    ending.wait(600)
    start_response("200 OK", [])
    return [b"finished"]

def main():
    server = anygate.Server(app, port=0, graceful_timeout=float(sys.argv[1]))
    server.start()
    # Functions that were registered last are called first.
    atexit.register(ending.set)
    print(server.url, flush=True)

main()
entered.wait()
"""
#: How a program ends, and its exit code.
ENDS = [
    ("", 0),
    ("sys.exit(3)", 3),
    ("raise ValueError", 1),
    ("if os.fork() == 0:\n    sys.exit(7)\nassert os.waitstatus_to_exitcode(os.wait()[1]) == 7", 0),
]


@pytest.mark.parametrize(("end", "code"), ENDS)
def test_a_program_that_ends_finishes_requests_in_flight(end, code):
    command = [sys.executable, "-c", ENDING + end, "600"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as program:
        assert get(program.stdout.readline().strip()) == b"finished"
        assert program.wait(PATIENCE) == code


@pytest.mark.parametrize(("end", "code"), ENDS[:3])
def test_a_program_ends_as_it_would_although_requests_do_not(end, code):
    command = [sys.executable, "-c", ENDING + end, "0.1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as program:
        url = program.stdout.readline().strip()
        with pytest.raises(OSError, match=r"500|reset|closed|refused|without response"):
            get(url + "/endless")
        assert program.wait(PATIENCE) == code
        assert "ProgramEnd" not in program.stderr.read()


SERVE = """
import signal, sys
import anygate

def app(environ, start_response):
    start_response("200 OK", [])
    return [b"served"]

if __name__ == "__main__":
    before = signal.getsignal(signal.SIGINT)
    anygate.serve({app}, port=0, workers=2)
    assert signal.getsignal(signal.SIGINT) is before
    print("went on")
"""


@pytest.mark.parametrize("target", ["app", "'main:app'"])
def test_serve_runs_until_a_signal_and_returns(launch, tmp_path, target):
    (tmp_path / "main.py").write_text(SERVE.replace("{app}", target))
    served = launch(command=[sys.executable, "main.py"]).wait_ready()
    assert served.get().body == b"served"
    assert len(served.workers()) == 2
    assert served.terminate() == 0
    assert served.stdout() == "went on\n"


@pytest.mark.parametrize(
    ("call", "error"),
    [
        ("anygate.serve('missing_module:app', port=0)", "SystemExit: 3"),
        ("anygate.serve(print, prot=0)", "TypeError: there is no option prot"),
        ("anygate.serve(print, bind='192.0.2.1:0')", "OSError: cannot listen on 192.0.2.1:0"),
    ],
)
def test_serve_raises(tmp_path, call, error):
    code = f"import anygate, traceback\ntry:\n    {call}\nexcept BaseException:\n    traceback.print_exc()"
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert error in ended.stderr


def test_the_package_is_typed(tmp_path):
    (tmp_path / "typed.py").write_text(
        "import anygate\n"
        "from wsgiref.types import StartResponse, WSGIEnvironment\n\n"
        "def app(environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:\n"
        "    start_response('200 OK', [])\n    return [b'']\n\n"
        "with anygate.Server(app, port=0) as server:\n    url: str = server.url\n"
        "anygate.serve(app, port=1, preload=True)\n"
        "reveal_type(server)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--python-version", "3.11", "typed.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert "Success" in ended.stdout, ended.stdout
    assert 'Revealed type is "anygate.server.Server"' in ended.stdout


@pytest.mark.parametrize("make", [anygate.Server, anygate.serve, anygate.wsgihandler])
def test_an_option_that_has_no_effect_without_another_one_is_named(make):
    # As errors, so that nothing is served.
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(RuntimeWarning, match=r"^compression_min_bytes: has no effect without compression$"):
            make(hello, compression_min_bytes=5)


@pytest.mark.parametrize("make", [anygate.Server, anygate.serve])
def test_an_option_that_requires_another_one_is_refused(make):
    with pytest.raises(
        ValueError, match=r"^proxy_protocol: needs trusted_proxies, the peers whose preface is trusted$"
    ):
        make(hello, port=0, proxy_protocol=True)
