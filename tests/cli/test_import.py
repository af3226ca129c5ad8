"""Settings of other servers: what `anygate import` makes of them, and what `--config` serves with them."""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import venv
from pathlib import Path

import gateways
import pytest
import tomllib
from other_servers import certificate
from waiting import PATIENCE
from wire import Connection

FOREIGN = Path(__file__).parent / "foreign"
FILES = sorted(path.name for path in FOREIGN.iterdir() if path.name != "commands.txt")
COMMANDS = (FOREIGN / "commands.txt").read_text().splitlines()
VARIABLES = {"PORT": "5000", "HTTP_PORT": "8007"}

#: The configurations that the documents of web2py's handlers show, and the one that web2py has.
ORIGINALS = [name for name in FILES if name.startswith("web2py")]

APP = """
import json, os, sys, time

def app(environ, start_response):
    if environ["PATH_INFO"] == "/slow":
        until = time.monotonic() + 30
        while time.monotonic() < until:
            pass
    body = json.dumps({
        "folder": os.getcwd(),
        "threads": environ["wsgi.multithread"],
        "processes": environ["wsgi.multiprocess"],
        "path": [environ["SCRIPT_NAME"], environ["PATH_INFO"]],
        "client": environ["REMOTE_ADDR"],
        "scheme": environ["wsgi.url_scheme"],
        "mode": os.environ.get("SITE_MODE"),
        "name": os.environ.get("SITE_NAME"),
        "extra": getattr(sys.modules.get("extra"), "WORD", None),
        "pid": os.getpid(),
    }).encode()
    start_response("200 OK", [("Content-Type", "application/json")])
    return [body]

application = app

def create_app(word="made"):
    return app
"""


@pytest.fixture
def site(tmp_path):
    (tmp_path / "app.py").write_text(APP)
    return tmp_path


def imported(run, folder, *arguments, **environment):
    ended = run("import", *arguments, folder=folder, environment={**VARIABLES, **environment})
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def verdicts(text):
    """What became of each option, by what was typed."""
    found = re.findall(r"^# (\S+?): (.*?) -- (mapped|changed|not needed|without counterpart)", text, re.MULTILINE)
    return [(typed, verdict) for _, typed, verdict in found]


def shown(run, folder, *arguments):
    ended = run("config", "--print", *arguments, folder=folder, environment=VARIABLES)
    assert ended.returncode == 0, ended.stderr
    return [line.split("  # ")[0] for line in ended.stdout.splitlines()]


@pytest.fixture
def foreign(tmp_path):
    """The files, with what they name beside them."""
    shutil.copytree(FOREIGN, tmp_path, dirs_exist_ok=True)
    return tmp_path


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_shown_as_one_of_ours_and_serves_the_same(run, foreign, name):
    text = imported(run, foreign, name)
    settings = tomllib.loads(text)
    assert settings
    (foreign / "made.toml").write_text(text)
    ended = run("config", "--check", "--config", "made.toml", folder=foreign)
    # Folders of files and certificates are not there.
    is_missing = re.search(r"made.toml: (ssl_certificate|static): ", ended.stderr)
    assert ended.returncode == 0 or is_missing, ended.stderr
    if ended.returncode == 0:
        assert shown(run, foreign, "--config", name) == shown(run, foreign, "--config", "made.toml")


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_line_is_shown_as_one_of_our_files(run, foreign, command):
    text = imported(run, foreign, "--", *shlex.split(command))
    (foreign / "made.toml").write_text(text)
    (foreign / "static").mkdir()
    assert run("config", "--check", "--config", "made.toml", folder=foreign).stderr == ""
    assert [typed for typed, verdict in verdicts(text) if verdict == "without counterpart"] == []


@pytest.mark.parametrize("name", FILES)
def test_nearly_every_option_has_an_effect(run, foreign, name):
    found = verdicts(imported(run, foreign, name))
    # The processes of a Procfile that serve nothing are no options of a server.
    found = [(typed, verdict) for typed, verdict in found if not typed.startswith(("release:", "worker:"))]
    without = [typed for typed, verdict in found if verdict == "without counterpart"]
    assert len(without) <= len(found) * 0.1, without


@pytest.mark.parametrize("name", ORIGINALS)
def test_no_option_of_the_documents_is_left_over(run, foreign, name):
    found = verdicts(imported(run, foreign, name))
    assert len(found) > 7
    assert [typed for typed, verdict in found if verdict == "without counterpart"] == []


