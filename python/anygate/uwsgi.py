"""uWSGI's functions, for applications that were written for that server.

They are here as ``anygate.uwsgi``; with the option ``uwsgi_module`` they are ``import uwsgi`` as well, unless the real
one is there, and ``import uwsgidecorators`` finds its decorators. What is shared is shared by all workers of a server.
"""

from __future__ import annotations

import ctypes
import os
import signal as signals
import socket
import struct
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from anygate import uwsgi_memory
from anygate._anygate import __version__, log_record
from anygate.failures import formatted
from anygate.uwsgi_memory import OWN_LOCKS, Memory
from anygate.uwsgi_signals import Bell, Signals, make_bell
from anygate.websocket import WebSocket, WebSocketError, current

#: What a function of the spooler returns: done, to be tried again later, not for it.
SPOOL_OK, SPOOL_RETRY, SPOOL_IGNORE = -2, -1, 0
#: Seconds after which a task is tried again.
SPOOL_PAUSE = 30

#: The server's settings under uWSGI's names, as uWSGI has them: bytes, or True.
opt: dict[str, bytes | bool] = {}
version = f"anygate-{__version__}".encode()
version_info = (2, 0, 0, 0, b"")
hostname = socket.gethostname().encode()
numproc = 1
cores = 1
buffer_size = 4096
started_on = int(time.time())
#: The application by its mount point.
applications: dict[str, Any] | None = None
#: Called in each worker that was forked.
post_fork_hook: Callable[[], object] | None = None
#: Called when a worker ends.
atexit: Callable[[], object] | None = None
#: Called with a task, a dictionary of bytes.
spooler: Callable[[dict[bytes, bytes]], int] | None = None

_worker = 0
_supervisor = 0
_executor: ThreadPoolExecutor | None = None


def _say(text: str) -> None:
    log_record(40, text)


_memory: Memory
_signals: Signals


def share(fd: int, bells: list[Bell], supervisor: int) -> None:
    """Use this memory, and ring these bells of the workers; both were made by the supervisor before the workers."""
    global _memory, _signals, _supervisor
    if _supervisor == supervisor and _memory.fd == fd:
        return
    _supervisor = supervisor
    _memory = Memory(fd)
    _signals = Signals(_memory, bells, _say)


def tell(settings: dict[str, bytes | bool], workers: int, threads: int) -> None:
    """Tell applications of these settings."""
    global numproc, cores
    opt.update(settings)
    numproc, cores = workers, threads


def enter(row: int) -> None:
    """Begin in the worker of a row."""
    global _worker
    _worker = row + 1
    _memory.enter(row)


def begin(application: Any) -> None:
    """Begin in a worker whose application is imported."""
    global applications
    applications = {"": application}
    if post_fork_hook is not None:
        _call("post_fork_hook", post_fork_hook)
    _signals.start(_worker - 1)


def end() -> None:
    """End in a worker."""
    if atexit is not None:
        _call("atexit", atexit)


def _call(name: str, function: Callable[[], object]) -> None:
    try:
        function()
    except BaseException as error:
        _say(f"uwsgi.{name} failed\n{formatted(error).rstrip()}")


# Processes


def worker_id() -> int:
    """Return the number of this worker, from 1 on; 0 outside of workers."""
    return _worker


def mule_id() -> int:
    """Return 0: there are no mules."""
    return 0


def masterpid() -> int:
    """Return the process number of the supervisor."""
    return _supervisor


def workers() -> tuple[dict[str, Any], ...]:
    """Return number, process, number of starts and time of the last start of each worker."""
    return tuple(
        {"id": row + 1, "pid": pid, "respawn_count": starts, "last_spawn": int(since)}
        for row, pid, starts, since in _memory.workers()
    )


def reload() -> bool:
    """Reload the server."""
    os.kill(masterpid(), signals.SIGHUP)
    return True


def stop() -> bool:
    """End the server."""
    os.kill(masterpid(), signals.SIGTERM)
    return True


