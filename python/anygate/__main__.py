"""``python -m anygate`` is ``anygate``."""

from anygate.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