def test_web2pys_own_file_has_the_effects_that_it_has_under_uwsgi(run, foreign):
    settings = tomllib.loads(imported(run, foreign, "web2py_emperor.ini"))
    expected = {
        "bind": ["uwsgi+unix:/tmp/web2py.socket"],
        "pythonpath": ["/home/www-data/web2py/"],
        "app": "wsgihandler:application",
        "workers": 4,
        "threads": 1,
        "request_timeout": "60",
        "graceful_timeout": "8",
        "cpu_affinity": 1,
        "touch_reload": ["/home/www-data/web2py/routes.py"],
        "uwsgi_stats": "unix:/tmp/stats.socket",
        "max_requests": 2000,
        # Of three limits the smallest.
        "worker_memory_max": "192M",
        "user": "www-data",
        "group": "www-data",
    }
    assert {key: settings[key] for key in expected} == expected
    (job,) = settings["cron"]
    assert job["schedule"] == "0 0 * * *"
    assert job["command"][:2] == ["python3", "/home/www-data/web2py/web2py.py"]


def test_limits_of_the_address_space_become_limits_of_resident_memory_with_a_line(run, foreign):
    text = imported(run, foreign, "web2py_emperor.ini")
    (line,) = re.findall(r"^# web2py_emperor.ini:12: limit-as = 512 -- (.*)$", text, re.MULTILINE)
    assert line.startswith("changed to worker_memory_max: resident memory is limited, not address space")


UWSGI = """
[uwsgi]
base = {folder}
http-socket = 127.0.0.1:0
mount = /shop=app:create_app()
manage-script-name = true
chdir = %(base)/inner
pythonpath = %(base)
processes = 2
env = SITE_MODE=%(mode)
env = SITE_NAME=%n
mode = production
static-map = /files=%d
harakiri = 1
touch-reload = %d/reload
static-expires = /.* 77
log-format = %(method) %(uri) %(status)
logto2 = site.log
spooler = /tmp
"""


def test_a_file_of_uwsgi_serves(launch, site):
    (site / "inner").mkdir()
    (site / "site.ini").write_text(UWSGI.format(folder=site).replace("mode = production\n", "", 1))
    text = (site / "site.ini").read_text()
    (site / "site.ini").write_text(text.replace("base =", "mode = production\nbase =", 1))
    served = launch("--config", "site.ini", folder=site)
    served.wait_until(lambda: (site / "inner" / "site.log").exists(), "the log")
    log = site / "inner" / "site.log"
    served.log = log.read_text
    served.wait_ready()
    page = served.get("/shop/cart", [("X-Forwarded-For", "192.0.2.7"), ("X-Forwarded-Proto", "https")]).json
    pid = page.pop("pid")
    assert page == {
        "folder": str(site / "inner"),
        "threads": False,
        "processes": True,
        "path": ["/shop", "/cart"],
        "client": "192.0.2.7",
        "scheme": "https",
        "mode": "production",
        "name": "site",
        "extra": None,
    }
    assert pid in served.workers()
    assert len(served.workers()) == 2
    file = served.get("/files/app.py")
    assert "create_app" in file.text
    assert "max-age=77" in file["Cache-Control"]
    assert served.get("/shop/slow").status == 504
    served.wait_for_log("GET /cart 200")
    before = served.workers()
    (site / "reload").touch()
    served.wait_until(lambda: served.workers() and not set(served.workers()) & set(before), "other workers")
    stderr = served.errors.read_text()
    assert "site.ini:19: spooler = /tmp has no effect" in stderr


ROUTED = r"""
[uwsgi]
http-socket = 127.0.0.1:0
module = app
mount = /shop=app.py
mount = blog.example.org=app:create_app()
manage-script-name = true
static-map = /files=.
static-map = /files=/srv
attach-daemon = sh -c 'echo "$0 runs" > daemon.txt; exec sleep 1000'
smart-attach-daemon = queue.pid sleep 1000
smart-attach-daemon = cache.pid memcached -d -P cache.pid
attach-daemon2 = cmd=sleep 1000,freq=3
route = ^/old/(.*)$ redirect-permanent:/new/$1
route-host = ^www\.example\.org$ redirect:https://example.org${REQUEST_URI}
route = ^/user/([0-9]+)$ rewrite:/users?id=$1
route-run = addheader:X-Routed: yes
route = ^/x redirect:/y/${REMOTE_USER}
route-if = equal:${HTTPS};off redirect:/y
route = ^/admin basicauth:Staff,joe:secret
"""


