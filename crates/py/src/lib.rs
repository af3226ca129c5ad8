//! `anygate._anygate`: ties everything together for Python. It has no opinions of its own.
//!
//! * [`launch`]: the command line and `anygate.serve`. * [`worker_body`]: what a worker does. * [`embedded`]: a server
//!   inside a running program. * [`cgi`]: one request of a CGI server. * [`logs`]: the error log and the access log.
//! * [`self_signed`]: certificates to try HTTPS with. * [`cron`]: jobs. * [`settings`]: keyword arguments.
//! * [`other_servers`]: servers of other packages, which Python starts.
//! * [`ready_check`]: what a site's own check says of a worker.
//! * [`policies`]: what is around the application. [`middleware`]: the same under a server of another package.
//! * [`assistant`]: the process for the admin address. * [`control`]: asks it.
#![forbid(unsafe_code)]

mod assistant;
mod cgi;
mod control;
mod cron;
mod embedded;
mod launch;
mod logs;
mod middleware;
mod other_servers;
mod policies;
mod ready_check;
mod self_signed;
mod settings;
mod worker_body;

/// The native half of anygate. Use the package `anygate`.
#[pyo3::pymodule(gil_used = true)]
mod _anygate {
    #[pymodule_export]
    use super::embedded::Server;
    #[pymodule_export]
    use super::launch::{main, serve};
    #[pymodule_export]
    use super::middleware::{Exchange, Site};
    #[pymodule_export]
    use anygate_wsgi::{FileWrapper, WebSocket, WebSocketError};

    #[pymodule_export]
    #[expect(non_upper_case_globals, reason = "Python's name for it")]
    const __version__: &str = anygate_config::VERSION;
}
