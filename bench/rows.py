"""The rows of the comparison: what requests every server gets, and what a right response is.

Rows that are about many clients or about the life of a process are in crowds.py and lifecycle.py.
"""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass, field

import peers
from peers import Wanted
from servers import ALL_POLICIES, CACHE, POLICIES, site_folder

HELLO = b"Hello, World!"
BOUNDARY = "a-boundary-between-parts"


@dataclass
class RequestKind:
    """One kind of request."""

    title: str
    application: str  # module:name
    expected: object  # the response's body, or a function that says whether a body is right
    path: str = "/"
    body: bytes = b""
    chunk_bytes: int = 0  # the body is sent in chunks of this size
    fields: dict = field(default_factory=dict)
    connections: int = 32
    streams: int = 0  # of each connection, over HTTP/2
    wanted: Wanted = field(default_factory=Wanted)
    servers: dict = field(default_factory=lambda: peers.ALL)
    both_cores: bool = False  # for the server and for the load
    seconds_min: int = 0  # of load, where one response takes long

    @property
    def length(self):
        """Bytes of the response's body, as far as they are known."""
        return len(self.expected) if isinstance(self.expected, bytes) else 0

    @property
    def closes(self):
        return self.fields.get("Connection") == "close"

    def is_right(self, body):
        return body == self.expected if isinstance(self.expected, bytes) else self.expected(body)

    def body_file(self):
        """The body in a file, for the programs that send it."""
        file = CACHE / "bodies" / f"{self.title.replace('/', '-')}.body"
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(self.body)
        return file


def is_user(body):
    return json.loads(body) == {"id": 7, "name": "somebody", "tags": ["a", "b", "c"], "active": True}


def is_page_of_books(body):
    return body.count(b"<tr ") == 20 and b"Book &lt;19&gt;" in body and b"Author Number 4" in body


def is_guest_book(body):
    return b'name="_formkey"' in body and body.rstrip().endswith(b"</ul>")


def multipart(content):
    """A form with one file, as browsers send it."""
    head = (
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="file.bin"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n"
    )
    return head.encode() + content + f"\r\n--{BOUNDARY}--\r\n".encode()


BROWSER = {
    "User-Agent": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
    "Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
    "Accept-Language": "de,en-US;q=0.7,en;q=0.3",
    "Accept-Encoding": "gzip, deflate, br, zstd",
    "Referer": "https://www.example.org/catalogue/page/7?sort=price",
    "Cookie": "sessionid=b0x4m1n3xq7e9w2k5v8t6r3y1u0i2o4p; csrftoken=Zk3nQ9sT7vW1xY5aB8cD2eF6gH0jK4lM; consent=all",
    "Upgrade-Insecure-Requests": "1",
    "Sec-Fetch-Dest": "document",
    "Sec-Fetch-Mode": "navigate",
    "Sec-Fetch-Site": "same-origin",
    "Priority": "u=0, i",
}
FORM = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
OCTETS = {"Content-Type": "application/octet-stream"}
TLS, HTTP2 = Wanted(tls=True), Wanted(http2=True)
KB, MB = 1000, 1_000_000


def small():
    hello = functools.partial(RequestKind, application="plain:hello", expected=HELLO)
    return [
        hello("hello, 13 bytes"),
        hello("hello over TLS", wanted=TLS),
        hello("hello over HTTP/2 and TLS", wanted=HTTP2, connections=10, streams=10),
        hello("Connection: close", fields={"Connection": "close"}),
        hello("a browser's request, 12 fields", fields=BROWSER),
        hello("access log on", wanted=Wanted(access_log=True)),
    ]


