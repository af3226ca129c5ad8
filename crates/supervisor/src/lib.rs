//! The process tree: one supervisor, which opens the sockets and starts, watches, replaces and ends workers. It runs no
//! application code and knows neither HTTP nor Python: what a worker does is handed in as a [`WorkerBody`].
//!
//! * [`sockets`]: what the binds of a plan become. * [`supervisor`]: the supervisor's loop.
//! * [`children`]: the workers it has. * [`worker_body`]: what a worker is given. * [`backoff`]: how soon to replace the dead.
//! * [`schedule`]: jobs at given minutes. * [`pid_file`]. * [`inherit`]: what passes to the next program when a preloaded application is reloaded.
#![forbid(unsafe_code)]

mod backoff;
mod children;
pub mod inherit;
mod pid_file;
mod schedule;
pub mod sockets;
mod supervisor;
mod worker_body;

pub use pid_file::PidFile;
pub use schedule::Schedule;
pub use supervisor::{Exit, Supervisor};
pub use worker_body::{
    AssistantContext, Counts, Death, Event, Order, Orders, Peers, Report, Restart, Tended, Tree, Worker,
    WorkerBody, WorkerContext, WorkerStage,
};

/// A worker ends with this when the application cannot be loaded: then another try is no use.
pub const APPLICATION_FAILED: i32 = 3;
