"""The command ``anygate``."""

import sys

from anygate import _anygate


def main() -> int:
    """Run the command line of this process; return the exit code."""
    return _anygate.main(sys.argv[1:])
