//! What `reload` needs: the files that workers import, of which the supervisor is told, what serves while they cannot be
//! imported, and the version of the application that open pages compare.

use std::io::{self, PipeReader, PipeWriter};
use std::os::fd::AsRawFd;

use anygate_config::Plan;
use anygate_policy::page_reload::PageReload;
use anygate_proto::local_host::LocalHosts;
use pyo3::prelude::*;

use crate::loading::{load_or_explain, with_traceback};

/// What workers tell of the application's files.
pub(crate) struct Sources {
    /// The paths.
    pipe: PipeWriter,
    /// Version of the application that workers import now.
    version: String,
}

impl Sources {
    /// Makes the two ends: the supervisor's, and that of workers.
    pub(crate) fn new() -> io::Result<(PipeReader, Sources)> {
        let (told, pipe) = io::pipe()?;
        Ok((told, Sources { pipe, version: version()? }))
    }

    /// Workers that start from now on import another version.
    ///
    /// Errors: there are no random numbers.
    pub(crate) fn renew(&mut self) -> io::Result<()> {
        self.version = version()?;
        Ok(())
    }

    /// What pages of this version have.
    pub(crate) fn page_reload(&self, plan: &Plan) -> PageReload {
        PageReload::new(&self.version, LocalHosts::new(plan.local_hosts()))
    }

    /// Loads the application, and tells of its files. If it cannot be loaded, which is said, returns one that shows why, and
    /// true.
    pub(crate) fn load(&self, py: Python<'_>, plan: &Plan) -> Option<(Py<PyAny>, bool)> {
        let pipe = self.pipe.as_raw_fd();
        let sources = || py.import("anygate.sources");
        let told =
            sources().and_then(|module| module.call_method1("tell", (pipe, &plan.process.reload_files)));
        if let Err(error) = told {
            tracing::error!("reload: changes are not seen: {error}");
        }
        let error = match load_or_explain(py, plan) {
            Ok(application) => return Some((application, false)),
            Err(error) => error,
        };
        let failing = || {
            let error = with_traceback(py, &error);
            sources()?.call_method1("tell_missing", (pipe, &error))?;
            sources()?.call_method1("failing", (error,))
        };
        match failing() {
            Ok(application) => {
                tracing::warn!("reload: clients on this machine see why, until a save mends it");
                Some((application.unbind(), true))
            }
            Err(error) => {
                tracing::error!("reload: {error}");
                None
            }
        }
    }
}

/// A version that no other has, whenever the server was started.
fn version() -> io::Result<String> {
    Ok(format!("{:016x}", getrandom::u64()?))
}
