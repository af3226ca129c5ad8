"""Options from the command line, the environment and files."""

import json
import os
import re
from pathlib import Path

import pytest
import tomllib

APP = """
import json, os
def app(environ, start_response):
    body = json.dumps({"length": environ.get("CONTENT_LENGTH"), "threads": environ["wsgi.multithread"]}).encode()
    start_response("200 OK", [])
    return [body]
"""

SITE = """
health_path = "/health"
ready_path = "/ready"
ready_check = "app:check"
allow = ["10.0.0.0/8", "/admin unix"]
rate_limit = ["100/1m", "/login 5/1m burst 2 by X-Api-Key"]
requests_per_client_max = "10"
queue_max = 100
body_limits = ["/upload 4G"]
security_headers = "strict"
security_header = ["X-Frame-Options: SAMEORIGIN", "Referrer-Policy:"]
cors_origins = ["https://*.example.org"]
cors_credentials = true
compression = true
compression_types = ["text/*", "+json"]
static = ["/static=public"]
static_immutable = ["assets/*"]
static_types = ["geojson=application/geo+json"]
cache = ["/", "/news 1m", "!/account"]
error_pages = "on"
shared = "redis://127.0.0.1:6379/0"
request_id = true
trace_context = true
"""


@pytest.fixture
def site(tmp_path):
    (tmp_path / "app.py").write_text(APP)
    return tmp_path


def shown(run, site, *arguments, **environment):
    ended = run("config", "--print", *arguments, folder=site, environment=environment)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_the_command_line_outranks_the_environment_outranks_the_file(run, site):
    (site / "anygate.toml").write_text("workers = 2\nthreads = 3\nport = 4000\n")
    text = shown(run, site, "--workers", "9", ANYGATE_WORKERS="5", ANYGATE_THREADS="6")
    assert "workers = 9  # command line" in text
    assert "threads = 6  # ANYGATE_THREADS" in text
    assert "port = 4000  # anygate.toml" in text
    assert 'graceful_timeout = "30s"  # default' in text
    assert tomllib.loads(text)["workers"] == 9


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("anygate.toml", 'app = "app:app"\nbind = ["127.0.0.1:0"]\nthreads = 1\nbody_max_bytes = "1K"\n'),
        ("anygate.yaml", 'app: "app:app"\nbind: ["127.0.0.1:0"]\nthreads: 1\nbody_max_bytes: 1K\n'),
        ("anygate.yml", "app: app:app\nbind: 127.0.0.1:0\nthreads: 1\nbody-max-bytes: 1024\n"),
        ("anygate.json", '{"app": "app:app", "bind": ["127.0.0.1:0"], "threads": 1, "body_max_bytes": 1024}'),
    ],
)
def test_a_site_can_stand_in_a_file(launch, site, name, text):
    (site / name).write_text(text)
    served = launch(folder=site).wait_ready()
    assert served.get().json["threads"] is False
    assert served.get(method="POST", body=b"x" * 1024).json["length"] == "1024"
    assert served.get(method="POST", body=b"x" * 1025).status == 413


def test_a_file_can_be_named(launch, site):
    (site / "other.conf.toml").write_text('app = "app:app"\nport = 0\n')
    assert launch("--config", "other.conf.toml", folder=site).wait_ready().get().status == 200
    assert launch(folder=site, environment={"ANYGATE_CONFIG": "other.conf.toml"}).wait_ready().get().status == 200


def test_a_site_can_stand_in_the_environment(launch, site):
    served = launch(folder=site, environment={"ANYGATE_APP": "app:app", "ANYGATE_BIND": "127.0.0.1:0, 127.0.0.1:0"})
    assert len(served.wait_ready().addresses) == 2


