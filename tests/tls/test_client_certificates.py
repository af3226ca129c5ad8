"""What the application learns of a TLS connection, certificates of clients, and clients that come again."""

import contextlib
import re
import ssl
import subprocess

import pytest
from authority import Authority
from conftest import APPS
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from secure import Secure
from waiting import PATIENCE

CONTRACT = APPS / "contract.py"
V2, V3 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3
VERSIONS = pytest.mark.parametrize("version", [V2, V3])


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path / "authority")


@pytest.fixture
def pair(authority):
    return authority.issue("127.0.0.1", "site.example")


@pytest.fixture
def clients(tmp_path):
    """The authority of clients; only the server trusts it."""
    return Authority(tmp_path / "clients", "a CA of clients")


def variables(served, trusted, name="site.example", **options):
    with Secure(served.address, trusted, name, **options) as connection:
        seen = connection.ask("GET", "/echo").json
        again = connection.ask("GET", "/echo").json
        found = {key: value for key, value in seen.items() if key.startswith("SSL_")}
        assert found == {key: value for key, value in again.items() if key.startswith("SSL_")}
        return found


@VERSIONS
def test_every_connection_says_how_it_is_encrypted(serve, authority, pair, version):
    served = serve(CONTRACT, "-c", pair[0], "-k", pair[1])
    with Secure(
        served.address, authority.path, "site.example", minimum_version=version, maximum_version=version
    ) as connection:
        seen = connection.ask("GET", "/echo").json
        cipher, protocol, _ = connection.socket.cipher()
        assert connection.socket.selected_alpn_protocol() is None
    found = {key: value for key, value in seen.items() if key.startswith("SSL_")}
    assert found == {
        "SSL_PROTOCOL": connection.socket.version() or protocol,
        "SSL_CIPHER": cipher,
        "SSL_TLS_SNI": "site.example",
        "SSL_CLIENT_VERIFY": "NONE",
    }
    # An address is no name that a client may ask for.
    assert "SSL_TLS_SNI" not in variables(served, authority.path, "127.0.0.1")


def test_plain_connections_say_nothing_of_it(serve, authority, pair):
    served = serve(CONTRACT, "-c", pair[0], "-k", pair[1], "-b", "http://127.0.0.1:0")
    seen = served.get("/echo", [("SSL-CLIENT-VERIFY", "SUCCESS"), ("SSL_CLIENT_VERIFY", "SUCCESS")]).json
    assert not [key for key in seen if key.startswith("SSL_")]


def test_http_is_agreed_on(serve, authority, pair):
    served = serve(CONTRACT, "-c", pair[0], "-k", pair[1])
    context = ssl.create_default_context(cafile=authority.path)
    context.set_alpn_protocols(["made-up", "http/1.1"])
    with Secure(served.address, None, context=context) as connection:
        assert connection.socket.selected_alpn_protocol() == "http/1.1"
        assert connection.ask("GET", "/pid").status == 200
    context.set_alpn_protocols(["made-up"])
    with pytest.raises(ssl.SSLError):
        Secure(served.address, None, context=context)


@VERSIONS
def test_a_client_must_have_a_certificate(serve, authority, clients, pair, version, tmp_path):
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.COUNTRY_NAME, "DE"),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, 'Müller, "Söhne" + Co; <x>\\'),
            x509.NameAttribute(NameOID.USER_ID, "#7 "),
            x509.NameAttribute(NameOID.DOMAIN_COMPONENT, "example"),
            x509.NameAttribute(NameOID.EMAIL_ADDRESS, "eve@site.example"),
            x509.NameAttribute(x509.ObjectIdentifier("1.2.3.4"), "unknown"),
            x509.NameAttribute(NameOID.COMMON_NAME, "Eve"),
        ]
    )
    mine = clients.issue("eve", subject=subject)
    served = serve(CONTRACT, "-c", pair[0], "-k", pair[1], "--client-ca", clients.path)
    settings = {"minimum_version": version, "maximum_version": version}
    found = variables(served, authority.path, client=mine, **settings)

    def shown(*arguments):
        command = ["openssl", "x509", "-in", mine[0], "-noout", "-nameopt", "RFC2253,-esc_msb", *arguments]
        text = subprocess.run(command, capture_output=True, check=True).stdout.decode()
        return text.strip().partition("=")[2]

    assert found["SSL_CLIENT_VERIFY"] == "SUCCESS"
    assert found["SSL_CLIENT_S_DN"].encode("latin-1").decode() == shown("-subject")
    assert found["SSL_CLIENT_I_DN"] == shown("-issuer") == "CN=a CA of clients"
    assert found["SSL_CLIENT_M_SERIAL"] == shown("-serial")
    assert found["SSL_CLIENT_V_START"] == shown("-startdate")
    assert found["SSL_CLIENT_V_END"] == shown("-enddate")
    assert found["SSL_CLIENT_CERT"] == clients.last.public_bytes(Encoding.PEM).decode()

    # None, one of another CA, one that is not valid any more.
    other = Authority(tmp_path / "other").issue("eve")
    expired = clients.issue("eve", days=(-5, -1), files=("old.pem", "old.key"))
    for client in (None, other, expired):
        with pytest.raises((ssl.SSLError, OSError)):
            variables(served, authority.path, client=client, **settings)
    assert found == variables(served, authority.path, client=mine, **settings)