def test_mounts_routes_and_daemons_of_uwsgi_are_ours(launch, run, site):
    (site / "site.ini").write_text(ROUTED)
    text = imported(run, site, "site.ini")
    settings = tomllib.loads(text)
    assert settings["redirect"] == ["301 ~^/old/(.*)$ /new/$1?", "302 www.example.org/ https://example.org/"]
    assert settings["rewrite"] == ["~^/user/([0-9]+)$ /users?id=$1"]
    assert settings["mount"] == [
        {"app": "app.py", "path": "/shop"},
        {"app": "app:create_app()", "host": "blog.example.org"},
    ]
    assert [daemon["command"][0] for daemon in settings["daemon"]] == ["/bin/sh", "sleep", "sleep"]
    without = [typed.split(" = ")[0] for typed, verdict in verdicts(text) if verdict == "without counterpart"]
    assert without == ["static-map", "smart-attach-daemon", "route", "route-if", "route"]
    served = launch("--config", "site.ini", folder=site).wait_ready()
    served.wait_until(lambda: (site / "daemon.txt").exists(), "the program beside the workers")
    assert served.get("/shop/cart").json["path"] == ["/shop", "/cart"]
    assert served.get("/cart").json["path"] == ["", "/cart"]
    assert served.get("/user/7").json["path"] == ["", "/users"]
    moved = served.get("/old/a?b=c")
    assert (moved.status, moved["location"]) == (301, "/new/a")
    with served.connect() as connection:
        moved = connection.ask("GET", "/a?b=c", host="www.example.org")
    assert (moved.status, moved["location"]) == (302, "https://example.org/a?b=c")
    assert served.get("/cart")["x-routed"] == "yes"


def test_a_socket_of_uwsgi_speaks_its_protocol(launch, site):
    (site / "a.xml").write_text(
        "<uwsgi><socket>127.0.0.1:0</socket><module>app</module><threads>3</threads><disable-logging/></uwsgi>"
    )
    served = launch("--config", "a.xml", folder=site).wait_ready()
    variables = [("REQUEST_METHOD", "GET"), ("REQUEST_URI", "/x"), ("PATH_INFO", "/x"), ("SERVER_PROTOCOL", "HTTP/1.1")]
    with served.connect() as connection:
        connection.send(gateways.uwsgi(variables))
        assert b'"threads": true' in gateways.cgi_response(connection.rest())[2]


GUNICORN = """
import os
bind = ["127.0.0.1:0", "unix:site.sock"]
wsgi_app = "app:create_app('prod')"
chdir = "inner"
pythonpath = os.path.abspath("lib") + "," + os.getcwd()
workers = 1 + 1
worker_class = "sync"
raw_env = ["SITE_MODE=" + os.environ["MODE"]]
timeout = 1
accesslog = "access.log"
access_log_format = "%(m)s %(U)s %(s)s"
print("this is no setting")

def post_fork(server, worker):
    pass
"""


def test_a_file_of_gunicorn_serves(launch, site):
    (site / "inner").mkdir()
    (site / "settings.py").write_text(GUNICORN)
    environment = {"MODE": "testing", "GUNICORN_CMD_ARGS": "--workers 3"}
    served = launch("--config", "settings.py", folder=site, environment=environment).wait_ready()
    page = served.get("/cart").json
    assert (page["mode"], page["threads"], page["folder"]) == ("testing", False, str(site / "inner"))
    assert len(served.workers()) == 3
    assert served.addresses[1] == str(site / "inner" / "site.sock")
    assert served.get("/slow").status == 504
    log = site / "inner" / "access.log"
    served.wait_until(lambda: "GET /cart 200" in log.read_text(), "the line of the request")
    assert "post_fork(...)" not in served.log()
    served.wait_for_log("this is no setting")


@pytest.mark.parametrize(
    ("name", "text", "later"),
    [
        ("a.ini", "[uwsgi]\nhttp = 127.0.0.1:0\nmodule = app\nprocesses = 1\n", ("processes = 1", "processes = 2")),
        ("a.py", "bind = '127.0.0.1:0'\nwsgi_app = 'app'\nworkers = 1\n", ("workers = 1", "workers = 2")),
    ],
)
def test_a_reload_reads_the_file_anew(launch, site, name, text, later):
    (site / name).write_text(text)
    served = launch("--config", name, folder=site).wait_ready()
    (site / name).write_text(text.replace(*later))
    served.send_signal(signal.SIGHUP)
    served.wait_until(lambda: len(served.workers()) == 2, "two workers")
    assert served.get().status == 200