def test_check_is_silent_about_good_settings(run, site):
    (site / "anygate.toml").write_text("workers = 2\n")
    ended = run("config", "--check", folder=site)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "ok\n", "")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("workers = 0", "anygate.toml: workers: 0 must be auto, or a whole number from 1 to 1024"),
        ("wrokers = 2", "anygate.toml: wrokers: there is no such option; did you mean workers?"),
        ("workers = [1]", "anygate.toml: workers: [1] must be a whole number"),
        ("bind = 8000", 'anygate.toml: bind: 8000 must be a string or a list of strings; write "8000"'),
        ("gc_threshold = [700, 10]", 'gc_threshold: [700,10] must be a list of strings; write ["700", "10"]'),
        ("app = 3", 'anygate.toml: app: 3 must be a string; write "3"'),
        ("app = ['app:app']", "anygate.toml: app: must be one string, or a list of tables: [[app]]"),
        ("preload = 1", "anygate.toml: preload: 1 must be true or false"),
        ("[logging]\nfile = 'x'", "anygate.toml: logging: is a table, [logging], and must be true or false"),
        ("[server]\nport = 1", "server: must be a string; a table of this name is one of several: write [[server]]"),
        (
            "[cron]\ncommand = 'x'",
            "cron: there is no such option; a table of this name is one of several: write [[",
        ),
        ("port = 1\nport = 2", "anygate.toml: line 2: port is there twice"),
        ("port = 'http'", 'anygate.toml: port: "http" must be a whole number from 0 to 65535'),
        ("body_max_bytes = 'many'", 'anygate.toml: body_max_bytes: "many" must be'),
        ("graceful_timeout = '0s'", 'anygate.toml: graceful_timeout: "0s" must be'),
        ("bind = ['ajp://a:1']", 'anygate.toml: bind: "ajp://a:1" asks for ajp'),
        ("socket_mode = 660", "anygate.toml: socket_mode: 660 must be a string of octal digits"),
        ("access_log_format = '%(z)s'", 'anygate.toml: access_log_format: "%(z)s" has no atom %(z)s'),
        ("temp_dir = 'missing'", "anygate.toml: temp_dir: "),
        ("stream_paths = ['up']", 'anygate.toml: stream_paths: "up" must begin with /'),
        ("ready_check = 'a:b'", "anygate.toml: ready_check: needs ready_path, the path that shows its result"),
        ("allow = ['/admin localhost']", 'anygate.toml: allow: "/admin localhost" must be an IP address, a network'),
        ("rate_limit = ['100']", 'anygate.toml: rate_limit: "100" must be [PATH ]N/TIME[ burst N][ by FIELD]'),
        ("body_limits = ['4G']", 'anygate.toml: body_limits: "4G" must be a path and a size'),
        ("security_headers = true", "anygate.toml: security_headers: true must be a string"),
        ("security_header = ['A b: c']", 'anygate.toml: security_header: "A b: c" must begin with the name of'),
        (
            "cors_origins = ['*']\ncors_credentials = true",
            "anygate.toml: cors_credentials: cannot be combined with the origin *",
        ),
        ("compression_codings = ['deflate']", 'anygate.toml: compression_codings: "deflate" must be one of zstd'),
        ("static = ['/static=missing']", 'anygate.toml: static: "/static=missing" names "'),
        ("cache = ['!/account']", "anygate.toml: cache: excludes paths but includes none"),
        ("error_pages = 'yes'", 'anygate.toml: error_pages: "yes" must be on or a directory'),
        (
            "shared = 'redis://h'",
            "anygate.toml: shared: is used by rate_limit, cache and cron jobs, and there are none",
        ),
        ("config = 'x'", "anygate.toml: config: there is no such option"),
        ("workers = ", "anygate.toml: "),
    ],
)
def test_check_names_file_key_and_reason(run, site, text, message):
    (site / "anygate.toml").write_text(text)
    ended = run("config", "--check", folder=site)
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert message in ended.stderr
    assert len(ended.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "environment", "message"),
    [
        (["--wrokers", "2", "app:app"], {}, "unknown option --wrokers; did you mean --workers?"),
        (["--zzz", "app:app"], {}, "unknown option --zzz; anygate --help-all lists them"),
        (
            ["-s", "/tmp/a.sock", "app:app"],
            {},
            '--server: "/tmp/a.sock" is not the name of a server; use --bind unix:/tmp/a.sock for HTTP, ',
        ),
        (
            ["app:app"],
            {"ANYGATE_SERVER": ":8000"},
            'ANYGATE_SERVER: ":8000" is not the name of a server; use ANYGATE_BIND=:8000 for HTTP, ',
        ),
        (["--http", ":8000", "app:app"], {}, "unknown option --http; use --bind :8000"),
        (["--ini", "uwsgi.ini"], {}, "unknown option --ini; use --config"),
        (
            ["--socket=/tmp/a.sock", "app:app"],
            {},
            "unknown option --socket; use --bind unix:/tmp/a.sock for HTTP, --bind uwsgi+",
        ),
        (["--workers", "none", "app:app"], {}, '--workers: "none" must be auto, or a whole number from 1 to 1024'),
        (["--workers"], {}, "--workers needs a value"),
        (["app:app", "other:app"], {}, 'unexpected argument "other:app"'),
        (["--port", "70000", "app:app"], {}, '--port: "70000" must be a whole number from 0 to 65535'),
        (["--bind", "nowhere", "app:app"], {}, '--bind: "nowhere" must be host:port, [IPv6]:port, unix:PATH or fd://N'),
        (["--config", "missing.toml", "app:app"], {}, "missing.toml: "),
        (["app:app"], {"ANYGATE_PORT": "x"}, 'ANYGATE_PORT: "x" must be a whole number'),
        (
            ["app:app"],
            {"ANYGATE_BIND": "127.0.0.1:0 127.0.0.1:0"},
            'ANYGATE_BIND: "127.0.0.1:0 127.0.0.1:0" must be one address, without spaces; commas separate several',
        ),
        ([], {}, "nothing to serve: name the application, for example: anygate myapp:app"),
        (["--user", "nobody-such", "app:app"], {}, '--user: there is no user "nobody-such"'),
        (["--chdir", "missing", "app:app"], {}, "--chdir: cannot change to"),
        (["config"], {}, "config: add --print or --check"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(run, site, arguments, environment, message):
    ended = run(*arguments, folder=site, environment=environment)
    assert ended.returncode == 2
    assert f"anygate: error: {message}" in ended.stderr
    assert len(ended.stderr.strip().splitlines()) == 1


def test_a_variable_that_sets_nothing_is_mentioned(launch, site):
    served = launch("app:app", "--port", "0", folder=site, environment={"ANYGATE_WORKRES": "2"})
    served.wait_ready()
    served.wait_for_log("warning: unknown environment variable ANYGATE_WORKRES; did you mean ANYGATE_WORKERS?")


def test_variables_that_kubernetes_makes_for_a_service_do_not_stop_the_start(launch, site):
    links = {
        "ANYGATE_SERVICE_HOST": "10.3.4.5",
        "ANYGATE_SERVICE_PORT": "8000",
        "ANYGATE_SERVICE_PORT_HTTP": "8000",
        "ANYGATE_PORT": "tcp://10.3.4.5:8000",
        "ANYGATE_PORT_8000_TCP": "tcp://10.3.4.5:8000",
        "ANYGATE_PORT_8000_TCP_ADDR": "10.3.4.5",
        "ANYGATE_PORT_8000_TCP_PORT": "8000",
        "ANYGATE_PORT_8000_TCP_PROTO": "tcp",
    }
    served = launch("app:app", "--port", "0", folder=site, environment=links).wait_ready()
    assert served.get().status == 200
    # They are passed over with one line, not with one each.
    assert len([line for line in served.log().splitlines() if "ANYGATE_" in line]) == 1


def test_variables_that_are_empty_set_nothing(launch, site):
    empty = dict.fromkeys(["ANYGATE_WORKERS", "ANYGATE_BIND", "ANYGATE_USER", "ANYGATE_CONFIG", "PORT"], "")
    served = launch("app:app", "--port", "0", folder=site, environment=empty).wait_ready()
    assert served.get().status == 200
    served.wait_for_log(
        "environment variables that are empty set no option: ANYGATE_BIND, ANYGATE_USER, ANYGATE_WORKERS\n"
    )


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("anygate.toml", 'app = "app:app"\r\nport = 0\r\n'),
        ("anygate.yaml", "app: app:app\r\nport: 0\r\n"),
        ("anygate.json", '{"app": "app:app",\r\n"port": 0}\r\n'),
    ],
)
def test_a_file_may_begin_with_a_byte_order_mark(launch, site, name, text):
    (site / name).write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert launch(folder=site).wait_ready().get().status == 200


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32", "latin-1"])
@pytest.mark.parametrize("name", ["anygate.toml", "anygate.yaml", "anygate.json"])
def test_a_file_in_another_encoding_is_refused_with_what_to_do(run, site, name, encoding):
    (site / name).write_bytes("# für alle\nport = 8000\n".encode(encoding))
    ended = run("config", "--check", folder=site)
    assert ended.returncode == 2
    assert f"anygate: error: {name}: " in ended.stderr
    assert "UTF-8" in ended.stderr
    assert len(ended.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["--trusted-proxies", "*"], "0.0.0.0/0 and ::/0"),
        (["--trusted-proxies", "localhost"], "write 127.0.0.1 and ::1"),
        (["--trusted-proxies", "10.0.0.1", "--trusted-proxies", "nginx"], '"nginx" must be an IP address'),
        (["--trusted-proxies", "10.0.0.1", "--trusted-proxies", "nginx"], "names are not looked up"),
        (["--bind", "tcp://0.0.0.0:8000"], "http://0.0.0.0:8000"),
        (["--bind", "/run/a.sock"], "write unix:/run/a.sock"),
        (["--bind", "*:8000"], "write :8000"),
        (["--bind", "localhost"], "write localhost:8000"),
        (["--ip", "*"], "write 0.0.0.0"),
        (["--workers", "max"], "for one per processor write auto"),
        (["--log-level", "warning"], "did you mean warn?"),
        (["--log-level", "INFO"], "did you mean info?"),
        (["--request-timeout", "30sec"], "write 30s"),
        (["--timeout", "30"], "did you mean --request-timeout?"),
        (["-t", "30"], "did you mean --request-timeout?"),
        (["--access-logfile", "-"], "did you mean --access-log?"),
        (["--use-reloader"], "did you mean --reload?"),
        (["--reload-dir", "x"], "did you mean --reload-files?"),
        (["--reload-on-rss", "100"], "did you mean --worker-memory-max?"),
        (["--limit-max-requests", "1000"], "did you mean --max-requests?"),
        (["-w", "2", "-k", "gthread"], "threads are the default"),
        (["-k", "gevent"], "--concurrency gevent"),
        (["-c", "gunicorn.conf.py"], "--config"),
        (["-w", "myapp:app"], "anygate myapp:app"),
        (["--worker-class=gevent"], "--concurrency gevent"),
        (["-D"], "did you mean --daemon?"),
        (["--http", ":8000", "--wsgi-file", "app.py"], "--bind :8000"),
        (["--preload=true"], "write --preload"),
        (["--ini", "uwsgi.ini"], "--config"),
    ],
)
def test_what_other_servers_understand_is_refused_with_what_to_write(run, site, arguments, hint):
    (site / "gunicorn.conf.py").write_text("workers = 2\n")
    ended = run(*arguments, "app:app", folder=site)
    assert ended.returncode == 2
    assert hint in ended.stderr
    assert len(ended.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("timeout = 30", "anygate.toml: timeout: there is no such option; did you mean request_timeout?"),
        ("worker_class = 'gevent'", 'worker_class: there is no such option; use concurrency = "gevent"'),
        ("[uwsgi]\nmaster = true", "options are written without a table [uwsgi] around them"),
        ("log_level = 'warning'", "did you mean warn?"),
        ("app = app:app", 'anygate.toml: line 1: write app = "app:app"'),
        ("workers = 2\nbind = 0.0.0.0:8000", 'anygate.toml: line 2: write bind = "0.0.0.0:8000"'),
        ("request_timeout = 30s", 'anygate.toml: line 1: write request_timeout = "30s"'),
        ("app: app:app", 'anygate.toml: line 1: write app = "app:app"'),
        ("preload = True", "anygate.toml: line 1: write preload = true"),
        ("trusted_proxies = '*'", "0.0.0.0/0 and ::/0"),
    ],
)
def test_a_file_of_another_form_is_refused_with_what_to_write(run, site, text, message):
    (site / "anygate.toml").write_text(text)
    ended = run("config", "--check", folder=site)
    assert ended.returncode == 2
    assert message in ended.stderr
    assert len(ended.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["serve", "app:app"], "write anygate app:app"),
        (["run", "app:app", "--workers", "2"], "write anygate app:app"),
        (["run"], "write anygate myapp:app"),
        (["reload"], "write anygate ctl reload"),
        (["anygate.toml"], "write anygate --config anygate.toml"),
        (["uwsgi.ini"], "anygate --config uwsgi.ini"),
        (["servers", "waitress", "gunicorn"], "servers: "),
    ],
)
def test_commands_of_other_servers_are_refused_with_what_to_write(run, site, words, message):
    ended = run(*words, folder=site)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert message in ended.stderr


