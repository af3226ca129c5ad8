"""Requests that fork: children that return, exit, fail, outlive their request, or are ended by their parent."""

import multiprocessing
import os
import signal
import sys
import time

fork = multiprocessing.get_context("fork")


def reap(child):
    """The exit code of a child, which greenlets may wait for."""
    while True:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)


def forked(what):
    child = os.fork()
    if child:
        return b"%d" % reap(child)
    if what == "exit":
        sys.exit(7)
    if what == "raise":
        raise ValueError("of the child")
    return b"CHILD"


def generated():
    child = os.fork()
    yield b"%d" % reap(child) if child else b"CHILD"


def ended():
    child = fork.Process(target=time.sleep, args=(60,))
    child.start()
    child.terminate()
    child.join()
    return b"%d" % child.exitcode


def outlives():
    child = os.fork()
    if child == 0:
        signal.pause()
        os._exit(0)
    return b"%d" % child


def application(environ, start_response):
    path = environ["PATH_INFO"].lstrip("/")
    if path == "generate":
        start_response("200 OK", [("Content-Type", "text/plain")])
        return generated()
    if path == "end":
        body = ended()
    elif path == "outlive":
        body = outlives()
    elif path == "pid":
        body = b"%d" % os.getpid()
    else:
        body = forked(path)
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
