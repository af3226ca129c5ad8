//! The process tree: one supervisor, which opens the sockets and starts, watches, replaces and ends workers. It runs no
//! application code and knows neither HTTP nor Python: what a worker does is handed in as a [`WorkerBody`].
//!
//! * [`sockets`]: the listening sockets of a plan. * [`supervisor`]: the supervisor's loop. * [`children`]: its workers.
//! * [`worker_body`]: what a worker is given. * [`board`]: the table in shared memory in which processes report.
//! * [`orders`]: what the assistant can ask. * [`backoff`]: the pause before a dead worker is replaced.
//! * [`recycling`]: workers that are replaced although they serve.
//! * [`scaling`]: the number of workers. * [`load`]: how many it needs.
//! * [`reload`]: a new generation of workers beside the old one. * [`births`]: how processes are started. * [`farewell`]: the end of the assistant.
//! * [`upgrade`]: USR2, which replaces the program. * [`handover`]: what the next program is left.
//! * [`touched`]: files that trigger a reload. * [`sources`]: files of the application that do. * [`template`]: the process that imports a preloaded application or hooks, and forks workers. * [`schedule`]: cron jobs. * [`pid_file`].
//! * [`news`]: what the template is told about the server.
//! * [`daemons`]: programs beside the workers. * [`notify`]: what the service manager is told.
#![forbid(unsafe_code)]

mod backoff;
mod births;
mod board;
mod children;
mod daemons;
mod farewell;
pub mod handover;
mod load;
mod news;
mod notice;
mod notify;
mod orders;
mod pid_file;
mod recycling;
mod reload;
mod scaling;
mod schedule;
pub mod sockets;
mod sources;
mod supervisor;
mod template;
mod touched;
mod upgrade;
mod worker_body;

pub use board::{Counts, Peers, Report, Tree, Worker};
pub use children::SAME_SIGNAL;
pub use notice::{Notice, Reaping};
pub use notify::ServiceManager;
pub use orders::Orders;
pub use pid_file::PidFile;
pub use schedule::Schedule;
pub use supervisor::{Exit, Supervisor};
pub use worker_body::{
    AssistantContext, Birth, Death, Event, Load, News, Reason, Renewed, Tended, Unusable, WorkerBody,
    WorkerContext,
};

/// A worker ends with this when the application cannot be loaded: then another try is no use.
pub const APPLICATION_FAILED: i32 = 3;

/// The same when the application has closed what a worker needs, so that it could not even say so.
pub const DESCRIPTORS_CLOSED: i32 = 5;

/// A worker ends with this when it cannot go on by itself, whatever its application does.
pub const SERVER_FAILED: i32 = 4;
