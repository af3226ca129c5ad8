//! Files of certificates that change while they are used. Whoever renews them (certbot lets symbolic links point to new
//! files, one after the other) need not tell us.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anygate_config::TlsPlan;

use super::{Tls, certificates};

/// Which files there are, and when each was last changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Look(Vec<Option<Seen>>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    file: (u64, u64),
    changed: (i64, i64),
    bytes: u64,
}

impl Look {
    pub(crate) fn at(plan: &TlsPlan) -> Look {
        Look(paths(plan).iter().map(|path| Seen::at(path)).collect())
    }
}

impl Seen {
    fn at(path: &Path) -> Option<Seen> {
        // What a link points to, not the link.
        let found = fs::metadata(path).ok()?;
        Some(Seen {
            file: (found.dev(), found.ino()),
            changed: (found.mtime(), found.mtime_nsec()),
            bytes: found.len(),
        })
    }
}

/// Takes in what changed.
pub(crate) struct Renewal {
    /// What was read last.
    used: Look,
    last: Look,
    /// Whether this process may read the files at all.
    may: bool,
}

impl Renewal {
    pub(crate) fn new(tls: &Tls) -> Renewal {
        let paths = paths(&tls.0.plan);
        let may = !paths.is_empty() && paths.iter().all(|path| File::open(path).is_ok());
        if !may {
            // They were read before the worker gave its rights up.
            tracing::info!(
                "workers may not read the files of the certificates: send HUP when they have changed"
            );
        }
        Renewal { used: tls.0.look.clone(), last: Look::at(&tls.0.plan), may }
    }

    /// To be called from time to time. Files that changed are read when they look the same twice: whoever changes them is
    /// done then.
    pub(crate) fn look(&mut self, tls: &Tls) {
        if !self.may {
            return;
        }
        let now = Look::at(&tls.0.plan);
        let is_settled = now == self.last;
        self.last = now;
        if !is_settled || self.last == self.used {
            return;
        }
        self.used = self.last.clone();
        match tls.reload() {
            Ok(warnings) => {
                tracing::info!("the certificates have changed; new connections get the new ones");
                warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
            }
            Err(error) => tracing::error!("the certificates have changed, but the old ones stay: {error}"),
        }
    }
}

/// All files that the certificates are made of.
fn paths(plan: &TlsPlan) -> Vec<PathBuf> {
    let others = [&plan.client_ca, &plan.key_password_file].into_iter().flatten().cloned();
    // A folder that cannot be read looks like an empty one; reading it says why.
    let pairs = certificates::files(plan).unwrap_or_default();
    let staples = |path: &PathBuf| path.symlink_metadata().is_ok();
    let own = pairs.into_iter().flat_map(|files| {
        [Some(files.certificate), Some(files.key), Some(files.staple).filter(staples)].into_iter().flatten()
    });
    own.chain(others).collect()
}
