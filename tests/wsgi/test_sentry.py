"""Sentry's own package gets one event for each exception: from its middleware, from `on_error`, or with both."""

import re
from pathlib import Path

import pytest
from conftest import APPS

KINDS = {"threads": (), "gevent": ("--concurrency", "gevent")}
#: The application, and who is told.
WAYS = {
    "middleware": ("watched:wrapped", ()),
    "on_error": ("watched:bare", ("--on-error", "watched:tell")),
    "both": ("watched:wrapped", ("--on-error", "watched:tell")),
}

GUIDE = Path(__file__).parents[2] / "docs" / "guide" / "errors.md"

WATCHED = """
import json
import failing
import sentry_sdk
from sentry_sdk.integrations.wsgi import SentryWsgiMiddleware
from sentry_sdk.transport import Transport

EVENTS = []

class Keeping(Transport):
    def capture_envelope(self, envelope):
        event = envelope.get_event()
        if event is not None:
            EVENTS.append(event)

sentry_sdk.init(dsn="http://key@127.0.0.1:9/1", transport=Keeping)

def tell(environ, exc_info):
    sentry_sdk.capture_exception()

def beside(application):
    def response(environ, start_response):
        if environ["PATH_INFO"] != "/events":
            return application(environ, start_response)
        found = [event["exception"]["values"][-1] for event in EVENTS]
        body = json.dumps([f"{error['type']}: {error['value']}" for error in found]).encode()
        EVENTS.clear()
        start_response("200 OK", [("Content-Length", str(len(body)))])
        return [body]
    return response

bare = beside(failing.application)
wrapped = beside(SentryWsgiMiddleware(failing.application))
"""

FLASK = (
    WATCHED
    + """
from flask import Flask, Response

app = Flask(__name__)
app.config["PROPAGATE_EXCEPTIONS"] = True

@app.get("/view")
def view():
    raise LookupError("in a view")

@app.get("/stream")
def stream():
    def pieces():
        yield "a piece"
        raise LookupError("in a stream")
    return Response(pieces())

@app.get("/after")
def after():
    response = Response("whole")
    @response.call_on_close
    def fail():
        raise LookupError("after the response")
    return response

bare = wrapped = beside(app)
"""
)


@pytest.fixture(params=KINDS)
def kind(request):
    return KINDS[request.param]


@pytest.fixture(params=WAYS)
def way(request):
    return WAYS[request.param]


@pytest.fixture
def watched(serve, tmp_path, kind, way):
    def start(code):
        (tmp_path / "watched.py").write_text(code)
        target, more = way
        return serve(target, "--pythonpath", APPS, *kind, *more)

    return start


def events(served, count=1):
    """As many events, or more if there are; a response may be there before it is closed."""
    found = []
    served.wait_until(lambda: found.extend(served.get("/events").json) or len(found) >= count, "an event")
    return found


def test_each_exception_is_one_event(watched):
    served = watched(WATCHED)
    for path, error in [
        ("/call", "ValueError: in the call"),
        ("/first_block", "ValueError: in the first block"),
        ("/later_block", "ValueError: in a later block"),
        ("/closing", "OSError: in close()"),
        ("/leaves", "SystemExit: 3"),
        ("/handled_too_late", "ValueError: handled too late"),
    ]:
        served.get(path)
        assert events(served) == [error], path
    assert served.get("/fine").body == b"fine"
    assert served.get("/handled").status == 500
    # Nor were there further ones.
    assert events(served, 0) == []


def test_two_exceptions_are_two_events(watched):
    served = watched(WATCHED)
    assert served.get("/both").status == 500
    assert events(served, 2) == ["ValueError: in the first block", "OSError: in close()"]


def test_exceptions_of_flask_are_one_event_each(watched):
    served = watched(FLASK)
    for path, error in [
        ("/view", "LookupError: in a view"),
        ("/stream", "LookupError: in a stream"),
        ("/after", "LookupError: after the response"),
    ]:
        served.get(path)
        assert events(served) == [error], path
    assert events(served, 0) == []


def test_the_function_of_the_guide_tells_sentry(serve, tmp_path, kind):
    (tmp_path / "watched.py").write_text(WATCHED)
    (code,) = re.findall(r"```python\n# tell\.py\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    here, place = "http://key@127.0.0.1:9/1", '"https://key@sentry.example/1"'
    assert place in code
    code = code.replace(place, f'"{here}", transport=watched.Keeping')
    (tmp_path / "tell.py").write_text("import watched\n" + code)
    assert "--on-error tell:tell myapp:app" in GUIDE.read_text()
    served = serve("watched:bare", "--pythonpath", APPS, *kind, "--on-error", "tell:tell")
    served.get("/call")
    assert events(served) == ["ValueError: in the call"]
