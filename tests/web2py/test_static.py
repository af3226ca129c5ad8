"""Static files of a web2py site: what anygate serves itself is what web2py serves."""

import gzip
import os
import shutil
from pathlib import Path

import pytest
from conftest import ANYGATE
from other_servers import process
from wire import Connection

SITE = Path(__file__).parent / "site"
CASES = [
    ("GET", "/guestbook/static/site.css", []),
    ("HEAD", "/guestbook/static/site.css", []),
    ("GET", "/guestbook/static/_1.2.3/site.css", []),
    ("GET", "/guestbook/static/_1.2/site.css", []),
    ("GET", "/guestbook/static/site.css?attachment", []),
    ("GET", "/guestbook/static/deep/a-b.tar.gz", []),
    ("GET", "/guestbook/static/deep/unknown.xyz", []),
    ("GET", "/guestbook/static/README", []),
    ("GET", "/guestbook/static/large.js", []),
    ("GET", "/guestbook/static/large.js", [("Accept-Encoding", "gzip, br")]),
    ("GET", "/guestbook/static/stale.js", [("Accept-Encoding", "gzip")]),
    ("GET", "/guestbook/static/large.js", [("Range", "bytes=5-20")]),
    ("GET", "/guestbook/static/large.js", [("Range", "bytes=7-9"), ("Accept-Encoding", "gzip")]),
    ("GET", "/guestbook/static/large.js", [("Range", "bytes=10-")]),
    ("GET", "/guestbook/static/large.js", [("Range", "bytes=9999999-")]),
    ("GET", "/guestbook/static/large.js", [("Range", "bytes=0-1,5-9")]),
    ("GET", "/guestbook/static/site.css", [("If-Modified-Since", "SAME")]),
    ("GET", "/guestbook/static/site.css", [("If-Modified-Since", "Thu, 01 Jan 1970 00:00:00 GMT")]),
    ("GET", "/guestbook/static/empty.txt", []),
    ("GET", "/guestbook/static/missing.css", []),
    ("GET", "/guestbook/static/deep", []),
    ("GET", "/guestbook/static/deep/", []),
    ("GET", "/guestbook/static/.hidden", []),
    ("GET", "/guestbook/static/with%20space.txt", []),
    ("GET", "/guestbook/static/../models/db.py", []),
    ("GET", "/guestbook/static/%2e%2e/models/db.py", []),
    ("GET", "/guestbook/static/a%00b", []),
    ("GET", "/nothing/static/site.css", []),
    ("POST", "/guestbook/static/site.css", [("Content-Length", "0")]),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("static") / "site"
    shutil.copytree(SITE, folder)
    (folder / "routes.py").unlink()
    static = folder / "applications" / "guestbook" / "static"
    (static / "deep").mkdir()
    large = b"var x = 1;\n" * 20_000
    files = {
        "deep/a-b.tar.gz": b"tar",
        "deep/unknown.xyz": b"x",
        "README": b"read me",
        "large.js": large,
        "large.js.gz": gzip.compress(large),
        "stale.js": large,
        "stale.js.gz": b"old",
        "empty.txt": b"",
        ".hidden": b"secret",
        "with_space.txt": b"spaced",
    }
    for name, content in files.items():
        (static / name).write_bytes(content)
    os.utime(static / "stale.js.gz", (1, 1))
    return folder


@pytest.fixture(scope="module")
def servers(folder):
    """The site, and the same with static files served by web2py, because it has routes."""
    other = folder.with_name("routed")
    shutil.copytree(folder, other, copy_function=shutil.copy2)
    (other / "routes.py").write_text("routes_in = ((r'/never-asked', r'/guestbook'),)\n")
    started = []
    stacks = []
    for site in (folder, other):
        stack = process([ANYGATE, "--web2py", site, "-p", "0"], site.parent)
        stacks.append(stack)
        started.append(stack.__enter__().wait_ready())
    yield started
    for stack in stacks:
        stack.__exit__(None, None, None)


def ask(served, method, target, fields):
    with Connection(served.address) as connection:
        response = connection.ask(method, target, fields)
    left_out = (
        ("date", "server", "connection", "expires") if response.status != 200 else ("date", "server", "connection")
    )
    seen = sorted((name.lower(), value) for name, value in response.fields if name.lower() not in left_out)
    return response.status, response.reason, seen, response.body


@pytest.mark.parametrize(("method", "target", "fields"), CASES, ids=[f"{m} {t} {f}" for m, t, f in CASES])
def test_it_is_as_web2py_responds(servers, folder, method, target, fields):
    ours, theirs = servers
    if fields == [("If-Modified-Since", "SAME")]:
        fields = [("If-Modified-Since", dict(ask(ours, "GET", target, [])[2])["last-modified"])]
    assert ask(ours, method, target, fields) == ask(theirs, method, target, fields)


def test_web2py_is_not_asked(serve, folder, tmp_path):
    """The profiler sees each request that enters Python."""
    site = tmp_path / "site"
    shutil.copytree(folder, site)
    served = serve("--web2py", site, "-P", site / "profiles")
    served.get("/guestbook/static/site.css")
    assert not list((site / "profiles").glob("req_*"))
    served.get("/guestbook/default/client")
    assert len(list((site / "profiles").glob("req_*"))) == 1
