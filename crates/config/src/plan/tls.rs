//! Certificates, and what clients must show.

use std::path::{Path, PathBuf};

use super::check::Reader;
use crate::options::{self, ClientCert, Key};
use crate::settings::Wrong;
use crate::suggestion;

/// How connections are encrypted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsPlan {
    /// In this order; never empty.
    pub certificates: Vec<CertificateSource>,
    /// The file with the password of encrypted keys.
    pub key_password_file: Option<PathBuf>,
    /// Clients are asked for certificates of these CAs.
    pub client_ca: Option<PathBuf>,
    /// They are refused without one.
    pub client_cert_required: bool,
    /// What may be spoken inside, by the names of ALPN, best first.
    pub alpn: Vec<String>,
}

/// Where certificates are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CertificateSource {
    /// In one file, with its key there or in another.
    Files {
        /// The certificate and its chain.
        certificate: PathBuf,
        /// The key.
        key: PathBuf,
    },
    /// In a folder, each with its key.
    Folder(PathBuf),
}

impl TlsPlan {
    /// `None`: there are no certificates.
    pub(super) fn check(
        read: &Reader<'_>,
        certificates: Vec<CertificateSource>,
    ) -> Result<Option<TlsPlan>, Wrong> {
        if certificates.is_empty() {
            return Ok(None);
        }
        let client_ca = read.existing_file(options::CLIENT_CA)?;
        let client_cert_required = match read.get(options::CLIENT_CERT) {
            ClientCert::Required => true,
            ClientCert::Optional => false,
        };
        Ok(Some(TlsPlan {
            certificates,
            key_password_file: read.existing_file(options::SSL_KEY_PASSWORD_FILE)?,
            client_ca,
            client_cert_required,
            alpn: ["h2", "http/1.1"].map(str::to_owned).to_vec(),
        }))
    }
}

/// Which certificates there are; empty when none are given.
pub(super) fn certificates(read: &Reader<'_>) -> Result<Vec<CertificateSource>, Wrong> {
    let (certificates, keys) = (options::SSL_CERTIFICATE, options::SSL_PRIVATE_KEY);
    let paths = |key: Key<Vec<String>>| -> Vec<PathBuf> {
        read.get(key).iter().map(|path| read.absolute(path)).collect()
    };
    let shown = |path: &Path| format!("{:?}", path.display().to_string());
    let mut keys_left = paths(keys).into_iter();
    let keys_given = keys_left.len();
    let mut files = 0;
    let mut sources = Vec::new();
    for path in paths(certificates) {
        if path.is_dir() {
            sources.push(CertificateSource::Folder(path));
            continue;
        }
        if !path.is_file() {
            return Err(read.wrong(certificates, &format!("there is no file or directory {}", shown(&path))));
        }
        if path.to_str().is_some_and(suggestion::is_settings) {
            return Err(read.wrong(certificates, &format!("{} is not a certificate", shown(&path))));
        }
        files += 1;
        let key = match keys_left.next() {
            Some(key) if !key.is_file() => {
                return Err(read.wrong(keys, &format!("there is no file {}", shown(&key))));
            }
            Some(key) => key,
            None => path.clone(),
        };
        sources.push(CertificateSource::Files { certificate: path, key });
    }
    if keys_given > 0 && keys_given != files {
        let reason = format!(
            "is given {keys_given} times for {files} certificate files: give one for each, in the same order"
        );
        return Err(read.wrong(keys, &reason));
    }
    Ok(sources)
}
