"""`anygate.wsgihandler` between a server and an application that both keep to PEP 3333, or do not."""

import gc
import io
import re
import sys
import threading
import warnings
import wsgiref.util
import zlib
from pathlib import Path
from wsgiref.validate import validator

import anygate
import pytest
from anygate.importer import LoadError
from anygate.middleware import LimitedInput
from waiting import PATIENCE, wait_until

TEXT = ("Content-Type", "text/plain")


class FileWrapper:
    """Some server's."""

    def __init__(self, file, block_bytes=8192):
        self.file, self.block_bytes = file, block_bytes

    def __iter__(self):
        return iter(lambda: self.file.read(self.block_bytes), b"")

    def close(self):
        self.file.close()


class Response:
    """What a server gets, step by step."""

    def __init__(self, application, path="/", method="GET", **environ):
        self.environ = {
            "REQUEST_METHOD": method,
            "SCRIPT_NAME": "",
            "PATH_INFO": path,
            "QUERY_STRING": "",
            "REMOTE_ADDR": "192.0.2.1",
            "wsgi.input": io.BytesIO(),
            "wsgi.errors": io.StringIO(),
            **{name.replace("__", "."): value for name, value in environ.items()},
        }
        wsgiref.util.setup_testing_defaults(self.environ)
        self.starts = []
        self.written = []
        self.iterable = application(self.environ, self.start)

    def start(self, status, headers, exc_info=None):
        self.starts.append((status, headers))
        return self.written.append

    def take(self):
        self.blocks = list(self.iterable)
        self.close()
        return self

    def close(self):
        close = getattr(self.iterable, "close", None)
        if close is not None:
            close()

    @property
    def status(self):
        ((status, _),) = self.starts
        return int(status[:3])

    def __getitem__(self, name):
        ((_, headers),) = self.starts
        found = [value for key, value in headers if key.lower() == name.lower()]
        return ", ".join(found) if found else None

    @property
    def body(self):
        body = b"".join([*self.written, *self.blocks])
        return zlib.decompress(body, 31) if self["content-encoding"] == "gzip" else body

    @property
    def errors(self):
        return self.environ["wsgi.errors"].getvalue()


def ask(application, path="/", method="GET", **environ):
    return Response(application, path, method, **environ).take()


class Blocks:
    """An iterable that counts what is done with it."""

    def __init__(self, *blocks):
        self.blocks, self.taken, self.closed = list(blocks), 0, 0

    def __iter__(self):
        return self

    def __next__(self):
        if self.taken == len(self.blocks):
            raise StopIteration
        self.taken += 1
        block = self.blocks[self.taken - 1]
        if isinstance(block, BaseException):
            raise block
        return block

    def close(self):
        self.closed += 1


def gives(response, status="200 OK", headers=(TEXT,)):
    def application(environ, start_response):
        start_response(status, list(headers))
        return response

    return application


EVERYTHING = {
    "compression": True,
    "compression_min_bytes": 10,
    "request_id": True,
    "security_headers": "default",
    "cors_origins": ["https://a.example"],
    "error_pages": "on",
    "cache": ["/cached 60s"],
    "rate_limit": ["/often 2/1h"],
    "requests_per_client_max": ["/once 1"],
    "body_limits": ["/small 100"],
}
ON = {"security_headers": "default"}
GZIP = {"HTTP_ACCEPT_ENCODING": "gzip"}


# With the checks of the standard library on both sides.


def checked(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/fails":
        raise ZeroDivisionError
    write = start_response("200 OK", [TEXT, ("Cache-Control", "max-age=3600")])
    if path == "/written":
        write(b"written " * 20)
    if path == "/blocks":
        return Blocks(b"", b"a block " * 20, b"", b"another " * 20)
    if path == "/input":
        return [environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))]
    return [] if path == "/empty" else [b"some text " * 20]


@pytest.mark.parametrize("options", [{}, ON, EVERYTHING], ids=["nothing", "little", "everything"])
@pytest.mark.parametrize("coding", ["identity", "gzip"])
def test_the_validator_finds_nothing_on_either_side(options, coding):
    application = validator(anygate.wsgihandler(validator(checked), **options))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for path in ("/", "/written", "/blocks", "/empty", "/cached", "/cached", "/often", "/often", "/often"):
            assert ask(application, path, HTTP_ACCEPT_ENCODING=coding).status in (200, 429)
        response = ask(application, "/input", "POST", CONTENT_LENGTH="5", wsgi__input=io.BytesIO(b"input"))
        assert response.body == b"input"
        if options is EVERYTHING:
            assert ask(application, "/fails").status == 500
            long = ask(application, "/small", "POST", CONTENT_LENGTH="101", wsgi__input=io.BytesIO(b"x" * 101))
            assert long.status == 413
        gc.collect()


