"""Installs the other servers, and what puts load on them."""

from __future__ import annotations

import subprocess
import sys

from servers import CACHE, ECHO, FLOOR, FLOOR_HTTP, FOLDER, PYTHON


def prepare():
    """Install the other servers and what puts load on them."""
    subprocess.run([sys.executable, FOLDER.parent / "scripts" / "packages.py", "--bench"], check=True)
    stamp = CACHE / "requirements.txt"
    wanted = (FOLDER / "requirements.txt").read_text()
    if not stamp.exists() or stamp.read_text() != wanted:
        CACHE.mkdir(exist_ok=True)
        subprocess.run([sys.executable, "-m", "venv", CACHE / "venv"], check=True)
        subprocess.run([PYTHON, "-m", "pip", "install", "--quiet", "-r", FOLDER / "requirements.txt"], check=True)
        stamp.write_text(wanted)
    for program in (ECHO, FLOOR, FLOOR_HTTP):
        source = FOLDER / f"{program.name}.c"
        subprocess.run(["cc", "-O2", "-Wall", "-Wextra", "-Werror", "-o", program, source], check=True)
