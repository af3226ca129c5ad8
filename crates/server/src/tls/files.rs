//! Reading what the options of TLS name, and how messages name it.

use std::path::{Path, PathBuf};
use std::{fmt, fs, io};

/// Reason why certificates cannot be used. Its message is one line that names the file.
#[derive(Debug)]
pub enum CertificateError {
    /// The system does not let us read a file or directory.
    Unreadable {
        /// What cannot be read.
        path: PathBuf,
        /// Error of the system.
        error: io::Error,
    },
    /// A file or directory does not contain what it should.
    Content(String),
    /// The settings lack an option that these files need.
    Setting(String),
}

impl fmt::Display for CertificateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CertificateError::Unreadable { path, error } => {
                write!(f, "{} cannot be read: {error}", shown(path))
            }
            CertificateError::Content(message) | CertificateError::Setting(message) => f.write_str(message),
        }
    }
}

impl CertificateError {
    pub(super) fn unreadable(path: &Path, error: io::Error) -> Self {
        CertificateError::Unreadable { path: path.to_owned(), error }
    }
}

/// The content of a file.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, CertificateError> {
    fs::read(path).map_err(|error| CertificateError::unreadable(path, error))
}

/// A path as messages name it.
pub(super) fn shown(path: &Path) -> String {
    format!("{:?}", path.display().to_string())
}
