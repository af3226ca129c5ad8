"""The module `uwsgi` (`uwsgi_module`): what applications that were written for uWSGI use of it."""

import contextlib
import os
import signal
import time

import pytest

APP = """
import os, select
import uwsgi
from uwsgidecorators import cron, lock, postfork, rbtimer, spool, thread, timer
from uwsgidecorators import signal as on_signal

NOTES = []
INITIALISED = []

def note(word):
    with open("notes", "a", buffering=1) as file:
        file.write(f"{word} {uwsgi.worker_id()} {os.getpid()}\\n")

@postfork
def begin(): INITIALISED.append(uwsgi.worker_id())

@timer(1)
def each_second(number): note("timer")

@rbtimer(1, iterations=2)
def twice(number): note("rbtimer")

@cron(-1, -1, -1, -1, -1)
def each_minute(number): note("cron")

@on_signal(40, target="workers")
def for_all(number): note("all")

@on_signal(41)
def for_one(number): note("one")

@on_signal(42)
def fails(number): raise ValueError("the signal fails")

@spool
def later(arguments):
    note("spooled-" + arguments["word"])
    return uwsgi.SPOOL_OK

@spool(pass_arguments=True)
def add(first, second=0): note(f"sum-{first + second}")

@lock
def counted():
    with open("count") as file: number = int(file.read())
    select.select([], [], [], 0.001)
    with open("count", "w") as file: file.write(str(number + 1))

@thread
def beside(): note("thread")

def leave(): note("atexit")
uwsgi.atexit = leave

def app(environ, start_response):
    if environ["PATH_INFO"] not in ("/", f"/{uwsgi.worker_id()}"):
        start_response("421 Misdirected Request", [])
        return []
    result = eval(environ["QUERY_STRING"].replace("%20", " ").replace("%22", '"'))
    start_response("200 OK", [])
    return [repr(result).encode()]
"""

KINDS = pytest.mark.parametrize("kind", [[], ["--preload"], ["--concurrency", "gevent"]])


@pytest.fixture
def site(tmp_path):
    (tmp_path / "app.py").write_text(APP)
    (tmp_path / "notes").touch()
    (tmp_path / "count").write_text("0")
    return tmp_path


@pytest.fixture
def lines(site):
    """What was noted of a word: worker and process."""
    return lambda word: [
        line.split()[1:] for line in (site / "notes").read_text().splitlines() if line.split()[0] == word
    ]


def ask(served, expression, worker=""):
    """The value of an expression, in a worker of that number."""

    target = f"/{worker}?" + expression.replace(" ", "%20").replace('"', "%22")
    with contextlib.ExitStack() as connections:

        def asked():
            # Connections that stay open have the next one go to another worker.
            response = connections.enter_context(served.connect()).ask(target=target)
            assert response.status in (200, 421), served.log()
            return response if response.status == 200 else None

        return eval(served.wait_until(asked, f"worker {worker}").text)


@KINDS
def test_workers_share_cache_metrics_and_know_each_other(serve, site, kind):
    served = serve("app:app", "--uwsgi-module", "--workers", "2", "--threads", "2", *kind)
    assert ask(served, 'uwsgi.cache_set("key", "value")', 1) is True
    assert ask(served, 'uwsgi.cache_get("key")', 2) == b"value"
    assert ask(served, 'uwsgi.cache_set("key", "other")', 2) is None
    assert ask(served, 'uwsgi.cache_update("key", b"x" * 5000, 0, "mine")', 2) is True
    assert ask(served, 'uwsgi.cache_get("key"), len(uwsgi.cache_get("key", "mine"))', 1) == (b"value", 5000)
    assert ask(served, 'uwsgi.cache_del("key"), uwsgi.cache_del("key"), uwsgi.cache_exists("key")', 1) == (
        True,
        None,
        None,
    )
    assert ask(served, 'uwsgi.cache_inc("n"), uwsgi.cache_inc("n", 5), uwsgi.cache_num("n")', 1) == (True, True, 6)
    assert ask(served, 'uwsgi.cache_clear("mine"), uwsgi.cache_keys("mine"), uwsgi.cache_keys()', 2) == (
        True,
        [],
        [b"n"],
    )
    assert ask(served, 'uwsgi.metric_inc("m", 3)', 1) is True
    assert ask(served, 'uwsgi.metric_get("m")', 2) == 3
    assert ask(served, "uwsgi.masterpid(), uwsgi.numproc", 2) == (served.pid, 2)
    for number in (1, 2):
        assert ask(served, "INITIALISED", number) == [number]
    assert [one["id"] for one in ask(served, "uwsgi.workers()")] == [1, 2]
    assert sorted(one["pid"] for one in ask(served, "uwsgi.workers()")) == served.workers()
    options = ask(served, "uwsgi.opt")
    assert (options["processes"], options["module"], options["master"]) == (b"2", b"app:app", True)
    assert ask(served, 'uwsgi.log("a line")') is True
    served.wait_for_log("a line")


