//! The admin address: an application of our own, in Rust, that tells about all processes and passes orders on. It runs in
//! the supervisor's assistant, so it responds whatever the workers do. How processes are found and steered is handed in
//! as [`Processes`]; sockets, processes and Python are not known here.
//!
//! * [`application`]: requests and responses of the admin address. [`About`]: facts about the server.
//! * [`guard`]: who may ask. * [`processes`]: the tree as it is seen here.
//! * `apps`: what applications of a router tell. * `status`: the figures as JSON, and `page.html`, which draws them. * [`uwsgi`]: the same in uWSGI's form.
//! * [`history`]: the figures of the last hour.
//! * [`statsd`]: the same as lines for a StatsD server.
#![forbid(unsafe_code)]

mod about;
pub mod application;
mod apps;
pub mod guard;
pub mod history;
pub mod processes;
pub mod statsd;
mod status;
pub mod uwsgi;

pub use about::About;
pub use application::Admin;
pub use apps::AppReport;
pub use guard::Guard;
pub use history::History;
pub use processes::{Processes, Worker};
pub use statsd::Statsd;
