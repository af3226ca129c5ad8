"""An application that looks for what a thread of Python's own has: contexts, hooks, a name, a stack."""

import contextvars
import sys
import threading

calls = contextvars.ContextVar("calls", default="")
seen = set()
closed = []


def tracer(frame, event, argument):
    if frame.f_code.co_name == "viewed":
        seen.add(f"trace {event}")
    return tracer


def profiler(frame, event, argument):
    if frame.f_code.co_name == "viewed":
        seen.add(f"profile {event}")


threading.settrace(tracer)
threading.setprofile(profiler)
sys.setrecursionlimit(12000)


def viewed():
    return "seen"


class Deep:
    """Recursion through C code, as in nested serializers, templates and proxies."""

    def __getattr__(self, name):
        depth = int(name[1:])
        return 0 if depth == 0 else getattr(self, f"x{depth - 1}")


class Parts:
    """A response whose iteration and close see the context of their call."""

    def __iter__(self):
        calls.set(calls.get() + " iterated")
        yield calls.get().encode()

    def close(self):
        closed.append(calls.get())


def endless():
    return endless()


def response(path):
    if path == "/hooks":
        viewed()
        return ", ".join(sorted(seen))
    if path == "/thread":
        thread = threading.current_thread()
        listed = thread in threading.enumerate()
        return f"{thread.name} {thread.is_alive()} {listed}"
    if path == "/deep":
        return f"{Deep().x3000}"
    if path == "/endless":
        try:
            return endless()
        except RecursionError:
            return "RecursionError"
    if path == "/hub":
        import gevent

        gevent.get_hub()
        gevent.sleep(0)
        return "a hub"
    return " ".join(closed)


def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    if environ["PATH_INFO"] == "/context":
        calls.set(calls.get() + "called")
        return Parts()
    return [response(environ["PATH_INFO"]).encode()]
