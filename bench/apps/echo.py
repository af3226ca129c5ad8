"""A WebSocket that says what it is told."""


def echo(environ, start_response):
    websocket = environ.get("wsgi.websocket")
    if websocket is None:
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "2")])
        return [b"ok"]
    while (message := websocket.receive()) is not None:
        websocket.send(message)
    return []
