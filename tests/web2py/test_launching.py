"""A web2py site served by anygate's command line, its old command lines, and its handler files under other servers."""

import ast
import importlib.metadata
import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import gateways
import pytest
from conftest import ANYGATE
from other_servers import Http, free_port, process, wait_for
from waiting import PATIENCE
from wire import Connection

SITE = Path(__file__).parent / "site"
BIN = Path(sys.executable).parent
PYTHON = sys.executable


@pytest.fixture
def site(web2py_site):
    """A site with the handler file of web2py's own."""
    shutil.copy(SITE / "wsgihandler.py", web2py_site)
    return web2py_site


@pytest.fixture
def bare(web2py_site):
    """A site without handler files."""
    return web2py_site


def page(port, target="/guestbook/default/client", **options):
    status, _, body = Http(port).ask("GET", target, **options)
    return body.decode() if status == 200 else (status, body)


def test_served_from_anywhere(serve, bare):
    served = serve("--web2py", bare)
    served.wait_for_log(f"serves the web2py site {bare} on http://")
    assert served.get("/guestbook/default/client").text == "127.0.0.1 GET 127.0.0.1"


def test_served_where_it_is_started(serve, site):
    served = serve(folder=site)
    assert served.get("/guestbook/default/client").text == "127.0.0.1 GET 127.0.0.1"


def test_what_is_no_site(run, tmp_path):
    ended = run("--web2py", tmp_path)
    assert ended.returncode == 2
    said = f"anygate: error: --web2py: {str(tmp_path)!r} is not a web2py site: it has no directory applications\n"
    assert ended.stderr == said.replace("'", '"')
    ended = run("--web2py", SITE, "x:y")
    assert "cannot be served together with APP" in ended.stderr
    ended = run("-a", "secret", "x:y")
    assert ended.stderr == "anygate: error: --password: is for web2py sites, and this is not one\n"


def test_paths_are_text(serve, bare):
    served = serve("--web2py", bare)
    assert served.get("/guestbook/default/argument/caf%C3%A9").text == "caf\xe9"


def test_helpers_are_encoded(serve, bare):
    served = serve("--web2py", bare)
    response = served.get("/guestbook/default/helper")
    assert (response.status, response.text) == (200, "na\xefve")


def test_nobody_outside_is_local(serve, bare):
    """web2py takes whoever is local for its administrator."""
    served = serve("--web2py", bare)
    local = "/guestbook/default/is_local"
    assert served.get(local).text == "True"
    assert served.get(local, [("X-Forwarded-For", "203.0.113.9")]).text == "False"
    assert served.get(local, [("X-Forwarded-For", "127.0.0.1, 203.0.113.9")]).text == "False"
    assert served.get(local, [("X-Forwarded-For", "203.0.113.9"), ("X-Forwarded-Proto", "https")]).text == "False https"
    served = serve("--web2py", bare, "--trusted-proxies", "192.0.2.1")
    assert served.get(local, [("X-Forwarded-For", "203.0.113.9")]).text == "True"


def hash_of(path):
    line = path.read_text()
    assert re.fullmatch(r"password=.*\n", line)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    return ast.literal_eval(line.partition("=")[2])


def test_passwords(launch, run, bare):
    def saved(password, port, **options):
        served = launch("--web2py", bare, "-a", password, "-p", port, **options).wait_ready()
        served.terminate()
        return hash_of(bare / f"parameters_{port}.py"), served

    from pydal.validators import CRYPT

    port = free_port()
    hashed, _ = saved("secret", port)
    assert CRYPT()("secret")[0] == hashed
    assert CRYPT()("Secret")[0] != hashed
    recycled, served = saved("<recycle>", port)
    assert (recycled, "warning" in served.log()) == (hashed, False)
    assert saved("", port)[0] is None
    assert saved("<pam_user:somebody>", port)[0] == "pam_user:somebody"
    hashed, served = saved("<random>", port)
    assert CRYPT()(re.search(r'your admin password is "(\w{8})"', served.stdout())[1])[0] == hashed
    # At the second start, too.
    port = free_port()
    for _ in range(2):
        recycled, served = saved("<recycle>", port)
        assert recycled is None
        assert f"warning: --password: there is none to recycle in parameters_{port}.py" in served.log()
    ended = run("--web2py", bare, "-a", "<rycycle>", "-p", port)
    assert ended.returncode == 2
    assert ended.stderr == (
        "anygate: error: --password: '<rycycle>' is none of <recycle>, <random> and <pam_user:NAME>\n"
    )
    assert "so it cannot be 0" in run("--web2py", bare, "-a", "x", "-p", 0).stderr


