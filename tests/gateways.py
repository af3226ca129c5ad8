"""Requests as front servers send them: SCGI, uwsgi and FastCGI, packed by hand."""

import struct

BEGIN, ABORT, END, PARAMS, STDIN, STDOUT, GET_VALUES, GET_VALUES_RESULT, UNKNOWN = 1, 2, 3, 4, 5, 6, 9, 10, 11


def latin(value):
    """Text to bytes; bytes stay."""
    return value if isinstance(value, bytes) else value.encode("latin-1")


def variables(method="GET", target="/echo", length=0, *more, fields=(("HTTP_HOST", "test"),)):
    """What a front server sends for a request, with CONTENT_LENGTH first as SCGI wants it."""
    path, _, query = target.partition("?")
    return [
        ("CONTENT_LENGTH", str(length) if length else ""),
        ("SCGI", "1"),
        ("REQUEST_METHOD", method),
        ("REQUEST_URI", target),
        ("QUERY_STRING", query),
        ("PATH_INFO", path),
        ("SERVER_PROTOCOL", "HTTP/1.1"),
        ("REMOTE_ADDR", "192.0.2.7"),
        ("REMOTE_PORT", "4711"),
        ("SERVER_NAME", "front.example"),
        ("SERVER_PORT", "80"),
        *fields,
        *more,
    ]


def scgi(variables, body=b""):
    """Pack a request for SCGI."""
    packed = b"".join(latin(name) + b"\0" + latin(value) + b"\0" for name, value in variables)
    return b"%d:%s,%s" % (len(packed), packed, latin(body))


def uwsgi(variables, body=b"", modifier1=0):
    """Pack a request for the uwsgi protocol."""

    def sized(text):
        return struct.pack("<H", len(text)) + text

    packed = b"".join(sized(latin(name)) + sized(latin(value)) for name, value in variables)
    return struct.pack("<BHB", modifier1, len(packed), 0) + packed + latin(body)


def record(kind, number, content=b"", padding=0):
    """One FastCGI record."""
    return struct.pack(">BBHHBx", 1, kind, number, len(content), padding) + content + b"\0" * padding


def begin(number=1, keep=False, role=1):
    """Begin a FastCGI request."""
    return record(BEGIN, number, struct.pack(">HB5x", role, int(keep)))


def stream(kind, number, content, size=65535):
    """All records of one stream, with its end."""
    pieces = [content[at : at + size] for at in range(0, len(content), size)]
    return b"".join(record(kind, number, piece, len(piece) % 8) for piece in pieces) + record(kind, number)


def params(variables):
    """Pack variables for FastCGI."""

    def size(text):
        return bytes([len(text)]) if len(text) < 128 else struct.pack(">I", len(text) | 1 << 31)

    pairs = [(latin(name), latin(value)) for name, value in variables]
    return b"".join(size(name) + size(value) + name + value for name, value in pairs)


def fastcgi(variables, body=b"", number=1, keep=False):
    """Pack a request for FastCGI."""
    return begin(number, keep) + stream(PARAMS, number, params(variables)) + stream(STDIN, number, latin(body))


def pack_all(case):
    """Pack a case of tests/corpus/gateways for each protocol."""
    return [pack(case["variables"], case["body"]) for pack in (scgi, uwsgi, fastcgi)]


def records(wire):
    """Take FastCGI records apart: (kind, number, content) of each whole one, and what is left."""
    found = []
    while len(wire) >= 8:
        _, kind, number, length, padding = struct.unpack(">BBHHBx", wire[:8])
        if len(wire) < 8 + length + padding:
            break
        found.append((kind, number, wire[8 : 8 + length]))
        wire = wire[8 + length + padding :]
    return found, wire


def stdout(wire, number=1):
    """What a FastCGI request wrote, and the (application, protocol) status of its end or None."""
    content, ended = b"", None
    for kind, other, data in records(wire)[0]:
        if other == number and kind == STDOUT:
            content += data
        if other == number and kind == END:
            ended = struct.unpack(">IB3x", data)
    return content, ended


def cgi_response(wire):
    """Take a CGI response apart: status, fields in lower case, body."""
    head, _, body = wire.partition(b"\r\n\r\n")
    first, *rest = head.decode("latin-1").split("\r\n")
    word = first.split(" ")
    assert word[0] in ("Status:", "HTTP/1.1"), first
    fields = {}
    for line in rest:
        name, _, value = line.partition(": ")
        fields.setdefault(name.lower(), []).append(value)
    return int(word[1]), fields, body
