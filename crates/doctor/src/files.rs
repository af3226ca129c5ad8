//! Files that the settings name: certificates and their end, and secrets that others may read.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anygate_config::{CertificateSource, Plan};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::parse_x509_certificate;

use crate::finding::Finding;

/// A certificate that ends sooner should have been renewed: ACME clients do so a month before.
const SOON: Duration = Duration::from_secs(14 * 86400);

/// Looks at the files of a plan.
pub fn check(plan: &Plan, now: SystemTime) -> Vec<Finding> {
    let mut found = Vec::new();
    for (certificate, key) in pairs(plan) {
        if let Some((problem, cure)) = lifetime(&certificate, now) {
            found.push(Finding {
                file: Some(shown(&certificate)),
                ..Finding::new("ssl_certificate", problem, cure)
            });
        }
        secret("ssl_private_key", &key, &mut found);
    }
    let password = plan.tls.as_ref().and_then(|tls| tls.key_password_file.as_ref());
    for (topic, file) in
        [("ssl_key_password_file", password), ("admin_token_file", plan.admin.token_file.as_ref())]
    {
        if let Some(file) = file {
            secret(topic, file, &mut found);
        }
    }
    found
}

/// Certificates and their keys, those of folders as files that end in `.pem` or `.crt`.
fn pairs(plan: &Plan) -> Vec<(PathBuf, PathBuf)> {
    let mut pairs = Vec::new();
    for source in plan.tls.iter().flat_map(|tls| &tls.certificates) {
        match source {
            CertificateSource::Files { certificate, key } => pairs.push((certificate.clone(), key.clone())),
            CertificateSource::Folder(folder) => {
                // A folder that cannot be read keeps the server from starting, with a message.
                for path in folder.read_dir().into_iter().flatten().flatten().map(|entry| entry.path()) {
                    let key = path.with_extension("key");
                    match path.extension().and_then(|ending| ending.to_str()) {
                        Some("crt") => pairs.push((path.clone(), key)),
                        Some("pem") => pairs.push((path.clone(), if key.exists() { key } else { path })),
                        _ => {}
                    }
                }
            }
        }
    }
    pairs
}

/// What is wrong with the period of validity of the first certificate of a file, and the cure.
fn lifetime(file: &Path, now: SystemTime) -> Option<(String, &'static str)> {
    let certificate = CertificateDer::from_pem_file(file).ok()?;
    let (_, certificate) = parse_x509_certificate(&certificate).ok()?;
    let validity = certificate.validity();
    let now = i64::try_from(now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()).ok()?;
    let left = validity.not_after.timestamp() - now;
    if validity.not_before.timestamp() > now {
        return Some((format!("is not valid before {}", validity.not_before), "look at the clock: date"));
    }
    if left < 0 {
        return Some((
            format!("ended on {}: clients refuse it", validity.not_after),
            "renew it, for example with certbot renew",
        ));
    }
    let is_soon = left < i64::try_from(SOON.as_secs()).ok()?;
    is_soon.then(|| {
        let days = left / 86400;
        (
            format!("ends in {days} {}", if days == 1 { "day" } else { "days" }),
            "look why it is not renewed: certbot renew --dry-run",
        )
    })
}

/// A secret that others than its owner and its group can read.
fn secret(topic: &str, file: &Path, found: &mut Vec<Finding>) {
    let Ok(facts) = fs::metadata(file) else { return };
    let mode = facts.permissions().mode() & 0o777;
    if mode & 0o007 != 0 {
        found.push(Finding {
            file: Some(shown(file)),
            ..Finding::new(
                topic,
                format!("every user of this machine may read it ({mode:o})"),
                format!("chmod 600 {}", shown(file)),
            )
        });
    }
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};
    use time::OffsetDateTime;

    use super::*;

    #[test]
    fn a_certificate_is_judged_by_its_days() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cert.pem");
        for (from, to, problem) in [
            (-10, 90, None),
            (-10, 3, Some("ends in ")),
            (-10, -1, Some("ended on ")),
            (2, 90, Some("is not valid before ")),
        ] {
            let mut params = CertificateParams::new(vec!["example.org".to_owned()]).unwrap();
            params.not_before = OffsetDateTime::now_utc() + time::Duration::days(from);
            params.not_after = OffsetDateTime::now_utc() + time::Duration::days(to);
            let made = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
            fs::write(&path, made.pem()).unwrap();
            let found = lifetime(&path, SystemTime::now());
            let found = found.as_ref().map(|(text, _)| text.as_str());
            assert!(
                match problem {
                    None => found.is_none(),
                    Some(start) => found.is_some_and(|text| text.starts_with(start)),
                },
                "{found:?}"
            );
        }
    }

    #[test]
    fn a_secret_is_for_its_owner() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key.pem");
        fs::write(&path, "").unwrap();
        for (mode, count) in [(0o600, 0), (0o640, 0), (0o644, 1)] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let mut found = Vec::new();
            secret("ssl_private_key", &path, &mut found);
            assert_eq!(found.len(), count, "{mode:o}");
        }
    }
}
