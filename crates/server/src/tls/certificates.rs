//! Files become certificates with their keys: where they are, what they may look like, and what is wrong with them in
//! one line each.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use std::{fmt, fs, io};

use anygate_config::{CertificateSource, TlsPlan};
use pkcs8::{EncryptedPrivateKeyInfoRef, SecretDocument};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate, X509Version};
use x509_parser::time::ASN1Time;

use super::files::{CertificateError, missing, read, shown};

const ENCRYPTED_BEGIN: &str = "-----BEGIN ENCRYPTED PRIVATE KEY-----";
const ENCRYPTED_END: &str = "-----END ENCRYPTED PRIVATE KEY-----";
/// The line that OpenSSL's own, older form of an encrypted key has (RFC 1421 section 4.6.1.1).
const OLD_ENCRYPTED: &str = "Proc-Type: 4,ENCRYPTED";

/// A certificate with its key.
#[derive(Debug)]
pub(super) struct Pair {
    pub(super) key: Arc<CertifiedKey>,
    /// Names that it is for, in lower case: `example.com`, `*.example.com`.
    pub(super) names: Vec<String>,
}

/// The files of one pair.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct PairFiles {
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
    /// Where an OCSP response may be.
    pub(super) staple: PathBuf,
}

impl PairFiles {
    fn new(certificate: PathBuf, key: PathBuf) -> PairFiles {
        PairFiles { staple: certificate.with_extension("ocsp"), certificate, key }
    }
}

/// Reads all pairs of a plan, in its order. Also returns what is worth a warning.
pub(super) fn load(
    plan: &TlsPlan,
    provider: &CryptoProvider,
) -> Result<(Vec<Pair>, Vec<String>), CertificateError> {
    let password = plan.key_password_file.as_deref().map(password).transpose()?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
    let mut warnings = Vec::new();
    let mut pairs = Vec::new();
    for files in files(plan)? {
        let (pair, warning) = load_pair(&files, password.as_deref(), provider, now)?;
        pairs.push(pair);
        warnings.extend(warning);
    }
    Ok((pairs, warnings))
}

/// The files of all pairs of a plan.
///
/// Errors: a folder cannot be read, or has none.
pub(super) fn files(plan: &TlsPlan) -> Result<Vec<PairFiles>, CertificateError> {
    let mut found = Vec::new();
    for source in &plan.certificates {
        match source {
            CertificateSource::Files { certificate, key } => {
                found.push(PairFiles::new(certificate.clone(), key.clone()));
            }
            CertificateSource::Folder(folder) => {
                let pairs =
                    folder_files(folder).map_err(|error| CertificateError::unreadable(folder, error))?;
                if pairs.is_empty() {
                    return Err(CertificateError::Content(format!(
                        "the directory {} contains no certificate with its key: NAME.pem with NAME.key, or \
                         NAME/fullchain.pem with NAME/privkey.pem",
                        shown(folder)
                    )));
                }
                found.extend(pairs);
            }
        }
    }
    Ok(found)
}

/// The pairs of a folder, by name; the folder may itself be one that certbot made for a name.
fn folder_files(folder: &Path) -> io::Result<Vec<PairFiles>> {
    let paths: BTreeSet<PathBuf> =
        fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>()?;
    let of_certbot = |folder: &Path| {
        let (certificate, key) = (folder.join("fullchain.pem"), folder.join("privkey.pem"));
        (certificate.is_file() && key.is_file()).then(|| PairFiles::new(certificate, key))
    };
    let beside = |path: &PathBuf| {
        let is_certificate = path.extension().is_some_and(|end| end == "pem" || end == "crt");
        let key = path.with_extension("key");
        (is_certificate && path.is_file() && key.is_file()).then(|| PairFiles::new(path.clone(), key))
    };
    let own = of_certbot(folder);
    Ok(own
        .into_iter()
        .chain(paths.iter().filter_map(|path| beside(path).or_else(|| of_certbot(path))))
        .collect())
}

/// The first line of a file.
fn password(path: &Path) -> Result<String, CertificateError> {
    let text = String::from_utf8(read(path)?)
        .map_err(|_| CertificateError::Content(format!("{} is not UTF-8 text", shown(path))))?;
    match text.lines().next() {
        Some(line) if !line.is_empty() => Ok(line.to_owned()),
        _ => Err(CertificateError::Content(format!(
            "the first line of {} is empty; it must be the password of the key",
            shown(path)
        ))),
    }
}

