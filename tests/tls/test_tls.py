"""HTTPS of our own: certificates, clients of both versions, slow and broken ones, reload."""

import contextlib
import os
import shutil
import signal
import socket
import ssl
import stat
import subprocess
from pathlib import Path

import pytest
from conftest import APPS
from other_servers import certificate
from secure import Secure
from waiting import PATIENCE, in_time
from wire import Connection, send_read

CONTRACT = APPS / "contract.py"
SITE = Path(__file__).parents[1] / "web2py" / "site"


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    return certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture
def secure(serve, pair):
    return serve(CONTRACT, "-c", pair[0], "-k", pair[1], "--stream-paths", "/streamed")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_both_versions(secure, pair, version):
    with Secure(secure.address, pair[0], minimum_version=version, maximum_version=version) as connection:
        for _ in range(3):
            seen = connection.ask("POST", "/echo", body=b"hello").json
            assert (seen["wsgi.url_scheme"], seen["HTTPS"], seen["body"]) == ("https", "on", "hello")
    assert secure.log().count("https://127.0.0.1:") == 1


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
def test_what_is_old_is_refused(secure, pair):
    context = ssl.create_default_context(cafile=pair[0])
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    with socket.create_connection(secure.address, PATIENCE) as plain, pytest.raises((ssl.SSLError, OSError)):
        context.wrap_socket(plain, server_hostname="127.0.0.1")


def test_large_bodies_both_ways(secure, pair):
    with Secure(secure.address, pair[0]) as connection:
        body = os.urandom(5_000_000)
        assert connection.ask("POST", "/count_input", body=body).text == "5000000 5000000"
        assert len(connection.ask("GET", "/large?20000000").body) == 20_000_000


def test_files_are_sent_whole(secure, pair, tmp_path):
    content = os.urandom(3_000_000)
    (tmp_path / "file").write_bytes(content)
    with Secure(secure.address, pair[0]) as connection:
        assert connection.ask("GET", f"/file?{tmp_path}/file,1000").body == content[1000:]
        assert connection.ask("GET", f"/file_with_length?{tmp_path}/file,2000000").body == content[:2_000_000]
        # Shorter than was announced: the response breaks off.
        response = connection.ask("GET", f"/file_with_length?{tmp_path}/file,4000000")
        assert not response.whole


def test_a_streamed_body(secure, pair):
    with Secure(secure.address, pair[0]) as connection:
        head = b"POST /streamed HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        connection.send_read(head + b"5\r\nhello\r\n")
        connection.send(b"6\r\n world\r\n0\r\n\r\n")
        assert connection.response().status == 200


