//! Temporary files for bodies that are too large for memory: made unlinked, so that nothing is left behind however
//! the worker ends.

use std::fs::File;
use std::io;
use std::path::Path;

/// An unlinked file in `dir`, or in the system's folder for temporary files.
pub(crate) fn file(dir: Option<&Path>) -> io::Result<File> {
    match dir {
        Some(dir) => tempfile::tempfile_in(dir),
        None => tempfile::tempfile(),
    }
}
