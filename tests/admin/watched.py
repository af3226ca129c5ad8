"""Servers with an admin address."""

import http.client
import json
import re
import socket

from conftest import APPS

CONTRACT = APPS / "contract.py"


class Answer:
    def __init__(self, answer):
        self.status, self.fields, self.body = answer.status, answer.headers, answer.read()

    @property
    def text(self):
        return self.body.decode()

    @property
    def json(self):
        return json.loads(self.body)


class Admin:
    """The admin address of a running server."""

    def __init__(self, served):
        served.wait_for_log("status, metrics and orders: ")
        self.served = served
        self.url = re.search(r"orders: (\S+)", served.log())[1]
        self.address = self.url.removeprefix("http://")

    def ask(self, path, method="GET", host=None, **fields):
        """`fields` are given with underscores for hyphens."""
        if self.url.startswith("unix:"):
            connection = http.client.HTTPConnection("localhost")
            connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            connection.sock.connect(self.url.removeprefix("unix:"))
        else:
            connection = http.client.HTTPConnection(self.address, timeout=20)
        fields = {name.replace("_", "-"): value for name, value in fields.items()}
        if host is not None:
            fields["Host"] = host
        connection.request(method, path, headers=fields)
        answer = Answer(connection.getresponse())
        connection.close()
        return answer

    def post(self, path):
        return self.ask(path, "POST", X_Anygate="1")

    def status(self):
        return self.ask("/api/status").json

    def wait_until(self, condition, what):
        """Wait until the status is as wanted; give it."""

        def look():
            status = self.status()
            return status if condition(status) else None

        return self.served.wait_until(look, what)


def watch(serve, *arguments, app=CONTRACT, address="127.0.0.1:0", **options):
    """Start a server with an admin address."""
    return Admin(serve(app, "--admin", address, *arguments, **options))
