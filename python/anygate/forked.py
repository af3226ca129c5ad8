"""The end of a process that the application has forked in a request or an import."""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from typing import NoReturn


def end(error: BaseException | None) -> NoReturn:
    """End this process as a program ends that ``error`` has come out of, but at once: without ``atexit``."""
    code = 0
    try:
        if isinstance(error, SystemExit):
            if error.code is None or isinstance(error.code, int):
                code = (error.code or 0) & 0xFF
            else:
                code = 1
                print(error.code, file=sys.stderr)
        elif error is not None:
            code = 1
            traceback.print_exception(type(error), error, error.__traceback__)
    finally:
        for stream in (sys.stdout, sys.stderr):
            # It may be None or closed.
            with contextlib.suppress(Exception):
                stream.flush()
        os._exit(code)
