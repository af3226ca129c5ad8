"""Hooks: functions of a site that are called when the server starts, forks, reloads or ends.

They are functions of one module, with the names and arguments of gunicorn's server hooks. Those that gunicorn calls in
its master are called in the process that forks the workers. A hook that fails or takes long is logged, and the server
goes on.
"""

from __future__ import annotations

import inspect
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable
from types import FrameType, ModuleType
from typing import Any

from anygate import hook_limits, importer
from anygate._anygate import log_record
from anygate.failures import formatted
from anygate.hook_objects import Server, Settings, Worker
from anygate.hooked_requests import HookedApplication

#: Names of the hooks and of their arguments.
HOOKS = {
    "nworkers_changed": ("server", "new_value", "old_value"),
    "on_starting": ("server",),
    "on_reload": ("server",),
    "when_ready": ("server",),
    "pre_fork": ("server", "worker"),
    "post_fork": ("server", "worker"),
    "post_worker_init": ("worker",),
    "pre_request": ("worker", "req"),
    "post_request": ("worker", "req", "environ", "resp"),
    "worker_int": ("worker",),
    "worker_abort": ("worker",),
    "worker_exit": ("server", "worker"),
    "child_exit": ("server", "worker"),
    "pre_exec": ("server",),
    "on_exit": ("server",),
}


class _LogHandler(logging.Handler):
    """Writes records to the error log of the server."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            log_record(record.levelno, self.format(record))
        except Exception:
            self.handleError(record)


class Hooks:
    """The hooks of one site, and what they are called with."""

    def __init__(self, functions: dict[str, Callable[..., Any]], server: Server):
        self._functions = functions
        self._server = server
        self._worker = Worker(0, server)
        #: Workers of this process, by their numbers.
        self._workers: dict[int, Worker] = {}
        self._beside: Callable[[Callable[[], object]], object] | None = None
        #: INT or QUIT has come; its hook has returned.
        self._is_broken_off = self._has_ended_int = False

    def call(self, name: str, *arguments: Any) -> None:
        """Call a hook, if the site has it. What it raises is logged."""
        function = self._functions.get(name)
        if function is None:
            return
        try:
            if not hook_limits.call(function, arguments):
                self._server.log.error(
                    "the hook %s has taken %d s: it was interrupted, and is passed over", name, hook_limits.SECONDS
                )
        except BaseException as error:
            self._server.log.error("the hook %s failed, and is passed over\n%s", name, formatted(error).rstrip())

    def begin(self, is_first: bool, workers: int) -> None:
        """The process that forks the workers has begun: the first one of this server, or one with other settings."""
        self.workers(workers)
        if is_first:
            self.call("on_starting", self._server)
        else:
            self.call("on_reload", self._server)

    def serving(self) -> None:
        """Workers can be forked, or those of this process have replaced all others."""
        self.call("when_ready", self._server)

    def workers(self, count: int) -> None:
        """So many workers are wanted."""
        before, self._server.num_workers = self._server.num_workers, count
        self.call("nworkers_changed", self._server, count, before)

    def expect_worker(self, number: int) -> None:
        """The next fork makes that worker."""
        self._server.worker_age = number
        self._worker = self._workers[number] = Worker(number, self._server)
        self.call("pre_fork", self._server, self._worker)

    def forked(self, number: int, pid: int) -> None:
        """It was forked."""
        worker = self._workers.get(number)
        if worker is not None:
            worker.pid = pid
            self._server.WORKERS[pid] = worker

    def exited(self, number: int, pid: int) -> None:
        """A worker has ended, which may be one of another process like this."""
        worker = self._workers.pop(number, None) or Worker(number, self._server)
        worker.pid, worker.alive = pid, False
        self._server.WORKERS.pop(pid, None)
        self.call("child_exit", self._server, worker)

    def upgrading(self) -> None:
        """A new program is tried."""
        self.call("pre_exec", self._server)

    def ending(self) -> None:
        """All workers have ended."""
        self.call("on_exit", self._server)

    def begin_worker(self) -> None:
        """The worker that was expected is this process."""
        self._worker.pid = os.getpid()
        self.call("post_fork", self._server, self._worker)

    def imported(self, application: Callable[..., Any]) -> Callable[..., Any]:
        """Return the application of this worker with the hooks of requests around it."""
        self._worker.wsgi = application
        self._worker.booted = True
        if self._functions.keys() & {"worker_int", "worker_abort"}:
            self._beside = hook_limits.beside()
        if "worker_abort" in self._functions:
            signal.signal(signal.SIGABRT, self._end_by_signal)
        self.call("post_worker_init", self._worker)
        if self._functions.keys() & {"pre_request", "post_request"}:
            return HookedApplication(application, self.call, self._worker, "post_request" in self._functions)
        return application

    def overdue(self) -> None:
        """A request has taken longer than it may."""
        if self._beside is not None and "worker_abort" in self._functions:
            self._beside(self._abort)

    def broken_off(self) -> None:
        """INT or QUIT ends the worker or the server."""
        if self._is_broken_off or "worker_int" not in self._functions:
            return
        self._is_broken_off = True
        if self._beside is not None:
            self._beside(self._interrupt)

    def _interrupt(self) -> None:
        self.call("worker_int", self._worker)
        self._has_ended_int = True

    def _abort(self) -> None:
        self._worker.aborted = True
        self.call("worker_abort", self._worker)

    def end_worker(self) -> None:
        """The worker ends."""
        self._worker.alive = False
        if self._is_broken_off:
            if self._beside is None:
                self._interrupt()
            until = time.monotonic() + hook_limits.SECONDS + 1
            while not self._has_ended_int and time.monotonic() < until:
                time.sleep(0.01)
        self.call("worker_exit", self._server, self._worker)

    def _end_by_signal(self, _number: int, _frame: FrameType | None) -> None:
        self._abort()
        self.end_worker()
        os._exit(1)


def load(target: str, pythonpath: Iterable[str | os.PathLike[str]], pid: int, settings: dict[str, Any]) -> Hooks:
    """Return the hooks of the module that ``target`` names. ``pid``: the supervisor's.

    Raises LoadError when there is no such module, or its functions cannot be called as hooks, and whatever its code
    raises.
    """
    module = importer.named_module(target, pythonpath)
    # Under this name gunicorn runs its file.
    sys.modules.setdefault("__config__", module)
    found = {name: _checked(module, name) for name in HOOKS if getattr(module, name, None) is not None}
    if not found:
        raise importer.LoadError(f"it has none of the functions {', '.join(HOOKS)}")
    log = logging.Logger("anygate.hooks")
    log.addHandler(_LogHandler())
    return Hooks(found, Server(pid, Settings(module, settings), log))


def _checked(module: ModuleType, name: str) -> Callable[..., Any]:
    """Return a hook, to be called with all of its arguments."""
    function = getattr(module, name)
    arguments = HOOKS[name]
    if not callable(function):
        raise importer.LoadError(f"{name} in it is a {type(function).__name__}, not a function")
    if not inspect.isfunction(function):
        return function  # type: ignore[no-any-return]
    # Older hooks after a request take less.
    for count in range(len(arguments), 1 if name == "post_request" else len(arguments) - 1, -1):
        try:
            importer.signature_of(function).bind(*arguments[:count])
        except TypeError:
            continue
        return function if count == len(arguments) else _with_first(function, count)
    raise importer.LoadError(f"{name} in it is called with ({', '.join(arguments)}), which it does not accept")


def _with_first(function: Callable[..., Any], count: int) -> Callable[..., Any]:
    return lambda *arguments: function(*arguments[:count])