# What goes on untouched.


def test_nothing_is_on():
    blocks = Blocks(b"a")
    seen = []

    def application(environ, start_response):
        seen.append((dict(environ), start_response))
        return blocks

    around = anygate.wsgihandler(application, deny=["10.0.0.0/8"])
    response = Response(around, HTTP_X_REQUEST_ID="theirs", wsgi__file_wrapper=FileWrapper)
    assert response.iterable is blocks
    assert seen == [(response.environ, response.start)]


def test_a_list_that_nobody_needs_is_the_servers():
    pieces = [b"a", b"b"]
    response = Response(anygate.wsgihandler(gives(pieces), **ON))
    assert response.iterable is pieces
    assert (response.status, response["content-length"], response["x-frame-options"]) == (200, "2", "SAMEORIGIN")


def test_blocks_that_nobody_needs_are_the_applications():
    blocks = Blocks(*(bytes([number]) * 5 for number in range(5)))
    response = ask(anygate.wsgihandler(gives(blocks), **ON))
    assert all(given is got for given, got in zip(blocks.blocks[1:], response.blocks[1:], strict=True))
    assert (response.body, blocks.closed) == (b"".join(blocks.blocks), 1)
    assert response["content-length"] is None


@pytest.mark.parametrize(("environ", "is_read"), [({}, False), (GZIP, True)])
def test_a_file_stays_a_file_unless_its_bytes_are_needed(tmp_path, environ, is_read):
    (tmp_path / "file").write_bytes(b"a line\n" * 50_000)
    file = open(tmp_path / "file", "rb")
    file.read(7)

    def application(environ, start_response):
        start_response("200 OK", [TEXT])
        return environ["wsgi.file_wrapper"](file, 1000)

    around = anygate.wsgihandler(application, compression=True)
    response = Response(around, wsgi__file_wrapper=FileWrapper, **environ)
    if is_read:
        assert response.iterable.__class__ is not FileWrapper
    else:
        assert (response.iterable.file, response.iterable.block_bytes) == (file, 1000)
        assert response["content-length"] == str(7 * 49_999)
    assert response.take().body == b"a line\n" * 49_999
    assert file.closed


@pytest.mark.parametrize("name", ["response_headers", "headers"])
def test_start_response_takes_names(name):
    def application(environ, start_response):
        start_response(status="200 OK", exc_info=None, **{name: [TEXT]})(data=b"by ")
        return [b"name"]

    response = Response(anygate.wsgihandler(application, request_id=True))
    assert b"".join([*response.written, *response.iterable]) == b"by name"
    assert TEXT in response.starts[0][1]


def test_a_server_without_a_file_wrapper_stays_so():
    def application(environ, start_response):
        assert "wsgi.file_wrapper" not in environ
        return gives([b"a"])(environ, start_response)

    assert ask(anygate.wsgihandler(application, **ON)).body == b"a"


def test_what_a_server_says_of_websockets_is_untouched():
    handled, socket = object(), object()

    def application(environ, start_response):
        assert environ["wsgi.websocket"] is socket
        return handled

    upgrade = {"HTTP_UPGRADE": "WebSocket", "HTTP_CONNECTION": "Upgrade", "wsgi__websocket": socket}
    around = anygate.wsgihandler(application, **{**EVERYTHING, "rate_limit": ["1/1h"]})
    assert Response(around, **upgrade).iterable is handled
    assert ask(around, **upgrade).status == 429

    def leaves(environ, start_response):
        # As Flask-Sock does under gunicorn.
        raise StopIteration

    with pytest.raises(StopIteration):
        Response(anygate.wsgihandler(leaves, **EVERYTHING), **upgrade)


# The application's side.


