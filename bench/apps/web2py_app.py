"""The web2py site of the tests, in a copy of its own: a page with a form, a session and a database."""

import os
import sys
from pathlib import Path

SITE = Path(__file__).resolve().parents[1] / ".cache" / "web2py"
os.chdir(SITE)
sys.path.insert(0, str(SITE))

from wsgihandler import application  # noqa: E402, F401
