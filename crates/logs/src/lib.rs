//! Where the lines of logs go: files, pipes, syslog, the journal. Nothing here waits for a reader or a disk: what is not
//! taken is kept for a while, then dropped and counted. How lines look is not decided here.
//!
//! * [`log`]: one log, what waits for it, and what it lost. * [`destination`]: what it is written to.
//! * [`syslog`] and [`journal`]: messages as those who collect them read them. * [`rotation`]: fresh files for full ones.
#![forbid(unsafe_code)]

mod destination;
mod journal;
mod log;
mod rotation;
mod syslog;

pub use destination::Severity;
pub use log::{Held, Kind, News, Outlet};
pub use rotation::Rotation;
