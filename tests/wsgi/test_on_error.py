"""`on_error`: the site's own function is told of what its application raises. See tests/apps/failing.py."""

import select

import pytest
from conftest import APPS
from websocket_frames import TEXT, Client, frame

KINDS = {"threads": (), "gevent": ("--concurrency", "gevent")}


@pytest.fixture(params=KINDS)
def kind(request):
    return KINDS[request.param]


@pytest.fixture
def failing(serve, kind):
    return lambda *more: serve("failing:application", "--pythonpath", APPS, *kind, "--on-error", "failing:tell", *more)


def told(served):
    return [note for note in served.get("/noted").json if "told" in note]


@pytest.mark.parametrize(
    ("path", "error", "frame"),
    [
        ("/call", "ValueError: in the call", "call"),
        ("/first_block", "ValueError: in the first block", "raising"),
        ("/later_block", "ValueError: in a later block", "raising"),
        ("/closing", "OSError: in close()", "close"),
        ("/leaves", "SystemExit: 3", "leaves"),
        ("/handled_too_late", "ValueError: handled too late", "handled_too_late"),
    ],
)
def test_it_is_told_once_where_the_request_is(failing, path, error, frame):
    served = failing()
    served.get(path)
    # A response may be there before it is closed.
    served.wait_until(lambda: told(served), "the function to be called")
    (note,) = told(served)
    assert note["path"] == path
    assert note["told"] == note["handled"] == error
    assert note["same"]
    assert note["here"]
    assert frame in note["frames"]
    assert note["frames of sys"][-len(note["frames"]) :] == note["frames"]
    assert "failures.py" not in served.log()
    served.wait_for_log(error)


def test_it_is_told_of_what_breaks_the_rules(failing):
    served = failing()
    assert served.get("/blocks").status == 500
    (note,) = told(served)
    assert note["told"].startswith("TypeError: the application must yield bytes")


@pytest.mark.parametrize("path", ["/fine", "/handled"])
def test_it_is_not_told_of_what_an_application_handles_itself(failing, path):
    served = failing()
    served.get(path)
    assert told(served) == []


def test_it_is_told_before_close_which_sees_the_exception_too(failing):
    """As in the `finally` of the example in PEP 3333."""
    served = failing()
    served.get("/first_block")
    first, second = served.get("/noted").json
    assert first["told"] == second["closed"] == "ValueError: in the first block"


def test_close_of_a_whole_response_sees_no_exception(failing):
    served = failing()
    served.get("/fine")
    assert served.get("/noted").json == [{"closed": None}]


def test_two_exceptions_are_told_one_after_the_other(failing):
    served = failing()
    assert served.get("/both").status == 500
    first, closed, second = served.get("/noted").json
    assert first["told"] == closed["closed"] == "ValueError: in the first block"
    assert second["told"] == second["handled"] == "OSError: in close()"
    served.wait_for_log("the application failed: GET /both failed\n")
    served.wait_for_log("the application failed: close() of its response failed as well\n")
    served.wait_for_log("During handling of the above exception, another exception occurred:")


def test_all_that_is_logged_of_a_request_has_its_name(failing):
    served = failing("--request-id")
    name = served.get("/both")["x-request-id"]
    lines = [line for line in served.log().splitlines() if "the application failed" in line]
    assert len(lines) == 2
    assert all(f'id="{name}"' in line for line in lines)


def test_a_response_stands_although_closing_it_fails(failing):
    served = failing()
    with served.connect() as connection:
        assert connection.ask("GET", "/closing").body == b"all"
        (note,) = [note for note in connection.ask("GET", "/noted").json if "told" in note]
        assert note["told"] == "OSError: in close()"


def test_the_log_has_it_already_and_the_client_nothing_yet(failing, tmp_path):
    served, sign = failing(), tmp_path / "sign"
    with served.connect() as connection:
        connection.send(f"GET /tell_waits?{sign} HTTP/1.1\r\nHost: a\r\n\r\n")
        served.wait_until((tmp_path / "sign.awaited").exists, "the function to be called")
        served.wait_for_log("ValueError: tell waits")
        assert select.select([connection.socket], [], [], 0)[0] == []
        sign.touch()
        assert connection.response().status == 500


def test_a_function_that_fails_changes_nothing_else(failing):
    served = failing()
    with served.connect() as connection:
        response = connection.ask("GET", "/tell_fails")
        assert (response.status, response.body) == (500, b"500 Internal Server Error\n")
        assert connection.ask("GET", "/fine").body == b"fine"
    served.wait_for_log("the application failed: its on_error failed\n")
    served.wait_for_log("LookupError: in the hook")
    assert served.log().count("the application failed: GET /tell_fails failed\n") == 1


