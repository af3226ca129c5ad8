"""What is passed on to other servers, and what is refused by name."""

import importlib.util
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from anygate.adapters import SERVERS
from conftest import APPS
from other_servers import Http, certificate, free_port, over_tls, started, wait_for
from waiting import PATIENCE
from wire import Connection

RUNNING = {name: server for name, server in SERVERS.items() if server.run and "http" in server.protocols}
# Two names of one adapter need one test.
ONCE = {server.run: name for name, server in reversed(RUNNING.items())}.values()
SIX = APPS / "six.py"


def those(word):
    return sorted(name for name in ONCE if word in RUNNING[name].supports)


@pytest.mark.parametrize("name", those("tls"))
def test_tls(name, tmp_path):
    trusted, key = certificate(tmp_path)
    with started(name, tmp_path, "-c", trusted, "-k", key) as served:
        response = wait_for(served, lambda: over_tls(served.port, trusted))
        assert response.startswith((b"HTTP/1.1 200", b"HTTP/1.0 200")), response
        assert b'"wsgi.url_scheme": "https"' in response


@pytest.mark.parametrize("name", those("unix"))
def test_unix_sockets(name, tmp_path):
    path = tmp_path / "server.sock"
    with started(name, tmp_path, place=["--bind", f"unix:{path}"]) as served:
        client = Http(0)
        client.address = str(path)
        assert wait_for(served, lambda: client.ask("GET", "/ready"))[0] == 200
        assert stat.S_ISSOCK(path.stat().st_mode)
        assert served.stdout().startswith(f"starting {name} on unix:{path}...\n")


