//! Temporary files for bodies that are too large for memory: made unlinked, so that nothing is left behind however
//! the worker ends.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

/// Folders for temporary files where the one that was named cannot be used, in the order in which they are tried.
const FOLDERS: [&str; 3] = ["/tmp", "/var/tmp", "/usr/tmp"];

/// Said once: bodies that should go to a file stay in memory, or wait.
static FAILED: AtomicBool = AtomicBool::new(false);

/// An unlinked file in `folder`, which [`usable_folder`] found, or in the system's.
pub(crate) fn file(folder: Option<&Path>) -> io::Result<File> {
    match folder {
        Some(folder) => tempfile::tempfile_in(folder),
        None => tempfile::tempfile(),
    }
}

/// The folder for temporary files: `named`, which is that of the settings or the environment (TMPDIR), or the first other one
/// that can be used. Says so if it is another one.
pub(crate) fn usable_folder(named: Option<&Path>) -> Option<PathBuf> {
    let wanted = named.map_or_else(std::env::temp_dir, Path::to_owned);
    let error = match tempfile::tempfile_in(&wanted) {
        Ok(_) => return Some(wanted),
        Err(error) => error,
    };
    let setting = if named.is_some() { "temp_dir" } else { "TMPDIR" };
    let found = FOLDERS.iter().map(PathBuf::from).find(|folder| tempfile::tempfile_in(folder).is_ok());
    match &found {
        Some(folder) => tracing::warn!(
            "temporary files cannot be made in {} ({setting}): {error}; they are made in {}",
            wanted.display(),
            folder.display()
        ),
        None => tracing::error!(
            "temporary files cannot be made in {} ({setting}): {error}; large bodies stay in memory or are refused",
            wanted.display()
        ),
    }
    found.or(Some(wanted))
}

/// Says, once, that a temporary file could not be made or written.
pub(crate) fn note_failure(error: &io::Error) {
    if !FAILED.swap(true, Ordering::Relaxed) {
        tracing::error!(
            "cannot write a temporary file: {error}; responses wait for their clients, and large request bodies may be refused"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_is_not_there_is_replaced() {
        let folder = usable_folder(Some(Path::new("/nonexistent/folder"))).unwrap();
        assert!(FOLDERS.iter().any(|known| folder == Path::new(known)));
        file(Some(&folder)).unwrap();
    }
}