def setprocname(name: str) -> None:
    """Name this process, for ps and top, in 15 bytes; only Linux shows it."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(15, name.encode()[:15], 0, 0, 0)


def log(message: str | bytes) -> bool:
    """Write a line to the error log."""
    log_record(20, _text(message))
    return True


# Locks


def lock(number: int = 0) -> None:
    """Take a lock that all workers share. It is released when its process ends."""
    _memory.acquire(OWN_LOCKS + number)


def unlock(number: int = 0) -> None:
    """Release it."""
    _memory.release(OWN_LOCKS + number)


def is_locked(number: int = 0) -> bool:
    """Whether a thread of a worker has it."""
    if not _memory.acquire(OWN_LOCKS + number, blocking=False):
        return True
    _memory.release(OWN_LOCKS + number)
    return False


# Cache


def _key(key: str | bytes, cache: str | None) -> bytes:
    name = cache or "default"
    if "@" in name:
        raise ValueError(f"{name!r} is a cache of another server; only those of this one are known")
    return b"\0".join([b"cache", name.encode(), _bytes(key)])


def cache_get(key: str | bytes, cache: str | None = None) -> bytes | None:
    """Return a value, or None."""
    with _memory.cache() as kept:
        return kept.get(_key(key, cache))


def cache_set(key: str | bytes, value: str | bytes, expires: int = 0, cache: str | None = None) -> bool | None:
    """Keep a value for so many seconds, unless they are 0; return None if there is one, or no room."""
    with _memory.cache() as kept:
        name = _key(key, cache)
        return (kept.get(name) is None and kept.set(name, _bytes(value), expires)) or None


def cache_update(key: str | bytes, value: str | bytes, expires: int = 0, cache: str | None = None) -> bool | None:
    """Keep a value in place of another; return None if there is no room."""
    with _memory.cache() as kept:
        return kept.set(_key(key, cache), _bytes(value), expires) or None


def cache_del(key: str | bytes, cache: str | None = None) -> bool | None:
    """Forget a value; return None if there is none."""
    with _memory.cache() as kept:
        return kept.delete(_key(key, cache)) or None


def cache_exists(key: str | bytes, cache: str | None = None) -> bool | None:
    """Return True if there is a value, else None."""
    return True if cache_get(key, cache) is not None else None


def cache_clear(cache: str | None = None) -> bool:
    """Forget all values of a cache."""
    prefix = _key("", cache)
    with _memory.cache() as kept:
        for key in kept.all_keys():
            if key.startswith(prefix):
                kept.delete(key)
    return True


def cache_keys(cache: str | None = None) -> list[bytes]:
    """Return the keys of a cache."""
    prefix = _key("", cache)
    with _memory.cache() as kept:
        return [key[len(prefix) :] for key in kept.all_keys() if key.startswith(prefix)]


def _count(name: bytes, change: Callable[[int], int], expires: int = 0) -> int:
    with _memory.cache() as kept:
        changed = change(_number(kept.get(name))) & 0xFFFF_FFFF_FFFF_FFFF
        kept.set(name, struct.pack("<Q", changed), expires)
    return _number(struct.pack("<Q", changed))


def _number(value: bytes | None) -> int:
    return int(struct.unpack("<q", (value or b"").ljust(8, b"\0")[:8])[0])


def cache_num(key: str | bytes, cache: str | None = None) -> int:
    """Return a number; 0 if there is none."""
    return _number(cache_get(key, cache))


def cache_inc(key: str | bytes, value: int = 1, expires: int = 0, cache: str | None = None) -> bool:
    """Add to a number."""
    _count(_key(key, cache), lambda number: number + value, expires)
    return True


def cache_dec(key: str | bytes, value: int = 1, expires: int = 0, cache: str | None = None) -> bool:
    """Take from a number."""
    return cache_inc(key, -value, expires, cache)


def cache_mul(key: str | bytes, value: int = 2, expires: int = 0, cache: str | None = None) -> bool:
    """Multiply a number."""
    _count(_key(key, cache), lambda number: number * value, expires)
    return True


def cache_div(key: str | bytes, value: int = 2, expires: int = 0, cache: str | None = None) -> bool:
    """Divide a number."""
    _count(_key(key, cache), lambda number: number // value, expires)
    return True


# Metrics


def _metric(name: str) -> bytes:
    return b"metric\0" + name.encode()


def metric_get(name: str) -> int:
    """Return a number that all workers share; 0 at first."""
    return _count(_metric(name), lambda number: number)


def metric_set(name: str, value: int) -> bool:
    """Set it."""
    _count(_metric(name), lambda _: value)
    return True


def metric_inc(name: str, value: int = 1) -> bool:
    """Add to it."""
    _count(_metric(name), lambda number: number + value)
    return True


def metric_dec(name: str, value: int = 1) -> bool:
    """Take from it."""
    return metric_inc(name, -value)


def metric_mul(name: str, value: int = 1) -> bool:
    """Multiply it."""
    _count(_metric(name), lambda number: number * value)
    return True


def metric_div(name: str, value: int = 1) -> bool:
    """Divide it."""
    _count(_metric(name), lambda number: number // value)
    return True


# Signals


def register_signal(number: int, target: str, handler: Callable[[int], object]) -> None:
    """Have a function called for a signal.

    ``target``: ``workers`` are all of them, ``workerN`` is one; anything else is the worker that sends it.
    """
    _signals.register(number, target, handler)


def signal_registered(number: int) -> bool:
    """Whether a function is called for a signal."""
    return _signals.registered(number)


def signal(number: int = 0) -> None:
    """Send a signal."""
    _signals.send(number)


def add_timer(number: int, seconds: float) -> None:
    """Have a signal sent to one worker each time so many seconds have passed."""
    _signals.add_timer(number, seconds)


def add_rb_timer(number: int, seconds: float, iterations: int = 0) -> None:
    """The same, so many times unless they are 0."""
    _signals.add_timer(number, seconds, iterations)


def add_cron(number: int, minute: int, hour: int, day: int, month: int, weekday: int) -> None:
    """Have a signal sent to one worker in these minutes: -1 is any, -N each Nth."""
    _signals.add_cron(number, (minute, hour, day, month, weekday))


# Tasks


def spool(task: dict[Any, Any] | None = None, **arguments: Any) -> bytes:
    """Have ``spooler`` called with a task, on a thread of this process.

    A task that is not done is lost with its process. ``at`` is the time, in seconds since 1970,
    before which it is not called.
    """
    global _executor
    items = {**(task or {}), **arguments}
    packed = {_bytes(key): _bytes(value) for key, value in items.items()}
    if _executor is None:
        _executor = ThreadPoolExecutor(1, "anygate-spooler")
    delay = float(packed.get(b"at", b"0")) - time.time()
    _submit(packed, max(delay, 0))
    return b"task"


send_to_spooler = spool


def _submit(task: dict[bytes, bytes], delay: float) -> None:
    if delay <= 0:
        assert _executor is not None
        _executor.submit(_run_task, task)
        return
    timer = threading.Timer(delay, _submit, (task, 0))
    timer.daemon = True
    timer.start()


def _run_task(task: dict[bytes, bytes]) -> None:
    try:
        if spooler is None:
            _say("a task was spooled, and uwsgi.spooler is not set")
        elif spooler(dict(task)) == SPOOL_RETRY:
            _submit(task, SPOOL_PAUSE)
    except BaseException as error:
        _say(f"uwsgi.spooler failed\n{formatted(error).rstrip()}")


# WebSockets, of the request of the current thread or greenlet


def websocket_handshake(key: str | None = None, origin: str | None = None, proto: str | None = None) -> None:
    """Accept the WebSocket. The key and the origin are the server's affair; ``proto`` is the subprotocol."""
    _socket().accept(proto or None)