fn load_pair(
    files: &PairFiles,
    password: Option<&str>,
    provider: &CryptoProvider,
    now: u64,
) -> Result<(Pair, Option<String>), CertificateError> {
    let called = shown(&files.certificate);
    let unusable = |error: &dyn std::fmt::Display| {
        CertificateError::Content(format!("the certificate {called} cannot be used: {error}"))
    };
    let pem = read(&files.certificate)?;
    let chain: Vec<CertificateDer<'static>> =
        CertificateDer::pem_slice_iter(&pem).collect::<Result<_, _>>().map_err(|error| unusable(&error))?;
    let Some(own) = chain.first() else {
        return Err(CertificateError::Content(missing(&files.certificate, &pem, "certificate")));
    };
    let (_, parsed) = X509Certificate::from_der(own).map_err(|error| unusable(&error))?;
    if parsed.version() != X509Version::V3 {
        return Err(unusable(
            &"it is of version 1 of X.509, which clients refuse; issue it with an extension, such as subjectAltName",
        ));
    }
    let names = names(&parsed);
    let warning = out_of_time(&parsed, now).map(|reason| format!("the certificate {called} {reason}"));
    let private = provider.key_provider.load_private_key(key(files, password)?).map_err(|_| {
        CertificateError::Content(format!(
            "the private key {} cannot be used: it must be an RSA key of at least 2048 bits, an ECDSA key on the curve \
             P-256, P-384 or P-521, or an Ed25519 key",
            shown(&files.key)
        ))
    })?;
    let mut key = CertifiedKey::new(chain, private);
    match key.keys_match() {
        // What cannot be compared may fit.
        Ok(()) | Err(Error::InconsistentKeys(InconsistentKeys::Unknown)) => {}
        Err(Error::InconsistentKeys(_)) => {
            return Err(CertificateError::Content(format!(
                "the certificate {called} and the key {} do not fit; the server's own certificate must be the first of \
                 its file",
                shown(&files.key)
            )));
        }
        Err(error) => return Err(unusable(&error)),
    }
    match fs::read(&files.staple) {
        // DER, as `openssl ocsp -respout` writes it: RFC 6960 section 4.2.1, a SEQUENCE.
        Ok(staple) if staple.first() == Some(&0x30) => key.ocsp = Some(staple),
        Ok(_) => {
            return Err(CertificateError::Content(format!(
                "{} is not an OCSP response (DER)",
                shown(&files.staple)
            )));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(CertificateError::unreadable(&files.staple, error)),
    }
    Ok((Pair { key: Arc::new(key), names }, warning))
}

/// The names in a certificate (RFC 6125 section 6.4: those of its subject alternative names, and no other).
fn names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(alternatives)) = certificate.subject_alternative_name() else { return Vec::new() };
    let names = alternatives.value.general_names.iter().filter_map(|name| match name {
        GeneralName::DNSName(name) => Some(name.trim_end_matches('.').to_ascii_lowercase()),
        _ => None,
    });
    names.collect()
}

/// Returns the problem with its period of validity, if there is one.
fn out_of_time(certificate: &X509Certificate<'_>, now: u64) -> Option<String> {
    let validity = certificate.validity();
    let now = i64::try_from(now).unwrap_or(i64::MAX);
    if validity.not_after.timestamp() < now {
        Some(format!("expired on {}: clients will refuse it", date(&validity.not_after)))
    } else if validity.not_before.timestamp() > now {
        Some(format!("is not valid before {}: clients will refuse it", date(&validity.not_before)))
    } else {
        None
    }
}

fn date(time: &ASN1Time) -> String {
    let at = time.to_datetime();
    let (hour, minute, second) = at.to_hms();
    format!("{}-{:02}-{:02} {hour:02}:{minute:02}:{second:02} UTC", at.year(), u8::from(at.month()), at.day())
}

fn key(files: &PairFiles, password: Option<&str>) -> Result<PrivateKeyDer<'static>, CertificateError> {
    let called = shown(&files.key);
    let pem = read(&files.key)?;
    let text = String::from_utf8_lossy(&pem);
    if text.contains(OLD_ENCRYPTED) {
        let path = files.key.display();
        return Err(CertificateError::Content(format!(
            "the private key {called} is encrypted in a form that is out of use; convert it: openssl pkcs8 -topk8 \
             -in {path} -out {path}.new"
        )));
    }
    if let Some((_, rest)) = text.split_once(ENCRYPTED_BEGIN)
        && let Some((inner, _)) = rest.split_once(ENCRYPTED_END)
    {
        let Some(password) = password else {
            return Err(CertificateError::NoPassword(format!(
                "the private key {called} is encrypted: name the file with its password"
            )));
        };
        return decrypt(&format!("{ENCRYPTED_BEGIN}{inner}{ENCRYPTED_END}\n"), password).map_err(|reason| {
            CertificateError::Content(format!("the private key {called} cannot be decrypted: {reason}"))
        });
    }
    match PrivateKeyDer::from_pem_slice(&pem) {
        Ok(key) => Ok(key),
        Err(rustls::pki_types::pem::Error::NoItemsFound) if files.key == files.certificate => {
            Err(CertificateError::NoKey(format!(
                "{called} contains no private key (PEM): name the file that does"
            )))
        }
        Err(rustls::pki_types::pem::Error::NoItemsFound) => {
            Err(CertificateError::Content(missing(&files.key, &pem, "private key")))
        }
        Err(error) => {
            Err(CertificateError::Content(format!("the private key {called} cannot be used: {error}")))
        }
    }
}