@pytest.mark.parametrize(
    "refused", [["-s", "gunicron"], ["-s", "waitress", "-w", 2], ["-s", "gunicorn", "-b", "fd://3"]]
)
def test_the_password_stays_when_the_server_cannot_do_this(run, bare, refused):
    assert run("--web2py", bare, "-a", "secret", *refused).returncode == 2
    assert not list(bare.glob("parameters_*.py"))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become someone else")
def test_the_password_belongs_to_whom_workers_are(launch, bare):
    port = free_port()
    launch("--web2py", bare, "-a", "secret", "-p", port, "--user", "nobody", "--preload").wait_ready()
    path = bare / f"parameters_{port}.py"
    assert (path.stat().st_uid, hash_of(path)[:6]) == (65534, "pbkdf2")


def test_the_password_behind_a_front_server(launch, bare):
    launch("--web2py", bare, "-a", "secret", "--bind", f"scgi+unix:{bare}/x.sock").wait_ready()
    assert hash_of(bare / "parameters_443.py") == hash_of(bare / "parameters_80.py")


@pytest.mark.parametrize("protocol", ["scgi", "fastcgi", "uwsgi"])
def test_the_password_behind_a_front_server_over_tcp(launch, bare, protocol):
    launch("--web2py", bare, "-a", "secret", "--bind", f"{protocol}://127.0.0.1:0").wait_ready()
    assert hash_of(bare / "parameters_443.py") == hash_of(bare / "parameters_80.py")
    assert len(list(bare.glob("parameters_*.py"))) == 2


@pytest.mark.parametrize("concurrency", ["threads", "gevent"])
def test_a_generator_may_yield_text(serve, bare, concurrency):
    with (bare / "applications/guestbook/controllers/default.py").open("a") as controllers:
        controllers.write("\ndef blocks():\n    return (f'caf\u00e9 {number} ' for number in range(3))\n")
    served = serve("--web2py", bare, "--concurrency", concurrency)
    assert served.get("/guestbook/default/blocks").body.decode() == "caf\u00e9 0 caf\u00e9 1 caf\u00e9 2 "


def test_a_site_of_the_package_needs_no_file_with_a_version(serve, bare):
    (bare / "VERSION").unlink()
    with (bare / "applications/guestbook/controllers/default.py").open("a") as controllers:
        controllers.write("\ndef version():\n    return str(request.env.web2py_version)\n")
    version = serve("--web2py", bare).get("/guestbook/default/version").text
    assert version.startswith(importlib.metadata.version("web2py-gluon") + "-stable")


OLD = [
    ["anyserver", "-l"],
    ["anyserver", "-s", "waitress", "-i", "127.0.0.1", "-l"],
    ["anyserver", "-s", "gevent", "-w", "4", "-l", "-P"],
    ["gevent", "-w", "4", "-l", "-a", "secret"],
    ["gevent", "-i", "127.0.0.1", "-F", "profiles", "-l"],
]


@pytest.mark.parametrize("arguments", OLD, ids=" ".join)
def test_old_command_lines(arguments, bare):
    port = free_port()
    command = [PYTHON, "-m", "anygate.web2py", *arguments, "-p", str(port)]
    with process(command, bare) as served:
        assert wait_for(served, lambda: page(port)) == "127.0.0.1 GET 127.0.0.1"
        name = arguments[2] if "-s" in arguments else {"anyserver": "native"}.get(arguments[0], "gevent")
        assert f"starting {name} on 127.0.0.1:{port}...\n" in served.stdout()
        log = bare / "httpserver.log"
        served.wait_until(lambda: ", GET, /guestbook/default/client, HTTP/1.1, 200, " in log.read_text(), "the line")
    assert ("secret" in arguments) == (bare / f"parameters_{port}.py").exists()
    assert ("-P" in arguments or "-F" in arguments) == bool(list((bare / "profiles").glob("req_*.prof")))


def test_who_the_client_is_is_the_same_with_policies(bare):
    port = free_port()
    command = [ANYGATE, "--web2py", bare, "-s", "waitress", "-p", port, "--request-id"]
    with process([str(part) for part in command], bare) as served:
        assert wait_for(served, lambda: page(port)) == "127.0.0.1 GET 127.0.0.1"
        believed = page(port, fields=[("X-Forwarded-For", "192.0.2.9"), ("X-Forwarded-Host", "site.example")])
        assert believed == "192.0.2.9 GET 192.0.2.9"


def stranger(port, path, *fields):
    """The body for somebody who is on none of the addresses that are trusted by default."""
    with Connection(("127.0.0.1", port), source="127.0.0.2") as connection:
        return connection.ask("GET", path, [("Connection", "close"), *fields]).text