@pytest.mark.parametrize("command", ["cert", "cgi", "config", "cron", "ctl", "servers", "top", "web2py"])
def test_every_command_has_help(run, site, command):
    for flag in ("--help", "-h"):
        ended = run(command, flag, folder=site)
        assert (ended.returncode, ended.stderr) == (0, "")
        assert f"anygate {command}" in ended.stdout
        assert "age: anygate " in ended.stdout


def test_keywords_of_other_servers_are_refused_with_what_to_write():
    import anygate

    for name, hint in (("timeout", "did you mean request_timeout?"), ("worker_class", 'use concurrency="gevent"')):
        with pytest.raises(TypeError, match=re.escape(f"there is no option {name}; {hint}")):
            anygate.serve("app:app", **{name: 30})
    with pytest.raises(ValueError, match=r"did you mean warn\?"):
        anygate.serve("app:app", log_level="warning")


@pytest.mark.parametrize("more", [(), ("--preload",), ("--workers", "2")])
@pytest.mark.parametrize(
    ("app", "reason"),
    [
        ("import no_such_module", "No module named 'no_such_module'"),
        ("x = 1", "'broken' has neither 'application' nor 'app'"),
    ],
)
def test_what_keeps_it_from_starting_is_shown_on_the_terminal_too(run, site, app, reason, more):
    (site / "broken.py").write_text(app)
    ended = run("broken", "--port", "0", "--error-log", "errors.log", *more, folder=site)
    assert ended.returncode == 3
    assert reason in ended.stderr
    assert reason in (site / "errors.log").read_text()


