"""`[[app]]`: applications with processes, users and virtual environments of their own, behind a router."""

import contextlib
import grp
import hashlib
import os
import pwd
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

import pytest
from admin_address import Admin
from conftest import ANYGATE, APPS, Served, children
from conftest import name as process_name
from http2_frames import Client, plain, secure
from http2_websockets import Stream, connect
from other_servers import certificate
from secure import Secure
from waiting import Gate, lives, wait_until
from websocket_frames import CLOSE, TEXT, frame
from websocket_frames import Client as WebSocket
from wire import Connection, Datagrams

SITE = """
port = 0

[[app]]
name = "shop"
path = "/shop"
app = "routed:application"
threads = 4
env = ["APP_NAME=shop"]

[[app]]
name = "blog"
host = "blog.example"
app = "routed:application"
env = ["APP_NAME=blog"]

[[app]]
name = "rest"
app = "routed:application"
concurrency = "gevent"
env = ["APP_NAME=rest"]
"""
LAST = [("Connection", "close")]


class Site(Served):
    """A running router with its applications."""

    def wait_all(self, *names, count=1):
        for name in names or ("shop", "blog", "rest"):
            self.wait_for_log(f"application '{name}' is ready", count)
        self.wait_for_log("the router is ready")
        return self

    @property
    def addresses(self):
        banner = re.search(r"serves the applications of \[\[app\]\] on (\S.*) with ", self.log())
        urls = [url.partition("://")[2].rpartition(":") for url in banner[1].split(" and ")]
        return [(host, int(port)) for host, _, port in urls]

    def ask(self, target="/", host="test", method="GET", fields=(), body=b""):
        with self.connect() as connection:
            return connection.ask(method, target, [*fields, *LAST], body, host=host)

    @property
    def folder(self):
        """Where it has sockets and settings."""
        return Path(re.search(r"routed\+unix:(\S+)/sockets/", self.log())[1])

    def below(self, application):
        """The first process of an application."""
        return next((pid for pid in children(self.pid) if process_name(pid) == f"anygate-{application}"), None)


def write(folder, text=SITE):
    shutil.copy(APPS / "routed.py", folder)
    shutil.copy(APPS / "gates.py", folder)
    (folder / "anygate.toml").write_text(text)


@pytest.fixture
def begin(tmp_path):
    running = []

    def start(*arguments, text=SITE, folder=tmp_path, **options):
        write(folder, text)
        running.append(Site(arguments, folder, **options))
        return running[-1]

    yield start
    for site in running:
        with contextlib.suppress(subprocess.TimeoutExpired):
            site.terminate()
        site.kill()


@pytest.fixture
def site(begin):
    return begin().wait_all()


def test_the_application_of_the_host_and_the_longest_path_responds(site):
    for target, host, app, script_name, path in [
        ("/", "test", "rest", "", "/"),
        ("/shop", "test", "shop", "/shop", ""),
        ("/shop/a%20b?c=d", "test:80", "shop", "/shop", "/a b"),
        ("/shopping", "test", "rest", "", "/shopping"),
        ("/%73hop/x", "test", "shop", "/shop", "/x"),
        ("/shop%2Fx", "test", "shop", "/shop", "/x"),
        ("//shop", "test", "rest", "", "//shop"),
        ("/a/../shop", "test", "rest", "", "/a/../shop"),
        ("/shop/../b", "test", "shop", "/shop", "/../b"),
        ("/shop/%2e%2e/b", "test", "shop", "/shop", "/../b"),
        ("/shop", "Blog.example.:8080", "blog", "", "/shop"),
        ("/", "blog.example.evil", "rest", "", "/"),
    ]:
        seen = site.ask(target, host).json
        assert (seen["app"], seen["SCRIPT_NAME"], seen["PATH_INFO"]) == (app, script_name, path), (target, host)
        assert (seen["REQUEST_URI"], seen["HTTP_HOST"]) == (target, host)
        assert seen["QUERY_STRING"] == target.partition("?")[2]
    assert (
        len(
            {site.ask(target, host).json["pid"] for target, host in [("/", "a"), ("/shop", "a"), ("/", "blog.example")]}
        )
        == 3
    )


