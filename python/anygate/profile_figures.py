"""The figures of a folder of profiles, accumulated.

One request leaves one ``req_*.prof`` file, written by any worker process, and beside it its call stacks as
``stacks_*.json``. ``Figures`` merges the profiles in the form that ``pstats`` uses, so that the merged figures can be
written out as a profile again. It neither writes nor deletes files.
"""

from __future__ import annotations

import json
import marshal
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

# What cProfile writes for each function: its file, line and name.
Function = tuple[str, int, str]

#: The functions that were running in one another, the outermost first.
Stack = tuple[Function, ...]

# A profile is one dictionary. Marshal writes this byte first, with the high bit set when it may be referred to again.
_DICTIONARY = (ord("{"), ord("{") | 0x80)


class Edge(NamedTuple):
    """Cost of one function for one caller, in the order of ``pstats``."""

    calls: int
    primitive_calls: int
    own_seconds: float
    cumulative_seconds: float


@dataclass
class FunctionCost:
    """Cost of one function."""

    function: Function
    primitive_calls: int = 0
    calls: int = 0
    own_seconds: float = 0.0
    cumulative_seconds: float = 0.0
    callers: dict[Function, Edge] = field(default_factory=dict)

    @property
    def per_call_seconds(self) -> float:
        """The cumulative time divided by the calls that were not recursive."""
        return self.cumulative_seconds / self.primitive_calls if self.primitive_calls else 0.0


SORT_KEYS = {
    "calls": lambda row: (-row.calls, row.function),
    "own": lambda row: (-row.own_seconds, row.function),
    "cumulative": lambda row: (-row.cumulative_seconds, row.function),
    "name": lambda row: (row.function[2].lower(), row.function),
}


class Figures:
    """The merged figures of all profiles in one folder. Not safe for use by several threads at once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read: set[str] = set()
        self.rows: dict[Function, FunctionCost] = {}
        self.stacks: dict[Stack, float] = {}
        """Seconds for each call stack, by samples."""
        self.requests = 0
        self.skipped: dict[str, str] = {}
        """Files (or the folder) that could not be used, each with the reason."""

    def refresh(self) -> None:
        """Read the profiles that are new since the last time.

        When a profile that was read is gone, the directory was cleared, perhaps by another worker: then everything that
        is still there is read anew, so that the figures always tell what the folder holds.
        """
        try:
            names = set(profile_names(self._folder))
        except OSError as error:
            self._forget()
            self.skipped[str(self._folder)] = error.strerror or str(error)
            return
        if not self._read <= names or str(self._folder) in self.skipped:
            self._forget()
        for name in sorted(names - self._read):
            try:
                rows = _profile((self._folder / name).read_bytes())
                stacks = _stacks(stacks_beside(self._folder / name))
            except FileNotFoundError:
                # Deleted since the folder was listed, which is no error.
                continue
            except OSError as error:
                self.skipped[name] = error.strerror or str(error)
            except ValueError as error:
                self.skipped[name] = str(error)
            else:
                self._add(rows)
                for stack, seconds in stacks:
                    self.stacks[stack] = self.stacks.get(stack, 0.0) + seconds
            self._read.add(name)

    def _forget(self) -> None:
        self._read.clear()
        self.rows.clear()
        self.stacks.clear()
        self.skipped.clear()
        self.requests = 0

    def _add(self, rows: list[FunctionCost]) -> None:
        self.requests += 1
        for new in rows:
            row = self.rows.setdefault(new.function, FunctionCost(new.function))
            row.primitive_calls += new.primitive_calls
            row.calls += new.calls
            row.own_seconds += new.own_seconds
            row.cumulative_seconds += new.cumulative_seconds
            for caller, edge in new.callers.items():
                known = row.callers.get(caller)
                row.callers[caller] = (
                    edge
                    if known is None
                    else Edge(
                        known.calls + edge.calls,
                        known.primitive_calls + edge.primitive_calls,
                        known.own_seconds + edge.own_seconds,
                        known.cumulative_seconds + edge.cumulative_seconds,
                    )
                )

    @property
    def calls(self) -> int:
        """The number of calls of all functions."""
        return sum(row.calls for row in self.rows.values())

    @property
    def total_seconds(self) -> float:
        """The time of all requests: the sum of the functions' own times."""
        return sum(row.own_seconds for row in self.rows.values())

    def ordered(self, sort: str, limit: int) -> list[FunctionCost]:
        """Return the first ``limit`` functions in the order ``sort``, a key of ``SORT_KEYS``."""
        return sorted(self.rows.values(), key=SORT_KEYS[sort])[:limit]

    def dump(self) -> bytes:
        """Return the merged figures as the content of a profile file, which ``pstats.Stats`` loads."""
        return marshal.dumps(
            {
                row.function: (
                    row.primitive_calls,
                    row.calls,
                    row.own_seconds,
                    row.cumulative_seconds,
                    {caller: tuple(edge) for caller, edge in row.callers.items()},
                )
                for row in self.rows.values()
            }
        )


def profile_names(folder: Path) -> list[str]:
    """Return the names of the profiles in ``folder``; raises OSError when it cannot be listed."""
    with os.scandir(folder) as entries:
        return [
            entry.name
            for entry in entries
            if entry.name.startswith("req_") and entry.name.endswith(".prof") and entry.is_file()
        ]


def stacks_beside(profile: Path) -> Path:
    """Return the path of the file that has the call stacks of a profile."""
    return profile.with_name(profile.stem.replace("req_", "stacks_", 1) + ".json")


def dump_stacks(stacks: dict[Stack, float]) -> bytes:
    """Return samples as the content of a file of stacks."""
    return json.dumps([[seconds, stack] for stack, seconds in list(stacks.items())]).encode()


def _stacks(path: Path) -> list[tuple[Stack, float]]:
    """Read a file of stacks, which may be missing; raises ValueError when it is none."""
    try:
        content = json.loads(path.read_bytes())
        return [(tuple(_function(function) for function in stack), float(seconds)) for seconds, stack in content]
    except FileNotFoundError:
        return []
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"not a file of stacks ({type(error).__name__})") from None


def _profile(content: bytes) -> list[FunctionCost]:
    """Take apart the content of one profile file; raises ValueError when it is none."""
    if not content:
        raise ValueError("the file is empty")
    if content[0] not in _DICTIONARY:
        raise ValueError("not a profile")
    try:
        stats: dict[Any, Any] = marshal.loads(content)
        rows = [
            FunctionCost(
                _function(function),
                int(primitive_calls),
                int(calls),
                float(own),
                float(cumulative),
                {_function(caller): _edge(*edge) for caller, edge in callers.items()},
            )
            for function, (primitive_calls, calls, own, cumulative, callers) in stats.items()
        ]
    except Exception as error:
        # Damaged bytes fail in many ways: EOFError, ValueError, TypeError, MemoryError, AttributeError and more.
        raise ValueError(f"not a profile ({type(error).__name__})") from None
    if not rows:
        # Every profile has at least the call that ended it.
        raise ValueError("the profile is empty")
    return rows


def _function(key: Any) -> Function:
    file, line, name = key
    return str(file), int(line), str(name)


def _edge(calls: Any, primitive_calls: Any, own: Any, cumulative: Any) -> Edge:
    return Edge(int(calls), int(primitive_calls), float(own), float(cumulative))
