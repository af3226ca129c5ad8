"""docs/tutorial.md, word for word but for ports and folders."""

import re
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from conftest import ANYGATE
from other_servers import Http, free_port, wait_for
from waiting import PATIENCE

TEXT = (Path(__file__).parents[2] / "docs" / "tutorial.md").read_text()
CLIENT = ("curl", "anygate ctl")
ASGI = """
async def app(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": scope["path"].encode()})
"""


def blocks(language, heading):
    section = TEXT.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return re.findall(rf"```{language}\n(.*?)```", section, re.DOTALL)


def servers(heading):
    """The commands of a section that serve."""
    return [block.strip() for block in blocks("sh", heading) if not block.startswith(CLIENT)]


@pytest.fixture
def shop(tmp_path):
    (tmp_path / "shop.py").write_text(blocks("python", "Flask")[0])
    return tmp_path


@pytest.fixture
def moved(shop):
    """The ports of the tutorial, and those that a test has in their place."""
    ports = {"8000": str(free_port()), "9191": str(free_port())}
    return lambda text: re.sub("8000|9191", lambda found: ports[found[0]], text)


def ask(folder, text):
    """Run the commands of a client; give what they print."""
    text = text.replace("curl ", "curl -s ").replace("anygate ctl", f"{ANYGATE} ctl")
    return subprocess.run(
        text, shell=True, cwd=folder, capture_output=True, text=True, timeout=PATIENCE, check=True
    ).stdout


def command(line, port):
    program, *words = line.split()
    assert program == "anygate"
    return [word.strip("'") for word in words], ["--port", str(port)]


@pytest.mark.parametrize("line", servers("Flask"))
def test_flask(launch, shop, moved, line):
    words, place = command(line, int(moved("8000")))
    launch(*words, *place, folder=shop).wait_ready()
    (client,) = [block for block in blocks("sh", "Flask") if block.startswith(CLIENT)]
    told = ask(shop, moved(client))
    assert told.startswith("<h1>Shop</h1>")
    assert told.endswith('{"ordered":"tea"}\n')


def test_django(launch, tmp_path):
    create = [sys.executable, "-m", "django", "startproject", "mysite", tmp_path]
    subprocess.run(create, check=True, timeout=PATIENCE)
    settings = tmp_path / "mysite" / "settings.py"
    settings.write_text(settings.read_text() + '\nSTATIC_ROOT = BASE_DIR / "static"\n')
    collect = [sys.executable, "manage.py", "collectstatic"]
    subprocess.run(collect, cwd=tmp_path, check=True, capture_output=True, timeout=PATIENCE)
    (line,) = servers("Django")
    words, place = command(line, 0)
    served = launch(*words, *place, folder=tmp_path).wait_ready()
    with urllib.request.urlopen(served.url, timeout=PATIENCE) as page:
        assert b"The install worked successfully" in page.read()
    assert served.get("/static/admin/css/base.css").status == 200


def test_web2py(launch, web2py_site):
    (line,) = servers("web2py")
    words, place = command(line.replace("/srv/web2py", str(web2py_site)), free_port())
    served = launch(*words, *place).wait_ready()
    assert "your admin password is" in served.stdout()
    assert served.get("/guestbook/default/client").text == "127.0.0.1 GET 127.0.0.1"


def test_an_asgi_application(launch, tmp_path):
    ((target, code),) = re.findall(r"^\| FastAPI, Starlette \| `anygate (\S+)` \| `([^`]+)`", TEXT, re.MULTILINE)
    (tmp_path / "myapp.py").write_text(f"import a2wsgi\n{ASGI}\n{code}\n")
    served = launch(target, "--port", "0", folder=tmp_path).wait_ready()
    assert served.get("/tea").text == "/tea"


def test_a_site(launch, run, shop, moved):
    heading = "From a command to a site"
    (settings,) = blocks("toml", heading)
    (shop / "anygate.toml").write_text(moved(settings))
    check, serve = servers(heading)
    assert run(*check.split()[1:], folder=shop).stdout == "ok\n"
    served = launch(*serve.split()[1:], folder=shop)
    wait_for(served, lambda: Http(int(moved("8000"))).ask("GET", "/ready")[0] == 200)
    (client,) = [block for block in blocks("sh", heading) if block.startswith(CLIENT)]
    told = ask(shop, moved(client))
    assert "HTTP/1.1 200 OK" in told
    assert "anygate_workers" in told
    served.wait_for_log("reload")
