"""What a release is made of: its notes, and which Pythons it is built for."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from waiting import PATIENCE

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "scripts"))
import release_notes  # noqa: E402

WORKFLOWS = {path.stem: yaml.safe_load(path.read_text()) for path in (ROOT / ".github" / "workflows").glob("*.yml")}


def test_notes_are_those_of_the_tag():
    changelog = "# Changelog\n\n## Unreleased\n\n* a\n\n## 0.2.0 (2027-01-31)\n\n* b\n* c\n\n## 0.1.0\n\n* d\n"
    assert release_notes.notes(changelog, "v0.2.0") == "* b\n* c"
    assert release_notes.notes(changelog, "v0.1.0") == "* d"
    with pytest.raises(KeyError):
        release_notes.notes(changelog, "v0.3.0")


def test_a_tag_without_notes_is_named():
    command = [sys.executable, ROOT / "scripts" / "release_notes.py", "v0.0.0"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert (ended.returncode, ended.stderr) == (1, "CHANGELOG.md has no heading for v0.0.0\n")


def test_every_python_that_is_tested_is_built_for_and_tried():
    tested = WORKFLOWS["test"]["jobs"]["pythons"]["strategy"]["matrix"]["python"]
    tried = WORKFLOWS["release"]["jobs"]["try"]["strategy"]["matrix"]["python"]
    (arguments,) = {
        step["with"]["args"]
        for job in ("wheels", "macos")
        for step in WORKFLOWS["release"]["jobs"][job]["steps"]
        if "args" in step.get("with", {})
    }
    assert re.findall(r"python(3\.\d+)", arguments) == tried == tested
    lowest = re.search(r'requires-python = ">=(\S+)"', (ROOT / "pyproject.toml").read_text())
    assert tested[0] == lowest[1]