def test_a_virtual_environment_of_another_server_is_used(launch, site):
    venv.create(site / "env", symlinks=True)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    packages = site / "env" / "lib" / version / "site-packages"
    (packages / "extra.py").write_text("WORD = 'from the environment'\n")
    (site / "other.py").write_text("import extra\nfrom app import app\n")
    (site / "a.ini").write_text("[uwsgi]\nhttp = 127.0.0.1:0\nmodule = other\ncallable = app\nhome = %d/env\n")
    served = launch("--config", "a.ini", folder=site).wait_ready()
    assert served.get().json["extra"] == "from the environment"


def test_a_virtual_environment_that_is_none_is_named(run, site):
    ended = run("app:app", "--virtualenv", "nowhere", "--port", "0", folder=site)
    assert ended.returncode == 3
    assert "is no virtual environment of python3" in ended.stderr


def test_variables_are_there_when_the_application_is_imported(launch, site):
    (site / "early.py").write_text("import os\nMODE = os.environ['SITE_MODE']\nfrom app import app\n")
    for arguments in ([], ["--preload"]):
        served = launch("early:app", "--port", "0", "--env", "SITE_MODE=a=b", *arguments, folder=site).wait_ready()
        assert served.get().json["mode"] == "a=b"


def test_variables_and_packages_are_there_under_another_server(launch, site):
    from other_servers import Http, free_port, wait_for

    port = free_port()
    served = launch("app:app", "-s", "waitress", "-p", port, "--env", "SITE_MODE=other", folder=site)
    assert b'"mode": "other"' in wait_for(served, lambda: Http(port).ask("GET", "/"))[2]


@pytest.mark.parametrize("name", ["script.wsgi", "sub/script.wsgi"])
def test_a_script_of_mod_wsgi_is_a_file_of_python(launch, site, name):
    (site / "sub").mkdir()
    (site / name).write_text("from app import application\n")
    served = launch(name, "--port", "0", "--pythonpath", site, folder=site).wait_ready()
    assert served.get().status == 200


def test_a_configuration_of_apache_serves(launch, site):
    (site / "site.conf").write_text(
        "Listen 127.0.0.1:0\n<VirtualHost *>\nWSGIDaemonProcess s processes=2 threads=1 home=inner python-path="
        f"{site}\nWSGIScriptAlias /app {site}/app.py\nAlias /files {site}\nWSGIFancyThing on\n</VirtualHost>\n"
    )
    (site / "inner").mkdir()
    served = launch("--config", "site.conf", folder=site).wait_ready()
    page = served.get("/app/x").json
    assert (page["path"], page["threads"], page["folder"]) == (["/app", "/x"], False, str(site / "inner"))
    assert "create_app" in served.get("/files/app.py").text
    served.wait_for_log("site.conf:6: WSGIFancyThing on has no effect")


def test_a_file_of_unit_serves(launch, site):
    (site / "unit.json").write_text(
        """{"listeners": {"127.0.0.1:0": {"pass": "routes"}},
            "routes": [{"match": {"uri": "/files/*"}, "action": {"share": "%s/www$uri"}},
                       {"action": {"pass": "applications/a"}}],
            "applications": {"a": {"type": "python", "module": "app", "callable": "create_app", "factory": true,
                "path": "%s", "environment": {"SITE_MODE": "unit"}, "processes": 2, "threads": 2,
                "limits": {"timeout": 1}}}}""".replace("%s", str(site))
    )
    (site / "www" / "files").mkdir(parents=True)
    (site / "www" / "files" / "a.txt").write_text("a file")
    served = launch("--config", "unit.json", folder=site).wait_ready()
    assert served.get("/files/a.txt").text == "a file"
    page = served.get("/x").json
    assert (page["mode"], page["threads"], page["processes"]) == ("unit", True, True)
    assert served.get("/slow").status == 504


