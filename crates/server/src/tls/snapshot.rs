//! What the files of certificates look like at some time, to notice that they have changed.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anygate_config::TlsPlan;

use super::certificates;

/// Which files there are, and when each was last changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Snapshot(Vec<Option<Seen>>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    file: (u64, u64),
    changed: (i64, i64),
    bytes: u64,
}

impl Snapshot {
    pub(super) fn of(plan: &TlsPlan) -> Snapshot {
        Snapshot(paths(plan).iter().map(|path| Seen::at(path)).collect())
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

/// All files that the certificates are made of.
pub(super) fn paths(plan: &TlsPlan) -> Vec<PathBuf> {
    let others = [&plan.client_ca, &plan.key_password_file].into_iter().flatten().cloned();
    // A folder that cannot be read looks like an empty one; reading it says why.
    let pairs = certificates::files(plan).unwrap_or_default();
    let staples = |path: &PathBuf| path.symlink_metadata().is_ok();
    let own = pairs.into_iter().flat_map(|files| {
        [Some(files.certificate), Some(files.key), Some(files.staple).filter(staples)].into_iter().flatten()
    });
    own.chain(others).collect()
}
