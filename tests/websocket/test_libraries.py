"""Libraries for WebSockets under WSGI: Flask-Sock and Flask-SocketIO, as their documentation shows them."""

import ssl

import pytest
import socketio
from other_servers import certificate
from simple_websocket import Client, ConnectionClosed
from waiting import PATIENCE
from websockets.exceptions import ConnectionClosedError
from websockets.sync.client import connect

SOCK = """
from flask import Flask
from flask_sock import Sock

app = Flask(__name__)
app.config["SOCK_SERVER_OPTIONS"] = {"ping_interval": 2}
sock = Sock(app)

@sock.route("/echo")
def echo(ws):
    while True:
        data = ws.receive()
        ws.send(data)

@sock.route("/reverse/<word>")
def reverse(ws, word):
    ws.send(word[::-1])
    ws.close(4000, "said it")

@app.route("/")
def index():
    return "index"
"""

SOCKETIO = """
from flask import Flask
from flask_socketio import SocketIO, emit

app = Flask(__name__)
socketio = SocketIO(app, async_mode="threading", ping_interval=1)

@socketio.on("echo")
def echo(data):
    emit("echo", data)

@socketio.on("sum")
def add(first, second):
    return first + second

@app.route("/")
def index():
    return "index"
"""

UWSGI = """
import uwsgi

def application(environ, start_response):
    protocol = environ.get("HTTP_SEC_WEBSOCKET_PROTOCOL", "")
    uwsgi.websocket_handshake(environ["HTTP_SEC_WEBSOCKET_KEY"], environ.get("HTTP_ORIGIN", ""), protocol)
    while True:
        uwsgi.websocket_send(uwsgi.websocket_recv())
"""


@pytest.fixture(params=["threads", "gevent"])
def sock(serve, tmp_path, request):
    (tmp_path / "site.py").write_text(SOCK)
    return serve(tmp_path / "site.py", "--threads", "4", "--concurrency", request.param)


def test_flask_sock(sock):
    address = sock.url.replace("http", "ws")
    for _ in range(3):
        ws = Client.connect(f"{address}/echo")
        for message in ("hello", b"\0\xff", "x" * 100_000):
            ws.send(message)
            assert ws.receive(timeout=PATIENCE) == message
        ws.close()
    # simple-websocket's own client loses frames that come together with the response to its handshake.
    with connect(f"{address}/reverse/word") as ws:
        assert ws.recv(10) == "drow"
        with pytest.raises(ConnectionClosedError) as closed:
            ws.recv(10)
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4000, "said it")
    assert sock.get("/").text == "index"
    assert "Traceback" not in sock.log()


def test_flask_sock_when_the_worker_ends(sock):
    ws = Client.connect(sock.url.replace("http", "ws") + "/echo")
    ws.send("a")
    assert ws.receive(timeout=PATIENCE) == "a"
    assert sock.terminate() == 0
    with pytest.raises(ConnectionClosed):
        ws.receive(timeout=PATIENCE)
    assert "Traceback" not in sock.log()


def test_flask_sock_over_tls(serve, tmp_path):
    (tmp_path / "site.py").write_text(SOCK)
    pair = certificate(tmp_path)
    served = serve(tmp_path / "site.py", "-c", pair[0], "-k", pair[1])
    host, port = served.address
    context = ssl.create_default_context(cafile=pair[0])
    ws = Client.connect(f"wss://{host}:{port}/echo", ssl_context=context)
    ws.send("x" * 50_000)
    assert ws.receive(timeout=PATIENCE) == "x" * 50_000
    ws.close()


@pytest.mark.parametrize("concurrency", ["threads", "gevent"])
@pytest.mark.parametrize("transports", [["websocket"], ["polling"], ["polling", "websocket"]])
def test_flask_socketio(serve, tmp_path, transports, concurrency):
    (tmp_path / "site.py").write_text(SOCKETIO)
    served = serve(tmp_path / "site.py", "--threads", "8", "--concurrency", concurrency)
    client = socketio.SimpleClient()
    client.connect(served.url, transports=transports)
    assert client.transport in transports
    client.emit("echo", {"number": 1, "bytes": b"\0\1"})
    assert client.receive(timeout=PATIENCE) == ["echo", {"number": 1, "bytes": b"\0\1"}]
    assert client.call("sum", (1, 2), timeout=PATIENCE) == 3
    client.disconnect()
    assert served.get("/").text == "index"
    assert served.terminate() == 0
    assert "Traceback" not in served.log()


def test_an_application_of_uwsgi_finds_its_module(serve, tmp_path):
    (tmp_path / "site.py").write_text(UWSGI)
    served = serve(tmp_path / "site.py", "--uwsgi-module")
    ws = Client.connect(served.url.replace("http", "ws") + "/", subprotocols=["chat"])
    assert ws.subprotocol == "chat"
    ws.send("hello")
    assert ws.receive(timeout=PATIENCE) == "hello"
    ws.close()


def test_nobody_else_is_told_that_this_is_uwsgi(launch, tmp_path):
    (tmp_path / "site.py").write_text(UWSGI)
    served = launch(tmp_path / "site.py", "--port", "0")
    assert served.wait() != 0
    served.wait_for_log("No module named 'uwsgi'")