@pytest.mark.parametrize(
    "server", ["waitress", "gunicorn", "uwsgi", "gevent", "wsgiref", "cheroot", "fastwsgi", "bjoern", "granian"]
)
def test_nobody_outside_is_local_under_another_server(server, bare):
    """Without any policy as with some."""
    port = free_port()
    command = [ANYGATE, "--web2py", bare, "-s", server, "-p", port]
    with process([str(part) for part in command], bare) as served:
        assert wait_for(served, lambda: page(port)) == "127.0.0.1 GET 127.0.0.1"
        client, local = "/guestbook/default/client", "/guestbook/default/is_local"
        for name in ("X-Forwarded-For", "x_forwarded_for"):
            assert stranger(port, client, (name, "127.0.0.1")) == "127.0.0.2 GET 127.0.0.2"
        for said in ("203.0.113.9", "127.0.0.1, 203.0.113.9"):
            assert page(port, local, fields=[("X-Forwarded-For", said)]) == "False"


def test_several_servers_trust_the_same_proxies(bare, tmp_path):
    ports = free_port(), free_port()
    settings = tmp_path / "anygate.toml"
    servers = "".join(
        f'[[server]]\nserver = "{name}"\nport = {port}\n'
        for name, port in zip(("native", "waitress"), ports, strict=True)
    )
    settings.write_text(f'web2py = "{bare}"\n{servers}')
    with process([ANYGATE, "--config", str(settings)], bare) as served:
        for port in ports:
            assert wait_for(served, lambda port=port: page(port)) == "127.0.0.1 GET 127.0.0.1"
            client = stranger(port, "/guestbook/default/client", ("X-Forwarded-For", "127.0.0.1"))
            assert client == "127.0.0.2 GET 127.0.0.2"


def test_cgi_by_its_name_trusts_the_same_proxies(bare):
    said = ("HTTP_X_FORWARDED_FOR", "127.0.0.1")
    environment = dict([*variables("/guestbook/default/client"), said], REMOTE_ADDR="203.0.113.9")
    command = [ANYGATE, "--web2py", bare, "-s", "cgi"]
    ended = subprocess.run(command, env=environment, cwd="/", capture_output=True, timeout=PATIENCE, check=True)
    assert gateways.cgi_response(ended.stdout)[2] == b"203.0.113.9 GET 203.0.113.9"


def test_the_old_signature(bare):
    port = free_port()
    code = f"import anygate; anygate.run('gunicorn', '127.0.0.1', {port}, logging=True, softcron=False)"
    with process([PYTHON, "-c", code], bare) as served:
        assert wait_for(served, lambda: page(port)) == "127.0.0.1 GET 127.0.0.1"


def init(run, folder, *options):
    return run("web2py", "init", *options, folder)


def test_handler_files_are_written_once(run, bare):
    names = ["wsgihandler", "scgihandler", "fcgihandler", "anyserver", "web2py_on_gevent", "cgihandler"]
    assert init(run, bare).stdout == "".join(f"wrote {bare}/{name}.py\n" for name in names)
    (bare / "wsgihandler.py").write_text("# mine\n")
    assert f"kept {bare}/wsgihandler.py, which existed; --force replaces it\n" in init(run, bare).stdout
    assert (bare / "wsgihandler.py").read_text() == "# mine\n"
    init(run, bare, "--force")
    assert "LOGGING = False\nSOFTCRON = False\n" in (bare / "wsgihandler.py").read_text()
    ended = init(run, bare / "applications")
    assert (ended.returncode, "is not a web2py site" in ended.stderr) == (2, True)
    assert run("web2py", "inti").returncode == 2


HOSTS = {
    "gunicorn": lambda port: [
        BIN / "gunicorn",
        "--bind",
        f"127.0.0.1:{port}",
        "--workers",
        2,
        "wsgihandler:application",
    ],
    "uwsgi": lambda port: [
        BIN / "uwsgi",
        *("--http-socket", f"127.0.0.1:{port}", "--module", "wsgihandler:application"),
        *("--virtualenv", sys.prefix, "--master", "--die-on-term", "--enable-threads"),
    ],
    "mod_wsgi": lambda port: [
        BIN / "mod_wsgi-express",
        *("start-server", "wsgihandler.py", "--host", "127.0.0.1", "--port", port, "--log-to-terminal"),
    ],
    "waitress": lambda port: [BIN / "waitress-serve", "--listen", f"127.0.0.1:{port}", "wsgihandler:application"],
    "twisted": lambda port: [
        BIN / "twistd",
        *("-n", "web", "--listen", f"tcp:{port}:interface=127.0.0.1", "--wsgi", "wsgihandler.application"),
    ],
    "cheroot": lambda port: [BIN / "cheroot", "--bind", f"127.0.0.1:{port}", "wsgihandler:application"],
    "anygate": lambda port: [ANYGATE, "-p", port, "wsgihandler:application"],
}