@VERSIONS
def test_a_client_may_have_a_certificate(serve, authority, clients, pair, version, tmp_path):
    served = serve(CONTRACT, "-c", pair[0], "-k", pair[1], "--client-ca", clients.path, "--client-cert", "optional")
    settings = {"minimum_version": version, "maximum_version": version}
    found = variables(served, authority.path, **settings)
    assert found["SSL_CLIENT_VERIFY"] == "NONE"
    assert "SSL_CLIENT_S_DN" not in found
    found = variables(served, authority.path, client=clients.issue("eve"), **settings)
    assert (found["SSL_CLIENT_VERIFY"], found["SSL_CLIENT_S_DN"]) == ("SUCCESS", "CN=eve")
    with pytest.raises((ssl.SSLError, OSError)):
        variables(served, authority.path, client=Authority(tmp_path / "other").issue("eve"), **settings)


def test_what_a_trusted_proxy_says_has_no_certificate(serve, authority, clients, pair):
    """The certificate is the proxy's; whoever its client is has none."""
    served = serve(
        CONTRACT, "-c", pair[0], "-k", pair[1], "--client-ca", clients.path, "--trusted-proxies", "127.0.0.1"
    )
    with Secure(served.address, authority.path, client=clients.issue("proxy")) as connection:
        seen = connection.ask("GET", "/echo", [("X-Forwarded-For", "192.0.2.1")]).json
        assert seen["REMOTE_ADDR"] == "192.0.2.1"
        assert not [key for key in seen if key.startswith("SSL_CLIENT")]
        assert connection.ask("GET", "/echo").json["SSL_CLIENT_S_DN"] == "CN=proxy"


@VERSIONS
def test_clients_that_come_again_are_known_to_all_workers(serve, authority, pair, version):
    served = serve(CONTRACT, "-c", pair[0], "-k", pair[1], "--workers", 3)
    context = ssl.create_default_context(cafile=authority.path)
    context.minimum_version = context.maximum_version = version

    with contextlib.ExitStack() as stack:

        def pid(session):
            # It stays open, so that others have fewer connections than the worker that accepted it.
            connection = stack.enter_context(Secure(served.address, None, context=context, session=session))
            worker = connection.ask("GET", "/pid").text
            return worker, connection.socket.session_reused, connection.socket.session

        first, reused, session = pid(None)
        assert not reused
        seen = {first}

        def asked_two():
            nonlocal session
            worker, reused, fresh = pid(session)
            assert reused
            seen.add(worker)
            if version == V3:
                session = fresh
            return len(seen) > 1

        # Two workers prove as much as three.
        served.wait_until(asked_two, "a response of another worker")


@VERSIONS
def test_clients_that_come_again_keep_their_certificate(serve, authority, clients, pair, version):
    options = [CONTRACT, "-c", pair[0], "-k", pair[1], "--client-ca", clients.path, "--workers", 2]
    served = serve(*options)
    context = ssl.create_default_context(cafile=authority.path)
    context.minimum_version = context.maximum_version = version
    context.load_cert_chain(*clients.issue("eve"))

    def ask(session):
        with Secure(served.address, None, context=context, session=session) as connection:
            seen = connection.ask("GET", "/echo").json
            return seen["SSL_CLIENT_S_DN"], connection.socket.session_reused, connection.socket.session

    _, _, session = ask(None)
    name, reused, session = ask(session)
    assert (name, reused) == ("CN=eve", True)
    # Where other CAs are trusted, what was let in before does not count.
    clients.path.write_bytes(Authority(clients.folder / "new").path.read_bytes())
    served.wait_for_log("the certificates have changed", 2)
    with pytest.raises((ssl.SSLError, OSError)):
        ask(session)


def test_s_client_comes_again(serve, authority, pair, tmp_path):
    served = serve(CONTRACT, "-c", pair[0], "-k", pair[1], "--workers", 2)
    host, port = served.address
    connect = ["openssl", "s_client", "-connect", f"{host}:{port}"]
    done = subprocess.run(
        [*connect, "-tls1_2", "-reconnect"], input=b"", capture_output=True, timeout=PATIENCE, check=False
    )
    assert len(re.findall(rb"^Reused, TLSv1.2", done.stdout, re.MULTILINE)) == 5
    saved = tmp_path / "session"
    request = b"GET /pid HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    for option in ("-sess_out", "-sess_in"):
        command = [*connect, "-tls1_3", "-ign_eof", option, saved]
        done = subprocess.run(command, input=request, capture_output=True, timeout=PATIENCE, check=False)
    assert b"Reused, TLSv1.3" in done.stdout
