//! The files that workers import, of which the supervisor is told for `reload`, and what serves while they cannot be imported.

use std::io::{self, PipeReader, PipeWriter};
use std::os::fd::AsRawFd;
use std::sync::atomic::Ordering;

use anygate_config::Plan;
use anygate_sys::shared::Board;
use pyo3::prelude::*;

use crate::loading::load_or_explain;

/// What workers tell of the application's files.
pub(crate) struct Sources {
    /// The paths.
    pipe: PipeWriter,
    /// Whether any worker has imported the application: then there is one that serves.
    imported: Board,
}

impl Sources {
    /// Makes the two ends: the supervisor's, and that of workers.
    pub(crate) fn new() -> io::Result<(PipeReader, Sources)> {
        let (told, pipe) = io::pipe()?;
        Ok((told, Sources { pipe, imported: Board::new(1, 1)? }))
    }

    /// Loads the application, and tells of its files. If it cannot be loaded, which is said, and never was, returns one that
    /// shows why, and true.
    pub(crate) fn load(&self, py: Python<'_>, plan: &Plan) -> Option<(Py<PyAny>, bool)> {
        let pipe = self.pipe.as_raw_fd();
        let sources = || py.import("anygate.sources");
        let told =
            sources().and_then(|module| module.call_method1("tell", (pipe, &plan.process.reload_files)));
        if let Err(error) = told {
            tracing::error!("reload: changes are not seen: {error}");
        }
        let imported = self.imported.cell(0, 0)?;
        let error = match load_or_explain(py, plan) {
            Ok(application) => {
                imported.store(1, Ordering::Release);
                return Some((application, false));
            }
            Err(error) => error,
        };
        let failing = || {
            sources()?.call_method1("tell_missing", (pipe, error.value(py)))?;
            sources()?.call_method1("failing", (error.value(py),))
        };
        match failing() {
            _ if imported.load(Ordering::Acquire) != 0 => None,
            Ok(application) => Some((application.unbind(), true)),
            Err(error) => {
                tracing::error!("reload: {error}");
                None
            }
        }
    }
}