@pytest.mark.parametrize("host", HOSTS)
def test_wsgihandler_under_other_servers(run, host, bare):
    """With LOGGING and SOFTCRON, and a job that soft cron runs."""
    init(run, bare)
    handler = bare / "wsgihandler.py"
    handler.chmod(0o644)
    handler.write_text(
        handler.read_text().replace("LOGGING = False", "LOGGING = True").replace("SOFTCRON = False", "SOFTCRON = True")
    )
    cron = bare / "applications" / "guestbook" / "cron"
    cron.mkdir()
    (cron / "crontab").write_text("* * * * * root sh -c 'date +%s >> ran'\n")
    port = free_port()
    environment = {"PYTHONPATH": str(bare)}
    command = [str(part) for part in HOSTS[host](port)]
    with process(command, bare, drop_rights=host == "mod_wsgi", environment=environment) as served:
        assert wait_for(served, lambda: page(port)) == "127.0.0.1 GET 127.0.0.1"
        client = stranger(port, "/guestbook/default/client", ("X-Forwarded-For", "127.0.0.1"))
        assert client == "127.0.0.2 GET 127.0.0.2"
        log = bare / "httpserver.log"
        served.wait_until(lambda: ", GET, /guestbook/default/client, HTTP/1.1, 200, " in log.read_text(), "the line")
        served.wait_until(lambda: (bare / "ran").exists(), "the job of soft cron")
        for _ in range(5):
            page(port)
        minutes = [int(line) // 60 for line in (bare / "ran").read_text().split()]
        assert len(minutes) == len(set(minutes))


def test_scgihandler(run, bare):
    init(run, bare)
    port = free_port()
    with process([PYTHON, "scgihandler.py", "--port", str(port)], bare) as served:
        served.wait_ready()
        served.wait_for_log(f" on scgi://127.0.0.1:{port} with ")
        with Connection(("127.0.0.1", port)) as connection:
            connection.send(gateways.scgi(variables("/guestbook/default/client")))
            assert gateways.cgi_response(connection.rest())[2] == b"192.0.2.7 GET 192.0.2.7"


def test_fcgihandler(run, bare, tmp_path):
    init(run, bare)
    handler = bare / "fcgihandler.py"
    path = tmp_path / "fcgi.sock"
    assert "fastcgi+unix:/tmp/fcgi.sock" in handler.read_text()
    handler.write_text(handler.read_text().replace("/tmp/fcgi.sock", str(path)))
    with process([PYTHON, "fcgihandler.py"], bare) as served:
        served.wait_ready()
        with Connection(str(path)) as connection:
            connection.send(gateways.fastcgi(variables("/guestbook/default/client")))
            response, ended = gateways.stdout(connection.rest())
            assert ended == (0, 0)
            assert gateways.cgi_response(response)[2] == b"192.0.2.7 GET 192.0.2.7"


def test_cgihandler(run, bare):
    init(run, bare)
    environment = {name: value for name, value in variables("/guestbook/default/client") if name != "SCGI"}
    ended = subprocess.run(
        [bare / "cgihandler.py"], env=environment, cwd="/", capture_output=True, timeout=PATIENCE, check=True
    )
    assert gateways.cgi_response(ended.stdout)[2] == b"192.0.2.7 GET 192.0.2.7"


def variables(path):
    return [
        ("CONTENT_LENGTH", "0"),
        ("SCGI", "1"),
        ("REQUEST_METHOD", "GET"),
        ("REQUEST_URI", path),
        ("SCRIPT_NAME", ""),
        ("PATH_INFO", path),
        ("QUERY_STRING", ""),
        ("SERVER_NAME", "test"),
        ("SERVER_PORT", "80"),
        ("SERVER_PROTOCOL", "HTTP/1.1"),
        ("REMOTE_ADDR", "192.0.2.7"),
    ]


def test_there_is_no_web2py(run, bare):
    """With the interpreter that the environment was made from."""
    base = getattr(sys, "_base_executable", sys.executable)
    environment = {"PYTHONPATH": str(Path(__file__).parents[2] / "python"), "PATH": os.defpath}
    ended = run("-m", "anygate", "--web2py", bare, "-p", 0, command=[base], environment=environment)
    assert ended.returncode == 3
    assert (
        f"there is no web2py in {bare} (no directory gluon); copy it there, or: pip install web2py-gluon"
        in ended.stderr
    )


def test_a_web2py_that_cannot_be_imported(run, bare):
    (bare / "gluon").mkdir()
    (bare / "gluon" / "__init__.py").write_text("import nothing_of_that_name\n")
    ended = run("--web2py", bare, "-p", free_port())
    assert ended.returncode == 3
    assert f"cannot load the web2py site {bare}: it raised ModuleNotFoundError while it was imported" in ended.stderr
    assert "application()" not in ended.stderr