def test_values_expire_and_a_cache_outlives_a_worker_that_was_changing_it(serve, site):
    served = serve("app:app", "--uwsgi-module", "--workers", "1")
    assert ask(served, 'uwsgi.cache_set("short", "a", 1), uwsgi.cache_set("long", "b")') == (True, True)
    served.wait_until(lambda: ask(served, 'uwsgi.cache_get("short")') is None, "the end of a value")
    assert ask(served, 'uwsgi.cache_get("long")') == b"b"
    # It has begun to change the cache, and ends.
    with served.connect() as connection:
        connection.send("GET /?uwsgi._memory.cache().__enter__(),os.kill(os.getpid(),9) HTTP/1.1\r\nHost: a\r\n\r\n")
        assert connection.rest() == b""
    assert ask(served, 'uwsgi.cache_get("long"), uwsgi.cache_set("long", "c"), uwsgi.cache_get("long")') == (
        None,
        True,
        b"c",
    )


@KINDS
def test_a_lock_excludes_threads_and_workers(serve, site, kind):
    served = serve("app:app", "--uwsgi-module", "--workers", "2", "--threads", "4", *kind)
    connections = [served.connect() for _ in range(20)]
    for connection in connections:
        connection.send("GET /?counted() HTTP/1.1\r\nHost: a\r\n\r\n")
    for connection in connections:
        assert connection.response().status == 200
        connection.close()
    assert (site / "count").read_text() == "20"
    assert ask(served, "uwsgi.is_locked(), uwsgi.lock(), uwsgi.is_locked(), uwsgi.unlock()") == (
        False,
        None,
        True,
        None,
    )


@KINDS
def test_signals_and_timers_run_in_the_workers_that_are_meant(serve, site, lines, kind):
    began = time.monotonic()
    served = serve("app:app", "--uwsgi-module", "--workers", "2", *kind)
    ask(served, "uwsgi.signal(40)", 1)
    served.wait_until(lambda: sorted(number for number, _ in lines("all")) == ["1", "2"], "both workers")
    ask(served, "uwsgi.signal(41)", 2)
    served.wait_until(lambda: [number for number, _ in lines("one")] == ["2"], "one worker")
    ask(served, "uwsgi.signal(42)")
    served.wait_for_log("ValueError: the signal fails")
    served.wait_until(lambda: len(lines("timer")) >= 3, "the timer")
    # One worker each time, however many there are.
    assert len(lines("timer")) <= time.monotonic() - began + 3
    served.wait_until(lambda: len(lines("rbtimer")) == 2, "the timer that ends")
    assert len(lines("cron")) <= 2
    # Another worker goes on when one dies.
    os.kill(int(lines("timer")[-1][1]), signal.SIGKILL)
    count = len(lines("timer"))
    served.wait_until(lambda: len(lines("timer")) > count + 1, "the timer")


@KINDS
def test_tasks_and_threads_run_beside_requests(serve, site, lines, kind):
    served = serve("app:app", "--uwsgi-module", *kind)
    ask(served, 'later.spool(word="one"), later.spool({"word": "two"}), add.spool(1, second=2), beside() and 0')
    for word in ("spooled-one", "spooled-two", "sum-3", "thread"):
        served.wait_until(lambda word=word: lines(word), word)
    pid = served.workers()[0]
    assert ask(served, "uwsgi.reload()") is True
    served.wait_for_log("reloaded: 1 new worker is serving")
    served.wait_until(lambda: [str(pid)] == [process for _, process in lines("atexit")], "the end of the old worker")


def test_what_is_not_there_says_what_to_use(serve, site):
    served = serve("app:app", "--uwsgi-module")
    assert served.get('/?__import__("uwsgidecorators").mule(1)'.replace('"', "%22")).status == 500
    served.wait_for_log("there are no mules: a [[daemon]] is a process beside the workers")
    assert served.get('/?uwsgi.cache_get("a","mine@192.0.2.1:3031")'.replace('"', "%22")).status == 500
    served.wait_for_log("'mine@192.0.2.1:3031' is a cache of another server")
