"""Build the documentation as a site, in target/site/site or in the folder that is named. Fails if a link leads nowhere.

The pages are those of docs/, and one with the files of deploy/, to which links to them lead.
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
LANGUAGES = {".yaml": "yaml", ".service": "ini", ".socket": "ini", ".conf": "nginx"}
#: A link out of a folder of docs/: its text and its path.
LINK = re.compile(r"\[([^\]]*)\]\(\.\./\.\./([^)]*)\)")


def linked(markdown: str) -> str:
    """Return a page whose links to deploy/ lead to the page with its files."""

    def replace(found: re.Match[str]) -> str:
        folder = found[2].removeprefix("deploy").strip("/")
        return f"[{found[1]}](../deploy.md{'#' + folder if folder else ''})"

    return LINK.sub(replace, markdown)


def deploy() -> str:
    """Return the page with the files of deploy/, by folder."""
    parts = ["# Configurations\n", "Each is started, or checked, as it is by a test.\n"]
    for folder in sorted(path for path in (ROOT / "deploy").iterdir() if path.is_dir()):
        parts.append(f"## {folder.name}\n")
        for file in sorted(path for path in folder.rglob("*") if path.is_file()):
            parts.append(f"### {file.relative_to(folder)}\n")
            if file.suffix == ".json":
                parts.append("A file to import, among the sources.\n")
            else:
                parts.append(f"````{LANGUAGES.get(file.suffix, 'text')}\n{file.read_text().rstrip()}\n````\n")
    return "\n".join(parts)


def main() -> int:
    """Return the exit code."""
    source = Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "target" / "site").resolve()
    shutil.rmtree(source, ignore_errors=True)
    shutil.copytree(ROOT / "docs", source / "docs")
    for page in (source / "docs").rglob("*.md"):
        page.write_text(linked(page.read_text()))
    (source / "docs" / "deploy.md").write_text(deploy())
    shutil.copy(ROOT / "mkdocs.yml", source)
    build = [Path(sys.executable).with_name("zensical"), "build", "--strict", "--clean"]
    ended = subprocess.run(build, cwd=source, capture_output=True, text=True, check=False)
    if ended.returncode != 0:
        sys.stderr.write(ended.stdout + ended.stderr)
    return ended.returncode


if __name__ == "__main__":
    sys.exit(main())
