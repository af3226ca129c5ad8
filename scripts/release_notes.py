"""Print the part of CHANGELOG.md that belongs to a tag: release_notes.py v1.2.3."""

import re
import sys
from pathlib import Path

CHANGELOG = Path(__file__).parents[1] / "CHANGELOG.md"


def notes(changelog: str, tag: str) -> str:
    """Return what stands below the heading of a version; KeyError if there is none."""
    for section in re.split(r"^## ", changelog, flags=re.MULTILINE)[1:]:
        heading, _, text = section.partition("\n")
        if heading.split()[0] == tag.removeprefix("v"):
            return text.strip()
    raise KeyError(tag)


def main() -> int:
    """Print them; return the exit code."""
    try:
        print(notes(CHANGELOG.read_text(), sys.argv[1]))
    except KeyError:
        print(f"CHANGELOG.md has no heading for {sys.argv[1]}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