def test_an_application_has_several_hosts_and_paths(begin):
    places = 'host = ["a.example", "*.a.example"]\npath = ["/one", "/two"]\nkeep_path = true\n'
    site = begin("--admin", "127.0.0.1:0", text=SITE.replace('path = "/shop"\n', places)).wait_all()
    for target, host, app in [
        ("/one", "a.example", "shop"),
        ("/two/x", "b.a.example", "shop"),
        ("/one", "b.example", "rest"),
        ("/three", "a.example", "rest"),
    ]:
        seen = site.ask(target, host).json
        assert (seen["app"], seen["SCRIPT_NAME"], seen["PATH_INFO"]) == (app, "", target)
    # It is told of once.
    assert [app["app"] for app in Admin(site, "http").status()["apps"]] == ["shop", "blog", "rest"]


def test_the_application_knows_its_client_and_nothing_that_the_client_made_up(site):
    forged = [
        ("X-Forwarded-For", "127.0.0.1"),
        ("Forwarded", "for=127.0.0.1"),
        ("X-Real-IP", "127.0.0.1"),
        ("X-Forwarded-Prefix", "/admin"),
        ("Remote-User", "root"),
        ("Connection", "close, X-Kept"),
        ("X-Kept", "1"),
    ]
    with Connection(site.address, source="127.0.0.9") as connection:
        seen = connection.ask("POST", "/shop/x", forged, b"body").json
        port = str(connection.socket.getsockname()[1])
    assert (seen["REMOTE_ADDR"], seen["REMOTE_PORT"], seen["body"]) == ("127.0.0.9", port, "body")
    assert (seen["SERVER_NAME"], seen["SERVER_PORT"]) == ("127.0.0.1", str(site.address[1]))
    assert (seen["wsgi.url_scheme"], seen["SCRIPT_NAME"], seen["HTTP_X_KEPT"]) == ("http", "/shop", "1")
    assert not {key for key in seen if "FORWARDED" in key or "REAL_IP" in key}
    assert "REMOTE_USER" not in seen


def test_what_a_trusted_proxy_says_reaches_the_application(begin):
    site = begin(text=f'trusted_proxies = ["127.0.0.1"]\n{SITE}').wait_all()
    fields = [("X-Forwarded-For", "192.0.2.7"), ("X-Forwarded-Proto", "https"), ("X-Forwarded-Prefix", "/outer")]
    seen = site.ask("/shop/x", fields=fields).json
    assert (seen["REMOTE_ADDR"], seen["wsgi.url_scheme"]) == ("192.0.2.7", "https")
    assert (seen["SCRIPT_NAME"], seen["PATH_INFO"]) == ("/outer/shop", "/x")


