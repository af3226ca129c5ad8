"""`redirect` and `rewrite`: where requests are sent, and which path the application sees in place of that one."""

import base64
import io
import json
import sys

import anygate
import pytest
from conftest import APPS
from gateways import cgi_response, scgi, variables
from planned import EVERYTHING, PROTOCOLS, planned

JOE = "joe:$2b$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW\n"
RULES = [
    *("--redirect", "301 www.test/ https://test/", "--redirect", "/old /new", "--redirect", "308 ~^/blog/(.*)$ /$1"),
    *("--redirect", "/denied /open", "--rewrite", "~^/user/([^/]+)$ /users?id=$1", "--rewrite", "/files /static"),
    *(
        "--rewrite",
        "/in /secret",
        "--rewrite",
        "/secret/out /out",
        "--rewrite",
        "/health /in",
        "--rewrite",
        "/to/denied /denied",
    ),
]


@pytest.fixture(scope="module", params=["threads", "gevent"])
def site(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("routing")
    (folder / "users").write_text(JOE)
    (folder / "files").mkdir()
    (folder / "files" / "a.txt").write_text("a file")
    more = [
        *(
            "--static",
            "/static=files",
            "--basic-auth",
            "/secret=users",
            "--health-path",
            "/health",
            "--deny",
            "/denied 0.0.0.0/0",
        ),
        *("--deny", "/denied 192.0.2.0/24", "--cors-origins", "*", "--concurrency", request.param),
    ]
    with planned(folder, *RULES, *more, *EVERYTHING) as site:
        yield site


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    ("target", "status", "location"),
    [
        ("/old", 302, "/new"),
        ("/old/x?c=d", 302, "/new/x?c=d"),
        ("/blog//evil.example", 308, "/evil.example"),
        ("/blog/a\\b", 308, "/a%5Cb"),
    ],
)
def test_requests_are_sent_elsewhere(site, protocol, target, status, location):
    for method in ("GET", "POST"):
        response = site.speak(protocol, method, target, body=b"body" if method == "POST" else b"")
        assert (response.status, response["location"]) == (status, location)


@pytest.mark.parametrize("protocol", ["http", "http2"])
@pytest.mark.parametrize(
    ("target", "status", "location"),
    [
        ("/old/a%20b?c=d", 302, "/new/a%20b?c=d"),
        ("/blog/x", 308, "/x"),
        ("/blog/%2f%2fevil.example", 308, "/evil.example"),
        ("/blog/%5cevil.example", 308, "/%5Cevil.example"),
        ("/blog/a%0d%0aSet-Cookie:b", 308, "/a%0D%0ASet-Cookie:b"),
        ("/blog/%ff", 308, "/%FF"),
    ],
)
def test_what_a_client_has_sent_is_no_host_and_no_field(site, protocol, target, status, location):
    response = site.speak(protocol, "GET", target)
    assert (response.status, response["location"]) == (status, location)
    assert "set-cookie" not in response.names()


@pytest.mark.parametrize("host", ["www.test", "WWW.Test", "www.test:8080", "www.test.", "www.test.:80"])
def test_a_host_is_the_same_in_every_spelling(site, host):
    with site.connect() as connection:
        response = connection.ask("GET", "/a?b", host=host)
    assert (response.status, response["location"]) == (301, "https://test/a?b")


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_application_sees_what_a_rule_makes(site, protocol):
    seen = site.speak(protocol, "POST", "/user/a&b?c=d", body=b"body").json
    assert (seen["PATH_INFO"], seen["QUERY_STRING"], seen["SCRIPT_NAME"]) == ("/users", "id=a%26b&c=d", "")
    assert seen["REQUEST_URI"] == "/user/a&b?c=d"
    assert seen["body_bytes"] == 4
    assert site.speak(protocol, "GET", "/files/a.txt").body == b"a file"


