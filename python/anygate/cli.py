"""The command ``anygate``."""

import io
import sys

from anygate import _anygate


def main() -> int:
    """Run the command line of this process; return the exit code."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # What the application prints is seen at once, and is not lost with its worker.
        sys.stdout.reconfigure(line_buffering=True)
    arguments = sys.argv[1:]
    if arguments[:1] == ["web2py"]:
        from anygate.web2py import command

        return command(arguments[1:])
    return _anygate.main(arguments)
