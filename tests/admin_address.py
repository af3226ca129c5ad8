"""Servers with an admin address."""

import re

from conftest import APPS
from wire import Connection

CONTRACT = APPS / "contract.py"


class Admin:
    """The admin address of a running server."""

    def __init__(self, served, begins=""):
        served.wait_for_log(f"status, metrics and orders: {begins}")
        self.served = served
        self.url = re.search(rf"orders: ({begins}\S+)", served.log())[1]
        self.address = self.url.removeprefix("http://")

    def ask(self, path, method="GET", host=None, **fields):
        """`fields` are given with underscores for hyphens."""
        name, _, place = self.address.rpartition(":")
        unix = name == "unix"
        fields = [(name.replace("_", "-"), value) for name, value in fields.items()]
        with Connection(place if unix else (name, int(place))) as connection:
            return connection.ask(method, path, fields, host=host or ("localhost" if unix else self.address))

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