def uploads():
    post = functools.partial(RequestKind, application="plain:post", fields=OCTETS)
    large = functools.partial(post, body=b"x" * 10 * MB, expected=b"10000000", connections=4)
    million = functools.partial(post, body=b"x" * MB, expected=b"1000000", connections=16)
    return [
        post("POST 20 KB", body=b"x" * 20 * KB, expected=b"20000"),
        million("POST 1 MB"),
        million("POST 1 MB over TLS", wanted=TLS),
        million("POST 1 MB in chunks of 16 KB", chunk_bytes=16_384),
        # With more streams h2load and curl wait for ever for a larger window of the connection.
        million("POST 1 MB over HTTP/2 and TLS", wanted=HTTP2, streams=1),
        large("POST 10 MB"),
        large("POST 10 MB over TLS", wanted=TLS),
    ]


def downloads():
    large = functools.partial(RequestKind, application="plain:large", expected=b"x" * 100_000)
    huge = functools.partial(RequestKind, application="plain:ten_megabytes", expected=b"x" * 10 * MB, connections=4)
    blocks = b"".join(b"a short block, line %02d\n" % number for number in range(20))
    return [
        large("100 KB"),
        large("100 KB over TLS", wanted=TLS),
        large("100 KB over HTTP/2 and TLS", wanted=HTTP2, connections=10, streams=10),
        huge("10 MB, one bytes object"),
        huge("10 MB over TLS", wanted=TLS),
        RequestKind("a generator of 20 short blocks", "plain:short_blocks", blocks),
        RequestKind("1 MB in blocks of 16 KB", "plain:streamed", b"x" * 64 * 16_384, connections=8),
    ]


def frameworks():
    flask = functools.partial(RequestKind, application="flask_app:app", path="/users/7", expected=is_user)
    upload = functools.partial(RequestKind, path="/upload", body=multipart(b"x" * MB), fields=FORM, expected=b"1000000")
    return [
        flask("Flask JSON"),
        flask("Flask JSON, 2 workers on 2 cores", wanted=Wanted(workers=2), both_cores=True),
        upload("Flask, 1 MB multipart", application="flask_app:app", connections=8),
        upload("Django, 1 MB multipart", application="django_app:application", connections=8),
        RequestKind("Django, template and ORM", "django_app:application", is_page_of_books, "/books", connections=8),
        RequestKind(
            "web2py, page with form, session and database",
            "web2py_app:application",
            is_guest_book,
            "/guestbook/default/index",
            connections=8,
        ),
    ]


def policies():
    """Hello with policies one by one and together; peers with those that they have."""
    chosen = {"no policy": (), **POLICIES, "all together": ALL_POLICIES}
    variants = {f"anygate, {name}": functools.partial(peers.anygate, extra=extra) for name, extra in chosen.items()}
    logged = Wanted(request_ids=True, access_log=True)

    def peregrine(module, name, port, wanted):
        return [
            *peers.peregrine(module, name, port, logged)[:-1],
            "--health-check-path",
            "/up",
            "--compress",
            f"{module}:{name}",
        ]

    servers = {**variants, "peregrine, ids, log, health, compression": peregrine, "peregrine": peers.peregrine}
    return [
        RequestKind("hello with policies", "plain:hello", HELLO, fields={"Accept-Encoding": "gzip"}, servers=servers)
    ]


def files():
    rows = []
    for size, connections in (("1k", 32), ("100k", 32), ("10m", 4), ("100m", 4)):
        file = functools.partial(
            RequestKind,
            application="plain:hello",
            path=f"/static/{size}",
            expected=(site_folder() / size).read_bytes(),
            connections=connections,
            seconds_min=5 if size == "100m" else 0,
        )
        rows += [
            file(f"static file of {size}", wanted=Wanted(static=True)),
            file(f"static file of {size} over TLS", wanted=Wanted(static=True, tls=True)),
            file(f"static file of {size} over HTTP/2 and TLS", wanted=Wanted(static=True, http2=True), streams=1),
        ]
    return rows


GROUPS = {
    "small": small,
    "uploads": uploads,
    "downloads": downloads,
    "frameworks": frameworks,
    "policies": policies,
    "files": files,
}
