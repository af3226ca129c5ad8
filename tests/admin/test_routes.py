"""Figures of each route, whose names come from the application or from the settings."""

import re
import textwrap
from pathlib import Path
from urllib.parse import urlsplit

import anygate
import http2_frames
import pytest
from admin_address import watch
from gateways import scgi, variables
from http2_frames import Client
from prometheus_client.parser import text_string_to_metric_families
from waiting import wait_until
from wire import Connection

GUIDE = (Path(__file__).parents[2] / "docs" / "guide" / "admin.md").read_text()
SECTION = GUIDE[GUIDE.index("### Routes") : GUIDE.index("## uwsgitop")]
FLASK, DJANGO = re.findall(r"```python\n(.*?)```", SECTION, re.DOTALL)
APP = """
def app(environ, start_response):
    name = environ.get("HTTP_X_NAME")
    if name is not None:
        environ["anygate.route"] = name.encode("latin-1").decode()
    if environ["PATH_INFO"] == "/broken":
        raise LookupError
    start_response("404 Not Found" if environ["PATH_INFO"] == "/none" else "200 OK", [])
    return [b"x"]
"""


@pytest.fixture
def app(tmp_path):
    (tmp_path / "shop.py").write_text(APP)
    return "shop:app"


def named(name):
    return [("X-Name", name.encode().decode("latin-1"))]


def routes(at, requests):
    """Requests, 4xx and 5xx of each route, when so many requests have been counted."""
    status = at.wait_until(lambda status: status["totals"]["requests"] >= requests, f"{requests} requests")
    return {
        one["route"]: (one["requests"], one["requests_4xx"], one["requests_5xx"], sum(one["counts"]))
        for one in status["routes"]
    }


def samples(text):
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@pytest.mark.parametrize("concurrency", ["threads", "gevent"])
def test_names_of_the_application_and_patterns_are_counted_by_all_workers(serve, app, concurrency):
    patterns = ["--route-metrics", "app", "--route-metrics", "/users/*/orders", "--route-metrics", "/**"]
    at = watch(serve, "--workers", "2", "--concurrency", concurrency, *patterns, app=app)
    assert routes(at, 0) == {"/users/*/orders": (0, 0, 0, 0), "/**": (0, 0, 0, 0)}
    for _ in range(10):
        assert at.served.get("/users/7", named("/users/<id>")).status == 200
    at.served.get("/users/7/orders")
    at.served.get("/users/7/orders", named("/own"))
    at.served.get("/none", named("/own"))
    assert at.served.get("/broken", named('/"\\\ta')).status == 500
    at.served.get("/elsewhere", named(""))
    expected = {
        "/users/*/orders": (1, 0, 0, 1),
        "/**": (1, 0, 0, 1),
        "/users/<id>": (10, 0, 0, 10),
        "/own": (2, 1, 0, 2),
        '/"\\_a': (1, 0, 1, 1),
    }
    assert routes(at, 15) == expected
    told = samples(at.ask("/metrics").text)
    assert told["anygate_route_requests_total", ("route", "/users/<id>"), ("status", "2xx")] == 10
    assert told["anygate_route_requests_total", ("route", '/"\\_a'), ("status", "5xx")] == 1
    assert told["anygate_route_request_duration_seconds_count", ("route", "/own")] == 2
    assert told["anygate_route_request_duration_seconds_bucket", ("le", "+Inf"), ("route", "/own")] == 2
    # Other workers count on.
    at.post("/api/reload")
    at.wait_until(lambda status: status["totals"]["reloads"] == 1, "the reload")
    at.served.get("/users/8", named("/users/<id>"))
    assert routes(at, 16) == expected | {"/users/<id>": (11, 0, 0, 11)}


def test_routes_beyond_the_table_are_counted_as_others_and_that_is_said_once(serve, app):
    at = watch(serve, "--route-metrics", "app", app=app)
    with at.served.connect() as connection:
        for number in range(260):
            assert connection.ask("GET", "/", named(f"/{number}")).status == 200
    counted = routes(at, 260)
    assert (len(counted), counted["other"]) == (257, (4, 0, 0, 4))
    assert at.served.log().count("there are more than 256 routes") == 1
    assert len(samples(at.ask("/metrics").text))


def test_without_the_option_nothing_is_read_or_told(serve, app):
    at = watch(serve, app=app)
    at.served.get("/", named("/own"))
    assert at.wait_until(lambda status: status["totals"]["requests"] == 1, "a request")["routes"] is None
    assert "route" not in at.ask("/metrics").text


def test_patterns_alone_leave_names_of_the_application_out(serve, app):
    at = watch(serve, "--route-metrics", "/a", app=app)
    at.served.get("/a", named("/own"))
    at.served.get("/b", named("/own"))
    assert routes(at, 2) == {"/a": (1, 0, 0, 1)}


