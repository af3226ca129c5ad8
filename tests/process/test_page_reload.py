"""--reload in a browser: open pages load themselves anew, and errors are shown in them."""

import gzip
import re

import pytest
from browser import CHROMIUM, Browser
from http2_frames import Client, plain

HTML = "<!doctype html><title>Shop</title><h1>version 1</h1>"
PAGE = """
import gzip

PAGE = "<!doctype html><title>Shop</title><h1>version 1</h1>"

def app(environ, start_response):
    path = environ["PATH_INFO"]
    fields = [("Content-Type", "text/html; charset=utf-8")]
    if path == "/fails":
        raise LookupError("no such shop")
    if path == "/tagged":
        if environ.get("HTTP_IF_NONE_MATCH") == '"a"':
            start_response("304 Not Modified", [("ETag", '"a"')])
            return []
        fields += [("ETag", '"a"'), ("Last-Modified", "Sat, 28 Nov 2026 04:00:00 GMT")]
    if path == "/coded":
        start_response("200 OK", [*fields, ("Content-Encoding", "gzip")])
        return [gzip.compress(PAGE.encode())]
    if path == "/text":
        fields = [("Content-Type", "text/plain")]
    if path == "/pieces":
        start_response("200 OK", fields)
        return iter([PAGE[:10].encode(), PAGE[10:].encode()])
    body = PAGE.encode()
    start_response("200 OK", [*fields, ("Content-Length", str(len(body)))])
    return [body]
"""
FLASK = """
from flask import Flask
from werkzeug.debug import DebuggedApplication

shop = Flask(__name__)
shop.debug = True

@shop.get("/")
def index():
    return "<!doctype html><title>Shop</title><h1>version 1</h1>"

@shop.get("/fails")
def fails():
    number = 41
    return number / 0

app = DebuggedApplication(shop, evalex=True)
"""
GREENLETS = ["--concurrency", "gevent"]
KINDS = [[], GREENLETS, ["--preload"], ["--workers", "3", "--reload-mode", "rolling"]]
ADDITION = re.compile(r'<script src="/\.anygate/reload\.js" data-version="([0-9a-f]+)" async></script>\n$')
HEADING = "document.querySelector('h1')?.innerText"
TEXT = "(document.body?.innerText || '')"


@pytest.fixture
def browser(tmp_path):
    if CHROMIUM is None:
        pytest.skip("there is no chromium")
    page = Browser(tmp_path / "profile")
    yield page
    page.close()


def written(folder, text):
    (folder / "shop.py").write_text(text)
    return "shop:app"


def start(serve, folder, *arguments, text=PAGE):
    return serve(written(folder, text), "--reload", "--local-hosts", "test", *arguments)


def address(served, path="/"):
    return served.url + path


def wait_for_heading(browser, text):
    browser.wait_for(f"{HEADING} === {text!r}")


@pytest.mark.parametrize("text", [PAGE, FLASK], ids=["plain", "flask"])
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: " ".join(kind) or "threads")
def test_an_open_page_follows_what_is_saved(serve, tmp_path, browser, kind, text):
    served = start(serve, tmp_path, *kind, text=text)
    browser.open(address(served))
    wait_for_heading(browser, "version 1")
    written(tmp_path, text.replace("version 1", "version 2"))
    wait_for_heading(browser, "version 2")
    written(tmp_path, text + "\nnothing.here\n")
    browser.wait_for(f"{TEXT}.includes(\"NameError: name 'nothing' is not defined\")")
    written(tmp_path, "def\n")
    browser.wait_for(f"{TEXT}.includes('SyntaxError')")
    written(tmp_path, text)
    wait_for_heading(browser, "version 1")
    assert all("the server responded with" in complaint for complaint in browser.complaints())
    assert served.terminate() == 0


def test_a_page_that_shows_a_failed_request_follows_too(serve, tmp_path, browser):
    served = start(serve, tmp_path)
    browser.open(address(served, "/fails"))
    browser.wait_for(f"{TEXT}.includes('no such shop')")
    written(tmp_path, PAGE.replace('raise LookupError("no such shop")', "pass"))
    wait_for_heading(browser, "version 1")


def test_a_page_follows_a_server_that_was_started_anew(serve, tmp_path, browser):
    served = start(serve, tmp_path)
    browser.open(address(served))
    wait_for_heading(browser, "version 1")
    assert served.terminate() == 0
    start(serve, tmp_path, "--port", served.address[1], text=PAGE.replace("version 1", "version 2"))
    wait_for_heading(browser, "version 2")


