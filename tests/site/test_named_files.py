"""Files that the application names in X-Sendfile or X-Accel-Redirect, below `sendfile_root`."""

import os
import subprocess
import urllib.parse

import http2_frames
import pytest
from conftest import ANYGATE
from gateways import cgi_response
from other_servers import Packed, free_port, started
from waiting import PATIENCE
from wire import Connection

APP = """
import urllib.parse

def application(environ, start_response):
    asked = dict(urllib.parse.parse_qsl(environ["QUERY_STRING"], keep_blank_values=True))
    status = asked.pop("status", "200 OK")
    fields = [("Content-Type", "text/x-report"), ("Content-Disposition", "attachment"), ("Set-Cookie", "a=b")]
    fields += [("Content-Length", "5"), ("ETag", '"of the body"'), ("Cache-Control", "private")]
    fields += list(asked.items())
    start_response(status, fields)
    return (part for part in [b"not ", b"it"]) if "blocks" in environ["PATH_INFO"] else [b"empty"]
"""
SMALL = b"a small file\n"
LARGE = bytes(range(256)) * 1200
CONTENTS = {"small": SMALL, "large": LARGE, "all": b"all"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("named")
    (folder / "app.py").write_text(APP)
    (folder / "secret").write_text("secret")
    root = folder / "root"
    (root / "sub").mkdir(parents=True)
    (root / "small.txt").write_bytes(SMALL)
    (root / "small.txt.gz").write_bytes(b"of another file")
    (root / "sub" / "a b.bin").write_bytes(LARGE)
    (root / "100%.txt").write_text("all")
    (root / ".hidden").write_text("secret")
    (root / "inside").symlink_to("sub/a b.bin")
    (root / "outside").symlink_to(folder / "secret")
    (root / "up").symlink_to("../secret")
    return folder


class Site:
    def __init__(self, served, port):
        self.served, self.port = served, port

    def ask(self, method="GET", path="/", fields=(), status="200 OK", **named):
        query = urllib.parse.urlencode(
            {**{name.replace("_", "-"): value for name, value in named.items()}, "status": status}
        )
        with Connection(("127.0.0.1", self.port)) as connection:
            return connection.ask(method, f"{path}?{query}", [("Connection", "close"), *fields])


OPTIONS = ("--sendfile-root", "root", "--access-log", "access.log", "--access-log-format", "%(U)s %(s)s %(B)s")
KINDS = {
    "threads": ("native",),
    "gevent": ("native", "--concurrency", "gevent"),
    "compression": ("native", "--compression", "--cache", "/kept"),
    "gunicorn": ("gunicorn",),
    "waitress": ("waitress",),
}


@pytest.fixture(scope="module", params=KINDS)
def site(request, folder):
    name, *options = KINDS[request.param]
    with started(name, folder, *options, *OPTIONS, app="app:application") as served:
        yield Site(served, served.port)


@pytest.mark.parametrize("path", ["/", "/blocks"])
@pytest.mark.parametrize(
    ("named", "content"),
    [
        ({"X_Sendfile": "small.txt"}, "small"),
        ({"X_Sendfile": "{root}/sub/a b.bin"}, "large"),
        ({"X_Sendfile": "{root}/sub/a%20b.bin"}, "large"),
        ({"X_Sendfile": "100%.txt"}, "all"),
        ({"X_Sendfile": "inside"}, "large"),
        ({"X_Accel_Redirect": "/small.txt?x=y"}, "small"),
        ({"X_Accel_Redirect": "/sub/a%20b.bin"}, "large"),
    ],
    ids=str,
)
def test_the_file_is_sent_with_the_fields_of_the_application(site, folder, path, named, content):
    content = CONTENTS[content]
    named = {name: value.replace("{root}", str(folder / "root")) for name, value in named.items()}
    for method in ("GET", "HEAD", "POST"):
        response = site.ask(method, path, **named)
        assert (response.status, response["content-length"]) == (200, str(len(content)))
        assert response.body == (b"" if method == "HEAD" else content)
        assert response["content-type"] == "text/x-report"
        assert response["content-disposition"] == "attachment"
        assert response["set-cookie"] == "a=b"
        assert response["cache-control"] == "private"
        assert response["etag"] != '"of the body"'
        assert not response["x-sendfile"]
        assert not response["x-accel-redirect"]


def test_ranges_and_conditions_are_those_of_static_files(site):
    whole = site.ask(X_Sendfile="inside")
    part = site.ask(fields=[("Range", "bytes=10-19")], X_Sendfile="inside")
    assert (part.status, part.body, part["content-range"]) == (206, LARGE[10:20], f"bytes 10-19/{len(LARGE)}")
    assert part["set-cookie"] == "a=b"
    beyond = site.ask(fields=[("Range", "bytes=999999-")], X_Sendfile="inside")
    assert (beyond.status, beyond["content-range"]) == (416, f"bytes */{len(LARGE)}")
    assert whole["last-modified"]
    for condition in (("If-None-Match", whole["etag"]), ("If-Modified-Since", whole["last-modified"])):
        same = site.ask(fields=[condition], X_Sendfile="inside")
        assert (same.status, same.body, same["set-cookie"]) == (304, b"", "a=b")
    assert site.ask("POST", fields=[("If-None-Match", whole["etag"])], X_Sendfile="inside").status == 200
    if whole["etag"].startswith("W/"):
        return
    failed = site.ask(fields=[("If-Match", '"other"')], X_Sendfile="inside")
    assert (failed.status, failed["set-cookie"]) == (412, "a=b")


@pytest.mark.parametrize(
    "named",
    [
        *({"X_Sendfile": name} for name in ("missing", "", "sub", "../secret", "sub/../../secret", ".hidden", "up")),
        *(
            {"X_Sendfile": name}
            for name in ("{outer}/secret", "{root}/../secret", "{root}evil", "outside", "/etc/passwd")
        ),
        *({"X_Accel_Redirect": name} for name in ("/../secret", "/%2e%2e/secret", "/up", "/", "http://a/small.txt")),
        {"X_Sendfile": "%2e%2e/secret"},
    ],
    ids=str,
)
def test_nothing_but_files_below_the_directory_is_sent(site, folder, named):
    paths = {"{root}": str(folder / "root"), "{outer}": str(folder)}
    for mark, path in paths.items():
        named = {name: value.replace(mark, path) for name, value in named.items()}
    response = site.ask(**named)
    assert response.status == 404
    assert b"secret" not in response.body
    assert b"empty" not in response.body
    assert response["set-cookie"] == "a=b"


def test_a_response_that_is_no_success_is_sent_as_it_is(site):
    response = site.ask(status="403 Forbidden", X_Sendfile="small.txt")
    assert (response.status, response.body) == (403, b"empty")
    assert not response["x-sendfile"]


def test_the_access_log_has_the_bytes_of_the_file(site, folder):
    site.ask(path="/logged", X_Sendfile="inside")
    site.ask(path="/logged/part", fields=[("Range", "bytes=0-9")], X_Sendfile="inside")
    expected = {f"/logged 200 {len(LARGE)}", "/logged/part 206 10"}
    site.served.wait_until(lambda: expected <= set((folder / "access.log").read_text().splitlines()), "both lines")


def test_without_the_option_the_field_is_left_to_a_front_server(serve, folder):
    served = serve("app:application", "--pythonpath", folder)
    response = served.get("/?X-Accel-Redirect=/small.txt")
    assert (response.body, response["x-accel-redirect"]) == (b"empty", "/small.txt")


def test_over_http2_and_gateways(serve, folder, tmp_path):
    port = free_port()
    options = ("--sendfile-root", folder / "root", "--pythonpath", folder, "--bind", "127.0.0.1:0")
    served = serve("app:application", *options, "--bind", f"scgi://127.0.0.1:{port}")
    with http2_frames.Client(http2_frames.plain(served.address)) as client:
        response = client.ask("GET", "/?X-Sendfile=inside")
        assert (response.status, response.body) == (200, LARGE)
        part = client.ask("GET", "/?X-Sendfile=inside", [("range", "bytes=1-2")])
        assert (part.status, part.body) == (206, LARGE[1:3])
        assert client.ask("HEAD", "/?X-Sendfile=inside").body == b""
    status, cookies, body = Packed(port, "scgi").ask("GET", "/?X-Sendfile=inside")
    assert (status, cookies, body) == (200, ["a=b"], LARGE)


def test_in_a_cgi_program(folder):
    environment = {
        "PATH": os.environ["PATH"],
        "GATEWAY_INTERFACE": "CGI/1.1",
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "",
        "PATH_INFO": "/",
        "QUERY_STRING": "X-Sendfile=inside",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "SERVER_NAME": "a",
        "SERVER_PORT": "80",
        "REMOTE_ADDR": "127.0.0.1",
    }
    command = [ANYGATE, "cgi", "--sendfile-root", "root", "app:application"]
    ended = subprocess.run(command, env=environment, capture_output=True, cwd=folder, timeout=PATIENCE, check=True)
    status, _, body = cgi_response(ended.stdout)
    assert (status, body) == (200, LARGE)


FLASK = """
from flask import Flask, send_file

app = Flask(__name__)
app.config["USE_X_SENDFILE"] = True

@app.get("/")
def report():
    return send_file(f"{ROOT}/inside")
"""
DJANGO = """
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse
from django.urls import path

def report(request):
    return HttpResponse(headers={"X-Sendfile": "inside", "Content-Type": "application/pdf"})

urlpatterns = [path("", report)]
settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], SECRET_KEY="x")
app = get_wsgi_application()
"""


@pytest.mark.parametrize("code", [FLASK, DJANGO], ids=["flask", "django"])
def test_frameworks_name_files_as_their_documents_say(serve, folder, tmp_path, code):
    root = folder / "root"
    (tmp_path / "site_app.py").write_text(f"ROOT = {str(root)!r}\n{code}")
    served = serve("site_app:app", "--sendfile-root", root, folder=tmp_path)
    assert served.get().body == LARGE
    assert served.get(fields=[("Range", "bytes=0-3")]).body == LARGE[:4]


def test_a_directory_that_is_not_there_is_refused(run):
    ended = run("--sendfile-root", "nowhere", "app:application")
    assert ended.returncode == 2
    assert "--sendfile-root: " in ended.stderr
