"""The large application, which lifecycle.py makes."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1] / ".cache" / "large"))

import large_application

application = large_application.hello
