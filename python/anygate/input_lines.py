"""What every ``wsgi.input`` does by its ``readline`` (PEP 3333, "Input and Error Streams")."""

from __future__ import annotations

from collections.abc import Iterator


class Lines:
    """An input stream that has ``readline``."""

    __slots__ = ()

    def readline(self, size: int | None = None) -> bytes:
        """Read a line, or ``size`` bytes of it."""
        raise NotImplementedError

    def readlines(self, hint: int | None = None) -> list[bytes]:
        """Read all lines, or about ``hint`` bytes of them."""
        lines: list[bytes] = []
        total = 0
        while line := self.readline():
            lines.append(line)
            total += len(line)
            if hint is not None and 0 < hint <= total:
                break
        return lines

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.readline, b"")
