"""The files of which an application is made, named while it imports them (``reload``)."""

from __future__ import annotations

import glob
import os
import sys
import sysconfig
import time
from collections.abc import Callable, Iterable
from types import CodeType
from typing import Any

LIBRARY = os.path.join(sysconfig.get_path("stdlib"), "")
PACKAGES = ("site-packages", "dist-packages")
#: Seconds.
FRESH = 2
TEMPLATES = ("templates", "views")


class Sources:
    """Writes paths to a pipe, each once, with NUL at its end."""

    def __init__(self, pipe: int) -> None:
        self.pipe = pipe
        self.seen: set[str] = set()
        self.writes_nothing = sys.dont_write_bytecode

    def tell(self, path: object) -> None:
        """Name a file of the code, and folders beside it that have templates."""
        if not isinstance(path, str) or path in self.seen:
            return
        self.seen.add(path)
        if not os.path.isabs(path) or is_library(path):
            return
        self.write(path)
        self.tell_templates(os.path.dirname(path))

    def tell_templates(self, folder: str) -> None:
        """Name the folders of templates in a folder."""
        for name in TEMPLATES:
            templates = os.path.join(folder, name)
            if templates not in self.seen and os.path.isdir(templates):
                self.seen.add(templates)
                self.write(templates)

    def write(self, path: str) -> None:
        """Write a path, and where it leads."""
        # A link changes with the file behind it.
        for each in dict.fromkeys((path, os.path.realpath(path))):
            try:
                os.write(self.pipe, os.fsencode(each) + b"\0")
            except OSError:
                # The supervisor is gone, and this process is about to be.
                return

    def hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        """See code before it runs, and before it is compiled, which may fail."""
        if event == "exec":
            if isinstance(arguments[0], CodeType):
                self.tell(arguments[0].co_filename)
        elif event == "import":
            self.tell(arguments[1])
        elif event == "compile":
            self.tell(arguments[1])
            # Compiled files are known by the second and size of their source, which the next save may share.
            sys.dont_write_bytecode = self.writes_nothing or is_fresh(arguments[1])


def is_fresh(path: object) -> bool:
    """Whether a file was written a moment ago."""
    try:
        return isinstance(path, str) and time.time() - os.stat(path).st_mtime < FRESH
    except (OSError, ValueError):
        return False


def is_library(path: str) -> bool:
    """Whether a file is Python's own."""
    return path.startswith(LIBRARY) and not path.startswith(tuple(os.path.join(LIBRARY, name) for name in PACKAGES))


def tell(pipe: int, patterns: Iterable[str]) -> None:
    """Write the paths of all code that this process runs from now on to ``pipe``, and of the files of ``patterns``."""
    sources = Sources(pipe)
    sys.addaudithook(sources.hook)
    sources.tell_templates(os.getcwd())
    for pattern in patterns:
        path = os.path.abspath(pattern)
        # One that has no file yet is a name of one.
        for found in glob.glob(path, recursive=True) or [path]:
            sources.write(found)


def tell_missing(pipe: int, error: BaseException) -> None:
    """Write where a module may appear that ``error`` says is missing."""
    if isinstance(error, ModuleNotFoundError) and error.name:
        sources = Sources(pipe)
        for folder in dict.fromkeys(os.path.abspath(folder) for folder in sys.path):
            path = os.path.join(folder, *error.name.split(".")) + ".py"
            if not is_library(path) and not any(name in path for name in PACKAGES):
                sources.write(path)


def failing(error: BaseException) -> Callable[..., Any]:
    """Return an application that fails with ``error``, which the import of another one raised."""
    where = error.__traceback__
    while where is not None and where.tb_next is not None and not is_own(where.tb_frame.f_code.co_filename):
        where = where.tb_next

    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        if not isinstance(error, Exception):
            raise RuntimeError(f"the import raised {type(error).__name__}") from error.with_traceback(where)
        raise error.with_traceback(where)

    return application


def is_own(path: str) -> bool:
    """Whether a file is the application's, and none that imports it."""
    return not is_library(path) and not path.startswith(("<frozen ", os.path.join(os.path.dirname(__file__), "")))
