"""Applications behind one callable, chosen by the path, that use `wsgi.websocket` or what else there is."""

import json
import select
import sys

from anygate import uwsgi
from anygate.websocket import WebSocketError
from gates import wait_at


def application(environ, start_response):
    name = environ["PATH_INFO"].strip("/") or "echo"
    return globals()[name](environ, start_response)


def say(text):
    print(text, file=sys.stderr, flush=True)


def echo(environ, start_response):
    ws = environ["wsgi.websocket"]
    while (message := ws.receive()) is not None:
        ws.send(message)
    return []


def plain(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"no WebSocket here" if "wsgi.websocket" in environ else b"nobody asked"]


def keys(environ, start_response):
    start_response("200 OK", [])
    return [json.dumps(sorted(key for key in environ if "socket" in key)).encode()]


def facts(environ, start_response):
    ws = environ["wsgi.websocket"]
    ws.accept("chat", [("X-Own", "yes"), ("Sec-WebSocket-Version", "13")])
    seen = {name: getattr(ws, name) for name in ("path", "origin", "version", "protocol", "closed")}
    ws.send(json.dumps({**seen, "same": ws.environ is environ}))
    return []


def unknown_protocol(environ, start_response):
    try:
        environ["wsgi.websocket"].accept("spoken by nobody")
    except ValueError as error:
        start_response("400 Bad Request", [])
        return [str(error).encode()]


def responded_as_well(environ, start_response):
    environ["wsgi.websocket"].send("hello")
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"this goes nowhere"]


def responded_first(environ, start_response):
    start_response("200 OK", [])(b"first")
    try:
        environ["wsgi.websocket"].send("late")
    except WebSocketError as error:
        return [b", then: " + str(error).encode()]


def raises(environ, start_response):
    environ["wsgi.websocket"].send("soon")
    raise RuntimeError("broken application")


def busy(environ, start_response):
    ws = environ["wsgi.websocket"]
    ws.send("busy")
    wait_at(environ["QUERY_STRING"])
    ws.send("done")
    return []


def closes(environ, start_response):
    ws = environ["wsgi.websocket"]
    ws.close(4001, b"enough")
    ws.close(4002, "twice does nothing")
    try:
        ws.send("late")
    except WebSocketError as error:
        say(f"closed={ws.closed} {error}")
    say(f"then {ws.receive()}")
    try:
        ws.receive()
    except WebSocketError as error:
        say(f"at last: {error}")
    return []


def told(environ, start_response):
    """Says how its WebSocket ended."""
    ws = environ["wsgi.websocket"]
    ws.send("begin")
    say("begun")
    while (message := ws.receive()) is not None:
        say(f"received {message!r}")
    try:
        ws.receive()
    except WebSocketError as error:
        say(f"ended: closed={ws.closed} {error}")
    return []


def waits_first(environ, start_response):
    ws = environ["wsgi.websocket"]
    ws.accept()
    wait_at(environ["QUERY_STRING"])
    return echo(environ, start_response)


def only_sends(environ, start_response):
    ws = environ["wsgi.websocket"]
    wait_at(environ["QUERY_STRING"])
    ws.send("news")
    return []


def pops_and_sends(environ, start_response):
    ws = environ.pop("wsgi.websocket")
    wait_at(environ["QUERY_STRING"])
    ws.send("news")
    return []


def takes_none(environ, start_response):
    wait_at(environ["QUERY_STRING"])
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"an ordinary response"]


def refuses_late(environ, start_response):
    ws = environ["wsgi.websocket"]
    wait_at(environ["QUERY_STRING"])
    say(f"refused one that is closed: {ws.closed}")
    start_response("403 Forbidden", [("Content-Type", "text/plain")])
    return [b"not for you"]


def accepts_late(environ, start_response):
    ws = environ["wsgi.websocket"]
    wait_at(environ["QUERY_STRING"])
    try:
        ws.accept(environ.get("HTTP_SEC_WEBSOCKET_PROTOCOL"), headers=[("X-Own", "yes")])
    except WebSocketError as error:
        say(f"too late: {error}")
        ws.accept()
    ws.send("accepted")
    return []


def floods(environ, start_response):
    ws = environ["wsgi.websocket"]
    sent = 0
    try:
        for _ in range(1000):
            ws.send(b"\0" * 65536)
            sent += 1
    except WebSocketError:
        say(f"sent {sent} and was told")
    return []


def frames(environ, start_response):
    ws = environ["wsgi.websocket"]
    ws.send_frame("text", 1)
    ws.send_frame(b"binary", 2)
    ws.send_frame("are you there", 9)
    ws.send(bytearray(b"array"))
    ws.send(memoryview(b"view"))
    ws.send(b"text in bytes", binary=False)
    ws.send("bytes in text", True)
    for wrong in (lambda: ws.send(b"\xff", binary=False), lambda: ws.send(1), lambda: ws.send_frame(b"", 3)):
        try:
            wrong()
        except (ValueError, TypeError, WebSocketError) as error:
            ws.send(type(error).__name__)
    try:
        ws.receive(timeout=0.01)
    except TimeoutError:
        ws.send("nothing came")
    return []


def selects(environ, start_response):
    """Waits for the descriptor instead of in `receive`."""
    ws = environ["wsgi.websocket"]
    ws.send("ready")
    while True:
        readable, _, _ = select.select([ws.fileno()], [], [], 10)
        assert readable
        try:
            message = ws.receive_nowait()
        except WebSocketError:
            say("ended")
            return []
        if message is not None:
            ws.send(message)


def in_uwsgi(environ, start_response):
    uwsgi.websocket_handshake(environ["HTTP_SEC_WEBSOCKET_KEY"], environ.get("HTTP_ORIGIN", ""))
    assert uwsgi.websocket_recv_nb() == b""
    uwsgi.websocket_send("ready")
    try:
        while True:
            message = uwsgi.websocket_recv()
            (uwsgi.websocket_send_binary if message.startswith(b"b") else uwsgi.websocket_send)(message)
    except OSError as error:
        say(f"ended: {error}")
    return b""


def without(environ, start_response):
    """Outside of a handshake there is nothing to use."""
    try:
        uwsgi.websocket_send("a")
    except OSError as error:
        start_response("200 OK", [])
        return [str(error).encode()]


def raw(environ, start_response):
    """Takes the connection over and speaks no WebSocket at all."""
    sock = environ["werkzeug.socket"]
    sock.sendall(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: shouting\r\nConnection: Upgrade\r\n\r\n")
    while data := sock.recv(65536):
        sock.sendall(data.upper())
    say("raw ended")
    sock.sendall(b"")
    sock.close()
    raise ConnectionError
