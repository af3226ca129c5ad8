"""Says what it is told. Try it with ``python -m websockets ws://127.0.0.1:8000``."""


def application(environ, start_response):
    websocket = environ.get("wsgi.websocket")
    if websocket is None:
        start_response("426 Upgrade Required", [("Content-Type", "text/plain"), ("Upgrade", "websocket")])
        return [b"Here is a WebSocket.\n"]
    while (message := websocket.receive()) is not None:
        websocket.send(message)
    return []
