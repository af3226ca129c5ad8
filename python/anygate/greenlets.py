"""Requests in greenlets: one gevent hub, on the worker's main thread, runs all requests of the worker.

The reactor has a thread of its own and hands requests over; a bell, which the hub watches, tells that there are some.
Nothing of the native module that is called here waits or calls the application, since a greenlet must not be switched
away from below a frame of the native module.
"""

from __future__ import annotations

import errno
import inspect
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from contextlib import suppress
from types import FrameType
from typing import TYPE_CHECKING, Any, TypeVar

import gevent
from gevent import monkey
from gevent._hub_local import get_hub_if_exists
from gevent.hub import LoopExit, Waiter
from gevent.lock import Semaphore
from gevent.threading import _DummyThread
from greenlet import greenlet

from anygate import file_locks
from anygate.input_lines import Lines
from anygate.timeouts import RequestTimeout, stack_of_frame
from anygate.websocket import WebSocketError, offer

if TYPE_CHECKING:
    from anygate.failures import Hook
    from anygate.server import Application
    from anygate.websocket import WebSocket

T = TypeVar("T")

#: libev's number for "can be read".
_READ = 1
#: Seconds after which the hub lets other greenlets run while it begins new ones.
_SLICE = 0.01


#: Parts of the standard library that are patched, as ``patch_all`` names them; empty: all.
parts: list[str] = []
_has_patched = False


def patch() -> None:
    """Make the standard library wait in the hub. To be called before the application is imported."""
    global _has_patched
    if not _has_patched and not monkey.is_module_patched("threading"):
        known = inspect.signature(monkey.patch_all).parameters.keys() - {"aggressive", "kwargs"}
        monkey.patch_all(**{part: part in parts for part in known} if parts else {})
    _has_patched = True
    file_locks.patch_for_gevent()
    # gevent itself does so after the first fork, when that child may have ended already.
    gevent.get_hub().loop.install_sigchld()


def is_patched() -> bool:
    """Whether the program has patched the standard library itself."""
    return bool(monkey.is_module_patched("threading") and monkey.is_module_patched("socket"))


def begin() -> None:
    """Begin in a worker's process: with a hub, if there was one before the fork, that is this process's own."""
    patch()
    gevent.reinit()
    # Threads that a request starts inherit it, and a program waits at its end for those that are no daemons.
    _DummyThread._daemonic = False
    gevent.get_hub().loop.install_sigchld()


def imported() -> None:
    """Leave the ends of children to this process after an import before the fork: workers have hubs of their own."""
    hub = get_hub_if_exists()
    if hub is not None:
        hub.loop.reset_sigchld()


def guard_handlers(numbers: list[int]) -> None:
    """Keep what handlers of these signals raise from the greenlet that happens to run, which is not meant.

    The end of a worker is its supervisor's order, so that an exit is none; other exceptions are printed.
    """

    def guarded(handler: Callable[[int, FrameType | None], Any]) -> Callable[[int, FrameType | None], None]:
        def handle(number: int, frame: FrameType | None) -> None:
            try:
                handler(number, frame)
            except (SystemExit, KeyboardInterrupt):
                pass
            except BaseException:
                traceback.print_exc()

        return handle

    for number in numbers:
        if callable(handler := signal.getsignal(number)):
            signal.signal(number, guarded(handler))


def run(application: Application, queue: Any, on_error: Hook | None) -> None:
    """Handle calls until the queue of the hub is closed."""
    CallRunner(application, queue, on_error).run()


