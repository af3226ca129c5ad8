"""Run one function: ``python -m anygate.job module:function``, as a ``[[cron]]`` entry with ``function`` does."""

import sys

from anygate._anygate import name_job
from anygate.importer import LoadError, call


def main(arguments: list[str]) -> int:
    """Run the function that the one argument names; return the exit code."""
    if len(arguments) != 1:
        print("usage: python -m anygate.job module:function", file=sys.stderr)
        return 2
    name_job(arguments[0])
    try:
        call(arguments[0])
    except LoadError as error:
        print(f"cannot run {arguments[0]}: {error}", file=sys.stderr)
        return 3
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
