//! Files of other servers, for `--config` and `anygate import`: what `anygate_migrate` needs of this process.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anygate_config::file::{ForeignError, ForeignSettings};
use anygate_migrate::Around;
use pyo3::prelude::*;

/// The interpreter that runs settings which are a program, and the program that it runs them with.
#[derive(Clone, Debug)]
pub(crate) struct Interpreter {
    python: PathBuf,
    script: PathBuf,
}

impl Interpreter {
    /// That of this process.
    pub(crate) fn find(py: Python<'_>) -> PyResult<Interpreter> {
        let executable: Option<PathBuf> = py.import("sys")?.getattr("executable")?.extract()?;
        let folders: Vec<PathBuf> = py.import("anygate")?.getattr("__path__")?.extract()?;
        let folder = folders.into_iter().next().unwrap_or_default();
        Ok(Interpreter {
            python: executable.unwrap_or_else(|| PathBuf::from("python3")),
            script: folder.join("gunicorn_file.py"),
        })
    }

    pub(crate) fn around<'a>(
        &'a self,
        environment: &'a [(OsString, OsString)],
        folder: &'a Path,
        by_command_line: bool,
    ) -> Around<'a> {
        Around { environment, folder, python: &self.python, script: &self.script, by_command_line }
    }
}

/// Reads a file of another server; returns `None` if it is none.
pub(crate) fn settings(name: &Path, around: &Around<'_>) -> Option<Result<ForeignSettings, ForeignError>> {
    let read = anygate_migrate::file(&name.to_string_lossy(), around)?;
    Some(match read {
        Ok(imported) => Ok(ForeignSettings { values: imported.values(), warnings: imported.warnings() }),
        Err(refused) => Err(ForeignError(refused.to_string())),
    })
}
