"""`[[mount]]`: several applications in one worker, by path and by host."""

import json
import os
import signal
import subprocess
import sys
import urllib.request
import wsgiref.util

import anygate
import pytest
from conftest import ANYGATE
from gateways import cgi_response, fastcgi, scgi, stdout, variables
from http2_frames import Client, plain
from other_servers import started
from waiting import PATIENCE
from wire import Connection

SITE = """
app = "pages:rest"

[[mount]]
path = "/shop"
app = "pages:shop"

[[mount]]
path = "/shop/admin/"
app = "pages:make('admin')"

[[mount]]
host = "Blog.example"
app = "pages:blog"

[[mount]]
host = "*.example"
path = "/wide"
app = "pages:wide"

[[mount]]
path = "/kept"
app = "pages:kept"
keep_path = true
"""
APPLICATIONS = """
import json

def make(name):
    def application(environ, start_response):
        start_response("200 OK", [("Content-Type", "application/json")])
        seen = [name, environ["SCRIPT_NAME"], environ["PATH_INFO"], environ.get("REQUEST_URI")]
        return [json.dumps(seen).encode()]

    return application

shop, blog, wide, kept, rest = make("shop"), make("blog"), make("wide"), make("kept"), make("rest")
"""
CASES = [
    ("/", "test", ["rest", "", "/"]),
    ("/shop", "test", ["shop", "/shop", ""]),
    ("/shop/", "test", ["shop", "/shop", "/"]),
    ("/shop/a%20b", "a.test:80", ["shop", "/shop", "/a b"]),
    ("/shopping", "test", ["rest", "", "/shopping"]),
    ("/SHOP", "test", ["rest", "", "/SHOP"]),
    ("//shop", "test", ["rest", "", "//shop"]),
    ("/shop%2Fx", "test", ["shop", "/shop", "/x"]),
    ("/shop/admin", "test", ["admin", "/shop/admin", ""]),
    ("/shop/admin/x", "test", ["admin", "/shop/admin", "/x"]),
    ("/shop/administrator", "test", ["shop", "/shop", "/administrator"]),
    ("/shop", "blog.example", ["blog", "", "/shop"]),
    ("/", "BLOG.Example.:8080", ["blog", "", "/"]),
    ("/wide/x", "a.b.example", ["wide", "/wide", "/x"]),
    ("/wide/x", "blog.example", ["blog", "", "/wide/x"]),
    ("/x", "a.example", ["rest", "", "/x"]),
    ("/kept/x", "test", ["kept", "", "/kept/x"]),
    ("/keptx", "test", ["rest", "", "/keptx"]),
    ("/wide", "example", ["rest", "", "/wide"]),
    ("/x", "blog.example.evil", ["rest", "", "/x"]),
]


def pages(folder, text=SITE, applications=APPLICATIONS):
    (folder / "anygate.toml").write_text(text)
    (folder / "pages.py").write_text(applications)


def check(connect, cases=CASES):
    for target, host, expected in cases:
        with connect() as connection:
            seen = connection.ask("GET", target, [("Connection", "close")], host=host).json
        assert seen[:3] == expected, (target, host)
        assert seen[3] in (target, None)


@pytest.mark.parametrize("arguments", [[], ["--concurrency", "gevent"], ["--preload"], ["--reload"]], ids=" ".join)
def test_the_application_of_the_host_and_the_longest_path_is_called(serve, tmp_path, arguments):
    pages(tmp_path)
    check(serve(*arguments).connect)


@pytest.mark.parametrize("name", ["gunicorn", "waitress", "gevent"])
def test_servers_of_other_packages_have_them(tmp_path, name):
    pages(tmp_path)
    with started(name, tmp_path, app="pages:rest") as served:
        # waitress makes one slash of two.
        cases = [case for case in CASES if not case[0].startswith("//")]
        check(lambda: Connection(("127.0.0.1", served.port)), cases)


def test_every_protocol_has_them(serve, tmp_path):
    pages(tmp_path)
    served = serve(*("--bind", "http://127.0.0.1:0", "--bind", "scgi://127.0.0.1:0", "--bind", "fastcgi://127.0.0.1:0"))
    given = variables("GET", "/shop/x")
    with served.connect(served.addresses[1]) as connection:
        assert json.loads(cgi_response(connection.send(scgi(given)).rest())[2])[:3] == ["shop", "/shop", "/x"]
    with served.connect(served.addresses[2]) as connection:
        wire, _ = stdout(connection.send(fastcgi(given)).rest())
        assert json.loads(cgi_response(wire)[2])[:3] == ["shop", "/shop", "/x"]
    with Client(plain(served.address)) as client:
        assert client.ask("GET", "/shop/x").json[:3] == ["shop", "/shop", "/x"]


def test_a_program_that_a_cgi_server_starts(tmp_path):
    pages(tmp_path)
    request = {"REQUEST_METHOD": "GET", "SCRIPT_NAME": "/cgi-bin", "PATH_INFO": "/shop/x", "REQUEST_URI": "/"}
    server = {"SERVER_PROTOCOL": "HTTP/1.1", "SERVER_NAME": "a", "SERVER_PORT": "80", "REMOTE_ADDR": "192.0.2.7"}
    ended = subprocess.run(
        [ANYGATE, "cgi"],
        env={"PATH": os.environ["PATH"], **server, **request},
        capture_output=True,
        cwd=tmp_path,
        check=False,
    )
    assert json.loads(cgi_response(ended.stdout)[2])[:3] == ["shop", "/cgi-bin/shop", "/x"]


