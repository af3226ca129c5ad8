"""`static*`: files without the application."""

import email
import os
import socket
import time
import zlib
from urllib.parse import urljoin

import pytest
from http2_frames import Client, Reset, plain
from other_servers import certificate
from planned import EVERYTHING, PROTOCOLS, planned
from secure import Secure
from waiting import PATIENCE
from wire import Connection

PAGE = "<p>a page</p>\n"
LARGE = os.urandom(5_000_000)
TEXT = b"a line of text\n" * 200
BROWSER = [("Accept", "text/html,application/xhtml+xml,*/*;q=0.8")]


def fill(folder):
    """A folder to serve, beside a secret."""
    public = folder / "public"
    (public / "sub" / "empty").mkdir(parents=True)
    (public / ".well-known").mkdir()
    (public / ".git").mkdir()
    for name, content in {
        "page.html": PAGE,
        "sub/index.html": "index",
        "sub/data.json": "{}",
        "sub/a & b.txt": "odd",
        ".well-known/about": "known",
        ".git/config": "secret",
        ".hidden": "secret",
        "app.12345678.js": "immutable()",
        "shape.geojson": "{}",
        "caf\xe9.txt": "coffee",
    }.items():
        (public / name).write_text(content)
    (public / "large.bin").write_bytes(LARGE)
    (public / "text.txt").write_bytes(TEXT)
    (folder / "secret").write_text("secret")
    (public / "out").symlink_to("../secret")
    (public / "absolute").symlink_to(folder / "secret")
    (public / "up").symlink_to("..")
    (public / "inside").symlink_to("sub/data.json")
    os.mkfifo(public / "fifo")
    (public / "device").symlink_to("/dev/zero")
    made = socket.socket(socket.AF_UNIX)
    made.bind(f"{public}/socket")
    made.close()
    settle(public)
    return public


def settle(public):
    """Files that were changed a moment ago have weak tags."""
    for path in public.rglob("*"):
        if path.is_file() and not path.is_symlink():
            os.utime(path, (1_700_000_000,) * 2)


