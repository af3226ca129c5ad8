//! Files of certificates that change while they are used. No signal is needed when they are renewed (certbot lets
//! symbolic links point to new files, one after the other).

use std::fs::File;

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
        let paths = paths(&tls.0.plan);
        let may = !paths.is_empty() && paths.iter().all(|path| File::open(path).is_ok());
        if !may {
            // They were read before the worker gave its rights up.
            tracing::info!("workers cannot read the certificate files: send HUP when they have changed");
        }
        Renewal { used: tls.0.snapshot.clone(), last: Snapshot::of(&tls.0.plan), may }
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
