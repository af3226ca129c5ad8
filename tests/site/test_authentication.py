"""`basic_auth`: which paths need a password, whatever they look like and whatever responds there; whose is right."""

import base64
import io
import itertools
import json
import os
import subprocess
import sys

import anygate
import pytest
from conftest import ANYGATE, APPS
from gateways import cgi_response, scgi, variables
from planned import ADMIN_SPELLINGS, EVERYTHING, PROTOCOLS, planned
from websocket_frames import handshake
from wire import Connection

#: The password of joe is `secret`, that of ann is `other`.
JOE = "joe:$2b$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW\n"
ANN = "ann:$argon2id$v=19$m=64,t=1,p=1$YSBzYWx0IG9mIHNvbWUgYnl0ZXM$44WgIvuXGL/Ln25CSQhciLUOsmp2ysB1JPegg9X1P1I\n"
PROTECTED = [
    *ADMIN_SPELLINGS,
    "/x/..%2fadmin",
    # An application may take these for something below /admin, or for something that is not.
    *("/admin/../public", "/admin/x/../../public", "//admin/../public", "/x/../admin/../y", "/admin%2f..%2fpublic"),
]
OPEN = ["/", "/administrator", "/ADMIN", "/x/admin", "/x/../public", "/adm%69n2", "/admin%20"]


def basic(user, password):
    return ("Authorization", "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode())


def passwords(folder, text=JOE + ANN):
    (folder / "users").write_text(text)
    return folder


@pytest.fixture(scope="module", params=["threads", "gevent"])
def site(request, tmp_path_factory):
    folder = passwords(tmp_path_factory.mktemp("authentication"))
    arguments = ["--basic-auth", "/admin=users", "--basic-auth-realm", 'The "site"', "--concurrency", request.param]
    with planned(folder, *arguments, "--health-path", "/admin/health", *EVERYTHING) as site:
        yield site


@pytest.mark.parametrize("target", PROTECTED)
@pytest.mark.parametrize("protocol", ["http", "http2"])
def test_a_path_is_protected_however_it_is_spelled(site, protocol, target):
    before = site.count("GET /admin")
    refused = site.speak(protocol, "GET", target)
    assert (refused.status, refused.body) == (401, b"401 Unauthorized\n")
    assert refused["www-authenticate"] == 'Basic realm="The \\"site\\"", charset="UTF-8"'
    assert site.count("GET /admin") == before
    assert site.speak(protocol, "GET", target, [basic("joe", "secret")]).status == 200


@pytest.mark.parametrize("target", OPEN)
def test_other_paths_are_open(site, target):
    seen = site.get(target).json
    assert not {"REMOTE_USER", "AUTH_TYPE"} & set(seen)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_application_is_told_who_it_is(site, protocol):
    # What a client, or a server that knows nothing of this password, says of the user is not it.
    spoofed = [("Remote-User", "root"), ("REMOTE_USER", "root"), ("Auth-Type", "none")]
    for user, password in [("joe", "secret"), ("ann", "other"), ("joe", "secret")]:
        seen = site.speak(protocol, "POST", "/admin/x", [basic(user, password), *spoofed], b"body").json
        assert (seen["REMOTE_USER"], seen["AUTH_TYPE"], seen["body_bytes"]) == (user, "Basic", 4)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    "fields",
    [
        [basic("joe", "other")],
        [basic("joe", "")],
        [basic("joe", "secret\0")],
        [basic("Joe", "secret")],
        [basic("nobody", "secret")],
        [basic("", "")],
        [("Authorization", "Basic")],
        [("Authorization", "Basic !")],
        [("Authorization", "Bearer secret")],
    ],
    ids=str,
)
def test_who_has_no_right_password_is_kept_out(site, protocol, fields):
    assert site.speak(protocol, "GET", "/admin", fields).status == 401


def test_two_users_at_once_are_nobody(site):
    assert site.get("/admin", [basic("joe", "secret"), basic("joe", "secret")]).status == 401


@pytest.mark.parametrize("method", ["HEAD", "POST", "OPTIONS", "DELETE", "TRACE", "PROPFIND", "X"])
def test_every_method_needs_a_password(site, method):
    assert site.get("/admin/methods", method=method).status == 401
    assert site.count(f"{method} /admin/methods") == 0