def test_heads_and_lengths():
    around = anygate.wsgihandler(gives([b"a text of some length"]), **EVERYTHING)
    plain, coded = ask(around), ask(around, **GZIP)
    assert (plain["content-length"], coded["content-length"]) == ("21", str(sum(map(len, coded.blocks))))
    assert plain.body == coded.body == b"a text of some length"
    head = ask(around, method="HEAD", **GZIP)
    assert head["content-encoding"] == "gzip"
    assert head.blocks == []


def test_a_block_comes_out_before_the_next_is_asked_for():
    blocks = Blocks(b"", b"first " * 10, b"", b"second " * 10)
    response = Response(anygate.wsgihandler(gives(blocks), **EVERYTHING), **GZIP)
    # The head is there before the server asks for anything.
    assert (response.status, blocks.taken) == (200, 2)
    decoder = zlib.decompressobj(31)
    assert decoder.decompress(next(response.iterable)) == b"first " * 10
    assert blocks.taken == 2
    assert decoder.decompress(next(response.iterable)) == b"second " * 10
    assert decoder.decompress(b"".join(response.iterable)) == b""
    assert decoder.eof
    response.close()
    assert blocks.closed == 1


def test_a_generator_may_start_late():
    def application(environ, start_response):
        start_response("200 OK", [TEXT])
        yield b"late"

    response = Response(anygate.wsgihandler(application, **ON))
    assert response.status == 200
    assert response.take().body == b"late"


def test_what_is_written_goes_to_the_servers_write():
    def application(environ, start_response):
        write = start_response("200 OK", [TEXT])
        write(b"one ")
        assert responses[0].written == [b"one "]
        write(b"two ")
        return [b"three"]

    responses = []

    def around(environ, start_response):
        responses.append(start_response.__self__)
        return anygate.wsgihandler(application, **ON)(environ, start_response)

    assert ask(around).body == b"one two three"


def test_exc_info_replaces_a_head_that_is_not_sent():
    def application(environ, start_response):
        start_response("200 OK", [TEXT])
        with pytest.raises(AssertionError):
            start_response("200 OK", [TEXT])
        try:
            raise ZeroDivisionError
        except ZeroDivisionError:
            start_response("503 Service Unavailable", [TEXT], sys.exc_info())
        return iter([b"sorry"])

    response = ask(anygate.wsgihandler(application, **ON))
    assert (response.status, response.body) == (503, b"sorry")


def test_exc_info_of_a_head_that_is_sent_is_raised():
    def application(environ, start_response):
        start_response("200 OK", [TEXT])
        yield b"begun"
        try:
            raise ZeroDivisionError("on purpose")
        except ZeroDivisionError:
            start_response("503 Service Unavailable", [TEXT], sys.exc_info())
        yield b"sorry"

    response = Response(anygate.wsgihandler(application, **EVERYTHING))
    assert next(response.iterable) == b"begun"
    with pytest.raises(ZeroDivisionError, match="on purpose"):
        next(response.iterable)


@pytest.mark.parametrize(
    ("response", "error"),
    [(["text"], TypeError), (iter([b"a", "text"]), TypeError), (b"bytes", TypeError), (None, TypeError)],
)
def test_what_is_no_response_is_an_error(response, error):
    with pytest.raises(error):
        ask(anygate.wsgihandler(gives(response), compression=True), **GZIP)


def test_an_application_that_never_starts_is_an_error():
    for response in ([], [b"a"], iter([])):
        with pytest.raises(AssertionError, match="start_response"):
            ask(anygate.wsgihandler(lambda environ, start_response, response=response: response, **ON))


# Failures.


@pytest.mark.parametrize("blocks", [[ZeroDivisionError("on purpose")], [b"", ZeroDivisionError("on purpose")]])
def test_a_failure_before_the_head_has_a_page_if_there_are_pages(blocks):
    made = Blocks(*blocks)
    response = Response(anygate.wsgihandler(gives(made), error_pages="on"), HTTP_ACCEPT="application/json")
    assert response.status == 500
    assert response.take().body.startswith(b'{"type":"about:blank"')
    assert made.closed == 1
    assert "anygate: the application failed: GET '/'\nTraceback" in response.errors
    assert response.errors.endswith("ZeroDivisionError: on purpose\n")
    named = Response(anygate.wsgihandler(gives(Blocks(*blocks)), error_pages="on", request_id=True)).take()
    name = f'request{{id="{named["x-request-id"]}"}}'
    assert f"anygate: {name}: the application failed: GET '/'\nTraceback" in named.errors
    made = Blocks(*blocks)
    with pytest.raises(ZeroDivisionError):
        Response(anygate.wsgihandler(gives(made), request_id=True))
    assert made.closed == 1