@pytest.mark.parametrize("name", sorted(set(those("workers")) - {"gevent", "eventlet", "pyruvate"}))
def test_several_processes(name, tmp_path):
    with started(name, tmp_path, "-w", 2) as served:

        def both():
            connections = [Connection(("127.0.0.1", served.port)) for _ in range(8)]
            for connection in connections:
                connection.send("GET /pid HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            pids = {connection.response().text for connection in connections}
            for connection in connections:
                connection.close()
            return len(pids) > 1

        wait_for(served, both)


@pytest.mark.parametrize("name", ["gevent", "eventlet", "pyruvate"])
def test_several_requests_in_one_process(name, tmp_path):
    with started(name, tmp_path, "-w", 8) as served:
        connections = [Connection(("127.0.0.1", served.port)) for _ in range(6)]
        for connection in connections:
            connection.send("GET /pid HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert len({connection.response().text for connection in connections}) == 1


@pytest.mark.parametrize("name", ["waitress", "gunicorn", "native"])
def test_the_line_of_web2py(name, tmp_path):
    workers = ["-w", 2] if name != "waitress" else []
    with started(name, tmp_path, "-l", *workers) as served:
        served.client.ask("GET", "/a,b?c")
        pattern = r"127\.0\.0\.1, \d{4}-\d\d-\d\d \d\d:\d\d:\d\d, GET, /a%2Cb, HTTP/1\.1, 200, \d+\.\d{6}\n"
        log = tmp_path / "httpserver.log"
        served.wait_until(lambda: log.exists() and re.search(pattern, log.read_text()), "the line")


# fastwsgi takes generators but no other objects that call start_response so late; pyruvate closes no responses.
@pytest.mark.parametrize("name", ["waitress", "gunicorn", "fastwsgi", "pyruvate", "native"])
def test_the_line_of_web2py_for_a_generator_function(name, tmp_path):
    app = tmp_path / "pieces.py"
    app.write_text("""
def application(environ, start_response):
    start_response("200 OK" if environ["PATH_INFO"] == "/ready" else "202 Accepted", [("Content-Type", "text/plain")])
    yield b"a piece"
""")
    with started(name, tmp_path, "-l", app=app) as served:
        assert served.client.ask("GET", "/x")[0] == 202
        log = tmp_path / "httpserver.log"
        served.wait_until(lambda: re.search(r", GET, /x, HTTP/1\.1, 202, \d+\.\d{6}\n", log.read_text()), "the line")
        assert log.read_text().count(", /x, ") == 1


@pytest.mark.parametrize("name", ["waitress", "native", "rocket_with_repoze_profiler"])
def test_the_profiler(name, tmp_path):
    with started(name, tmp_path, "-P", "profiles", "--local-hosts", "test") as served:
        served.client.ask("POST", "/body", [], b"x" * 1000)
        assert list((tmp_path / "profiles").glob("req_*.prof"))
        status, _, page = served.client.ask("GET", "/__profile__")
        assert status == 200
        assert b"six.py" in page
    assert (tmp_path / "profiles" / "wsgi.prof").stat().st_size > 0


def test_paste_with_few_threads(tmp_path):
    with started("paste", tmp_path, "--threads", "1") as served:
        assert served.client.ask("GET", "/x")[0] == 200


def test_values_with_spaces_around_them_are_no_failure_of_the_application(tmp_path):
    """Python's http.cookies makes such values, and web2py sends them."""
    app = tmp_path / "cookies.py"
    app.write_text("""
def application(environ, start_response):
    start_response("200 OK", [("Set-Cookie", " a=1; Path=/ ")])
    return [b"here"]
""")
    with started("tornado", tmp_path, app=app) as served:
        assert served.client.ask("GET", "/x") == (200, ["a=1; Path=/"], b"here")


def test_logs_of_their_own(tmp_path):
    with started("gunicorn", tmp_path, "--access-log", "access.log", "--log-level", "info") as served:
        served.client.ask("GET", "/logged")
        served.wait_until(lambda: "GET /logged" in (tmp_path / "access.log").read_text(), "the access log")
        served.wait_for_log("Listening at")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["-s", "gunicron"],
            "--server: there is no server 'gunicron'; did you mean 'gunicorn'? anygate servers lists them",
        ),
        (["-s", "wsgiref", "-w", 2], "--workers: wsgiref does not support this option (it supports: none of its own)"),
        (["-s", "waitress", "-w", 2], "--workers: waitress does not support this option (it supports: threads, unix)"),
        (["-s", "gunicorn", "--header-timeout", "1s"], "--header-timeout: gunicorn does not support this option"),
        (["-s", "rocket", "--bind", "unix:x.sock"], "x.sock: rocket does not listen on unix sockets"),
        (
            ["-s", "gunicorn", "--scgi"],
            "scgi: gunicorn does not speak this protocol (it speaks http); use the native server",
        ),
        (["-s", "gunicorn", "-b", "1", "-b", "2"], "gunicorn listens on one address; 2 are given"),
        (["-s", "gunicorn", "-b", "fd://3"], "fd://3: only the native server takes over descriptors"),
        (
            ["-s", "gunicorn", "--access-log", "syslog:/nowhere/log"],
            "--access-log: cannot open syslog at /nowhere/log",
        ),
        (["-s", "cgi", "-p", 80], "cgi does not listen: a CGI server starts it for each request"),
        (["-s", "gunicorn", "-c", "nothing.pem"], "--ssl-certificate: there is no file"),
        (["-s", "uvicorn", "--access-log", "x"], "--access-log: uvicorn writes its access log to standard output"),
    ],
)
def test_refusals(run, arguments, message):
    ended = run(*arguments, SIX)
    assert ended.returncode == 2
    assert len(ended.stderr.splitlines()) == 1
    assert message in ended.stderr


@pytest.mark.parametrize("name", [name for name, server in SERVERS.items() if not server.run and name != "native"])
def test_names_of_the_dead(run, name):
    ended = run("-s", name, SIX)
    assert ended.returncode == 3
    said = rf"anygate: error: --server: {name} cannot be used: (dead: |alive, but).*; use -s \w+\n"
    assert re.fullmatch(said, ended.stderr)


@pytest.mark.parametrize("name", [name for name, server in SERVERS.items() if server.run and server.package])
def test_a_missing_package(run, name):
    """With the interpreter that the environment was made from, which has none."""
    base = getattr(sys, "_base_executable", sys.executable)
    environment = {"PYTHONPATH": str(Path(__file__).parents[2] / "python"), "PATH": "/usr/bin:/bin"}
    ended = run("-m", "anygate", "-s", name, SIX, command=[base], environment=environment)
    assert ended.returncode == 3
    package = SERVERS[name].package
    assert ended.stderr == f"anygate: error: --server: {name} is not installed: pip install {package}\n"


