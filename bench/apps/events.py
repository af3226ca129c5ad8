"""A stream of events, one a second, each with the time at which it was made."""

import random
import time

import gevent


def events(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/event-stream"), ("Cache-Control", "no-store")])
    # Clients that come together shall not have their events together.
    gevent.sleep(random.random())
    while True:
        yield b"data: %.6f\n\n" % time.monotonic()
        gevent.sleep(1)
