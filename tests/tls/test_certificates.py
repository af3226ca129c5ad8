"""Which certificate a client gets, what its files may look like, and what happens when they change."""

import os
import shutil
import signal
import socket
import ssl
import subprocess

import pytest
from authority import Authority
from conftest import APPS
from secure import Secure
from waiting import PATIENCE

CONTRACT = APPS / "contract.py"


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path / "authority")


def got(served, name, trusted):
    """The names in the certificate that a client gets who asks for this one."""
    context = ssl.create_default_context(cafile=trusted)
    context.check_hostname = False
    with Secure(served.address, trusted, name, context=context) as connection:
        assert connection.ask("GET", "/pid").status == 200
        return [value for _, value in connection.socket.getpeercert()["subjectAltName"]]


def by_openssl(served, *arguments):
    host, port = served.address
    command = ["openssl", "s_client", "-connect", f"{host}:{port}", *arguments]
    done = subprocess.run(command, input=b"", capture_output=True, timeout=PATIENCE, check=False)
    return done.stdout.decode(errors="replace")


def choices(served, authority):
    assert got(served, "b.example", authority.path) == ["b.example", "also.example"]
    assert got(served, "ALSO.example", authority.path) == ["b.example", "also.example"]
    assert got(served, "x.wild.example", authority.path) == ["*.wild.example"]
    assert got(served, "exact.wild.example", authority.path) == ["exact.wild.example"]
    for other in ("x.y.wild.example", "wild.example", "unknown.example", None):
        assert got(served, other, authority.path) == ["a.example"], other


NAMES = (["a.example"], ["b.example", "also.example"], ["*.wild.example"], ["exact.wild.example"])


def test_pairs_in_order(serve, authority, tmp_path):
    options = []
    for number, names in enumerate(NAMES):
        certificate, key = authority.issue(
            *names, folder=tmp_path / "pairs", files=(f"{number}.pem", f"{number}-key.pem")
        )
        options += ["-c", certificate, "-k", key]
    choices(serve(CONTRACT, *options), authority)


def test_a_folder_of_pairs(serve, authority, tmp_path):
    for number, names in enumerate(NAMES):
        authority.issue(
            *names, folder=tmp_path / "pairs", files=(f"{number}.{['crt', 'pem'][number % 2]}", f"{number}.key")
        )
    (tmp_path / "pairs" / "README").write_text("not a certificate\n")
    (tmp_path / "pairs" / "lonely.pem").write_text("not a certificate either\n")
    choices(serve(CONTRACT, "-c", tmp_path / "pairs"), authority)


def certbot(authority, live, name, *names):
    """Lay files out as certbot does: links to numbered files."""
    archive = live.parent / "archive" / name
    archive.mkdir(parents=True, exist_ok=True)
    (live / name).mkdir(parents=True, exist_ok=True)
    number = len(list(archive.glob("privkey*"))) + 1
    files = (f"fullchain{number}.pem", f"privkey{number}.pem")
    authority.issue(*names, folder=archive, files=files)
    for file, link in zip(files, ("fullchain.pem", "privkey.pem"), strict=True):
        new = live / name / "new"
        new.symlink_to(f"../../archive/{name}/{file}")
        new.rename(live / name / link)


def test_the_folder_of_certbot(serve, authority, tmp_path):
    live = tmp_path / "live"
    for number, names in enumerate(NAMES):
        certbot(authority, live, f"{number}.example", *names)
    (live / "README").write_text("as certbot writes it\n")
    choices(serve(CONTRACT, "-c", live), authority)
    assert got(serve(CONTRACT, "-c", live / "1.example"), "b.example", authority.path) == ["b.example", "also.example"]


def test_keys_of_two_kinds_for_one_name(serve, authority, tmp_path):
    options = []
    for kind in ("ec", "rsa"):
        files = authority.issue("a.example", folder=tmp_path / "pairs", files=(f"{kind}.pem", f"{kind}.key"), kind=kind)
        options += ["-c", files[0], "-k", files[1]]
    served = serve(CONTRACT, *options)
    for ciphers, kind in (
        ("ECDHE-RSA-AES128-GCM-SHA256", "rsaEncryption"),
        ("ECDHE-ECDSA-AES128-GCM-SHA256", "id-ecPublicKey"),
    ):
        shown = by_openssl(served, "-tls1_2", "-cipher", ciphers, "-servername", "a.example")
        assert f"Cipher is {ciphers}" in shown, kind


def test_certificate_and_key_in_one_file(serve, authority):
    certificate, _ = authority.issue("a.example", files=("both.pem", "both.pem"))
    assert got(serve(CONTRACT, "-c", certificate), "a.example", authority.path) == ["a.example"]


