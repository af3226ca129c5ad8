"""A certificate authority for tests: certificates of any names and times, and OCSP responses about them."""

import datetime
import ipaddress

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

DAY = datetime.timedelta(days=1)


def now():
    return datetime.datetime.now(datetime.timezone.utc)


def common_name(text):
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


class Authority:
    """Signs what it is asked to; its own certificate is ``ca.pem`` in its folder."""

    def __init__(self, folder, name="a test CA"):
        folder.mkdir(exist_ok=True)
        self.folder, self.name = folder, common_name(name)
        self.key = ec.generate_private_key(ec.SECP256R1())
        public = self.key.public_key()
        usage = dict.fromkeys(
            ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "encipher_only"), False
        )
        self.certificate = (
            self.builder(self.name, public, now() - DAY, now() + 100 * DAY)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(
                x509.KeyUsage(digital_signature=True, key_cert_sign=True, crl_sign=True, decipher_only=False, **usage),
                critical=True,
            )
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .sign(self.key, hashes.SHA256())
        )
        self.path = folder / "ca.pem"
        self.path.write_bytes(self.certificate.public_bytes(serialization.Encoding.PEM))

    def builder(self, subject, public, begin, end):
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(begin)
            .not_valid_after(end)
        )

    def issue(
        self, *names, folder=None, files=("cert.pem", "cert.key"), subject=None, days=(-1, 90), kind="ec", password=None
    ):
        """Write a certificate for host names and addresses, and its key; return both paths."""
        key = (
            ec.generate_private_key(ec.SECP256R1())
            if kind == "ec"
            else rsa.generate_private_key(public_exponent=65537, key_size=2048)
        )
        begin, end = (now() + day * DAY for day in days)
        public = key.public_key()
        alternatives = []
        for name in names:
            try:
                alternatives.append(x509.IPAddress(ipaddress.ip_address(name)))
            except ValueError:
                alternatives.append(x509.DNSName(name))
        builder = self.builder(subject or common_name(names[0] if names else "nobody"), public, begin, end)
        if alternatives:
            builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        self.last = (
            builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False)
            .sign(self.key, hashes.SHA256())
        )
        encryption = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
        folder = folder or self.folder
        folder.mkdir(parents=True, exist_ok=True)
        paths = tuple(folder / name for name in files)
        paths[0].write_bytes(self.last.public_bytes(serialization.Encoding.PEM))
        with paths[1].open("ab" if paths[0] == paths[1] else "wb") as file:
            file.write(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption))
        return paths

    def ocsp_response(self):
        """What an OCSP responder says about the last certificate, DER."""
        return (
            ocsp.OCSPResponseBuilder()
            .add_response(
                cert=self.last,
                issuer=self.certificate,
                algorithm=hashes.SHA1(),  # RFC 5019 section 2.1.1 wants this one
                cert_status=ocsp.OCSPCertStatus.GOOD,
                this_update=now() - DAY,
                next_update=now() + 5 * DAY,
                revocation_time=None,
                revocation_reason=None,
            )
            .responder_id(ocsp.OCSPResponderEncoding.HASH, self.certificate)
            .sign(self.key, hashes.SHA256())
            .public_bytes(serialization.Encoding.DER)
        )
