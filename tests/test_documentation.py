"""What the documentation shows is what happens."""

import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import gateways
import pytest
import tomllib
from other_servers import Http, free_port, over_tls, wait_for
from waiting import PATIENCE

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


@pytest.fixture
def site(tmp_path):
    app = "def app(environ, start_response):\n    start_response('200 OK', [])\n    return [b'myapp']\n"
    (tmp_path / "myapp.py").write_text(app + "def create_app():\n    return app\n")
    (tmp_path / "path/to").mkdir(parents=True)
    (tmp_path / "path/to/app.py").write_text(app)
    (tmp_path / "project").mkdir()
    (tmp_path / "project/wsgi.py").write_text(app.replace("app(", "application("))
    return tmp_path


def commands():
    text = next(block for block in blocks("sh") if "anygate myapp:app " in block)
    return [line.split("#")[0].strip() for line in text.splitlines()]


@pytest.mark.parametrize("command", commands())
def test_the_commands_of_the_readme_work(launch, run, site, command):
    if command == "anygate servers":
        assert "gunicorn" in run("servers").stdout
        return
    if command.startswith("anygate doctor"):
        assert "finding" in run(*command.split()[1:], folder=site).stdout.replace("nothing found", "no finding")
        return
    if command.startswith("anygate cert"):
        assert run(*command.split()[1:], folder=site).returncode == 0
        return
    if "-s waitress" in command:
        port = free_port()
        words = [str(port) if word == "8000" else word for word in command.split()[1:]]
        served = launch(*words, folder=site)
        assert wait_for(served, lambda: Http(port).ask("GET", "/"))[2] == b"myapp"
        return
    if "tls/cert.pem" in command:
        # The files are those of the command before it.
        (maker,) = [words for words in commands() if words.startswith("anygate cert")]
        assert run(*maker.split()[1:], folder=site).returncode == 0
        port = free_port()
        words = [str(port) if word == "8443" else word for word in command.split()[1:]]
        launch(*words, folder=site).wait_ready()
        assert over_tls(port, site / "tls" / "cert.pem").endswith(b"\r\n\r\nmyapp")
        return
    if "--web2py" in command:
        shutil.copytree(ROOT / "tests" / "web2py" / "site", site / "web2py")
        port = free_port()
        served = launch("--web2py", site / "web2py", "-a", "<random>", "-p", port).wait_ready()
        assert served.get("/guestbook/default/client").status == 200
        assert "your admin password is" in served.stdout()
        return
    command = re.sub(r"\b[0-9.]+:(8000|3031)\b", "127.0.0.1:0", command).replace("/run/", f"{site}/")
    if "--bind" not in command:
        command += " --port 0"
    anygate = Path(sys.executable).parent / "anygate"
    served = launch(command=["sh", "-c", command.replace("anygate", f"exec {anygate}", 1)]).wait_ready()
    if "--scgi" in command:
        variables = [("CONTENT_LENGTH", "0"), ("SCGI", "1"), ("REQUEST_METHOD", "GET"), ("REQUEST_URI", "/")]
        with served.connect() as connection:
            connection.send(gateways.scgi(variables))
            assert gateways.cgi_response(connection.rest())[2] == b"myapp"
    else:
        with served.connect(served.addresses[-1 if "fastcgi" in command else 0]) as connection:
            assert connection.ask().body == b"myapp"


def test_the_file_of_the_readme_is_valid(run, site):
    (text,) = blocks("toml")
    assert tomllib.loads(text)["workers"] == 4
    (site / "anygate.toml").write_text(text)
    assert run("config", "--check", folder=site).returncode == 0


def test_the_python_of_the_readme_works(launch, site):
    (text,) = blocks("python")
    text = "from myapp import app\n" + text.replace("port=8000", "port=0").replace("anygate.serve", "# anygate.serve")
    ended = subprocess.run(
        [sys.executable, "-c", text], cwd=site, capture_output=True, text=True, timeout=PATIENCE, check=True
    )
    assert ended.stdout.startswith("http://127.0.0.1:")


def test_the_demo_application_greets(launch):
    served = launch("app:application", "--port", "0", folder=ROOT / "examples" / "demo").wait_ready()
    page = served.get()
    assert page.status == 200
    assert "anygate works" in page.text
    assert "wsgi.input" in page.text
    form = [("Content-Type", "application/x-www-form-urlencoded")]
    assert "Hello, &lt;Eve&gt;!" in served.get("/", form, "POST", b"name=%3CEve%3E").text
    assert served.get("/nowhere").status == 404
    assert served.terminate(signal.SIGINT) == 0


def test_exit_codes_and_signals_of_the_readme_are_those_of_the_tests():
    """Each is tested where it belongs; this keeps the table from growing beyond them."""
    assert set(re.findall(r"^\| ([A-Z0-9, ]+) \|", README, re.MULTILINE)) == {
        "TERM, INT, QUIT",
        "HUP",
        "USR1",
        "TTIN, TTOU",
        "USR2",
        "WINCH",
    }


def test_the_tests_that_a_page_names_exist():
    named = re.findall(r"`(\w+/test_\w+\.py)::(test_\w+)`", (ROOT / "docs" / "originals.md").read_text())
    assert len(named) > 40
    missing = [f"{file}::{test}" for file, test in named if f"def {test}(" not in read_test(file)]
    assert missing == []


def read_test(file):
    path = ROOT / "tests" / file
    return path.read_text() if path.exists() else ""


def test_every_page_is_in_the_menu_of_the_site():
    menu = (ROOT / "mkdocs.yml").read_text()
    pages = [path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")]
    assert [page for page in pages if f"- {page}\n" not in menu] == []