/// Reason why a key cannot be decrypted.
#[derive(Debug)]
enum DecryptError {
    /// The file is damaged.
    Malformed(pkcs8::Error),
    /// A wrong password gives bytes that make no sense.
    Password(pkcs8::Error),
}

impl fmt::Display for DecryptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DecryptError::Malformed(error) => write!(f, "{error}"),
            DecryptError::Password(error) => {
                write!(f, "{error}; is the password in ssl_key_password_file the right one?")
            }
        }
    }
}

/// PKCS #8's form of an encrypted key (RFC 5958 section 3).
fn decrypt(pem: &str, password: &str) -> Result<PrivateKeyDer<'static>, DecryptError> {
    let (_, document) =
        SecretDocument::from_pem(pem).map_err(|error| DecryptError::Malformed(error.into()))?;
    let encrypted =
        EncryptedPrivateKeyInfoRef::try_from(document.as_bytes()).map_err(DecryptError::Malformed)?;
    let decrypted = encrypted.decrypt(password).map_err(DecryptError::Password)?;
    Ok(PrivatePkcs8KeyDer::from(decrypted.as_bytes().to_vec()).into())
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};
    use rustls::crypto::aws_lc_rs;
    use time::{Duration, OffsetDateTime};

    use super::*;

    fn write_pair(certificate: &Path, key: &Path, names: &[&str], days: (i64, i64)) {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.not_before = OffsetDateTime::now_utc() + Duration::days(days.0);
        params.not_after = OffsetDateTime::now_utc() + Duration::days(days.1);
        let pair = KeyPair::generate().unwrap();
        fs::create_dir_all(certificate.parent().unwrap()).unwrap();
        fs::write(certificate, params.self_signed(&pair).unwrap().pem()).unwrap();
        fs::write(key, pair.serialize_pem()).unwrap();
    }

    fn plan(path: &Path) -> TlsPlan {
        TlsPlan {
            certificates: vec![CertificateSource::Folder(path.to_owned())],
            key_password_file: None,
            client_ca: None,
            client_cert_required: false,
            alpn: Vec::new(),
        }
    }

    #[test]
    fn a_folder_is_read_in_the_order_of_names() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        write_pair(&at("c.crt"), &at("c.key"), &["C.example"], (-1, 1));
        write_pair(&at("a/fullchain.pem"), &at("a/privkey.pem"), &["a.example", "*.a.example"], (-1, 1));
        write_pair(&at("b.pem"), &at("b.key"), &["127.0.0.1"], (-1, 1));
        fs::write(at("README"), "").unwrap();
        fs::write(at("d.pem"), "").unwrap();
        let (pairs, warnings) = load(&plan(folder.path()), &aws_lc_rs::default_provider()).unwrap();
        let names: Vec<_> = pairs.into_iter().map(|pair| pair.names).collect();
        assert_eq!(
            names,
            [vec!["a.example".to_owned(), "*.a.example".to_owned()], vec![], vec!["c.example".to_owned()]]
        );
        assert!(warnings.is_empty());
        // One that certbot made for a name may itself be named.
        assert_eq!(load(&plan(&at("a")), &aws_lc_rs::default_provider()).unwrap().0.len(), 1);
    }

    #[test]
    fn a_time_that_is_over_or_not_come_is_a_warning() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        write_pair(&at("a.pem"), &at("a.key"), &["a"], (-9, -1));
        write_pair(&at("b.pem"), &at("b.key"), &["b"], (1, 9));
        let (_, warnings) = load(&plan(folder.path()), &aws_lc_rs::default_provider()).unwrap();
        let [first, second] = warnings.as_slice() else { panic!("{warnings:?}") };
        assert!(first.contains("a.pem") && first.contains("expired on 20"), "{first}");
        assert!(second.contains("b.pem") && second.contains("not valid before 20"), "{second}");
    }

    #[test]
    fn what_is_wrong_is_said_with_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let error = || load(&plan(folder.path()), &aws_lc_rs::default_provider()).unwrap_err().to_string();
        assert!(error().contains("contains no certificate with its key"));
        write_pair(&at("a.pem"), &at("a.key"), &["a"], (-1, 1));
        fs::write(at("a.ocsp"), "text").unwrap();
        assert!(error().contains("a.ocsp\" is not an OCSP response"));
        fs::remove_file(at("a.ocsp")).unwrap();
        fs::write(at("a.key"), KeyPair::generate().unwrap().serialize_pem()).unwrap();
        assert!(error().contains("do not fit"));
        fs::write(at("a.key"), "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n").unwrap();
        assert!(error().contains("cannot be used"));
        for broken in ["", ENCRYPTED_BEGIN, "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n"] {
            fs::write(at("a.key"), broken).unwrap();
            assert!(error().contains("a.key\""), "{broken}");
        }
    }
}
