"""deploy/supervisord: a program that it starts, reloads and stops."""

import getpass
import http.client
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

from conftest import ANYGATE
from other_servers import free_port
from waiting import PATIENCE, wait_until

PROGRAM = (Path(__file__).parents[2] / "deploy" / "supervisord" / "anygate.conf").read_text()


def test_it_starts_reloads_and_stops_the_site(tmp_path):
    (tmp_path / "myapp.py").write_text(
        "import os\n"
        "def app(environ, start_response):\n    start_response('200 OK', [])\n    return [b'%d' % os.getpid()]\n"
    )
    port = free_port()
    program = PROGRAM.replace("/srv/myapp/venv/bin/anygate", str(ANYGATE)).replace("/srv/myapp\n", f"{tmp_path}\n")
    program = program.replace("/var/log/supervisor/", f"{tmp_path}/").replace("www-data", getpass.getuser())
    program = program.replace("environment=", f'environment=ANYGATE_PORT="{port}",')
    configuration = tmp_path / "supervisord.conf"
    configuration.write_text(
        "[supervisord]\nnodaemon=true\n[unix_http_server]\nfile=%(here)s/socket\n"
        "[rpcinterface:supervisor]\nsupervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface\n"
        "[supervisorctl]\nserverurl=unix://%(here)s/socket\n" + program
    )
    log = tmp_path / "myapp.log"

    def worker():
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        try:
            connection.request("GET", "/")
            return int(connection.getresponse().read())
        except ConnectionRefusedError:
            return None
        finally:
            connection.close()

    def control(*words):
        command = [sys.executable, "-m", "supervisor.supervisorctl", "-c", configuration, *words]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout

    with (tmp_path / "output").open("wb") as output:
        command = [sys.executable, "-m", "supervisor.supervisord", "-c", configuration]
        daemon = subprocess.Popen(command, cwd=tmp_path, stdout=output, stderr=output)
    try:
        wait_until(worker, "a response", (tmp_path / "output").read_text)
        first = worker()
        assert "signalled" in control("signal", "HUP", "myapp")
        wait_until(lambda: "reloaded: 2 new workers" in log.read_text(), "the reload", log.read_text)
        wait_until(lambda: worker() not in (first, None), "responses of new workers", log.read_text)
        assert "stopped" in control("stop", "myapp")
        assert worker() is None
        assert "stopping at once" not in log.read_text()
        assert re.search(r"stopping: workers finish", log.read_text())
    finally:
        os.kill(daemon.pid, signal.SIGTERM)
        daemon.wait(PATIENCE)