def test_redirects_and_rewrites_of_unit_are_ours(launch, run, site):
    (site / "www" / "files").mkdir(parents=True)
    (site / "www" / "files" / "a.txt").write_text("a file")
    (site / "unit.json").write_text(
        """{"listeners": {"127.0.0.1:0": {"pass": "routes"}},
            "routes": [{"match": {"host": "www.example.org"},
                        "action": {"return": 301, "location": "https://example.org$request_uri"}},
                       {"match": {"uri": ["/old", "/older/*"]}, "action": {"return": 302, "location": "/new"}},
                       {"match": {"uri": "/gone"}, "action": {"return": 410}},
                       {"match": {"scheme": "http", "uri": "/tls"},
                        "action": {"return": 301, "location": "https://$host$request_uri"}},
                       {"match": {"uri": "/v1/*"}, "action": {"rewrite": "/api$uri", "pass": "applications/a"}},
                       {"match": {"uri": "/files/*"}, "action": {"share": ["%s/www$uri", "/srv/www$uri"]}},
                       {"action": {"pass": "applications/a"}}],
            "applications": {"a": {"type": "python", "module": "app", "path": "%s"}}}""".replace("%s", str(site))
    )
    text = imported(run, site, "unit.json")
    assert [typed for typed, verdict in verdicts(text) if verdict == "without counterpart"] == [
        "routes.return: 410",
        "routes.return: 301",
    ]
    served = launch("--config", "unit.json", folder=site).wait_ready()
    with served.connect() as connection:
        moved = connection.ask("GET", "/a?b=c", host="www.example.org")
    assert (moved.status, moved["location"]) == (301, "https://example.org/a?b=c")
    for path in ("/old", "/older/x?y"):
        assert (served.get(path).status, served.get(path)["location"]) == (302, "/new")
    assert served.get("/v1/x").json["path"] == ["", "/api/v1/x"]
    assert served.get("/files/a.txt").text == "a file"


@pytest.mark.parametrize(
    ("fields", "verdict"),
    [
        ({"X-FORWARDED-PROTO": "https"}, "not needed"),
        ({"X-FORWARDED-PROTOCOL": "ssl", "X-FORWARDED-PROTO": "https", "X-FORWARDED-SSL": "on"}, "changed"),
        ({"X-SCHEME": "https"}, "without counterpart"),
    ],
)
def test_fields_for_tls_of_gunicorns_proxies_are_named(run, site, fields, verdict):
    (site / "conf.py").write_text(f"wsgi_app = 'app:app'\nsecure_scheme_headers = {fields!r}\n")
    found = dict(verdicts(imported(run, site, "conf.py")))
    assert [found[typed] for typed in found if typed.startswith("secure_scheme_headers")] == [verdict]


def test_listeners_of_unit_that_lead_elsewhere_are_not_opened(run, site):
    (site / "unit.json").write_text(
        """{"listeners": {"*:8000": {"pass": "routes/main"}, "*:8001": {"pass": "applications/figures"},
                          "*:8181": {"pass": "routes/status"}},
            "routes": {"main": [{"match": {"uri": "/static/*"}, "action": {"share": "/srv${uri}"}},
                                {"match": {"uri": "/figures/*"}, "action": {"pass": "applications/figures"}},
                                {"action": {"pass": "applications/shop"}}],
                       "status": [{"action": {"proxy": "http://unix:/run/control.sock"}}]},
            "applications": {"shop": {"type": "python", "module": "shop"},
                             "figures": {"type": "python", "module": "figures"}}}"""
    )
    text = imported(run, site, "unit.json")
    settings = tomllib.loads(text)
    assert settings["bind"] == ["0.0.0.0:8000"]
    assert settings["static"] == ["/static=/srv/static"]
    assert settings["app"] == [
        {"name": "figures", "path": "/figures", "keep_path": True, "app": "figures:application", "threads": 1},
        {"name": "shop", "app": "shop:application", "threads": 1},
    ]
    without = [typed for typed, verdict in verdicts(text) if verdict == "without counterpart"]
    assert without == ['listeners.*:8001: "..."', 'listeners.*:8181: "..."', 'routes.status: "..."']


