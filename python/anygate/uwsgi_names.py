"""The names under which applications import uWSGI's functions."""

from __future__ import annotations

import sys

from anygate import uwsgi, uwsgidecorators


def register() -> None:
    """Make the functions importable as ``uwsgi`` and ``uwsgidecorators``, unless there are others of these names."""
    sys.modules.setdefault("uwsgi", uwsgi)
    sys.modules.setdefault("uwsgidecorators", uwsgidecorators)
