//! Reading what the options of TLS name, and how messages name it.

use std::fs;
use std::path::Path;

/// The content of a file.
///
/// Errors: one line that names the file.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, String> {
    fs::read(path).map_err(|error| format!("{} cannot be read: {error}", shown(path)))
}

/// A path as messages name it.
pub(super) fn shown(path: &Path) -> String {
    format!("{:?}", path.display().to_string())
}
