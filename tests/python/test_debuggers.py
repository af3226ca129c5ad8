"""Debuggers that speak the Debug Adapter Protocol: a program that listens for one, and one that has started anygate."""

import json
import socket
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from other_servers import free_port
from waiting import PATIENCE, wait_until

pytest.importorskip("debugpy")

APP = """
import os
if "LISTEN" in os.environ:
    import debugpy
    debugpy.listen(("127.0.0.1", int(os.environ["LISTEN"])))

def compute(number):
    doubled = number * 2
    return doubled

def app(environ, start_response):
    start_response("200 OK", [])
    return [str(compute(21)).encode()]
"""
LINE = APP.splitlines().index("    doubled = number * 2") + 1


class Adapter:
    """One session of a client."""

    def __init__(self, port):
        self.socket = wait_until(lambda: connected(port), "the debugger to listen")
        self.file = self.socket.makefile("rb")
        self.sent = 0
        self.events = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()
        self.socket.close()

    def send(self, command, **arguments):
        self.sent += 1
        message = {"seq": self.sent, "type": "request", "command": command, "arguments": arguments}
        body = json.dumps(message).encode()
        self.socket.sendall(b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
        return self.sent

    def read(self):
        length = 0
        while (line := self.file.readline()) != b"\r\n":
            assert line, "the session ended"
            if line.lower().startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        message = json.loads(self.file.read(length))
        if message["type"] == "event":
            self.events.append(message)
        return message

    def response(self, number):
        while (message := self.read())["type"] != "response" or message["request_seq"] != number:
            pass
        assert message["success"], message
        return message.get("body")

    def ask(self, command, **arguments):
        return self.response(self.send(command, **arguments))

    def event(self, name):
        while True:
            for event in self.events:
                if event["event"] == name:
                    self.events.remove(event)
                    return event.get("body")
            self.read()

    def attach(self, path, **how):
        """Begin the session with a breakpoint."""
        self.ask("initialize", adapterID="test", clientID="test")
        attached = self.send("attach", **how)
        self.event("initialized")
        self.ask("setBreakpoints", source={"path": str(path)}, breakpoints=[{"line": LINE}])
        self.ask("configurationDone")
        self.response(attached)

    def stops_at_requests(self, served):
        pool = ThreadPoolExecutor()
        for _ in range(2):
            asked = pool.submit(served.get)
            thread = self.event("stopped")["threadId"]
            frame = self.ask("stackTrace", threadId=thread)["stackFrames"][0]
            assert frame["name"] == "compute"
            assert self.ask("evaluate", expression="number + 1", frameId=frame["id"])["result"] == "22"
            self.ask("continue", threadId=thread)
            assert asked.result().body == b"42"


def connected(port):
    try:
        return socket.create_connection(("127.0.0.1", port), PATIENCE)
    except ConnectionRefusedError:
        return None


#: Options, and what the debugger wants to be told.
MODES = [
    pytest.param([], {}, id="threads"),
    pytest.param(["--concurrency", "gevent"], {"GEVENT_SUPPORT": "True"}, id="gevent"),
]


@pytest.mark.parametrize(("options", "environment"), MODES)
def test_a_program_that_listens_for_a_debugger_stops_at_its_breakpoints(serve, tmp_path, options, environment):
    (tmp_path / "app.py").write_text(APP)
    port = free_port()
    served = serve("app:app", *options, environment={**environment, "LISTEN": str(port)})
    # Threads that have run requests are traced as well as new ones.
    assert served.get().body == b"42"
    with Adapter(port) as adapter:
        adapter.attach(tmp_path / "app.py", justMyCode=True)
        adapter.stops_at_requests(served)


@pytest.mark.parametrize(("options", "environment"), MODES)
def test_a_debugger_that_has_started_anygate_follows_its_workers(launch, tmp_path, options, environment):
    (tmp_path / "app.py").write_text(APP)
    port = free_port()
    debugger = [sys.executable, "-m", "debugpy", "--log-to-stderr"]
    command = [*debugger, "--listen", f"127.0.0.1:{port}", "--wait-for-client", "-m", "anygate"]
    served = launch("app:app", "--port", "0", *options, command=command, environment=environment)
    # The adapter takes no second client if the first one comes before it has said so.
    served.wait_for_log("Adapter is accepting incoming client connections")
    with Adapter(port) as adapter:
        adapter.attach(tmp_path / "app.py", subProcess=True)
        worker = adapter.event("debugpyAttach")
        with Adapter(port) as session:
            session.attach(tmp_path / "app.py", **worker)
            served.wait_ready()
            session.stops_at_requests(served)
