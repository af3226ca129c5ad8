"""Workloads about processes: the start of a large application, a reload under load, and memory."""

from __future__ import annotations

import signal
import threading
import time

import peers
from comparison import first_response
from crowds import measured
from load import load
from peers import Wanted
from report import best_of, median_table, noted, ratio
from rows import RequestKind, is_page_of_books
from running import Failed
from servers import CACHE

MODULES = 500


def large_application():
    """A package with many modules, which import each other; made once."""
    package = CACHE / "large" / "large_application"
    if (package / "__init__.py").exists():
        return
    package.mkdir(parents=True, exist_ok=True)
    functions = "\n".join(f"def function_{number}(a, b={number}):\n    return a + b\n" for number in range(20))
    classes = "\n".join(f"class Class{number}:\n    field: int = {number}\n" for number in range(5))
    for number in range(MODULES):
        before = f"from large_application import module_{number - 1}\n" if number % 10 else "import dataclasses\n"
        (package / f"module_{number}.py").write_text(f"{before}\n{functions}\n{classes}\n")
    imports = "".join(f"from large_application import module_{number}\n" for number in range(MODULES))
    (package / "__init__.py").write_text(imports + "from plain import hello\n")


def start_large(options):
    """From the command to the first response of an application that takes long to import, with 4 workers."""
    large_application()
    variants = {
        **{name: peers.ALL[name] for name in ("anygate", "granian", "peregrine", "m0serve", "uWSGI", "gunicorn")},
        **{f"{name}, preloaded": preloaded(peers.ALL[name]) for name in ("anygate", "gunicorn")},
    }
    row = RequestKind("start", "large:application", b"Hello, World!", wanted=Wanted(workers=4))

    def measure(running):
        first_response(row, running)
        passed = time.perf_counter() - running.begun
        return {"rps": 1 / passed, "cpu": running.processor()[2] * 1e6, "passed": passed, "errors": ""}

    medians, unable = measured(row, variants, measure, options, ("rps", "cpu", "passed"))
    best = best_of(medians, "passed")

    def cells(title, row):
        return title, f"{row['passed'] * 1e3:.0f}", ratio(row["passed"], best), f"{row['cpu'] / 1e3:.0f}"

    columns = ("server", "start to first response, ms", "of the best peer", "CPU ms until then")
    return [*median_table(columns, medians, cells), *unable]


def preloaded(make):
    """The same server with the application imported before its workers are made."""

    def with_preload(module, name, port, wanted):
        return make(module, name, port, Wanted(**{**vars(wanted), "preload": True}))

    return with_preload


def reload(options):
    """HUP in the middle of the load; every connection is new, so that none is lost because it is old."""
    row = RequestKind("reload", "generation:application", lambda body: True, wanted=Wanted(workers=2))
    fields = {"Connection": "close"}
    duration = max(options.seconds, 6)

    def measure(running):
        before = first_response(row, running)
        timer = threading.Timer(duration / 3, running.process.send_signal, (signal.SIGHUP,))
        timer.start()
        figure = load(running, 16, "/", duration, fields=fields)
        timer.join()
        if running.process.poll() is not None:
            raise Failed("ends on HUP")
        seen = {first_response(row, running) for _ in range(20)}
        if before in seen:
            raise Failed(f"still has the old application after {duration * 2 / 3:.0f} s")
        return figure

    names = ("anygate", "granian", "peregrine", "m0serve", "uWSGI", "gunicorn")
    medians, unable = measured(row, {name: peers.ALL[name] for name in names}, measure, options, ("rps", "cpu", "p99"))
    most = best_of(medians, "rps", max)

    def cells(title, row):
        return title, f"{row['rps']:.0f}", ratio(row["rps"], most), row["errors"] or "none", f"{row['p99']:.1f}"

    columns = ("server", "requests/s", "of the best peer", "errors", "p99 ms")
    return [*median_table(columns, medians, cells), *unable]


def memory(options):
    """What 4 preloaded Django workers have to themselves or share among each other, after some load."""
    row = RequestKind(
        "memory", "django_app:application", is_page_of_books, "/books", wanted=Wanted(workers=4, preload=True)
    )

    def measure(running):
        first_response(row, running)
        return load(running, 16, "/books", max(options.seconds, 3))

    names = ("anygate", "gunicorn", "uWSGI", "granian", "peregrine", "m0serve")
    medians, unable = measured(
        row, {name: peers.ALL[name] for name in names}, measure, options, ("rps", "cpu", "memory")
    )
    best = best_of(medians, "memory")

    def cells(title, row):
        return noted(title, row), f"{row['memory']:.1f}", ratio(row["memory"], best), f"{row['rps']:.0f}"

    columns = ("server", "memory (PSS), MB", "of the best peer", "requests/s")
    return [*median_table(columns, medians, cells), *unable]


WORKLOADS = {
    "large": (f"large: start of an application of {MODULES} modules, 4 workers", start_large),
    "reload": ("reload: HUP under load, 2 workers, 16 connections", reload),
    "memory": ("memory: 4 preloaded Django workers after some load", memory),
}
