"""docs/guide/moving.md, word for word."""

import re
import shlex
from pathlib import Path

import pytest
import tomllib

GUIDE = (Path(__file__).parents[2] / "docs" / "guide" / "moving.md").read_text()


def rows(heading):
    """Option of the other server and option of ours, of a section's table."""
    section = GUIDE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return re.findall(r"^\| `([^`]+)` \| `([^`]+)` \|", section, re.MULTILINE)


#: The file in which an option of each server is tried.
FILES = {
    "uWSGI": ("a.ini", "[uwsgi]\n%s\n"),
    "gunicorn": ("conf.py", "%s\n"),
    "mod_wsgi": ("site.conf", "%s\nWSGIPassAuthorization On\n"),
    "Unit": (
        "unit.json",
        '{"listeners": {"*:80": {"pass": "applications/a"}}, "applications": {"a": {"type": "python", %s}}}',
    ),
}
ROWS = [(heading, *row) for heading in FILES for row in rows(heading)]


def check(ended, ours):
    assert ended.returncode == 0, ended.stderr
    (expected,) = tomllib.loads(ours).items()
    assert expected in tomllib.loads(ended.stdout).items()
    assert "-- without counterpart" not in ended.stdout


@pytest.mark.parametrize(("heading", "theirs", "ours"), ROWS)
def test_an_option_becomes_what_the_guide_says(run, tmp_path, heading, theirs, ours):
    name, text = FILES[heading]
    (tmp_path / name).write_text(text.replace("%s", theirs))
    check(run("import", name), ours)


@pytest.mark.parametrize(("theirs", "ours"), rows("waitress"))
def test_an_option_of_waitress_becomes_what_the_guide_says(run, theirs, ours):
    check(run("import", "--", "waitress-serve", theirs, "app:app"), ours)


def test_the_tables_are_read():
    assert {heading: len(rows(heading)) > 9 for heading in [*FILES, "waitress"]} == dict.fromkeys(
        [*FILES, "waitress"], True
    )


def commands():
    table = GUIDE.split("| from | files |")[1].split("\n\n")[0]
    cells = [line.split("|")[3] for line in table.splitlines()[2:] if line.count("|") >= 4]
    return [command for cell in cells for command in re.findall(r"`([^`]+)`", cell)]


@pytest.mark.parametrize("command", commands())
def test_the_command_lines_of_the_guide_are_understood(run, tmp_path, command):
    (tmp_path / "gunicorn.conf.py").write_text("threads = 2\n")
    (tmp_path / "production.ini").write_text("[server:main]\nuse = egg:waitress\nport = 80\n")
    ended = run("import", "--", *shlex.split(command))
    assert ended.returncode == 0, ended.stderr
    assert "app" in tomllib.loads(ended.stdout)


def test_the_first_commands_of_the_guide_serve(launch, run, tmp_path):
    (tmp_path / "app.py").write_text(
        "def app(environ, start_response):\n    start_response('200 OK', [])\n    return [b'moved']\n"
    )
    (tmp_path / "uwsgi.ini").write_text("[uwsgi]\nhttp = 127.0.0.1:0\nmodule = app:app\n")
    first, second = re.findall(r"```sh\n(.*?)```", GUIDE, re.DOTALL)
    assert first == "anygate --config uwsgi.ini\n"
    assert launch(*first.split()[1:], folder=tmp_path).wait_ready().get().text == "moved"
    assert second == "anygate import uwsgi.ini > anygate.toml\nanygate\n"
    (tmp_path / "anygate.toml").write_text(run("import", "uwsgi.ini").stdout)
    (tmp_path / "uwsgi.ini").unlink()
    assert launch(folder=tmp_path).wait_ready().get().text == "moved"