def test_a_reload_loads_all_of_them(serve, tmp_path):
    pages(tmp_path)
    served = serve()
    assert served.get("/shop").json[0] == "shop"
    pages(tmp_path, SITE, APPLICATIONS.replace('make("shop")', 'make("new shop")'))
    served.send_signal(1)
    served.wait_until(lambda: served.get("/shop").json[0] == "new shop", "the new application")


def test_without_app_other_paths_are_not_found(serve, tmp_path):
    pages(tmp_path, SITE.replace('app = "pages:rest"\n', "", 1))
    served = serve()
    response = served.get("/x")
    assert (response.status, response.body) == (404, b"404 Not Found\n")
    assert served.get("/shop").json[0] == "shop"


@pytest.mark.parametrize("arguments", [[], ["--preload"], ["-s", "waitress"]], ids=" ".join)
@pytest.mark.parametrize(
    ("app", "reason"),
    [
        ("absent:app", "at /shop: cannot load absent:app: there is no module 'absent'"),
        ("pages:absent", "at /shop: cannot load pages:absent: 'pages' has no attribute 'absent'"),
        ("fails", "at /shop: cannot load fails: it raised ZeroDivisionError while it was imported"),
    ],
)
def test_what_cannot_be_loaded_is_named(run, tmp_path, arguments, app, reason):
    pages(tmp_path, SITE.replace("pages:shop", app))
    (tmp_path / "fails.py").write_text("1 / 0\n")
    ended = run("--port", "0", *arguments)
    assert ended.returncode != 0
    assert f"cannot load the applications of [[mount]]: {reason}" in ended.stderr


def test_settings_show_them(run, tmp_path):
    pages(tmp_path)
    assert run("config", "--check").returncode == 0
    printed = run("config", "--print").stdout
    assert '"/shop/admin/"' in printed
    pages(tmp_path, SITE.replace('path = "/shop"', 'path = "shop"'))
    ended = run("config", "--check")
    assert ended.returncode == 2
    assert '[[mount]] number 1: path: "shop" must begin with /' in ended.stderr


def test_rules_hold_for_mounted_applications(serve, tmp_path):
    pages(tmp_path, 'deny = ["/shop/admin 127.0.0.1"]\nrewrite = ["/buy /shop"]\n' + SITE)
    served = serve()
    assert [served.get(target).status for target in ("/shop", "/shop/admin", "//shop/admin", "/buy/admin")] == [
        200,
        403,
        403,
        403,
    ]
    assert served.get("/buy/x").json[:3] == ["shop", "/shop", "/x"]


def named(name):
    def application(environ, start_response):
        start_response("200 OK", [("Content-Type", "application/json")])
        return [json.dumps([name, environ["SCRIPT_NAME"], environ["PATH_INFO"]]).encode()]

    return application


MOUNTS = [{"path": "/shop/", "app": named("shop")}, {"host": "Blog.example", "app": named("blog")}]
PLACES = [
    ("/shop/x", "test", ["shop", "/shop", "/x"]),
    ("/x", "blog.example:80", ["blog", "", "/x"]),
    ("/x", "test", ["rest", "", "/x"]),
]


def test_a_server_in_a_program_has_mounts():
    with anygate.Server(named("rest"), port=0, mount=MOUNTS) as server:
        for path, host, expected in PLACES:
            request = urllib.request.Request(server.url + path, headers={"Host": host})
            with urllib.request.urlopen(request, timeout=PATIENCE) as response:
                assert json.load(response) == expected


def test_mounts_work_under_any_server():
    application = anygate.wsgihandler(named("rest"), mount=MOUNTS)
    for path, host, expected in PLACES:
        environ = {"HTTP_HOST": host, "PATH_INFO": path}
        wsgiref.util.setup_testing_defaults(environ)
        assert json.loads(b"".join(application(environ, lambda status, headers, exc_info=None: None))) == expected


def test_a_program_serves_mounts_that_it_can_reload(launch, tmp_path):
    (tmp_path / "pages.py").write_text(APPLICATIONS)
    program = "import anygate; anygate.serve('pages:rest', port=0, mount=[{'path': '/shop', 'app': 'pages:shop'}])"
    served = launch(command=[sys.executable, "-c", program], folder=tmp_path).wait_ready()
    assert served.get("/shop/x").json[:3] == ["shop", "/shop", "/x"]
    (tmp_path / "pages.py").write_text(APPLICATIONS.replace('make("shop")', 'make("other")'))
    served.send_signal(signal.SIGHUP)
    served.wait_until(lambda: served.get("/shop/x").json[0] == "other", "the new application")


@pytest.mark.parametrize(
    ("mount", "error", "reason"),
    [
        ({"path": "shop", "app": named("shop")}, ValueError, "path"),
        ({"app": named("shop")}, ValueError, "neither a path"),
        ({"path": "/shop"}, TypeError, "must be a dictionary with app"),
        ({"path": "/shop", "application": "x"}, TypeError, "must be a dictionary with app"),
        ({"path": "/shop", "app": "nowhere:app"}, Exception, "/shop"),
    ],
)
def test_what_is_no_mount_is_named(mount, error, reason):
    with pytest.raises(error, match=reason):
        anygate.Server(named("rest"), port=0, mount=[mount])