def test_health_checks_need_none(site):
    assert site.get("/admin/health").status == 200


def test_a_body_is_not_waited_for(site):
    with site.connect() as connection:
        assert connection.ask("POST", "/admin", [("Content-Length", "1000000")]).status == 401
    with site.connect() as connection:
        connection.send("POST /admin HTTP/1.1\r\nHost: test\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n")
        assert connection.response().status == 401


def test_a_front_server_may_know_users_of_other_paths(site):
    for target, user, expected in [("/x", "front", ("front", None)), ("/admin", "front", ("joe", "Basic"))]:
        given = variables(
            "GET", target, 0, ("REMOTE_USER", user), fields=[("HTTP_AUTHORIZATION", basic("joe", "secret")[1])]
        )
        with Connection(site.addresses[1]) as connection:
            _, _, body = cgi_response(connection.send(scgi(given)).rest())
        seen = json.loads(body)
        assert (seen["REMOTE_USER"], seen.get("AUTH_TYPE")) == expected


@pytest.fixture(scope="module", params=["threads", "gevent"])
def whole(request, tmp_path_factory):
    """A site that is protected as a whole, with all that responds in place of its application."""
    folder = passwords(tmp_path_factory.mktemp("whole"))
    (folder / "files").mkdir()
    (folder / "files" / "a.txt").write_text("a file")
    arguments = [
        *("--basic-auth", "/=users", "--static", "/static=files", "--cache", "/ 60s", "--compression"),
        *(
            "--ready-path",
            "/ready",
            "--metrics-path",
            "/metrics",
            "--metrics-allow",
            "127.0.0.1",
            "--profiler",
            "profiles",
            "--concurrency",
            request.param,
            "--access-log",
            "access.log",
        ),
        *("--access-log-format", "%(u)s %(s)s %(U)s"),
    ]
    with planned(folder, *arguments) as site:
        yield site


def test_nothing_responds_before_the_password_is_right(whole):
    whole.plan("/page", body="a page", fields=[("Cache-Control", "public, max-age=600"), ("ETag", '"1"')])
    joe = basic("joe", "secret")
    for target in ("/page", "/static/a.txt"):
        stored = [whole.get(target, [joe]) for _ in range(2)][1]
        assert stored.status == 200
        conditions = [
            *([], [("If-None-Match", stored["etag"])], [("Range", "bytes=0-1")], [("Accept-Encoding", "gzip")]),
            *([("Cache-Control", "only-if-cached")], [basic("joe", "wrong")]),
        ]
        for fields in conditions:
            for method in ("GET", "HEAD"):
                response = whole.get(target, fields, method=method)
                assert (response.status, response.body) == (401, b"" if method == "HEAD" else b"401 Unauthorized\n")
        assert whole.get(target, [joe, ("If-None-Match", stored["etag"])]).status == 304
    assert whole.get("/ready").status == 200


@pytest.mark.parametrize("target", ["*", "/", "/static/", "/__profile__", "http://test/static/a.txt", "//static/a.txt"])
def test_every_target_of_a_protected_site_needs_a_password(whole, target):
    assert whole.get(target, method="OPTIONS" if target == "*" else "GET").status == 401


def test_a_page_for_one_user_is_not_for_another(whole):
    """Although the site has pages stored that do not say for how long."""
    users = [
        whole.get("/mine", [basic(user, password)]).json["REMOTE_USER"]
        for user, password in [("joe", "secret"), ("ann", "other")]
    ]
    assert users == ["joe", "ann"]


def test_a_page_for_a_user_of_a_front_server_is_not_for_another(tmp_path):
    with planned(tmp_path, "--cache", "/ 60s", "--bind", "scgi://127.0.0.1:0") as site:
        for user in ("joe", "ann"):
            with site.connect() as connection:
                given = variables("GET", "/mine", 0, ("REMOTE_USER", user))
                _, _, body = cgi_response(connection.send(scgi(given)).rest())
            assert json.loads(body)["REMOTE_USER"] == user


