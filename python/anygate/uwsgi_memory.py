"""Memory that all workers share for the functions of uWSGI: a cache, locks, signals and a list of the workers.

It is a file without a name, made before the workers. Its parts are locked by ranges of it (fcntl(2)), which the kernel
releases when a process ends; a cache that a process was changing when it ended is emptied.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

#: Rows of workers. Those beyond get no signals that are for all.
ROWS = 256
#: Numbers of signals.
SIGNALS = 256

#: Locks: of the signals, of the cache, and from here on those of the application.
SIGNAL_LOCK, CACHE_LOCK, OWN_LOCKS = 0, 1, 2

_TIMER = struct.Struct("=dQ")
_WORKER = struct.Struct("=IId")
_NUMBER = struct.Struct("=I")
#: The cache: whether it is being changed, first free block, number of blocks that were ever used.
_STATE = struct.Struct("=III")
#: A block: the next one of its entry. The first one also has the next entry, the time of its end, and the lengths of
#: key and value.
_ENTRY = struct.Struct("=IIdII")

_TIMERS = 0
_PENDING = _TIMERS + SIGNALS * _TIMER.size
_WORKERS = _PENDING + ROWS * SIGNALS * _NUMBER.size
_CACHE = _WORKERS + ROWS * _WORKER.size
_BUCKETS = 1 << 14
_HEADS = _CACHE + _STATE.size
_BLOCKS = -(-(_HEADS + _BUCKETS * _NUMBER.size) // 4096) * 4096
_BLOCK_BYTES = 1024
#: Block 0 stands for none.
_BLOCKS_MAX = 1 << 16

#: Size of the file, of which only what is used takes memory.
BYTES = _BLOCKS + _BLOCKS_MAX * _BLOCK_BYTES


class Memory:
    """The memory, as one process sees it."""

    def __init__(self, fd: int):
        self.fd = fd
        self._map = mmap.mmap(fd, BYTES)
        self._threads: dict[int, threading.Lock] = {}

    # Locks

    def acquire(self, number: int, blocking: bool = True) -> bool:
        """Take a lock, which excludes other processes and other threads of this one; return whether it is taken."""
        lock = self._threads.setdefault(number, threading.Lock())
        if not lock.acquire(blocking):
            return False
        try:
            fcntl.lockf(self.fd, fcntl.LOCK_EX | (0 if blocking else fcntl.LOCK_NB), 1, number)
        except BlockingIOError:
            lock.release()
            return False
        except BaseException:
            lock.release()
            raise
        return True

    def release(self, number: int) -> None:
        """Release a lock that this process has."""
        fcntl.lockf(self.fd, fcntl.LOCK_UN, 1, number)
        self._threads[number].release()

    @contextmanager
    def locked(self, number: int) -> Iterator[None]:
        """Hold a lock for a while."""
        self.acquire(number)
        try:
            yield
        finally:
            self.release(number)

    # Workers

    def enter(self, row: int) -> None:
        """Note that the worker of that row is this process."""
        if row < ROWS:
            place = _WORKERS + row * _WORKER.size
            _, starts, _ = _WORKER.unpack_from(self._map, place)
            _WORKER.pack_into(self._map, place, os.getpid(), starts + 1, time.time())

    def workers(self) -> list[tuple[int, int, int, float]]:
        """Return row, process, number of starts and time of the last start of each row that was ever used."""
        rows = ((row, *_WORKER.unpack_from(self._map, _WORKERS + row * _WORKER.size)) for row in range(ROWS))
        return [row for row in rows if row[1]]

    # Signals

    def post(self, row: int, signal: int) -> None:
        """Leave a signal for the worker of a row."""
        with self.locked(SIGNAL_LOCK):
            place = self._pending(row, signal)
            _NUMBER.pack_into(self._map, place, _NUMBER.unpack_from(self._map, place)[0] + 1)

    def take_posted(self, row: int) -> list[int]:
        """Return the signals that were left for a row, each as often as it was."""
        signals: list[int] = []
        with self.locked(SIGNAL_LOCK):
            for signal in range(SIGNALS):
                place = self._pending(row, signal)
                count = _NUMBER.unpack_from(self._map, place)[0]
                if count:
                    _NUMBER.pack_into(self._map, place, 0)
                    signals += [signal] * count
        return signals

    def take_turn(self, signal: int, now: float, pause: float, turns: int = 0) -> tuple[bool, float]:
        """Return whether the signal of a timer is due and is this process's, and when it is due next.

        The first turn is a pause from now. After so many ``turns``, unless they are 0, there are no more.
        """
        place = _TIMERS + signal * _TIMER.size
        with self.locked(SIGNAL_LOCK):
            due, count = _TIMER.unpack_from(self._map, place)
            if turns and count >= turns:
                return False, float("inf")
            # Its turns were missed for a long time: no worker had this timer.
            if due == 0 or due > now + pause or due < now - 2 * pause - 1:
                _TIMER.pack_into(self._map, place, now + pause, count)
                return False, now + pause
            if now < due:
                return False, due
            _TIMER.pack_into(self._map, place, due + pause, count + 1)
            return True, due + pause

    def take_minute(self, signal: int, minute: int) -> bool:
        """Return whether this process is the first to ask for the signal in that minute."""
        place = _TIMERS + signal * _TIMER.size
        with self.locked(SIGNAL_LOCK):
            _, last = _TIMER.unpack_from(self._map, place)
            if last >= minute:
                return False
            _TIMER.pack_into(self._map, place, 0, minute)
            return True

    @staticmethod
    def _pending(row: int, signal: int) -> int:
        return _PENDING + (row * SIGNALS + signal) * _NUMBER.size

    # Cache

    @contextmanager
    def cache(self) -> Iterator[Cache]:
        """Hold the cache."""
        with self.locked(CACHE_LOCK):
            cache = Cache(self._map)
            cache.begin()
            yield cache
            cache.end()


class Cache:
    """Values by key, in blocks that are linked. It is to be used only while it is held."""

    def __init__(self, memory: mmap.mmap):
        self._map = memory

    def begin(self) -> None:
        """Note that it is being changed, and empty it if that was never ended."""
        if _STATE.unpack_from(self._map, _CACHE)[0]:
            self.clear()
        self._set_state(1, *self._state())

    def end(self) -> None:
        """Note that it is whole."""
        self._set_state(0, *self._state())

    def clear(self) -> None:
        """Forget everything."""
        self._map[_HEADS:_BLOCKS] = bytes(_BLOCKS - _HEADS)
        self._set_state(1, 0, 1)

    def get(self, key: bytes) -> bytes | None:
        """Return a value; None if there is none."""
        found = self._find(key)
        return None if found is None else self._data(found[1])[len(key) :]

    def set(self, key: bytes, value: bytes, seconds: float = 0) -> bool:
        """Keep a value, for so long unless that is 0; return whether there was room for it."""
        self.delete(key)
        data = key + value
        first = _BLOCK_BYTES - _ENTRY.size
        count = 1 + max(0, -(-(len(data) - first) // (_BLOCK_BYTES - _NUMBER.size)))
        blocks = self._allocate(count)
        if not blocks:
            return False
        head = self._head(key)
        expires = time.time() + seconds if seconds else 0
        following = _NUMBER.unpack_from(self._map, head)[0]
        place, position = self._place(blocks[0]), 0
        _ENTRY.pack_into(self._map, place, 0, following, expires, len(key), len(value))
        for number, block in enumerate(blocks):
            place = self._place(block)
            skipped = _NUMBER.size if number else _ENTRY.size
            part = data[position : position + _BLOCK_BYTES - skipped]
            self._map[place + skipped : place + skipped + len(part)] = part
            _NUMBER.pack_into(self._map, place, blocks[number + 1] if number + 1 < count else 0)
            position += len(part)
        _NUMBER.pack_into(self._map, head, blocks[0])
        return True

    def delete(self, key: bytes) -> bool:
        """Forget a value; return whether there was one."""
        found = self._find(key)
        if found is None:
            return False
        self._unlink(*found)
        return True

    def all_keys(self) -> list[bytes]:
        """Return all keys."""
        found = []
        for bucket in range(_BUCKETS):
            link = _HEADS + bucket * _NUMBER.size
            while block := _NUMBER.unpack_from(self._map, link)[0]:
                _, _, expires, length, _ = self._entry(block)
                if not expires or expires > time.time():
                    found.append(self._data(block, length))
                link = self._place(block) + _NUMBER.size
        return found

    def _find(self, key: bytes) -> tuple[int, int] | None:
        """Return where the entry is named, and its first block."""
        link = self._head(key)
        while block := _NUMBER.unpack_from(self._map, link)[0]:
            _, _, expires, length, _ = self._entry(block)
            if length == len(key) and self._data(block, length) == key:
                if expires and expires <= time.time():
                    self._unlink(link, block)
                    return None
                return link, block
            link = self._place(block) + _NUMBER.size
        return None

    def _unlink(self, link: int, block: int) -> None:
        _NUMBER.pack_into(self._map, link, self._entry(block)[1])
        free, used = self._state()
        while block:
            place = self._place(block)
            following = _NUMBER.unpack_from(self._map, place)[0]
            _NUMBER.pack_into(self._map, place, free)
            free, block = block, following
        self._set_state(1, free, used)

    def _allocate(self, count: int) -> list[int]:
        """Return so many blocks, or none if there are not as many."""
        if not self._has_room(count):
            self._sweep()
            if not self._has_room(count):
                return []
        free, used = self._state()
        blocks = []
        for _ in range(count):
            if free:
                blocks.append(free)
                free = _NUMBER.unpack_from(self._map, self._place(free))[0]
            else:
                blocks.append(used)
                used += 1
        self._set_state(1, free, used)
        return blocks

    def _has_room(self, count: int) -> bool:
        free, used = self._state()
        room = _BLOCKS_MAX - used
        while free and room < count:
            room += 1
            free = _NUMBER.unpack_from(self._map, self._place(free))[0]
        return room >= count

    def _sweep(self) -> None:
        """Forget what has expired."""
        now = time.time()
        for bucket in range(_BUCKETS):
            link = _HEADS + bucket * _NUMBER.size
            while block := _NUMBER.unpack_from(self._map, link)[0]:
                expires = self._entry(block)[2]
                if expires and expires <= now:
                    self._unlink(link, block)
                else:
                    link = self._place(block) + _NUMBER.size

    def _entry(self, block: int) -> tuple[int, int, float, int, int]:
        return _ENTRY.unpack_from(self._map, self._place(block))

    def _data(self, block: int, length: int | None = None) -> bytes:
        """Return key and value of an entry, or the first bytes of them."""
        following, _, _, key, value = self._entry(block)
        left = key + value if length is None else length
        parts, place, skipped = [], self._place(block), _ENTRY.size
        while left > 0:
            part = self._map[place + skipped : place + min(_BLOCK_BYTES, skipped + left)]
            parts.append(part)
            left -= len(part)
            place, skipped = self._place(following), _NUMBER.size
            following = _NUMBER.unpack_from(self._map, place)[0]
        return b"".join(parts)

    def _state(self) -> tuple[int, int]:
        """Return the first free block, and the number of blocks that were ever used."""
        _, free, used = _STATE.unpack_from(self._map, _CACHE)
        return free, used or 1

    def _set_state(self, changing: int, free: int, used: int) -> None:
        _STATE.pack_into(self._map, _CACHE, changing, free, used)

    @staticmethod
    def _place(block: int) -> int:
        return _BLOCKS + block * _BLOCK_BYTES

    @staticmethod
    def _head(key: bytes) -> int:
        # The same in all processes, which hash() is not.
        return _HEADS + zlib.crc32(key) % _BUCKETS * _NUMBER.size
