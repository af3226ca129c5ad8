"""Under servers that fork: no lock of a log stays locked in a process that was forked while a thread had it."""

import os
import subprocess
import sys
import threading

import pytest
from waiting import PATIENCE

#: Threads write the access log, whose reader is slow, while the process is forked again and again; children do, too.
FORKING = """
import os, select, sys, threading
from wsgiref.util import setup_testing_defaults
import anygate

def hello(environ, start_response):
    start_response("200 OK", [])
    return [b"hello"]

app = anygate.wsgihandler(hello, access_log=["-"])

def ask():
    environ = {"QUERY_STRING": "x" * 2000, "REMOTE_ADDR": "192.0.2.1"}
    setup_testing_defaults(environ)
    response = app(environ, lambda status, fields, exc_info=None: None)
    list(response)
    getattr(response, "close", lambda: None)()

def ask_always():
    while True:
        ask()

def fork(count):
    for _ in range(count):
        pid = os.fork()
        if not pid:
            ask()
            os._exit(0)
        ended = os.pidfd_open(pid)
        if not select.select([ended], [], [], float(sys.argv[1]))[0]:
            os.kill(pid, 9)
            print("a process that was forked is stuck", file=sys.stderr)
            os._exit(1)
        os.close(ended)
        os.waitpid(pid, 0)

for _ in range(2):
    threading.Thread(target=ask_always, daemon=True).start()
# Two threads that fork wait for each other, and for nothing else.
threads = [threading.Thread(target=fork, args=(300,)) for _ in range(2)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
os._exit(0)
"""


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="the end of a process is waited for as Linux has it")
def test_a_process_that_is_forked_while_a_log_is_written_can_write_it(tmp_path):
    (tmp_path / "forking.py").write_text(FORKING)
    read, write = os.pipe()

    def take():
        while os.read(read, 64):
            pass

    reader = threading.Thread(target=take)
    reader.start()
    command = [sys.executable, "forking.py", str(PATIENCE / 10)]
    ended = subprocess.run(
        command, cwd=tmp_path, stdout=write, stderr=subprocess.PIPE, text=True, timeout=PATIENCE, check=False
    )
    os.close(write)
    reader.join()
    os.close(read)
    # Lines are lost, which the error log says.
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize("more", [[], ["--workers", "2"], ["--concurrency", "gevent"]])
def test_the_template_of_an_application_that_holds_logs_makes_workers(serve, tmp_path, more):
    """Its forks hold the logs that it and the server have in common once, not twice."""
    (tmp_path / "app.py").write_text(
        "import anygate\n\n"
        "def hello(environ, start_response):\n"
        "    start_response('200 OK', [])\n    return [b'hello']\n\n"
        "app = anygate.wsgihandler(hello, access_log=['inner.log'])\n"
    )
    assert serve("app:app", "--preload", *more).get().body == b"hello"
