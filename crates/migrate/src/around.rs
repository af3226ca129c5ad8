//! What an importer may look at: the environment, the folder in which anygate is started, and an interpreter.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// What an importer may look at.
#[derive(Clone, Copy, Debug)]
pub struct Around<'a> {
    /// The environment of the command.
    pub environment: &'a [(OsString, OsString)],
    /// Folder that relative paths are relative to.
    pub folder: &'a Path,
    /// Python's program, which runs a `gunicorn.conf.py`.
    pub python: &'a Path,
    /// The program that runs it there: `gunicorn_file.py`.
    pub script: &'a Path,
    /// Whether the command line names the file. Only then its code may run.
    pub by_command_line: bool,
}

impl Around<'_> {
    /// A variable of the environment.
    pub(crate) fn variable(&self, name: &str) -> Option<String> {
        let found = self.environment.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.to_string_lossy().into_owned())
    }

    pub(crate) fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        self.folder.join(path)
    }
}
