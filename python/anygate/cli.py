"""The command ``anygate``."""

import sys

from anygate import _anygate


def main() -> int:
    """Run the command line of this process; return the exit code."""
    arguments = sys.argv[1:]
    if arguments[:1] == ["web2py"]:
        from anygate.web2py import command

        return command(arguments[1:])
    return _anygate.main(arguments)
