//! What an application is told about its server: the part of the environ that is the same in all of them.

use std::time::Duration;

use anygate_proto::local_host::LocalHosts;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::errors::{ErrorSink, ErrorStream};
use crate::file_wrapper::FileWrapper;

/// Facts about the server for the application.
pub struct Options {
    /// SERVER_SOFTWARE.
    pub software: String,
    /// `wsgi.multithread`: another thread of this process may call the same application.
    pub multithread: bool,
    /// `wsgi.multiprocess`: another process may.
    pub multiprocess: bool,
    /// `wsgi.run_once`: this process serves one request only.
    pub run_once: bool,
    /// Destination of `wsgi.errors`.
    pub errors: ErrorSink,
    /// Time after which a WebSocket that the application holds and does not use is accepted.
    pub websocket_accept_after: Option<Duration>,
    /// Called as `on_error(environ, exc_info)` when the application raises.
    pub on_error: Option<Py<PyAny>>,
    /// Called without arguments when a request has taken longer than it may.
    pub on_overdue: Option<Py<PyAny>>,
    /// Clients on this machine see what it raises, under these names of it.
    pub debug: Option<LocalHosts>,
    /// Whether templates of paths are wanted, which the application may put into its environ.
    pub routes: bool,
    /// Their pages have a script that loads them anew.
    pub page_reload: bool,
}

/// Returns the part that is the same in every environ.
pub(crate) fn template(py: Python<'_>, options: Options) -> PyResult<Bound<'_, PyDict>> {
    let template = PyDict::new(py);
    template.set_item("GATEWAY_INTERFACE", "CGI/1.1")?;
    template.set_item("SERVER_SOFTWARE", options.software)?;
    template.set_item("wsgi.version", (1, 0))?;
    template.set_item("wsgi.errors", Bound::new(py, ErrorStream::new(options.errors))?)?;
    template.set_item("wsgi.multithread", options.multithread)?;
    template.set_item("wsgi.multiprocess", options.multiprocess)?;
    template.set_item("wsgi.run_once", options.run_once)?;
    template.set_item("wsgi.input_terminated", true)?;
    template.set_item("wsgi.file_wrapper", py.get_type::<FileWrapper>())?;
    Ok(template)
}
