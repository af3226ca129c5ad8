//! Reading what the options of TLS name, and how messages name it.

use std::path::{Path, PathBuf};
use std::{fmt, fs, io};

/// The first bytes of UTF-8 text that is marked as such.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Reason why certificates cannot be used. Its message is one line that names the file.
#[derive(Debug)]
pub enum CertificateError {
    /// The system does not let us read a file or directory.
    Unreadable {
        /// What cannot be read.
        path: PathBuf,
        /// Error of the system.
        error: io::Error,
    },
    /// A file or directory does not contain what it should.
    Content(String),
    /// The settings do not fit each other.
    Setting(String),
    /// A certificate has no key in its file: `ssl_private_key` is missing.
    NoKey(String),
    /// A key is encrypted: `ssl_key_password_file` is missing.
    NoPassword(String),
}

impl fmt::Display for CertificateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CertificateError::Unreadable { path, error } => {
                write!(f, "{} cannot be read: {error}", shown(path))
            }
            CertificateError::Content(message)
            | CertificateError::Setting(message)
            | CertificateError::NoKey(message)
            | CertificateError::NoPassword(message) => f.write_str(message),
        }
    }
}

impl CertificateError {
    pub(super) fn unreadable(path: &Path, error: io::Error) -> Self {
        CertificateError::Unreadable { path: path.to_owned(), error }
    }
}

/// The content of a text file, without the byte order mark that some editors write in front of it.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, CertificateError> {
    let mut content = fs::read(path).map_err(|error| CertificateError::unreadable(path, error))?;
    if content.starts_with(BYTE_ORDER_MARK) {
        content.drain(..BYTE_ORDER_MARK.len());
    }
    Ok(content)
}

/// Message about a file in which the certificate or the private key (`what`) is missing, with what is there instead.
pub(super) fn missing(path: &Path, content: &[u8], what: &str) -> String {
    let (called, path) = (shown(path), path.display());
    let text = String::from_utf8_lossy(content);
    // DER is a SEQUENCE (X.690 section 8.9), whose first byte no PEM text has.
    if is_pkcs12(content) {
        let only = if what == "certificate" { "-nokeys" } else { "-nocerts -noenc" };
        format!(
            "{called} is a PKCS #12 file; take the {what} out of it: openssl pkcs12 {only} -in {path} -out {path}.pem"
        )
    } else if content.first() == Some(&0x30) {
        let command = if what == "certificate" { "x509" } else { "pkey" };
        format!(
            "{called} is in DER form; convert it to PEM: openssl {command} -inform der -in {path} -out {path}.pem"
        )
    } else if what == "certificate" && text.contains("-----BEGIN TRUSTED CERTIFICATE-----") {
        format!("{called} is in a form of OpenSSL's own; convert it: openssl x509 -in {path} -out {path}.new")
    } else if what == "certificate" && text.contains("PRIVATE KEY-----") {
        format!("{called} contains no certificate (PEM) but a private key")
    } else if what == "private key" && text.contains("-----BEGIN CERTIFICATE-----") {
        format!("{called} contains no private key (PEM) but a certificate")
    } else {
        format!("{called} contains no {what} (PEM)")
    }
}

/// Whether this is a SEQUENCE in DER form that begins with the version 3 (RFC 7292 section 4); certificates begin with another
/// SEQUENCE, keys with the versions 0 and 1.
fn is_pkcs12(content: &[u8]) -> bool {
    let Some((0x30, rest)) = content.split_first() else { return false };
    let more = match rest.first() {
        // The length has this number of bytes (X.690 section 8.1.3.5), or one byte, or is not said (BER).
        Some(length @ 0x81..=0x84) => usize::from(length & 0x0f) + 1,
        _ => 1,
    };
    rest.get(more..).is_some_and(|content| content.starts_with(&[0x02, 0x01, 0x03]))
}

/// A path as messages name it.
pub(super) fn shown(path: &Path) -> String {
    format!("{:?}", path.display().to_string())
}