def test_several_applications_of_unit_are_ours(launch, run, site):
    """Each has its own processes; paths stay in PATH_INFO, as under Unit, unless they are the prefix."""
    (site / "unit.json").write_text(
        """{"listeners": {"127.0.0.1:0": {"pass": "routes"}, "*:9999": {"pass": "applications/b"}},
            "routes": [{"match": {"uri": ["/api", "/api/*"]}, "action": {"pass": "applications/a"}},
                       {"match": {"uri": "/own/*"}, "action": {"pass": "applications/b"}},
                       {"match": {"host": ["c.example", "*.c.example"]}, "action": {"pass": "applications/c d/in"}},
                       {"match": {"host": "c.example", "uri": "/in/*"}, "action": {"pass": "applications/c d/out"}},
                       {"match": {"uri": "~^/x"}, "action": {"pass": "applications/e"}},
                       {"action": {"share": "%s/www$uri", "fallback": {"pass": "applications/rest"}}}],
            "applications": {
                "a": {"type": "python 3.11", "module": "app", "path": "%s", "processes": 2,
                      "environment": {"SITE_MODE": "of a"}},
                "b": {"type": "python", "module": "app", "path": "%s", "prefix": "/own"},
                "c d": {"type": "python", "path": "%s",
                        "targets": {"in": {"module": "app"}, "out": {"module": "app"}, "no": {"module": "app"}}},
                "e": {"type": "python", "module": "app"},
                "rest": {"type": "python", "module": "app", "path": "%s", "threads": 3},
                "page": {"type": "php", "root": "/srv"}}}""".replace("%s", str(site))
    )
    (site / "www").mkdir()
    (site / "www" / "a.txt").write_text("a file")
    text = imported(run, site, "unit.json")
    tables = {table["name"]: table for table in tomllib.loads(text)["app"]}
    assert [*tables] == ["a", "b", "c-d", "rest"]
    without = [typed for typed, verdict in verdicts(text) if verdict == "without counterpart"]
    assert without == [
        'applications.c d.targets.no: "..."',
        'applications.e: "..."',
        'applications.page: "..."',
        'listeners.*:9999: "..."',
        'routes.pass: "applications/e"',
    ]
    served = launch("--config", "unit.json", folder=site)
    for name in tables:
        served.wait_for_log(f"application '{name}' is ready")
    served.wait_for_log("the router is ready")
    port = int(re.search(r"serves the applications of \[\[app\]\] on http://127.0.0.1:(\d+)", served.log())[1])

    def ask(target, host="test"):
        with Connection(("127.0.0.1", port)) as connection:
            response = connection.ask("GET", target, host=host)
            return response.text if target == "/a.txt" else response.json

    assert (ask("/api/x")["mode"], ask("/api/x")["path"]) == ("of a", ["", "/api/x"])
    assert ask("/api/x")["processes"]
    assert not ask("/x")["processes"]
    assert ask("/own/x")["path"] == ["/own", "/x"]
    assert ask("/x", "www.c.example")["path"] == ["", "/x"]
    assert ask("/y")["threads"]
    assert not ask("/own/x")["threads"]
    assert ask("/a.txt") == "a file"


def test_targets_of_one_application_of_unit_are_mounts(launch, run, site):
    (site / "other.py").write_text((site / "app.py").read_text().replace("def app", "def other"))
    (site / "unit.json").write_text(
        """{"listeners": {"127.0.0.1:0": {"pass": "routes"}},
            "routes": [{"match": {"uri": "/a/*"}, "action": {"pass": "applications/site/a"}},
                       {"match": {"uri": "/b/*"}, "action": {"pass": "applications/site/b"}},
                       {"action": {"pass": "applications/site/rest"}}],
            "applications": {"site": {"type": "python", "path": "%s", "threads": 2, "targets": {
                "a": {"module": "app"}, "b": {"module": "app", "prefix": "/b"},
                "rest": {"module": "app", "callable": "create_app", "factory": true}}}}}""".replace("%s", str(site))
    )
    text = imported(run, site, "unit.json")
    assert not [typed for typed, verdict in verdicts(text) if verdict == "without counterpart"]
    served = launch("--config", "unit.json", folder=site).wait_ready()
    paths = [served.get(target).json["path"] for target in ("/a/x", "/b/x", "/x")]
    assert paths == [["", "/a/x"], ["/b", "/x"], ["", "/x"]]


def test_a_listener_of_unit_that_only_leads_to_https_does_so_here(launch, run, site):
    pair = certificate(site)
    (site / "unit.json").write_text(
        """{"listeners": {"127.0.0.1:0": {"pass": "routes", "tls": {"certificate": "bundle"}},
                          "127.0.0.2:0": {"pass": "routes"}, "127.0.0.3:0": {"pass": "routes/plain"}},
            "routes": {"plain": [{"action": {"return": 301, "location": "https://${host}${request_uri}"}}]},
            "applications": {"a": {"type": "python", "module": "app", "path": "%s"}}}""".replace("%s", str(site))
    )
    routes = """[{"match": {"scheme": "http"}, "action": {"return": 301, "location": "https://$host$request_uri"}},
                 {"action": {"pass": "applications/a"}}]"""
    text = (site / "unit.json").read_text()
    text = text.replace('"routes": {"plain": ', f'"routes": {{"main": {routes}, "plain": ')
    (site / "unit.json").write_text(text.replace('{"pass": "routes"', '{"pass": "routes/main"'))
    text = imported(run, site, "unit.json")
    assert tomllib.loads(text)["redirect_https"] == "127.0.0.2:0"
    without = [typed for typed, verdict in verdicts(text) if verdict == "without counterpart"]
    assert without == ["listeners.127.0.0.1:0.tls: {...}", 'listeners.127.0.0.3:0: "..."']
    served = launch(
        "--config", "unit.json", "--ssl-certificate", pair[0], "--ssl-private-key", pair[1], folder=site
    ).wait_ready()
    port = re.search(r"http://127\.0\.0\.2:(\d+)", served.log())[1]
    with Connection(("127.0.0.2", int(port))) as connection:
        moved = connection.ask("GET", "/x?y", host="site.example")
    assert moved.status == 301
    assert moved["location"].startswith("https://site.example")
    assert moved["location"].endswith("/x?y")