def test_after_the_start_errors_are_only_in_the_log(launch, site):
    (site / "failing.py").write_text("def app(environ, start_response):\n    raise ValueError('unlucky')\n")
    served = launch("failing:app", "--port", "0", "--error-log", "errors.log", folder=site)
    terminal, served.errors = served.errors, site / "errors.log"
    served.wait_until(lambda: served.errors.exists() and " serves " in served.log(), "ready")
    assert served.get().status == 500
    served.wait_for_log("unlucky")
    served.terminate()
    assert "unlucky" not in terminal.read_text()


def test_help_fits_a_screen_and_help_all_has_everything(run):
    text = run("--help").stdout
    assert len(text.splitlines()) <= 24
    assert max(map(len, text.splitlines())) <= 80
    assert "--help-all" in text
    everything = run("--help-all").stdout
    options = tomllib.loads(run("config", "--print").stdout)
    for name in options:
        assert f"--{name.replace('_', '-')}" in everything or name == "app"


def test_every_option_can_be_set_in_three_ways(run, site):
    """The table is the only list: what --print shows can be given back on the command line and by variable."""
    defaults = tomllib.loads(run("config", "--print", folder=site).stdout)
    assert len(defaults) > 20
    arguments, environment = [], {}
    for name, value in defaults.items():
        if name == "app" or isinstance(value, list):
            continue
        option = name.replace("_", "-")
        if isinstance(value, bool):
            arguments.append(f"--{option}" if value else f"--no-{option}")
        else:
            arguments += [f"--{option}", value]
        environment[f"ANYGATE_{name.upper()}"] = json.dumps(value) if isinstance(value, bool) else str(value)
    by_line, by_variable = shown(run, site, *arguments), shown(run, site, **environment)
    for variable in environment:
        name = variable.removeprefix("ANYGATE_").lower()
        assert re.search(rf"^{name} = .*  # command line$", by_line, re.MULTILINE), name
        assert re.search(rf"^{name} = .*  # {variable}$", by_variable, re.MULTILINE), name


