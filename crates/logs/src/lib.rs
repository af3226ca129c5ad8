//! Writes log lines to files, pipes, syslog and the journal. Nothing here waits for a reader or a disk: lines that cannot be
//! written at once are queued up to a limit, then dropped and counted. Callers decide how lines look.
//!
//! * [`log`]: one log, its queue and its losses. * [`destination`]: what it is written to. * [`Severity`]: how bad a message is.
//! * [`recognisable`]: no message looks like another one.
//! * [`syslog`], [`journal`], [`json`] and [`layout`]: their message formats. * [`rotation`]: moves full files away and starts new ones.
#![forbid(unsafe_code)]

mod destination;
mod journal;
mod json;
mod layout;
mod log;
mod recognisable;
mod rotation;
mod severity;
mod syslog;

pub use layout::plain;
pub use log::{Held, Kind, News, Outlet};
pub use recognisable::{message, one_line};
pub use rotation::Rotation;
pub use severity::Severity;
