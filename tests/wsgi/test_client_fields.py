"""What a client's fields become: over every protocol `HTTP_*`, CONTENT_TYPE and CONTENT_LENGTH, and nothing else."""

import json
import random
import string

import gateways
import pytest
from conftest import APPS
from gateways import cgi_response, scgi, stdout, uwsgi, variables
from http2_frames import Client, plain

#: Variables that a front server or an operator sets. An application believes them.
TRUSTED = [
    "AUTH_TYPE",
    "CONTEXT_DOCUMENT_ROOT",
    "CONTEXT_PREFIX",
    "DOCUMENT_ROOT",
    "DOCUMENT_URI",
    "GATEWAY_INTERFACE",
    "HTTPS",
    "PATH_INFO",
    "PATH_TRANSLATED",
    "QUERY_STRING",
    "RAW_URI",
    "REDIRECT_STATUS",
    "REDIRECT_URI",
    "REMOTE_ADDR",
    "REMOTE_HOST",
    "REMOTE_IDENT",
    "REMOTE_PORT",
    "REMOTE_USER",
    "REQUEST_METHOD",
    "REQUEST_SCHEME",
    "REQUEST_URI",
    "SCRIPT_FILENAME",
    "SCRIPT_NAME",
    "SCRIPT_URI",
    "SERVER_ADDR",
    "SERVER_ADMIN",
    "SERVER_NAME",
    "SERVER_PORT",
    "SERVER_PROTOCOL",
    "SERVER_SIGNATURE",
    "SERVER_SOFTWARE",
    "SSL_CLIENT_S_DN",
    "SSL_CLIENT_VERIFY",
    "TLS_CLIENT_SUBJECT",
    "wsgi.errors",
    "wsgi.file_wrapper",
    "wsgi.input",
    "wsgi.url_scheme",
]
MAY_COME = {"CONTENT_TYPE", "CONTENT_LENGTH", "body", "REMOTE_PORT", "pid"}
SEED = 20260101


def names(count=60):
    """Trusted names, with other letters and dashes, and names of no meaning."""
    chance = random.Random(SEED)
    spelt = [
        change(name)
        for name in TRUSTED
        for change in (
            str,
            str.lower,
            str.title,
            lambda name: name.replace("_", "-"),
            lambda name: name.replace(".", "_"),
        )
    ]
    spelt += [
        "".join(chance.choices(string.ascii_letters + "-_.!#$%&'*+^`|~", k=chance.randint(1, 20))) for _ in range(150)
    ]
    # Of these the framing is the server's, so a value of no meaning would be refused.
    spelt = [name for name in dict.fromkeys(spelt) if name.lower() not in ("host", "te", "connection", "upgrade")]
    chance.shuffle(spelt)
    return [spelt[at : at + count] for at in range(0, len(spelt), count)]


def over_http_1(served, fields):
    return served.get("/echo", fields).json


def over_http_2(served, fields):
    with Client(plain(served.address)) as client:
        return client.ask("GET", "/echo", [(name.lower(), value) for name, value in fields]).json


def assert_only_fields_came(bare, seen, sent):
    assert {key for key in seen.keys() - bare.keys() if not key.startswith("HTTP_")} <= MAY_COME, sent
    kept = {key: value for key, value in bare.items() if key not in MAY_COME and not key.startswith("HTTP_")}
    assert {key: seen.get(key) for key in kept} == kept, sent


@pytest.mark.parametrize("ask", [over_http_1, over_http_2])
def test_no_field_of_a_client_is_a_variable_of_the_server(echo, ask):
    bare = ask(echo, [])
    for some in names():
        assert_only_fields_came(bare, ask(echo, [(name, "client") for name in some]), some)


def test_a_field_is_no_variable_of_a_front_server_either(serve):
    """What a front server passes on of a client begins with HTTP_, whatever its name was."""
    served = serve(
        APPS / "contract.py",
        *(part for kind in ("scgi", "uwsgi", "fastcgi") for part in ("--bind", f"{kind}://127.0.0.1:0")),
    )
    packs = dict(zip(served.addresses, (scgi, uwsgi, gateways.fastcgi), strict=True))
    for address, pack in packs.items():
        bare = over_gateway(served, address, pack, [])
        for some in names():
            sent = [("HTTP_" + name.upper().replace("-", "_"), "client") for name in some]
            assert_only_fields_came(bare, over_gateway(served, address, pack, sent), some)


def over_gateway(served, address, pack, sent):
    with served.connect(address) as connection:
        response = connection.send(pack(variables("GET", "/echo", 0, *sent))).rest()
    if pack is gateways.fastcgi:
        response, _ = stdout(response)
    return json.loads(cgi_response(response)[2])
