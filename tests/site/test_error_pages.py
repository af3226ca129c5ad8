"""`error_pages`: errors in the form that the client reads."""

import pytest
from planned import EVERYTHING, PROTOCOLS, planned

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
FORMS = [
    (BROWSER, "text/html; charset=utf-8"),
    ("application/json", "application/problem+json"),
    ("application/problem+json, text/html;q=0.9", "application/problem+json"),
    ("text/plain", "text/plain; charset=utf-8"),
    ("*/*", "text/plain; charset=utf-8"),
    ("image/png", "text/plain; charset=utf-8"),
    (None, "text/plain; charset=utf-8"),
]
MARK = "<b>mark"


@pytest.fixture(params=["threads", "gevent"])
def concurrency(request):
    return ["--concurrency", request.param, "--threads", "1", "--greenlets", "1"]


@pytest.fixture(scope="module", params=["threads", "gevent"])
def site(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    (folder / "public").mkdir()
    arguments = ["--error-pages", "on", "--static", f"/static={folder / 'public'}", "--body-max-bytes", "1000"]
    more = ["--body-limits", "/small 10", "--deny", "/denied 127.0.0.1", "--deny", "/denied 192.0.2.7"]
    with planned(folder, *arguments, *more, *EVERYTHING, "--concurrency", request.param) as site:
        site.plan("/fails", raises=True)
        site.plan("/silent", status="nonsense", fields=[])
        yield site


def accepts(accept):
    return [("Accept", accept)] if accept else []


def check(response, status, kind):
    assert (response.status, response["content-type"]) == (status, kind), response
    assert "mark" not in response.text
    assert response["content-length"] == str(len(response.body))
    if kind.startswith("text/html"):
        assert response.text.startswith("<!doctype html>")
        assert f"<h1>{status} " in response.text
        assert "<script" not in response.text
    elif kind.endswith("json"):
        assert (response.json["status"], response.json["type"]) == (status, "about:blank")
        assert set(response.json) <= {"status", "type", "title", "detail"}
    else:
        assert response.text.startswith(f"{status} ")


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(("accept", "kind"), FORMS)
def test_every_error_has_a_page(site, protocol, accept, kind):
    fields = [*accepts(accept), ("X-Mark", MARK), ("Referer", f"http://test/{MARK}")]
    for method, target, status, body in [
        ("GET", f"/fails?{MARK}", 500, b""),
        ("GET", f"/silent?{MARK}", 500, b""),
        ("GET", f"/static/{MARK}", 404, b""),
        ("POST", f"/static/{MARK}", 405, b""),
        ("GET", f"/denied/{MARK}", 403, b""),
        ("POST", f"/small?{MARK}", 413, b"x" * 11),
        ("POST", f"/?{MARK}", 413, b"x" * 1001),
    ]:
        target = target.replace("<", "%3C").replace(">", "%3E")
        check(site.speak(protocol, method, target, fields, body), status, kind)


@pytest.mark.parametrize(("accept", "kind"), FORMS)
def test_the_servers_own_errors(site, accept, kind):
    accept = f"Accept: {accept}\r\n" if accept else ""
    head = f"POST /{MARK[3:]} HTTP/1.1\r\nHost: test\r\n{accept}"
    for more, status in [
        ("Transfer-Encoding: chunked\r\n\r\n3e9\r\n" + "x" * 1001, 413),
        ("Transfer-Encoding: chunked\r\n\r\nmark\r\n", 400),
        ("Content-Length: 99999\r\n\r\n", 413),
    ]:
        with site.connect() as connection:
            check(connection.send(head + more).response(), status, kind)


def test_what_cannot_be_read_gets_a_response_too(site):
    """In a form that anybody reads, or in the one that was asked for before the trouble."""
    for request, status in [
        ("mark\r\n\r\n", 400),
        ("GET /mark HTTP/1.1\r\nAccept: text/html\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        ("GET /mark HTTP/1.1\r\nAccept: text/html\r\nHost: test\r\nX-Long: " + "x" * 70_000 + "\r\n\r\n", 431),
        ("GET /" + "mark" * 3000 + " HTTP/1.1\r\nHost: test\r\n\r\n", 414),
    ]:
        with site.connect() as connection:
            response = connection.send(request).response()
            check(response, status, response["content-type"])


def test_a_page_follows_another_response_and_is_followed_by_one(site):
    with site.connect() as connection:
        for _ in range(3):
            assert connection.ask("GET", "/").status == 200
            check(connection.ask("GET", "/fails", accepts(BROWSER)), 500, "text/html; charset=utf-8")
            head = connection.ask("HEAD", "/fails", accepts(BROWSER))
            assert (head.status, head.body) == (500, b"")


def test_the_applications_own_pages_stand(site):
    site.plan("/own", status="404 Not Here", fields=[("Content-Type", "text/html")], body="my own page")
    assert site.get("/own", accepts(BROWSER)).text == "my own page"
    site.plan("/own", status="500 Oh No", fields=[], body="")
    assert site.get("/own", accepts(BROWSER)).body == b""


def test_half_a_response_gets_no_page(site):
    site.plan("/half", fields=[("Content-Type", "text/html")], blocks=["half"], raises=True)
    response = site.get("/half", accepts(BROWSER))
    assert (response.status, response.body, response.whole) == (200, b"half", False)


def test_a_queue_that_is_full_and_limits(tmp_path, concurrency):
    rules = ["--queue-max", "1", "--rate-limit", "/rated 1/1h", "--ready-path", "/ready"]
    with planned(tmp_path, "--error-pages", "on", *rules, *concurrency) as site:
        site.get("/rated")
        response = site.get("/rated", accepts("application/json"))
        check(response, 429, "application/problem+json")
        assert response["retry-after"]
        assert response["ratelimit"]
        with site.hold("/held", "end") as held, site.connect() as waits:
            waits.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n")
            site.wait_until(lambda: site.get("/ready").status == 503, "a full queue")
            response = site.get("/", accepts(BROWSER))
            check(response, 503, "text/html; charset=utf-8")
            assert response["retry-after"] == "2"
            site.open("end")
            assert held.response().status == waits.response().status == 200


def test_requests_that_wait_too_long_or_take_too_long(tmp_path, concurrency):
    with planned(tmp_path, "--error-pages", "on", "--queue-timeout", "500ms", *concurrency) as site:
        with site.hold("/held", "end"), site.connect() as waits:
            check(waits.ask("GET", "/", accepts("application/json")), 503, "application/problem+json")
        site.open("end")
    with planned(tmp_path, "--error-pages", "on", "--request-timeout", "1s", *concurrency) as site:
        check(site.hold("/slow", "never", accepts(BROWSER)).response(), 504, "text/html; charset=utf-8")
        site.open("never")


def test_pages_of_ones_own(tmp_path, concurrency):
    pages = tmp_path / "pages"
    pages.mkdir()
    for name, text in {
        "500.html": "<h1>our fault</h1>",
        "4xx.html": "<h1>your fault</h1>",
        "413.txt": "too much",
        "5xx.json": '{"fault": "ours"}',
        "readme.md": "nobody reads this",
    }.items():
        (pages / name).write_text(text)
    (tmp_path / "public").mkdir()
    rules = ["--static", f"/static={tmp_path / 'public'}", "--body-max-bytes", "10"]
    with planned(tmp_path, "--error-pages", pages, *rules, *concurrency) as site:
        site.plan("/fails", raises=True)
        for accept, method, target, status, text in [
            (BROWSER, "GET", "/fails", 500, "<h1>our fault</h1>"),
            (BROWSER, "GET", "/static/x", 404, "<h1>your fault</h1>"),
            (BROWSER, "POST", "/", 413, "<h1>your fault</h1>"),
            ("text/plain", "POST", "/", 413, "too much"),
            ("application/json", "GET", "/fails", 500, '{"fault": "ours"}'),
        ]:
            response = site.get(target, accepts(accept), method, b"x" * 11 if method == "POST" else b"")
            assert (response.status, response.text) == (status, text)
        # Where there is none of theirs there is one of ours.
        check(site.get("/fails", accepts("text/plain")), 500, "text/plain; charset=utf-8")
        check(site.get("/static/x", accepts("application/json")), 404, "application/problem+json")


def test_a_folder_that_is_not_there_is_said_at_the_start(run, tmp_path):
    ended = run("nothing:app", "--error-pages", tmp_path / "none")
    assert ended.returncode == 2
    assert "--error-pages" in ended.stderr
