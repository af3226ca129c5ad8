"""Runs a ``gunicorn.conf.py`` and prints its settings as JSON, each with its line.

It is run as a program, ``python gunicorn_file.py FILE``, so that the code of the file has an interpreter of its own.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import sys
import traceback
from typing import Any


def lines(source: str) -> dict[str, int]:
    """Return the last line at which each name of the module is set."""
    found: dict[str, int] = {}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found[node.id] = max(found.get(node.id, 0), node.lineno)
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            found[node.name] = max(found.get(node.name, 0), node.lineno)
    return found


def plain(value: Any) -> Any:
    """Return a value as JSON has it, or a table with the kind of what JSON cannot have."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {"table": {str(key): plain(item) for key, item in value.items()}}
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return {"kind": type(value).__name__}


def settings(path: str) -> dict[str, Any]:
    """Return the names that the file sets, with value and line."""
    with open(path, encoding="utf-8") as file:
        found = lines(file.read())
    spec = importlib.util.spec_from_file_location("__config__", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is not a file of Python")
    module = importlib.util.module_from_spec(spec)
    sys.modules["__config__"] = module
    spec.loader.exec_module(module)
    return {
        name: {"line": found.get(name, 0), "value": plain(value)}
        for name, value in vars(module).items()
        if not name.startswith("__") and name in found
    }


def main() -> int:
    """Run the file that the command line names; return the exit code."""
    # The folder of this program is not the user's.
    sys.path[0] = os.getcwd()
    # What the file prints is not part of the result.
    result = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    try:
        text = json.dumps(settings(sys.argv[1]))
    except BaseException as error:
        own = os.path.abspath(sys.argv[1])
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == own]
        line = frames[-1].lineno if frames else getattr(error, "lineno", None)
        text = json.dumps({"error": f"{type(error).__name__}: {error}", "line": line})
    with result:
        result.write(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