class CallRunner:
    """The calls of one application."""

    def __init__(self, application: Application, queue: Any, on_error: Hook | None):
        self.application = application
        self.queue = queue
        self.on_error = on_error
        self.hub = gevent.get_hub()
        self.closed = Waiter(self.hub)
        self.waiting: dict[int, Waiter] = {}
        #: Greenlets by the number of their call, if calls have a time limit.
        self.running: dict[int, greenlet] = {}
        self.has_time_limit = queue.has_time_limit
        self.write_class = type("Write", (_Write,), {"__slots__": (), "runner": self})

    def run(self) -> None:
        """Let the hub run until its queue is closed."""
        bell = self.hub.loop.io(self.queue.fileno(), _READ)
        bell.start(self.take)

        def leave() -> None:
            # The hub of a process that the application forks has no requests.
            if bell.active:
                bell.stop()

        os.register_at_fork(after_in_child=leave)
        try:
            self.wait_for_the_end()
        finally:
            bell.stop()
            bell.close()

    def wait_for_the_end(self) -> None:
        """Wait until the queue is closed. A greenlet that wants the program to end does not end the worker."""
        while True:
            try:
                self.closed.get()
                return
            except LoopExit:
                # There is nothing left to wait for, in a process that a request has forked.
                raise
            except BaseException as error:
                self.queue.log(error, "a greenlet failed")

    def take(self) -> None:
        """Begin the calls in the queue, in the hub."""
        until = time.monotonic() + _SLICE
        while (news := self.queue.take(self.write_class)) is not None:
            if news is False:
                self.closed.switch(None)
                return
            if type(news) is int:
                if (waiter := self.waiting.get(news)) is not None:
                    waiter.switch(None)
            elif hasattr(news, "say"):
                self.attend_to(news)
            elif self.has_time_limit:
                self.running[news.number] = running = greenlet(self.respond, self.hub)
                running.switch(news)
            else:
                greenlet(self.respond, self.hub).switch(news)
            if time.monotonic() > until:
                # The bell stays readable.
                return

    def attend_to(self, long: Any) -> None:
        """Log where a slow request is, and interrupt it if it is overdue, in the hub."""
        running = self.running.get(long.number)
        if not long.is_overdue:
            long.say(stack_of_frame(running.gr_frame) if running is not None else "")
        elif running is not None:
            long.say(stack_of_frame(running.gr_frame))
            running.throw(RequestTimeout)

    def respond(self, call: Any) -> None:
        """Handle one request, in its greenlet (PEP 3333, "The Server/Gateway Side")."""
        environ = closing = None
        try:
            try:
                environ, streamed, websocket = call.environ()
                if streamed:
                    environ["wsgi.input"] = _Input(environ["wsgi.input"], call, self)
                if websocket is not None:
                    offer(environ, GreenletWebSocket(websocket, call, self), self.queue.websocket_accept_after)
                iterable = self.application(environ, call)
                if type(iterable) is list or type(iterable) is tuple:
                    place = call.blocks(iterable, 0)
                    while place is not None:
                        self.wait(call, call.has_room)
                        place = call.blocks(iterable, place)
                else:
                    closing = iterable
                    self.deliver(call, iterable)
            except BaseException as error:
                if call.settle(error):
                    self.tell(call, environ)
                if closing is not None:
                    self.close(call, environ, closing, True)
                call.finish(error)
            else:
                # The response is complete, so the client is not affected.
                if closing is not None:
                    self.close(call, environ, closing, False)
                call.finish(None)
        except BaseException as error:
            # It came from outside, at the very end.
            call.log(error, "its greenlet was interrupted")
            call.finish(error)
        if self.has_time_limit:
            del self.running[call.number]

    def deliver(self, call: Any, iterable: Iterable[bytes]) -> None:
        """Send each block as the application yields it."""
        if call.file(iterable):
            return
        first = True
        for block in iterable:
            if first and block:
                first = False
                wants_more = call.block(block, _length(iterable) == 1)
            else:
                self.wait(call, call.has_room)
                wants_more = call.block(block, False)
            if not wants_more:
                break
        call.end_of_blocks()

    def close(self, call: Any, environ: dict[str, Any] | None, iterable: Any, also: bool) -> None:
        """Call ``close()`` of what the application returned, if it has one. ``also``: the call has failed already.

        PEP 3333: "If the iterable returned by the application has a close() method, the server or gateway must call
        that method upon completion of the current request, whether the request was completed normally, or terminated
        early".
        """
        try:
            close = getattr(iterable, "close", None)
            if close is not None:
                call.before_close(iterable)
                close()
        except BaseException as error:
            call.settle_closing(error, also)
            self.tell(call, environ)

    def tell(self, call: Any, environ: dict[str, Any] | None) -> None:
        """Call ``on_error`` with the exception that is being handled."""
        if self.on_error is None or environ is None:
            return
        try:
            self.on_error(environ, sys.exc_info())  # type: ignore[arg-type]
        except BaseException as error:
            call.log(error, "its on_error failed")

    def wait(self, call: Any, attempt: Callable[[], T | None], seconds: float | None = None) -> T:
        """Let other greenlets run until ``attempt`` gives something true.

        Raises TimeoutError when nothing has happened for so many seconds.
        """
        while not (result := attempt()):
            call.want_news()
            # There is no notification of what happened in between.
            if result := attempt():
                return result
            self.wait_for_news(call.number, seconds)
        return result

    def wait_for_news(self, number: int, seconds: float | None) -> None:
        """Let other greenlets run until there is news of that number, which no other greenlet waits for.

        Raises TimeoutError when there was none for so many seconds.
        """
        waiter = self.waiting[number] = Waiter(self.hub)
        timer = None
        try:
            if seconds is not None:
                timer = self.hub.loop.timer(seconds)
                timer.start(waiter.switch, TimeoutError)
            if waiter.get() is TimeoutError:
                raise TimeoutError(errno.ETIMEDOUT, "the client sent nothing in time")
        finally:
            del self.waiting[number]
            if timer is not None:
                timer.stop()
                timer.close()


