"""Rules of the house that no compiler checks."""

import re
from pathlib import Path

import tomllib

ROOT = Path(__file__).parents[1]
CRATES = ROOT / "crates"

#: What each room may know of the others (docs/architecture.md).
ALLOWED = {
    "proto": set(),
    "sys": set(),
    "config": set(),
    "policy": {"proto", "config"},
    "admin": {"proto", "policy"},
    "server": {"proto", "config", "sys", "policy"},
    "cron": {"sys"},
    "logs": {"config", "sys"},
    "supervisor": {"config", "sys", "cron"},
    "wsgi": {"proto"},
    "py": {"proto", "config", "sys", "policy", "admin", "server", "cron", "logs", "supervisor", "wsgi"},
}


def manifest(room):
    return tomllib.loads((CRATES / room / "Cargo.toml").read_text())


def test_rooms_know_only_the_rooms_below_them():
    rooms = {path.name for path in CRATES.iterdir()}
    assert rooms == set(ALLOWED)
    for room in rooms:
        known = {
            name.removeprefix("anygate-") for name in manifest(room)["dependencies"] if name.startswith("anygate-")
        }
        assert known <= ALLOWED[room], room


def test_only_the_bridge_knows_python_and_only_sys_knows_libc():
    for room in ALLOWED:
        dependencies = manifest(room)["dependencies"]
        assert ("pyo3" in dependencies) == (room in ("wsgi", "py")), room
        assert ("libc" in dependencies) == (room == "sys"), room


def test_unsafe_code_is_only_where_it_may_be():
    for path in CRATES.rglob("*.rs"):
        code = "\n".join(line for line in path.read_text().splitlines() if not line.lstrip().startswith("//"))
        if re.search(r"\bunsafe\b(?!_code|-inline)", code):
            relative = path.relative_to(CRATES)
            assert relative.parts[0] == "sys" or str(relative) == "wsgi/src/ffi.rs", relative


def test_every_room_that_may_not_is_forbidden_unsafe_code():
    for room in set(ALLOWED) - {"sys", "wsgi"}:
        assert "#![forbid(unsafe_code)]" in (CRATES / room / "src" / "lib.rs").read_text(), room


def test_every_file_says_what_it_is():
    for path in CRATES.rglob("*.rs"):
        assert path.read_text().startswith("//!"), path


def test_the_architecture_names_every_room():
    text = (ROOT / "docs" / "architecture.md").read_text()
    for room in ALLOWED:
        assert re.search(rf"^  {room}\s", text, re.MULTILINE), room
    for name in re.findall(r"[a-z_0-9]+\.rs", text):
        assert list(CRATES.rglob(name)), f"{name} is named and does not exist"