def test_top_shows_them(serve, app, run):
    at = watch(serve, "--route-metrics", "app", app=app)
    at.served.get("/none", named("/<x>\u202e"))
    routes(at, 1)
    ended = run("top", "--admin", at.address)
    assert re.search(r"^ +0\.0 .* 1 +0 +1  /<x>\ufffd$", ended.stdout, re.MULTILINE), ended.stdout
    assert run("ctl", "status", "--admin", at.address).stdout.count("ROUTE\n") == 1


@pytest.mark.parametrize("concurrency", ["threads", "gevent"])
def test_http_2_and_gateways_are_counted_too(serve, app, concurrency):
    binds = ["--bind", "127.0.0.1:0", "--bind", "scgi://127.0.0.1:0"]
    at = watch(serve, *binds, "--route-metrics", "app", "--concurrency", concurrency, app=app)
    plain, packed = at.served.addresses
    with Client(http2_frames.plain(plain)) as client:
        for stream in [client.begin(path="/", fields=[("x-name", "/h2")]) for _ in range(2)]:
            assert client.wait(stream).status == 200
    with at.served.connect(packed) as connection:
        connection.send(scgi(variables("GET", "/", fields=(("HTTP_HOST", "test"), ("HTTP_X_NAME", "/scgi")))))
        assert connection.rest().endswith(b"x")
    assert routes(at, 3) == {"/h2": (2, 0, 0, 2), "/scgi": (1, 0, 0, 1)}


def test_a_page_of_the_site_shows_them(serve, app):
    served = serve(app, "--route-metrics", "app", "--metrics-path", "/metrics", "--workers", "2")
    served.get("/", named("/own"))
    name = ("anygate_route_requests_total", ("route", "/own"), ("status", "2xx"))

    def look():
        with served.connect() as connection:
            return samples(connection.ask("GET", "/metrics", host="localhost").text).get(name) == 1

    served.wait_until(look, "the request")


def test_an_embedded_server_counts_them():
    def app(environ, start_response):
        environ["anygate.route"] = "/own"
        start_response("200 OK", [])
        return [b"x"]

    with anygate.Server(app, port=0, metrics_path="/metrics", route_metrics=["app", "/b"]) as server:
        with Connection(("127.0.0.1", urlsplit(server.urls[0]).port)) as connection:
            assert connection.ask("GET", "/a").status == 200
        name = ("anygate_route_requests_total", ("route", "/own"), ("status", "2xx"))
        wait_until(lambda: samples(server.metrics())[name] == 1, "the request")
        assert ("anygate_route_requests_total", ("route", "/b"), ("status", "2xx")) in samples(server.metrics())


def test_the_example_for_flask_names_routes(serve, tmp_path):
    pytest.importorskip("flask")
    view = """
    @app.get("/users/<name>")
    def user(name):
        return name
    """
    (tmp_path / "shop.py").write_text(FLASK + textwrap.dedent(view))
    at = watch(serve, "--route-metrics", "app", app="shop:app")
    assert at.served.get("/users/ann").body == b"ann"
    assert at.served.get("/nowhere").status == 404
    assert routes(at, 2) == {"/users/<name>": (1, 0, 0, 1)}


def test_the_example_for_django_names_routes(serve, tmp_path):
    pytest.importorskip("django")
    site = """
    from django.conf import settings
    from django.core.wsgi import get_wsgi_application
    from django.http import HttpResponse
    from django.urls import include, path

    settings.configure(ROOT_URLCONF="shop", SECRET_KEY="x", ALLOWED_HOSTS=["*"], MIDDLEWARE=["names.NameRoute"])
    users = [path("<int:number>/", lambda request, number: HttpResponse(str(number)))]
    urlpatterns = [path("users/", include(users))]
    app = get_wsgi_application()
    """
    (tmp_path / "names.py").write_text(DJANGO)
    (tmp_path / "shop.py").write_text(textwrap.dedent(site))
    at = watch(serve, "--route-metrics", "app", app="shop:app")
    assert at.served.get("/users/7/").body == b"7"
    assert at.served.get("/nowhere").status == 404
    assert routes(at, 2) == {"/users/<int:number>/": (1, 0, 0, 1)}


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("users", "'users' must be app, or a path"),
        ("/a*", "in which * is one whole segment"),
        ("/a/**/b", "must be app"),
    ],
)
def test_what_is_no_pattern_is_refused(run, value, said):
    ended = run("--route-metrics", value, "myapp:app")
    assert ended.returncode == 2
    assert said.replace("'", '"') in ended.stderr
