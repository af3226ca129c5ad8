"""What is around an application, under servers of other packages: the same as in our own."""

import contextlib
import gzip
import json

import pytest
from anygate.adapters import SERVERS
from conftest import APPS
from other_servers import free_port, started
from wire import Connection

NAMES = ["gunicorn", "uwsgi", "waitress", "gevent", "wsgiref", "granian", "uvicorn"]
PROCESSES = sorted(
    name
    for name, server in SERVERS.items()
    if server.run and "http" in server.protocols and "workers" in server.supports
    # Their workers are threads or greenlets.
    if name not in ("gevent", "eventlet", "pyruvate")
)
OPTIONS = [
    *("--health-path", "/health", "--deny", "/closed 127.0.0.0/8", "--rate-limit", "/often 3/1h", "--request-id"),
    *("--security-headers", "default", "--compression", "--static", "/static=files", "--cache", "/kept 1m"),
    *("--body-limits", "/body 10", "--cors-origins", "https://a.example", "--error-pages", "pages"),
    *("--trusted-proxies", "127.0.0.1", "--body-max-bytes", "2K"),
]
TEXT = "a line of text\n" * 200


def ask(served, target, *fields, method="GET", body=b""):
    with Connection(("127.0.0.1", served.port)) as connection:
        return connection.ask(method, target, [("Connection", "close"), *fields], body)


@pytest.fixture(scope="module", params=NAMES)
def server(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    for name in ("files", "pages", "elsewhere"):
        (folder / name).mkdir()
    (folder / "files/page.txt").write_text(TEXT)
    (folder / "pages/403.html").write_text("not for you")
    # Paths are those of the folder where it is started.
    with started(request.param, folder, *OPTIONS, "--chdir", "elsewhere") as served:
        yield served


def test_health(server):
    assert ask(server, "/health").text == "OK"


def test_access_and_pages_for_errors(server):
    response = ask(server, "/closed", ("Accept", "text/html"))
    assert (response.status, response.text) == (403, "not for you")


def test_rates(server):
    responses = [ask(server, "/often") for _ in range(5)]
    assert [response.status for response in responses] == [200] * 3 + [429] * 2
    assert responses[0]["ratelimit"]


def test_names_and_fields(server):
    response = ask(server, "/", ("Origin", "https://a.example"))
    assert len(response["x-request-id"]) == 32
    assert response["x-frame-options"] == "SAMEORIGIN"
    assert response["access-control-allow-origin"] == "https://a.example"


def test_files_and_compression(server):
    response = ask(server, "/static/page.txt", ("Accept-Encoding", "gzip"))
    assert (response.status, response["content-encoding"]) == (200, "gzip")
    assert gzip.decompress(response.body).decode() == TEXT


def test_the_cache(server):
    first, second = (ask(server, "/kept") for _ in range(2))
    assert first.body == second.body
    assert "hit" in second["cache-status"]


def test_limits_of_bodies(server):
    assert ask(server, "/body", method="POST", body=b"x" * 11).status == 413
    assert ask(server, "/", method="POST", body=b"x" * 3000).status == 413
    assert ask(server, "/", method="POST", body=b"x" * 1000).status == 200


def test_trusted_proxies(server):
    response = ask(server, "/", ("X-Forwarded-For", "192.0.2.7"), ("X-Forwarded-Proto", "https"))
    seen = json.loads(response.body)
    assert (seen["REMOTE_ADDR"], seen["wsgi.url_scheme"]) == ("192.0.2.7", "https")
    assert response["strict-transport-security"]


@pytest.mark.parametrize("name", PROCESSES)
def test_processes_count_together(name, tmp_path):
    """Or the table knows that they do not, and it is said."""
    limits = ("--rate-limit", "/rated 30/1d", "--requests-per-client-max", "1000")
    with started(name, tmp_path, "-w", 2, *limits) as served, contextlib.ExitStack() as stack:

        def ask_at_once(path):
            connections = [stack.enter_context(Connection(("127.0.0.1", served.port))) for _ in range(8)]
            for connection in connections:
                connection.send(f"GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            return [connection.response() for connection in connections]

        served.wait_until(lambda: len({response.text for response in ask_at_once("/pid")}) == 2, "both processes")
        responses = [response for _ in range(20) for response in ask_at_once("/rated")]
        assert {response.status for response in responses} == {200, 429}
        passed = sum(response.status == 200 for response in responses)
        said = f"anygate: warning: --rate-limit: each process of {name} counts separately"
        assert (passed > 30) == (said in served.log()) == served.known.counts_apart, passed


@pytest.mark.parametrize("options", [("-w", 1), ("-w", 2, "--shared", "redis://127.0.0.1:1/0")])
def test_what_counts_together_is_not_warned_of(tmp_path, options):
    with started("uvicorn", tmp_path, "--rate-limit", "30/1h", *options) as served:
        assert "warning" not in served.log()


def test_a_file_of_settings(tmp_path):
    (tmp_path / "pages").mkdir()
    (tmp_path / "pages/4xx.txt").write_text("no\n")
    port = free_port()
    (tmp_path / "anygate.toml").write_text(f"""
        bind = ["127.0.0.1:{port}"]
        server = "gunicorn"
        workers = 2
        deny = ["/closed 127.0.0.1"]
        error_pages = "pages"
        cache_max_bytes = "1M"
        ready_path = "/ready-now"
        ready_check = "six:is_ready"
        ready_check_timeout = "5m"
    """)
    (tmp_path / "six.py").write_text((APPS / "six.py").read_text() + "\n\ndef is_ready():\n    return True\n")
    with started("gunicorn", tmp_path, place=["--port", port], app="six") as served:
        served.port = port
        served.wait_until(lambda: responses(served), "a response")
        assert ask(served, "/closed").text == "no\n"
        served.wait_until(lambda: ask(served, "/ready-now").status == 200, "that it is ready")


def responses(served):
    try:
        return ask(served, "/ready").status == 200
    except OSError:
        return False


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-s", "gunicorn", "--queue-max", 1], "--queue-max: gunicorn does not support this option"),
        (
            ["-s", "waitress", "--connections-per-client-max", 1],
            "--connections-per-client-max: waitress does not support",
        ),
        (["-s", "cgi", "--security-headers", "strict"], "--security-headers: cgi does not support this option"),
        (["-s", "gunicorn", "--rate-limit", "often"], "--rate-limit: "),
        (["-s", "gunicorn", "--static", "/s=nothing"], "--static: "),
        (["-s", "uwsgi", "--error-pages", "nothing"], "--error-pages: "),
    ],
)
def test_refusals(run, arguments, message):
    ended = run(*arguments, APPS / "six.py")
    assert ended.returncode == 2
    assert len(ended.stderr.splitlines()) == 1
    assert message in ended.stderr