def test_a_file_of_paste_serves_its_application(launch, site):
    (site / "paste").mkdir()
    (site / "paste" / "deploy.py").write_text("from app import app\ndef loadapp(uri):\n    return app\n")
    (site / "production.ini").write_text(
        "[app:main]\nuse = egg:site\n[server:main]\nuse = egg:waitress#main\nlisten = 127.0.0.1:0\nthreads = 1\n"
    )
    served = launch("--config", "production.ini", folder=site).wait_ready()
    assert served.get().json["threads"] is False


def test_a_procfile_serves(launch, site):
    (site / "Procfile").write_text("web: SITE_MODE=heroku gunicorn -w ${WEB:-2} -b 127.0.0.1:$PORT app:app\n")
    served = launch("--config", "Procfile", folder=site, environment={"PORT": "0"}).wait_ready()
    assert served.get().json["mode"] == "heroku"
    assert len(served.workers()) == 2


MARK = "import pathlib\npathlib.Path('it-ran').touch()\nworkers = 5\n"


def test_files_of_others_are_never_taken_unasked(launch, site):
    (site / "gunicorn.conf.py").write_text(MARK)
    (site / "uwsgi.ini").write_text("[uwsgi]\nprocesses = 5\n")
    served = launch("app:app", "--port", "0", folder=site).wait_ready()
    assert len(served.workers()) == 1
    assert not (site / "it-ran").exists()


@pytest.mark.parametrize(
    ("arguments", "environment", "words"),
    [
        (("config", "--check"), {"ANYGATE_CONFIG": "gunicorn.conf.py"}, "only when the command line names it"),
        (("import", "Procfile"), {}, "only when the command line names it"),
        (
            ("import", "--", "gunicorn", "app:app"),
            {"GUNICORN_CMD_ARGS": "-c gunicorn.conf.py"},
            "the command line names",
        ),
        (("import", "a.ini"), {}, "exec-pre-app = touch it-ran: it runs a program"),
        (("config", "--check", "--config", "b.ini"), {}, "@(exec://touch it-ran) runs or fetches something"),
        (("import", "c.ini"), {}, "runs or fetches"),
        (("import", "d.ini"), {}, "hook-pre-app = exec:touch it-ran: it runs a program"),
        (("import", "Procfile.shell"), {}, "$(...) runs a program"),
        (("import", "--", "sh", "-c", "touch it-ran"), {}, "sh is no server whose options are known"),
        (("import", "--", "gunicorn", "app:app", "&&", "touch", "it-ran"), {}, "&&: write the command"),
    ],
)
def test_what_runs_or_fetches_is_refused(run, site, arguments, environment, words):
    (site / "gunicorn.conf.py").write_text(MARK)
    (site / "Procfile").write_text("web: gunicorn -c gunicorn.conf.py app:app\n")
    (site / "Procfile.shell").write_text("web: gunicorn -w $(touch it-ran) app:app\n")
    (site / "a.ini").write_text("[uwsgi]\nmodule = app\nexec-pre-app = touch it-ran\n")
    (site / "b.ini").write_text("[uwsgi]\nmodule = @(exec://touch it-ran)\n")
    (site / "c.ini").write_text("[uwsgi]\nmodule = @(http://127.0.0.1:9/x)\n")
    (site / "d.ini").write_text("[uwsgi]\nhook-pre-app = exec:touch it-ran\n")
    ended = run(*arguments, folder=site, environment=environment)
    assert ended.returncode == 2
    assert words in ended.stderr
    assert ended.stderr.count("\n") == 1
    assert not (site / "it-ran").exists()


