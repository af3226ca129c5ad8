//! `anygate._anygate`: ties everything together for Python. It has no opinions of its own.
//!
//! * [`launch`]: the command line and `anygate.serve`. * [`worker_body`]: what a worker does. * [`reporting`]: what it reports. * [`embedded`]: a server
//!   inside a running program. * [`cgi`]: one request of a CGI server. * [`assistant`]: the process for the admin address.
//! * [`uwsgi`]: what the module of that name shares between workers.
//! * [`reporting`]: what a worker tells its supervisor and the others.
//! * [`hooks`]: the site's functions for events of the server.
//! * [`loading`]: the application, from its target to the bridge. * [`policies`]: what is around it.
//!   * [`ready_check`]: what a site's own check says of a worker. * [`middleware`]: policies under a server of another package.
//! * [`daemon`]: the server in the background. * [`upgrade`]: another program under the same process number. * [`beginning`]: how the program was started. * [`renewal`]: settings that were read anew.
//! * [`apps`]: several applications with processes of their own. * [`app_admin`]: what they tell the admin address.
//! * [`other_servers`]: those servers, which Python starts. * [`web2py`]: what belongs to web2py alone. * [`cron`]: jobs.
//! * [`logs`]: the error log and the access log. * [`error_outlets`]: where messages are written to. * [`forks`]: logs while another server forks. * [`python_logging`]: messages as records of Python.
//! * [`identity`]: user, group and folder. * [`settings`]: keyword arguments.
//!   * [`interpreter`]: what it is asked for beside the application. * [`refusal`]: why nothing runs.
//! * [`doctor`]: `anygate doctor`. * [`control`]: `anygate top` and `anygate ctl`. * [`self_signed`]: certificates to try HTTPS with.
//! * [`comparison`]: `anygate compare`. * [`load`]: load on a server.
#![forbid(unsafe_code)]

mod app_admin;
mod apps;
mod assistant;
mod beginning;
mod cgi;
mod comparison;
mod connection_counts;
mod control;
mod cron;
mod daemon;
mod doctor;
mod embedded;
mod error_outlets;
mod foreign;
mod forks;
mod hooks;
mod identity;
mod interpreter;
mod launch;
mod load;
mod loading;
mod logs;
mod middleware;
mod other_servers;
mod policies;
mod process_counts;
mod python_logging;
mod ready_check;
mod refusal;
mod renewal;
mod reporting;
mod self_signed;
mod settings;
mod sources;
mod stacks;
mod statsd;
mod telemetry;
mod upgrade;
mod uwsgi;
mod web2py;
mod worker_body;

/// The native half of anygate. Use the package `anygate`.
#[pyo3::pymodule(gil_used = true)]
mod _anygate {
    #[pymodule_export]
    use super::embedded::Server;
    #[pymodule_export]
    use super::interpreter::{interrupt_while, raise_in_thread, stop_interrupting};
    #[pymodule_export]
    use super::launch::{main, name_job, serve};
    #[pymodule_export]
    use super::load::put_load;
    #[pymodule_export]
    use super::logs::{log_message, log_record};
    #[pymodule_export]
    use super::middleware::{Exchange, Site, is_for_this_machine};
    #[pymodule_export]
    use super::settings::mount_places;
    #[pymodule_export]
    use anygate_wsgi::{FileWrapper, WebSocket, WebSocketError};

    #[pymodule_export]
    #[expect(non_upper_case_globals, reason = "Python's name for it")]
    const __version__: &str = anygate_config::VERSION;
}