def test_a_rule_opens_nothing(site):
    joe = ("Authorization", "Basic " + base64.b64encode(b"joe:secret").decode())
    # Protected by the path that was sent, or by the one that it becomes.
    for target, path in [("/in/x", "/secret/x"), ("/secret/out/x", "/out/x"), ("/in/../x", "/secret/../x")]:
        assert site.get(target).status == 401
        assert site.get(target, [joe]).json["PATH_INFO"] == path
    assert site.get("/to/denied").status == 403
    # Who may not come in is not sent elsewhere either.
    assert (site.get("/denied").status, site.get("/denied")["location"]) == (403, None)


def test_health_checks_and_preflights_are_not_redirected(site):
    assert site.get("/health").body == b"OK"
    fields = [("Origin", "https://a.example"), ("Access-Control-Request-Method", "GET")]
    assert site.get("/old", fields, method="OPTIONS").status == 204


def test_a_mount_point_stays_one(tmp_path):
    rules = ["--rewrite", "/app/old /app/new", "--redirect", "/app/gone /app/found"]
    with planned(
        tmp_path, *rules, "--script-name", "/app", "--bind", "http://127.0.0.1:0", "--bind", "scgi://127.0.0.1:0"
    ) as site:
        seen = site.get("/app/old/x").json
        assert (seen["SCRIPT_NAME"], seen["PATH_INFO"]) == ("/app", "/new/x")
        assert site.get("/app/gone/x")["location"] == "/app/found/x"
        with site.connect(site.addresses[1]) as connection:
            _, _, body = cgi_response(connection.send(scgi(variables("GET", "/app/old/x"))).rest())
        seen = json.loads(body)
        assert (seen["SCRIPT_NAME"], seen["PATH_INFO"]) == ("/app", "/new/x")


def test_under_any_server():
    seen = []

    def application(environ, start_response):
        seen.append((environ["PATH_INFO"], environ["QUERY_STRING"]))
        start_response("200 OK", [])
        return []

    wrapped = anygate.wsgihandler(application, redirect=["/old /new"], rewrite=["~^/user/(.*)$ /users?id=$1"])

    def responses(path):
        given = {"REQUEST_METHOD": "GET", "PATH_INFO": path, "SCRIPT_NAME": "", "REMOTE_ADDR": "192.0.2.1"}
        given |= {"wsgi.errors": sys.stderr, "wsgi.input": io.BytesIO(), "QUERY_STRING": "a=b"}
        given |= {"SERVER_NAME": "a", "SERVER_PORT": "80", "wsgi.url_scheme": "http"}
        started = []
        iterable = wrapped(given, lambda *head: started.append(head))
        list(iterable)
        getattr(iterable, "close", lambda: None)()
        return started[0][0], dict(started[0][1]).get("Location")

    assert responses("/old/x") == ("302 Found", "/new/x?a=b")
    assert responses("/user/1") == ("200 OK", None)
    assert seen == [("/users", "id=1&a=b")]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--redirect", "/old"], '--redirect: "/old" must be [STATUS ]FROM TO'),
        (["--redirect", "200 /old /new"], "must have one of the statuses 301, 302, 303, 307, 308"),
        (["--redirect", "/old //evil.example"], "must not lead to a path that begins with //"),
        (["--redirect", "~^/(.*)$ https://$1/"], "must lead to a host that is written out"),
        (["--redirect", "~( /new"], '--redirect: "~( /new" has a broken regular expression: unclosed group'),
        (["--redirect", "/a /a/b"], "again and again"),
        (["--rewrite", "/a https://a.example/"], "must lead to a path that begins with /"),
        (["--rewrite", "~^/a$ /$1"], "names a group with $ that the regular expression does not have"),
    ],
)
def test_what_is_wrong_is_said_at_the_start(run, arguments, reason):
    ended = run(APPS / "plan.py", *arguments, "--port", "0")
    assert (ended.returncode, reason in ended.stderr) == (2, True), ended.stderr
