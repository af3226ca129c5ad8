"""docs/guide/tls.md, word for word but for ports and folders that tests may not have."""

import http.server
import os
import re
import shutil
import subprocess
import threading
from pathlib import Path

import pytest
from authority import Authority
from conftest import ANYGATE, APPS
from other_servers import free_port
from secure import Secure
from waiting import PATIENCE
from wire import Connection

GUIDE = (Path(__file__).parents[2] / "docs" / "guide" / "tls.md").read_text()
ENVIRONMENT = {**os.environ, "PATH": f"{ANYGATE.parent}:{os.environ['PATH']}"}


def block(beginning, language="sh"):
    """The commands of the block that begins so."""
    (found,) = re.findall(rf"```{language}\n({re.escape(beginning)}.*?)```", GUIDE, re.DOTALL)
    return found.strip().splitlines()


@pytest.fixture
def shell(tmp_path):
    def run(command, port=None):
        command = command.replace("8443", str(port))
        return subprocess.run(
            ["sh", "-c", command],
            cwd=tmp_path,
            env=ENVIRONMENT,
            capture_output=True,
            timeout=PATIENCE,
            check=True,
            text=True,
        ).stdout

    shutil.copy(APPS / "gates.py", tmp_path)
    (tmp_path / "myapp.py").write_text((APPS / "contract.py").read_text() + "\napp = application\n")
    return run


@pytest.fixture
def start(launch):
    def run(command, **replaced):
        for old, new in replaced.items():
            command = command.replace(old, str(new))
        program, *words = command.split()
        assert program == "anygate"
        return launch(*words).wait_ready()

    return run


def test_on_your_own_machine_and_clients_with_certificates(shell, start):
    make, serve = block("anygate cert")
    shell(make)
    port = free_port()
    served = start(serve, **{"8443": port})
    (ask,) = block("curl --cacert cert.pem https")
    assert "URL: " in shell(ask.replace("curl", "curl --silent --write-out 'URL: %{url_effective}'"), port)
    served.terminate()

    *make, serve = block("openssl req -x509 -newkey")
    for command in make:
        shell(command)
    start(serve, **{"8443": port})
    (ask,) = block("curl --cacert cert.pem --cert")
    (shown,) = re.findall(r"`(CN=Eve,[^`]*)`", GUIDE)
    assert f'"SSL_CLIENT_S_DN": "{shown}"' in shell(ask.replace("8443/", "8443/echo").replace("curl", "curl -s"), port)


def test_with_certificates_of_a_ca(start, shell, tmp_path):
    authority = Authority(tmp_path / "authority")
    live = tmp_path / "live"
    authority.issue("a.example", folder=live / "a.example", files=("fullchain.pem", "privkey.pem"))
    (serve,) = block("anygate myapp:app -b 0.0.0.0:443")
    served = start(
        serve,
        **{"0.0.0.0:443": "127.0.0.1:0", "/etc/letsencrypt/live": live, "--redirect-https 80": "--redirect-https 0"},
    )
    with Secure(served.addresses[0], authority.path, "a.example") as connection:
        assert connection.ask("GET", "/pid").status == 200
    with Connection(served.addresses[1]) as connection:
        assert connection.ask("GET", "/pid")["location"] == f"https://test:{served.addresses[0][1]}/pid"


def test_the_file(run, tmp_path):
    text = "\n".join(block('app = "myapp:app"', "toml")).replace("/etc/ssl", str(tmp_path))
    authority = Authority(tmp_path / "authority")
    for name in ("shop", "blog"):
        authority.issue(f"{name}.example", folder=tmp_path, files=(f"{name}.pem", f"{name}.key"))
    (tmp_path / "anygate.toml").write_text(text)
    assert run("config", "--check").stdout == "ok\n"


class Responder(http.server.BaseHTTPRequestHandler):
    """Responds to every question as it was told to."""

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Type", "application/ocsp-response")
        self.end_headers()
        self.wfile.write(self.server.response)

    def log_message(self, *_):
        pass


def test_ocsp(shell, tmp_path):
    authority = Authority(tmp_path)
    authority.issue("site.example", files=("site.pem", "site.key"))
    with http.server.HTTPServer(("127.0.0.1", 0), Responder) as responder:
        responder.response = authority.ocsp_response()
        threading.Thread(target=responder.serve_forever, daemon=True).start()
        (fetch,) = block("openssl ocsp")
        assert "site.pem: good" in shell(fetch.replace("8888", str(responder.server_address[1])))
        responder.shutdown()
    assert (tmp_path / "site.ocsp").read_bytes() == responder.response
