"""What can be served, and how it is named."""

import sys

import pytest

APP = """
def {name}(environ, start_response):
    start_response("200 OK", [])
    return [b"{text}"]
"""

WORD_APP = """
def app(environ, start_response):
    start_response("200 OK", [])
    return [WORD]
"""
#: Decorators say that what they made has the signature of the function inside.
DECORATED = """
import functools, inspect

def as_application(function):
    @functools.wraps(function)
    def application(*arguments):
        environ, start_response = arguments[-2:]
        start_response("200 OK", [])
        return [function(environ["PATH_INFO"])]
    return application

@as_application
def app(path):
    return b"decorated"

@as_application
def signed(path):
    return b"signed"

signed.__signature__ = inspect.Signature()

@functools.wraps(app)
def hook(*, told=False):
    pass

class Holder:
    @as_application
    def method(path):
        return b"method"

holder = Holder()
partial = functools.partial(app)
"""


@pytest.fixture
def site(tmp_path):
    (tmp_path / "both.py").write_text(
        APP.format(name="app", text="app") + APP.format(name="application", text="application")
    )
    (tmp_path / "only_app.py").write_text(APP.format(name="app", text="only app"))
    (tmp_path / "factory.py").write_text(
        "def create_app(text='made', *, loud=False):\n"
        "    def app(environ, start_response):\n"
        "        start_response('200 OK', [])\n"
        "        return [(text.upper() if loud else text).encode()]\n"
        "    return app\n"
        "class holder:\n"
        "    app = create_app('held')\n"
    )
    package = tmp_path / "project"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "wsgi.py").write_text(APP.format(name="application", text="project"))
    (package / "words.py").write_text("WORD = b'from its package'\n")
    (package / "absolute.py").write_text("from project.words import WORD\n" + WORD_APP)
    inner = package / "inner"
    inner.mkdir()
    (inner / "__init__.py").write_text("from ..words import WORD\n" + WORD_APP)
    (inner / "relative.py").write_text("from ..words import WORD\n" + WORD_APP)
    (tmp_path / "decorated.py").write_text(DECORATED)
    other = tmp_path / "elsewhere"
    other.mkdir()
    (other / "far.py").write_text("import near\napp = near.app\n")
    (other / "near.py").write_text(APP.format(name="app", text="far"))
    (other / "json.py").write_text(APP.format(name="app", text="named like a module"))
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "body"),
    [
        (["both:app"], b"app"),
        (["both"], b"application"),
        (["only_app"], b"only app"),
        (["only_app.py"], b"only app"),
        (["elsewhere/far.py"], b"far"),
        (["elsewhere/far.py:app"], b"far"),
        (["elsewhere/json.py"], b"named like a module"),
        (["factory:create_app()"], b"made"),
        (["factory:create_app('x', loud=True)"], b"X"),
        (["factory:holder.app"], b"held"),
        (["project.wsgi"], b"project"),
        (["project.wsgi:application"], b"project"),
        (["project/absolute.py"], b"from its package"),
        (["project/inner/relative.py"], b"from its package"),
        (["project/inner/__init__.py"], b"from its package"),
        (["decorated:app"], b"decorated"),
        (["decorated:signed"], b"signed"),
        (["decorated:holder.method"], b"method"),
        (["decorated:partial"], b"decorated"),
        (["--chdir", "elsewhere", "far:app"], b"far"),
        (["--pythonpath", "elsewhere", "far:app"], b"far"),
        (["both:app", "--preload"], b"app"),
        (["both:app", "--workers", "2", "--threads", "1"], b"app"),
    ],
)
def test_targets(serve, site, arguments, body):
    assert serve(*arguments, folder=site).get().body == body


def test_python_m_anygate_is_the_same(serve, site):
    served = serve("both:app", folder=site, command=[sys.executable, "-m", "anygate"])
    assert served.get().body == b"app"