@pytest.mark.parametrize("kind", [[], GREENLETS], ids=["threads", "gevent"])
def test_the_debugger_of_werkzeug_runs_what_is_typed(serve, tmp_path, browser, kind):
    environment = {"WERKZEUG_DEBUG_PIN": "off"}
    served = serve(written(tmp_path, FLASK), "--reload", *kind, environment=environment)
    browser.open(address(served, "/fails"))
    browser.wait_for(f"{TEXT}.includes('ZeroDivisionError: division by zero')")
    typed = (
        "(async () => {"
        "const frames = document.querySelectorAll('.frame');"
        "const frame = frames[frames.length - 1].id.replace('frame-', '');"
        "const query = new URLSearchParams({__debugger__: 'yes', cmd: 'number + 1', frm: frame, s: SECRET});"
        "return (await fetch('?' + query)).text();"
        "})()"
    )
    assert ">42<" in browser.run(typed)
    written(tmp_path, FLASK.replace("number / 0", "'<h1>version 3</h1>'"))
    wait_for_heading(browser, "version 3")


ENCODERS = [[], GREENLETS, ["--compression", "--compression-min-bytes", "1"]]


@pytest.mark.parametrize("kind", ENCODERS, ids=lambda kind: " ".join(kind) or "threads")
class TestPages:
    @pytest.mark.parametrize("path", ["/", "/pieces", "/tagged", "/static/page.html"])
    def test_the_script_is_at_their_end(self, serve, tmp_path, kind, path):
        (tmp_path / "files").mkdir()
        (tmp_path / "files/page.html").write_text(HTML)
        served = start(serve, tmp_path, "--static", "/static=files", *kind)
        coded = served.get(path, [("Accept-Encoding", "gzip")])
        assert (coded["content-encoding"] == "gzip") == ("--compression" in kind)
        page = served.get(path)
        assert page.whole
        assert (gzip.decompress(coded.body) if coded["content-encoding"] else coded.body) == page.body
        assert page.text.startswith(HTML)
        assert ADDITION.fullmatch(page.text.removeprefix(HTML))
        with served.connect() as connection:
            assert connection.ask("HEAD", path)["content-length"] == page["content-length"]

    def test_tags_are_those_of_one_version(self, serve, tmp_path, kind):
        served = start(serve, tmp_path, *kind)
        tag = served.get("/tagged")["etag"]
        assert tag not in (None, '"a"')
        assert served.get("/tagged")["last-modified"] is None
        again = served.get("/tagged", [("If-None-Match", tag)])
        assert (again.status, again["etag"]) == (304, tag)
        written(tmp_path, PAGE.replace("version 1", "version 2"))
        served.wait_for_log("reloaded: ")
        served.wait_until(lambda: "version 2" in served.get("/").text, "the new version")
        assert served.get("/tagged", [("If-None-Match", tag)]).status == 200

    def test_other_responses_are_the_applications(self, serve, tmp_path, kind):
        served = start(serve, tmp_path, *kind)
        local = [("/coded", []), ("/text", []), ("/", [("Sec-Fetch-Dest", "empty")])]
        for path, fields in [*local, ("/", [("X-Forwarded-For", "192.0.2.1")])]:
            page = served.get(path, fields)
            body = gzip.decompress(page.body).decode() if path == "/coded" else page.text
            assert body == HTML, (path, fields)
        with served.connect() as connection:
            assert connection.ask("POST", "/", body=b"x").text == HTML
            assert connection.ask("GET", "/", host="rebound.example").text == HTML
        for path in ("/.anygate/reload.js", "/.anygate/news?x"):
            assert served.get(path, [("X-Forwarded-For", "192.0.2.1")]).text == HTML


def test_without_reload_pages_are_the_applications(serve, tmp_path):
    served = serve(written(tmp_path, PAGE), "--local-hosts", "test")
    for path in ("/", "/.anygate/reload.js", "/.anygate/news?x"):
        assert served.get(path).text == HTML


def version(served):
    return ADDITION.search(served.get("/").text)[1]


class TestNews:
    def test_none_is_told_before_there_is_some(self, serve, tmp_path):
        served = start(serve, tmp_path)
        with served.connect() as connection, served.connect() as gone:
            for each in (connection, gone):
                each.send_read(f"GET /.anygate/news?{version(served)} HTTP/1.1\r\nHost: test\r\n\r\n")
            gone.reset()
            written(tmp_path, PAGE.replace("version 1", "version 2"))
            assert connection.response().status == 204
        served.wait_until(lambda: "version 2" in served.get("/").text, "the new version")
        assert served.get("/.anygate/news?" + version(served)[:-1]).status == 200

    def test_pages_that_wait_delay_no_end(self, serve, tmp_path):
        served = start(serve, tmp_path, "--graceful-timeout", "1h")
        with served.connect() as connection:
            connection.send_read(f"GET /.anygate/news?{version(served)} HTTP/1.1\r\nHost: test\r\n\r\n")
            assert served.terminate() == 0
            assert connection.response().status == 204

    def test_over_http2(self, serve, tmp_path):
        served = start(serve, tmp_path, "--admin", "127.0.0.1:0")
        path = "/.anygate/news?" + version(served)
        with Client(plain(served.address)) as client:
            left, waiting = client.begin(path=path), client.begin(path=path)
            client.reset(left)
            assert client.ask(path="/").status == 200
            written(tmp_path, PAGE.replace("version 1", "version 2"))
            assert client.wait(waiting).status == 204