def test_a_failure_after_the_head_is_the_servers():
    blocks = Blocks(b"begun " * 10, ZeroDivisionError("on purpose"))
    response = Response(anygate.wsgihandler(gives(blocks), **EVERYTHING), **GZIP)
    next(response.iterable)
    with pytest.raises(ZeroDivisionError):
        next(response.iterable)
    response.close()
    response.close()
    assert (blocks.closed, response.errors) == (1, "")


def test_an_exit_is_no_failure():
    def application(environ, start_response):
        raise SystemExit(3)

    with pytest.raises(SystemExit):
        Response(anygate.wsgihandler(application, error_pages="on"))


def test_close_that_fails_is_the_servers():
    class Fails(Blocks):
        def close(self):
            raise ZeroDivisionError

    response = Response(anygate.wsgihandler(gives(Fails(b"a")), **EVERYTHING))
    list(response.iterable)
    with pytest.raises(ZeroDivisionError):
        response.close()


def test_a_stale_response_covers_a_failure():
    responses = [
        gives([b"good"], headers=[TEXT, ("Cache-Control", "max-age=0, stale-if-error=3600")]),
        lambda environ, start_response: 1 / 0,
    ]
    around = anygate.wsgihandler(lambda *arguments: responses.pop(0)(*arguments), cache="/")
    assert ask(around).body == b"good"
    covered = ask(around)
    assert (covered.status, covered.body) == (200, b"good")
    assert "ZeroDivisionError" in covered.errors


# The cache.


def test_a_stale_response_is_refreshed_when_the_server_has_it():
    headers = [TEXT, ("Cache-Control", "max-age=0, stale-while-revalidate=3600")]
    versions = []

    def application(environ, start_response):
        versions.append(Blocks(b"version %d" % len(versions), b"."))
        return gives(versions[-1], headers=headers)(environ, start_response)

    around = anygate.wsgihandler(application, cache="/")
    assert ask(around).body == b"version 0."
    stale = Response(around)
    assert list(stale.iterable) == [b"version 0."]
    assert len(versions) == 1
    stale.close()
    assert [blocks.closed for blocks in versions] == [1, 1]
    assert ask(around).body == b"version 1."


def test_no_exception_writes_a_line_of_the_log():
    def fails(environ, start_response):
        raise ValueError("told\nanygate: forged\r\x1b[2J")

    response = ask(anygate.wsgihandler(fails, error_pages="on"))
    assert response.status == 500
    assert response.errors.endswith("ValueError: told\n    anygate: forged\\r\\x1b[2J\n")


def test_a_refresh_that_fails_is_for_the_log():
    responses = [
        gives([b"good"], headers=[TEXT, ("Cache-Control", "max-age=0, stale-while-revalidate=3600")]),
        gives(Blocks(b"bad", ZeroDivisionError("on purpose"))),
    ]
    around = anygate.wsgihandler(lambda *arguments: responses.pop(0)(*arguments), cache="/")
    ask(around)
    stale = ask(around)
    assert (stale.body, stale.errors.count("ZeroDivisionError: on purpose")) == (b"good", 1)


def test_a_list_is_stored_before_the_server_has_it():
    around = anygate.wsgihandler(gives([b"a"]), cache="/ 60s")
    first = Response(around)
    assert "hit" in ask(around)["cache-status"]
    assert first.take().body == b"a"


def test_half_a_response_is_not_stored():
    made = []

    def application(environ, start_response):
        made.append(Blocks(b"one ", b"two"))
        return gives(made[-1])(environ, start_response)

    around = anygate.wsgihandler(application, cache="/ 60s")
    first = Response(around)
    assert next(first.iterable) == b"one "
    first.close()
    assert [ask(around).body for _ in range(2)] == [b"one two"] * 2
    assert [blocks.closed for blocks in made] == [1, 1]


def test_a_response_that_is_forgotten_holds_nobody_up():
    around = anygate.wsgihandler(gives(Blocks(b"a", b"b")), cache="/ 60s", requests_per_client_max="1")
    response = Response(around, wsgi__multithread=True)
    assert ask(around).status == 429
    del response
    gc.collect()
    assert ask(around).status == 200