def test_the_metrics_are_behind_the_password(whole):
    assert [whole.get("/metrics", fields).status for fields in ([], [basic("joe", "wrong")])] == [401, 401]
    for _ in range(2):
        response = whole.get("/metrics", [basic("joe", "secret")])
        assert response.status == 200
        assert b"# TYPE" in response.body


def test_the_access_log_names_the_user(whole):
    assert whole.get("/logged", [basic("ann", "other")]).status == 200
    whole.wait_until(
        lambda: "ann 200 /logged\n" in (whole.folder / "access.log").read_text(), "the line of the access log"
    )


@pytest.mark.parametrize("concurrency", ["threads", "gevent"])
def test_websockets_need_a_password(serve, tmp_path, concurrency):
    passwords(tmp_path)
    served = serve(APPS / "websocket.py", "--basic-auth", "/echo=users", "--concurrency", concurrency)
    for fields, status in [([], 401), ([basic("joe", "wrong")], 401), ([basic("joe", "secret")], 101)]:
        with served.connect() as connection:
            connection.send(handshake("/echo", fields))
            assert connection.head().status == status


def test_the_longest_path_counts(tmp_path):
    passwords(tmp_path)
    (tmp_path / "joe").write_text(JOE)
    with planned(tmp_path, "--basic-auth", "/=users", "--basic-auth", "/admin=joe") as site:
        statuses = {
            (target, user): site.get(target, [basic(user, password)]).status
            for target in ("/", "/admin", "/admin/../x")
            for user, password in [("joe", "secret"), ("ann", "other")]
        }
    # Whoever may read the last one as one of the first two has the password of both.
    assert [place for place, status in statuses.items() if status != 200] == [("/admin", "ann"), ("/admin/../x", "ann")]


def test_a_file_that_changes_is_read_again(tmp_path):
    passwords(tmp_path, JOE)
    numbers = itertools.count()
    with planned(tmp_path, "--basic-auth", "/=users", "--workers", "2", "--trusted-proxies", "127.0.0.1") as site:

        def status(user, password):
            # Another client each time: nobody may be wrong so often.
            client = f"10.0.{next(numbers) // 250}.{next(numbers) % 250}"
            return site.get("/", [("X-Forwarded-For", client), basic(user, password)]).status

        assert (status("joe", "secret"), status("ann", "other")) == (200, 401)
        passwords(tmp_path, ANN)
        site.wait_until(lambda: status("ann", "other") == 200, "the new user")
        # Both workers notice.
        site.wait_until(lambda: {status("joe", "secret") for _ in range(20)} == {401}, "the end of the old user")


@pytest.mark.parametrize("text", [None, "", "ann:plain\n"], ids=["missing", "empty", "plain"])
def test_a_file_that_breaks_lets_nobody_in(tmp_path, text):
    passwords(tmp_path)
    with planned(tmp_path, "--basic-auth", "/=users") as site:
        assert site.get("/", [basic("joe", "secret")]).status == 200
        (tmp_path / "users").unlink()
        if text is not None:
            passwords(tmp_path, text)
        site.wait_until(lambda: site.get("/", [basic("joe", "secret")]).status == 503, "that nobody gets in")
        assert site.get("/", [basic("joe", "secret")]).status == 503
        assert site.get("/").status == 401
        assert site.log().count("nobody gets in until it can be used") == 1
        assert f"basic_auth: {tmp_path}/users " in site.log()
        passwords(tmp_path)
        site.wait_until(lambda: site.get("/", [basic("joe", "secret")]).status == 200, "that joe gets in again")


@pytest.mark.parametrize(
    ("item", "text", "reason"),
    [
        ("/=users", None, 'users" cannot be read: No such file or directory'),
        ("/=users", "", 'users" has no users; htpasswd -B adds one'),
        (
            "/=users",
            JOE + "ann:$apr1$x$y\n",
            'users" line 2: the password of "ann" is hashed with MD5, which is not accepted',
        ),
        ("/=users", "ann:plain\n", 'users" line 1: the password of "ann" is plain text or hashed with DES (crypt)'),
        ("users", JOE, '"users" must be a path and a file, as in /admin=admin.htpasswd'),
        ("admin=users", JOE, '"admin=users" must begin with /'),
        ("/a/../b=users", JOE, "must be a decoded path without //, ?, # and the segments . and .."),
    ],
)
def test_what_is_wrong_is_said_at_the_start(run, tmp_path, item, text, reason):
    if text is not None:
        passwords(tmp_path, text)
    ended = run(APPS / "plan.py", "--basic-auth", item, "--port", "0")
    assert ended.returncode == 2
    assert ended.stderr.startswith("anygate: error: --basic-auth: ")
    assert reason in ended.stderr