@pytest.mark.parametrize("by", ["openssl", "cryptography"])
def test_an_encrypted_key(serve, run, authority, tmp_path, by):
    certificate, key = authority.issue("a.example", password=None if by == "openssl" else b"open sesame")
    if by == "openssl":
        command = ["openssl", "pkcs8", "-topk8", "-in", key, "-out", tmp_path / "new", "-passout", "pass:open sesame"]
        subprocess.run(command, check=True, capture_output=True)
        key = tmp_path / "new"
    password = tmp_path / "password"
    password.write_text("open sesame\nanother line\n")
    options = [CONTRACT, "-c", certificate, "-k", key, "-p", 0]
    served = serve(*options, "--ssl_key_password_file", password)
    assert got(served, "a.example", authority.path) == ["a.example"]
    ended = run(*options)
    assert (ended.returncode, "name the file with its password: --ssl-key-password-file" in ended.stderr) == (2, True)
    password.write_text("wrong\n")
    ended = run(*options, "--ssl-key-password-file", password)
    assert ended.returncode == 2
    assert "is the password in ssl_key_password_file the right one?" in ended.stderr
    assert len(ended.stderr.splitlines()) == 1


def test_an_old_encrypted_key_is_told_how_to_convert(run, authority, tmp_path):
    certificate, key = authority.issue("a.example", kind="rsa")
    old = tmp_path / "old.pem"
    command = ["openssl", "rsa", "-aes256", "-traditional", "-in", key, "-out", old, "-passout", "pass:x"]
    subprocess.run(command, check=True, capture_output=True)
    ended = run(CONTRACT, "-c", certificate, "-k", old, "-p", 0)
    assert ended.returncode == 2
    advice = ended.stderr.partition("convert it: ")[2].strip()
    assert advice == f"openssl pkcs8 -topk8 -in {old} -out {old}.new"
    subprocess.run([*advice.split(), "-passin", "pass:x", "-passout", "pass:x"], check=True, capture_output=True)


def test_an_ocsp_response_is_stapled(serve, run, authority):
    certificate, key = authority.issue("a.example")
    served = serve(CONTRACT, "-c", certificate, "-k", key)
    assert "OCSP response: no response sent" in by_openssl(served, "-status")
    staple = certificate.with_suffix(".ocsp")
    staple.write_bytes(authority.ocsp_response())
    served.wait_for_log("the certificates have changed")
    for version in ("-tls1_2", "-tls1_3"):
        assert "Cert Status: good" in by_openssl(served, "-status", version)
    staple.write_text("-----BEGIN")
    ended = run(CONTRACT, "-c", certificate, "-k", key, "-p", 0)
    assert (ended.returncode, "is not an OCSP response (DER)" in ended.stderr) == (2, True)


def test_dates_are_looked_at(serve, authority, tmp_path):
    for days, message in (((-30, -2), "expired on 20"), ((5, 30), "is not valid before 20")):
        certificate, key = authority.issue("a.example", days=days)
        served = serve(CONTRACT, "-c", certificate, "-k", key, "-w", 2)
        (line,) = [line for line in served.log().splitlines() if message in line]
        assert "WARN" in line
        assert str(certificate) in line
        with pytest.raises(ssl.SSLCertVerificationError):
            got(served, "a.example", authority.path)


def test_the_servers_own_certificate_comes_first(run, authority):
    certificate, key = authority.issue("a.example")
    certificate.write_text(authority.path.read_text() + certificate.read_text())
    ended = run(CONTRACT, "-c", certificate, "-k", key, "-p", 0)
    assert ended.returncode == 2
    assert "the server's own certificate must be the first of its file" in ended.stderr


def test_changed_files_are_taken_in(serve, authority, tmp_path):
    live = tmp_path / "live"
    certbot(authority, live, "a", "a.example")
    served = serve(CONTRACT, "-c", live)
    with Secure(served.address, authority.path, "a.example") as kept:
        assert kept.ask("GET", "/pid").status == 200
        # Links that point to new files, as after a renewal.
        certbot(authority, live, "a", "a.example", "renewed.example")
        served.wait_for_log("the certificates have changed; new connections use the new ones")
        assert got(served, "a.example", authority.path) == ["a.example", "renewed.example"]
        # A certificate more.
        certbot(authority, live, "b", "b.example")
        served.wait_for_log("the certificates have changed; new connections use the new ones", 2)
        assert got(served, "b.example", authority.path) == ["b.example"]
        # One that does not fit: what was there stays.
        certificate = live / "a" / "fullchain.pem"
        certificate.unlink()
        shutil.copy(live / "b" / "fullchain.pem", certificate)
        served.wait_for_log("the certificates have changed, but the old ones are kept: ")
        assert got(served, "a.example", authority.path) == ["a.example", "renewed.example"]
        # And then one that does.
        certbot(authority, live, "a", "a.example", "again.example")
        served.wait_for_log("the certificates have changed; new connections use the new ones", 3)
        assert got(served, "a.example", authority.path) == ["a.example", "again.example"]
        assert kept.ask("GET", "/pid").status == 200
    assert served.log().count("the old ones are kept") == 1