def wait_asleep(thread):
    """Wait until a thread waits."""
    seen = [[]]

    def is_asleep():
        status = Path(f"/proc/self/task/{thread.native_id}/status").read_text()
        seen.append(re.findall(r"State:\tS|ctxt_switches:\t\d+", status))
        # It sleeps, and it has not run since the last look.
        return len(seen[-1]) == 3 and seen[-1] == seen[-2]

    wait_until(is_asleep, "that the thread waits")


def test_requests_wait_for_one_another_if_they_are_threads():
    entered, go = threading.Event(), threading.Event()

    def application(environ, start_response):
        entered.set()
        go.wait(PATIENCE)
        return gives([b"slow"])(environ, start_response)

    for multithread, calls in [(True, 1), (False, 2)]:
        counted = []

        def counting(*arguments, counted=counted):
            counted.append(1)
            return application(*arguments)

        around = anygate.wsgihandler(counting, cache="/ 60s")
        entered.clear()
        go.clear()
        threads = [
            threading.Thread(target=ask, args=(around,), kwargs={"wsgi__multithread": multithread}) for _ in range(2)
        ]
        threads[0].start()
        assert entered.wait(PATIENCE)
        threads[1].start()
        if multithread:
            wait_asleep(threads[1])
        else:
            wait_until(lambda calls=counted: len(calls) == 2, "that the second is inside")
        go.set()
        for thread in threads:
            thread.join(PATIENCE)
        assert len(counted) == calls


@pytest.mark.parametrize(
    ("program", "has"),
    [
        ("", False),
        ("import gevent", False),
        ("import gevent; gevent.sleep(0)", True),
        ("from gevent import monkey; monkey.patch_all()", True),
        ("import eventlet", False),
        ("import eventlet; eventlet.monkey_patch()", True),
    ],
)
def test_greenlets_are_noticed(run, program, has):
    program = f"{program}\nfrom anygate.middleware import has_greenlets\nprint(has_greenlets())"
    assert run("-W", "ignore", "-c", program, command=[sys.executable]).stdout == f"{has}\n"


def test_a_check_responds_before_the_first_request(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "some_check.py").write_text("def ill():\n    return False\ndef well():\n    return True\n")
    for check, status in [("some_check:ill", 503), ("some_check:well", 200), ("some_check:nothing", 503)]:
        around = anygate.wsgihandler(gives([b"a"]), ready_path="/ready", ready_check=check)
        assert [ask(around, path).status for path in ("/ready", "/ready", "/")] == [status, status, 200]


FORKS = """
import os, signal, sys, wsgiref.util
import anygate

def app(environ, start_response):
    if environ["PATH_INFO"] == "/hold" and held:
        os.write(held[1], b"h")
        signal.pause()
    start_response("200 OK", [])
    return [b""]

def ask(path):
    environ = {"PATH_INFO": path, "REMOTE_ADDR": "192.0.2.1", "wsgi.errors": sys.stderr}
    wsgiref.util.setup_testing_defaults(environ)
    def start_response(status, headers):
        print(os.getpid() == parent, path, status[:3], flush=True)
    around(environ, start_response)

parent, held = os.getpid(), None
around = anygate.wsgihandler(app, rate_limit=["/rate 2/1h"], requests_per_client_max=["/hold 1"])
if "late" not in sys.argv:
    ask("/rate")
held = os.pipe()
child = os.fork()
if child == 0:
    ask("/rate")
    ask("/hold")
os.read(held[0], 1)
held = None
ask("/rate")
ask("/hold")
os.kill(child, signal.SIGKILL)
os.waitpid(child, 0)
if os.fork() == 0:
    ask("/hold")
    os._exit(0)
os.wait()
ask("/hold")
"""


@pytest.mark.parametrize(("when", "before"), [("early", ["True /rate 200"]), ("late", [])])
def test_processes_count_together(run, when, before):
    """Also those that were forked from one that had responded, and the place of one that was killed."""
    ended = run("-c", FORKS, when, command=[sys.executable])
    asked = ["True /rate 429" if before else "True /rate 200", "True /hold 429", "False /hold 200", "True /hold 200"]
    assert ended.stdout.splitlines() == [*before, "False /rate 200", *asked], ended.stderr


# What is said about the request.


