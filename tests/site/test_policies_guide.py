"""docs/guide/policies.md, word for word but for ports and for what is elsewhere."""

import gzip
import re
import shlex
import socket
import subprocess
from pathlib import Path

import pytest
from other_servers import free_port

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs" / "guide" / "policies.md").read_text()
TEXT = "a line of text\n" * 200


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", GUIDE, re.DOTALL)


COMMANDS = [line for block in blocks("sh") for line in block.splitlines() if line.startswith("anygate ")]


@pytest.fixture
def folder(tmp_path):
    """A site with all that the guide names."""
    (tmp_path / "myapp.py").write_text(
        "def app(environ, start_response):\n"
        "    start_response('200 OK', [('Content-Type', 'text/plain')])\n"
        "    return [b'myapp']\n"
    )
    for name in ("site/static/assets", "public", "pages", "private"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "site/static/style.css").write_text(TEXT)
    (tmp_path / "site/static/assets/a.js").write_text(TEXT)
    (tmp_path / "public/index.html").write_text("the page")
    return tmp_path


def start(serve, folder, command):
    program, *words = shlex.split(command)
    assert program == "anygate"
    return serve(*words, folder=folder)


@pytest.mark.parametrize("command", [command for command in COMMANDS if "--ready-check" not in command])
def test_the_commands_work(serve, folder, command):
    served = start(serve, folder, command)
    expected = "the page" if "--static /=public" in command else "myapp"
    assert served.get("/", [("Accept", "text/html")]).text == expected


@pytest.mark.parametrize("settings", blocks("toml"))
@pytest.mark.parametrize("concurrency", ["threads", "gevent"])
def test_the_settings_work(serve, folder, settings, concurrency):
    # What listens there is none of ours.
    settings = settings.replace("10.0.0.5:6379", f"127.0.0.1:{free_port()}")
    (folder / "anygate.toml").write_text(settings)
    served = serve("--concurrency", concurrency, folder=folder)
    assert served.get().text == "myapp"


def test_the_whole_site(serve, folder):
    (folder / "anygate.toml").write_text(blocks("toml")[0])
    served = serve(folder=folder)
    assert served.get("/health").text == "OK"
    assert [served.get("/login").status for _ in range(3)] == [200, 200, 429]
    style = served.get("/static/style.css", [("Accept-Encoding", "gzip")])
    assert gzip.decompress(style.body).decode() == TEXT
    assert (style["x-content-type-options"], len(style["x-request-id"])) == ("nosniff", 32)
    missing = served.get("/static/none", [("Accept", "application/json")])
    assert (missing.status, missing.json["status"]) == (404, 404)


@pytest.mark.parametrize(
    "spelled", re.findall(r"`(/\S+)`", GUIDE.partition("Paths are compared")[2].partition(".\n")[0])
)
def test_paths_in_disguise(serve, folder, spelled):
    served = serve("myapp:app", "--deny", "/admin 127.0.0.1", folder=folder)
    assert served.get(spelled).status == 403
    assert served.get("/administrator").status == 200


def test_the_check_says_whether_there_is_a_database(serve, folder):
    check = blocks("python")[0]
    (command,) = (command for command in COMMANDS if "--ready-check" in command)
    with socket.create_server(("127.0.0.1", 0)) as database:
        (folder / "checks.py").write_text(check.replace("5432", str(database.getsockname()[1])))
        served = start(serve, folder, f"{command} --ready-check-interval 100ms")
        assert served.get("/ready").status == 200
    served.wait_until(lambda: served.get("/ready").status == 503, "no database")


def test_siblings_are_made(serve, folder):
    (make,) = (block for block in blocks("sh") if block.startswith("find "))
    subprocess.run(["sh", "-c", make], cwd=folder, check=True)
    served = start(serve, folder, next(command for command in COMMANDS if "--static " in command))
    style = served.get("/static/style.css", [("Accept-Encoding", "gzip")])
    assert style["content-encoding"] == "gzip"
    assert style.body == (folder / "site/static/style.css.gz").read_bytes()
    assert "immutable" in served.get("/static/assets/a.js")["cache-control"]


def test_responses_say_what_the_cache_did(serve, folder):
    (folder / "anygate.toml").write_text(next(block for block in blocks("toml") if "cache_max_bytes" in block))
    served = serve(folder=folder)
    (shown,) = blocks("console")
    assert served.get("/news")["cache-status"].endswith("stored")
    response = served.get("/news")
    shown = dict(line.split(": ") for line in shown.splitlines() if ": " in line)
    assert set(shown) <= {name for name, _ in response.fields}
    assert re.sub(r"\d+", "", response["cache-status"]) == re.sub(r"\d+", "", shown["Cache-Status"])


def test_links_lead_somewhere():
    for target in re.findall(r"\]\(([^)]+)\)", GUIDE):
        path, _, anchor = target.partition("#")
        text = (ROOT / "docs" / "guide" / path).read_text() if path else GUIDE
        headings = {line.lstrip("# ").lower().replace(" ", "-") for line in text.splitlines() if line.startswith("#")}
        assert not anchor or anchor in headings, target