def test_what_a_site_wants_around_its_application_is_checked(run, site):
    (site / "public").mkdir()
    (site / "anygate.toml").write_text(SITE)
    ended = run("config", "--check", folder=site)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "ok\n", "")
    assert tomllib.loads(shown(run, site))["static"] == ["/static=public"]


def test_passwords_are_not_shown(run, site):
    (site / "anygate.toml").write_text('rate_limit = "1/1s"\n')
    assert 'shared = "redis://***@h/0"  # command line' in shown(run, site, "--shared", "redis://me:secret@h/0")
    ended = run("config", "--check", "--shared", "http://me:secret@h", folder=site)
    assert (ended.returncode, "secret" in ended.stderr) == (2, False)
    assert '"http://***@h" must be redis://' in ended.stderr


def test_version(run):
    import anygate

    assert run("--version").stdout == f"anygate {anygate.__version__}\n"


@pytest.mark.parametrize(
    ("example", "file"), [("settings_docs", "docs/settings.md"), ("python_types", "python/anygate/options.py")]
)
def test_what_is_generated_from_the_options_is_fresh(example, file):
    """`make docs` writes it from the table."""
    import subprocess

    root = Path(__file__).parents[2]
    command = ["cargo", "run", "--quiet", "--package", "anygate-config", "--example", example]
    made = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True, env=os.environ)
    assert (root / file).read_text() == made.stdout
