"""`on_error` around an application under a server of another package."""

import io
import sys
import wsgiref.util

import anygate
import pytest
from conftest import APPS
from other_servers import started, wait_for

TOLD = """
told = []

def tell(environ, exc_info):
    told.append((environ["PATH_INFO"], exc_info[0].__name__, str(exc_info[1]), exc_info[2] is not None))

def fail(environ, exc_info):
    raise RuntimeError("the function fails")
"""


@pytest.fixture
def told(tmp_path, monkeypatch):
    (tmp_path / "telling.py").write_text(TOLD)
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop("telling", None)
    import telling

    yield telling.told
    sys.modules.pop("telling", None)


def at_call(environ, start_response):
    raise ValueError("at the call")


def in_blocks(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])

    def blocks():
        yield b"begun"
        raise ValueError("in a block")

    return blocks()


def at_close(environ, start_response):
    class Returned(list):
        def close(self):
            raise ValueError("at the end")

    start_response("200 OK", [("Content-Type", "text/plain")])
    return Returned([b"all"])


def ask(application, path="/"):
    environ = {"PATH_INFO": path}
    wsgiref.util.setup_testing_defaults(environ)
    environ["wsgi.errors"] = io.StringIO()
    response = application(environ, lambda *head: None)
    try:
        return b"".join(response), environ["wsgi.errors"].getvalue()
    finally:
        response.close()


@pytest.mark.parametrize("options", [{}, {"security_headers": "default"}], ids=str)
@pytest.mark.parametrize(
    ("application", "text"), [(at_call, "at the call"), (in_blocks, "in a block"), (at_close, "at the end")]
)
def test_a_function_is_told_of_each_exception(told, options, application, text):
    around = anygate.wsgihandler(application, on_error="telling:tell", **options)
    with pytest.raises(ValueError, match=text):
        ask(around, "/here")
    assert told == [("/here", "ValueError", text, True)]


def test_a_function_that_fails_changes_nothing(told):
    around = anygate.wsgihandler(at_call, on_error="telling:fail", error_pages="on")
    body, log = ask(around)
    assert b"500" in body
    assert "on_error failed" in log
    assert "RuntimeError: the function fails" in log
    assert told == []


def test_a_function_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="on_error nowhere:tell"):
        anygate.wsgihandler(at_call, on_error="nowhere:tell")


@pytest.mark.parametrize("name", ["waitress", "gunicorn"])
def test_another_server_has_it_by_its_option(name, tmp_path):
    (tmp_path / "telling.py").write_text(
        "import sys\ndef tell(environ, exc_info):\n    print('told of', exc_info[1], file=sys.stderr, flush=True)\n"
    )
    (tmp_path / "app.py").write_text(
        (APPS / "six.py").read_text() + "\n\ninner = application\ndef application(environ, start_response):\n"
        "    if environ['PATH_INFO'] == '/fails':\n        raise ValueError('this')\n"
        "    return inner(environ, start_response)\n"
    )
    options = ("--on-error", "telling:tell", "--pythonpath", tmp_path)
    with started(name, tmp_path, *options, app="app:application") as served:
        assert served.client.ask("GET", "/fails")[0] == 500
        wait_for(served, lambda: "told of this" in served.log())
