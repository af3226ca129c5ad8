"""An application with handlers of signals, and with calls that let nobody else run."""

import ctypes
import os
import re
import signal
import subprocess
import sys

came = []
signal.signal(signal.SIGALRM, lambda number, frame: came.append("timer"))
signal.signal(signal.SIGRTMIN + 3, lambda number, frame: came.append("asked"))
signal.signal(signal.SIGUSR2, lambda number, frame: came.append("user"))
subprocess.run([sys.executable, "-c", ""], check=True)


def hold():
    """Hold the interpreter, by a pattern that takes longer than any test."""
    re.match("(a*)*b", "a" * 60)


def stand_still():
    """Let no greenlet run, though threads could. Signals end one sleep."""
    while True:
        ctypes.CDLL(None).sleep(600)


def response(path, errors):
    if path in ("/hold", "/stand"):
        errors.write("nothing else runs\n")
    if path == "/arm":
        signal.setitimer(signal.ITIMER_REAL, 0.05)
    elif path == "/hold":
        hold()
    elif path == "/stand":
        stand_still()
    elif path == "/run":
        return str(subprocess.run(["sh", "-c", "exit 7"], check=False).returncode)
    elif path == "/pid":
        return str(os.getpid())
    return " ".join(sorted(came))


def application(environ, start_response):
    body = response(environ["PATH_INFO"], environ["wsgi.errors"]).encode()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [body]
