//! The file that holds the supervisor's process number. A lock tells whether that supervisor runs: the number alone may be
//! that of another program by now.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use anygate_sys::lock;

/// The file; it is removed when this is dropped in the process that wrote it.
#[derive(Debug)]
pub struct PidFile {
    path: PathBuf,
    pid: u32,
    /// Has the lock, which processes that are forked from here do not have.
    file: File,
}

impl PidFile {
    /// Writes the file. One that an ended supervisor left is replaced.
    ///
    /// Errors: the system refuses it, or the file is not ours to replace.
    pub fn write(path: PathBuf) -> Result<PidFile, PidFileError> {
        let failed =
            |step: &'static str, error: io::Error| PidFileError::System { step, path: path.clone(), error };
        let pid = std::process::id();
        let file = loop {
            let mut file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .open(&path)
                .map_err(|error| failed("open", error))?;
            let mut text = String::new();
            file.read_to_string(&mut text).map_err(|error| failed("read", error))?;
            match lock::for_process(&file) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Err(PidFileError::Running { pid: text.trim().to_owned(), path });
                }
                Err(error) => return Err(failed("lock", error)),
            }
            if !is_at(&file, &path) {
                // Its owner ended and removed it meanwhile.
                continue;
            }
            if !text.trim().bytes().all(|byte| byte.is_ascii_digit()) {
                return Err(PidFileError::NotOurs { path });
            }
            file.set_len(0)
                .and_then(|()| file.rewind())
                .and_then(|()| file.write_all(format!("{pid}\n").as_bytes()))
                .map_err(|error| failed("write", error))?;
            break file;
        };
        Ok(PidFile { path, pid, file })
    }
}

impl AsFd for PidFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Reason why a pid file cannot be written.
#[derive(Debug)]
pub enum PidFileError {
    /// The system refused a step.
    System {
        /// What was tried: a verb.
        step: &'static str,
        /// The file.
        path: PathBuf,
        /// Error of the system.
        error: io::Error,
    },
    /// The process that wrote the file still runs.
    Running {
        /// Its number.
        pid: String,
        /// The file.
        path: PathBuf,
    },
    /// The file contains something else, so the setting names a wrong file.
    NotOurs {
        /// The file.
        path: PathBuf,
    },
}

impl fmt::Display for PidFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PidFileError::System { step, path, error } => {
                write!(f, "cannot {step} {}: {error}", path.display())
            }
            PidFileError::Running { pid, path } => write!(
                f,
                "{} belongs to the running process {pid}; stop it or name another file",
                path.display()
            ),
            PidFileError::NotOurs { path } => {
                write!(f, "{} holds something else than a process number; name another file", path.display())
            }
        }
    }
}

/// Whether `path` still is this very file.
fn is_at(file: &File, path: &std::path::Path) -> bool {
    match (file.metadata(), fs::metadata(path)) {
        (Ok(open), Ok(named)) => (open.dev(), open.ino()) == (named.dev(), named.ino()),
        _ => false,
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        // A file that was put in its place is not ours to remove.
        if std::process::id() == self.pid
            && is_at(&self.file, &self.path)
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::warn!("cannot remove {}: {error}", self.path.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_a_stranger_is_replaced_and_other_text_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pid");
        for left in ["1\n", "2147483646\n", "", "99999999999999999999"] {
            fs::write(&path, left).unwrap();
            let file = PidFile::write(path.clone()).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), format!("{}\n", std::process::id()));
            drop(file);
            assert!(!path.exists());
        }
        fs::write(&path, "listen = 80\n").unwrap();
        assert!(matches!(PidFile::write(path.clone()), Err(PidFileError::NotOurs { .. })));
        assert_eq!(fs::read_to_string(&path).unwrap(), "listen = 80\n");
    }

    #[test]
    fn a_file_in_its_place_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pid");
        let file = PidFile::write(path.clone()).unwrap();
        fs::remove_file(&path).unwrap();
        fs::write(&path, "7\n").unwrap();
        drop(file);
        assert_eq!(fs::read_to_string(&path).unwrap(), "7\n");
    }
}
