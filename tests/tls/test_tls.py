"""HTTPS of our own: certificates, clients of both versions, slow and broken ones, reload."""

import contextlib
import os
import shutil
import signal
import socket
import ssl
import stat
import subprocess
import time
from pathlib import Path

import pytest
from conftest import APPS
from other_servers import certificate
from secure import Secure
from wire import Connection, send_read

CONTRACT = APPS / "contract.py"
SITE = Path(__file__).parents[1] / "web2py" / "site"


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    return certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture
def secure(serve, pair):
    return serve(CONTRACT, "-c", pair[0], "-k", pair[1], "--header-timeout", "2s", "--stream-paths", "/streamed")


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
    with socket.create_connection(secure.address, 10) as plain, pytest.raises((ssl.SSLError, OSError)):
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
        # Shorter than was announced: the answer breaks off.
        answer = connection.ask("GET", f"/file_with_length?{tmp_path}/file,4000000")
        assert not answer.whole


def test_a_streamed_body(secure, pair):
    with Secure(secure.address, pair[0]) as connection:
        head = b"POST /streamed HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        connection.send_read(head + b"5\r\nhello\r\n")
        connection.send(b"6\r\n world\r\n0\r\n\r\n")
        assert connection.answer().status == 200


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

    with socket.create_connection(secure.address, 20) as plain:
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
        answer = b""
        while b"\r\n\r\n" not in answer or not answer.endswith(b"%d" % len(body)):
            try:
                answer += session.read(65536)
            except ssl.SSLWantReadError:
                receive()
        assert answer.startswith(b"HTTP/1.1 200")


def test_a_client_that_reads_slowly_holds_no_thread(serve, pair):
    served = serve(CONTRACT, "-c", pair[0], "-k", pair[1], "--threads", 1)
    slow = [Secure(served.address, pair[0]) for _ in range(3)]
    try:
        for connection in slow:
            connection.send(b"GET /large?10000000 HTTP/1.1\r\nHost: a\r\n\r\n")
        with Secure(served.address, pair[0]) as connection:
            assert connection.ask("GET", "/pid").status == 200
        for connection in slow:
            assert len(connection.answer().body) == 10_000_000
    finally:
        for connection in slow:
            connection.close()


def test_plain_http_is_told_so(secure):
    with Connection(secure.address) as connection:
        answer = connection.ask()
        assert answer.status == 400
        assert "this port speaks HTTPS, not HTTP" in answer.text
        assert connection.is_closed()


def test_rubbish_and_silence_hold_nobody(secure, pair):
    silent = [socket.create_connection(secure.address, 20) for _ in range(50)]
    half = [socket.create_connection(secure.address, 20) for _ in range(50)]
    hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + os.urandom(40)
    try:
        for connection in half:
            connection.sendall(hello)
        with socket.create_connection(secure.address, 20) as broken:
            broken.sendall(b"\x16\x03\x01\x00\x05rubbish" + b"\xff" * 100)
            # An alert, and the end.
            with contextlib.suppress(ConnectionError):
                while broken.recv(100):
                    pass
        with Secure(secure.address, pair[0]) as connection:
            assert connection.ask("GET", "/pid").status == 200
        begun = time.monotonic()
        for connection in [*silent, *half]:
            # They are closed when the time for a head is over.
            assert connection.recv(100) == b""
        assert time.monotonic() - begun < 15
    finally:
        for connection in [*silent, *half]:
            connection.close()


def test_the_end_is_announced(secure, pair):
    with Secure(secure.address, pair[0]) as connection:
        connection.send(b"GET /pid HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert connection.answer().status == 200
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
    assert "do not fit" in served.log()
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
        (["-c", pair[0]], "contains no private key (PEM): name the file that does: ssl_private_key"),
        (["-k", pair[1]], "--ssl-private-key: needs ssl_certificate, its certificate"),
        (["-c", "missing.pem", "-k", pair[1]], "--ssl-certificate: there is no file or directory"),
        (["-c", rubbish, "-k", pair[1]], 'rubbish.pem" contains no certificate'),
        (["-c", pair[0], "-k", rubbish], 'rubbish.pem" contains no private key (PEM)'),
        (["-c", pair[0], "-k", other[1]], "do not fit"),
        (["-c", pair[0], "-k", pair[1], "--proxy-protocol", "--trusted-proxies", "unix"], "is not supported with TLS"),
        (["-b", "https://127.0.0.1:0"], "needs a certificate (ssl_certificate)"),
    ):
        ended = run(CONTRACT, "-b", "127.0.0.1:0", *arguments)
        assert ended.returncode == 2, message
        assert message in ended.stderr
        assert len(ended.stderr.splitlines()) == 1


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
    assert subprocess.run(command, capture_output=True, check=True, timeout=30).stdout


def test_web2py_knows_that_it_is_secure(serve, pair, tmp_path):
    shutil.copytree(SITE, tmp_path / "site")
    served = serve("--web2py", tmp_path / "site", "-c", pair[0], "-k", pair[1])
    with Secure(served.address, pair[0]) as connection:
        assert connection.ask("GET", "/guestbook/default/is_local").text == "True https"
