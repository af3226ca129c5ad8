"""What every server is asked: six requests whose responses are known."""

import json
import os
import time

SEEN = ("REQUEST_METHOD", "SCRIPT_NAME", "PATH_INFO", "QUERY_STRING", "REMOTE_ADDR", "HTTP_X_TEST", "wsgi.url_scheme")


def application(environ, start_response):
    path = environ["PATH_INFO"]
    if path in ("/pid", "/rated"):
        # Long enough for another process to take the next request.
        time.sleep(0.05)
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [str(os.getpid()).encode()]
    if path == "/pieces":
        start_response("200 OK", [("Content-Type", "text/plain")])
        return (b"%d " % number for number in range(1000))
    if path == "/fields":
        fields = [("Set-Cookie", "a=1; Path=/"), ("Set-Cookie", "b=2"), ("X_Under", "1"), ("Content-Length", "4")]
        start_response("418 I'M A TEAPOT", fields)
        return [b"tea\n"]
    if path == "/body":
        # Some servers give bodies of unknown length no CONTENT_LENGTH, but an input that ends.
        if environ.get("CONTENT_LENGTH") or not environ.get("wsgi.input_terminated"):
            body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        else:
            body = environ["wsgi.input"].read()
        response = f"{environ.get('CONTENT_TYPE')} {len(body)} {sum(body)}".encode()
    else:
        response = json.dumps({name: environ.get(name) for name in SEEN}).encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(response)))])
    return [response]
