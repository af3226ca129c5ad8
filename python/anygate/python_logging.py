"""Python's ``logging``: its configuration (``log_config``), and messages of the native module as its records."""

from __future__ import annotations

import json
import logging
import logging.config
import os
from collections.abc import Iterable
from typing import Any

from anygate.importer import LoadError, make_importable


class ConfigError(LoadError, ValueError):
    """The configuration cannot be used; the message says everything."""


def configure(
    path: str | os.PathLike[str], table: str | None, pythonpath: Iterable[str | os.PathLike[str]] = ()
) -> None:
    """Configure as ``fileConfig`` does by a file, or as ``dictConfig`` does by ``table``, the JSON of the file.

    Loggers that exist already stay enabled. Raises ConfigError.
    """
    make_importable(pythonpath)
    try:
        if table is None:
            logging.config.fileConfig(os.fspath(path), disable_existing_loggers=False)
        else:
            settings: dict[str, Any] = {"version": 1, "disable_existing_loggers": False}
            logging.config.dictConfig(settings | json.loads(table))
    except Exception as error:
        cause = f": {error.__cause__}" if error.__cause__ is not None else ""
        raise ConfigError(f"log_config: {os.fspath(path)}: {type(error).__name__}: {error}{cause}") from error


def emit(name: str, level: int, created: float, text: str) -> None:
    """Pass a message to a logger, as of the time at which it was written."""
    logger = logging.getLogger(name)
    if logger.isEnabledFor(level):
        record = logger.makeRecord(name, level, "anygate", 0, text, (), None)
        # The handler's time would be that of the thread that passes it on.
        record.created = created
        record.msecs = created * 1000 % 1000
        logger.handle(record)