@pytest.mark.parametrize("split", [1, 100, 5000, 16_000, 16_400, 17_000])
def test_records_of_any_size_in_any_pieces(secure, pair, split):
    """A large record behind which many small ones arrive with its last byte."""
    context = ssl.create_default_context(cafile=pair[0])
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    session = context.wrap_bio(incoming, outgoing, server_hostname="127.0.0.1")

    def receive():
        data = plain.recv(65536)
        assert data, "the connection was closed"
        incoming.write(data)

    with socket.create_connection(secure.address, PATIENCE) as plain:
        while True:
            try:
                session.do_handshake()
                break
            except ssl.SSLWantReadError:
                plain.sendall(outgoing.read())
                receive()
        plain.sendall(outgoing.read())
        body = os.urandom(16_384 + 3000)
        session.write(b"POST /count_input HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(body))
        session.write(body[:16_384])
        for at in range(16_384, len(body)):
            session.write(body[at : at + 1])
        wire = outgoing.read()
        send_read(plain, wire[:split])
        plain.sendall(wire[split:])
        response = b""
        while b"\r\n\r\n" not in response or not response.endswith(b"%d" % len(body)):
            try:
                received = session.read(65536)
                assert received, response
                response += received
                assert len(response) < 10_000, response
            except ssl.SSLWantReadError:
                receive()
        assert response.startswith(b"HTTP/1.1 200")


def test_a_client_that_reads_slowly_holds_no_thread(serve, pair):
    served = serve(CONTRACT, "-c", pair[0], "-k", pair[1], "--threads", 1)
    slow = [Secure(served.address, pair[0]) for _ in range(3)]
    try:
        for connection in slow:
            connection.send(b"GET /large?10000000 HTTP/1.1\r\nHost: a\r\n\r\n")
        with Secure(served.address, pair[0]) as connection:
            assert connection.ask("GET", "/pid").status == 200
        for connection in slow:
            assert len(connection.response().body) == 10_000_000
    finally:
        for connection in slow:
            connection.close()


def test_plain_http_is_told_so(secure):
    with Connection(secure.address) as connection:
        response = connection.ask()
        assert response.status == 400
        assert "this port speaks HTTPS, not HTTP" in response.text
        assert connection.is_closed()


def test_rubbish_and_silence_hold_nobody(serve, pair):
    secure = serve(CONTRACT, "-c", pair[0], "-k", pair[1], "--header-timeout", "2s")
    silent = [socket.create_connection(secure.address, PATIENCE) for _ in range(50)]
    half = [socket.create_connection(secure.address, PATIENCE) for _ in range(50)]
    hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + os.urandom(40)
    try:
        for connection in half:
            connection.sendall(hello)
        with socket.create_connection(secure.address, PATIENCE) as broken:
            broken.sendall(b"\x16\x03\x01\x00\x05rubbish" + b"\xff" * 100)
            # An alert, and the end.
            with contextlib.suppress(ConnectionError):
                while broken.recv(100):
                    pass

        def ask(_):
            with Secure(secure.address, pair[0]) as connection:
                assert connection.ask("GET", "/pid").status == 200

        in_time(2, ask)
        for connection in [*silent, *half]:
            # They are closed when the time for a head is over; a hello may have come later.
            with contextlib.suppress(ConnectionResetError):
                assert connection.recv(100) == b""
    finally:
        for connection in [*silent, *half]:
            connection.close()


def test_the_end_is_announced(secure, pair):
    with Secure(secure.address, pair[0]) as connection:
        connection.send(b"GET /pid HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert connection.response().status == 200
        # An end without close_notify would raise.
        assert connection.socket.recv(100) == b""


def test_addresses_with_and_without(serve, pair, tmp_path):
    path = tmp_path / "plain.sock"
    served = serve(
        CONTRACT, "-c", pair[0], "-k", pair[1], "-b", "127.0.0.1:0", "-b", "http://127.0.0.1:0", "-b", f"unix:{path}"
    )
    first, second, third = served.addresses
    with Secure(first, pair[0]) as connection:
        assert connection.ask("GET", "/echo").json["wsgi.url_scheme"] == "https"
    for address in (second, third):
        with Connection(address) as connection:
            assert connection.ask("GET", "/echo").json["wsgi.url_scheme"] == "http"


def test_a_new_certificate_is_read_on_reload(serve, pair, tmp_path):
    for name, path in zip(("certificate.pem", "key.pem"), pair, strict=True):
        shutil.copy(path, tmp_path / name)
    served = serve(CONTRACT, "-c", "certificate.pem", "-k", "key.pem", folder=tmp_path)
    with Secure(served.address, pair[0]) as connection:
        assert connection.ask("GET", "/pid").status == 200
    (tmp_path / "new").mkdir()
    other = certificate(tmp_path / "new")
    shutil.copy(other[0], tmp_path / "certificate.pem")
    served.send_signal(signal.SIGHUP)
    served.wait_for_log("the old workers continue")
    served.wait_for_log("do not fit")
    with Secure(served.address, pair[0]) as connection:
        old = connection.ask("GET", "/pid").text
    shutil.copy(other[1], tmp_path / "key.pem")
    served.send_signal(signal.SIGHUP)
    served.wait_for_log("reloaded: ")
    # Until it has its order to end it may take connections.
    served.wait_until(lambda: not Path(f"/proc/{old}").exists(), "the end of the old worker")
    with Secure(served.address, other[0]) as connection:
        assert connection.ask("GET", "/pid").status == 200
    with pytest.raises(ssl.SSLError):
        Secure(served.address, pair[0])


def test_a_key_for_roots_eyes_only(serve, pair, tmp_path):
    if os.geteuid() != 0:
        pytest.skip("only root can become someone else")
    shutil.copy(pair[1], tmp_path / "key.pem")
    (tmp_path / "key.pem").chmod(stat.S_IRUSR)
    served = serve(CONTRACT, "-c", pair[0], "-k", tmp_path / "key.pem", "--user", "nobody", "--preload")
    with Secure(served.address, pair[0]) as connection:
        assert connection.ask("GET", "/pid").status == 200


def test_wrong_files(run, pair, tmp_path):
    rubbish = tmp_path / "rubbish.pem"
    rubbish.write_text("nothing\n")
    (tmp_path / "other").mkdir()
    other = certificate(tmp_path / "other")
    for arguments, message in (
        (["-c", pair[0]], "contains no private key (PEM): name the file that does: --ssl-private-key"),
        (["-k", pair[1]], "--ssl-private-key: needs --ssl-certificate, its certificate"),
        (["-c", "missing.pem", "-k", pair[1]], "--ssl-certificate: there is no file or directory"),
        (["-c", rubbish, "-k", pair[1]], 'rubbish.pem" contains no certificate'),
        (["-c", pair[0], "-k", rubbish], 'rubbish.pem" contains no private key (PEM)'),
        (["-c", pair[0], "-k", other[1]], "do not fit"),
        (["-c", pair[0], "-k", pair[1], "--proxy-protocol", "--trusted-proxies", "unix"], "is not supported with TLS"),
        (["-b", "https://127.0.0.1:0"], "needs a certificate (--ssl-certificate)"),
    ):
        ended = run(CONTRACT, "-b", "127.0.0.1:0", *arguments)
        assert ended.returncode == 2, message
        assert message in ended.stderr
        assert len(ended.stderr.splitlines()) == 1


def test_files_in_forms_that_are_not_read(run, pair, tmp_path):
    def openssl(*command):
        subprocess.run(["openssl", *command], check=True, capture_output=True, timeout=PATIENCE, cwd=tmp_path)

    openssl("x509", "-in", pair[0], "-outform", "der", "-out", "certificate.der")
    openssl("pkey", "-in", pair[1], "-outform", "der", "-out", "key.der")
    openssl("pkcs12", "-export", "-in", pair[0], "-inkey", pair[1], "-passout", "pass:", "-out", "both.p12")
    openssl("x509", "-in", pair[0], "-trustout", "-out", "trusted.pem")
    openssl("req", "-new", "-key", pair[1], "-subj", "/CN=localhost", "-out", "request.pem")
    openssl("x509", "-req", "-in", "request.pem", "-signkey", pair[1], "-out", "first.pem")
    openssl("genpkey", "-algorithm", "ed448", "-out", "ed448.pem")
    openssl("genrsa", "-out", "short.pem", "1024")
    for public, private, message in (
        (
            "certificate.der",
            pair[1],
            'certificate.der" is in DER form; convert it to PEM: openssl x509 -inform der',
        ),
        (pair[0], "key.der", 'key.der" is in DER form; convert it to PEM: openssl pkey -inform der -in'),
        ("both.p12", pair[1], 'both.p12" is a PKCS #12 file; take the certificate out of it: openssl pkcs12 -nokeys'),
        (pair[0], "both.p12", "take the private key out of it: openssl pkcs12 -nocerts -noenc -in"),
        ("trusted.pem", pair[1], "trusted.pem\" is in a form of OpenSSL's own; convert it: openssl x509 -in"),
        (pair[1], pair[0], "contains no certificate (PEM) but a private key"),
        (pair[0], "first.pem", 'first.pem" contains no private key (PEM) but a certificate'),
        ("first.pem", pair[1], 'first.pem" cannot be used: it is of version 1 of X.509'),
        (pair[0], "ed448.pem", 'ed448.pem" cannot be used: it must be an RSA key of at least 2048 bits'),
        (pair[0], "short.pem", 'short.pem" cannot be used: it must be an RSA key of at least 2048 bits'),
    ):
        ended = run(CONTRACT, "-b", "127.0.0.1:0", "-c", tmp_path / public, "-k", tmp_path / private)
        assert ended.returncode == 2, message
        assert message in ended.stderr


def test_files_may_begin_with_a_byte_order_mark(serve, pair, tmp_path):
    marked = [tmp_path / path.name for path in pair]
    for path, copy in zip(pair, marked, strict=True):
        copy.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    served = serve(CONTRACT, "-c", marked[0], "-k", marked[1])
    with Secure(served.address, pair[0]) as connection:
        assert connection.ask("GET", "/pid").status == 200


def test_curl_is_content(secure, pair):
    command = [
        "curl",
        "--silent",
        "--show-error",
        "--fail",
        "--cacert",
        pair[0],
        f"https://127.0.0.1:{secure.address[1]}/pid",
    ]
    assert subprocess.run(command, capture_output=True, check=True, timeout=PATIENCE).stdout


def test_web2py_knows_that_it_is_secure(serve, pair, tmp_path):
    shutil.copytree(SITE, tmp_path / "site")
    served = serve("--web2py", tmp_path / "site", "-c", pair[0], "-k", pair[1])
    with Secure(served.address, pair[0]) as connection:
        assert connection.ask("GET", "/guestbook/default/is_local").text == "True https"