def websocket_recv() -> bytes:
    """Return the next message. Raises OSError when the WebSocket is closed."""
    message = _socket().receive()
    if message is None:
        raise WebSocketError("unable to receive websocket message")
    return _bytes(message)


def websocket_recv_nb() -> bytes:
    """Return the next message, or nothing when there is none yet. Raises OSError when the WebSocket is closed."""
    message = _socket().receive_nowait()
    return b"" if message is None else _bytes(message)


def websocket_send(message: str | bytes) -> None:
    """Send text. Raises OSError when the WebSocket is closed."""
    _socket().send(message, binary=False)


def websocket_send_binary(message: str | bytes) -> None:
    """Send bytes. Raises OSError when the WebSocket is closed."""
    _socket().send(message, binary=True)


def connection_fd() -> int:
    """Return a descriptor that is readable while there may be something to receive."""
    return _socket().fileno()


def disconnect() -> None:
    """Close the WebSocket."""
    _socket().close()


def _socket() -> WebSocket:
    websocket: WebSocket | None = current.get()
    if websocket is None:
        raise WebSocketError("this request asks for no WebSocket")
    return websocket


def _bytes(value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()


def _text(value: str | bytes) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def _own_memory() -> None:
    """Have memory of this process alone, until there is that of a server."""
    try:
        fd = os.memfd_create("anygate-uwsgi")
    except (AttributeError, OSError):
        # There is no such call here, or a sandbox refuses it. The file goes with its number, which is never closed.
        with tempfile.TemporaryFile() as file:
            fd = os.dup(file.fileno())
    os.ftruncate(fd, uwsgi_memory.BYTES)
    share(fd, [make_bell()], os.getpid())


_own_memory()