def test_the_environ_says_what_became_of_the_request():
    def application(environ, start_response):
        seen.append(dict(environ))
        return gives([b"a"], headers=[TEXT, ("ETag", '"a"'), ("Cache-Control", "no-cache")])(environ, start_response)

    seen = []
    around = anygate.wsgihandler(application, cache="/", request_id=True, trace_context=True)
    ask(around, HTTP_TRACESTATE="a=b")
    ask(around, HTTP_IF_NONE_MATCH='"mine"')
    assert [environ.get("HTTP_IF_NONE_MATCH") for environ in seen] == [None, '"a"']
    assert len({environ["HTTP_X_REQUEST_ID"] for environ in seen}) == 2
    assert "HTTP_TRACESTATE" not in seen[0]
    assert seen[0]["HTTP_TRACEPARENT"].startswith("00-")


def test_forwarded_fields_stay_unless_proxies_are_named():
    def application(environ, start_response):
        seen.append({name: environ.get(name) for name in names})
        return gives([b"a"])(environ, start_response)

    names = (
        "REMOTE_ADDR",
        "HTTP_X_FORWARDED_FOR",
        "HTTP_HOST",
        "SCRIPT_NAME",
        "wsgi.url_scheme",
        "HTTPS",
        "SERVER_PORT",
    )
    seen = []
    fields = {
        "HTTP_X_FORWARDED_FOR": "10.1.1.1, 192.0.2.7",
        "HTTP_X_FORWARDED_HOST": "example.org",
        "HTTP_X_FORWARDED_PROTO": "https",
        "HTTP_X_FORWARDED_PREFIX": "/below",
        "SERVER_PORT": "8000",
    }
    for proxies, remote in [([], "10.0.0.1"), (["10.0.0.0/8"], "10.0.0.1"), (["10.0.0.0/8", "unix"], "")]:
        ask(anygate.wsgihandler(application, **ON, trusted_proxies=proxies), REMOTE_ADDR=remote, **fields)
    assert seen[0]["REMOTE_ADDR"] == "10.0.0.1"
    assert seen[0]["HTTP_X_FORWARDED_FOR"] == "10.1.1.1, 192.0.2.7"
    for believed in seen[1:]:
        assert believed == {
            "REMOTE_ADDR": "192.0.2.7",
            "HTTP_X_FORWARDED_FOR": "192.0.2.7",
            "HTTP_HOST": "example.org",
            "SCRIPT_NAME": "/below",
            "wsgi.url_scheme": "https",
            "HTTPS": "on",
            "SERVER_PORT": "443",
        }


@pytest.mark.parametrize(
    "environ",
    [
        {"REQUEST_METHOD": "A B"},
        {"HTTP_HOST": "a/b"},
        {"HTTP_X": "a\nb"},
        {"REQUEST_URI": "not a target"},
        {"CONTENT_LENGTH": "-1"},
    ],
)
def test_what_is_no_request_is_refused(environ):
    around = anygate.wsgihandler(gives([b"a"]), error_pages="on", security_headers="default")
    response = Response(around)
    environ = {**response.environ, **environ}
    for scheme, stays in [("http", None), ("https", "max-age=31536000")]:
        response = ask(around, **{**environ, "wsgi__url_scheme": scheme})
        assert (response.status, response["x-content-type-options"]) == (400, "nosniff")
        assert response["strict-transport-security"] == stays


def test_variables_of_the_machine_are_no_part_of_a_request():
    response = ask(anygate.wsgihandler(gives([b"a"]), **ON), LS_COLORS="a\nb", HTTPS="on", wsgi__url_scheme="http")
    assert (response.status, response["strict-transport-security"]) == (200, None)


def test_paths_are_bytes():
    def application(environ, start_response):
        start_response("200 OK", [TEXT])
        return [environ["PATH_INFO"].encode("latin-1")]

    around = anygate.wsgihandler(application, deny=["/caf\u00e9 192.0.2.0/24"], request_id=True)
    assert ask(around, "/caf\u00c3\u00a9").status == 403
    assert ask(around, "/caf\u00e9").body == b"/caf\xe9"


# Bodies.


