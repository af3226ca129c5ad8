"""`anygate doctor`: what it finds in settings, machine and application, and nothing where nothing hurts."""

import json

import pytest
from anygate.web2py import hashed

#: Settings with which no machine that runs the tests hurts.
FITTING = ("--connections-max", "100", "--backlog", "100", "--workers", "2", "--body-max-bytes", "1M")

APP = "def app(environ, start_response):\n    start_response('200 OK', [])\n    return [b'']\n"

DJANGO = """
from django.conf import settings
settings.configure(ALLOWED_HOSTS=["example.org"], {})
def app(environ, start_response):
    pass
"""

#: An application that hurts, what is found, and the options with which it does not hurt.
APPLICATIONS = {
    "import no_such_module": ("app", "No module named 'no_such_module'", None),
    "import flask\napp = flask.Flask('a')\napp.debug = True": ("debug", "Flask's debug mode is on", None),
    "import flask\nfrom werkzeug.middleware.proxy_fix import ProxyFix\n"
    "app = flask.Flask('a')\napp.wsgi_app = ProxyFix(app.wsgi_app)": (
        "trusted_proxies",
        "ProxyFix finds nothing",
        ("--trusted-proxies", "127.0.0.1"),
    ),
    DJANGO.replace("{}", "DEBUG=True"): ("DEBUG", "Django shows tracebacks", None),
    DJANGO.replace("{}", "USE_X_FORWARDED_HOST=True"): (
        "trusted_proxies",
        "USE_X_FORWARDED_HOST of Django is set",
        ("--trusted-proxies", "unix"),
    ),
    DJANGO.replace("{}", "DATABASES={'default': {'OPTIONS': {'pool': {'max_size': 7}}}}"): (
        "DATABASES",
        "the pool of 'default' has 7 connections for the 8 threads",
        ("--threads", "7"),
    ),
    "import sqlalchemy\nengine = sqlalchemy.create_engine('sqlite:///a.db', pool_size=2, max_overflow=3)\n" + APP: (
        "SQLAlchemy",
        "the pool of sqlite:///a.db has 5 connections for the 8 threads",
        ("--threads", "5"),
    ),
    "import gevent.monkey\ngevent.monkey.patch_all()\n" + APP: (
        "concurrency",
        "patches Python with gevent, and requests run in threads",
        ("--concurrency", "gevent"),
    ),
    "import gevent.pool\n" + APP: ("concurrency", "without patching", ("--concurrency", "gevent")),
}


def found(run, *arguments, folder=None):
    """The findings, each as topic and problem."""
    ended = run("doctor", "--json", *FITTING, *arguments, **({"folder": folder} if folder else {}))
    findings = json.loads(ended.stdout)["findings"]
    assert ended.returncode == bool(findings), ended
    assert all(finding["cure"] for finding in findings)
    return [(finding["topic"], finding["problem"]) for finding in findings]


@pytest.mark.parametrize("code", APPLICATIONS, ids=[row[1] for row in APPLICATIONS.values()])
def test_an_application_that_will_hurt(run, tmp_path, code):
    topic, problem, cure = APPLICATIONS[code]
    (tmp_path / "myapp.py").write_text(code)
    ((shown, text),) = found(run, "myapp:app")
    assert shown == topic
    assert problem in text
    if cure:
        assert found(run, "myapp:app", *cure) == []


def test_drivers_that_hold_all_greenlets(run, tmp_path):
    (tmp_path / "myapp.py").write_text("import psycopg2\n" + APP)
    assert found(run, "myapp:app") == []
    ((topic, problem),) = found(run, "myapp:app", "--concurrency", "gevent")
    assert topic == "concurrency"
    assert problem.startswith("psycopg2 waits in C")


def test_an_application_that_prints_does_not_spoil_the_report(run, tmp_path):
    (tmp_path / "myapp.py").write_text("print('hello')\n" + APP)
    ended = run("doctor", "myapp:app", "--json", *FITTING)
    assert json.loads(ended.stdout) == {"findings": []}
    assert ended.stderr == "hello\n"


def test_a_report_for_people(run, tmp_path):
    (tmp_path / "myapp.py").write_text(APP)
    assert run("doctor", "myapp:app", *FITTING).stdout == "nothing found\n"
    ended = run("doctor", "myapp:app", *FITTING, "--debug", "--bind", "scgi://0.0.0.0:4000")
    assert ended.returncode == 1
    assert ended.stdout == (
        "bind: all that reach scgi://0.0.0.0:4000 can say who their client is: scgi has no fields that only a front "
        "server sets\n    cure: --bind scgi://127.0.0.1:4000, or a unix socket\n"
        "debug: tracebacks, with their values, are shown to clients on this machine\n    cure: --no-debug\n"
        "2 findings\n"
    )


def test_applications_with_processes_of_their_own(run, tmp_path):
    own = "request_timeout = 30\ngraceful_timeout = 20\n"
    (tmp_path / "anygate.toml").write_text(
        f'[[app]]\nname = "shop"\npath = "/shop"\napp = "shop:app"\n{own}[[app]]\nname = "rest"\napp = "rest:app"\n'
    )
    ended = run("doctor", "--json", "--backlog", "128", "--connections-max", "100")
    topics = [finding["topic"] for finding in json.loads(ended.stdout)["findings"]]
    assert [topic for topic in topics if topic.endswith("graceful_timeout")] == ["app shop: graceful_timeout"]


def test_limits_of_this_process(run, tmp_path):
    (tmp_path / "myapp.py").write_text(APP)
    limited = ["sh", "-c", 'ulimit -n 100; exec "$0" "$@"']
    anygate = run("doctor", "myapp:app", *FITTING).args[0]
    ended = run(anygate, "doctor", "myapp:app", *FITTING, command=limited)
    assert "open files: a worker may open 100 files" in ended.stdout
    assert "ulimit -Hn 133" in ended.stdout


def test_keys_that_others_may_read(run, tmp_path):
    (tmp_path / "myapp.py").write_text(APP)
    assert run("cert", "--self-signed").returncode == 0
    secure = ("myapp:app", "--ssl-certificate", "cert.pem", "--ssl-private-key", "key.pem")
    assert found(run, *secure) == []
    (tmp_path / "key.pem").chmod(0o644)
    assert found(run, *secure) == [("ssl_private_key", "every user of this machine may read it (644)")]


def test_a_variable_without_effect(run, tmp_path):
    (tmp_path / "myapp.py").write_text(APP)
    ended = run("doctor", "myapp:app", *FITTING, environment={"ANYGATE_WORKRES": "2"})
    assert ended.stdout.startswith("settings: ")
    assert "ANYGATE_WORKRES" in ended.stdout


@pytest.mark.parametrize(("password", "is_common"), [("admin", True), ("a9c87e01-strange", False)])
def test_a_password_of_web2py_that_is_tried_first(run, web2py_site, password, is_common):
    given = [topic for topic, _ in found(run, "--web2py", web2py_site, "-a", password)]
    assert given == ["password"] * is_common
    (web2py_site / "parameters_8000.py").write_text(f'password="{hashed(password)}"\n')
    stored = [topic for topic, _ in found(run, "--web2py", web2py_site)]
    assert stored == ["parameters_8000.py"] * is_common
