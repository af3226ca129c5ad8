"""What testssl.sh finds."""

import json
import subprocess

import pytest
from authority import Authority
from conftest import APPS

CONTRACT = APPS / "contract.py"

#: Findings that are not about the server.
EXPECTED = {
    "engine_problem": "is about the openssl of this machine, which has no GOST",
    "cert_revocation": "the test's CA publishes no list of what it revoked",
    "sessionresumption_ticket": "its client may leave before it has its tickets; test_client_certificates.py waits",
}


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kind", ["ec", "rsa"])
def test_testssl_finds_nothing(serve, tmp_path, kind):
    """Protocols, ciphers, their order, forward secrecy, the certificate, and every attack that it knows."""
    authority = Authority(tmp_path / "authority")
    certificate, key = authority.issue("localhost", kind=kind)
    certificate.with_suffix(".ocsp").write_bytes(authority.ocsp_response())
    served = serve(CONTRACT, "-c", certificate, "-k", key)
    found = tmp_path / "found.json"
    # What HTTP says (-h) is the application's to say; DNS is asked nothing. Only one attack wants a key of RSA.
    checks = ["-p", "-s", "-P", "-f", "-S", "-U"] if kind == "ec" else ["--robot"]
    command = [
        "testssl", "--quiet", "--color", "0", "--warnings", "batch", "--severity", "LOW", "--jsonfile", found,
        "--add-ca", authority.path, "--nodns", "none", "--ip", "127.0.0.1", *checks, f"localhost:{served.address[1]}",
    ]  # fmt: skip
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=1700, cwd=tmp_path, check=False
    )
    assert "Rating" in done.stdout or "Done " in done.stdout, done.stdout + done.stderr
    findings = {finding["id"]: finding["finding"] for finding in json.loads(found.read_text())}
    assert {name: text for name, text in findings.items() if name not in EXPECTED} == {}, done.stdout
