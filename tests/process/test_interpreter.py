"""How the interpreter of workers is set up."""

import json

import pytest
from waiting import wait_until

#: What the interpreter says of itself, in a thread or greenlet that runs a request.
SHOWING = """
import gc, json, sys, threading

def app(environ, start_response):
    start_response("200 OK", [])
    shown = {"frozen": gc.get_freeze_count(), "threshold": gc.get_threshold(), "depth": sys.getrecursionlimit(),
             "stack": threading.stack_size(), "collections": gc.get_stats()[2]["collections"]}
    return [json.dumps(shown).encode()]
"""


@pytest.fixture
def show(serve, tmp_path):
    (tmp_path / "app.py").write_text(SHOWING)

    def start(*options):
        served = serve("app:app", *options)
        return lambda: json.loads(served.get().body)

    return start


@pytest.mark.parametrize(
    ("options", "is_frozen"),
    [((), False), (("--gc-freeze",), True), (("--preload",), True), (("--preload", "--no-gc-freeze"), False)],
)
def test_what_was_imported_is_frozen_with_preload_or_if_asked(show, options, is_frozen):
    # The frozen ones are thousands; the interpreter itself may have a few.
    assert (show(*options)()["frozen"] > 5000) == is_frozen


@pytest.mark.parametrize("kind", [(), ("--preload",), ("--concurrency", "gevent")], ids=str)
def test_limits_apply_where_requests_run(show, kind):
    limits = ("--recursion-limit", "2345", "--thread-stack-size", "512K")
    shown = show(*limits, *(f"--gc-threshold={number}" for number in (5000, 11, 12)), *kind)()
    assert (shown["threshold"], shown["depth"], shown["stack"]) == ([5000, 11, 12], 2345, 512 * 1024)


@pytest.mark.parametrize("kind", [(), ("--preload",), ("--concurrency", "gevent")], ids=str)
def test_garbage_is_collected_at_an_interval(show, kind):
    ask = show("--gc-threshold", "0", "--gc-collect-interval", "50ms", *kind)
    before = ask()["collections"]
    wait_until(lambda: ask()["collections"] >= before + 3, "collections", lambda: str(ask()))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--gc-threshold=1", "--gc-threshold=x"], 'error: --gc-threshold: "x" must be a whole number'),
        ([f"--gc-threshold={number}" for number in (1, 2, 3, 4)], 'error: --gc-threshold: "4" is one too many'),
        (["--thread-stack-size", "1K"], "error: --thread-stack-size: "),
    ],
)
def test_what_cannot_be_is_refused(run, options, message):
    refused = run("app:app", "--port", "0", *options)
    assert refused.returncode == 2
    assert message in refused.stderr
