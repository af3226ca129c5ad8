//! Files of certificates that change while they are used. No signal is needed when they are renewed (certbot lets
//! symbolic links point to new files, one after the other).

use std::fs::File;
use std::io::ErrorKind;
use std::path::PathBuf;

use anygate_config::CertificateSource;

use super::Tls;
use super::snapshot::{Snapshot, paths};

/// Takes in what changed.
pub(crate) struct Renewal {
    /// State of the files that were last read.
    used: Snapshot,
    last: Snapshot,
    /// Whether this process may read the files at all.
    may: bool,
}

impl Renewal {
    pub(crate) fn new(tls: &Tls) -> Renewal {
        let plan = &tls.0.plan;
        let sources = plan.certificates.iter().flat_map(|source| match source {
            CertificateSource::Files { certificate, key } => vec![certificate.clone(), key.clone()],
            CertificateSource::Folder(folder) => vec![folder.clone()],
        });
        // A file that is not there at this moment may be about to be replaced.
        let is_denied =
            |path: PathBuf| File::open(path).is_err_and(|error| error.kind() == ErrorKind::PermissionDenied);
        let may = !sources.chain(paths(plan)).any(is_denied);
        if !may {
            // They were read before the worker gave its rights up.
            tracing::info!("workers cannot read the certificate files: send HUP when they have changed");
        }
        Renewal { used: tls.0.snapshot.clone(), last: Snapshot::of(plan), may }
    }

    /// To be called from time to time. Files that changed are read when they look the same twice: the
    /// change is complete then.
    pub(crate) fn look(&mut self, tls: &Tls) {
        if !self.may {
            return;
        }
        let now = Snapshot::of(&tls.0.plan);
        let is_settled = now == self.last;
        self.last = now;
        if !is_settled || self.last == self.used {
            return;
        }
        self.used = self.last.clone();
        match tls.reload() {
            Ok(warnings) => {
                tracing::info!("the certificates have changed; new connections use the new ones");
                warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
            }
            Err(error) => {
                tracing::error!("the certificates have changed, but the old ones are kept: {error}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::sync::Arc;

    use anygate_config::TlsPlan;

    use super::*;
    use crate::tls::Tickets;

    fn write_pair(folder: &Path) {
        let pair = rcgen::generate_simple_self_signed(["a.example".to_owned()]).unwrap();
        fs::create_dir_all(folder).unwrap();
        fs::write(folder.join("a.pem"), pair.cert.pem()).unwrap();
        fs::write(folder.join("a.key"), pair.signing_key.serialize_pem()).unwrap();
    }

    #[test]
    fn certificates_that_are_away_when_a_worker_starts_are_read_when_they_are_back() {
        let folder = tempfile::tempdir().unwrap();
        let pairs = folder.path().join("pairs");
        write_pair(&pairs);
        let plan = TlsPlan {
            certificates: vec![CertificateSource::Folder(pairs.clone())],
            key_password_file: None,
            client_ca: None,
            client_cert_required: false,
            alpn: Vec::new(),
        };
        let tls = Tls::load(&plan, &Tickets::new().unwrap()).unwrap();
        let first = Arc::clone(&tls.0.current.lock());
        fs::remove_dir_all(&pairs).unwrap();
        let mut renewal = Renewal::new(&tls);
        renewal.look(&tls);
        assert!(Arc::ptr_eq(&first, &tls.0.current.lock()));
        write_pair(&pairs);
        renewal.look(&tls);
        renewal.look(&tls);
        assert!(!Arc::ptr_eq(&first, &tls.0.current.lock()));
    }
}
