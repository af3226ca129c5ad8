//! Jobs at given minutes, each exactly once whatever number of processes looks: web2py's crontabs and the entries of
//! the configuration. Nothing here makes threads or waits; the owner calls [`Scheduler::tick`] and reaps children.
//!
//! * [`crontab`]: what the lines of a web2py crontab say, and [`fields`] their times.
//! * `folder`: which crontabs there are. * [`entry`]: what the configuration gives, and what a job is.
//! * `schedule`: minutes, zones, and when a job is due. * `state`: what is remembered, in a file that processes share.
//! * `claim`: who gets a minute; [`nodes`]: which node of a site does. * `running`: processes and their output.
//! * [`scheduler`]: the whole. * [`mod@once`]: one pass and its end. * [`mod@list`]: what there is and how it went.
#![forbid(unsafe_code)]

mod claim;
pub mod crontab;
pub mod entry;
mod error;
pub mod fields;
mod folder;
pub mod list;
pub mod nodes;
pub mod once;
mod running;
mod schedule;
pub mod scheduler;
mod state;
#[cfg(test)]
mod testing;

pub use entry::{Crontabs, Sources};
pub use error::Error;
pub use list::{JobStatus, list, table};
pub use nodes::{Nodes, Share};
pub use once::once;
pub use scheduler::{Scheduler, Summary};