class _Write:
    """The ``write`` callable."""

    __slots__ = ("call",)

    runner: CallRunner

    def __init__(self, call: Any):
        self.call = call

    def __call__(self, data: bytes) -> None:
        """Send ``data``, once there is room for it."""
        self.runner.wait(self.call, self.call.has_room)
        self.call.write(data)


class _Input(Lines):
    """``wsgi.input`` of a body that is passed on as it comes."""

    __slots__ = ("call", "runner", "stream")

    def __init__(self, stream: Any, call: Any, runner: CallRunner):
        self.stream, self.call, self.runner = stream, call, runner

    def __getattr__(self, name: str) -> Any:
        # What does not wait.
        return getattr(self.stream, name)

    def __enter__(self) -> _Input:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def read(self, size: int | None = None) -> bytes:
        return self._patiently(self.stream.read, size)

    def read1(self, size: int | None = None) -> bytes:
        return self._patiently(self.stream.read1, size)

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        data = self.read(len(view))
        view[: len(data)] = data
        return len(data)

    def readline(self, size: int | None = None) -> bytes:
        return self._patiently(self.stream.readline, size)

    def _patiently(self, read: Callable[[int | None], bytes], size: int | None) -> bytes:
        def attempt() -> tuple[bytes] | None:
            try:
                return (read(size),)
            except BlockingIOError:
                return None

        try:
            return self.runner.wait(self.call, attempt, self.runner.queue.body_timeout)[0]
        except TimeoutError:
            # The body itself says that its client is late, so that the response is 408.
            with suppress(BlockingIOError):
                return read(size)
            raise
        except BaseException:
            # The application has given up waiting, and may come back much later.
            self.stream.stop_waiting()
            raise


class GreenletWebSocket:
    """``wsgi.websocket``: the native one, but waiting lets other greenlets run."""

    # There may be thousands that are idle.
    __slots__ = ("__weakref__", "_call", "_is_listening", "_is_told", "_lock", "_runner", "_socket")

    def __init__(self, socket: WebSocket, call: Any, runner: CallRunner):
        self._socket, self._call, self._runner = socket, call, runner
        self._lock: Semaphore | None = None
        self._is_listening = False
        self._is_told = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._socket, name)

    def receive(self, timeout: float | None = None) -> str | bytes | None:
        """Return the next message: text as ``str``, others as ``bytes``, None when the WebSocket is closed.

        Raises TimeoutError when none came in ``timeout`` seconds.
        """
        until = None if timeout is None else time.monotonic() + timeout
        try:
            while (message := self._socket.receive_nowait()) is None:
                if not self._is_listening:
                    # From now on there is news of each message, and of those that wait.
                    self._is_listening = True
                    self._call.want_news_of_websocket(self._socket)
                left = None if until is None else max(until - time.monotonic(), 0)
                self._runner.wait_for_news(self._call.number_of_websocket, left)
        except WebSocketError:
            if self._is_told or not self._socket.closed:
                raise
            self._is_told = True
            return None
        return message

    def read_message(self) -> str | bytes:
        """Return the next message; raise WebSocketError when the WebSocket is closed."""
        message = self.receive()
        if message is None:
            raise WebSocketError("the WebSocket is closed")
        return message

    def send(self, message: Any, binary: bool | None = None) -> None:
        """Send a message, once there is room for it."""
        self._wait_for_room()
        self._socket.send(message, binary)

    def send_frame(self, message: Any, opcode: int) -> None:
        """Send a frame of gevent-websocket's opcodes."""
        self._wait_for_room()
        self._socket.send_frame(message, opcode)

    def _wait_for_room(self) -> None:
        while not self._call.has_room():
            # Of the greenlets that send on one WebSocket one waits for room and the others for that one.
            if self._lock is None:
                self._lock = Semaphore()
            with self._lock:
                self._runner.wait(self._call, self._call.has_room)


def _length(iterable: Any) -> int | None:
    try:
        return len(iterable)
    except Exception:
        return None