def test_an_application_that_cannot_be_loaded(run):
    ended = run("-s", "waitress", "-p", free_port(), "nothing_here:app")
    assert ended.returncode == 3
    assert "cannot load nothing_here:app: there is no module 'nothing_here'" in ended.stderr


@pytest.mark.parametrize("server", ["native", "waitress"])
def test_a_folder_that_profiles_cannot_go_to(run, tmp_path, server):
    (tmp_path / "file").write_text("")
    ended = run("-s", server, "-P", tmp_path / "file" / "x", "-p", free_port(), SIX)
    assert ended.returncode == 3
    assert f"the profiler cannot write to the folder '{tmp_path}/file/x'" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_second_package_that_is_missing(run, tmp_path):
    """With an interpreter that has the first one only."""
    made = subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    assert made.returncode == 0
    (site,) = (tmp_path / "venv").glob("lib/python*/site-packages")
    ours = Path(importlib.util.find_spec("uvicorn").origin).parents[1]
    for path in ours.glob("uvicorn*"):
        (site / path.name).symlink_to(path)
    environment = {"PYTHONPATH": str(Path(__file__).parents[2] / "python")}
    command = [tmp_path / "venv" / "bin" / "python"]
    ended = run("-m", "anygate", "-s", "uvicorn", SIX, command=command, environment=environment)
    assert ended.returncode == 3
    message = "--server: uvicorn needs a2wsgi, which is not installed: pip install a2wsgi"
    assert ended.stderr == f"anygate: error: {message}\n"


def test_an_address_in_use(run, tmp_path):
    with started("waitress", tmp_path) as served:
        ended = run("-s", "wsgiref", "-p", served.port, SIX)
        assert ended.returncode == 1
        assert f"127.0.0.1:{served.port}: " in ended.stderr
        assert "in use" in ended.stderr


def test_the_table(run):
    ended = run("servers")
    lines = ended.stdout.splitlines()
    assert lines[0].split() == ["NAME", "VERSION", "CONCURRENCY", "PROTOCOLS", "TLS", "STATE"]
    rows = {line.split()[0]: line for line in lines[1:]}
    assert set(rows) == set(SERVERS)
    assert re.match(
        r"gunicorn +\d+\.\d+.* processes, threads +http +yes +alive; for the tools and the habits around it$",
        rows["gunicorn"],
    )
    # What to take each server for, or which one to take instead.
    assert all("; for " in row or "; take " in row for row in rows.values())
    assert "take bjoern" in rows["meinheld"]
    assert "breaks: chunked bodies arrive empty" in rows["wsgiref"]


def test_a_cgi_program(tmp_path):
    environment = {"REQUEST_METHOD": "GET", "REQUEST_URI": "/x", "SCRIPT_NAME": "", "PATH_INFO": "/x"}
    command = [sys.executable, "-m", "anygate", "-s", "cgi", SIX]
    ended = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, check=True, timeout=PATIENCE)
    assert ended.stdout.startswith(b"Status: 200 OK\r\n")


@pytest.mark.parametrize(("server", "workers"), [("native", None), ("waitress", None), ("gunicorn", 2)])
def test_the_old_signature(server, workers, tmp_path):
    """``run('gunicorn', '0.0.0.0', 8000, logging=True, softcron=False)``."""
    from other_servers import process

    port = free_port()
    call = f"anygate.run({server!r}, '127.0.0.1', {port}, logging=True, softcron=False, app={str(SIX)!r}"
    call += f", options=types.SimpleNamespace(workers={workers}))"
    with process([sys.executable, "-c", f"import anygate, types; {call}"], tmp_path) as served:
        client = Http(port)
        assert wait_for(served, lambda: client.ask("GET", "/x"))[0] == 200
        assert f"starting {server} on 127.0.0.1:{port}...\n" in served.stdout()
        served.wait_until(lambda: ", GET, /x, " in (tmp_path / "httpserver.log").read_text(), "the line")