def test_a_file_of_gunicorn_is_run_when_it_is_named(run, site):
    (site / "gunicorn.conf.py").write_text(MARK)
    text = imported(run, site, "--", "gunicorn", "-c", "gunicorn.conf.py", "app:app")
    assert tomllib.loads(text)["workers"] == 5
    assert (site / "it-ran").exists()


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.ini", "[uwsgi]\n\nprocesses = many\n", "a.ini:3: processes = many: must be a whole number"),
        (
            "a.ini",
            "[uwsgi]\nhttp = :$(NOWHERE)\n",
            "a.ini:2: http = :$(NOWHERE): NOWHERE is not set in the environment",
        ),
        (
            "a.ini",
            "[uwsgi]\nharakiri = soon\n",
            'a.ini:2: harakiri = soon: request_timeout: "soon" must be 0 or a time',
        ),
        ("a.yaml", "uwsgi:\n  processes: 2\n  what\n", 'a.yaml:3: "what" must be written NAME: VALUE'),
        ("a.json", '{"uwsgi": {\n"processes": 0.5}}', "a.json:2: processes = 0.5: must be a whole number"),
        ("c.py", "workers = 1\nworkers = 1 / 0\n", "c.py:2: ZeroDivisionError: division by zero"),
        ("c.py", "workers = (\n", "c.py:1: SyntaxError:"),
        ("c.py", "import os\nos._exit(0)\n", "c.py: it ended its interpreter"),
        ("c.py", "bind = 'nonsense:port'\n", "c.py:1: bind = "),
        ("Procfile", "\nweb: gunicorn --wrokers 3 app:app\n", "Procfile:2: --wrokers is no option of gunicorn"),
        ("u.json", '{"listeners": {}, "applications": {"a": {"type":\n"php"}}}', "is no application of Python"),
        (
            "s.conf",
            "WSGIDaemonProcess a processes=x\n",
            "s.conf:1: WSGIDaemonProcess processes=x: must be a whole number",
        ),
        ("nothing.ini", "[other]\na = 1\n", "is no file of another server that is known"),
        ("p.ini", "[server:main]\nport = 1\n", "p.ini: it has no [server:main] with `use = egg:...`"),
    ],
)
def test_errors_name_file_and_line_and_what_was_typed(run, site, name, text, message):
    (site / name).write_text(text)
    ended = run("import", name, folder=site)
    if "nonsense" in text:
        ended = run("config", "--check", "--config", name, folder=site)
        message = "bind"
    assert ended.returncode == 2
    assert message in ended.stderr.splitlines()[-1]
    assert ended.stdout == ""


@pytest.mark.parametrize(
    "arguments",
    [[], ["--"], ["nowhere.ini"], ["a.ini", "b.ini"], ["gunicorn", "-w", "4"], ["--", "ls"]],
)
def test_words_that_name_nothing_are_refused_with_what_to_write(run, site, arguments):
    ended = run("import", *arguments, folder=site)
    assert ended.returncode == 2
    assert ended.stderr.startswith("anygate: error: ")


def test_placeholders_and_blocks_are_those_of_uwsgi(run, site):
    """What uWSGI itself makes of a file, as far as it shows it."""
    program = Path(sys.executable).parent / "uwsgi"
    if not program.exists():
        pytest.skip("uWSGI is not installed")
    text = (
        "[uwsgi]\nbase = /srv\nset-placeholder = name=web\nchdir2 = %(base)/%(name)\n"
        "add-header = X-File: %d|%n|%s|%e|%x|%c|%0\n"
        "for = a b\nenv = X_%(_)=1\nendfor =\nif-env = SOME\nenv = yes=%(_)\nendif =\n"
        "if-not-env = SOME\nenv = no=1\nendif =\nif-not-exists = nowhere\nenv = none=1\nendif =\n"
        "ini = :more\n[more]\nprocname-prefix = %x\n"
    )
    (site / "a.ini").write_text(text)
    environment = {**os.environ, "SOME": "thing"}
    command = [program, "--ini", "a.ini", "--show-config", "--no-server"]
    ended = subprocess.run(
        command, cwd=site, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False, input=""
    )
    theirs = ended.stdout + ended.stderr
    expected = dict(re.findall(r"^(chdir2|add-header|procname-prefix) = (.*)$", theirs, re.MULTILINE))
    env = re.findall(r"^env = (.*)$", theirs, re.MULTILINE)
    ours = tomllib.loads(imported(run, site, "a.ini", SOME="thing"))
    assert ours["env"] == env
    assert ours["chdir"] == expected["chdir2"]
    assert ours["proc_name"] == expected["procname-prefix"] == "more"
    assert ours["security_header"] == [expected["add-header"]]