def test_a_body_of_unknown_length_is_cut_off():
    def application(environ, start_response):
        received = environ["wsgi.input"].read()
        return gives([b"%d" % len(received)])(environ, start_response)

    chunked = {"HTTP_TRANSFER_ENCODING": "chunked", "wsgi__input_terminated": True}
    for options in ({"body_limits": ["/ 100"]}, {"body_max_bytes": 100}):
        around = anygate.wsgihandler(application, **options)
        assert ask(around, method="POST", wsgi__input=io.BytesIO(b"x" * 100), **chunked).body == b"100"
        assert ask(around, method="POST", wsgi__input=io.BytesIO(b"x" * 101), **chunked).status == 413
        known = {"CONTENT_LENGTH": "101"}
        assert ask(around, method="POST", wsgi__input=io.BytesIO(b"x" * 101), **known).status == 413


def test_an_input_with_a_limit_reads_as_others_do():
    def made():
        return LimitedInput(io.BytesIO(b"one\ntwo\n\nfour"), 13)

    assert made().read() == made().read(-1) == made().read(100) == b"one\ntwo\n\nfour"
    assert list(made()) == made().readlines() == [b"one\n", b"two\n", b"\n", b"four"]
    stream = made()
    assert (stream.read(2), stream.readline(), stream.readline(2), stream.readlines(1)) == (
        b"on",
        b"e\n",
        b"tw",
        [b"o\n"],
    )
    for method in ("read", "readline", "readlines"):
        with pytest.raises(OSError, match="the request body is too large"):
            getattr(LimitedInput(io.BytesIO(b"x" * 14), 13), method)()


# Options.


def test_options_and_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "anygate.toml").write_text(
        'bind = ["127.0.0.1:1"]\nworkers = 3\nuser = "nobody"\nrequest_id = true\nhealth_path = "/health"\n'
        'web2py = "nowhere"\nssl_certificate = "nowhere.pem"\n\n[[cron]]\nname = "a"\n'
    )
    around = anygate.wsgihandler(gives([b"a"]), config="anygate.toml", health_path="/alive", compression=None)
    assert ask(around)["x-request-id"]
    assert [ask(around, path).body for path in ("/alive", "/health")] == [b"OK", b"a"]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"bind": "127.0.0.1:1"}, TypeError, "^bind: needs anygate's own server, and another one serves here$"),
        ({"queue_max": 5}, TypeError, "^queue_max: needs anygate's own server"),
        ({"connections_per_client_max": 5}, TypeError, "^connections_per_client_max: needs anygate's own server"),
        ({"compresion": True}, TypeError, "^there is no option compresion; did you mean compression\\?$"),
        ({"compression": "maybe"}, ValueError, "^compression: "),
        ({"rate_limit": ["often"]}, ValueError, "^rate_limit: "),
        ({"static": ["/static=nowhere"]}, ValueError, "^static: "),
        ({"config": "nowhere.toml"}, ValueError, "^nowhere.toml: cannot be read"),
    ],
)
def test_wrong_options_are_named(options, error, message):
    with pytest.raises(error, match=message):
        anygate.wsgihandler(gives([b"a"]), **options)


@pytest.mark.parametrize("text", ["compresion = true", "request_id = 7", 'rate_limit = ["often"]', "workers = true"])
def test_wrong_files_are_named(tmp_path, text):
    file = tmp_path / "own.toml"
    file.write_text(text)
    with pytest.raises(ValueError, match=f"own.toml: {text.split(' ')[0]}: |{text.split(' ')[0]} in .*own.toml"):
        anygate.wsgihandler(gives([b"a"]), config=file)


def test_what_protects_in_vain_is_warned_of(tmp_path):
    file = tmp_path / "own.toml"
    file.write_text("queue_max = 5\nconnections_per_client_max = 5\n")
    with pytest.warns(RuntimeWarning) as warned:
        anygate.wsgihandler(gives([b"a"]), config=file)
    names = ["connections_per_client_max", "queue_max"]
    assert [str(warning.message).split(" ")[0] for warning in warned] == names
    assert {warning.filename for warning in warned} == {__file__}


def test_an_application_may_be_named(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "named_application.py").write_text(
        "def app(environ, start_response):\n    start_response('200 OK', [])\n    return [b'named']\n"
    )
    around = anygate.wsgihandler("named_application:app", pythonpath=[tmp_path / "below"], **ON)
    assert ask(around).body == b"named"
    with pytest.raises(LoadError, match="has no attribute 'ap'; did you mean 'app'"):
        anygate.wsgihandler("named_application:ap")