@pytest.fixture(scope="module", params=["threads", "gevent"])
def site(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("static")
    public = fill(folder)
    arguments = ["--static", f"/static={public}", "--static-immutable", "app.????????.js"]
    more = ["--static-types", "geojson=application/geo+json", "--concurrency", request.param, *EVERYTHING]
    with planned(folder, *arguments, *more, "--health-path", "/health") as site:
        yield site


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_file_is_sent(site, protocol):
    response = site.speak(protocol, target="/static/page.html")
    assert (response.status, response.text) == (200, PAGE)
    assert response["content-type"] == "text/html; charset=utf-8"
    assert response["content-length"] == str(len(PAGE))
    assert response["cache-control"] == "public, max-age=60"
    assert response["accept-ranges"] == "bytes"
    assert response["etag"].startswith('"')
    assert response["last-modified"] == email.utils.formatdate(
        (site.folder / "public/page.html").stat().st_mtime, usegmt=True
    )
    head = site.speak(protocol, "HEAD", "/static/page.html")
    assert (head.status, head.body) == (200, b"")
    assert {**dict(head.fields), "date": "", "Date": ""} == {**dict(response.fields), "date": "", "Date": ""}
    large = site.speak(protocol, target="/static/large.bin")
    assert (large["content-type"], large.body) == ("application/octet-stream", LARGE)
    assert site.count("GET /static/page.html") == 0


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_what_the_client_has_is_not_sent(site, protocol):
    target = "/static/page.html"
    response = site.speak(protocol, target=target)
    for known in (("If-None-Match", response["etag"]), ("If-Modified-Since", response["last-modified"])):
        again = site.speak(protocol, "GET", target, [known])
        assert (again.status, again.body, again["etag"]) == (304, b"", response["etag"])
    for unknown in (("If-None-Match", '"other"'), ("If-Modified-Since", "Thu, 01 Jan 1970 00:00:00 GMT")):
        assert site.speak(protocol, "GET", target, [unknown]).status == 200
    assert site.speak(protocol, "GET", target, [("If-Match", '"other"')]).status == 412
    assert site.speak(protocol, "GET", target, [("If-Match", response["etag"])]).status == 200
    unmodified = [("If-Unmodified-Since", "Thu, 01 Jan 1970 00:00:00 GMT")]
    assert site.speak(protocol, "GET", target, unmodified).status == 412


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(("name", "content"), [("text.txt", TEXT), ("large.bin", LARGE)])
def test_parts(site, protocol, name, content):
    size, target = len(content), f"/static/{name}"
    etag = site.speak(protocol, "HEAD", target)["etag"]
    for wanted, first, last in [("0-99", 0, 99), ("100-", 100, size - 1), ("-7", size - 7, size - 1)]:
        response = site.speak(protocol, "GET", target, [("Range", f"bytes={wanted}")])
        assert (response.status, response.body) == (206, content[first : last + 1])
        assert response["content-range"] == f"bytes {first}-{last}/{size}"
        assert response["content-length"] == str(last + 1 - first)
    response = site.speak(protocol, "GET", target, [("Range", f"bytes={size}-")])
    assert (response.status, response["content-range"]) == (416, f"bytes */{size}")
    same = site.speak(protocol, "GET", target, [("Range", "bytes=0-0"), ("If-Range", etag)])
    assert (same.status, same.body) == (206, content[:1])
    for fields in [
        [("Range", "bytes=0-0"), ("If-Range", '"other"')],
        [("Range", "lines=0-0")],
        [("Range", "bytes=9-0")],
    ]:
        response = site.speak(protocol, "GET", target, fields)
        assert (response.status, response.body) == (200, content)
    assert site.speak(protocol, "HEAD", target, [("Range", "bytes=0-0")]).status == 200


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(("name", "content"), [("text.txt", TEXT), ("large.bin", LARGE)])
def test_several_parts(site, protocol, name, content):
    response = site.speak(protocol, "GET", f"/static/{name}", [("Range", "bytes=0-9, 1000-1999, -5")])
    assert (response.status, response["content-length"]) == (206, str(len(response.body)))
    kind, _, boundary = response["content-type"].partition("; boundary=")
    assert kind == "multipart/byteranges"
    parts = response.body.split(f"\r\n--{boundary}".encode())
    assert (parts[0], parts[-1]) == (b"", b"--\r\n")
    found = [part.partition(b"\r\n\r\n")[2] for part in parts[1:-1]]
    assert found == [content[:10], content[1000:2000], content[-5:]]
    assert f"Content-Range: bytes 1000-1999/{len(content)}".encode() in parts[2]


OUTSIDE = [
    "/static/../secret",
    "/static/sub/../../secret",
    "/static/%2e%2e/secret",
    "/static/%2E%2E%2Fsecret",
    "/static/..%2fsecret",
    "/static/..%5csecret",
    "/static/sub/..%2f..%2fsecret",
    "/static/%2e%2e%2f%2e%2e%2fetc/passwd",
    "/static//etc/passwd",
    "/static/%2fetc/passwd",
    "/static/....//secret",
    "/static/.%00./secret",
    "/static/page.html%00.png",
    "/static/%252e%252e/secret",
    "/static/%c0%ae%c0%ae/secret",
    "/static/out",
    "/static/absolute",
    "/static/up/secret",
    "/static/.hidden",
    "/static/.git/config",
    "/static/sub/./data.json",
    "/static/page.html/",
    "/static/page.html/x",
    "/static/fifo",
    "/static/device",
    "/static/socket",
    "/static/sub/empty",
    "/static/sub/empty/",
    "/static/",
    "/static",
    "/static/missing",
    "/static/" + "x" * 300,
    "/static/" + "x/" * 2000,
]


@pytest.mark.parametrize("target", OUTSIDE, ids=lambda target: target[:30])
def test_nothing_else_is_there(site, target):
    with site.connect() as connection:
        response = connection.ask("GET", target)
        assert response.status in (400, 404), response
        assert b"secret" not in response.body
        assert b"root:" not in response.body
    assert site.get("/static/page.html").status == 200
    # Front servers say the path as they understood it.
    for protocol in ("http2", "fastcgi"):
        response = site.speak(protocol, target=target)
        assert response.status in (400, 404)
        assert b"secret" not in response.body


def test_what_is_there(site):
    for target, text in [
        ("/static/sub/", "index"),
        ("/static/inside", "{}"),
        ("/static/sub/a%20&%20b.txt", "odd"),
        ("/static/caf%C3%A9.txt", "coffee"),
        ("/static/.well-known/about", "known"),
    ]:
        assert site.get(target).text == text
    folder = site.get("/static/sub?x=1")
    assert (folder.status, urljoin("/static/sub?x=1", folder["location"])) == (301, "/static/sub/?x=1")
    assert site.get("/static/app.12345678.js")["cache-control"] == "public, max-age=31536000, immutable"
    assert site.get("/static/shape.geojson")["content-type"] == "application/geo+json"
    assert site.get("/statics/page.html").json["PATH_INFO"] == "/statics/page.html"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_files_cannot_be_changed(site, method):
    response = site.get("/static/page.html", method=method, body=b"x")
    assert (response.status, response["allow"]) == (405, "GET, HEAD, OPTIONS")
    assert site.get("/static/page.html").text == PAGE


def test_options(site):
    response = site.get("/static/page.html", method="OPTIONS")
    assert (response.status, response["allow"], response.body) == (204, "GET, HEAD, OPTIONS", b"")


def test_one_connection_is_enough(site):
    with site.connect() as connection:
        names = ["page.html", "missing", "large.bin", "text.txt", "fifo"] * 3
        connection.send("".join(f"GET /static/{name} HTTP/1.1\r\nHost: test\r\n\r\n" for name in names))
        responses = [connection.response() for _ in names]
    assert [response.status for response in responses] == [200, 404, 200, 200, 404] * 3
    assert {len(response.body) for response in responses if response.status == 200} == {
        len(PAGE),
        len(LARGE),
        len(TEXT),
    }
    with Client(plain(site.address)) as client:
        streams = [client.begin("GET", f"/static/{name}") for name in names]
        assert [client.wait(stream).status for stream in streams] == [200, 404, 200, 200, 404] * 3


def test_a_file_that_changes_is_sent_as_it_is_now(site):
    changing = site.folder / "public" / "changing.txt"
    changing.write_text("old")
    old = site.get("/static/changing.txt")
    assert old.text == "old"
    beside = changing.with_suffix(".new")
    beside.write_text("new")
    beside.rename(changing)
    site.wait_until(lambda: site.get("/static/changing.txt").text == "new", "the new file")
    assert site.get("/static/changing.txt", [("If-None-Match", old["etag"])]).status == 200
    changing.unlink()
    site.wait_until(lambda: site.get("/static/changing.txt").status == 404, "no file")


@pytest.mark.parametrize("seconds", [0, 1, 315_532_800])
def test_a_file_of_a_reproducible_image_has_no_date_and_is_new_when_it_changes(site, seconds):
    path = site.folder / "public" / "reproducible.css"
    path.write_text("old { }")
    os.utime(path, (seconds, seconds))
    first = site.get("/static/reproducible.css")
    assert "last-modified" not in {name.lower() for name, _ in first.fields}
    path.write_text("new { }")
    os.utime(path, (seconds, seconds))
    has = [("If-None-Match", first["etag"]), ("If-Modified-Since", "Wed, 01 Jan 2020 00:00:00 GMT")]
    site.wait_until(lambda: site.get("/static/reproducible.css", has).text == "new { }", "the new content")


# Slow clients.


@pytest.fixture(params=["threads", "gevent"])
def concurrency(request):
    return ["--concurrency", request.param, "--threads", "1", "--greenlets", "1"]


def slow(address):
    """A connection that takes little at once."""
    connection = Connection.__new__(Connection)
    connection.socket = socket.socket(socket.AF_INET if isinstance(address, tuple) else socket.AF_UNIX)
    connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.socket.settimeout(PATIENCE)
    connection.socket.connect(address)
    connection.buffer = b""
    return connection


@pytest.mark.parametrize("streamed", [False, True])
def test_who_takes_a_file_slowly_holds_nobody_up(tmp_path, concurrency, streamed):
    huge = fill(tmp_path) / "huge.bin"
    with huge.open("wb") as file:
        file.truncate(50_000_000)
    arguments = ["--static", f"/static={huge.parent}", *(["--stream-paths", "/static"] if streamed else [])]
    with planned(tmp_path, *arguments, *concurrency) as site:
        taking = [slow(site.address).send(b"GET /static/huge.bin HTTP/1.1\r\nHost: test\r\n\r\n") for _ in range(5)]
        assert [connection.head().status for connection in taking] == [200] * 5
        assert site.get("/other").status == 200
        assert site.get("/static/page.html").text == PAGE
        for connection in taking:
            connection.close()


@pytest.mark.parametrize("way", ["http", "tls", "http2", "part", "parts"])
def test_a_file_that_is_cut_while_it_is_sent_ends_the_connection_and_nothing_else(tmp_path, concurrency, way):
    huge = fill(tmp_path) / "huge.bin"
    with huge.open("wb") as file:
        file.truncate(50_000_000)
    tls = ["-c", *certificate(tmp_path)[:1], "-k", certificate(tmp_path)[1]] if way == "tls" else []
    with planned(tmp_path, "--static", f"/static={huge.parent}", *tls, *concurrency) as site:
        worker = site.workers()
        if way == "http2":
            with Client(plain(site.address), opens=False) as client:
                stream = client.begin("GET", "/static/huge.bin")
                client.wait_head(stream)
                huge.write_bytes(b"short")
                client.opens = True
                client.open(stream, sum(map(len, client.responses[stream].chunks)))
                client.flush()
                with pytest.raises(Reset):
                    client.wait(stream)
                assert client.ask("GET", "/static/page.html").text == PAGE
        else:
            wanted = {"part": b"Range: bytes=1-\r\n", "parts": b"Range: bytes=0-9, 99-\r\n"}.get(way, b"")
            connection = Secure(site.address, tls[1]) if way == "tls" else slow(site.address)
            with connection:
                connection.send(b"GET /static/huge.bin HTTP/1.1\r\nHost: test\r\n" + wanted + b"\r\n")
                length = int(connection.head()["content-length"])
                huge.write_bytes(b"short")
                received = 0
                try:
                    while received < length and (data := connection.take(65536)):
                        received += len(data)
                except ConnectionError:
                    pass
                assert received < length
            if way != "tls":
                assert site.get("/static/page.html").text == PAGE
        assert site.workers() == worker


# Other settings.


def test_siblings_that_are_compressed_already(tmp_path, concurrency):
    public = tmp_path / "public"
    public.mkdir()
    content = b"plain text " * 1000
    for name in ("all.txt", "old.txt", "long.txt"):
        (public / name).write_bytes(content)
        for ending, size in [("br", 10), ("zst", 20), ("gz", 30)]:
            (public / f"{name}.{ending}").write_bytes(ending.encode() * (size if name != "long.txt" else 90_000))
        if name == "old.txt":
            os.utime(public / name, (time.time() + 60,) * 2)
    (public / "none.txt").write_bytes(content)
    with planned(tmp_path, "--static", f"/={public}", *concurrency) as site:
        for accept, ending in [
            ("br, gzip, zstd", "br"),
            ("gzip, zstd", "zst"),
            ("gzip", "gz"),
            ("br;q=0.1, gzip", "gz"),
            ("identity", None),
            ("", None),
        ]:
            response = site.get("/all.txt", [("Accept-Encoding", accept)])
            assert response["vary"] == "Accept-Encoding"
            assert response["content-type"] == "text/plain; charset=utf-8"
            coding = {"zst": "zstd", "gz": "gzip"}.get(ending, ending)
            assert response["content-encoding"] == coding
            assert response.body == (content if ending is None else (public / f"all.txt.{ending}").read_bytes())
        tags = {site.get("/all.txt", [("Accept-Encoding", accept)])["etag"] for accept in ("br", "gzip", "zstd", "")}
        assert len(tags) == 4
        part = site.get("/all.txt", [("Accept-Encoding", "br"), ("Range", "bytes=0-3")])
        assert (part.status, part.body, part["content-range"]) == (206, b"brbr", "bytes 0-3/20")
        for name in ("old.txt", "long.txt", "none.txt"):
            response = site.get(f"/{name}", [("Accept-Encoding", "br, gzip, zstd")])
            assert (response["content-encoding"], response.body) == (None, content)
        assert site.get("/all.txt.gz")["content-encoding"] is None


def test_files_are_compressed_on_their_way(tmp_path, concurrency):
    public = fill(tmp_path)
    (public / "long.txt").write_bytes(b"".join(b"%d lines\n" % number for number in range(100_000)))
    settle(public)
    with planned(tmp_path, "--static", f"/static={public}", "--compression", *concurrency) as site:
        for name in ("text.txt", "long.txt"):
            content = (public / name).read_bytes()
            target, wants = f"/static/{name}", [("Accept-Encoding", "gzip")]
            response = site.get(target, wants)
            assert (response["content-encoding"], response["vary"]) == ("gzip", "Accept-Encoding")
            assert zlib.decompress(response.body, 31) == content
            assert response["etag"].startswith('W/"')
            assert site.get(target, [*wants, ("If-None-Match", response["etag"])]).status == 304
            # Parts are of the file as it is, and not of what was made of it.
            for known in ([], [("If-Range", response["etag"].removeprefix("W/"))]):
                part = site.get(target, [*wants, ("Range", "bytes=10-19"), *known])
                assert (part.status, part["content-encoding"], part.body) == (206, None, content[10:20])
            whole = site.get(target, [*wants, ("Range", "bytes=10-19"), ("If-Range", response["etag"])])
            assert (whole.status, zlib.decompress(whole.body, 31)) == (200, content)
        assert site.get("/static/large.bin", [("Accept-Encoding", "gzip")]).body == LARGE


def test_a_long_file_is_compressed_beside_everything_else(tmp_path, concurrency):
    """And the worker is not taken for silent meanwhile."""
    public = fill(tmp_path)
    with (public / "huge.txt").open("w") as file:
        for _ in range(60):
            file.write(os.urandom(500_000).hex())
    rules = ["--compression", "--compression-codings", "br", "--health-path", "/health", "--worker-timeout", "5s"]
    with planned(tmp_path, "--static", f"/static={public}", *rules, *concurrency) as site:
        worker = site.workers()
        with slow(site.address) as connection:
            connection.send(b"GET /static/huge.txt HTTP/1.1\r\nHost: test\r\nAccept-Encoding: br\r\n\r\n")
            assert connection.head()["content-encoding"] == "br"
            assert site.get("/health").body == b"OK"
        assert site.workers() == worker


def test_an_application_of_one_page(tmp_path, concurrency):
    public = fill(tmp_path)
    with planned(tmp_path, "--static", f"/={public}", "--static-fallback", "page.html", *concurrency) as site:
        for target in ("/", "/some/where", "/some.where", "/sub/empty/"):
            response = site.get(target, BROWSER)
            assert (response.status, response.text, response["cache-control"]) == (200, PAGE, "no-cache")
            assert response["vary"] == "Accept"
            known = [("If-None-Match", response["etag"])]
            assert site.get(target, [*BROWSER, *known]).status == 304
        for accept in ("*/*", "application/json", "text/html;q=0", "image/*"):
            assert site.get("/script.js", [("Accept", accept)]).status == 404
        assert site.get("/script.js").status == 404
        outside = site.get("/../secret", BROWSER)
        assert (outside.status, "secret" in outside.text) == (404, False)
        assert site.get("/sub/data.json", BROWSER).text == "{}"


def test_folders_are_listed_for_who_wants_it(tmp_path, concurrency):
    public = fill(tmp_path)
    (public / "sub" / "empty" / "<b>").touch()
    with planned(tmp_path, "--static", f"/static={public}", "--static-listing", *concurrency) as site:
        page = site.get("/static/")
        assert page["content-type"] == "text/html; charset=utf-8"
        assert '<a href="./page.html">page.html</a>' in page.text
        assert "hidden" not in page.text
        assert "well-known" not in page.text
        assert "&lt;b&gt;" in site.get("/static/sub/empty/").text
        assert site.get("/static/sub/").text == "index"
        assert urljoin("/static/sub/empty", site.get("/static/sub/empty")["location"]) == "/static/sub/empty/"
        assert "default-src 'none'" in page["content-security-policy"]
        assert site.get("/static/", method="HEAD")["content-length"] == page["content-length"]


def test_a_link_that_is_not_followed_is_logged_once(tmp_path, concurrency):
    with planned(tmp_path, "--static", f"/static={fill(tmp_path)}", *concurrency) as site:
        assert [site.get(f"/static/{name}").status for name in ("missing", "absolute", "out")] == [404, 404, 404]
        site.wait_for_log("public/absolute: is not served, since a symbolic link is absolute")
        assert site.log().count("a symbolic link") == 1


def test_links_are_followed_for_who_wants_it(tmp_path, concurrency):
    with planned(tmp_path, "--static", f"/static={fill(tmp_path)}", "--static-symlinks", *concurrency) as site:
        assert site.get("/static/out").text == "secret"
        assert site.get("/static/up/secret").text == "secret"
        for name in ("device", "fifo", "socket", "../secret", ".hidden"):
            assert site.get(f"/static/{name}").status == 404


def test_what_is_not_there_is_the_applications(tmp_path, concurrency):
    public = fill(tmp_path)
    with planned(tmp_path, "--static", f"/={public}", "--static-fall-through", *concurrency) as site:
        assert site.get("/page.html").text == PAGE
        for method, target in [("GET", "/missing"), ("POST", "/page.html"), ("GET", "/.hidden"), ("GET", "/")]:
            assert site.get(target, method=method).json["PATH_INFO"] == target
            assert site.count(f"{method} {target}") == 1


def test_the_longest_prefix_counts(tmp_path, concurrency):
    public = fill(tmp_path)
    more = ["--static", f"/static/sub={public / '.well-known'}", "--static-max-age", "0", "--static-index", "data.json"]
    with planned(tmp_path, "--static", f"/static={public}", *more, *concurrency) as site:
        assert site.get("/static/sub/about").text == "known"
        assert site.get("/static/sub/index.html").status == 404
        page = site.get("/static/page.html")
        assert (page.text, page["cache-control"]) == (PAGE, None)


def test_what_holds_for_paths_holds_for_files(tmp_path, concurrency):
    public = fill(tmp_path)
    rules = ["--deny", "/static/sub 127.0.0.1", "--rate-limit", "/static 2/1h", "--security-headers", "default"]
    more = ["--cors-origins", "*", "--cache", "/ 1h"]
    with planned(tmp_path, "--static", f"/static={public}", *rules, *more, *concurrency) as site:
        assert site.get("/static/sub/data.json").status == 403
        assert site.get("/static/./sub/data.json").status == 403
        response = site.get("/static/page.html")
        assert (response["x-content-type-options"], response["access-control-allow-origin"]) == ("nosniff", "*")
        assert (response["cache-status"], response["ratelimit"].split(";")[1]) == (None, "r=1")
        assert [site.get("/static/page.html").status for _ in range(2)] == [200, 429]