@pytest.mark.parametrize("concurrency", ["threads", "gevent"])
def test_nobody_guesses_without_end(tmp_path, concurrency):
    passwords(tmp_path)
    arguments = [
        "--basic-auth",
        "/=users",
        "--trusted-proxies",
        "127.0.0.1",
        "--workers",
        "2",
        "--concurrency",
        concurrency,
    ]
    with planned(tmp_path, *arguments) as site:

        def status(client, *credentials):
            return site.get("/", [("X-Forwarded-For", client), basic(*credentials)]).status

        assert status("192.0.2.1", "joe", "secret") == 200
        assert [status("192.0.2.1", "ann", f"guess {number}") for number in range(20)] == [401] * 20
        site.wait_until(lambda: status("192.0.2.1", "ann", "guess") == 429, "the end of guessing")
        # Who is known stays known, and other clients have guessed nothing.
        site.wait_until(lambda: status("192.0.2.1", "joe", "secret") == 200, "that joe is known to all workers")
        assert status("192.0.2.2", "ann", "other") == 200


def test_a_program_that_a_cgi_server_starts(tmp_path):
    passwords(tmp_path)
    server = {"SERVER_PROTOCOL": "HTTP/1.1", "SERVER_NAME": "a", "SERVER_PORT": "80", "REMOTE_ADDR": "192.0.2.7"}
    request = {"REQUEST_METHOD": "GET", "SCRIPT_NAME": "/cgi-bin/app", "PATH_INFO": "/echo", "REMOTE_USER": "root"}
    for fields, status in [([], 401), ([basic("joe", "wrong")], 401), ([basic("joe", "secret")], 200)]:
        fields = {f"HTTP_{name.upper()}": value for name, value in fields}
        ended = subprocess.run(
            [ANYGATE, "cgi", APPS / "contract.py", "--basic-auth", "/cgi-bin=users"],
            env={"PATH": os.environ["PATH"], **server, **request, **fields},
            capture_output=True,
            cwd=tmp_path,
            check=False,
        )
        got, _, body = cgi_response(ended.stdout)
        assert got == status
        assert status != 200 or json.loads(body)["REMOTE_USER"] == "joe"


def test_under_any_server(tmp_path):
    passwords(tmp_path)
    seen = []

    def application(environ, start_response):
        seen.append((environ["PATH_INFO"], environ.get("REMOTE_USER"), environ.get("AUTH_TYPE")))
        start_response("200 OK", [])
        return []

    wrapped = anygate.wsgihandler(application, basic_auth=[f"/admin={tmp_path}/users"])

    def status(path, **environ):
        statuses = []
        given = {"REQUEST_METHOD": "GET", "PATH_INFO": path, "SCRIPT_NAME": "", "REMOTE_ADDR": "192.0.2.1"}
        given |= {"wsgi.errors": sys.stderr, "wsgi.input": io.BytesIO()}
        given |= {
            "SERVER_NAME": "a",
            "SERVER_PORT": "80",
            "wsgi.url_scheme": "http",
            "REMOTE_USER": "of the server",
            **environ,
        }
        iterable = wrapped(given, lambda status, headers, exc_info=None: statuses.append(status))
        list(iterable)
        getattr(iterable, "close", lambda: None)()
        return int(statuses[0][:3])

    assert [status("/admin"), status("//admin", HTTP_AUTHORIZATION=basic("joe", "x")[1])] == [401, 401]
    assert [status("/"), status("/admin", HTTP_AUTHORIZATION=basic("joe", "secret")[1])] == [200, 200]
    assert seen == [("/", "of the server", None), ("/admin", "joe", "Basic")]