def test_a_folder_that_is_gone_changes_nothing(serve, authority, tmp_path):
    authority.issue("a.example", folder=tmp_path / "pairs")
    served = serve(CONTRACT, "-c", tmp_path / "pairs")
    (tmp_path / "pairs").rename(tmp_path / "away")
    served.wait_for_log("the old ones are kept: ")
    assert got(served, "a.example", authority.path) == ["a.example"]
    (tmp_path / "away").rename(tmp_path / "pairs")
    assert got(served, "a.example", authority.path) == ["a.example"]


def test_wrong_options(run, authority, tmp_path):
    certificate, key = authority.issue("a.example")
    (tmp_path / "empty").mkdir()
    (tmp_path / "none").write_text("\n")
    pair = ["-c", certificate, "-k", key]
    for arguments, message in (
        ([*pair, "-c", certificate], "--ssl-private-key: is given 1 times for 2 certificate files"),
        ([*pair, "-k", key], "--ssl-private-key: is given 2 times for 1 certificate files"),
        (["-c", tmp_path / "empty"], "contains no certificate with its key: NAME.pem with NAME.key"),
        ([*pair, "--ssl-key-password-file", tmp_path / "none"], "is empty; it must be the password of the key"),
        ([*pair, "--ssl-key-password-file", "missing"], "--ssl-key-password-file: there is no file"),
        (["--ssl-key-password-file", tmp_path / "none"], "needs --ssl-certificate, the certificate of the server"),
        (["--client-ca", authority.path], "--client-ca: needs --ssl-certificate, the certificate of the server"),
        ([*pair, "--client-ca", "missing"], "--client-ca: there is no file"),
        ([*pair, "--client-ca", tmp_path / "none"], 'none" contains no certificate (PEM) of a client CA'),
        ([*pair, "--client-cert", "optional"], "--client-cert: needs --client-ca, the CAs of client certificates"),
        (
            [*pair, "--client-ca", authority.path, "--client-cert", "maybe"],
            '--client-cert: "maybe" must be one of required, optional',
        ),
        (["--redirect-https", "0"], '--redirect-https: "0" needs an address that serves HTTPS (--ssl-certificate)'),
        ([*pair, "--redirect-https", "http"], '--redirect-https: "http" must be host:port'),
        ([*pair, "--redirect-https", "70000"], "must be a port from 0 to 65535"),
        (["-b", "127.0.0.1:7", *pair, "--redirect-https", "7"], '"7" is an address that is already in use'),
    ):
        ended = run(CONTRACT, *([] if "-b" in arguments else ["-b", "127.0.0.1:0"]), *arguments)
        assert message in ended.stderr, message
        assert ended.returncode == 2, message
        assert len(ended.stderr.splitlines()) == 1


def test_files_for_roots_eyes_only_need_a_signal(serve, authority, tmp_path):
    if os.geteuid() != 0:
        pytest.skip("only root can become someone else")
    certificate, key = authority.issue("a.example", folder=tmp_path / "pairs")
    key.chmod(0o600)
    served = serve(CONTRACT, "-c", certificate, "-k", key, "--user", "nobody", "--preload")
    served.wait_for_log("workers cannot read the certificate files: send HUP when they have changed")
    authority.issue("a.example", "renewed.example", folder=tmp_path / "pairs")
    served.send_signal(signal.SIGHUP)
    served.wait_for_log("reloaded: ")
    # The old worker may have accepted one more.
    renewed = ["a.example", "renewed.example"]
    served.wait_until(lambda: got(served, "a.example", authority.path) == renewed, "the new certificate")


def test_handshakes_wait_for_nobody(serve, authority):
    """Clients that begin a handshake and stop do not hold up others, nor does one that sends it byte by byte."""
    certificate, key = authority.issue("127.0.0.1", kind="rsa")
    served = serve(CONTRACT, "-c", certificate, "-k", key, "--threads", 1)
    context = ssl.create_default_context(cafile=authority.path)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    session = context.wrap_bio(incoming, outgoing, server_hostname="127.0.0.1")
    with pytest.raises(ssl.SSLWantReadError):
        session.do_handshake()
    hello = outgoing.read()
    begun = [socket.create_connection(served.address, PATIENCE) for _ in range(20)]
    try:
        for connection in begun:
            connection.sendall(hello)
        with socket.create_connection(served.address, PATIENCE) as slow:
            slow.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for place in range(len(hello)):
                slow.sendall(hello[place : place + 1])
                if place % 100 == 0:
                    with Secure(served.address, authority.path) as connection:
                        assert connection.ask("GET", "/pid").status == 200
            while True:
                try:
                    session.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    incoming.write(slow.recv(65536))
            session.write(b"GET /pid HTTP/1.1\r\nHost: a\r\n\r\n")
            # The last word of the handshake and the first request arrive together.
            slow.sendall(outgoing.read())
            response = b""
            while b"HTTP/1.1 200" not in response:
                try:
                    response += session.read(65536)
                except ssl.SSLWantReadError:
                    incoming.write(slow.recv(65536))
    finally:
        for connection in begun:
            connection.close()
