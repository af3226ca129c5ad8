"""uWSGI's decorators, for applications that were written for that server (``import uwsgidecorators``)."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable
from functools import partial, wraps
from typing import Any, TypeVar

from anygate import uwsgi
from anygate.uwsgi_memory import SIGNALS

F = TypeVar("F", bound=Callable[..., Any])

_after_fork: list[Callable[[], object]] = []
_spooled: dict[str, Callable[..., Any]] = {}


def _free_signal() -> int:
    for number in range(SIGNALS):
        if not uwsgi.signal_registered(number):
            return number
    raise ValueError("there are no more numbers for signals")


def postfork(function: Any = None, wid: int = 0) -> Any:
    """Call the function in each worker that was forked, or in that of one number."""
    if not callable(function):
        return partial(postfork, wid=function or wid)

    def call() -> None:
        if wid in (0, uwsgi.worker_id()):
            function()

    _after_fork.append(call)
    uwsgi.post_fork_hook = _call_after_fork
    return function


def _call_after_fork() -> None:
    for function in _after_fork:
        function()


class signal:
    """Call the function for the signal of this number."""

    def __init__(self, number: int, target: str = "", **options: Any):
        self.number, self.target = number, options.get("target", target)

    def __call__(self, function: F) -> F:
        """Register the function."""
        uwsgi.register_signal(self.number, self.target, function)
        return function


class timer:
    """Call the function each time so many seconds have passed, in one worker."""

    def __init__(self, seconds: float, signum: int | None = None, target: str = ""):
        self.seconds, self.number, self.target = seconds, signum, target

    def __call__(self, function: F) -> F:
        """Register the function."""
        number = _free_signal() if self.number is None else self.number
        uwsgi.register_signal(number, self.target, function)
        self.add(number)
        return function

    def add(self, number: int) -> None:
        """Begin to count."""
        uwsgi.add_timer(number, self.seconds)


class rbtimer(timer):
    """The same, so many times."""

    def __init__(self, seconds: float, signum: int | None = None, iterations: int = 0, target: str = ""):
        super().__init__(seconds, signum, target)
        self.iterations = iterations

    def add(self, number: int) -> None:
        """Begin to count."""
        uwsgi.add_rb_timer(number, self.seconds, self.iterations)


class cron:
    """Call the function in these minutes, in one worker: -1 is any, -N each Nth."""

    def __init__(
        self, minute: int, hour: int, day: int, month: int, dayweek: int, signum: int | None = None, target: str = ""
    ):
        self.when, self.number, self.target = (minute, hour, day, month, dayweek), signum, target

    def __call__(self, function: F) -> F:
        """Register the function."""
        number = _free_signal() if self.number is None else self.number
        uwsgi.register_signal(number, self.target, function)
        uwsgi.add_cron(number, *self.when)
        return function


def lock(function: Callable[..., Any]) -> Callable[..., Any]:
    """Let one worker at a time call the function."""

    @wraps(function)
    def locked(*arguments: Any, **keywords: Any) -> Any:
        uwsgi.lock()
        try:
            return function(*arguments, **keywords)
        finally:
            uwsgi.unlock()

    return locked


def thread(function: Callable[..., Any]) -> Callable[..., threading.Thread]:
    """Have a call start a thread."""

    @wraps(function)
    def started(*arguments: Any, **keywords: Any) -> threading.Thread:
        one = threading.Thread(target=function, args=arguments, kwargs=keywords, daemon=True)
        one.start()
        return one

    return started


def setprocname(name: str) -> None:
    """Name this process."""
    uwsgi.setprocname(name)


class spool:
    """Have calls of the function's ``spool`` run on a thread of the worker, one after another.

    They are not kept in files: those that are not done are lost with the worker.
    """

    function: Callable[..., Any]

    def __init__(self, function: Callable[..., Any] | None = None, pass_arguments: bool = False):
        self.pass_arguments = pass_arguments
        if function is not None:
            self(function)

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        """Register the function, or call it."""
        if hasattr(self, "function"):
            return self.function(*arguments, **keywords)
        (self.function,) = arguments
        self.__name__ = self.function.__name__
        uwsgi.spooler = _run_spooled
        _spooled[self.__name__] = self.function
        return self

    def spool(self, *arguments: Any, **keywords: Any) -> bytes:
        """Have the function called later."""
        task: dict[Any, Any] = {"ud_spool_func": self.__name__}
        if not self.pass_arguments:
            task.update(*arguments, **keywords)
            return uwsgi.spool(task)
        own = {name: keywords.pop(name) for name in ("at", "spooler", "priority", "body") if name in keywords}
        return uwsgi.spool({**task, **own, "args": pickle.dumps((arguments, keywords))})


def _run_spooled(task: dict[bytes, bytes]) -> int:
    function = _spooled[task.pop(b"ud_spool_func").decode()]
    if b"args" in task:
        arguments, keywords = pickle.loads(task[b"args"])
        result = function(*arguments, **keywords)
    else:
        result = function({key.decode(): value.decode() for key, value in task.items()})
    return int(uwsgi.SPOOL_OK if result is None else result)


def _refused(name: str, instead: str) -> Callable[..., Any]:
    def refuse(*_arguments: Any, **_keywords: Any) -> Any:
        raise NotImplementedError(f"uwsgidecorators.{name}: {instead}")

    return refuse


_MULES = "there are no mules: a [[daemon]] is a process beside the workers"
mule = _refused("mule", _MULES)
mulefunc = _refused("mulefunc", _MULES)
mulemsg = _refused("mulemsg", _MULES)
mule_brain = _refused("mule_brain", _MULES)
mulemsg_loop = _refused("mulemsg_loop", _MULES)
harakiri = _refused("harakiri", "request_timeout limits requests")
filemon = _refused("filemon", "touch_reload and reload_files reload when a file changes")
spoolraw = _refused("spoolraw", "use @spool")
spoolforever = _refused("spoolforever", "use @timer")
erlang = _refused("erlang", "there is no such thing")
rpc = _refused("rpc", "there are no calls between servers")