@pytest.mark.parametrize(
    ("framing", "status"),
    [
        (b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n", 400),
        (b"Content-Length: 4\r\nContent-Length: 5\r\n", 400),
        (b"Transfer-Encoding: gzip, chunked\r\n", 501),
        (b"Transfer-Encoding : chunked\r\n", 400),
        (b"Content-Length: +4\r\n", 400),
    ],
)
def test_a_request_whose_end_is_unclear_is_refused(site, framing, status):
    smuggled = b"GET /shop/smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
    with site.connect() as connection:
        connection.send(b"POST /shop HTTP/1.1\r\nHost: a\r\n" + framing + b"\r\n0\r\n\r\n" + smuggled)
        assert connection.head().status == status
        assert b"smuggled" not in connection.rest()


def test_bodies_of_any_size_go_both_ways(site):
    body = os.urandom(3_000_000)
    expected = f"{len(body)} {hashlib.sha256(body).hexdigest()}"
    for target in ("/shop/digest", "/digest"):
        assert site.ask(target, method="POST", body=body).text == expected
        with site.connect() as connection:
            pieces = [body[start : start + 70_000] for start in range(0, len(body), 70_000)]
            chunks = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
            head = f"POST {target} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
            assert connection.send(head + chunks + b"0\r\n\r\n").response().text == expected
        for query in ("5000000", "5000000&chunked"):
            response = site.ask(f"{target.replace('digest', 'large')}?{query}")
            assert (len(response.body), response.whole) == (5_000_000, True)


def test_a_body_is_passed_on_as_it_comes_where_paths_are_streamed(begin):
    site = begin(text=f'stream_paths = ["/shop"]\n{SITE}').wait_all()
    with site.connect() as connection:
        connection.send(b"POST /shop/digest HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello")
        # Another request of the same application meanwhile.
        assert site.ask("/shop").status == 200
        assert connection.send(b"world").response().text.startswith("10 ")
    with site.connect() as connection:
        connection.send(b"POST /shop/digest HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
        assert site.ask("/shop").status == 200
        assert connection.send(b"5\r\nworld\r\n0\r\n\r\n").response().text.startswith("10 ")


def test_heads_arrive_as_they_are(site):
    response = site.ask("/shop/status?299+Of+Our+Own")
    assert (response.status, response.reason, response["X-A"]) == (299, "Of Our Own", "1, 2")
    for status in (204, 304):
        assert site.ask(f"/shop/status?{status}+x").status == status
    with site.connect() as connection:
        head = connection.send(b"HEAD /shop/large?1000 HTTP/1.1\r\nHost: a\r\n\r\n").head()
        assert head["Content-Length"] == "1000"
        assert connection.ask("GET", "/shop/large?10").body == b"x" * 10


def until(connection, text):
    """Whether a text comes before the connection ends."""
    while text not in connection.buffer:
        if not connection.more():
            return False
    return True


def test_events_arrive_when_they_are_sent(site):
    for target in ("/shop/events", "/events"):
        with Gate() as gate, site.connect() as connection:
            connection.send(f"GET {target}?{gate.name} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
            assert connection.head().status == 200
            assert until(connection, b"one\n\n")
            gate.open()
            assert until(connection, b"two\n\n")


def test_a_client_that_leaves_ends_its_request(site, tmp_path):
    for prefix, app in (("/shop", "shop"), ("", "rest")):
        with site.connect() as connection:
            connection.send(f"GET {prefix}/endless HTTP/1.1\r\nHost: a\r\n\r\n".encode())
            assert connection.head().status == 200
        wait_until(lambda app=app: (tmp_path / f"closed-{app}").exists(), f"the end of the request of {app}", site.log)


def test_a_slow_client_holds_up_no_other(site):
    with site.connect() as slow:
        slow.send(b"GET /shop/large?50000000 HTTP/1.1\r\nHost: a\r\n\r\n")
        assert slow.head().status == 200
        for _ in range(20):
            assert site.ask("/shop").status == 200
        count = len(slow.buffer)
        while count < 50_000_000 and (piece := slow.socket.recv(1 << 20)):
            count += len(piece)
    assert count == 50_000_000


def test_one_that_hangs_holds_up_no_other(site, gate):
    waiting = [site.connect() for _ in range(30)]
    for connection in waiting:
        connection.send(f"GET /shop/gate?{gate.name} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    gate.wait_for(4)
    assert site.ask("/").json["app"] == "rest"
    assert site.ask("/", "blog.example").json["app"] == "blog"
    gate.open()
    assert [connection.response().body for connection in waiting] == [b"shop"] * 30
    for connection in waiting:
        connection.close()


def test_one_that_is_down_gets_503_and_no_other_does(begin):
    text = SITE.replace('path = "/shop"\napp = "routed:application"', 'path = "/shop"\napp = "missing:application"')
    site = begin(text=text).wait_all("blog", "rest")
    site.wait_for_log("application 'shop' could not start and ended with 3; its requests get 503; starting it again in")
    # Messages of whom starts them look like theirs.
    layout = re.compile(r"\d{4}-\d\d-\d\dT[0-9:.]{15}Z \[\d+\] (CRITICAL|ERROR| WARN| INFO|DEBUG) ")
    assert [line for line in site.log().splitlines() if not layout.match(line)] == []
    site.wait_until(lambda: site.ask("/shop").status == 503, "503")
    response = site.ask("/shop")
    if response.status == 503:
        assert (response.body, response["Retry-After"]) == (b"503 Service Unavailable\n", "5")
    assert site.ask("/").json["app"] == "rest"
    site.wait_for_log('application "shop" gets no requests: it does not run')


def test_what_ends_is_started_again_and_the_router_lives(site):
    before = site.ask("/shop").json["pid"]
    os.kill(site.below("shop"), signal.SIGKILL)
    site.wait_for_log("application 'shop' ended with -9")
    assert site.ask("/").json["app"] == "rest"
    site.wait_all("shop", count=2)
    assert site.ask("/shop").json["pid"] != before


def test_a_process_that_dies_during_a_request_gives_502_or_cuts_the_response(site, gate):
    response = site.ask("/shop/die")
    assert (response.status, response.body) == (502, b"502 Bad Gateway\n")
    site.wait_for_log('application "shop" did not respond to GET /shop/die: its process ended before the response did')
    with site.connect() as connection:
        connection.send(f"GET /shop/cut?{gate.name} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        assert connection.head().status == 200
        gate.open()
        assert len(connection.take(200_000)) < 200_000


def test_a_reload_of_all_and_of_what_has_changed(site, tmp_path):
    pids = {
        name: site.ask(target, host).json["pid"]
        for name, target, host in [
            ("shop", "/shop", "a"),
            ("blog", "/", "blog.example"),
            ("rest", "/", "a"),
        ]
    }
    supervisors = {name: site.below(name) for name in pids}
    text = SITE.replace('["APP_NAME=shop"]', '["APP_NAME=boutique"]').replace('path = "/shop"', 'path = "/boutique"')
    text = text.replace('[[app]]\nname = "blog"\nhost = "blog.example"', '[[app]]\nname = "new"\npath = "/new"')
    write(tmp_path, text)
    site.send_signal(signal.SIGHUP)
    site.wait_until(lambda: site.ask("/boutique").json["app"] == "boutique", "the new settings")
    site.wait_until(lambda: site.ask("/new").json["SCRIPT_NAME"] == "/new", "the new application")
    site.wait_until(lambda: site.ask("/").json["pid"] != pids["rest"], "a new worker")
    assert (site.below("shop"), site.below("rest")) == (supervisors["shop"], supervisors["rest"])
    site.wait_until(lambda: not lives(supervisors["blog"]), "the end of what is gone")
    assert site.ask("/", "blog.example").json["app"] == "rest"


def test_no_link_in_the_folder_of_an_application_leads_a_reload_elsewhere(site, tmp_path):
    other = tmp_path / "other"
    other.write_text("of somebody else")
    pid = site.ask("/").json["pid"]
    for settings in list(site.folder.glob("*/settings.toml")):
        settings.with_name("settings.toml.new").symlink_to(other)
        settings.unlink()
        settings.symlink_to(other)
    site.send_signal(signal.SIGHUP)
    site.wait_until(lambda: site.ask("/").json["pid"] != pid, "a new worker")
    assert other.read_text() == "of somebody else"


def test_a_reload_with_wrong_settings_changes_nothing(site, tmp_path):
    write(tmp_path, SITE + "threads = 0\n")
    site.send_signal(signal.SIGHUP)
    site.wait_for_log("not reloaded: ")
    assert site.ask("/shop").json["app"] == "shop"
    write(tmp_path, "port = 0\napp = 'routed:application'\n")
    site.send_signal(signal.SIGHUP)
    site.wait_for_log("the settings have no [[app]] any more")
    assert site.ask("/shop").json["app"] == "shop"


def test_requests_are_finished_at_the_end(site, gate):
    with site.connect() as connection:
        connection.send(f"GET /shop/gate?{gate.name} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        gate.wait_for()
        below, folder = children(site.pid), site.folder
        site.send_signal(signal.SIGTERM)
        site.wait_refused()
        gate.open()
        assert connection.response().body == b"shop"
    assert site.wait() == 0
    assert not [pid for pid in below if lives(pid)]
    assert not folder.exists()


def test_usr2_replaces_all_programs_and_no_request_fails(site, tmp_path, gate):
    pids = {name: site.below(name) for name in ("shop", "blog", "rest")}
    workers = {target: site.ask(target).json["pid"] for target in ("/", "/shop")}
    folder = site.folder
    with site.connect() as connection:
        connection.send(f"GET /shop/gate?{gate.name} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        gate.wait_for()
        # Applications that are new or gone in the settings are seen, as at a reload.
        text = SITE.replace('["APP_NAME=shop"]', '["APP_NAME=boutique"]').replace('name = "blog"', 'name = "new"')
        write(tmp_path, text.replace("blog.example", "new.example"))
        site.send_signal(signal.SIGUSR2)
        site.wait_for_log("upgrading: the new program takes over")
        site.wait_until(lambda: site.ask("/shop").json["app"] == "boutique", "new settings")
        site.wait_until(lambda: site.ask("/", "new.example").json["app"] == "blog", "the new application")
        site.wait_until(lambda: site.ask("/").json["pid"] != workers["/"], "a new worker")
        gate.open()
        assert connection.response().body == b"shop"
    assert (site.below("shop"), site.below("rest")) == (pids["shop"], pids["rest"])
    site.wait_until(lambda: not lives(pids["blog"]), "the end of what is gone")
    # The new program knows its processes: it starts them again, reloads and ends them.
    site.wait_for_log("serves routed:application", 6)
    os.kill(pids["shop"], signal.SIGKILL)
    site.wait_for_log("application 'shop' ended with -9")
    site.wait_until(lambda: site.ask("/shop").status == 200, "another process")
    site.send_signal(signal.SIGHUP)
    site.wait_until(lambda: site.ask("/").json["pid"] != workers["/"], "a reload")
    below = children(site.pid)
    assert site.terminate() == 0
    assert not [pid for pid in below if lives(pid)]
    assert not folder.exists()


def test_usr2_with_settings_that_cannot_be_used_changes_nothing(site, tmp_path):
    pids = [site.ask(target).json["pid"] for target in ("/", "/shop")]
    write(tmp_path, SITE + "threads = 0\n")
    site.send_signal(signal.SIGUSR2)
    site.wait_for_log("not upgraded: the new program ended with 2 when it was checked; all stays as it was")
    assert [site.ask(target).json["pid"] for target in ("/", "/shop")] == pids
    write(tmp_path)
    site.send_signal(signal.SIGUSR2)
    site.wait_for_log("upgrading: the new program takes over")
    site.wait_until(lambda: not {site.ask(target).json["pid"] for target in ("/", "/shop")} & {*pids}, "new workers")


def test_the_admin_address_tells_of_the_workers_of_each_application(begin, run, tmp_path):
    site = begin("--admin", "127.0.0.1:0").wait_all()
    admin = Admin(site, "http")
    pids = {site.ask(*where).json["pid"]: name for name, *where in [("shop", "/shop"), ("blog", "/", "blog.example")]}

    def workers(status):
        return {worker["pid"]: app["app"] for app in status["apps"] for worker in app["workers"]}

    status = admin.wait_until(lambda status: pids.items() <= workers(status).items(), "the workers")
    assert [(app["app"], app["up"]) for app in status["apps"]] == [("shop", True), ("blog", True), ("rest", True)]
    metrics = admin.ask("/metrics").text
    for name in ("shop", "blog"):
        assert f'anygate_requests_total{{app="{name}",method="GET",status="2xx"}} 1\n' in metrics
        assert f'anygate_worker_memory_bytes{{app="{name}",worker="1"}} ' in metrics
        assert f'anygate_app_up{{app="{name}"}} 1\n' in metrics
    # Its own have no such label.
    assert 'anygate_requests_total{method="GET",status="2xx"} 2\n' in metrics
    assert len(re.findall("^# TYPE anygate_requests_total ", metrics, re.MULTILINE)) == 1
    top = run("top", "--admin", admin.address).stdout
    for pid, name in pids.items():
        assert re.search(rf"^ +{pid}  serving .*  {name}$", top, re.MULTILINE), top
    shop = next(pid for pid, name in pids.items() if name == "shop")
    stacks = admin.post(f"/api/stacks?pid={shop}").json["workers"]
    assert [worker["pid"] for worker in stacks] == [shop]
    assert admin.post(f"/api/recycle?pid={shop}").status == 202
    site.wait_until(lambda: site.ask("/shop").json["pid"] != shop, "another worker")
    assert admin.post("/api/recycle?pid=1").status == 404
    # One that is new, and one that is gone.
    write(tmp_path, SITE.replace('name = "blog"', 'name = "new"').replace("blog.example", "new.example"))
    site.send_signal(signal.SIGHUP)

    def names():
        return [app["app"] for app in admin.status()["apps"] if app["up"]]

    site.wait_until(lambda: names() == ["shop", "new", "rest"], "the applications of the new settings")


def test_websockets_go_both_ways(site, tmp_path):
    for path, hello in (("/shop/socket", b"shop /shop"), ("/socket", b"rest ")):
        with WebSocket(site.address).open(path, Sec_WebSocket_Protocol="chat") as client:
            assert client.opened["Sec-WebSocket-Protocol"] == "chat"
            assert client.frame() == (TEXT, hello)
            for length in (0, 5, 200, 70_000, 900_000):
                client.send(frame(TEXT, b"m" * length))
                assert client.frame() == (TEXT, b"m" * length)
            client.send(frame(TEXT, b"end"))
            assert client.frame() == (CLOSE, b"\x0f\xa1as you say")
        with WebSocket(site.address).open(path) as client:
            assert client.opened["Sec-WebSocket-Protocol"] is None
            assert client.frame() == (TEXT, hello)
        app = hello.split()[0].decode()
        site.wait_until(lambda app=app: any(tmp_path.glob(f"ended-{app}-*")), "that the application knows of the end")


def test_tls_and_http2(begin, tmp_path):
    pair = certificate(tmp_path)
    site = begin("-c", pair[0], "-k", pair[1]).wait_all()
    with Secure(site.address, pair[0]) as connection:
        seen = connection.ask("GET", "/shop/x").json
    assert (seen["wsgi.url_scheme"], seen["app"], seen["HTTPS"]) == ("https", "shop", "on")
    body = os.urandom(500_000)
    with Client(secure(site.address, pair[0])) as client:
        seen = client.ask("GET", "/shop/x?y", scheme="https").json
        assert (seen["SERVER_PROTOCOL"], seen["SCRIPT_NAME"], seen["PATH_INFO"]) == ("HTTP/2.0", "/shop", "/x")
        assert seen["wsgi.url_scheme"] == "https"
        streams = [client.begin("POST", f"{path}/digest", end=False) for path in ("/shop", "")]
        for stream in streams:
            client.send(stream, body)
        texts = [client.wait(stream).text for stream in streams]
        assert texts == [f"{len(body)} {hashlib.sha256(body).hexdigest()}"] * 2
        assert len(client.ask("GET", "/large?1000000").body) == 1_000_000


def test_websockets_over_http2_go_both_ways(begin, tmp_path):
    site = begin(text="websocket_over_http2 = true\n" + SITE).wait_all()
    with connect(plain(site.address)) as client:
        streams = [Stream(client, path) for path in ("/shop/socket", "/socket")]
        for stream, hello in zip(streams, (b"shop /shop", b"rest "), strict=True):
            assert stream.status() == 200
            assert stream.frame() == (TEXT, hello)
        for stream in streams:
            stream.send(frame(TEXT, b"m" * 70_000))
            assert stream.frame() == (TEXT, b"m" * 70_000)
            stream.send(frame(TEXT, b"end"))
            assert stream.frame() == (CLOSE, b"\x0f\xa1as you say")
        # The connection goes on.
        assert client.ask("GET", "/shop/x").json["app"] == "shop"
        for path, hello in (("/shop/socket", b"shop /shop"), ("/socket", b"rest ")):
            assert Stream(client, path).frame() == (TEXT, hello)
    for app in ("shop", "rest"):
        site.wait_until(lambda app=app: any(tmp_path.glob(f"ended-{app}-*")), "that the application knows of the end")


def test_a_virtual_environment_of_its_own(begin, tmp_path):
    for name in ("one", "two"):
        venv.create(tmp_path / name)
        packages = next((tmp_path / name).glob("lib/python*/site-packages"))
        (packages / "which.py").write_text(f"NAME = {name!r}\n")
    (tmp_path / "venv_app.py").write_text(
        "import which\ndef application(environ, start_response):\n"
        "    start_response('200 OK', [])\n    return [which.NAME.encode()]\n"
    )
    other = [
        f'[[app]]\nname = "{name}"\npath = "/{name}"\napp = "venv_app"\nvirtualenv = "{name}"\n'
        for name in ("one", "two")
    ]
    third = f'[[app]]\nname = "three"\napp = "routed:application"\npython = "{sys.executable}"\n'
    site = begin(text="port = 0\n" + "\n".join([*other, third])).wait_all("one", "two", "three")
    assert [site.ask(f"/{name}").text for name in ("one", "two")] == ["one", "two"]
    assert site.ask("/").status == 200


def test_the_service_manager_hears_when_all_are_ready(begin, tmp_path):
    manager = Datagrams(tmp_path / "manager")
    site = begin(environment={"NOTIFY_SOCKET": str(tmp_path / "manager")})
    manager.wait_for(b"^READY=1\nSTATUS=Serving 3 applications$")
    assert [site.ask(target).json["app"] for target in ("/", "/shop")] == ["rest", "shop"]
    site.send_signal(signal.SIGHUP)
    manager.wait_for(b"^RELOADING=1\nMONOTONIC_USEC=")
    manager.wait_for(b"^READY=1\n")
    site.send_signal(signal.SIGTERM)
    manager.wait_for(b"^STOPPING=1")
    assert site.wait() == 0


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            'threads = 2\n[[app]]\napp = "a:b"',
            "threads in anygate.toml: is an application's: set it in its [[app]] table",
        ),
        ('[[app]]\napp = "a:b"\nport = 80', 'app "app-1": port: is the router\'s: set it outside of [[app]]'),
        ('[[app]]\napp = "a:b"\nuser = "no-such-user"', "app 'app-1': user: there is no user 'no-such-user'"),
        ('[[app]]\npath = "/a"', 'app "app-1": app is missing'),
    ],
)
def test_settings_that_cannot_be_are_refused(run, tmp_path, text, reason):
    (tmp_path / "anygate.toml").write_text(text)
    ended = run()
    assert ended.returncode == 2
    assert reason.replace(" in anygate.toml", "") in ended.stderr.replace("anygate.toml: ", "")


def test_config_check_looks_at_all_applications(run, tmp_path):
    write(tmp_path)
    assert run("config", "--check").stdout == "ok\n"
    write(tmp_path, SITE + "threads = 0\n")
    assert 'app "rest": anygate.toml: threads: ' in run("config", "--check").stderr


USERS = SITE.replace('name = "shop"', 'name = "shop"\nuser = "nobody"').replace(
    'name = "blog"', 'name = "blog"\nuser = "daemon"'
)
#: Shows folders below the first one, which is closed to other users, in a view of the file system of its own.
SHOW = """
closed=$1
shift
while [ "$1" != -- ]; do
    hidden=$(mktemp -d)
    mount --bind "$1" "$hidden"
    shown="$shown $hidden:$1"
    shift
done
shift
mount -t tmpfs -o mode=755 none "$closed"
for pair in $shown; do
    mkdir -p "${pair#*:}"
    mount --move "${pair%%:*}" "${pair#*:}"
    rmdir "${pair%%:*}"
done
exec "$@"
"""


def visible():
    """What runs a command where every user can read this Python."""
    needed = [Path(sys.base_prefix), Path(sys.prefix), APPS.parents[1]]
    parents = [parent for path in needed for parent in reversed(path.parents)]
    closed = next((parent for parent in parents if not parent.stat().st_mode & 1), None)
    if closed is None:
        return []
    below = [path for path in needed if closed in path.parents]
    below = [path for path in below if not any(other in path.parents for other in below)]
    command = ["unshare", "--mount", "sh", "-ec", SHOW, "sh", str(closed), *map(str, below), "--"]
    if subprocess.run([*command, "true"], capture_output=True, check=False).returncode:
        pytest.skip("other users cannot read this Python, and there is no view of the file system where they can")
    return command


@pytest.fixture
def public():
    """A folder that every user can read, which those of pytest are not."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can run processes as other users")
def test_no_user_of_an_application_reaches_what_another_has(begin, public):
    site = begin(text=USERS, folder=public, command=[*visible(), ANYGATE]).wait_all()
    root = site.folder
    users = [pwd.getpwnam(name).pw_uid for name in ("nobody", "daemon", "root")]
    assert [site.ask(*where).json["uid"] for where in [("/shop",), ("/", "blog.example"), ("/",)]] == users
    for where in [(f"/shop/spy?{root}",), (f"/spy?{root}", "blog.example")]:
        found = site.ask(*where).json
        # Its own folder, and no other; in particular not where the sockets are.
        assert len([folder for folder, seen in found.items() if isinstance(seen, list)]) == 1, found
        assert found["sockets"] == "PermissionError"
    for path in root.glob("*/settings.toml"):
        assert path.stat().st_mode & 0o077 == 0
    assert {path.stat().st_mode & 0o777 for path in (root / "sockets").iterdir()} == {0o600}
    site.wait_for_log("app 'rest' has no user of its own and runs as root")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can run processes as other users")
def test_an_application_runs_in_its_group(begin, public):
    text = USERS.replace('user = "nobody"', 'user = "nobody"\ngroup = "daemon"')
    site = begin(text=text, folder=public, command=[*visible(), ANYGATE]).wait_all()
    seen = [site.ask(*where).json for where in [("/shop",), ("/", "blog.example")]]
    daemon = pwd.getpwnam("daemon")
    expected = [(pwd.getpwnam("nobody").pw_uid, grp.getgrnam("daemon").gr_gid), (daemon.pw_uid, daemon.pw_gid)]
    assert [(facts["uid"], facts["gid"]) for facts in seen] == expected


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can run processes as other users")
def test_an_application_with_the_routers_user_is_refused(run, tmp_path):
    write(tmp_path, 'user = "nobody"\n' + USERS)
    ended = run()
    assert ended.returncode == 2
    assert "app 'shop': user: nobody is the router's, who may connect to all applications" in ended.stderr
