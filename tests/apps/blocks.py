"""Responses in several blocks, for tests of when these leave."""

from pathlib import Path
from urllib.parse import parse_qs

from gates import wait_at

#: Sizes of blocks: small ones, one that is copied no more, one that no buffer takes, and small ones again.
SIZES = [1, 10, 100, 4096, 20_000, 3, 70_000, 5, 8192, 8192, 8192, 8192, 8192, 8192, 8192, 8192, 8192, 7] * 3


def blocks():
    """What `/many` yields."""
    return [bytes([65 + index % 26]) * size for index, size in enumerate(SIZES)]


def left(environ):
    """How many bytes have left for a client that has read none, as the kernel sees both ends of the socket."""
    ours, theirs = int(environ["SERVER_PORT"]), int(environ["REMOTE_PORT"])
    found = [0, 0]
    for row in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, remote, _, queues, *_ = row.split()
        ports = int(local.rpartition(":")[2], 16), int(remote.rpartition(":")[2], 16)
        sent, received = (int(count, 16) for count in queues.split(":"))
        if ports == (ours, theirs):
            found[0] = sent
        elif ports == (theirs, ours):
            found[1] = received
    return max(found)


class Closing:
    """Blocks with a `close()`."""

    def __init__(self, blocks, close):
        self.blocks, self.close = blocks, close

    def __iter__(self):
        return iter(self.blocks)


def application(environ, start_response):
    """What each path does is said by its name."""
    asked = {name: values[0] for name, values in parse_qs(environ["QUERY_STRING"]).items()}
    path = environ["PATH_INFO"]
    fields = [("Content-Type", asked.get("type", "text/plain"))]
    if "length" in asked:
        fields.append(("Content-Length", asked["length"]))
    write = start_response("200 OK", fields)
    if path == "/gated":
        return gated(asked["gate"])
    if path == "/many":
        return iter(blocks())
    if path == "/written_between":
        return written_between(write)
    if path == "/fails":
        return fails()
    if path == "/late_head":
        return late_head(start_response)
    if path == "/left":
        return left_after_a_block(environ)
    if path == "/left_after_write":
        write(b"written\n")
        return [str(left(environ)).encode()]
    if path == "/left_at_close":
        return Closing([b"one\n", b"two\n"], lambda: Path(asked["file"]).write_text(str(left(environ))))
    if path == "/closes_at":
        return Closing([b"one\n", b"two\n"], lambda: wait_at(asked["gate"]))
    return [path.encode()]


def gated(gate):
    yield b"first\n"
    wait_at(gate)
    yield b"second\n"
    yield b"third\n"
    wait_at(gate)
    yield b"last\n"


def written_between(write):
    for number in range(5):
        yield b"yielded %d\n" % number
        write(b"written %d\n" % number)


def fails():
    yield b"one\n"
    yield b"two\n"
    raise RuntimeError("after two blocks")


def late_head(start_response):
    yield b"one\n"
    try:
        start_response("500 Late", [], (RuntimeError, RuntimeError("too late"), None))
    except RuntimeError as error:
        yield str(error).encode()


def left_after_a_block(environ):
    yield b"data: event\n\n"
    yield b"data: %d\n\n" % left(environ)