def test_a_client_that_goes_away_is_no_failure(failing):
    served = failing()
    with served.connect() as connection:
        connection.send("GET /endless HTTP/1.1\r\nHost: a\r\n\r\n")
        connection.take(100_000)
        connection.reset()
    served.wait_until(lambda: served.get("/noted").json, "close() after a disconnect")
    (note,) = served.get("/noted").json
    assert note["closed"].startswith("BrokenPipeError")


def test_it_is_told_of_a_request_that_takes_too_long(failing):
    served = failing("--request-timeout", "2s")
    assert served.get("/sleeps").status == 504
    served.wait_until(lambda: told(served), "the function to be called")
    (note,) = told(served)
    assert note["told"] == note["handled"] == "RequestTimeout: "
    assert note["here"]
    assert "Traceback" not in served.log()


def test_a_function_that_takes_too_long_is_interrupted(failing, tmp_path):
    served, sign = failing("--request-timeout", "2s"), tmp_path / "sign"
    assert served.get(f"/tell_waits?{sign}").status == 504
    served.wait_for_log("in wait_for")
    assert served.get("/fine").body == b"fine"
    assert len(told(served)) == 1
    assert "on_error failed" not in served.log()


@pytest.mark.parametrize("ends", ["lost", "failed"])
def test_a_session_that_ends_is_no_failure_but_one_that_fails_is(failing, ends):
    served = failing()
    with Client(served.address).open("/websocket") as client:
        if ends == "lost":
            client.reset()
        else:
            client.send(frame(TEXT, b"go on"))
            client.rest()
    served.wait_until(lambda: {"websocket": True} in served.get("/noted").json, "the session to end")
    if ends == "lost":
        # Another failure comes behind it.
        served.get("/call")
        assert [note["told"] for note in told(served)] == ["ValueError: in the call"]
    else:
        served.wait_until(lambda: told(served), "the function to be called")
        assert [note["told"] for note in told(served)] == ["ValueError: in a session"]


@pytest.mark.parametrize("more", [(), ("--preload",), ("--workers", "2")])
@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("failing:tel", "cannot load on_error failing:tel: 'failing' has no attribute 'tel'; did you mean 'tell'?"),
        ("failin:tell", "cannot load on_error failin:tell: there is no module 'failin'"),
        ("failing:NOTED", "cannot load on_error failing:NOTED: it is a list, not a function"),
        (
            "failing:being_handled",
            "cannot load on_error failing:being_handled: it is called with the arguments environ and exc_info, which "
            "it does not accept",
        ),
        ("broken:tell", "cannot load on_error broken:tell: it raised ZeroDivisionError while it was imported\nTrace"),
    ],
)
def test_a_wrong_name_is_an_error_at_start(run, tmp_path, kind, more, target, message):
    (tmp_path / "broken.py").write_text("1 / 0\n")
    arguments = ["failing:application", "--pythonpath", APPS, "-p", "0", *kind, *more, "--on-error", target]
    ended = run(*arguments)
    assert ended.returncode == 3
    assert message in ended.stderr
    assert "importer.py" not in ended.stderr


@pytest.mark.parametrize("target", ["tell", "failing:tell()"])
def test_what_is_no_name_at_all_is_wrong_usage(run, target):
    ended = run("failing:application", "--on-error", target)
    assert ended.returncode == 2
    assert f'anygate: error: --on-error: "{target}" must be module:function' in ended.stderr


@pytest.mark.parametrize("target", ["failing.py:tell", "failing:tell"])
def test_a_file_is_one_module_whoever_names_it(serve, target):
    """What is noted there is seen by the application."""
    served = serve("failing.py", "--on-error", target, folder=APPS)
    served.get("/call")
    assert len(told(served)) == 1


def test_a_program_names_it_too(tmp_path, monkeypatch):
    import anygate

    monkeypatch.syspath_prepend(APPS)
    import failing

    with anygate.Server(failing.application, port=0, on_error="failing:tell") as server:
        from wire import Connection

        host, port = server.url.removeprefix("http://").split(":")
        with Connection((host, int(port))) as connection:
            assert connection.ask("GET", "/call").status == 500
    assert failing.NOTED.pop()["told"] == "ValueError: in the call"
    with pytest.raises(ValueError, match="cannot load on_error failing:none"):
        anygate.Server(failing.application, port=0, on_error="failing:none").start()