@pytest.mark.parametrize("locale", ["C", "POSIX"])
def test_names_of_files_are_utf_8_whatever_the_locale_is(serve, tmp_path, locale):
    folder = tmp_path / "gärten"
    folder.mkdir()
    (folder / "äpfel.py").write_text(APP.format(name="app", text="apples"))
    # Python would take UTF-8 for these two, but not for every other locale.
    environment = {"LC_ALL": locale, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    served = serve("äpfel.py", folder=folder, environment=environment)
    assert served.get().text == "apples"


def test_an_absolute_path_works_from_anywhere(serve, site, tmp_path_factory):
    assert serve(site / "only_app.py", folder=tmp_path_factory.mktemp("away")).get().body == b"only app"


class TestMistakes:
    """One clear line, what to do, and exit code 3; nothing is left behind."""

    @pytest.mark.parametrize(
        ("target", "message"),
        [
            ("bohh:app", "there is no module 'bohh' in {folder} or on the Python path; did you mean 'both'?"),
            ("project.wsgo", "there is no module 'project.wsgo'"),
            ("both:ap", "'both' has no attribute 'ap'; did you mean 'app'?"),
            ("missing.py", "there is no file 'missing.py' in {folder}"),
            ("empty", "'empty' has neither 'application' nor 'app'"),
            ("values:number", "it is a int, not a WSGI application, which can be called"),
            ("values:number()", "'number' in 'values' is a int, which cannot be called"),
            ("factory:create_app(x)", "must be literals"),
            ("factory:1 +", "neither a name nor a call"),
            ("factory:create_app", "if it is a factory, call it: factory:create_app()"),
            ("values:asgi", "asynchronous (ASGI)"),
            (
                "values:holder",
                "it is a Holder, not a WSGI application, which can be called; it holds one: write values:holder.server",
            ),
            ("site:app", ", not the site.py here: rename that file, or write site.py"),
            (":app", "names no module"),
            ("wrong..name", "there is no module 'wrong..name'"),
            ("manage.py", "name the project's wsgi module, for example project.wsgi"),
            ("factory", "it has a factory: write 'factory:create_app()'"),
            ("imports", "name one, for example imports:site"),
            ("anygate/away.py", "is in a package 'anygate', but another one of that name comes first"),
            ("both.app", "did you mean 'both:app'?"),
            ("project.wsig", "did you mean 'project.wsgi'?"),
            ("project", "'project' has neither 'application' nor 'app'; did you mean 'project.wsgi'?"),
            ("project:wsgi", "did you mean 'project.wsgi'?"),
            ("project.words", "did you mean 'project.wsgi'?"),
            ("site_of_mine.wsgi", "did you mean 'project.wsgi'?"),
            ("project.wsgi:app", "'project.wsgi' has no attribute 'app'; did you mean 'application'?"),
            ("project.asynchronous", "did you mean project.wsgi?"),
            ("far:app", "there is one in elsewhere: add --chdir elsewhere"),
            ("imports:application", "name one, for example imports:site"),
            ("imported", "name the one it has: imported:NAME"),
            ("texts:text", "did you mean texts:app?"),
            ("values:asgi", "(pip install a2wsgi): wsgi = a2wsgi.ASGIMiddleware(asgi), and name values:wsgi"),
            ("confg", "did you mean 'config'?"),
            ("doctr", "did you mean 'doctor'?"),
        ],
    )
    @pytest.mark.parametrize("preload", [False, True])
    def test_the_message_names_what_was_typed(self, run, site, target, message, preload):
        (site / "empty.py").touch()
        (site / "values.py").write_text(
            "number = 1\nasync def asgi(scope, receive, send): ...\n"
            "class Holder:\n    server = print\nholder = Holder()\n"
        )
        (site / "site.py").write_text("app = None\n")
        (site / "manage.py").write_text("def main(): pass\n")
        (site / "imports.py").write_text("from functools import partial\nsite = partial(print)\n")
        (site / "imported.py").write_text("from pathlib import Path\n")
        (site / "texts.py").write_text("text = ''\ndef app(environ, start_response): ...\n")
        (site / "project" / "asynchronous.py").write_text("async def app(scope, receive, send): ...\n")
        (site / "anygate").mkdir()
        (site / "anygate" / "__init__.py").touch()
        (site / "anygate" / "away.py").write_text("app = None\n")
        ended = run(target, "--port", "0", *(["--preload"] if preload else []), folder=site)
        assert ended.returncode == 3
        assert f"cannot load {target}: " in ended.stderr
        assert message.format(folder=site) in ended.stderr
        assert "Traceback" not in ended.stderr
        assert len(ended.stderr.strip().splitlines()) == 1
        assert " serves values" not in ended.stderr

    @pytest.mark.parametrize(
        ("code", "error"),
        [
            ("import nothing_of_that_name", "ModuleNotFoundError: No module named 'nothing_of_that_name'"),
            ("1 / 0", "ZeroDivisionError: division by zero"),
            ("def broken(:", "SyntaxError"),
            ("raise SystemExit(7)", "SystemExit: 7"),
            ("int('eight')", "ValueError: invalid literal"),
            ("import json; json.loads('{')", "JSONDecodeError: Expecting property name"),
            ("raise type('Odd', (BaseException,), {})('very odd')", "very odd"),
        ],
    )
    def test_a_failing_import_shows_its_own_traceback(self, run, site, code, error):
        (site / "failing.py").write_text(f"# first line\n{code}\n")
        ended = run("failing:app", "--port", "0", folder=site)
        assert ended.returncode == 3
        assert error in ended.stderr
        assert 'failing.py", line 2' in ended.stderr
        assert "importer.py" not in ended.stderr
        assert "importlib" not in ended.stderr

    def test_a_package_that_is_not_installed(self, run, site):
        (site / "failing.py").write_text("import nothing_of_that_name\n")
        ended = run("failing:app", "--port", "0", folder=site)
        last = ended.stderr.strip().splitlines()[-1]
        assert last.startswith(f"{sys.executable} finds no module 'nothing_of_that_name': install its package there")
        assert "--virtualenv" in last

    def test_a_factory_without_its_arguments(self, run, site):
        (site / "failing.py").write_text("def create(name):\n    return name\n")
        ended = run("failing:create()", "--port", "0", folder=site)
        assert ended.stderr.splitlines()[1:] == ["TypeError: create() missing 1 required positional argument: 'name'"]

    def test_a_factory_that_fails_shows_its_own_traceback(self, run, site):
        (site / "failing.py").write_text("def create():\n    raise KeyError('SECRET')\n")
        ended = run("failing:create()", "--port", "0", folder=site)
        assert ended.returncode == 3
        assert "it raised KeyError while it was called" in ended.stderr
        assert 'failing.py", line 2, in create' in ended.stderr
        assert "KeyError: 'SECRET'" in ended.stderr
