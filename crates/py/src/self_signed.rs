//! `anygate cert`: a certificate that vouches for itself, to try HTTPS with.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::net::IpAddr;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use anygate_config::CertificateTask;
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use time::{Duration, OffsetDateTime};

use crate::refusal::Refusal;

const DAYS: i64 = 365;

/// Writes certificate and key. Returns what to tell the user.
pub(crate) fn make(task: &CertificateTask) -> Result<String, Refusal> {
    let host = task.hosts.iter().find(|host| !is_host(host));
    if let Some(host) = host {
        return Err(Refusal::usage(format!(
            "cert: --host {host:?} is neither a host name nor an IP address"
        )));
    }
    let (certificate, key) = pem(&task.hosts)
        .map_err(|error| Refusal::machine(format!("cert: cannot create the certificate: {error}")))?;
    let (certificate_path, key_path) = (task.folder.join("cert.pem"), task.folder.join("key.pem"));
    for path in [&certificate_path, &key_path] {
        if !task.force && path.symlink_metadata().is_ok() {
            return Err(Refusal::usage(format!(
                "cert: {:?} already exists; choose another directory with --out, or replace it with --force",
                path.display().to_string()
            )));
        }
    }
    fs::create_dir_all(&task.folder).map_err(|error| cannot_write(&task.folder, &error))?;
    write(&key_path, &key, 0o600, task.force)?;
    write(&certificate_path, &certificate, 0o644, task.force)?;
    let (shown, key_shown) = (certificate_path.display(), key_path.display());
    Ok(format!(
        "{shown}: a certificate for {}, valid for {DAYS} days; clients trust it only if they are told to\n\
         {key_shown}: its private key\n\
         serve with it: anygate APP --port 8443 -c {shown} -k {key_shown}\n\
         ask it: curl --cacert {shown} https://{}:8443/\n",
        task.hosts.join(", "),
        task.hosts.first().map_or_else(String::new, |host| match host.parse() {
            Ok(IpAddr::V6(_)) => format!("[{host}]"),
            _ => host.clone(),
        })
    ))
}

/// Labels of letters, digits and hyphens; the first may be a wildcard.
fn is_host(text: &str) -> bool {
    let name = text.strip_prefix("*.").unwrap_or(text);
    let is_label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    text.parse::<IpAddr>().is_ok() || (name.len() <= 253 && name.split('.').all(is_label))
}

fn pem(hosts: &[String]) -> Result<(String, String), rcgen::Error> {
    let mut params = CertificateParams::new(hosts)?;
    let now = OffsetDateTime::now_utc();
    // Clocks differ.
    params.not_before = now - Duration::DAY;
    params.not_after = now + Duration::days(DAYS);
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, hosts.first().map_or("localhost", String::as_str));
    params.is_ca = IsCa::ExplicitNoCa;
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let key = KeyPair::generate()?;
    Ok((params.self_signed(&key)?.pem(), key.serialize_pem()))
}

fn write(path: &Path, text: &str, mode: u32, force: bool) -> Result<(), Refusal> {
    let refused = |error: std::io::Error| cannot_write(path, &error);
    if force {
        match fs::remove_file(path) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(refused(error)),
            _ => {}
        }
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path).map_err(refused)?;
    file.set_permissions(fs::Permissions::from_mode(mode)).map_err(refused)?;
    file.write_all(text.as_bytes()).map_err(refused)
}

fn cannot_write(path: &Path, error: &std::io::Error) -> Refusal {
    Refusal::machine(format!("cert: {:?} cannot be written: {error}", path.display().to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_names_or_addresses() {
        for good in ["localhost", "a.example", "*.a.example", "127.0.0.1", "::1", "xn--e1afmkfd.example"] {
            assert!(is_host(good), "{good}");
        }
        for bad in ["", "a b", "a..b", "-a", "*", "a.*.b", "https://a", "a:80", "\u{e9}.example", "a\n"] {
            assert!(!is_host(bad), "{bad}");
        }
    }
}
