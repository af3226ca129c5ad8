"""A site behind a real front server, with a configuration of deploy/ as it is, but for its ports."""

import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
from pathlib import Path

import pytest
from conftest import ANYGATE, APPS, Served
from other_servers import free_port
from waiting import PATIENCE, wait_until

DEPLOY = Path(__file__).parent.parent.parent / "deploy"
#: In the files of deploy/: where the front server listens, and where the back ends do.
PORTS = (8080, 4000, 4001, 4002)
#: Limits of HAProxy that a slow machine would meet.
LIMITS = re.compile(r"\btimeout (connect|client|server|http-request|check) \d+s")
SEARCH = os.pathsep.join([os.environ["PATH"], "/usr/sbin", "/sbin"])


def listens(port):
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def wait_for(port, process, log):
    def told():
        return log.read_text(errors="replace")

    wait_until(lambda: listens(port) or process.poll() is not None, f"a listener on {port}", told)
    if process.poll() is not None:
        pytest.fail(f"it ended with {process.returncode} before it listened on {port}\n{told()}")


class Site:
    """A folder with a site, its back ends, and a front server."""

    def __init__(self):
        # Front servers that run as root hand over to users who may not look into the folders of pytest.
        self.folder = Path(tempfile.mkdtemp(prefix="anygate-site-"))
        self.folder.chmod(0o755)
        (self.folder / "tmp").mkdir()
        (self.folder / "tmp").chmod(0o777)
        static = self.folder / "applications" / "welcome" / "static"
        static.mkdir(parents=True)
        (static / "hello.txt").write_text("a static file\n")
        (self.folder / "applications" / "welcome" / "secret.txt").write_text("not for the world\n")
        self.front = None
        self.back_ends = []
        self.log = self.folder / "front.log"

    def add_program(self, folder, command):
        """Write a program `app` that the front server starts, and that does this."""
        path = self.folder / folder / "app"
        path.parent.mkdir()
        path.write_text(f"#!/bin/sh\nexec {command}\n")
        path.chmod(0o755)

    def start_back_ends(self, protocol, *more):
        for _ in PORTS[1:]:
            self.back_ends.append(self.back_end(protocol, 0, *more))
        for back_end in self.back_ends:
            back_end.wait_ready()

    def back_end(self, protocol, port, *more):
        """Start one back end."""
        scheme = "http" if protocol.startswith("http") else protocol
        options = ("--trusted-proxies", "127.0.0.1") if scheme == "http" else ()
        arguments = [APPS / "contract.py", "--bind", f"{scheme}://127.0.0.1:{port}", *options, *more]
        return Served(arguments, self.folder)

    def start_front(self, name, protocol, edit=str, before=()):
        """Start it with a file of deploy/, or with what `edit` makes of its text; `before`: what starts the program."""
        self.port = free_port()
        listening = [self.port, *(back_end.address[1] for back_end in self.back_ends)]
        ports = {str(said): str(port) for said, port in zip(PORTS, listening, strict=False)}
        said = re.compile(rf"\b({'|'.join(ports)})\b")
        shutil.copytree(DEPLOY / name, self.folder / "front")
        (configuration,) = (self.folder / "front").glob(f"{protocol}.c*")
        configuration.write_text(edit(configuration.read_text()))
        for path in configuration.parent.iterdir():
            text = said.sub(lambda found: ports[found[0]], path.read_text())
            path.write_text(LIMITS.sub(r"timeout \1 10m", text))
        command = {
            "nginx": ["nginx", "-p", self.folder, "-c", configuration],
            "lighttpd": ["lighttpd", "-D", "-f", configuration],
            "haproxy": ["haproxy", "-f", configuration],
            "apache": ["apache2", "-d", self.folder, "-f", configuration, "-D", "FOREGROUND"],
            "caddy": ["caddy", "run", "--config", configuration, "--adapter", "caddyfile"],
        }[name]
        program = shutil.which(command[0], path=SEARCH)
        assert program, f"{command[0]} is not installed; make test installs it"
        environment = {**os.environ, "PATH": os.pathsep.join([str(ANYGATE.parent), SEARCH])}
        with self.log.open("wb") as log:
            self.front = subprocess.Popen(
                [*before, program, *map(str, command[1:])], cwd=self.folder, env=environment, stdout=log, stderr=log
            )
        wait_for(self.port, self.front, self.log)

    def stop(self):
        if self.front:
            self.front.send_signal(signal.SIGTERM)
            try:
                self.front.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                self.front.kill()
                self.front.wait()
        for back_end in self.back_ends:
            back_end.kill()
        shutil.rmtree(self.folder)

    def ask(self, method="GET", target="/echo", body=None, fields=None, **options):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        try:
            connection.request(method, target, body, fields or {}, **options)
            response = connection.getresponse()
            return response.status, dict(response.getheaders()), response.read()
        finally:
            connection.close()

    def seen(self, *arguments, **options):
        status, _, body = self.ask(*arguments, **options)
        assert status == 200, (status, body, self.log.read_text(errors="replace"))
        return json.loads(body)

    def hold_slow_clients(self, count, head, rest):
        """Let clients stop inside their bodies; others are served meanwhile, and then they are, too."""
        slow = []
        try:
            for _ in range(count):
                slow.append(socket.create_connection(("127.0.0.1", self.port), PATIENCE))
                slow[-1].sendall(head)
            assert self.ask("GET", "/pid")[0] == 200
            for connection in slow:
                connection.sendall(rest)
            for connection in slow:
                assert connection.recv(100).startswith(b"HTTP/1.1 200")
        finally:
            for connection in slow:
                connection.close()

    def under_load(self, disturb, happened=lambda: True):
        """Ask with several clients while something happens, and until it has happened; give the statuses."""
        statuses, ended = [], threading.Event()

        def client():
            while not ended.is_set():
                try:
                    statuses.append(self.ask("GET", "/pid")[0])
                except OSError as error:
                    statuses.append(repr(error))

        clients = [threading.Thread(target=client) for _ in range(4)]
        for thread in clients:
            thread.start()
        try:
            wait_until(lambda: len(statuses) > 40, "responses before")
            disturb()
            wait_until(happened, "that it happened")
            before = len(statuses)
            wait_until(lambda: len(statuses) > before + 40, "responses after")
        finally:
            ended.set()
            for thread in clients:
                thread.join()
        return statuses
