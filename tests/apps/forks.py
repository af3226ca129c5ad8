"""Requests that fork: children that return, exit, fail, outlive their request, or are ended by their parent."""

import multiprocessing
import os
import signal
import sys
import threading

fork = multiprocessing.get_context("fork")


def reap(child):
    """The exit code of a child."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def forked(what):
    child = os.fork()
    if child:
        return b"%d" % reap(child)
    if what == "exit":
        sys.exit(7)
    if what == "raise":
        raise ValueError("of the child")
    return b"CHILD"


def logs(errors):
    """Fork while other threads write to the log, in children that do so, too; returns how many of them have ended."""
    done = threading.Event()

    def write():
        while not done.is_set():
            errors.write("of a thread\n")

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    ended = 0
    try:
        for _ in range(100):
            child = os.fork()
            if child == 0:
                # Nobody waits longer for a child that hangs.
                signal.alarm(10)
                errors.write("of a child\n")
                os._exit(0)
            ended += reap(child) == 0
    finally:
        done.set()
    for thread in threads:
        thread.join()
    return b"%d" % ended


def generated():
    child = os.fork()
    yield b"%d" % reap(child) if child else b"CHILD"


def ended():
    child = fork.Process(target=signal.pause)
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
    elif path == "logs":
        body = logs(environ["wsgi.errors"])
    elif path == "pid":
        body = b"%d" % os.getpid()
    else:
        body = forked(path)
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
